import type { Inspection } from "../../activities/contract.ts";
import { Custody, type CarriedCustody } from "../../domain/custody.ts";
import { defined } from "../../domain/defined.ts";
import { type Outage, Outages } from "../../domain/outages.ts";
import type { Policy } from "../../domain/policy.ts";
import type {
  Clocks,
  EmergencyStep,
  Incident,
  KeyTimes,
  Phase,
  Progress,
  Remedy,
  RotationKind,
  RotationResult,
  RotationStep,
  RotationTimes,
  StepRecord,
  Wait,
} from "../../domain/rotation.ts";
import type { Told } from "./clock.ts";
import type { Leak } from "./known.ts";

export type StepName = RotationStep | EmergencyStep | Remedy;

/** What a run that goes on as another one hands it: all it answers for, and all it has to say. */
export interface CarriedRecord {
  rotationId: string;
  custody: CarriedCustody;
  unknown: string[];
  warnings: string[];
  outages?: Outage[];
  keyTimes?: [keyId: string, times: KeyTimes][];
  /** How many waits it had: an approval that was shown for one of them counts for none that comes after. */
  waits?: number;
  /** Compromised keys that were cut, and those of which it cannot be told. */
  cut?: { keyIds: string[]; unsure: string[] };
  /** Keys whose write into the slot was not answered. */
  unanswered?: string[];
  /** Keys that the slot held, or was given: its edges may send each of them for a while. */
  given?: string[];
  /** A leaked value whose key could not be found out yet. */
  leak?: Leak;
  /** Deadlines of the keys that were called compromised. */
  clock: Told[];
  /** The slot's policy, where it is known: it says when those are. */
  policy?: Policy;
  /** What the run that handed over had done, in its own words. */
  said: string;
}

/**
 * What a run has done, what it waits for and which keys it answers for: the one object that the query, the UI and the
 * result show. Knows nothing of Temporal; times are the workflow's own clock.
 */
export class RotationRecord {
  readonly custody: Custody;
  readonly times: Omit<RotationTimes, keyof KeyTimes>;
  readonly slot: string;
  readonly kind: RotationKind;
  readonly rotationId: string;
  /** The keys that the run before handed over. */
  readonly inherited: ReadonlySet<string>;
  oldKey: { id: string } | null = null;
  newKey: { id: string } | null = null;
  clocks: Clocks | undefined;
  incident: Incident | undefined;
  nextDue: string | undefined;
  readonly outages: Outages;
  /** The coarse phase that searches show; a wait for a person is shown instead while it lasts. */
  stage: Phase = "preparing";

  /** Who says that a key was revoked by hand, and when they said it. */
  readonly saidRevoked = new Map<string, { by: string; at: string }>();

  readonly #steps: StepRecord[] = [];
  readonly #keyTimes: Map<string, KeyTimes>;
  readonly #waits: Wait[] = [];
  readonly #unknown: Set<string>;
  readonly #warnings: Set<string>;
  #waitCount = 0;
  #latestMs = 0;

  constructor({ slot, kind, rotationId, carried }: RecordStart) {
    this.times = { started: this.now() };
    this.slot = slot;
    this.kind = kind;
    this.rotationId = rotationId;
    this.custody = new Custody(carried?.custody);
    this.#unknown = new Set(carried?.unknown);
    this.#warnings = new Set(carried?.warnings);
    this.outages = new Outages(carried?.outages);
    this.#keyTimes = new Map(carried?.keyTimes);
    this.inherited = new Set(carried?.custody.entries.map(({ id }) => id));
    if (carried === undefined) return;
    this.#warnings.add(carried.said);
    this.#waitCount = carried.waits ?? 0;
  }

