import type { ExchangeEvent } from "../../src/sandbox/index.ts";

/**
 * What is true, by the sandbox's own record: which keys live, which key lies in which slot, and which attempt of which
 * activity changed it. Nothing here believes a word of keyturn.
 */

export interface TrueKey {
  id: string;
  name: string;
  provider: string;
  state: "active" | "disabled" | "revoked" | "expired";
  createdAt: number;
  expiresAt: number | undefined;
  /** By which ids an activity may name it. */
  ids: string[];
}

export interface TrueSecret {
  id: string;
  name: string;
  comment: string | null;
  modified: string;
  keyId: string | undefined;
  config: boolean;
}

export interface Snapshot {
  keys: Map<string, TrueKey>;
  /** By name. */
  secrets: Map<string, TrueSecret>;
}

export interface Truth {
  /** The sandbox's hook: told of every exchange. */
  hear(event: ExchangeEvent): Promise<void>;
  look(): Promise<Snapshot>;
  /** What is true at this moment, without a word to the judge. */
  fresh(): Promise<Snapshot>;
  /** As last looked. */
  now(): Snapshot;
  began(attempt: string): void;
  over(attempt: string): void;
  /** Temporal waits for this attempt no longer. */
  gaveUp(attempt: string): void;
  /** The step of this attempt, which was given up on, was done by another. */
  stepDone(attempt: string): void;
  /** A person is about to end or switch off a key. */
  personEnds(id: string): void;
  /** A person did something, to this secret where it was one. */
  person(what: string, secret?: string): Promise<void>;
  /** From now on edits are what the run may not write over. */
  inspected(): void;
  /** Keys that the run may touch, by the ids that it was told. */
  may: Set<string>;
  /** Which names of keys are the run's own. */
  ownName: (name: string) => boolean;
  find(id: string, at?: Snapshot): TrueKey | undefined;
  holders(id: string, at?: Snapshot): string[];
  /** What should never have happened, in sentences. */
  violations: string[];
  /** What happened, for people who look for why. */
  story: string[];
  /** Keys that lay in a slot at any time. */
  everHeld: Set<string>;
  /** Whether people did something that takes the slot's service away. */
  disturbed: boolean;
  /** Who switched keys off. */
  switchedOff: Map<string, "person" | "keyturn">;
  /** The last time an alias of the run was written. */
  aliasWritten: number;
}

interface Parts {
  control: (path: string, body?: unknown) => Promise<unknown>;
  short: string;
  configNeeded: boolean;
  /** The secrets of the inventory's slots, by name. */
  slots: Map<string, string>;
}

/** Longer than this between a look and a write nobody is for the sake of the way: whoever waits looks again. */
const momentMs = 250;

/** Activities that end a key whoever holds it. */
const enders = ["cutKey", "endCompromisedKey"];

