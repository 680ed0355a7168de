import { ApplicationFailure, condition } from "@temporalio/workflow";

import { cutAtDeadline, endOrAsk, endUnheld, isPastLooking, stillLeaving, whyHeldBack } from "./compromised.ts";
import { lookAgain, moveOthers, startWhereCut } from "./move-others.ts";
import type { Rotation } from "./rotation.ts";

/**
 * Moves every other slot off the key, then ends it. At its deadline its clock cuts it, whatever still holds it; where
 * policy says hold, it is named instead. Fails where a person called the emergency off.
 */
export async function endWhenMoved(rotation: Rotation, keyId: string): Promise<void> {
  const { record, clock } = rotation;
  if (rotation.compromised.cut.has(keyId)) return endCut(rotation, keyId);
  // Who started this one ends it: its slots and its deadline are not this run's to know.
  if (rotation.cutBy !== undefined && !clock.has(keyId)) return;
  for (;;) {
    await moveOthers(rotation, keyId);
    // Asked again at the moment of the act: a slot may have put it back meanwhile.
    if (!isPastLooking(rotation, keyId)) await lookAgain(rotation, keyId);
    if (rotation.handsOver || record.custody.find(keyId)?.fate !== undefined) return;
    const who = clock.calledOff(keyId);
    if (who !== undefined) throw ApplicationFailure.nonRetryable(who, "Aborted");
    // Where only a person can end it, it is the person who looks.
    if (rotation.found?.byHand !== undefined) return endOrAsk(rotation, keyId);
    if (whyHeldBack(rotation, keyId) === undefined && (await endUnheld(rotation, keyId))) return;
    const { heldBy = [], unknown = [] } = rotation.compromised.seen.get(keyId) ?? {};
    const maybeHeld = [...heldBy, ...unknown.map(({ slot }) => slot)].some((slot) => slot !== rotation.of.slot);
    if (clock.isDue(keyId) || !(maybeHeld || stillLeaving(rotation, keyId).length > 0)) break;
  }
  if (!clock.isDue(keyId)) return; // the slot's own: the exit waits for its clock
  if (rotation.clock.atDeadlineOf(keyId) === "hold") {
    const reason = whyHeldBack(rotation, keyId) ?? "a slot held it a moment ago";
    const why = `it is compromised and ALIVE: ${reason}, and policy says to hold it past its deadline`;
    record.custody.settle(keyId, { fate: "named", why });
    return;
  }
  await condition(() => rotation.handsOver || !rotation.compromised.ends.has(keyId));
  // Its deadline came while nobody knew it, or failed for good: by now it was seen, and is tried once more.
  if (!rotation.handsOver && record.custody.find(keyId)?.fate === undefined) await cutAtDeadline(rotation, keyId);
}

/** What was cut before its slots had moved: they are moved now, and it is ended for good without waiting for them. */
async function endCut(rotation: Rotation, keyId: string): Promise<void> {
  await startWhereCut(rotation, keyId);
  await endOrAsk(rotation, keyId);
}

/** Moves the other slots while this one moves: they are not to wait for it, nor to fail with it. */
export async function moveMeanwhile(rotation: Rotation, keyId: string): Promise<void> {
  return rotation.compromised.cut.has(keyId) ? startWhereCut(rotation, keyId) : moveOthers(rotation, keyId);
}
