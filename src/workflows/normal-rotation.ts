import { ApplicationFailure } from "@temporalio/workflow";

import type { InspectOrder, Inspection, NewKey, OfRotation } from "../activities/contract.ts";
import { defined } from "../domain/defined.ts";
import type { RotationResult } from "../domain/rotation.ts";
import { management } from "./groups.ts";
import { normalRotationInput, type NormalRotationStart, parseInput } from "./messages.ts";
import { oneRunPerSlot } from "./one-run-per-slot.ts";
import { awaitIdle } from "./rotation/await-idle.ts";
import { endWhenMoved } from "./rotation/end-when-moved.ts";
import { disableAndSoak } from "./rotation/disable-and-soak.ts";
import type { End } from "./rotation/ending.ts";
import { failureType } from "./rotation/failures.ts";
import { gatherEvidence } from "./rotation/gather-evidence.ts";
import { proveInSlot } from "./rotation/prove-in-slot.ts";
import { giveUp, keysTried, provenKey, refuseCompromised } from "./rotation/proven-key.ts";
import { revokedByHand } from "./rotation/revoke-by-hand.ts";
import { revokeForGood } from "./rotation/revoke-for-good.ts";
import { Rotation } from "./rotation/rotation.ts";
import { finish } from "./rotation/settle.ts";
import {
  awaitCacheInvalidation,
  awaitPropagation,
  confirmRevoked,
  heldKey,
  inPlace,
  install,
  notRevoked,
  proveOnOwnAlias,
  stage,
} from "./rotation/steps.ts";

/**
 * Replaces the key in one slot without a failed request: makes a new key, proves it, switches over, and revokes the
 * old one when nobody uses it. The steps are those of docs/rotation.md, in the same words.
 *
 * Input `{"slot":"production/openai","reason"?,"onlyIfDue"?,"heldKeyId"?,"formerRunId"?}`; result `RotationResult`. Fails
 * with `InvalidInput`, `SlotBusy` (another run holds the slot), `NobodyDecided`, or the failure of the step that stopped
 * it, the result so far in its details.
 */
export async function normalRotation(input: unknown): Promise<RotationResult> {
  const start = parseInput(normalRotationInput, input, "normalRotation");
  return oneRunPerSlot("normalRotation", start, rotateKey);
}

async function rotateKey(start: NormalRotationStart): Promise<RotationResult> {
  const rotation = new Rotation("normal", start);
  return rotation.toTheEnd(async () => {
    const order = inspectOrder(start, rotation.of);
    const found = await rotation.step("inspectSlot", () => management.inspectSlot(order), { says: heldKey });
    rotation.plan(found);
    // A key that was called compromised before the look is due, whatever its age.
    if (!found.due.due && !rotation.clock.has(found.held.id)) return keep(rotation, found);

    const key = await swapKey(rotation, found); // 2 to 9

    const shared = { unless: sharedKey(found) };
    await rotation.step("awaitIdle", () => awaitIdle(rotation, found, key), shared);
    if (await rotation.mailbox.approval("before-revoke")) {
      await rotation.step("awaitIdle", () => awaitIdle(rotation, found, key), shared);
    }
    const kept = { unless: shared.unless ?? cannotUndo(rotation, found) };
    await rotation.step("disableKey", () => disableAndSoak(rotation, found, key), kept);

    // By hand it is a person who passes the point of no return: until then the rotation can be aborted.
    const { byHand, held } = found;
    if (byHand !== undefined && rotation.hurry === undefined) {
      await rotation.step("revokeKey", () => revokedByHand(rotation, found, key), shared);
    }
    return rotation.passage.pastTheReturn(async () => {
      if (rotation.hurry === undefined && byHand === undefined) {
        rotation.record.stage = "revoking";
        await rotation.step("revokeKey", () => revokeForGood(rotation, found, key), shared);
      }
      if (rotation.hurry !== undefined) await endHurried(rotation, found);
      const dead = { unless: notRevoked(rotation, held.id) };
      await rotation.step("confirmRevoked", () => confirmRevoked(rotation, { ...found, keyId: held.id }), dead);
      await rotation.step("finish", () => finish(rotation));
      if (rotation.hurry !== undefined) {
        const suspect = { keyId: held.id, since: rotation.clock.find(held.id)?.since };
        await rotation.step("gatherEvidence", () => gatherEvidence(rotation, suspect, found.policy.usageLag));
      }
      const why = found.due.due ? found.due.reason : (rotation.clock.find(held.id)?.by ?? found.due.reason);
      return { outcome: "rotated", reason: start.reason ?? why };
    });
  });
}

