import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  allHandlersFinished,
  condition,
  getExternalWorkflowHandle,
  isCancellation,
  log,
  makeContinueAsNewFunc,
  setCurrentDetails,
  setHandler,
  sleep,
  upsertSearchAttributes,
  uuid4,
  workflowInfo,
} from "@temporalio/workflow";

import type { Inspection, Installed, NewKey, OfRotation } from "../activities/contract.ts";
import { type Duration, inMs, readableMs } from "../domain/duration.ts";
import { longestRotationMs, type Policy } from "../domain/policy.ts";
import type {
  Clocks,
  EmergencyStep,
  Incident,
  Progress,
  Remedy,
  RotationKind,
  RotationResult,
  RotationStep,
  RotationTimes,
  StepRecord,
  Wait,
} from "../domain/rotation.ts";
import { parseSlot } from "../domain/slot.ts";
import { describeProgress } from "./details.ts";
import { cleanup, management } from "./groups.ts";
import {
  type AbortRequest,
  type Approval,
  abortInput,
  abortSignal,
  approvalInput,
  approveSignal,
  approveUpdate,
  type EmergencyRotationStart,
  type Escalation,
  escalateSignal,
  escalateUpdate,
  escalationInput,
  followedProgressSignal,
  parseInput,
  progressQuery,
  type Submission,
  submissionInput,
  submitKeySignal,
  submitKeyUpdate,
} from "./messages.ts";
import { searchAttributes } from "./search-attributes.ts";

type WaitPlan = Omit<Wait, "since">;

/** How often a clean-up is tried that is refused or answered with nonsense; outages are outlasted by each try. */
const cleanUpTries = 3;

/**
 * One running rotation: what it has done, what it waits for, who asked it to stop. The workflow files say what happens
 * in which order; this keeps the record that the query, the UI and the result show, and ends every run in one place.
 */
export class Rotation {
  readonly of: OfRotation;
  readonly times: RotationTimes = { started: new Date().toISOString() };
  /** Set once a write of the new key may have been sent: from then on the new key may be the one that serves. */
  installStarted = false;
  /** Set once aliases may have been made: lists show them late, so a clean-up looks twice. */
  stageStarted = false;
  /** Whether the copy of the old key on `prev` was seen to answer: only then can its death be seen there. */
  prevAnswered = false;
  /** Counts the keys this rotation made, so that no two bear one name. */
  keysIssued = 0;
  /** Our own requests with the new key since it was installed. */
  probes = 0;
  /** Who says that a key is revoked by hand, and when they said it. */
  saidRevoked: { by: string; at: string } | undefined;
  /** From when until when requests could fail for want of a key: `cut-first` only. */
  outage: RotationResult["outage"];

  readonly #kind: RotationKind;
  readonly #steps: StepRecord[] = [];
  readonly #unknown = new Set<string>();
  readonly #warnings = new Set<string>();
  readonly #leftOver: { id: string; why: string }[] = [];
  readonly #scope = new CancellationScope();
  #waiting: Wait | null = null;
  #oldKey: { id: string } | null = null;
  #newKey: { id: string } | null = null;
  #policy: Policy | undefined;
  #nextDue: string | undefined;
  #approval: string | undefined;
  #openedAt: string | undefined;
  #handedIn: NewKey | undefined;
  readonly #everHandedIn = new Set<string>();
  #abort: string | undefined;
  #hurry: string | undefined;
  #compromisedSince: string | undefined;
  #handOver: EmergencyRotationStart | undefined;
  #clocks: Clocks | undefined;
  #incident: Incident | undefined;
  #returnPassed = false;
  #follower = workflowInfo().parent?.workflowId;
  #told: Promise<void> = Promise.resolve();
  #telling = false;
  #untold = false;

