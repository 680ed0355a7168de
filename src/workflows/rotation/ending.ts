import { allHandlersFinished, ApplicationFailure, condition, isCancellation } from "@temporalio/workflow";

import type { CustodyEntry } from "../../domain/custody.ts";
import type { Incident, RotationResult } from "../../domain/rotation.ts";
import {
  cutAtDeadline,
  cutNow,
  endCompromised,
  endOrAsk,
  endUnheld,
  lookBeside,
  unlessHandedOver,
  whyHeldBack,
} from "./compromised.ts";
import { causeOf, failureMessage, failureType } from "./failures.ts";
import { gatherEvidence } from "./gather-evidence.ts";
import { moveOthers } from "./move-others.ts";
import { proveAfterAll } from "./prove-in-slot.ts";
import type { Rotation } from "./rotation.ts";
import { cleanUp, lookAgainWhereWritten, name, nameCalledOff, nameWhatOthersCut } from "./settle.ts";

/** How the body of a run ended, where it did not fail. */
export interface End {
  outcome: RotationResult["outcome"];
  reason: string;
}

/**
 * The one exit of every run: it cannot be passed while a key is open. What was started is waited for; then each
 * compromised key is cut by its clock, or named; then the rest of what the run answers for is looked up, ended by the
 * rules of its role, or named. A message that comes meanwhile is heard, and the exit begins again. A hand-over goes on
 * with all of it as it is.
 */
export async function settleAll(rotation: Rotation, end: End | { error: unknown }): Promise<void> {
  rotation.passage.ending = true;
  const { record, mailbox, clock } = rotation;
  const isQuiet = (): boolean => !rotation.passage.busy && mailbox.isIdle && allHandlersFinished();
  let lookedAfter: Incident | undefined;
  for (;;) {
    // Evidence takes its time: another slot may have moved off a key since it was looked up.
    if (record.incident !== lookedAfter && !rotation.handsOver) {
      lookedAfter = record.incident;
      reopenHeldElsewhere(rotation);
      await lookAgainWhereWritten(rotation);
    }
    if (!rotation.handsOver) await settleCompromised(rotation, end);
    await condition(() => isQuiet());
    if (rotation.handsOver) {
      rotation.passage.leave();
      break;
    }
    if (compromisedAndOpen(rotation).length > 0) continue;
    await cleanUp(rotation);
    if ("error" in end) await afterACut(rotation);
    await rotation.flush();
    if (record.incident !== lookedAfter) continue;
    if (record.custody.open().length === 0 && isQuiet() && !rotation.handsOver) break;
  }
  await clock.close();
}

function reopenHeldElsewhere({ of, record: { custody } }: Rotation): void {
  for (const { id, fate } of custody.all()) if (fate?.fate === "held" && fate.by !== of.slot) custody.reopen(id);
}

/** What the run has to say at its end, when every key has its fate. */
export function conclude(
  rotation: Rotation,
  told: End | { error: unknown },
  scopeCancelled: boolean,
): { result: RotationResult } | { failure: ApplicationFailure } {
  const { record, mailbox } = rotation;
  const end = unlessWrittenOver(rotation, told);
  // Called compromised after the look had found that nothing was due.
  if ("outcome" in end && end.outcome === "kept" && wasCut(rotation)) return finished(rotation, "cut", end.reason);
  if ("outcome" in end) return finished(rotation, end.outcome, end.reason);
  const { error } = end;
  const { newKey, custody } = record;
  if (newKey !== null && custody.find(newKey.id)?.given !== true) record.newKey = null;
  // An attempt that fails while it is cancelled ends with its own failure.
  const cancelled = isCancellation(error) || (!rotation.passage.returnPassed && scopeCancelled);
  const stopped = cancelled || (mailbox.aborted !== undefined && rotation.passage.returnPassed);
  const reason = stopped ? rotation.stopReason : failureMessage(error);
  if (wasCut(rotation) && (stopped || record.kind === "emergency")) {
    const isNew =
      record.times.verified !== undefined && newKey !== null && custody.find(newKey.id)?.fate?.fate === "held";
    return finished(rotation, isNew ? "rotated" : "cut", reason);
  }
  if (stopped) return finished(rotation, "aborted", reason);
  record.stage = "failed";
  const cause = causeOf(error);
  const details = cause instanceof ApplicationFailure ? (cause.details ?? []) : [];
  return {
    failure: ApplicationFailure.create({
      message: reason,
      type: failureType(error) ?? "Unexpected",
      nonRetryable: true,
      details: [record.result("aborted", reason), ...details],
    }),
  };
}

/** What is rotated holds its new key. A write over it, by hand or of an attempt that landed late, is somebody's to look at. */
function unlessWrittenOver({ of, record, swap }: Rotation, end: End | { error: unknown }): End | { error: unknown } {
  const { newKey } = record;
  if (!("outcome" in end) || end.outcome !== "rotated" || newKey === null || !swap.notHeld.has(newKey.id)) return end;
  const message = `${of.slot} was written over: it does not hold ${newKey.id} any more; look which key it holds (keyturn keys ${of.slot}), and start again`;
  return { error: ApplicationFailure.nonRetryable(message, "SlotChanged") };
}

function finished(
  { record }: Rotation,
  outcome: RotationResult["outcome"],
  reason: string,
): { result: RotationResult } {
  record.stage = outcome;
  return { result: record.result(outcome, reason) };
}

/** Whether the compromised key that the slot held was ended; each, where nobody could look which it held. */
function wasCut(rotation: Rotation): boolean {
  const gone = goneHere(rotation);
  return gone.length > 0 && (rotation.found !== undefined || gone.length === compromisedKeys(rotation).length);
}