/** The slot is looked at, and nothing is due: its key stays. */
function keep({ of, record }: Rotation, { held, due }: Inspection): End {
  record.custody.settle(held.id, { fate: "held", by: of.slot });
  return { outcome: "kept", reason: due.reason };
}

/** The old key was called compromised: slots that hold it too are moved off it first; at its deadline its clock cuts it. */
async function endHurried(rotation: Rotation, { held }: Inspection): Promise<void> {
  rotation.record.stage = "revoking";
  await endWhenMoved(rotation, held.id);
}

/** Steps 2 to 9: the new key made, proven and in the slot, the old one no longer in caches. */
export async function swapKey(rotation: Rotation, found: Inspection): Promise<NewKey> {
  const first = await installedKey(rotation, found);
  await rotation.step("awaitPropagation", () => awaitPropagation(rotation, found));
  const key = await proveInSlot(rotation, found, first); // verifyThroughGateway(real)
  await rotation.step("awaitCacheInvalidation", () => awaitCacheInvalidation(rotation, found));
  return key;
}

/**
 * Steps 2 to 6. A key whose seal is opened no more, since the sealing key was lost meanwhile, or that was called
 * compromised before it was installed, is given up and another one made.
 */
async function installedKey(rotation: Rotation, found: Inspection): Promise<NewKey> {
  let approved = false;
  for (let tries = 1; ; tries++) {
    const key = await provenKey(rotation, found); // issueKey, verifyAtProvider
    try {
      await rotation.step("stageAliases", () => stage(rotation, found, key), { unless: inPlace(rotation, found) });
      const staged = { unless: inPlace(rotation, found) };
      await rotation.step("verifyThroughGateway(new)", () => proveOnOwnAlias(rotation, found), staged);
      if (!approved) await rotation.mailbox.approval("before-install");
      approved = true;
      refuseCompromised(rotation, key);
      await rotation.step("installKey", () => install(rotation, found, key));
      return key;
    } catch (error) {
      if (tries === keysTried || !isReplaceable(rotation, key, error)) throw error;
      await giveUp(rotation, key);
    }
  }
}

function isReplaceable(rotation: Rotation, key: NewKey, error: unknown): boolean {
  if (failureType(error) === "SealUnreadable") return true;
  return error instanceof ApplicationFailure && error.type === "KeyRejected" && rotation.isCompromised(key.id);
}

function inspectOrder({ heldKeyId, onlyIfDue, formerRunId }: NormalRotationStart, of: OfRotation): InspectOrder {
  return { ...of, ...defined({ heldKeyId, onlyIfDue, formerRunId }) };
}

/** Why the old key is not switched off before it is revoked, where it isn't. */
function cannotUndo(rotation: Rotation, { canDisable, byHand }: Inspection): string | undefined {
  if (canDisable) return rotation.hurry;
  return byHand === undefined ? "this provider cannot undo it" : byHand.missing;
}

/** A key that another slot holds as well is not revoked: its fate is looked up at the end. */
function sharedKey({ sharedWith }: Inspection): string | undefined {
  return sharedWith.length === 0 ? undefined : `${sharedWith.join(", ")} holds it too`;
}