  /**
   * The workflow's clock, and never earlier than what an activity has told: after a worker died, a query that comes before
   * the next workflow task makes the workflow go on with the time of the task before (seen with SDK 1.24, 2026-11), and a
   * step would seem to have taken no time.
   */
  now(): string {
    return new Date(Math.max(Date.now(), this.#latestMs)).toISOString();
  }

  /** An activity has told that it was so late at least. */
  notBefore(at: string): void {
    const ms = Date.parse(at);
    if (ms > this.#latestMs) this.#latestMs = ms;
  }

  begin(step: StepName): StepRecord {
    const record: StepRecord = { step, started: this.now(), outcome: "running" };
    this.#steps.push(record);
    return record;
  }

  /** Writes down what took no time: a step that is skipped, a decision. */
  note(step: string, outcome: StepRecord["outcome"], note: string): void {
    const at = this.now();
    this.#steps.push({ step, started: at, ended: at, outcome, note });
  }

  open(plan: Omit<Wait, "since" | "id">): Wait {
    this.#waitCount += 1;
    const wait = { id: `w${this.#waitCount}`, ...plan, since: this.now() };
    this.#waits.push(wait);
    return wait;
  }

  close(wait: Wait): void {
    const index = this.#waits.indexOf(wait);
    if (index >= 0) this.#waits.splice(index, 1);
  }

  /** Of several waits at once, one for a person is shown first, then the one that began last. */
  get waiting(): Wait | null {
    return this.#waits.findLast(({ person }) => person === true) ?? this.#waits.at(-1) ?? null;
  }

  /** The wait that takes this of a person, where one is open. */
  waitFor(kind: "approval" | "key"): Wait | undefined {
    return this.#waits.findLast(({ asks }) =>
      kind === "key" ? asks?.kind === "key" : asks?.kind === "approval" || asks?.kind === "revocation",
    );
  }

  get phase(): Phase {
    return this.waiting?.person === true ? "waiting-for-a-person" : this.stage;
  }

  reached(moment: keyof RotationRecord["times"], at: string = this.now()): void {
    this.times[moment] = at;
    // A use is told by the end of its bucket, which may be yet to come.
    if (moment !== "lastUsed") this.notBefore(at);
    if (moment === "installed" && this.clocks !== undefined) this.clocks.installed = at;
  }

  keyReached(keyId: string, moment: keyof KeyTimes, at: string): void {
    this.#keyTimes.set(keyId, { ...this.timesOf(keyId), [moment]: at });
    this.notBefore(at);
  }

  timesOf(keyId: string | undefined): KeyTimes {
    return this.#keyTimes.get(keyId ?? "") ?? {};
  }

  /** The slot was seen to answer with the new key: where requests failed for want of one, they no longer do. */
  verified(at = this.now()): void {
    this.reached("verified", at);
    this.outages.close([this.slot, undefined], at);
  }

  /** Takes the key that is rotated; what earlier runs left behind is named again, and ended by nobody but who is asked to. */
  plan({ held, earlier, warnings, unknown, byHand }: Inspection): void {
    this.oldKey ??= { id: held.id };
    this.custody.take(held.id, "old", { given: true });
    for (const { id, why, state } of earlier) {
      if (this.custody.has(id)) continue;
      this.custody.take(id, "earlier", { given: true });
      const isDead = state === "dead";
      this.custody.settle(id, isDead ? { fate: "ended", at: this.now(), seen: true } : { fate: "named", why });
    }
    this.warn(...warnings);
    this.unknown(...unknown, ...(byHand?.unknown ?? []));
  }

  warn(...warnings: string[]): void {
    for (const warning of warnings) this.#warnings.add(warning);
  }

  /** Names checks that could not be made. */
  unknown(...checks: string[]): void {
    for (const check of checks) this.#unknown.add(check);
  }

  progress(): Progress {
    return {
      ...this.#shared(),
      // A remedy is a step within another, which goes on after it.
      phase: (this.#steps.findLast(({ outcome }) => outcome === "running") ?? this.#steps.at(-1))?.step ?? "starting",
      waiting: this.waiting,
      action: this.waiting?.action ?? "nothing",
    };
  }

  result(outcome: RotationResult["outcome"], reason: string): RotationResult {
    this.reached("finished");
    return {
      ...this.#shared(),
      outcome,
      reason,
      unknown: [...this.#unknown],
      leftOver: this.custody.leftOver(),
      warnings: [...this.#warnings, ...this.#outageSaid()],
      ...(this.nextDue === undefined ? {} : { nextDue: this.nextDue }),
      ...(this.incident === undefined ? {} : { incident: this.incident }),
    };
  }

  /** The clock of the revocation is kept when the last compromised key is ended. */
  #revokedAt(): string | undefined {
    const ends = this.custody.all().filter(({ role }) => role === "compromised");
    const times = ends.map(({ fate }) => (fate?.fate === "ended" ? fate.at : undefined));
    if (times.length === 0 || times.includes(undefined)) return undefined;
    return times.reduce((last, at) => ((at ?? "") > (last ?? "") ? at : last));
  }

  #outageSaid(): string[] {
    return this.outages.each().map(({ from, until, slots }) => {
      const where = slots === undefined ? "each slot that holds it" : slots.join(", ");
      return until === undefined
        ? `REQUESTS FAIL in ${where} since ${from}: the key they were sent with was cut, and no new one was seen to serve`
        : `requests could fail in ${where} from ${from} until ${until}: the key was cut before a new one served`;
    });
  }

  carry(said: string, clock: CarriedRecord["clock"]): CarriedRecord {
    return {
      rotationId: this.rotationId,
      custody: this.custody.carry(),
      unknown: [...this.#unknown],
      warnings: [...this.#warnings],
      outages: this.outages.carry(),
      keyTimes: [...this.#keyTimes],
      waits: this.#waitCount,
      clock,
      said,
    };
  }

  /** What progress and result both show. */
  #shared() {
    return {
      slot: this.slot,
      kind: this.kind,
      rotationId: this.rotationId,
      oldKey: this.oldKey,
      newKey: this.newKey,
      keys: this.custody.keys(),
      times: { ...this.times, ...this.timesOf(this.oldKey?.id) },
      ...(this.clocks === undefined ? {} : { clocks: { ...this.clocks, ...defined({ revoked: this.#revokedAt() }) } }),
      ...defined({ outage: this.outages.shown }),
      steps: this.#steps.map((step) => ({ ...step })),
    };
  }
}

interface RecordStart {
  slot: string;
  kind: RotationKind;
  rotationId: string;
  carried?: CarriedRecord | undefined;
}
