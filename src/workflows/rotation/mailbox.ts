import { ApplicationFailure, CancellationScope, condition, log, setHandler } from "@temporalio/workflow";

import type { NewKey, RefusedHandIn } from "../../activities/contract.ts";
import { defined } from "../../domain/defined.ts";
import { type Duration, inMs } from "../../domain/duration.ts";
import { decideEscalation, type EscalationAnswer, type EscalationFacts } from "../../domain/escalation.ts";
import type { Policy } from "../../domain/policy.ts";
import type { Approved, Asks, Submitted, Wait } from "../../domain/rotation.ts";
import { management } from "../groups.ts";
import {
  type AbortRequest,
  type Approval,
  abortInput,
  abortSignal,
  approvalInput,
  approveSignal,
  approveUpdate,
  asWords,
  type Escalation,
  escalateSignal,
  escalateUpdate,
  escalationInput,
  parseInput,
  progressQuery,
  type Submission,
  submissionInput,
  submitKeySignal,
  submitKeyUpdate,
} from "../messages.ts";
import { lookUpCompromised, startClocks, unlessHandedOver } from "./compromised.ts";
import { endWhenMoved, moveMeanwhile } from "./end-when-moved.ts";
import { failureDetails, failureMessage, failureType } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

interface Decision extends Approved {
  /** Who, with their words. */
  said: string;
}

/** The order in which messages are carried out that came together: the word of a compromise before a key. */
const turns = { escalate: 0, submitKey: 1 } as const;

/** The word about a key is refused: nobody knows it, or it is no id. */
const refusals = new Set(["KeyUnknown", "KeyAmbiguous", "InvalidInput"]);

/** What people say to a run: the handlers, one message at a time, and the waits for a person. */
export class Mailbox {
  readonly #rotation: Rotation;
  readonly #approvals = new Map<string, Decision>();
  readonly #tickets: { turn: number }[] = [];
  #busy = false;
  #aborted: string | undefined;
  #handedIn: NewKey | undefined;
  #openedAt: string | undefined;

