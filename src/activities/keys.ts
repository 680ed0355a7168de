import { Context } from "@temporalio/activity";

import { type Answer, classifyAnswer, provesKey, type Verdict } from "../domain/answer.ts";
import { inMs, readableMs } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import { keyName, rotationPrefix } from "../domain/key-name.ts";
import { isRow, leastLifeMs, pauseInRowMs } from "../domain/policy.ts";
import { quotaHome } from "../domain/provider-limits.ts";
import type { ProviderName } from "../domain/slot.ts";
import { idOfFingerprint } from "../domain/key-id.ts";
import { maskFits, maskTells, parseMark } from "../domain/mark.ts";
import {
  canDisable,
  canHandIn,
  canIssue,
  canManage,
  isByHand,
  type KeyRecord,
  type ManagedProvider,
  type Provider,
} from "../providers/provider.ts";
import type { Redacted } from "../redacted.ts";
import type {
  AcceptOrder,
  Cut,
  CutOrder,
  IssueOrder,
  NewKey,
  OfRotation,
  RevokeOrder,
  Revoked,
  Verified,
  VerifyAtProviderOrder,
} from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { findHolders, lookAtSlots, requireHeldByNone, requireInstalled, type SeenSlot } from "./held-key.ts";
import { managed } from "./managed.ts";

/** The most keys one clean-up revokes: a rotation never makes more, so more is somebody else's mistake. */
const leftoverCap = 10;

