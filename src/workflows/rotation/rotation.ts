import {
  CancellationScope,
  CancelledFailure,
  isCancellation,
  makeContinueAsNewFunc,
  sleep,
  uuid4,
  workflowInfo,
} from "@temporalio/workflow";

import type { Compromised, Inspection, OfRotation } from "../../activities/contract.ts";
import { inMs, type Duration } from "../../domain/duration.ts";
import type { Policy } from "../../domain/policy.ts";
import type { RotationKind, RotationResult, Wait } from "../../domain/rotation.ts";
import { management } from "../groups.ts";
import type { EmergencyRotationStart } from "../messages.ts";
import { RevokeClock } from "./clock.ts";
import { cutAtDeadline } from "./compromised.ts";
import { Display } from "./display.ts";
import { conclude, type End, settleAll } from "./ending.ts";
import { failureMessage, failureType } from "./failures.ts";
import { Mailbox } from "./mailbox.ts";
import { type CarriedRecord, RotationRecord, type StepName } from "./record.ts";
import { refuseShortTimeout } from "./timeouts.ts";

/** How often the policy is read that is refused. */
const policyTries = 5;

export interface RotationStart {
  slot: string;
  carried?: CarriedRecord | undefined;
  cutBy?: string | undefined;
}

/**
 * One running rotation: the record of what it did, the mailbox for what people say, the clock of compromised keys, and
 * one way out. The workflow files say what happens in which order.
 */
export class Rotation {
  readonly of: OfRotation;
  readonly record: RotationRecord;
  readonly clock: RevokeClock;
  readonly mailbox: Mailbox;
  /** What was seen of compromised keys: only a key that was seen is cut. */
  readonly seen = new Map<string, Compromised>();
  /** Keys of which all slots were looked at, not their provider alone. */
  readonly lookedAt = new Set<string>();
  /** Keys that were cut before their slots had moved. */
  readonly cut = new Set<string>();
  /** Keys of which a cut was stopped under way. */
  readonly cutUnsure = new Set<string>();
  /** Keys this run put into the slot: its edges may send each of them for a while. */
  readonly givenHere = new Set<string>();
  /** Slots that were asked to move off a compromised key. */
  readonly started = new Set<string>();
  /** Keys of which an end is under way: whoever comes second waits for the first. */
  readonly ends = new Map<string, Promise<void>>();
  /** Keys that other slots are being moved off: whoever comes second waits for the first. */
  readonly moves = new Map<string, Promise<void>>();
  /** What `inspectSlot` found; undefined until then. */
  found: Inspection | undefined;
  policy: Policy | undefined;
  /** Set once aliases may have been made: lists show them late, so a clean-up looks twice. */
  stageStarted = false;
  /** Set where a key may have been made whose id nobody knows: the clean-up looks twice for it. */
  issueUnsure = false;
  /** Why this rotation goes on without aliases of its own, where it began with them. */
  inPlace: string | undefined;
  /** Whether the copy of the old key on `prev` was seen to answer: only then can its death be seen there. */
  prevAnswered = false;
  /** Our own requests with the new key since it was installed. */
  probes = 0;
  /** Our own requests with the old key, through its copy. */
  oldKeyProbes = 0;
  /** When the caches had time enough to drop the old key. Milliseconds since the epoch. */
  cachesOverAt = 0;
  /** Set once the run stops or finishes: no new key is put in any more. */
  ending = false;
  /** Set once the revocation of the old key began: nothing is undone any more. */
  returnPassed = false;
  /** Set once the new key was tried again after a cut. */
  triedAfterCut = false;
  /** The slot whose emergency cuts the compromised key, where that is not this run. */
  readonly cutBy: string | undefined;

  /** When this run was started, by the server's record: a worker may have taken it up much later. RFC 3339. */
  readonly startedAt = workflowInfo().runStartTime.toISOString();

