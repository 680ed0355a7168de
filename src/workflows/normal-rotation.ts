import type { InspectOrder, Inspection, NewKey, OfRotation } from "../activities/contract.ts";
import type { RotationResult } from "../domain/rotation.ts";
import { awaitIdle } from "./await-idle.ts";
import { disableAndSoak } from "./disable-and-soak.ts";
import { gatherEvidence } from "./gather-evidence.ts";
import { management } from "./groups.ts";
import { normalRotationInput, type NormalRotationStart, parseInput } from "./messages.ts";
import { oneRunPerSlot } from "./one-run-per-slot.ts";
import { proveInSlot } from "./prove-in-slot.ts";
import { keysTried, provenKey } from "./proven-key.ts";
import { believeOnlyDeath, revokedByHand } from "./revoke-by-hand.ts";
import { revokeForGood } from "./revoke-for-good.ts";
import { failureType, Rotation } from "./rotation.ts";
import {
  awaitCacheInvalidation,
  awaitPropagation,
  confirmRevoked,
  heldKey,
  inPlace,
  install,
  proveOnOwnAlias,
  stage,
} from "./steps.ts";

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
    const found = await rotation.step("inspectSlot", () => management.inspectSlot(inspectOrder(start, rotation.of)), {
      told: heldKey,
    });
    rotation.plan(found);
    if (!found.due.due) return rotation.kept(found.due.reason);
    for (const check of found.byHand?.unknown ?? []) rotation.unknown(check);

    const key = await swapKey(rotation, found); // 2 to 9

    const shared = { unless: sharedKey(rotation, found) };
    await rotation.step("awaitIdle", () => awaitIdle(rotation, found, key), shared);
    if (await rotation.approval("before-revoke")) {
      await rotation.step("awaitIdle", () => awaitIdle(rotation, found, key), shared);
    }
    const kept = { unless: shared.unless ?? cannotUndo(rotation, found) };
    await rotation.step("disableKey", () => disableAndSoak(rotation, found, key), kept);

    // By hand it is a person who passes the point of no return: until then the rotation can be aborted.
    const { byHand } = found;
    if (byHand !== undefined) await rotation.step("revokeKey", () => revokedByHand(rotation, found, key), shared);
    return rotation.pastTheReturn(async () => {
      if (byHand === undefined) await rotation.step("revokeKey", () => revokeForGood(rotation, found, key), shared);
      await rotation.step("confirmRevoked", () => confirmRevoked(rotation, { ...found, keyId: found.held.id }), shared);
      if (byHand !== undefined && shared.unless === undefined) believeOnlyDeath(rotation, found.held.id);
      await rotation.step("finish", () => rotation.finish(key));
      if (rotation.hurry() !== undefined) {
        const suspect = { keyId: found.held.id, since: rotation.compromisedSince };
        await rotation.step("gatherEvidence", () => gatherEvidence(rotation, suspect, found.policy.usageLag));
      }
      return rotation.ended("rotated", start.reason ?? found.due.reason);
    });
  });
}

/** Steps 2 to 9: the new key made, proven and in the slot, the old one no longer in caches. */
export async function swapKey(rotation: Rotation, found: Inspection): Promise<NewKey> {
  const first = await installedKey(rotation, found);
  await rotation.step("awaitPropagation", () => awaitPropagation(rotation, found));
  const key = await proveInSlot(rotation, found, first); // verifyThroughGateway(real)
  rotation.reached("verified");
  await rotation.step("awaitCacheInvalidation", () => awaitCacheInvalidation(rotation, found));
  return key;
}

/** Steps 2 to 6. A key whose seal is opened no more, since the sealing key was lost meanwhile, is revoked and another made. */
async function installedKey(rotation: Rotation, found: Inspection): Promise<NewKey> {
  const staged = { unless: inPlace(found) };
  let approved = false;
  for (let tries = 1; ; tries++) {
    const key = await provenKey(rotation, found); // issueKey, verifyAtProvider
    try {
      await rotation.step("stageAliases", () => stage(rotation, found, key), staged);
      await rotation.step("verifyThroughGateway(new)", () => proveOnOwnAlias(rotation, found), staged);
      if (!approved) await rotation.approval("before-install");
      approved = true;
      await rotation.step("installKey", () => install(rotation, found, key));
      return key;
    } catch (error) {
      if (failureType(error) !== "SealUnreadable" || tries === keysTried) throw error;
      await management.revokeLeftoverKeys(rotation.of);
    }
  }
}

function inspectOrder({ heldKeyId, onlyIfDue }: NormalRotationStart, of: OfRotation): InspectOrder {
  return {
    ...of,
    ...(heldKeyId === undefined ? {} : { heldKeyId }),
    ...(onlyIfDue === undefined ? {} : { onlyIfDue }),
  };
}

/** Why the old key is not switched off before it is revoked, where it isn't. */
function cannotUndo(rotation: Rotation, { canDisable, byHand }: Inspection): string | undefined {
  if (canDisable) return rotation.hurry();
  return byHand === undefined ? "this provider cannot undo it" : byHand.missing;
}

/** A key that another slot holds as well is not revoked: it is named as left over instead. */
function sharedKey(rotation: Rotation, { held, sharedWith }: Inspection): string | undefined {
  if (sharedWith.length === 0) return undefined;
  const why = `${sharedWith.join(", ")} holds it too`;
  rotation.leaves(held.id, why);
  return why;
}
