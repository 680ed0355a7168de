import { sleep } from "@temporalio/workflow";

import type { Inspection, NewKey } from "../activities/contract.ts";
import { inMs } from "../domain/duration.ts";
import { deadBudgetMs } from "../domain/policy.ts";
import { management, propagation, watching } from "./groups.ts";
import type { Rotation } from "./rotation.ts";

/** Bodies of the steps that both kinds of rotation take. Each returns the note its record shows. */

/** What inspectSlot found, in a line. */
export function heldKey({ held }: Inspection): string {
  return `holds ${held.id}, known by ${held.how}`;
}

/** Why a rotation has no aliases of its own, where it hasn't. */
export function inPlace({ staged }: Inspection): string | undefined {
  return staged ? undefined : "in place: no aliases of its own";
}

/** Puts the new key and a copy of the old on aliases of this rotation, and sees the copy answer once. */
export async function stage(rotation: Rotation, { policy }: Inspection, key: NewKey): Promise<string> {
  rotation.stageStarted = true;
  await management.stageAliases({ ...rotation.of, key });
  if (rotation.times.cut !== undefined) return "the old key is cut already: its copy cannot answer";
  const until = rotation.deadline(policy.propagationBudget);
  const answered = await rotation.waiting(
    {
      for: "the copy of the old key to answer once",
      until,
      then: "its death will not be seen, and the rotation goes on",
    },
    () => propagation.seePrevAnswer({ ...rotation.of, alias: "prev", goodAnswers: 1, until }),
  );
  rotation.prevAnswered = answered.answered;
  return answered.note;
}

/** Sees the new key answer through the gateway, on an alias that no client uses. */
export async function proveOnOwnAlias(rotation: Rotation, { policy }: Inspection): Promise<string> {
  const until = rotation.deadline(policy.propagationBudget);
  const verified = await rotation.waiting(
    { for: "the new key to answer through the gateway", until, then: "the new key is revoked and the rotation stops" },
    () => propagation.verifyThroughGateway({ ...rotation.of, alias: "new", goodAnswers: 1, until }),
  );
  rotation.warn(verified.warnings);
  return "answered";
}

/** Writes the new key into the slot. From here on the new key may be the one that serves. */
export async function install(rotation: Rotation, { secretModified }: Inspection, key: NewKey): Promise<string> {
  rotation.installStarted = true;
  const installed = await management.installKey({ ...rotation.of, key, secretModified });
  rotation.installed(key, installed);
  return installed.expiresAt === undefined
    ? `${key.id} installed`
    : `${key.id} installed, lives until ${installed.expiresAt}`;
}

/** The timed wait for the edges, then until Cloudflare calls the value active. */
export async function awaitPropagation(rotation: Rotation, { policy }: Inspection): Promise<string> {
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

/** The timed wait in which caches drop the old key. */
export async function awaitCacheInvalidation(rotation: Rotation, { policy, canPurge }: Inspection): Promise<string> {
  if (canPurge) await management.purgeCache(rotation.of);
  const until = rotation.deadline(policy.cacheInvalidationWait);
  await rotation.waiting(
    {
      for: "caches to drop the old key",
      until,
      then: rotation.clocksRun ? "the compromised key is cut" : "the old key's use is watched",
    },
    () => sleep(inMs(policy.cacheInvalidationWait), { summary: "cache invalidation" }),
  );
  return `waited ${policy.cacheInvalidationWait}${canPurge ? ", after asking for a purge" : ""}`;
}

/** Sees the revoked key dead, or says that it was not seen. */
export async function confirmRevoked(
  rotation: Rotation,
  { policy, keyId, leaked }: { policy: Inspection["policy"]; keyId: string; leaked?: string | undefined },
): Promise<string> {
  const until = rotation.deadlineIn(deadBudgetMs(policy));
  const confirmation = await rotation.waiting(
    { for: "the old key to be refused everywhere", until, then: "it is reported as not confirmed" },
    () =>
      watching.confirmRevoked({
        ...rotation.of,
        keyId,
        throughPrev: rotation.prevAnswered,
        until,
        rule: policy.dead,
        ...(leaked === undefined ? {} : { leaked }),
      }),
  );
  if (confirmation.deadAt === undefined) rotation.unknown("confirmedDead");
  else rotation.reached("confirmedDead", confirmation.deadAt);
  return confirmation.note;
}