export const keyActivities = (deps: Dependencies) => ({
  /**
   * Makes a new key and returns it sealed. A repetition first revokes what earlier attempts left: their values are
   * lost, nobody can have used them. A key nobody installs dies at the end of its `unprovenLife`.
   */
  async issueKey({ slot, rotationId, ordinal, unprovenLife }: IssueOrder): Promise<NewKey> {
    const access = deps.slotAccess(slot);
    const { provider } = access;
    if (!canIssue(provider)) {
      throw new RotationFailure("InvalidInput", `${slot}: its provider makes no keys on request; hand one in`);
    }
    await revokeLeftovers(deps, access, rotationId);
    // The attempt is part of the name: lists can lag, so an earlier attempt's key may not show yet.
    const name = keyName(access.installation, access.slot, rotationId, `${ordinal}-${Context.current().info.attempt}`);
    const { key, value } = await provider.issueKey({ name, lifeMs: inMs(unprovenLife) });
    return { id: key.id, fingerprint: value.fingerprint(), sealed: await deps.seal(value, { slot, rotationId }) };
  },

  /**
   * Takes a key that a person made: opens its seal, finds out which key it is, and sees that it is the slot's to use.
   * Only reads, so repeating is safe. Fails with `InvalidInput` and the reason when it is not to be used: the person
   * makes another one.
   */
  async acceptKey({ slot, rotationId, sealed, openedAt, keyId }: AcceptOrder): Promise<NewKey> {
    const access = deps.slotAccess(slot);
    const { provider } = access;
    const value = await deps.open(sealed, { slot, rotationId });
    const id = await idOfHandedIn(slot, provider, value, { openedAt: new Date(openedAt), said: keyId });
    const seen = await lookAtSlots(deps, access);
    const holder = (await findHolders(deps, access, id, seen))[0] ?? holderOfValue(seen, value);
    if (holder !== undefined) {
      throw new RotationFailure(
        "InvalidInput",
        `${slot} does not take ${id}: ${holder} holds it already; make another`,
      );
    }
    const verdict = classifyAnswer(provider.name, await provider.tryKey(value));
    if (verdict === "key refused" || verdict === "works, not allowed") {
      throw new RotationFailure(
        "InvalidInput",
        `${slot} does not take ${id}: the provider says ${verdict}; make another`,
      );
    }
    if (canManage(provider)) await requireLongLife(access, provider, id);
    return { id, fingerprint: value.fingerprint(), sealed };
  },

  /**
   * Calls the provider with the new key, at no cost, as often and as long as the rule wants: a provider that is still
   * settling takes its new key now and then. Only reads; a repetition begins a new row. A refusal is tried again until
   * `settleUntil`; then it fails with `KeyRejected` for good.
   */
  async verifyAtProvider({ slot, rotationId, key, settleUntil, rule }: VerifyAtProviderOrder): Promise<Verified> {
    const { provider } = deps.slotAccess(slot);
    const value = await deps.open(key.sealed, { slot, rotationId });
    const warnings = new Set(provider.looksLikeKey(value) ? [] : [`key ${key.id} has a shape not seen before`]);
    const row: number[] = [];
    for (;;) {
      const answer = await provider.tryKey(value);
      const verdict = classifyAnswer(provider.name, answer);
      if (!provesKey(verdict)) throw refused(provider.name, key.id, { answer, verdict, settleUntil });
      if (verdict !== "works")
        warnings.add(`${provider.name} accepts ${key.id}, but: ${verdict}${whereQuotaLives(provider.name, verdict)}`);
      row.push(Date.now());
      if (isRow(row, rule, Date.now())) return { probes: 0, warnings: [...warnings] };
      await Context.current().sleep(pauseInRowMs(rule));
    }
  },

  /**
   * Revokes every key of this rotation that no slot holds. Repeating is safe: it looks first, and gone is success. Without
   * an admin credential there is none it could revoke: what was handed in is named at the end.
   */
  async revokeLeftoverKeys({ slot, rotationId }: OfRotation): Promise<string[]> {
    return revokeLeftovers(deps, deps.slotAccess(slot), rotationId);
  },

  /**
   * Switches the old key off, so that it could be switched on again. Looks first that the slot holds the new one and that
   * no slot holds this one; already off is success, so repeating is safe. Fails with `SlotChanged`.
   */
  async disableKey({ keyId, installedKeyId, ...order }: RevokeOrder): Promise<Cut> {
    const access = deps.slotAccess(order.slot);
    await requireReplaced(deps, access, order, { keyId, installedKeyId });
    if (!canDisable(access.provider))
      throw new RotationFailure("InvalidInput", `${order.slot}: its keys cannot be disabled`);
    await access.provider.disableKey(keyId);
    return { at: new Date().toISOString(), how: "disabled" };
  },

  /** Switches a key on again that this rotation switched off. Already on is success, so repeating is safe. */
  async enableKey({ slot, keyId }: CutOrder): Promise<void> {
    const { provider } = deps.slotAccess(slot);
    if (canDisable(provider)) await provider.enableKey(keyId);
  },

  /**
   * Cuts a compromised key at once, whoever uses it: switches it off where that can be undone, else revokes it. Already
   * gone is success, so repeating is safe.
   */
  async cutKey({ slot, keyId }: CutOrder): Promise<Cut> {
    const access = deps.slotAccess(slot);
    const { provider } = access;
    if (isByHand(provider)) {
      const { where } = provider.handInInstructions({ name: "" });
      throw new RotationFailure(
        "InvalidInput",
        `${provider.missing}, so ${keyId} cannot be cut from here: revoke it by hand at ${where} now; swap-first then puts a new key in`,
      );
    }
    const undoable = canDisable(provider);
    await (undoable ? provider.disableKey(keyId) : managed(access).revokeKey(keyId));
    return { at: new Date().toISOString(), how: undoable ? "disabled" : "revoked" };
  },

  /** Ends a compromised key for good, whoever uses it. Already gone is success, so repeating is safe. */
  async endCompromisedKey({ slot, keyId }: CutOrder): Promise<Revoked> {
    await managed(deps.slotAccess(slot)).revokeKey(keyId);
    return { at: new Date().toISOString(), note: `${keyId} revoked` };
  },

  /**
   * Ends the old key for good. Looks first that the slot holds the new one and that no slot holds this one; already
   * gone is success, so repeating is safe. Fails with `SlotChanged`.
   */
  async revokeKey({ keyId, installedKeyId, ...order }: RevokeOrder): Promise<Revoked> {
    const access = deps.slotAccess(order.slot);
    await requireReplaced(deps, access, order, { keyId, installedKeyId });
    await managed(access).revokeKey(keyId);
    return { at: new Date().toISOString(), note: `${keyId} revoked` };
  },

  /**
   * The look before a person is asked to revoke the old key: the slot holds the new one, and none holds the old. Only
   * reads, so repeating is safe. Fails with `SlotChanged`.
   */
  async lookBeforeRevoking({ keyId, installedKeyId, ...order }: RevokeOrder): Promise<void> {
    await requireReplaced(deps, deps.slotAccess(order.slot), order, { keyId, installedKeyId });
  },
});

/** Fails with `InvalidInput` where a handed-in key would expire before the next rotation can replace it. */
async function requireLongLife({ name, policy }: SlotAccess, provider: ManagedProvider, id: string): Promise<void> {
  const expiresAt = (await provider.findKey(id))?.expiresAt;
  if (expiresAt === undefined || expiresAt.getTime() - Date.now() >= leastLifeMs(policy) - 60_000) return;
  throw new RotationFailure(
    "InvalidInput",
    `${name} does not take ${id}: it expires at ${expiresAt.toISOString()}, and a key must live ${readableMs(leastLifeMs(policy))} or longer; make another`,
  );
}

