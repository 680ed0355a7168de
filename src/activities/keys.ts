import { Context } from "@temporalio/activity";

import { type Answer, classifyAnswer, provesKey, type Verdict } from "../domain/answer.ts";
import { inMs, readableMs } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import { idOfFingerprint } from "../domain/key-id.ts";
import { keyName, ownKeyName } from "../domain/key-name.ts";
import { isRow, leastLifeMs, pauseInRowMs } from "../domain/policy.ts";
import { quotaHome } from "../domain/provider-limits.ts";
import type { ProviderName } from "../domain/slot.ts";
import {
  canHandIn,
  canIssue,
  canManage,
  handInToleranceMs,
  type Identified,
  isByHand,
  type KeyRecord,
  type Provider,
} from "../providers/provider.ts";
import type { Redacted } from "../redacted.ts";
import type {
  AcceptOrder,
  Issued,
  IssueOrder,
  NewKey,
  RefusedHandIn,
  Verified,
  VerifyAtProviderOrder,
} from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { whoHolds } from "./held-key.ts";

export const keyActivities = (deps: Dependencies) => ({
  /**
   * Makes a new key and returns it sealed. Ends nothing: keys that earlier attempts of the same order left, whose values
   * are lost, are named as far as the provider shows them by now. Repeating makes another key under another name. A key
   * nobody installs dies at the end of its `unprovenLife`.
   */
  async issueKey({ slot, rotationId, ordinal, unprovenLife }: IssueOrder): Promise<Issued> {
    const access = deps.slotAccess(slot);
    const { provider } = access;
    if (!canIssue(provider)) {
      throw new RotationFailure("InvalidInput", `${slot}: its provider makes no keys on request; hand one in`);
    }
    // The attempt is part of the name: lists can lag, so an earlier attempt's key may not show yet.
    const { attempt } = Context.current().info;
    const name = keyName(access.installation, access.slot, rotationId, `${ordinal}-${attempt}`);
    const { key, value } = await provider.issueKey({ name, lifeMs: inMs(unprovenLife) });
    const sealed = await deps.seal(value, { slot, rotationId });
    const leftBehind = await leftByAttempts(access, { rotationId, ordinal, before: attempt });
    return { id: key.id, fingerprint: value.fingerprint(), sealed, leftBehind };
  },

  /**
   * Takes a key that a person made: opens its seal, finds out which key it is, and sees that it is the slot's to use. A
   * key that its provider does not accept yet is taken: `verifyAtProvider` tries it as long as a provider may settle.
   * Only reads, so repeating is safe. Fails with `InvalidInput` and the reason when it is not to be used: the person
   * makes another one. Where it is known which key that was, the failure's details say so (`RefusedHandIn`).
   */
  async acceptKey({ slot, rotationId, sealed, openedAt, keyId }: AcceptOrder): Promise<NewKey> {
    const access = deps.slotAccess(slot);
    const value = await deps.open(sealed, { slot, rotationId });
    const { id, record } = await identifyHandedIn(access, value, { openedAt: new Date(openedAt), said: keyId });
    const heldBy = await holdersOf(deps, access, { id, record, value });
    if (heldBy.length > 0) {
      throw refusedHandIn(
        `${slot} does not take ${id}: ${heldBy.join(", ")} holds it already; make another`,
        id,
        heldBy,
      );
    }
    requireLongLife(access, id, record);
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
});

/**
 * The live keys of this ordinal that earlier attempts made, by their exact names. A list that cannot be read costs
 * nothing: the run looks its ordinals up again when it ends, and a failure here would leave one more key behind.
 */
async function leftByAttempts(
  { installation, slot, provider }: SlotAccess,
  { rotationId, ordinal, before }: { rotationId: string; ordinal: number; before: number },
): Promise<string[]> {
  if (before === 1 || !canManage(provider)) return [];
  let keys: KeyRecord[];
  try {
    keys = await provider.listKeys();
  } catch (error) {
    if (error instanceof RotationFailure) return [];
    throw error;
  }
  return keys
    .filter(({ name, state }) => {
      const own = ownKeyName(name, { installation, slot, rotationId });
      return isLive(state) && own?.ordinal === ordinal && own.attempt < before;
    })
    .map(({ id }) => id);
}

function isLive(state: KeyRecord["state"]): boolean {
  return state === "active" || state === "disabled";
}

/** What is known of a key that was handed in. */
interface HandedIn {
  id: string;
  /** As its provider shows it; undefined where it cannot be asked. */
  record: KeyRecord | undefined;
}

/** Which key was handed in: the provider says, else the person, else its id is made of its fingerprint. */
async function identifyHandedIn(
  { name: slot, provider }: SlotAccess,
  value: Redacted,
  { openedAt, said }: { openedAt: Date; said: string | undefined },
): Promise<HandedIn> {
  if (isByHand(provider)) return { id: said ?? idOfFingerprint(value.fingerprint()), record: undefined };
  if (!canHandIn(provider)) throw new RotationFailure("InvalidInput", `${slot}: its provider takes no key by hand`);
  const identified = await provider.identifyKey(value, { openedAt });
  if (identified.kind === "unknown") {
    // It could not be looked up, so it may be alive: it is named as what is known of it.
    const id = said ?? idOfFingerprint(value.fingerprint());
    throw refusedHandIn(`${slot} does not take this key: ${identified.message}`, id);
  }
  if (identified.kind === "refused" && !(await worksThoughSwitchedOff(provider, value, { identified, openedAt }))) {
    const message = `${slot} does not take this key: ${identified.message}`;
    const id = identified.key?.id ?? said;
    throw id === undefined ? new RotationFailure("InvalidInput", message) : refusedHandIn(message, id);
  }
  const { key } = identified;
  if (key === undefined) throw new RotationFailure("ResponseUnexpected", `${slot}: a key was identified that is none`);
  if (said === undefined || said === key.id) return { id: key.id, record: key };
  throw refusedHandIn(`${slot} does not take this key: it is ${key.id}, not ${said}; hand in the one you mean`, key.id);
}

/** A flag says that the key is switched off, and an answer to the key itself that it is not: the answer counts. */
async function worksThoughSwitchedOff(
  provider: Provider,
  value: Redacted,
  { identified, openedAt }: { identified: Extract<Identified, { kind: "refused" }>; openedAt: Date },
): Promise<boolean> {
  const { fault, key } = identified;
  if (fault !== "dead" || key?.state !== "disabled") return false;
  if (key.createdAt.getTime() < openedAt.getTime() - handInToleranceMs) return false;
  return provesKey(classifyAnswer(provider.name, await provider.tryKey(value)));
}

/**
 * The slots that hold this very key. Where that cannot be told of a slot it is taken for none: the key is younger than
 * the request for it, so nobody has had much time to put it there.
 */
async function holdersOf(
  deps: Dependencies,
  access: SlotAccess,
  { id, record, value }: HandedIn & { value: Redacted },
): Promise<string[]> {
  const key = {
    id,
    fingerprint: value.fingerprint(),
    maskedValue: record?.maskedValue ?? `...${value.reveal().slice(-4)}`,
    ...(record === undefined ? {} : { createdAt: record.createdAt }),
  };
  return (await whoHolds(deps, access, [key])).get(id)?.yes ?? [];
}

/** Fails with `InvalidInput` where a handed-in key would expire before the next rotation can replace it. */
function requireLongLife({ name, policy }: SlotAccess, id: string, record: KeyRecord | undefined): void {
  const expiresAt = record?.expiresAt;
  if (expiresAt === undefined || expiresAt.getTime() - Date.now() >= leastLifeMs(policy) - 60_000) return;
  throw refusedHandIn(
    `${name} does not take ${id}: it expires at ${expiresAt.toISOString()}, and a key must live ${readableMs(leastLifeMs(policy))} or longer; make another`,
    id,
  );
}

/** The refusal of a key that exists: its id goes with it, so that the run answers for it. */
function refusedHandIn(message: string, id: string, heldBy: string[] = []): RotationFailure {
  const details: RefusedHandIn = { handedIn: { id, heldBy } };
  return new RotationFailure("InvalidInput", message, { details: [details] });
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
