import { RotationFailure } from "../domain/failure.ts";
import { keyName } from "../domain/key-name.ts";
import { decideDue, type Policy, type RowRule } from "../domain/policy.ts";
import { canDisable, canHandIn, canIssue, type KeyRecord } from "../providers/provider.ts";
import { canPurge } from "../cloudflare/slot-secrets.ts";
import type { InspectOrder, Inspection } from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { findHolders, identifyHeldKey } from "./held-key.ts";

/** The secrets a rotation needs beside the slot's own: one for each of its aliases. */
const aliasesNeeded = 2;

export const slotActivities = (deps: Dependencies) => ({
  /** The slot's policy, from the inventory alone. Fails with `InvalidInput` when there is no such slot. */
  async readPolicy({ slot }: { slot: string }): Promise<Policy> {
    return deps.slotAccess(slot).policy;
  },

  /**
   * Looks whether the slot can be rotated, and finds the key it holds. Changes nothing, so repeating is safe. Fails
   * with `InvalidInput` (no such slot, held key unknown), `SlotMissing`, `AdminCredentialRejected`, `KeyLimitReached`.
   */
  async inspectSlot({ slot, rotationId, heldKeyId, onlyIfDue = false }: InspectOrder): Promise<Inspection> {
    const access = deps.slotAccess(slot);
    const { place, policy, provider, secrets } = access;

    const store = await secrets.storeOf(place.gateway);
    if (!store.authenticated) {
      throw new RotationFailure(
        "SlotMissing",
        `gateway ${place.gateway} answers anybody: switch on its authentication before it holds keys`,
      );
    }
    const held = await secrets.read(place);
    await provider.checkAdminCredential();
    const keys = await provider.listKeys();
    const remembered =
      secrets.keepsMarks || heldKeyId !== undefined ? undefined : await deps.runs.lastInstalledKey(access.name);
    const { warnings, ...key } = identifyHeldKey(access.name, held, keys, heldKeyId ?? remembered);
    if (remembered !== undefined) key.how = "last result";
    const record = keys.find(({ id }) => id === key.id);
    if (record?.state !== "active") warnings.push(`key ${key.id}, which the slot holds, is not alive at its provider`);
    const sharedWith = (await findHolders(deps, access, key.id)).filter((name) => name !== access.name);
    if (sharedWith.length > 0) {
      warnings.push(`key ${key.id} is also held by ${sharedWith.join(", ")}: it is not revoked, rotate those too`);
    }
    if (!store.byokOnly) {
      warnings.push(`gateway ${place.gateway} may answer with Cloudflare's own keys: byok_only is off`);
    }

    return {
      policy: { ...policy, dead: deadRuleOf(policy, record) },
      due: decideDue({
        onlyIfDue,
        now: Date.now(),
        every: policy.every,
        ...(key.since === undefined ? {} : { heldSince: key.since.getTime() }),
        ...(record?.expiresAt === undefined ? {} : { heldUntil: record.expiresAt.getTime() }),
      }),
      held: { id: key.id, how: key.how, ...(key.since === undefined ? {} : { since: key.since.toISOString() }) },
      secretModified: held.modified.toISOString(),
      sharedWith,
      staged: decideStaging(access, store.secretsLeft),
      canIssue: canIssue(provider),
      canDisable: canDisable(provider),
      canPurge: canPurge(secrets),
      ...(canIssue(provider) || !canHandIn(provider)
        ? {}
        : {
            handIn: provider.handInInstructions({ name: keyName(access.installation, access.slot, rotationId, "1") }),
          }),
      warnings,
    };
  },
});

/** The rule by which a key of this kind counts as dead; `google-standard` for those that belong to no service account. */
export function deadRuleOf(policy: Policy, key: KeyRecord | undefined): RowRule {
  return key?.standard === true ? (policy.deadStandard ?? policy.dead) : policy.dead;
}

function decideStaging({ name, policy }: SlotAccess, secretsLeft: number): boolean {
  if (policy.aliases === "never") return false;
  if (secretsLeft >= aliasesNeeded) return true;
  if (policy.aliases === "auto") return false;
  throw new RotationFailure(
    "KeyLimitReached",
    `the secrets store has room for ${Math.max(0, secretsLeft)} more, and ${name} needs ${aliasesNeeded} for its aliases: delete secrets nobody needs, or set aliases: auto`,
  );
}