/** What an answer that does not prove a new key means; a refusal is tried again while the provider may be settling. */
function refused(
  provider: string,
  keyId: string,
  { answer, verdict, settleUntil }: { answer: Answer; verdict: Verdict; settleUntil: string },
): RotationFailure {
  if (verdict === "rate limited" || verdict === "unavailable") {
    const wait = answer.retryAfterMs === undefined ? {} : { retryAfterMs: answer.retryAfterMs };
    const type = verdict === "rate limited" ? "RateLimited" : "Unavailable";
    return new RotationFailure(type, `${provider} could not try ${keyId}: ${verdict} (status ${answer.status})`, wait);
  }
  return new RotationFailure(
    "KeyRejected",
    `${provider} refuses its new key ${keyId} (status ${answer.status}, ${verdict}): check project and permissions`,
    { retried: Date.now() < Date.parse(settleUntil) },
  );
}

function whereQuotaLives(provider: ProviderName, verdict: Verdict): string {
  return verdict === "works, no quota" ? `: look at the limits of ${quotaHome[provider]}` : "";
}

/** The id of a key that was handed in: the provider's, else the one the person says, else one made of its fingerprint. */
async function idOfHandedIn(
  slot: string,
  provider: Provider,
  value: Redacted,
  { openedAt, said }: { openedAt: Date; said: string | undefined },
): Promise<string> {
  if (isByHand(provider)) return said ?? idOfFingerprint(value.fingerprint());
  if (!canHandIn(provider)) throw new RotationFailure("InvalidInput", `${slot}: its provider takes no key by hand`);
  const identified = await provider.identifyKey(value, { openedAt });
  if (identified.kind !== "identified") {
    throw new RotationFailure("InvalidInput", `${slot} does not take this key: ${identified.message}`);
  }
  const { id } = identified.key;
  if (said === undefined || said === id) return id;
  throw new RotationFailure(
    "InvalidInput",
    `${slot} does not take this key: it is ${id}, not ${said}; hand in the one you mean`,
  );
}

/** A slot that holds this very value, as far as marks and previews tell; in doubt it does. */
function holderOfValue(seen: SeenSlot[], value: Redacted): string | undefined {
  return seen.find(({ held }) => {
    const { preview, comment } = held ?? {};
    const alike = preview !== undefined && maskTells(preview) && maskFits(preview, value.reveal());
    return alike || parseMark(comment)?.fingerprint === value.fingerprint();
  })?.name;
}

/** Fails with `SlotChanged` unless the slot holds the new key, none holds the old, and the new one lives. */
async function requireReplaced(
  deps: Dependencies,
  access: SlotAccess,
  order: OfRotation,
  { keyId, installedKeyId }: { keyId: string; installedKeyId: string },
): Promise<void> {
  await requireInstalled(access, order, installedKeyId);
  if (keyId === installedKeyId) {
    throw new RotationFailure("SlotChanged", `${order.slot} holds ${keyId}: it is not revoked`);
  }
  await requireHeldByNone(deps, access, keyId);
  // Without a credential only the slot's own answers show that it lives: they are asked for as well.
  if (!canManage(access.provider)) return;
  const installed = await access.provider.findKey(installedKeyId);
  if (installed?.state !== "active") {
    throw new RotationFailure(
      "SlotChanged",
      `${order.slot} holds ${installedKeyId}, which ${access.provider.name} knows as ${installed?.state ?? "gone"}: ${keyId} stays alive; put a key that works into the slot`,
    );
  }
}

/** Keys of this rotation that are alive at the provider; none where it cannot be asked. */
export async function liveKeysOf(access: SlotAccess, rotationId: string): Promise<KeyRecord[]> {
  if (!canManage(access.provider)) return [];
  const prefix = rotationPrefix(access.installation, access.slot, rotationId);
  const keys = await access.provider.listKeys();
  return keys.filter(({ name, state }) => name.startsWith(prefix) && (state === "active" || state === "disabled"));
}

/** Revokes the keys of this rotation that no slot holds and that are not the installed one, and returns their ids. */
export async function revokeLeftovers(
  deps: Dependencies,
  access: SlotAccess,
  rotationId: string,
  installedKeyId?: string,
): Promise<string[]> {
  const live = (await liveKeysOf(access, rotationId)).filter(({ id }) => id !== installedKeyId);
  const seen = live.length === 0 ? [] : await lookAtSlots(deps, access);
  const revoked: string[] = [];
  for (const { id } of live.slice(0, leftoverCap)) {
    if ((await findHolders(deps, access, id, seen)).length > 0) continue;
    await managed(access).revokeKey(id);
    revoked.push(id);
  }
  return revoked;
}
