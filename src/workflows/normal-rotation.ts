import { sleep } from "@temporalio/workflow";

import type { InspectOrder, Inspection, NewKey, OfRotation } from "../activities/contract.ts";
import { inMs } from "../domain/duration.ts";
import { deadBudgetMs } from "../domain/policy.ts";
import type { RotationResult } from "../domain/rotation.ts";
import { awaitIdle } from "./await-idle.ts";
import { management, propagation, watching } from "./groups.ts";
import { normalRotationInput, type NormalRotationStart, parseInput } from "./messages.ts";
import { oneRunPerSlot } from "./one-run-per-slot.ts";
import { proveInSlot } from "./prove-in-slot.ts";
import { provenKey } from "./proven-key.ts";
import { revokeForGood } from "./revoke-for-good.ts";
import { Rotation } from "./rotation.ts";

/**
 * Replaces the key in one slot without a failed request: makes a new key, proves it, switches over, and revokes the
 * old one when nobody uses it. The steps are those of docs/rotation.md, in the same words.
 *
 * Input `{"slot":"production/openai","reason"?,"onlyIfDue"?,"heldKeyId"?}`; result `RotationResult`. Fails with
 * `InvalidInput`, `SlotBusy` (another run holds the slot), or the failure of the step that stopped it, the result so
 * far in its details.
 */
export async function normalRotation(input: unknown): Promise<RotationResult> {
  const start = parseInput(normalRotationInput, input, "normalRotation");
  return oneRunPerSlot("normalRotation", start, rotateKey);
}

async function rotateKey(start: NormalRotationStart): Promise<RotationResult> {
  const rotation = new Rotation("normal", start);
  return rotation.toTheEnd(async () => {
    const { of } = rotation;

    const found = await rotation.step("inspectSlot", () => management.inspectSlot(inspectOrder(start, of)));
    rotation.plan(found);
    if (!found.due.due) return rotation.kept(found.due.reason);

    // 2, 3: issueKey, verifyAtProvider
    const key = await provenKey(rotation, found);

    await rotation.step("stageAliases", () => stage(rotation, found, key), { unless: inPlace(found) });
    await rotation.step("verifyThroughGateway(new)", () => proveOnOwnAlias(rotation, found), {
      unless: inPlace(found),
    });
    await rotation.approval("before-install");

    const installed = await rotation.step("installKey", () => {
      rotation.installStarted = true;
      return management.installKey({ ...of, key, secretModified: found.secretModified });
    });
    rotation.installed(key, installed);

    await rotation.step("awaitPropagation", () => awaitPropagation(rotation, found));
    await rotation.step("verifyThroughGateway(real)", () => proveInSlot(rotation, found, key));
    rotation.reached("verified");

    await rotation.step("awaitCacheInvalidation", () => awaitCacheInvalidation(rotation, found));
    const kept = { unless: sharedKey(rotation, found) };
    await rotation.step("awaitIdle", () => awaitIdle(rotation, found, key), kept);
    if (await rotation.approval("before-revoke")) {
      await rotation.step("awaitIdle", () => awaitIdle(rotation, found, key), kept);
    }
    await rotation.step("disableKey", () => Promise.resolve(), { unless: "this provider cannot undo it" });

    return rotation.pastTheReturn(async () => {
      await rotation.step("revokeKey", () => revokeForGood(rotation, found, key), kept);
      await rotation.step("confirmRevoked", () => confirmRevoked(rotation, found), kept);
      await rotation.step("finish", () => rotation.finish(key));
      return rotation.ended("rotated", found.due.reason);
    });
  });
}

function inspectOrder({ heldKeyId, onlyIfDue }: NormalRotationStart, of: OfRotation): InspectOrder {
  return {
    ...of,
    ...(heldKeyId === undefined ? {} : { heldKeyId }),
    ...(onlyIfDue === undefined ? {} : { onlyIfDue }),
  };
}

function inPlace({ staged }: Inspection): string | undefined {
  return staged ? undefined : "in place: no aliases of its own";
}

/** A key that another slot holds as well is not revoked: it is named as left over instead. */
function sharedKey(rotation: Rotation, { held, sharedWith }: Inspection): string | undefined {
  if (sharedWith.length === 0) return undefined;
  const why = `${sharedWith.join(", ")} holds it too`;
  rotation.leaves(held.id, why);
  return why;
}

/** Puts the new key and a copy of the old on aliases of this rotation, and sees the copy answer once. */
async function stage(rotation: Rotation, { policy }: Inspection, key: NewKey): Promise<string> {
  rotation.stageStarted = true;
  await management.stageAliases({ ...rotation.of, key });
  const until = rotation.deadline(policy.propagationBudget);
  const answered = await propagation.seePrevAnswer({ ...rotation.of, alias: "prev", goodAnswers: 1, until });
  rotation.prevAnswered = answered.answered;
  return answered.note;
}

async function proveOnOwnAlias(rotation: Rotation, { policy }: Inspection): Promise<string> {
  const until = rotation.deadline(policy.propagationBudget);
  const verified = await rotation.waiting(
    { for: "the new key to answer through the gateway", until, then: "the new key is revoked and the rotation stops" },
    () => propagation.verifyThroughGateway({ ...rotation.of, alias: "new", goodAnswers: 1, until }),
  );
  rotation.warn(verified.warnings);
  return "answered";
}

async function awaitPropagation(rotation: Rotation, { policy }: Inspection): Promise<string> {
  const until = rotation.deadline(policy.propagationWait);
  await rotation.waiting({ for: "the new value to reach the edges", until, then: "its status is read" }, () =>
    sleep(inMs(policy.propagationWait), { summary: "propagation" }),
  );
  const { note } = await propagation.awaitPropagation({
    ...rotation.of,
    until: rotation.deadline(policy.propagationBudget),
  });
  return note;
}

async function awaitCacheInvalidation(rotation: Rotation, { policy }: Inspection): Promise<string> {
  const until = rotation.deadline(policy.cacheInvalidationWait);
  await rotation.waiting({ for: "caches to drop the old key", until, then: "the old key's use is watched" }, () =>
    sleep(inMs(policy.cacheInvalidationWait), { summary: "cache invalidation" }),
  );
  return `waited ${policy.cacheInvalidationWait}`;
}

async function confirmRevoked(rotation: Rotation, { policy, held }: Inspection): Promise<string> {
  const until = rotation.deadlineIn(deadBudgetMs(policy));
  const confirmation = await rotation.waiting(
    { for: "the old key to be refused everywhere", until, then: "it is reported as not confirmed" },
    () => watching.confirmRevoked({ ...rotation.of, keyId: held.id, throughPrev: rotation.prevAnswered, until }),
  );
  if (confirmation.deadAt === undefined) rotation.unknown("confirmedDead");
  else rotation.reached("confirmedDead", confirmation.deadAt);
  return confirmation.note;
}
