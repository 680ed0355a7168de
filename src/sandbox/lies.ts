/**
 * Lies switched on by kind of object: rows that lists leave out, reads by id that know an object not yet or not
 * any more. Lists and reads of the real services come from replicas; no vendor says how far behind. Writes always
 * meet the truth. Times are wall clock, as with faults.
 */
import type { Clock } from "./clock.ts";
import type { Chance } from "./random.ts";
import type { Versions } from "./versions.ts";

const kinds = ["secrets", "provider-configs", "openai-keys", "anthropic-keys", "google-keys"] as const;
/** What can be lied about. */
export type LieAbout = (typeof kinds)[number];

const modes = ["missing", "not-found", "stale"] as const;
type LieMode = (typeof modes)[number];

interface Lie {
  id: number;
  about: LieAbout;
  /** `missing`: lists leave the row out. `not-found`: a read by id finds nothing. `stale`: it finds what was `agoMs` ago. */
  mode: LieMode;
  /** Regular expression on the object's id and names; absent: each of them. */
  which?: string;
  /** How probable the lie is, for each row of each list and for each read. */
  odds: number;
  /** Lists and reads that it would change, to let pass first. */
  skip: number;
  /** How many to change then; absent: all, until cleared. */
  times?: number;
  /** How long it is told; absent: until cleared. */
  forMs?: number;
  /** For `stale`. */
  agoMs: number;
  matched: number;
  hits: number;
}

interface Told {
  lie: Lie;
  which: RegExp | undefined;
  until: number;
}

export interface Lies {
  /** Adds a lie; a string says why it was refused. */
  add(input: unknown): Lie | string;
  list(): Lie[];
  clear(id?: number): void;
  /** The rows that a list shows. `names` are the id and the names of a row. */
  shown<Row>(about: LieAbout, rows: readonly Row[], names: (row: Row) => string[]): Row[];
  /** What a read by id finds: as `get` of the versions, unless there is a lie about it. */
  read<Value>(
    about: LieAbout,
    versions: Versions<Value>,
    id: string,
    names: (value: Value) => string[],
  ): Value | undefined;
  /** As of when a read by id finds an object; undefined where it finds none. */
  moment(about: LieAbout, names: readonly string[]): number | undefined;
}

export function createLies(clock: Clock, chance: Chance): Lies {
  let told: Told[] = [];
  let lastId = 0;

  const open = (about: LieAbout, wanted: (mode: LieMode) => boolean): Told[] =>
    told.filter(
      ({ lie, until }) =>
        lie.about === about &&
        wanted(lie.mode) &&
        clock.now() < until &&
        (lie.times === undefined || lie.hits < lie.times),
    );
  /** Whether a lie that has something to lie about is told this time; counted. */
  const isTold = ({ lie }: Told): boolean => {
    lie.matched++;
    if (lie.matched <= lie.skip) return false;
    lie.hits++;
    return true;
  };
  const fits = ({ which }: Told, names: readonly string[]): boolean =>
    which === undefined || names.some((name) => which.test(name));
  const lucky = ({ lie }: Told): boolean => lie.odds >= 1 || chance() < lie.odds;

  function moment(about: LieAbout, names: readonly string[]): number | undefined {
    for (const one of open(about, (mode) => mode !== "missing")) {
      if (!fits(one, names) || !lucky(one) || !isTold(one)) continue;
      return one.lie.mode === "stale" ? clock.now() - one.lie.agoMs : undefined;
    }
    return Number.POSITIVE_INFINITY;
  }

  return {
    add(input) {
      const parsed = parse(input, lastId + 1, clock.now());
      if (typeof parsed === "string") return parsed;
      lastId++;
      told.push(parsed);
      return parsed.lie;
    },
    list: () => told.map(({ lie }) => lie),
    clear(id) {
      told = id === undefined ? [] : told.filter(({ lie }) => lie.id !== id);
    },
    shown(about, rows, names) {
      let left = [...rows];
      for (const one of open(about, (mode) => mode === "missing")) {
        const hidden = new Set(left.filter((row) => fits(one, names(row)) && lucky(one)));
        if (hidden.size > 0 && isTold(one)) left = left.filter((row) => !hidden.has(row));
      }
      return left;
    },
    read(about, versions, id, names) {
      const value = versions.get(id);
      const at = moment(about, value === undefined ? [id] : names(value));
      return at === undefined ? undefined : versions.at(id, at);
    },
    moment,
  };
}

function parse(input: unknown, id: number, now: number): Told | string {
  if (typeof input !== "object" || input === null) return "a lie is a JSON object";
  const given = input as Partial<Lie>;
  const about = kinds.find((known) => known === given.about);
  if (about === undefined) return `about must be one of ${kinds.join(", ")}`;
  const mode = modes.find((known) => known === given.mode);
  if (mode === undefined) return `mode must be one of ${modes.join(", ")}`;
  const lie: Lie = {
    id,
    about,
    mode,
    odds: given.odds ?? 1,
    skip: given.skip ?? 0,
    agoMs: given.agoMs ?? 5_000,
    matched: 0,
    hits: 0,
  };
  if (given.which !== undefined) lie.which = given.which;
  if (given.times !== undefined) lie.times = given.times;
  if (given.forMs !== undefined) lie.forMs = given.forMs;
  try {
    const which = lie.which === undefined ? undefined : new RegExp(lie.which);
    return { lie, which, until: lie.forMs === undefined ? Number.POSITIVE_INFINITY : now + lie.forMs };
  } catch (error) {
    return `not a regular expression: ${String(error)}`;
  }
}