  constructor(kind: RotationKind, start: { slot: string }) {
    this.#kind = kind;
    this.of = { slot: start.slot, rotationId: uuid4() };
    setHandler(progressQuery, () => this.progress(), { description: "what is happening, and what it waits for" });
    setHandler(approveUpdate, (approval) => this.#approve(approval), {
      validator: (approval) => {
        parseInput(approvalInput, approval ?? {}, "approve");
        this.#requireWaitFor("approval");
      },
      description: "lets a rotation go on that waits for a person",
    });
    setHandler(approveSignal, (approval) => {
      if (this.#waiting?.takes === "approval") this.#approve(approval);
      else log.warn("an approval came that nothing waits for", { slot: start.slot });
    });
    setHandler(submitKeyUpdate, (submission) => this.#take(submission), {
      validator: (submission) => {
        parseInput(submissionInput, submission, "submitKey");
        this.#requireWaitFor("key");
      },
      description: "hands in the new key, sealed for this slot and rotation",
    });
    setHandler(submitKeySignal, async (submission) => {
      try {
        this.#requireWaitFor("key");
        await this.#take(submission);
      } catch (error) {
        this.warn([`a key was handed in and not taken: ${failureMessage(error)}`]);
      }
    });
    setHandler(escalateUpdate, (escalation) => this.#escalate(escalation), {
      validator: (escalation) => {
        parseInput(escalationInput, escalation, "escalate");
      },
      description: "says that a key is compromised while this rotation runs",
    });
    setHandler(escalateSignal, async (escalation) => {
      await this.#escalate(escalation).catch((error: unknown) => this.warn([failureMessage(error)]));
    });
    setHandler(abortSignal, (request) => this.#askToAbort(request));
    upsertSearchAttributes([
      { key: searchAttributes.slot, value: start.slot },
      { key: searchAttributes.provider, value: parseSlot(start.slot)?.provider ?? "unknown" },
      { key: searchAttributes.kind, value: kind },
    ]);
  }

  // ---- the frame ------------------------------------------------------------------------------------------------

  /**
   * Runs the body to one of its ends. A cancellation or an abort cleans up and completes as `aborted`; any other
   * failure cleans up and fails with the result so far in its details.
   */
  async toTheEnd(body: () => Promise<RotationResult>): Promise<RotationResult> {
    try {
      return await this.#scope.run(body);
    } catch (error) {
      return await CancellationScope.nonCancellable(() => this.#stop(error));
    } finally {
      await CancellationScope.nonCancellable(async () => {
        await condition(allHandlersFinished);
        await this.#told;
        if (this.#handOver !== undefined) await continueAsEmergency(this.#handOver);
      });
    }
  }

  /** The part of a rotation that is finished once it began: a cancellation no longer stops it. */
  async pastTheReturn(body: () => Promise<RotationResult>): Promise<RotationResult> {
    this.#returnPassed = true;
    return CancellationScope.nonCancellable(body);
  }

  /**
   * Runs one step and keeps its record. `unless` names why the step is skipped, where it is; `told` says of its result
   * what the record shows, where that is not a sentence itself.
   */
  async step<Result>(
    name: RotationStep | EmergencyStep | Remedy,
    body: () => Promise<Result>,
    { unless, told }: { unless?: string | undefined; told?: (result: Result) => string } = {},
  ): Promise<Result> {
    const started = new Date().toISOString();
    if (unless !== undefined) {
      this.#steps.push({ step: name, started, ended: started, outcome: "skipped", note: unless });
      return undefined as Result;
    }
    const record: StepRecord = { step: name, started, outcome: "running" };
    this.#steps.push(record);
    upsertSearchAttributes([{ key: searchAttributes.phase, value: name }]);
    this.#show();
    try {
      const result = await body();
      record.outcome = "done";
      const note = told?.(result) ?? result;
      if (typeof note === "string") record.note = note;
      return result;
    } catch (error) {
      record.outcome = "failed";
      record.note = isCancellation(error) ? (this.#abort ?? "cancelled") : failureMessage(error);
      throw error;
    } finally {
      record.ended = new Date().toISOString();
      this.#show();
    }
  }

  /** Shows a wait while `body` lasts. An approval from before it doesn't count for it. */
  async waiting<Result>(plan: WaitPlan, body: () => Promise<Result>): Promise<Result> {
    this.#approval = undefined;
    this.#waiting = { ...plan, since: new Date().toISOString() };
    this.#show();
    try {
      return await body();
    } finally {
      this.#waiting = null;
    }
  }

  // ---- people ---------------------------------------------------------------------------------------------------

  get approved(): boolean {
    return this.#approval !== undefined;
  }

  /** Whether the clocks of an emergency run. */
  get clocksRun(): boolean {
    return this.#clocks !== undefined;
  }

  get abortAsked(): boolean {
    return this.#abort !== undefined;
  }

  /** Who asked this rotation to stop, and why. */
  stopReason(): string {
    return this.#abort ?? "cancelled";
  }

  /** Who approved, once; the next wait asks again. */
  takeApproval(): string | undefined {
    const by = this.#approval;
    this.#approval = undefined;
    return by;
  }

  /** Since when the compromised old key may have been in wrong hands, where somebody said so. */
  get compromisedSince(): string | undefined {
    return this.#compromisedSince;
  }

  /** Why this rotation no longer takes its time, where it doesn't: its old key is compromised. */
  hurry(): string | undefined {
    return this.#hurry;
  }

  /**
   * Waits until a person hands in a key that can be used. One that cannot is answered at once with the reason, and the
   * wait goes on. Past the deadline the rotation stops.
   */
  async handedIn(wait: { for: string; action: string; deadline: Duration; orElse: string }): Promise<NewKey> {
    const deadlineMs = Date.now() + inMs(wait.deadline);
    this.#openedAt = new Date().toISOString();
    this.#handedIn = undefined;
    return this.waiting(
      {
        for: wait.for,
        until: new Date(deadlineMs).toISOString(),
        then: `the rotation stops${this.#cutMeanwhile()}`,
        action: wait.action,
        takes: "key",
        person: true,
      },
      async () => {
        await this.#remind(wait, deadlineMs, () => this.#handedIn !== undefined);
        if (this.#handedIn !== undefined) return this.#handedIn;
        throw ApplicationFailure.nonRetryable(wait.orElse, "InvalidInput");
      },
    );
  }

  /** What happens to the compromised key while a person is waited for. */
  #cutMeanwhile(): string {
    if (this.#clocks === undefined || this.#clocks.revoked !== undefined) return "";
    const { revokeBy } = this.#clocks;
    return this.#policy?.emergency.atDeadline === "hold"
      ? ", and the compromised key stays alive"
      : `; the compromised key is cut at ${revokeBy}, and REQUESTS FAIL from then until a key is in`;
  }

  /** Waits for the approval that policy asks for at this point. Returns whether there was one to wait for. */
  async approval(point: Policy["approval"]): Promise<boolean> {
    if (this.#policy?.approval !== point || this.#kind === "emergency" || this.#hurry !== undefined) return false;
    const by = await this.person({
      for: `an approval ${point.replace("-", " ")}`,
      deadline: this.#policy.personDeadline,
      orElse: `nobody approved ${point.replace("-", " ")} in time`,
    });
    this.#steps.push({ step: `approval ${point}`, ...this.#now(), outcome: "done", note: `approved by ${by}` });
    return true;
  }

  /**
   * Waits for a person, with reminders; returns who it was. Past the deadline the rotation stops. A compromised old key
   * ends the wait, unless the person has to do more than decide (`first`).
   */
  async person({
    for: what,
    deadline,
    orElse,
    first,
  }: {
    for: string;
    deadline: Duration;
    orElse: string;
    first?: string;
  }): Promise<string> {
    const deadlineMs = Date.now() + inMs(deadline);
    const approve = `keyturn approve ${this.of.slot}, or keyturn abort ${this.of.slot}`;
    const action = first === undefined ? approve : `${first}, then ${approve}`;
    const hurried = (): string | undefined => (first === undefined ? this.#hurry : undefined);
    return this.waiting(
      {
        for: what,
        until: new Date(deadlineMs).toISOString(),
        then: "the rotation stops",
        action,
        takes: "approval",
        person: true,
      },
      async () => {
        await this.#remind(
          { for: what, action, deadline },
          deadlineMs,
          () => this.approved || hurried() !== undefined || this.abortAsked,
        );
        if (this.abortAsked) throw ApplicationFailure.nonRetryable(this.#abort ?? "aborted", "InvalidInput");
        const by = this.takeApproval() ?? hurried();
        if (by !== undefined) return by;
        throw ApplicationFailure.nonRetryable(orElse, "InvalidInput");
      },
    );
  }

  /** Waits until it is so or the deadline is reached, with a reminder in the log every seventh of the time. */
  async #remind(
    wait: { for: string; action: string; deadline: Duration },
    deadlineMs: number,
    done: () => boolean,
  ): Promise<void> {
    while (Date.now() < deadlineMs) {
      const pauseMs = Math.min(inMs(wait.deadline) / 7, deadlineMs - Date.now());
      if (await condition(done, pauseMs, { summary: "for a person" })) return;
      log.warn("a rotation waits for a person", { slot: this.of.slot, for: wait.for, action: wait.action });
    }
  }

  // ---- the record -----------------------------------------------------------------------------------------------

  plan(found: Inspection): void {
    this.#policy = found.policy;
    this.#oldKey = { id: found.held.id };
    this.warn(found.warnings);
    refuseShortTimeout(found);
  }

  issued(key: NewKey): void {
    this.#newKey = { id: key.id };
    this.reached("issued");
  }

  installed(key: NewKey, { at }: Installed): void {
    this.#newKey = { id: key.id };
    this.reached("installed", at);
    if (this.#clocks !== undefined) this.#clocks.installed = at;
  }

  /** Starts the clocks of an emergency: they run from now. */
  startClocks({ emergency }: Policy): Clocks {
    this.#clocks = {
      installBy: this.deadline(emergency.installWithin),
      revokeBy: this.deadline(emergency.revokeWithin),
      ...(this.times.installed === undefined ? {} : { installed: this.times.installed }),
    };
    return this.#clocks;
  }

  /** What the compromised key was used for, as far as it is known by now. */
  incident(incident: Incident): void {
    this.#incident = incident;
  }

  /** The key that is compromised, where it is not the one the slot held. */
  compromised(id: string): void {
    this.#oldKey = { id };
  }

  reached(moment: keyof RotationTimes, at: string = new Date().toISOString()): void {
    this.times[moment] = at;
    if ((moment === "cut" || moment === "revoked") && this.#clocks !== undefined) this.#clocks.revoked ??= at;
  }

  warn(warnings: string[]): void {
    for (const warning of warnings) this.#warnings.add(warning);
  }

  /** Names a live key that stays behind. */
  leaves(id: string, why: string): void {
    this.#leftOver.push({ id, why });
  }

  /** Names a check that could not be made. */
  unknown(check: string): void {
    this.#unknown.add(check);
  }

  deadline(duration: Duration): string {
    return this.deadlineIn(inMs(duration));
  }

  deadlineIn(ms: number): string {
    return new Date(Date.now() + ms).toISOString();
  }

  progress(): Progress {
    return {
      slot: this.of.slot,
      kind: this.#kind,
      rotationId: this.of.rotationId,
      // A remedy is a step within another, which goes on after it.
      phase: (this.#steps.findLast(({ outcome }) => outcome === "running") ?? this.#steps.at(-1))?.step ?? "starting",
      waiting: this.#waiting,
      action: this.#waiting?.action ?? "nothing",
      oldKey: this.#oldKey,
      newKey: this.#newKey,
      times: { ...this.times },
      ...(this.#clocks === undefined ? {} : { clocks: { ...this.#clocks } }),
      ...(this.outage === undefined ? {} : { outage: { ...this.outage } }),
      steps: this.#steps.map((step) => ({ ...step })),
    };
  }

  // ---- the ends -------------------------------------------------------------------------------------------------

  /** Step 14: aliases gone, leftovers swept, the next date set. */
  async finish(key: NewKey): Promise<string> {
    const finished = await cleanup.finish({ ...this.of, ...this.#handedInKeys(), installedKeyId: key.id });
    this.#leftOver.push(...finished.leftOver);
    this.warn(finished.warnings);
    this.#nextDue = finished.nextDue;
    return `next rotation due ${finished.nextDue}`;
  }

  kept(reason: string): RotationResult {
    return this.ended("kept", reason);
  }

  ended(outcome: RotationResult["outcome"], reason: string): RotationResult {
    this.reached("finished");
    const result: RotationResult = {
      slot: this.of.slot,
      kind: this.#kind,
      outcome,
      reason,
      rotationId: this.of.rotationId,
      oldKey: this.#oldKey,
      newKey: this.#newKey,
      times: this.times,
      unknown: [...this.#unknown],
      leftOver: this.#leftOver,
      warnings: [...this.#warnings],
      ...(this.#nextDue === undefined ? {} : { nextDue: this.#nextDue }),
      ...(this.#clocks === undefined ? {} : { clocks: this.#clocks }),
      ...(this.outage === undefined ? {} : { outage: this.outage }),
      ...(this.#incident === undefined ? {} : { incident: this.#incident }),
      steps: this.#steps,
    };
    upsertSearchAttributes([{ key: searchAttributes.phase, value: outcome }]);
    this.#show();
    return result;
  }

  /** Ends a rotation that did not reach its end: nothing of its own stays behind unnamed. */
  async #stop(error: unknown): Promise<RotationResult> {
    // An attempt that fails while it is cancelled ends with its own failure.
    const cancelled = isCancellation(error) || (!this.#returnPassed && this.#scope.consideredCancelled);
    const aborted = cancelled || (this.abortAsked && this.#returnPassed);
    const reason = aborted ? (this.#abort ?? "cancelled") : failureMessage(error);
    if (this.#policy !== undefined) await this.release();
    if (!this.installStarted && this.times.issued !== undefined) this.#newKey = null;
    const result = this.ended("aborted", reason);
    if (aborted) return result;
    throw ApplicationFailure.create({
      message: reason,
      type: failureType(error) ?? "Unexpected",
      nonRetryable: true,
      details: [result],
    });
  }

  /** Leaves the slot with one working key, and names what has to stay alive. */
  async release(): Promise<void> {
    try {
      const released = await this.#patiently(() =>
        cleanup.releaseSlot({
          ...this.of,
          ...this.#handedInKeys(),
          installStarted: this.installStarted,
          ...(this.#newKey === null ? {} : { newKeyId: this.#newKey.id }),
          ...(this.#oldKey === null ? {} : { oldKeyId: this.#oldKey.id }),
        }),
      );
      this.#leftOver.push(...released.leftOver);
      this.warn(released.warnings);
      if (this.stageStarted && this.#policy !== undefined) {
        await sleep(inMs(this.#policy.propagationWait), { summary: "until lists show what was made last" });
        await this.#patiently(() => cleanup.removeAliases(this.of));
      }
    } catch (error) {
      this.warn([`cleaning up failed: ${failureMessage(error)}`]);
      for (const key of [this.#oldKey, this.#newKey]) {
        if (key !== null)
          this.#leftOver.push({ id: key.id, why: "the clean-up failed: look whether the slot holds it" });
      }
    }
  }

  /** Tries a clean-up again that failed for good: giving up leaves something behind, and the cause may have passed. */
  async #patiently<Result>(work: () => Promise<Result>): Promise<Result> {
    for (let tries = 1; ; tries++) {
      try {
        return await work();
      } catch (error) {
        if (tries === cleanUpTries || this.#policy === undefined) throw error;
        await sleep(inMs(this.#policy.propagationWait) * tries, { summary: "before cleaning up again" });
      }
    }
  }

  #handedInKeys(): { handedIn?: string[] } {
    return this.#everHandedIn.size === 0 ? {} : { handedIn: [...this.#everHandedIn] };
  }

  #requireWaitFor(what: "approval" | "key"): void {
    if (this.#waiting?.takes === what) return;
    const now = this.#waiting === null ? `it is at ${this.progress().phase}` : `it waits for ${this.#waiting.for}`;
    throw ApplicationFailure.nonRetryable(`${this.of.slot} takes no ${what} now: ${now}`, "InvalidInput");
  }

  #approve(approval: Approval | undefined): string {
    const { by = "somebody", why } = approvalInput.safeParse(approval ?? {}).data ?? {};
    this.#approval = why === undefined ? by : `${by}: ${why}`;
    return `approved ${this.of.slot}`;
  }

  async #take(submission: Submission | undefined): Promise<string> {
    const { sealed, keyId } = parseInput(submissionInput, submission, "submitKey");
    const openedAt = this.#openedAt ?? this.times.started;
    const said = keyId === undefined ? {} : { keyId };
    const key = await management.acceptKey({ ...this.of, sealed, openedAt, ...said });
    this.#handedIn = key;
    this.#everHandedIn.add(key.id);
    return `${this.of.slot} takes ${key.id}`;
  }

  /** A key was found compromised while this rotation runs: what that means depends on which key it is. */
  async #escalate(escalation: Escalation | undefined): Promise<string> {
    const { compromisedKeyId: id, by = "somebody", why, since } = parseInput(escalationInput, escalation, "escalate");
    const said = `${by} says ${id} is compromised${why === undefined ? "" : `: ${why}`}`;
    // Until the slot was looked at, a key that would be cut as a stranger may be the one that serves.
    await CancellationScope.nonCancellable(() =>
      condition(() => this.#oldKey !== null || this.times.finished !== undefined),
    );
    if (this.#oldKey === null) {
      throw ApplicationFailure.nonRetryable(
        `the rotation of ${this.of.slot} ended before it knew which key the slot holds: start an emergency of ${id}`,
        "InvalidInput",
      );
    }
    if (id === this.#oldKey.id) {
      if (this.#kind === "emergency")
        return `the emergency of ${id} is running: it is cut at ${this.#clocks?.revokeBy} at the latest`;
      if (this.#policy === undefined || this.times.revoked !== undefined) return `${id} is revoked already`;
      if (this.#hurry === undefined) {
        this.#hurry = said;
        this.#compromisedSince = since;
        void this.#cutAtDeadline(id, this.startClocks(this.#policy));
      }
      return `the rotation hurries: ${id} is cut as soon as the new key serves, or at ${this.#clocks?.revokeBy}`;
    }
    if (id === this.#newKey?.id) {
      this.#abort = said;
      if (this.installStarted) {
        const leftOver = this.#returnPassed ? [] : [this.#oldKey.id];
        this.#handOver = {
          slot: this.of.slot,
          compromisedKeyId: id,
          leftOver,
          reason: said,
          ...(since === undefined ? {} : { since }),
        };
      }
      if (!this.#returnPassed) this.#scope.cancel();
      return this.installStarted ? `an emergency of ${id} follows` : `${id} is revoked, it was not installed yet`;
    }
    const { how } = await management.cutKey({ ...this.of, keyId: id });
    return `${id} is ${how}; it is not a key of this rotation, which goes on`;
  }

  /** Cuts the compromised old key when its deadline comes, whatever the state of the new one, where policy says so. */
  async #cutAtDeadline(keyId: string, { revokeBy }: Clocks): Promise<void> {
    const done = (): boolean => this.times.revoked !== undefined || this.times.finished !== undefined;
    const reached = await CancellationScope.nonCancellable(() =>
      condition(done, Math.max(1, Date.parse(revokeBy) - Date.now()), { summary: "until the compromised key is cut" }),
    );
    if (reached || this.#policy?.emergency.atDeadline !== "revoke") return;
    await CancellationScope.nonCancellable(async () => {
      try {
        const { at } = await cleanup.cutKey({ ...this.of, keyId });
        this.reached("cut", at);
      } catch (error) {
        this.warn([`${keyId} could not be cut at its deadline: ${failureMessage(error)}`]);
      }
    });
  }

  #askToAbort(request: AbortRequest | undefined): void {
    const { by = "somebody", why } = abortInput.safeParse(request ?? {}).data ?? {};
    this.#abort = `aborted by ${by}${why === undefined ? "" : `: ${why}`}`;
    if (!this.#returnPassed) this.#scope.cancel();
  }

  #now(): { started: string; ended: string } {
    const now = new Date().toISOString();
    return { started: now, ended: now };
  }

  /** Brings the UI, and the start that follows this run, up to date. */
  #show(): void {
    setCurrentDetails(describeProgress(this.progress()));
    this.#untold = true;
    if (!this.#telling) this.#told = CancellationScope.nonCancellable(() => this.#tell());
  }

  /** One signal at a time, since two under way may arrive the other way round; each tells the latest. */
  async #tell(): Promise<void> {
    this.#telling = true;
    try {
      while (this.#untold && this.#follower !== undefined) {
        this.#untold = false;
        await getExternalWorkflowHandle(this.#follower).signal(followedProgressSignal, this.progress());
      }
    } catch {
      this.#follower = undefined; // it ended; this run goes on alone
    } finally {
      this.#telling = false;
    }
  }
}

/** Goes on under the same workflow id as the emergency of the key this rotation put in. */
const continueAsEmergency = makeContinueAsNewFunc<(start: EmergencyRotationStart) => Promise<RotationResult>>({
  workflowType: "emergencyRotation",
});

/** A run that would be killed before its waits can be over is refused while nothing is changed. */
function refuseShortTimeout({ policy, canIssue, byHand }: Inspection): void {
  // A start by `temporal` says 0 for no timeout.
  const { executionTimeoutMs = 0 } = workflowInfo();
  const longestMs = longestRotationMs(policy, { byPerson: !canIssue, revokedByPerson: byHand !== undefined });
  if (executionTimeoutMs === 0 || executionTimeoutMs >= longestMs) return;
  throw ApplicationFailure.nonRetryable(
    `the execution timeout of ${readableMs(executionTimeoutMs)} is shorter than the waits of this rotation can be: start it with ${readableMs(longestMs)} or more, or without one`,
    "InvalidInput",
  );
}

/** The type of the failure behind an error, as the table of failures names it. */
export function failureType(error: unknown): string | undefined {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  return cause instanceof ApplicationFailure ? (cause.type ?? undefined) : undefined;
}

/** The sentence of the failure behind an error. */
export function failureMessage(error: unknown): string {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  return cause instanceof Error ? cause.message : String(error);
}
