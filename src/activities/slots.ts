import { Context } from "@temporalio/activity";

import { RotationFailure } from "../domain/failure.ts";
import { isOurId } from "../domain/key-id.ts";
import { keyName, rotationPrefix } from "../domain/key-name.ts";
import { noFingerprint, parseMark } from "../domain/mark.ts";
import { decideDue, type Policy, type RowRule } from "../domain/policy.ts";
import { canDisable, canHandIn, canIssue, canManage, isByHand, type KeyRecord } from "../providers/provider.ts";
import { canPurge, type Held } from "../cloudflare/slot-secrets.ts";
import type { EarlierKey, InspectOrder, Inspection } from "./contract.ts";
import type { Dependencies, SlotAccess, WhichRun } from "./dependencies.ts";
import { askedKey, findHeldSurely, type HeldKey, readSurely, whoHolds } from "./held-key.ts";
import { orWhy } from "./or-why.ts";
import { brothersOf, oneOfEachKeyring, stateOf } from "./seen-keys.ts";

/** The secrets a rotation needs beside the slot's own: one for each of its aliases. */
const aliasesNeeded = 2;

export const slotActivities = (deps: Dependencies) => ({
  /** The slot's policy, from the inventory alone. Fails with `InvalidInput` when there is no such slot. */
  async readPolicy({ slot }: { slot: string }): Promise<Policy> {
    return deps.slotAccess(slot).policy;
  },

  /**
   * Looks whether the slot can be rotated, finds the key it holds, and looks again at what the slot's last run left
   * behind. Changes nothing, so repeating is safe. Fails with `InvalidInput` (no such slot, held key unknown), `SlotMissing`, `AdminCredentialRejected`, `KeyLimitReached`.
   */
  async inspectSlot({
    slot,
    rotationId,
    heldKeyId,
    onlyIfDue = false,
    formerRunId,
    cutKeys = [],
  }: InspectOrder): Promise<Inspection> {
    const access = deps.slotAccess(slot);
    const { place, policy, provider, secrets } = access;

    const store = await secrets.storeOf(place.gateway);
    if (!store.authenticated) {
      throw new RotationFailure(
        "SlotMissing",
        `gateway ${place.gateway} answers anybody: switch on its authentication before it holds keys`,
      );
    }
    const held = await readSurely(access);
    if (canManage(provider)) await provider.checkAdminCredential();
    const which: WhichRun = { hint: formerRunId, except: Context.current().info.workflowExecution?.runId };
    const listed = canManage(provider)
      ? withCut(await provider.listKeys(), [...cutKeys, ...(await endedByLastRun(deps, access, { heldKeyId, which }))])
      : undefined;
    const remembered =
      secrets.keepsMarks || heldKeyId !== undefined ? undefined : await deps.runs.lastInstalledKey(access.name, which);
    const { key: found, keys } = await findHeldSurely(access, held, listed, heldKeyId ?? remembered);
    const { warnings, ...key } = found;
    if (remembered !== undefined) key.how = "last result";
    const record = keys?.find(({ id }) => id === key.id);
    if (keys !== undefined) warnings.push(...doubtState(access, key, record));
    const unknown: string[] = [];
    const { sharedWith, untold } = await findSharing(deps, access, key.id, record);
    if (sharedWith.length > 0) {
      warnings.push(`key ${key.id} is also held by ${sharedWith.join(", ")}: it is not revoked, rotate those too`);
    }
    for (const { slot: other, why } of untold) {
      unknown.push(`whether ${other} holds ${key.id}`);
      warnings.push(`whether ${other} holds ${key.id} too cannot be told: ${why}; look which key it holds`);
    }
    const earlier = await lookAtEarlier(deps, access, { which, heldKeyId: key.id });
    unknown.push(...earlier.unknown);
    warnings.push(...earlier.warnings);
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
      held: {
        id: key.id,
        how: key.how,
        ...(key.since === undefined ? {} : { since: key.since.toISOString() }),
        ...fingerprintOf(held, key),
      },
      earlier: earlier.keys,
      unknown,
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

/**
 * The key that the operator says the slot holds, where the slot's last run ended it: its provider may list it no more, and
 * the slot holds it until a new one is in.
 */
async function endedByLastRun(
  { runs }: Dependencies,
  { name }: SlotAccess,
  { heldKeyId, which }: { heldKeyId: string | undefined; which: WhichRun },
): Promise<{ id: string }[]> {
  if (heldKeyId === undefined) return [];
  const ended = (await runs.lastClosed(name, which).catch(() => undefined))?.result?.keys ?? [];
  return ended.filter(({ id, fate }) => id === heldKeyId && fate === "ended").map(({ id }) => ({ id }));
}

/** The provider's keys, and those that were just cut, which it may list no more: the slot may still hold one. */
function withCut(keys: KeyRecord[], cut: NonNullable<InspectOrder["cutKeys"]>): KeyRecord[] {
  const gone = cut.filter(({ id }) => !keys.some((key) => key.id === id));
  return [
    ...keys,
    ...gone.map(({ id, ending }): KeyRecord => ({
      id,
      name: "",
      state: "revoked",
      createdAt: new Date(0),
      ...(ending === undefined ? {} : { maskedValue: `****${ending}` }),
    })),
  ];
}

/**
 * What the provider says against the held key: no flag of it is a death. Where only the last result names the key, a dead
 * one is not what the slot holds: fails with `InvalidInput`.
 */
function doubtState(
  { name, provider }: SlotAccess,
  { id, how }: Omit<HeldKey, "warnings">,
  record: KeyRecord | undefined,
): string[] {
  if (record?.flag !== undefined) return [`key ${id}, which the slot holds: ${record.flag}`];
  if (record?.state === "active") return [];
  if (record?.state === "disabled") return [`key ${id}, which the slot holds, is switched off at ${provider.name}`];
  if (how === "last result") {
    throw new RotationFailure(
      "InvalidInput",
      `the last rotation of ${name} left ${id} in it, which is dead at ${provider.name}: start with --held-key and the key it holds`,
    );
  }
  return [`key ${id}, which the slot holds, is not alive at its provider`];
}

function fingerprintOf(held: Held, { how }: Omit<HeldKey, "warnings">): { fingerprint?: string } {
  const fingerprint = how === "mark" ? parseMark(held.comment)?.fingerprint : undefined;
  return fingerprint === undefined || fingerprint === noFingerprint ? {} : { fingerprint };
}

/** The other slots that hold the key, and those of which it cannot be told. */
async function findSharing(deps: Dependencies, access: SlotAccess, keyId: string, record: KeyRecord | undefined) {
  const holders = await whoHolds(deps, access, [await askedKey(access, keyId, record)]);
  const { yes = [], unknown = [] } = holders.get(keyId) ?? {};
  return {
    sharedWith: yes.filter((name) => name !== access.name),
    untold: unknown.filter(({ slot }) => slot !== access.name),
  };
}

/**
 * The keys that the slot's last closed run named, looked at again. What it cannot be asked is named: the chain of runs
 * that name a key may not break in silence.
 */
async function lookAtEarlier(
  deps: Dependencies,
  access: SlotAccess,
  { which, heldKeyId }: { which: WhichRun; heldKeyId: string },
): Promise<{ keys: EarlierKey[]; unknown: string[]; warnings: string[] }> {
  const unknown = "which keys earlier runs of the slot left behind";
  const untold = (why: string) => ({ keys: [], unknown: [unknown], warnings: [`${unknown} cannot be told: ${why}`] });
  const last = await orWhy(() => deps.runs.lastClosed(access.name, which));
  if (last.why !== undefined) return untold(last.why);
  if (last.value === undefined) return { keys: [], unknown: [], warnings: [] };
  const { runId, status, result } = last.value;
  if (result === undefined) return untold(`run ${runId} ended as ${status} without a result: look at keyturn keys`);
  const keys: EarlierKey[] = [];
  for (const { id, why } of result.leftOver) {
    if (id !== heldKeyId) keys.push({ id, why, state: await stateOfEarlier(deps, access, id) });
  }
  return { keys, unknown: [], warnings: [] };
}

/** By each project of the provider, since a key that was named may be another slot's; gone from all of them is dead. */
async function stateOfEarlier(deps: Dependencies, access: SlotAccess, id: string): Promise<EarlierKey["state"]> {
  if (isOurId(id)) return "unknown";
  let asked = true;
  for (const { provider } of oneOfEachKeyring(brothersOf(deps, access))) {
    const record = canManage(provider) ? await orWhy(() => provider.findKey(id)) : { why: "nobody may ask" };
    if (record.why !== undefined) asked = false;
    else if (record.value !== undefined) return stateOf(record.value);
  }
  if (!asked) return "unknown";
  // A read by id may be behind, and a key that is called dead is named by no run after this one.
  for (const { provider } of oneOfEachKeyring(brothersOf(deps, access))) {
    const listed = canManage(provider) ? await orWhy(() => provider.listKeys()) : { why: "nobody may ask" };
    if (listed.why !== undefined) return "unknown";
    const found = listed.value.find((key) => key.id === id);
    if (found !== undefined) return stateOf(found);
  }
  return "dead";
}

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
function byHandOf(
  { installation, slot, provider }: SlotAccess,
  held: Held,
  key: Omit<HeldKey, "warnings">,
): Pick<Inspection, "byHand"> {
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