export function watch({ control, short, configNeeded, slots }: Parts): Truth {
  const begun = new Map<string, number>();
  /** Attempts that were given up on, and what came after: then they may change nothing more. */
  const given = new Map<string, { at: number; nextWrote?: string; doneAt?: number }>();
  /** The last that was seen of an attempt. */
  const lastSeen = new Map<string, number>();
  /** Writes that left after a wait in which nothing was looked at, by their numbers. */
  const waits = new Map<number, { from: number; to: number }>();
  /** Since when a slot holds its key, and who put it there. */
  const since = new Map<string, { at: number; by: "person" | "keyturn" }>();
  /** Ends of keys that were judged, or that people made: `key_1 revoked`. */
  const ends = new Set<string>();
  const byPerson = new Set<string>();
  /** People's last edit of each slot's secret. */
  const edits = new Map<string, number>();
  let last: Snapshot = { keys: new Map(), secrets: new Map() };
  let inspectedAt = Number.POSITIVE_INFINITY;
  let queue: Promise<unknown> = Promise.resolve();
  const started = performance.now();
  const clock = (): string => `${Math.round(performance.now() - started)}`.padStart(6);
  const ownAlias = (name: string): boolean => new RegExp(`_kt-${short}-(?:new|prev)$`).test(name);

  async function read(): Promise<Snapshot> {
    const [{ keys }, { secrets }] = (await Promise.all([control("/keys"), control("/secrets")])) as [
      { keys: Record<string, string | null>[] },
      { secrets: (Omit<TrueSecret, "keyId"> & { keyId: string | null })[] },
    ];
    return {
      keys: new Map(
        keys.map((key): [string, TrueKey] => [
          String(key["id"]),
          {
            id: String(key["id"]),
            name: String(key["name"]),
            provider: String(key["provider"]),
            state: key["state"] as TrueKey["state"],
            createdAt: Date.parse(String(key["createdAt"])),
            expiresAt: key["expiresAt"] == null ? undefined : Date.parse(key["expiresAt"]),
            ids: [key["id"], key["keyId"], key["resource"], key["uid"]].filter((id) => typeof id === "string"),
          },
        ]),
      ),
      secrets: new Map(secrets.map((secret) => [secret.name, { ...secret, keyId: secret.keyId ?? undefined }])),
    };
  }

  function note(by: "person" | "keyturn", next: Snapshot): void {
    for (const [name, slot] of slots) {
      const [before, after] = [last.secrets.get(name)?.keyId, next.secrets.get(name)?.keyId];
      if (after !== undefined) truth.everHeld.add(after);
      if (before === after) continue;
      since.set(name, { at: performance.now(), by });
      truth.story.push(`${clock()} ${slot} holds ${after ?? "nothing"} (${by})`);
    }
    for (const [id, { state, name }] of next.keys) {
      const before = last.keys.get(id)?.state;
      if (before === state) continue;
      if (before !== undefined && state !== "active") truth.switchedOff.set(id, byPerson.has(id) ? "person" : by);
      truth.story.push(`${clock()} key ${id} (${name}) is ${state} (${by})`);
    }
    last = next;
  }

  const wrong = (what: string): void => {
    truth.violations.push(what);
    truth.story.push(`${clock()} WRONG: ${what}`);
  };

  /** A write of keyturn's that was executed, judged against what was true before. */
  async function judge({ method, path, userAgent, seq }: ExchangeEvent): Promise<void> {
    const attempt = attemptOf(userAgent);
    const activity = attempt.split("#")[0] ?? "";
    const beganAt = begun.get(attempt) ?? 0;
    const before = last;
    const next = await read();
    truth.story.push(`${clock()} ${attempt}: ${method} ${path.split("?")[0]?.slice(-70)}`);
    const key = keyOfPath(path, next);
    if (key !== undefined) {
      if (!truth.may.has(key.id) && !truth.ownName(key.name)) {
        wrong(`${activity} touched ${key.id} (${key.name}), which is not the run's`);
      }
      const ended = `${key.id} ${key.state}`;
      if (key.state === "active") for (const state of ["disabled", "revoked"]) ends.delete(`${key.id} ${state}`);
      else if (!ends.has(ended)) {
        ends.add(ended);
        judgeEnd(activity, (at) => at < beganAt || isUnseen(seq, at), { key, at: next });
      }
    }
    const secret = [...before.secrets.values()].find(({ id }) => path.includes(`/secrets/${id}`));
    const changes = secret !== undefined && !path.endsWith("/duplicate") && method !== "GET";
    if (changes && !ownAlias(secret.name)) {
      const slot = slots.get(secret.name);
      if (slot !== [...slots.values()][0]) wrong(`${activity} wrote to ${secret.name}, which is not the run's`);
      const edit = edits.get(secret.name);
      // What came right before the write nobody can see; but a step that is done writes no more.
      const doneAt = given.get(attempt)?.doneAt ?? Number.POSITIVE_INFINITY;
      const isOver = edit !== undefined && (edit < beganAt || edit > doneAt || isUnseen(seq, edit));
      if (isOver && edit > inspectedAt) {
        wrong(`${activity} wrote over what a person had put into ${secret.name} (${method})`);
      }
      if (next.secrets.get(secret.name)?.modified !== secret.modified) edits.delete(secret.name);
    }
    for (const { name } of next.secrets.values()) {
      if (before.secrets.has(name)) continue;
      if (!ownAlias(name) && !slots.has(name)) wrong(`${activity} made ${name}, which is not the run's`);
    }
    if ([...next.secrets.keys()].some((name) => ownAlias(name) && !before.secrets.has(name))) {
      truth.aliasWritten = performance.now();
    }
    if (hasChanged(before, next)) judgeFence(attempt, secret?.name ?? "", `${method} ${path.split("?")[0]}`);
    note("keyturn", next);
  }

  /** Whether something is other than it was, by a request of keyturn's; keys that people make are not. */
  function hasChanged(before: Snapshot, next: Snapshot): boolean {
    const isNew = ({ id, name, state, expiresAt }: TrueKey): boolean => {
      const known = before.keys.get(id);
      return known === undefined ? truth.ownName(name) : known.state !== state || known.expiresAt !== expiresAt;
    };
    if ([...next.keys.values()].some(isNew) || next.secrets.size !== before.secrets.size) return true;
    return [...next.secrets.values()].some(({ id, name, modified, comment, keyId, config }) => {
      const known = before.secrets.get(name);
      const isSame = known?.id === id && known.modified === modified && known.comment === comment;
      return !isSame || known.keyId !== keyId || known.config !== config;
    });
  }

  /** Two attempts of one step do not change things at once: one that was given up on is through before the next begins. */
  function judgeFence(attempt: string, secret: string, what: string): void {
    const gaveUp = given.get(attempt);
    if (gaveUp?.nextWrote !== undefined) {
      wrong(`${attempt} was given up on, and changed something after ${gaveUp.nextWrote} had (${what})`);
    } else if (gaveUp?.doneAt !== undefined && slots.has(secret)) {
      wrong(`${attempt} was given up on, and wrote to ${secret} when its step was done (${what})`);
    }
    const [activity] = attempt.split("#");
    for (const [former, later] of given) {
      if (former !== attempt && former.split("#")[0] === activity && (begun.get(attempt) ?? 0) >= later.at) {
        later.nextWrote ??= attempt;
      }
    }
  }

  /** Whether this came while the sender of the write waited, and did not look. */
  function isUnseen(seq: number, at: number): boolean {
    const wait = waits.get(seq);
    return wait !== undefined && wait.to - wait.from > momentMs && at > wait.from && at < wait.to;
  }

  /** `couldTell` says of a moment whether what was so then had to be seen. */
  function judgeEnd(
    activity: string,
    couldTell: (at: number) => boolean,
    { key, at }: { key: TrueKey; at: Snapshot },
  ): void {
    if (activity === "issueKey") wrong(`issueKey ended ${key.id}`);
    if (enders.includes(activity)) return;
    if (activity === "settleKeys" && !truth.ownName(key.name)) {
      wrong(`settleKeys ended ${key.id} (${key.name}), which it did not make`);
    }
    if (activity === "settleKeys" && truth.everHeld.has(key.id)) {
      wrong(`settleKeys ended ${key.id}, which clients were given`);
    }
    for (const name of slots.keys()) {
      if (!serves(name, key.id, at)) continue;
      const held = since.get(name);
      // Put there by a person while this attempt was under way: nobody can look and act in one moment.
      if (held?.by === "person" && !couldTell(held.at)) continue;
      wrong(`${activity} ended ${key.id} while ${slots.get(name)} holds it`);
    }
  }

  const serves = (name: string, id: string, at: Snapshot): boolean => {
    const secret = at.secrets.get(name);
    return secret?.keyId === id && (secret.config || !configNeeded);
  };
  const inTurn = async (work: () => Promise<void>): Promise<void> => {
    const turn = queue.then(work);
    queue = turn.catch(() => undefined);
    await turn;
  };

  const truth: Truth = {
    violations: [],
    story: [],
    may: new Set(),
    ownName: () => false,
    everHeld: new Set(),
    disturbed: false,
    switchedOff: new Map(),
    aliasWritten: 0,
    async hear(event) {
      if (event.userAgent?.startsWith("keyturn/story") !== true) return;
      const attempt = attemptOf(event.userAgent);
      const now = performance.now();
      if (event.phase === "received") waits.set(event.seq, { from: lastSeen.get(attempt) ?? now, to: now });
      lastSeen.set(attempt, now);
      if (event.phase !== "executed" || event.method === "GET") return;
      if (!["cloudflare", "openai", "anthropic", "apikeys"].includes(event.service)) return;
      if (/\/v1\/(?:messages|chat|responses|models)/.test(event.path)) return;
      await inTurn(() => judge(event));
    },
    async look() {
      await inTurn(async () => note("keyturn", await read()));
      return last;
    },
    fresh: read,
    now: () => last,
    personEnds(id) {
      ends.add(`${id} disabled`).add(`${id} revoked`);
      byPerson.add(id);
    },
    began: (attempt) => {
      begun.set(attempt, performance.now());
      truth.story.push(`${clock()} ${attempt} begins`);
    },
    gaveUp(attempt) {
      given.set(attempt, { at: performance.now() });
      truth.story.push(`${clock()} ${attempt} is given up on`);
    },
    stepDone(attempt) {
      const gaveUp = given.get(attempt);
      if (gaveUp !== undefined) gaveUp.doneAt = performance.now();
    },
    over: (attempt) => void truth.story.push(`${clock()} ${attempt} ends`),
    async person(what, secret) {
      await inTurn(async () => {
        truth.story.push(`${clock()} a person ${what}`);
        if (secret !== undefined) edits.set(secret, performance.now());
        note("person", await read());
      });
    },
    inspected() {
      inspectedAt = performance.now();
    },
    find: (id, at = last) => [...at.keys.values()].find(({ ids }) => ids.includes(id)),
    holders: (id, at = last) => [...slots].flatMap(([name, slot]) => (serves(name, id, at) ? [slot] : [])),
  };
  return truth;
}

function attemptOf(userAgent = ""): string {
  return userAgent.replace(/^keyturn\/story (\S+).*$/, "$1");
}

function keyOfPath(path: string, { keys }: Snapshot): TrueKey | undefined {
  const id = /\/(?:api_keys|keys)\/([^/?:]+)/.exec(path)?.[1];
  return id === undefined ? undefined : [...keys.values()].find(({ ids }) => ids.includes(id));
}