  readonly #display: Display;
  readonly #scope = new CancellationScope();
  /** What runs past the return: only a hand-over cancels it. */
  readonly #past = new CancellationScope({
    cancellable: true,
    parent: new CancellationScope({ cancellable: false }),
  });
  readonly #tasks = new Set<Promise<void>>();
  #reading: Promise<Policy> | undefined;
  #stopped: string | undefined;
  #handOver: EmergencyRotationStart | undefined;

  constructor(kind: RotationKind, { slot, carried, cutBy }: RotationStart) {
    this.of = { slot, rotationId: carried?.rotationId ?? uuid4() };
    this.cutBy = cutBy;
    this.record = new RotationRecord({ slot, kind, rotationId: this.of.rotationId, carried });
    this.#display = new Display(this.record, { tellsFollower: cutBy === undefined });
    this.clock = new RevokeClock({
      policy: () => this.readPolicy(),
      isSettled: (id) => this.record.custody.find(id)?.fate !== undefined,
      cut: (id) => cutAtDeadline(this, id),
    });
    for (const told of carried?.clock ?? []) this.clock.tell(told);
    this.mailbox = new Mailbox(this);
    this.stageStarted = carried !== undefined;
    for (const { id, given } of carried?.custody.entries ?? []) if (given) this.givenHere.add(id);
  }

  /** Runs the body to one of its ends. Whatever the end, every key the run answers for has a fate afterwards. */
  async toTheEnd(body: () => Promise<End>): Promise<RotationResult> {
    let end: End | { error: unknown };
    try {
      end = await this.#scope.run(body);
    } catch (error) {
      end = { error };
    }
    const scopeCancelled = this.#scope.consideredCancelled;
    await CancellationScope.nonCancellable(() => settleAll(this, end));
    if (this.#handOver !== undefined) return this.#follow(this.#handOver);
    const ended = conclude(this, end, scopeCancelled);
    this.#display.showHere();
    if ("result" in ended) return ended.result;
    throw ended.failure;
  }

  /** The part of a rotation that is finished once it began: only a hand-over stops it. */
  async pastTheReturn(body: () => Promise<End>): Promise<End> {
    this.returnPassed = true;
    return this.#past.run(body);
  }

  /** Runs beside the body, and is waited for at the end. What goes wrong is a warning. */
  beside(work: () => Promise<void>): Promise<void> {
    const task = CancellationScope.nonCancellable(work).catch((error: unknown) => {
      this.record.warn(failureMessage(error));
    });
    const done = task.finally(() => this.#tasks.delete(done));
    this.#tasks.add(done);
    return done;
  }

  get busy(): boolean {
    return this.#tasks.size > 0;
  }

  /** Runs one step and keeps its record. `unless` names why it is skipped; `says` what the record shows of its result. */
  async step<Result>(
    name: StepName,
    body: () => Promise<Result>,
    { unless, says }: { unless?: string | undefined; says?: (result: Result) => string } = {},
  ): Promise<Result> {
    if (unless !== undefined) {
      this.record.note(name, "skipped", unless);
      return undefined as Result;
    }
    // A step that would begin when the run is already stopped never began.
    if (CancellationScope.current().consideredCancelled) throw new CancelledFailure(`${name} did not begin`);
    const record = this.record.begin(name);
    this.show();
    try {
      const result = await body();
      record.outcome = "done";
      const note = says?.(result) ?? result;
      if (typeof note === "string") record.note = note;
      return result;
    } catch (error) {
      record.outcome = "failed";
      record.note = isCancellation(error) ? this.stopReason : failureMessage(error);
      throw error;
    } finally {
      record.ended = this.record.now();
      this.show();
    }
  }

  /** Shows a wait while `body` lasts. */
  async waiting<Result>(plan: Omit<Wait, "since" | "id">, body: (wait: Wait) => Promise<Result>): Promise<Result> {
    const wait = this.record.open(plan);
    this.show();
    try {
      return await body(wait);
    } finally {
      this.record.close(wait);
      this.show();
    }
  }

  show(): void {
    this.#display.show();
  }

  /** Waits until who follows this run has heard the latest. */
  async flush(): Promise<void> {
    await this.#display.flush();
  }

  plan(found: Inspection): void {
    this.found = found;
    this.knows(found.policy);
    this.record.oldKey ??= { id: found.held.id };
    this.record.custody.take(found.held.id, "old", { given: true });
    this.#takeOver(found);
    this.record.warn(...found.warnings);
    this.record.unknown(...found.unknown, ...(found.byHand?.unknown ?? []));
    refuseShortTimeout(found);
  }

  /** What earlier runs left behind is named again: nobody but who is asked to ends it. */
  #takeOver({ earlier }: Inspection): void {
    const { custody } = this.record;
    for (const { id, why, state } of earlier) {
      if (custody.has(id)) continue;
      custody.take(id, "earlier", { given: true });
      custody.settle(
        id,
        state === "dead" ? { fate: "ended", at: new Date().toISOString(), seen: true } : { fate: "named", why },
      );
    }
  }

  /** The slot's policy, read once, whoever asks first; a cancellation does not reach it, since the clock needs it. */
  async readPolicy(): Promise<Policy> {
    if (this.policy !== undefined) return this.policy;
    this.#reading ??= CancellationScope.nonCancellable(() => this.#read());
    return this.knows(await this.#reading);
  }

  /** Tries again what is refused: the clock of a compromised key depends on it. */
  async #read(): Promise<Policy> {
    for (let tries = 1; ; tries++) {
      try {
        return await management.readPolicy({ slot: this.of.slot });
      } catch (error) {
        if (tries === policyTries || failureType(error) === "InvalidInput") throw error;
        await sleep(tries * 10_000, { summary: "before reading the policy again" });
      }
    }
  }

  knows(policy: Policy): Policy {
    this.policy ??= policy;
    this.clock.knows(policy);
    return this.policy;
  }

  isCompromised(keyId: string): boolean {
    return this.record.custody.find(keyId)?.role === "compromised";
  }

  /** The slot was seen to answer with the new key: where requests failed for want of one, they no longer do. */
  verified(): void {
    this.record.reached("verified");
    const { outage } = this.record;
    const others = (outage?.slots ?? []).filter((slot) => slot !== this.of.slot);
    if (outage !== undefined && others.length === 0) outage.until ??= this.record.times.verified ?? outage.from;
  }

  /** Why this rotation no longer takes its time, where it doesn't: its old key is compromised. */
  get hurry(): string | undefined {
    const held = this.found?.held.id;
    if (held === undefined || !this.isCompromised(held)) return undefined;
    return this.clock.find(held)?.by ?? `${held} is compromised`;
  }

  /** Stops the body, which then cleans up and ends as aborted. Past the return only a hand-over does. */
  stop(reason: string): void {
    this.#stopped = reason;
    if (!this.returnPassed) this.#scope.cancel();
  }

  /** Ends this run at once, whatever it does: an emergency goes on with all its keys. */
  handOver(start: EmergencyRotationStart, reason: string): void {
    this.#handOver = start;
    this.#stopped = reason;
    this.#scope.cancel();
    this.#past.cancel();
  }

  get handsOver(): boolean {
    return this.#handOver !== undefined;
  }

  get stopped(): boolean {
    return this.#stopped !== undefined;
  }

  get stopReason(): string {
    return this.#stopped ?? "cancelled";
  }

  deadline(duration: Duration): string {
    return this.deadlineIn(inMs(duration));
  }

  deadlineIn(ms: number): string {
    return new Date(Date.parse(this.record.now()) + ms).toISOString();
  }

  async #follow(start: EmergencyRotationStart): Promise<never> {
    const said = `before this emergency, rotation ${this.of.rotationId} of ${this.of.slot} was stopped: ${this.stopReason}`;
    return continueAsEmergency({ ...start, carried: this.record.carry(said, this.clock.all()) });
  }
}

/** Goes on under the same workflow id as the emergency of a key that the slot holds. */
const continueAsEmergency = makeContinueAsNewFunc<(start: EmergencyRotationStart) => Promise<never>>({
  workflowType: "emergencyRotation",
});
