import type { Inspection, NewKey } from "../../activities/contract.ts";
import { management, propagation } from "../groups.ts";
import { withoutGivingUp } from "./revoke-for-good.ts";
import type { Rotation } from "./rotation.ts";

/**
 * Step 12 where no admin credential can revoke: looks that the slot holds the new key, that it answers, and that no slot
 * holds the old one; then asks a person to revoke that, with reminders. Past `personDeadline` the rotation stops, with
 * the old key named.
 */
export async function revokedByHand(rotation: Rotation, found: Inspection, key: NewKey): Promise<string> {
  const { held, policy } = found;
  const looked = await withoutGivingUp(
    rotation,
    held.id,
    async () => {
      await management.lookBeforeRevoking({ ...rotation.of, keyId: held.id, installedKeyId: key.id });
      return "";
    },
    { unless: () => rotation.hurry, onlyLooking: true },
  );
  if (looked !== "") return `cut short: ${looked}`;
  const verified = await propagation.verifyThroughGateway({
    ...rotation.of,
    alias: "real",
    goodAnswers: 1,
    until: rotation.deadline(policy.propagationBudget),
    installedKeyId: key.id,
  });
  rotation.swap.probes += verified.probes;
  return askToRevoke(rotation, held.id, found);
}

/** Asks a person to revoke a key, and returns what they said. It counts once the key was seen dead: until then it is named. */
export async function askToRevoke(
  rotation: Rotation,
  keyId: string,
  { held, byHand, policy }: Pick<Inspection, "held" | "byHand" | "policy">,
): Promise<string> {
  const { record, mailbox } = rotation;
  const decision = await mailbox.person({
    for: `a person to revoke ${keyId}, since ${byHand?.missing}`,
    asks: {
      kind: "revocation",
      keyId,
      which: keyId === held.id ? (byHand?.oldKey ?? keyId) : keyId,
      where: byHand?.where ?? "its provider's console",
    },
    deadline: policy.personDeadline,
    orElse: `nobody revoked ${keyId} by hand in ${policy.personDeadline}: it stays alive`,
  });
  const by = decision?.by ?? "somebody";
  record.saidRevoked.set(keyId, { by, at: new Date().toISOString() });
  record.custody.settle(keyId, {
    fate: "named",
    why: `${by} says that it is revoked, and it was not seen dead: look at the provider`,
  });
  return `${by} says that ${keyId} is revoked`;
}
