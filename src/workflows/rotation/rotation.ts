import { CancellationScope, uuid4, workflowInfo } from "@temporalio/workflow";

import type { Inspection, OfRotation } from "../../activities/contract.ts";
import { inMs, type Duration } from "../../domain/duration.ts";
import type { Policy } from "../../domain/policy.ts";
import type { RotationKind, RotationResult, Wait } from "../../domain/rotation.ts";
import { RevokeClock } from "./clock.ts";
import { cutAtDeadline } from "./compromised.ts";
import { Display } from "./display.ts";
import { conclude, type End, settleAll } from "./ending.ts";
import { failureMessage } from "./failures.ts";
import { goOnAsEmergency } from "./hand-over.ts";
import { KnownCompromised, KnownSwap } from "./known.ts";
import { Mailbox } from "./mailbox.ts";
import { Passage } from "./passage.ts";
import { PolicyOnce } from "./policy-once.ts";
import { type CarriedRecord, RotationRecord, type StepName } from "./record.ts";
import { runStep, showWait, type StepOptions } from "./shown.ts";
import { refuseShortTimeout } from "./timeouts.ts";

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
  readonly passage = new Passage((error) => this.record.warn(failureMessage(error)));
  readonly compromised = new KnownCompromised();
  readonly swap = new KnownSwap();
  /** What `inspectSlot` found; undefined until then. */
  found: Inspection | undefined;
  /** The slot whose emergency cuts the compromised key, where that is not this run. */
  readonly cutBy: string | undefined;
  /** When this run was started, by the server's record: a worker may have taken it up much later. RFC 3339. */
  readonly startedAt = workflowInfo().runStartTime.toISOString();

  readonly #display: Display;
  readonly #policy: PolicyOnce;

  constructor(kind: RotationKind, { slot, carried, cutBy }: RotationStart) {
    this.of = { slot, rotationId: carried?.rotationId ?? uuid4() };
    this.cutBy = cutBy;
    this.record = new RotationRecord({ slot, kind, rotationId: this.of.rotationId, carried });
    this.#display = new Display(this.record, { tellsFollower: cutBy === undefined });
    this.#policy = new PolicyOnce(this);
    this.clock = new RevokeClock({
      policy: () => this.readPolicy(),
      isSettled: (id) => this.record.custody.find(id)?.fate !== undefined,
      cut: (id) => cutAtDeadline(this, id),
    });
    if (carried?.policy !== undefined) this.#policy.knows(carried.policy);
    for (const told of carried?.clock ?? []) this.clock.tell(told);
    this.mailbox = new Mailbox(this);
    for (const id of carried?.cut?.keyIds ?? []) this.compromised.cut.add(id);
    for (const id of carried?.cut?.unsure ?? []) this.compromised.cutUnsure.add(id);
    for (const id of carried?.unanswered ?? []) this.swap.unanswered.add(id);
    this.swap.stageStarted = carried !== undefined;
    for (const id of carried?.given ?? []) this.swap.given.add(id);
  }

  /** Runs the body to one of its ends. Whatever the end, every key the run answers for has a fate afterwards. */
  async toTheEnd(body: () => Promise<End>): Promise<RotationResult> {
    let end: End | { error: unknown };
    try {
      end = await this.passage.run(body);
    } catch (error) {
      end = { error };
    }
    const { cancelled } = this.passage;
    await CancellationScope.nonCancellable(() => settleAll(this, end));
    const { handOver } = this.passage;
    if (handOver !== undefined) return goOnAsEmergency(this, handOver);
    const ended = conclude(this, end, cancelled);
    this.#display.showHere();
    if ("result" in ended) return ended.result;
    throw ended.failure;
  }

  /** Runs one step and keeps its record. */
  async step<Result>(name: StepName, body: () => Promise<Result>, options: StepOptions<Result> = {}): Promise<Result> {
    return runStep(this, name, body, options);
  }

  /** Shows a wait while `body` lasts. */
  async waiting<Result>(plan: Omit<Wait, "since" | "id">, body: (wait: Wait) => Promise<Result>): Promise<Result> {
    return showWait(this, plan, body);
  }

  show(): void {
    this.#display.show();
  }

  /** Waits until who follows this run has heard the latest. */
  async flush(): Promise<void> {
    await this.#display.flush();
  }

  /** Takes what was found as what is rotated. Fails where the run would be killed before its waits can be over. */
  plan(found: Inspection): void {
    this.found = found;
    this.#policy.knows(found.policy);
    this.record.plan(found);
    refuseShortTimeout(this, found);
  }

  get policy(): Policy | undefined {
    return this.#policy.known;
  }

  /** The slot's policy, read once, whoever asks first. Rejects where it cannot be read. */
  async readPolicy(): Promise<Policy> {
    return this.#policy.read();
  }

  isCompromised(keyId: string): boolean {
    return this.record.custody.find(keyId)?.role === "compromised";
  }

  /** Why this rotation no longer takes its time, where it doesn't: its old key is compromised. */
  get hurry(): string | undefined {
    const held = this.found?.held.id;
    if (held === undefined || !this.isCompromised(held)) return undefined;
    return this.clock.find(held)?.by ?? `${held} is compromised`;
  }

  get handsOver(): boolean {
    return this.passage.handOver !== undefined;
  }

  get stopReason(): string {
    return this.passage.stopped ?? "cancelled";
  }

  deadline(duration: Duration): string {
    return this.deadlineIn(inMs(duration));
  }

  deadlineIn(ms: number): string {
    return new Date(Date.parse(this.record.now()) + ms).toISOString();
  }
}
