import { sleep } from "@temporalio/workflow";

import type {
  Inspection,
  Installed,
  InstallFailed,
  InstallOrder,
  NewKey,
  OfRotation,
} from "../../activities/contract.ts";
import { defined } from "../../domain/defined.ts";
import { inMs } from "../../domain/duration.ts";
import { deadBudgetMs } from "../../domain/policy.ts";
import { management, propagation, watching } from "../groups.ts";
import { failureDetails } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/** Bodies of the steps that both kinds of rotation take. Each returns the note its record shows. */

/** What inspectSlot found, in a line. */
export function heldKey({ held }: Inspection): string {
  return `holds ${held.id}, known by ${held.how}`;
}

/** Why a rotation has no aliases of its own, where it hasn't. */
export function inPlace(rotation: Rotation, { staged }: Inspection): string | undefined {
  if (rotation.swap.inPlace !== undefined) return rotation.swap.inPlace;
  if (!staged) return "in place: no aliases of its own";
  return hasOutage(rotation) ? "requests fail meanwhile: the shortest way in" : undefined;
}

/** Whether requests of this slot fail until a new key is in: then nothing is done that could be done without. */
export function hasOutage({ of: { slot }, record: { outages } }: Rotation): boolean {
  return outages.isOpen(slot) || outages.isOpen(undefined);
}

/** Puts the new key and a copy of the old on aliases of this rotation, and sees the copy answer once. */
export async function stage(rotation: Rotation, { policy, held }: Inspection, key: NewKey): Promise<string> {
  const again = rotation.swap.stageStarted;
  rotation.swap.stageStarted = true;
  const staged = await management.stageAliases({ ...rotation.of, key, ...(again ? { again } : {}) });
  if (staged.inPlace !== undefined) {
    rotation.swap.inPlace = staged.inPlace;
    rotation.record.warn(staged.inPlace);
    return staged.inPlace;
  }
  const isCut = rotation.compromised.cut.has(held.id) || rotation.record.custody.isEnded(held.id);
  if (isCut) return "the old key is cut already: its copy cannot answer";
  const until = rotation.deadline(policy.propagationBudget);
  const answered = await rotation.waiting(
    {
      for: "the copy of the old key to answer once",
      until,
      then: "its death will not be seen, and the rotation goes on",
    },
    () => propagation.seePrevAnswer({ ...rotation.of, alias: "prev", goodAnswers: 1, until }),
  );
  rotation.swap.prevAnswered = answered.answered;
  rotation.swap.oldKeyProbes += 1;
  return answered.note;
}

/** Sees the new key answer through the gateway, on an alias that no client uses. */
export async function proveOnOwnAlias(rotation: Rotation, { policy }: Inspection): Promise<string> {
  const until = rotation.deadline(policy.propagationBudget);
  const verified = await rotation.waiting(
    { for: "the new key to answer through the gateway", until, then: "the new key is revoked and the rotation stops" },
    () => propagation.verifyThroughGateway({ ...rotation.of, alias: "new", goodAnswers: 1, until }),
  );
  rotation.record.warn(...verified.warnings);
  return "answered";
}

/**
 * Writes the new key into the slot. From here on clients may be given it; where the attempt itself says that its write
 * never left, they were not.
 */
export async function install(rotation: Rotation, { secretModified }: Inspection, key: NewKey): Promise<string> {
  const { custody } = rotation.record;
  const wasGiven = custody.find(key.id)?.given === true;
  custody.give(key.id);
  rotation.swap.given.add(key.id);
  try {
    const installed = await write(rotation, { key, secretModified });
    rotation.record.newKey = { id: key.id };
    rotation.record.reached("installed", installed.at);
    rotation.record.stage = "installed";
    rotation.record.warn(...(installed.warnings ?? []));
    if (installed.replacedComment !== undefined) {
      rotation.record.warn(`the secret bore a comment of somebody's, which was replaced: ${installed.replacedComment}`);
    }
    return installed.expiresAt === undefined
      ? `${key.id} installed`
      : `${key.id} installed, lives until ${installed.expiresAt}`;
  } catch (error) {
    if (!wasSent(error) && !wasGiven) custody.neverGiven(key.id);
    throw error;
  }
}

/** Writes the key into the slot's secret. One that is not answered may land at any time, unless it says it never left. */
export async function write(rotation: Rotation, order: Omit<InstallOrder, keyof OfRotation>): Promise<Installed> {
  const { unanswered } = rotation.swap;
  unanswered.add(order.key.id);
  try {
    const installed = await management.installKey({ ...rotation.of, ...order });
    unanswered.delete(order.key.id);
    return installed;
  } catch (error) {
    if (!wasSent(error)) unanswered.delete(order.key.id);
    throw error;
  }
}

function wasSent(error: unknown): boolean {
  const { sent = true } = (failureDetails(error) ?? {}) as Partial<InstallFailed>;
  return sent;
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
      then: rotation.record.clocks === undefined ? "the old key's use is watched" : "the compromised key is cut",
    },
    () => sleep(inMs(policy.cacheInvalidationWait), { summary: "cache invalidation" }),
  );
  rotation.swap.cachesOverAt = Date.now();
  return `waited ${policy.cacheInvalidationWait}${canPurge ? ", after asking for a purge" : ""}`;
}

/** Why a key is not watched for its death, where it isn't: it stays alive. */
export function notRevoked({ record: { custody, saidRevoked } }: Rotation, keyId: string): string | undefined {
  if (custody.isEnded(keyId) || saidRevoked.has(keyId)) return undefined;
  return custody.find(keyId)?.fate?.fate === "named" ? "it stays alive, and is named" : "it was not revoked";
}

/** Sees the revoked key dead, or says that it was not seen. */
export async function confirmRevoked(
  rotation: Rotation,
  { policy, keyId, leaked }: { policy: Inspection["policy"]; keyId: string; leaked?: string | undefined },
): Promise<string> {
  const { record } = rotation;
  const until = rotation.deadlineIn(deadBudgetMs(policy));
  const confirmation = await rotation.waiting(
    { for: `${keyId} to be refused everywhere`, until, then: "it is reported as not confirmed" },
    () =>
      watching.confirmRevoked({
        ...rotation.of,
        keyId,
        throughPrev: rotation.swap.prevAnswered && keyId === rotation.found?.held.id,
        until,
        rule: policy.dead,
        ...defined({ leaked }),
      }),
  );
  if (confirmation.lookedAt !== undefined) record.notBefore(confirmation.lookedAt);
  const said = record.saidRevoked.get(keyId);
  if (confirmation.deadAt === undefined) {
    record.unknown("confirmedDead", ...(said === undefined ? [] : ["revoked"]));
    return confirmation.note;
  }
  record.keyReached(keyId, "confirmedDead", confirmation.deadAt);
  // What a person says of a revocation counts once the key was seen dead.
  if (said !== undefined) record.keyReached(keyId, "revoked", said.at);
  record.custody.settle(keyId, { fate: "ended", at: said?.at ?? confirmation.deadAt, seen: true });
  return confirmation.note;
}