/** The compromised keys that were ended and that the slot held, or may have. */
function goneHere(rotation: Rotation): CustodyEntry[] {
  const held = rotation.found?.held.id;
  const gone = compromisedKeys(rotation).filter(({ fate }) => fate?.fate === "ended");
  return gone.filter(({ id }) => held === undefined || id === held);
}

function compromisedKeys({ record: { custody } }: Rotation): CustodyEntry[] {
  return custody.all().filter(({ role }) => role === "compromised");
}

// ---- compromised keys ---------------------------------------------------------------------------------------------

function compromisedAndOpen({ record }: Rotation): CustodyEntry[] {
  return record.custody.open().filter(({ role }) => role === "compromised");
}

/** Gives each compromised key its fate. */
async function settleCompromised(rotation: Rotation, end: End | { error: unknown }): Promise<void> {
  const { clock } = rotation;
  nameWhatOthersCut(rotation);
  for (const { id, given } of compromisedAndOpen(rotation)) {
    if (rotation.handsOver) return;
    const who = clock.calledOff(id);
    if (who !== undefined && given) {
      nameCalledOff(rotation, id, who);
    } else {
      const why = "error" in end ? failureMessage(end.error) : "the run ends";
      await settleOne(rotation, id, { given, why }).catch((error: unknown) => {
        // Called off meanwhile: it is named as that. One that nobody was given is tried once, called off or not.
        if (rotation.handsOver || (given && clock.calledOff(id) !== undefined)) return;
        name(rotation, id, `it is compromised and may be ALIVE: ${failureMessage(error)}; revoke it by hand now`);
      });
    }
  }
}

async function settleOne(
  rotation: Rotation,
  id: string,
  { given, why }: { given: boolean; why: string },
): Promise<void> {
  const { record, clock, found } = rotation;
  if (found?.byHand !== undefined) return endOrAsk(rotation, id);
  // Nobody was ever given it, or it is cut already: nothing is waited for.
  if ((!given || rotation.compromised.cut.has(id)) && (await endUnheld(rotation, id))) return;
  // Up to when the others are waited for.
  const needsPolicy = clock.has(id) && clock.deadlineOf(id) === undefined;
  if (needsPolicy) await rotation.readPolicy();
  await lookBeside(rotation, id);
  if (record.custody.isEnded(id)) return;
  // Without a clock there is no deadline up to which others could be waited for.
  if (clock.has(id)) await moveOthers(rotation, id);
  if (rotation.handsOver || record.custody.find(id)?.fate !== undefined) return;
  if (whyHeldBack(rotation, id) === undefined && (await endUnheld(rotation, id))) return;
  if (rotation.clock.atDeadlineOf(id) === "hold") {
    name(
      rotation,
      id,
      `it is compromised and ALIVE: ${why}, and policy says to hold it past its deadline; revoke it by hand, or start keyturn emergency again`,
    );
    return;
  }
  if (!clock.has(id)) return name(rotation, id, `it is compromised and may be ALIVE: ${why}; revoke it by hand now`);
  const over = (): boolean =>
    record.custody.find(id)?.fate !== undefined || clock.calledOff(id) !== undefined || rotation.handsOver;
  await rotation.waiting(
    {
      for: `the revoke deadline of ${id}, since no new key could be put in: ${why}`,
      until: clock.deadlineOf(id) ?? rotation.record.now(),
      then: `${id} is cut without a new key, and requests fail`,
      action: `keyturn approve ${rotation.of.slot} to cut it now, or keyturn abort ${rotation.of.slot} to call the emergency off`,
      asks: { kind: "approval", of: "cut-now" },
      person: true,
    },
    (wait) => condition(() => over() || clock.isDue(id) || rotation.mailbox.decisionFor(wait) !== undefined),
  );
  if (!over() && !clock.isDue(id)) {
    await cutNow(rotation, id, { patiently: true });
    await endCompromised(rotation, id);
  }
  // Past the deadline the clock cuts, however long it is refused; what it waits for is shown by itself.
  await condition(() => over() || !rotation.compromised.ends.has(id));
  if (!over() && clock.isDue(id)) await cutAtDeadline(rotation, id);
  if (!over()) name(rotation, id, `it is compromised and ALIVE: it could not be cut; revoke it by hand now`);
}

/**
 * Where a key was cut and the body had failed: what it was used for, and whether the slot answers with the new key after
 * all. Neither keeps a hand-over waiting, whose keys have deadlines.
 */
async function afterACut(rotation: Rotation): Promise<void> {
  const { record, policy } = rotation;
  const { newKey, custody, times } = record;
  if (policy === undefined || goneHere(rotation).length === 0) return;
  const isIn = newKey !== null && custody.find(newKey.id)?.fate?.fate === "held";
  await unlessHandedOver(rotation, async () => {
    if (isIn && times.verified === undefined && !rotation.swap.triedAfterCut) {
      rotation.swap.triedAfterCut = true;
      await proveAfterAll(rotation, newKey.id).catch((error: unknown) => {
        if (isCancellation(error)) throw error;
        record.warn(`${newKey.id} is in the slot, and was not seen to answer there: ${failureMessage(error)}`);
      });
    }
    await evidence(rotation);
  }).catch((error: unknown) => {
    if (!rotation.handsOver) throw error;
  });
}

async function evidence(rotation: Rotation): Promise<void> {
  const { record, policy, clock } = rotation;
  if (policy === undefined || record.incident !== undefined) return;
  for (const { id } of compromisedKeys(rotation).filter(({ fate }) => fate?.fate === "ended")) {
    const suspect = {
      keyId: id,
      createdAt: rotation.compromised.seen.get(id)?.createdAt,
      since: clock.find(id)?.since,
    };
    await rotation.step("gatherEvidence", () => gatherEvidence(rotation, suspect, policy.usageLag));
  }
}
