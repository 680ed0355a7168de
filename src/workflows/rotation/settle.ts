import { CancellationScope, sleep } from "@temporalio/workflow";

import type { CustodyEntry } from "../../domain/custody.ts";
import { inMs } from "../../domain/duration.ts";
import { cleanup } from "../groups.ts";
import { lookForLateWrites, unlessHandedOver } from "./compromised.ts";
import { failureMessage } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/** How often a clean-up is tried that is refused or answered with nonsense; outages are outlasted by each try. */
const cleanUpTries = 3;

/** Step 14: aliases gone, each key given its fate, the next date set. */
export async function finish(rotation: Rotation): Promise<string> {
  const { record, policy } = rotation;
  await removeAliases(rotation);
  // Those that a hand-over left are the exit's again where a person calls it off.
  if (!rotation.handsOver) rotation.swap.stageStarted = false;
  await settleOpen(rotation);
  if (policy !== undefined && record.times.installed !== undefined) record.nextDue = rotation.deadline(policy.every);
  return record.nextDue === undefined ? "done" : `next rotation due ${record.nextDue}`;
}

/**
 * Leaves the slot with one working key where it has one, and no alias of this rotation. Lists lag, and what was not answered
 * lands late: it looks twice.
 */
export async function cleanUp(rotation: Rotation): Promise<void> {
  const { policy } = rotation;
  const { stageStarted, issueUnsure } = rotation.swap;
  if (stageStarted) await removeAliases(rotation);
  await settleOpen(rotation);
  const isUnsure = stageStarted || issueUnsure || rotation.swap.unanswered.size > 0;
  if (!isUnsure || rotation.handsOver) return;
  if (policy !== undefined) {
    await sleep(inMs(policy.propagationWait), { summary: "until lists show what was made last" });
  }
  if (stageStarted) await removeAliases(rotation);
  rotation.swap.stageStarted = false;
  rotation.swap.issueUnsure = false;
  await lookAgainWhereWritten(rotation);
  await settleOpen(rotation);
}

/** A write that was not answered may have landed since the slot was looked at: what it holds is looked up again. */
export async function lookAgainWhereWritten(rotation: Rotation): Promise<void> {
  const { of, swap, record } = rotation;
  if (swap.unanswered.size === 0) return;
  for (const { id, role, fate } of record.custody.all()) {
    const mayBeHeld = fate?.fate === "named" && role !== "compromised" && swap.unanswered.has(id);
    if (mayBeHeld || (fate?.fate === "held" && fate.by === of.slot)) record.custody.reopen(id);
  }
  await lookForLateWrites(rotation);
}

async function removeAliases(rotation: Rotation): Promise<void> {
  try {
    await patiently(rotation, () => unlessHandedOver(rotation, () => cleanup.removeAliases(rotation.of)));
  } catch (error) {
    if (isLeft(rotation, error)) return;
    rotation.record.warn(
      `aliases of this rotation could not be removed: ${failureMessage(error)}; keyturn sweep finds them`,
    );
  }
}

/**
 * Looks up every key that has no fate yet, compromised ones excepted, and every key that may exist under a name of ours
 * without our knowing. `which` picks some in the middle of a run: then the names stay to be looked up at the end. Where it
 * looks at all, what slots held at a look before is looked at again: somebody may have replaced it since.
 */
