import { RotationFailure } from "../domain/failure.ts";
import { keyName, rotationPrefix } from "../domain/key-name.ts";
import { parseMark } from "../domain/mark.ts";
import { decideDue, type Policy, type RowRule } from "../domain/policy.ts";
import { canDisable, canHandIn, canIssue, canManage, isByHand, type KeyRecord } from "../providers/provider.ts";
import { canPurge, type Held } from "../cloudflare/slot-secrets.ts";
import type { InspectOrder, Inspection } from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { findHolders, type HeldKey, identifyHeldKey } from "./held-key.ts";

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
    if (canManage(provider)) await provider.checkAdminCredential();
    const keys = canManage(provider) ? await provider.listKeys() : undefined;
    const remembered =
      secrets.keepsMarks || heldKeyId !== undefined ? undefined : await deps.runs.lastInstalledKey(access.name);
    const { warnings, ...key } = identifyHeldKey(access.name, held, keys, heldKeyId ?? remembered);
    if (remembered !== undefined) key.how = "last result";
    const record = keys?.find(({ id }) => id === key.id);
    if (keys !== undefined && record?.state !== "active")
      warnings.push(`key ${key.id}, which the slot holds, is not alive at its provider`);
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
      ...handInOf(access, rotationId),
      ...byHandOf(access, held, key),
      warnings,
    };
  },
});

/** The rule by which a key of this kind counts as dead; `google-standard` for those that belong to no service account. */
export function deadRuleOf(policy: Policy, key: KeyRecord | undefined): RowRule {
  return key?.standard === true ? (policy.deadStandard ?? policy.dead) : policy.dead;
}

/** What a person is told who makes the next key, where no API of ours does. */
function handInOf({ installation, slot, provider }: SlotAccess, rotationId: string): Pick<Inspection, "handIn"> {
  if (canIssue(provider) || !(canHandIn(provider) || isByHand(provider))) return {};
  return { handIn: provider.handInInstructions({ name: keyName(installation, slot, rotationId, "1") }) };
}

/** What no admin credential means for a rotation. */
function byHandOf({ installation, slot, provider }: SlotAccess, held: Held, key: HeldKey): Pick<Inspection, "byHand"> {
  if (!isByHand(provider)) return {};
  const mark = key.how === "mark" ? parseMark(held.comment) : undefined;
  const name = mark === undefined ? undefined : rotationPrefix(installation, slot, mark.rotationId);
  return {
    byHand: {
      missing: provider.missing,
      oldKey: name === undefined ? key.id : `${key.id} (its name begins with ${name}, where it was named as asked)`,
      where: provider.handInInstructions({ name: "" }).where,
      unknown: ["state and life of the old key", "project, age and life of the new key", "clients' use of the new key"],
    },
  };
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