  constructor(rotation: Rotation) {
    this.#rotation = rotation;
    setHandler(progressQuery, () => rotation.record.progress(), {
      description: "what is happening, and what it waits for",
    });
    // Messages that came before the first task are handed over in the order of these lines, not in theirs. An abort calls
    // off what was told before it: taken first, it leaves alone what may have been told after it.
    setHandler(abortSignal, (request) => this.#abort(request));
    setHandler(approveUpdate, (approval) => this.#approve(approval), {
      validator: (approval) => {
        this.#waitThatTakes(parseInput(approvalInput, approval ?? {}, "approve"));
      },
      description: "lets a rotation go on that waits for a person",
    });
    setHandler(approveSignal, (approval) =>
      this.#orWarn("an approval came that was not taken", () => this.#approve(approval)),
    );
    setHandler(submitKeyUpdate, (submission) => this.#take(submission), {
      validator: (submission) => {
        parseInput(submissionInput, submission, "submitKey");
        this.#requireWaitForKey();
      },
      description: "hands in the new key, sealed for this slot and rotation",
    });
    setHandler(submitKeySignal, async (submission) =>
      this.#orWarn("a key was handed in and not taken", () => this.#take(submission)),
    );
    setHandler(escalateUpdate, (escalation) => this.#escalate(escalation), {
      validator: (escalation) => {
        parseInput(escalationInput, escalation, "escalate");
      },
      description: "says that a key is compromised while this rotation runs",
    });
    setHandler(escalateSignal, async (escalation) =>
      this.#orWarn("a key was called compromised, and nothing was done", () => this.#escalate(escalation)),
    );
  }

  /** Whether no message is being carried out. */
  get isIdle(): boolean {
    return this.#tickets.length === 0;
  }

  /** Who asked for an abort; undefined if nobody did. */
  get aborted(): string | undefined {
    return this.#aborted;
  }

  /**
   * Who asked for an abort that counts for this key; undefined if nobody did. A key that was called compromised after it
   * is to be ended all the same.
   */
  abortedFor(keyId: string): string | undefined {
    return this.#rotation.clock.has(keyId) ? undefined : this.#aborted;
  }

  /** What was decided for this wait; undefined while nothing was. */
  decisionFor(wait: Wait): Decision | undefined {
    return this.#approvals.get(wait.id);
  }

  /**
   * Waits for a person's decision, with reminders; returns what was decided. Fails with `NobodyDecided` past the deadline.
   * A compromise of the old key ends the wait undecided, unless the person has to do more than decide.
   */
  async person(wait: {
    for: string;
    asks: Exclude<Asks, { kind: "key" }>;
    deadline: Duration;
    then?: string;
    orElse: string;
  }): Promise<Decision | undefined> {
    const rotation = this.#rotation;
    const deadlineMs = Date.now() + inMs(wait.deadline);
    const hurried = (): boolean => wait.asks.kind === "approval" && rotation.hurry !== undefined;
    return rotation.waiting(
      {
        for: wait.for,
        until: new Date(deadlineMs).toISOString(),
        then: wait.then ?? "the rotation stops",
        action: actionFor(rotation.of.slot, wait.asks),
        asks: wait.asks,
        person: true,
      },
      async (open) => {
        const over = (): boolean =>
          this.decisionFor(open) !== undefined ||
          hurried() ||
          this.#aborted !== undefined ||
          rotation.passage.stopped !== undefined;
        await this.#remind(open, wait.deadline, over);
        const decision = this.decisionFor(open);
        if (decision !== undefined || hurried()) return decision;
        if (rotation.passage.stopped !== undefined)
          throw ApplicationFailure.nonRetryable(rotation.stopReason, "Aborted");
        throw ApplicationFailure.nonRetryable(wait.orElse, "NobodyDecided");
      },
    );
  }

  /** Waits for the approval that policy asks for at this point. Returns whether there was one to wait for. */
  async approval(point: Exclude<Policy["approval"], "never">): Promise<boolean> {
    const { record, policy, hurry } = this.#rotation;
    if (policy?.approval !== point || record.kind === "emergency" || hurry !== undefined) return false;
    const words = point.replace("-", " ");
    const decision = await this.person({
      for: `an approval ${words}`,
      asks: { kind: "approval", of: point },
      deadline: policy.personDeadline,
      orElse: `nobody approved ${words} in time`,
    });
    if (decision === undefined) {
      record.note(`approval ${point}`, "skipped", `nobody approved: ${this.#rotation.hurry ?? "it is not waited for"}`);
    } else record.note(`approval ${point}`, "done", `approved by ${decision.said}`);
    return true;
  }

  /** Waits until a person hands in a key. Past the deadline the rotation stops with `NobodyDecided`. */
  async handedIn(wait: {
    for: string;
    asks: Extract<Asks, { kind: "key" }>;
    deadline: Duration;
    then: string;
    orElse: string;
  }): Promise<NewKey> {
    this.#openedAt = new Date().toISOString();
    this.#handedIn = undefined;
    return this.#rotation.waiting(
      {
        for: wait.for,
        until: this.#rotation.deadline(wait.deadline),
        then: wait.then,
        action: actionFor(this.#rotation.of.slot, wait.asks),
        asks: wait.asks,
        person: true,
      },
      async (open) => {
        await this.#remind(open, wait.deadline, () => this.#handedIn !== undefined);
        if (this.#handedIn !== undefined) return this.#handedIn;
        throw ApplicationFailure.nonRetryable(wait.orElse, "NobodyDecided");
      },
    );
  }

  /** Waits until it is so or the deadline is reached, with a reminder in the log every seventh of the time. */
  async #remind(open: Wait, deadline: Duration, done: () => boolean): Promise<void> {
    const deadlineMs = Date.parse(open.until);
    while (Date.now() < deadlineMs) {
      const pauseMs = Math.min(inMs(deadline) / 7, deadlineMs - Date.now());
      if (await condition(done, pauseMs, { summary: "for a person" })) return;
      log.warn("a rotation waits for a person", { slot: this.#rotation.of.slot, for: open.for, action: open.action });
    }
  }

  // ---- messages ---------------------------------------------------------------------------------------------------

  #approve(approval: Approval | undefined): Approved {
    const given = parseInput(approvalInput, approval ?? {}, "approve");
    const wait = this.#waitThatTakes(given);
    const { by = "somebody", why } = given;
    const accepts = wait.asks?.kind === "approval" ? wait.asks.accepts : undefined;
    const approved: Approved = { by, ...defined({ accepts }) };
    this.#approvals.set(wait.id, { ...approved, said: why === undefined ? by : `${by}: ${why}` });
    return approved;
  }

  /** The open wait that this approval is for. Fails with `InvalidInput` if there is none. */
  #waitThatTakes({ wait: id }: Approval): Wait {
    const { record, of } = this.#rotation;
    const open = record.waitFor("approval");
    if (open === undefined) {
      const now =
        record.waiting === null ? `it is at ${record.progress().phase}` : `it waits for ${record.waiting.for}`;
      throw ApplicationFailure.nonRetryable(`${of.slot} takes no approval now: ${now}`, "InvalidInput");
    }
    if (id !== undefined && id !== open.id) {
      throw ApplicationFailure.nonRetryable(
        `this approval was for another wait of ${of.slot}; now it waits for ${open.for}: look again, then approve that`,
        "InvalidInput",
      );
    }
    return open;
  }

  #requireWaitForKey(): void {
    const { record, of } = this.#rotation;
    if (record.waitFor("key") !== undefined && this.#handedIn === undefined) return;
    const now = record.waiting === null ? `it is at ${record.progress().phase}` : `it waits for ${record.waiting.for}`;
    throw ApplicationFailure.nonRetryable(`${of.slot} takes no key now: ${now}`, "InvalidInput");
  }

  async #take(submission: Submission | undefined): Promise<Submitted> {
    const { sealed, keyId } = parseInput(submissionInput, submission, "submitKey");
    const { of, record } = this.#rotation;
    return this.#inTurn("submitKey", async () => {
      this.#requireWaitForKey();
      const openedAt = this.#openedAt ?? record.times.started;
      try {
        const key = await management.acceptKey({ ...of, sealed, openedAt, ...defined({ keyId }) });
        record.custody.take(key.id, "handed-in");
        this.#handedIn = key;
        return { taken: { id: key.id } };
      } catch (error) {
        this.#ownRefused(error);
        throw error;
      }
    });
  }

  /** A key that was handed in and not taken exists all the same: it is named. */
  #ownRefused(error: unknown): void {
    const { handedIn } = (failureDetails(error) ?? {}) as Partial<RefusedHandIn>;
    const { custody } = this.#rotation.record;
    if (handedIn === undefined || custody.has(handedIn.id)) return;
    custody.take(handedIn.id, "handed-in");
    // One that a slot holds is looked at again at the end: the slot may move off it meanwhile.
    if (handedIn.heldBy.length > 0) return;
    custody.settle(handedIn.id, {
      fate: "named",
      why: `it was handed in and not taken: ${failureMessage(error)}; revoke it by hand if nobody uses it`,
    });
  }

  /** A key was called compromised: its clock starts before anything is waited for; the table says what happens. */
  async #escalate(escalation: Escalation | undefined): Promise<EscalationAnswer> {
    const {
      compromisedKeyId: keyId,
      by = "somebody",
      why,
      since,
      first: firstElsewhere,
    } = parseInput(escalationInput, escalation, "escalate");
    const rotation = this.#rotation;
    const { custody } = rotation.record;
    const calledOff = rotation.clock.calledOff(keyId) !== undefined;
    const told = rotation.clock.has(keyId) || (rotation.isCompromised(keyId) && !calledOff);
    const said = `${by} says ${keyId} is compromised${why === undefined ? "" : `: ${why}`}`;
    const word = {
      keyId,
      at: new Date().toISOString(),
      by: said,
      ...defined({ since, first: firstElsewhere ?? rotation.compromised.first.get(keyId) }),
    };
    rotation.clock.tell(word);
    if (custody.has(keyId)) {
      custody.take(keyId, "compromised");
      custody.reopen(keyId);
    }
    return this.#inTurn("escalate", async () => {
      // Until the slot was looked at, a key that would be cut as a stranger may be the one that serves.
      await condition(() => rotation.found !== undefined || rotation.passage.ending);
      // It came before the look: only now it is known to be a key of this run.
      if (custody.has(keyId) && !rotation.isCompromised(keyId)) {
        custody.take(keyId, "compromised");
        custody.reopen(keyId);
      }
      // While it waited for its turn, the word before it may have been refused and forgotten: then this one is the first.
      const stands = told && rotation.clock.find(keyId) !== undefined;
      if (rotation.clock.calledOff(keyId) === undefined) rotation.clock.tell(word);
      const facts = await this.#factsOf(keyId, stands);
      const who = rotation.clock.calledOff(keyId);
      const row = decideEscalation({ ...facts, calledOff: who !== undefined });
      switch (row.does) {
        case "already":
          if (who === undefined || facts.ended) {
            if (rotation.record.clocks !== undefined) startClocks(rotation, keyId);
          } else if (facts.key !== "new") {
            // Called off: the result names it. A new key that nobody was given is ended all the same.
            custody.take(keyId, "compromised", { given: true });
          }
          break;
        case "hurries":
          startClocks(rotation, keyId);
          void rotation.passage.beside(() => moveMeanwhile(rotation, keyId));
          break;
        case "revokes-new":
          if (facts.kind === "normal" && !facts.ending) rotation.passage.stop(said);
          break;
        case "hands-over":
          rotation.passage.handOverTo(
            { slot: rotation.of.slot, compromisedKeyIds: [keyId], reason: asWords(said), ...defined({ since }) },
            said,
          );
          break;
        case "moves-first":
        case "cuts":
          custody.take(keyId, "compromised", { given: true });
          void rotation.passage.beside(() =>
            facts.key === "other" ? endWhenMoved(rotation, keyId) : moveMeanwhile(rotation, keyId),
          );
          break;
      }
      rotation.show();
      const deadline = rotation.clock.deadlineOf(keyId);
      const words = {
        keyId,
        slot: rotation.of.slot,
        by: deadline,
        atDeadline: rotation.clock.atDeadlineOf(keyId),
        holders: rotation.compromised.seen.get(keyId)?.heldBy ?? [],
        ...defined({ calledOff: who }),
      };
      const runs = who === undefined ? defined({ by: deadline, first: rotation.clock.firstOf(keyId) }) : {};
      return { does: row.does, keyId, ...runs, says: row.says(words) };
    });
  }

  /** Fails with `KeyUnknown`, and takes the word back, where nobody knows a key of this id. */
  async #factsOf(keyId: string, told: boolean): Promise<Omit<EscalationFacts, "calledOff">> {
    const rotation = this.#rotation;
    const { custody, newKey, kind } = rotation.record;
    const key = keyId === rotation.found?.held.id ? "held" : keyId === newKey?.id ? "new" : "other";
    const facts: Omit<EscalationFacts, "calledOff"> = {
      kind,
      key,
      told,
      ended: custody.isEnded(keyId),
      installed: custody.find(keyId)?.given === true,
      returnPassed: rotation.passage.returnPassed,
      ending: rotation.passage.ending,
      heldElsewhere: "no",
      byHand: rotation.found?.byHand !== undefined,
    };
    if (told || facts.ended || key !== "other") return facts;
    try {
      const [seen] = await unlessHandedOver(rotation, () => lookUpCompromised(rotation, { keyIds: [keyId] }));
      if (seen === undefined) return { ...facts, heldElsewhere: "unknown" };
      if (seen.state === "dead") return { ...facts, ended: true };
      const here = seen.heldBy.includes(rotation.of.slot);
      if (here && rotation.found === undefined) return { ...facts, key: "held" };
      if (seen.heldBy.some((slot) => slot !== rotation.of.slot)) return { ...facts, heldElsewhere: "yes" };
      return { ...facts, heldElsewhere: here || seen.unknown.length > 0 ? "unknown" : "no" };
    } catch (error) {
      // A look that could not be made takes nothing back: the clock runs, and the key is looked at again.
      if (!refusals.has(failureType(error) ?? "")) return { ...facts, heldElsewhere: "unknown" };
      rotation.clock.forget(keyId);
      throw error;
    }
  }

  #abort(request: AbortRequest | undefined): void {
    const { by = "somebody", why } = abortInput.safeParse(request ?? {}).data ?? {};
    this.#aborted = `aborted by ${by}${why === undefined ? "" : `: ${why}`}`;
    this.#rotation.clock.callOff(this.#aborted);
    this.#rotation.passage.takeBack();
    this.#rotation.passage.stop(this.#aborted);
  }

  /** One message at a time; of those that wait, a compromise comes first. A cancellation does not reach them. */
  async #inTurn<Result>(kind: keyof typeof turns, work: () => Promise<Result>): Promise<Result> {
    const ticket = { turn: turns[kind] };
    this.#tickets.push(ticket);
    return CancellationScope.nonCancellable(async () => {
      try {
        const isNext = (): boolean => this.#tickets.every((one) => one === ticket || one.turn >= ticket.turn);
        const isFirst = (): boolean => this.#tickets.find(({ turn }) => turn === ticket.turn) === ticket;
        await condition(() => !this.#busy && isNext() && isFirst());
        this.#busy = true;
        try {
          return await work();
        } finally {
          this.#busy = false;
        }
      } finally {
        this.#tickets.splice(this.#tickets.indexOf(ticket), 1);
      }
    });
  }

  async #orWarn(what: string, work: () => unknown): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#rotation.record.warn(`${what}: ${failureMessage(error)}`);
      log.warn(what, { slot: this.#rotation.of.slot, why: failureMessage(error) });
    }
  }
}

/** What a person does about a wait, in a sentence. */
function actionFor(slot: string, asks: Asks): string {
  switch (asks.kind) {
    case "approval":
      return asks.of === "cut-now"
        ? `keyturn approve ${slot} to cut it now, or keyturn abort ${slot} to call the emergency off`
        : `keyturn approve ${slot}, or keyturn abort ${slot}`;
    case "key":
      return `make ${asks.keyType}, named ${asks.name}, for ${asks.belongsTo} at ${asks.where}, to live ${asks.livesAtLeast} or longer, then keyturn submit-key ${slot}`;
    case "revocation":
      return `revoke the key ${asks.which} at ${asks.where}, then keyturn approve ${slot}, or keyturn abort ${slot}`;
  }
}