export async function settleOpen(rotation: Rotation, which?: (key: CustodyEntry) => boolean): Promise<void> {
  const { custody } = rotation.record;
  const open = custody.open().filter(which ?? (() => true));
  const held = which === undefined ? custody.all().filter(({ fate }) => fate?.fate === "held") : [];
  const keys = [...open, ...held]
    .filter(({ role }) => role !== "compromised")
    .map(({ id, role, given }) => ({ id, role, given }));
  const { ordinals } = custody;
  const known = custody.all().map(({ id }) => id);
  if (ordinals.length === 0 && keys.every(({ id }) => custody.find(id)?.fate !== undefined)) return;
  const nameUntold = (why: string): void => {
    for (const { id } of keys) {
      if (custody.find(id)?.fate === undefined && !rotation.isCompromised(id)) name(rotation, id, why);
    }
  };
  try {
    const order = { ...rotation.of, keys, ordinals, known };
    const settled = await patiently(rotation, () => unlessHandedOver(rotation, () => cleanup.settleKeys(order)));
    const { found = [] } = settled;
    if (found.length > 0) {
      // They are the run's before they are ended: an answer that is lost then loses none of them.
      for (const id of found) custody.take(id, "new");
      return await settleOpen(rotation, which);
    }
    for (const { id, role, fate } of settled.keys) {
      // A key that was called compromised meanwhile is its clock's; an end is an end.
      if (rotation.isCompromised(id) && fate.fate !== "ended") continue;
      custody.take(id, role);
      custody.settle(id, fate);
    }
    for (const { id } of settled.keys) {
      if (settled.notHeld?.includes(id) === true) rotation.swap.notHeld.add(id);
      else rotation.swap.notHeld.delete(id);
    }
    rotation.record.warn(...settled.warnings);
    nameUntold("the clean-up said nothing of it: look whether it is alive and who uses it");
    if (which === undefined && !rotation.swap.issueUnsure) custody.accountFor(ordinals);
  } catch (error) {
    if (isLeft(rotation, error)) return;
    rotation.record.warn(`cleaning up failed: ${failureMessage(error)}`);
    nameUntold("the clean-up failed: look whether a slot holds it");
    if (which === undefined && ordinals.length > 0) {
      rotation.record.warn(
        `keys of rotation ${rotation.of.rotationId} may be alive that could not be looked up: keyturn sweep finds them`,
      );
      rotation.swap.issueUnsure = false;
      custody.accountFor(ordinals);
    }
  }
}

/**
 * Whether the run that follows a hand-over does again what went wrong. Throws where this run was stopped in the middle of
 * it: that says nothing of what was to be cleaned up, and the exit does it.
 */
function isLeft(rotation: Rotation, error: unknown): boolean {
  if (!rotation.handsOver && CancellationScope.current().consideredCancelled) throw error;
  return rotation.handsOver;
}

/** Tries a clean-up again that failed for good: giving up leaves something behind, and the cause may have passed. */
async function patiently<Result>(rotation: Rotation, work: () => Promise<Result>): Promise<Result> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      const { policy } = rotation;
      if (tries === cleanUpTries || policy === undefined || rotation.handsOver) throw error;
      await sleep(inMs(policy.propagationWait) * tries, { summary: "before cleaning up again" });
    }
  }
}

/** What another slot's emergency cuts is named: its deadline is not this run's. */
export function nameWhatOthersCut(rotation: Rotation): void {
  const { cutBy, clock, record } = rotation;
  if (cutBy === undefined) return;
  for (const { id, role } of record.custody.open()) {
    if (role !== "compromised" || clock.has(id)) continue;
    name(rotation, id, `the emergency of ${cutBy} cuts it when all slots have moved off it, or at its deadline`);
  }
}

/** A key whose emergency a person called off: it is nobody's to cut, until somebody calls it compromised again. */
export function nameCalledOff(rotation: Rotation, id: string, who: string): void {
  const isUnsure = rotation.compromised.cutUnsure.has(id);
  if (isUnsure) rotation.record.unknown(`whether ${id} was cut`);
  const isOff = rotation.compromised.cut.has(id);
  const state = isOff ? "SWITCHED OFF, not ended" : isUnsure ? "OFF or ALIVE, since its cut was not answered" : "ALIVE";
  const then = "start keyturn emergency again, or revoke it by hand";
  name(rotation, id, `it is compromised and ${state}, and nobody cuts it: ${who}; ${then}`);
}

/** Names a key that stays, or may stay, alive. */
export function name({ record }: Rotation, id: string, why: string): void {
  record.custody.settle(id, { fate: "named", why });
}
