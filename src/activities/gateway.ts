import { Context } from "@temporalio/activity";

import { canPurge } from "../cloudflare/slot-secrets.ts";
import { type Answer, classifyAnswer, type Verdict } from "../domain/answer.ts";
import { durationOf, inMs } from "../domain/duration.ts";
import { type FailureType, RotationFailure } from "../domain/failure.ts";
import { formatMark, parseMark } from "../domain/mark.ts";
import { isRow, keyLives, leastLifeMs, pauseInRowMs } from "../domain/policy.ts";
import { keyLifeOf, quotaHome } from "../domain/provider-limits.ts";
import { rotationAliases } from "../domain/slot.ts";
import { canIssue, canManage, KeyLifeTooLong, type ManagedProvider } from "../providers/provider.ts";
import type { Redacted } from "../redacted.ts";
import type {
  Active,
  Confirmation,
  ConfirmOrder,
  Finished,
  FinishOrder,
  InstallOrder,
  Installed,
  NewKey,
  OfRotation,
  PrevAnswer,
  ProbeAlias,
  Released,
  ReleaseOrder,
  Saved,
  StageOrder,
  Verified,
  VerifyThroughGatewayOrder,
} from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { doubtAbout, findHolders, readIfThere, requireInstalled } from "./held-key.ts";
import { liveKeysOf, revokeLeftovers } from "./keys.ts";
import { lookUp, missingOf } from "./managed.ts";

/** Between two probes in a row, so that they are not one moment's luck. */
const probePauseMs = 200;

export const gatewayActivities = (deps: Dependencies) => ({
  /**
   * Puts the new key on the alias `new` and a copy of the slot's secret on `prev`. Looks first; repeating overwrites
   * `new` with the same value and leaves a `prev` that is there.
   */
  async stageAliases({ slot, rotationId, key }: StageOrder): Promise<void> {
    const { place, secrets } = deps.slotAccess(slot);
    const aliases = rotationAliases(rotationId);
    const comment = markOf(key, rotationId, new Date());
    const value = await deps.open(key.sealed, { slot, rotationId });
    await secrets.make({ ...place, alias: aliases.new }, { value, comment });
    await secrets.makeCopy({ ...place, alias: aliases.prev }, place, `keyturn copy for rotation ${rotationId}`);
  },

  /**
   * Sees the copy of the old key answer once: only then can its death be seen there later. Only reads. An old key that
   * answers no more until the deadline is no reason to stop, so this says so instead of failing.
   */
  async seePrevAnswer(order: VerifyThroughGatewayOrder): Promise<PrevAnswer> {
    const access = deps.slotAccess(order.slot);
    const verdict = await verdictOn(access, order, "prev");
    if (verdict === "works" || verdict === "works, no quota") return { answered: true, note: "prev answered" };
    if (Date.now() >= Date.parse(order.until)) return { answered: false, note: `prev did not answer: ${verdict}` };
    throw new RotationFailure("NotYetPropagated", `${order.slot}: its copy on prev does not answer yet: ${verdict}`);
  },

  /**
   * Asks the provider through the gateway, `goodAnswers` times in a row: the clients' own path, with no cached and no
   * Cloudflare-paid answer. Only reads, so repeating is safe. Refusals are tried again until the deadline, since the
   * value may still be on its way; then it fails with what was seen last.
   */
  async verifyThroughGateway(order: VerifyThroughGatewayOrder): Promise<Verified> {
    const access = deps.slotAccess(order.slot);
    if (order.alias === "real" && order.installedKeyId !== undefined) {
      await requireInstalled(access, order, order.installedKeyId);
    }
    const warnings = new Set<string>();
    for (let good = 0; good < order.goodAnswers; good++) {
      if (good > 0) await Context.current().sleep(probePauseMs);
      const answer = await probe(access, order, order.alias);
      const verdict = classifyAnswer(access.provider.name, answer);
      if (verdict === "works, no quota")
        warnings.add(
          `${access.provider.name} has no quota left for this key: look at the limits of ${quotaHome[access.provider.name]}`,
        );
      else if (verdict !== "works") throw notProven(order, verdict, answer);
    }
    return { probes: order.goodAnswers, warnings: [...warnings] };
  },

  /**
   * Gives the new key its final life and writes value and mark into the slot's secret in one request. Looks first: an
   * earlier attempt whose answer was lost is found by its mark. Fails with `SlotChanged` when somebody else wrote since
   * the rotation began.
   */
  async installKey({ slot, rotationId, key, secretModified, again = false }: InstallOrder): Promise<Installed> {
    const access = deps.slotAccess(slot);
    const { place, secrets } = access;
    const held = await secrets.read(place);
    const mark = parseMark(held.comment);
    const ours = mark?.rotationId === rotationId ? mark : undefined;
    const written = ours?.fingerprint === key.fingerprint;
    // The mark may have survived somebody's edit of the value; it may be of another key that this rotation tried.
    if (ours !== undefined) await requireInstalled(access, { slot, rotationId }, ours.keyId);
    if (written && !again) return installedAt(held.modified, (await lookUp(access, key.id))?.expiresAt);
    if (ours === undefined && held.modified.toISOString() !== secretModified) {
      throw new RotationFailure(
        "SlotChanged",
        `somebody wrote into ${slot} at ${held.modified.toISOString()}, after this rotation had looked: nothing is installed`,
      );
    }
    const value = await deps.open(key.sealed, { slot, rotationId });
    const expiresAt = canManage(access.provider)
      ? await giveFinalLife(access, access.provider, key)
      : await requireWorking(access, key, value);
    await secrets.write(place, { value, comment: markOf(key, rotationId, new Date()) });
    return installedAt(new Date(), expiresAt);
  },

  /**
   * Reads back what the slot holds: the first question where it does not answer with the new key. Only reads. Fails with
   * `SlotChanged` when somebody else wrote into it.
   */
  async checkSaved({ slot, rotationId, installedKeyId }: FinishOrder): Promise<Saved> {
    const access = deps.slotAccess(slot);
    if (!access.secrets.keepsMarks) return { note: "unknown: this dialect tells nothing of what is stored" };
    await requireInstalled(access, { slot, rotationId }, installedKeyId);
    const { status, modified } = await access.secrets.read(access.place);
    return { note: `saved: the mark names ${installedKeyId}, written at ${modified.toISOString()}, status ${status}` };
  },

  /**
   * Puts the old value back into the slot from its copy on `prev`, with a gap of seconds: the last resort where the slot
   * fails with the new one. Looks that the slot still holds what this rotation wrote. A repetition finds it done.
   */
  async restoreOldValue({ slot, rotationId }: OfRotation): Promise<void> {
    const { place, secrets } = deps.slotAccess(slot);
    const prev = { ...place, alias: rotationAliases(rotationId).prev };
    await secrets.replaceByCopy(place, prev, `keyturn put the old value back, rotation ${rotationId}`);
  },

  /** Asks for cached keys to be dropped, where the dialect can. That a cache obeyed is not told; repeating is safe. */
  async purgeCache({ slot }: OfRotation): Promise<void> {
    const { place, secrets } = deps.slotAccess(slot);
    if (canPurge(secrets)) await secrets.purgeCache(place.gateway);
  },

  /** Removes the rotation's aliases. Gone is success, so repeating is safe. */
  async removeAliases({ slot, rotationId }: OfRotation): Promise<void> {
    await removeAliases(deps.slotAccess(slot), rotationId);
  },

  /** Waits until Cloudflare calls the written value active. Only reads; fails with `NotYetPropagated` until then. */
  async awaitPropagation({ slot, until }: OfRotation & { until: string }): Promise<Active> {
    const { place, secrets } = deps.slotAccess(slot);
    const { status } = await secrets.read(place);
    if (status === "active") return { note: "active" };
    throw new RotationFailure(
      "NotYetPropagated",
      `the secret of ${slot} is ${status}, not active: look at it in the dashboard`,
      {
        retried: Date.now() < Date.parse(until),
      },
    );
  },

  /**
   * Sees the old key dead: the provider lists it as alive no more, and `prev` is refused in the provider's own words as
   * often and as long as policy wants, in a row. Only reads; a repetition begins a new row. What cannot be seen until
   * the deadline is said, never assumed.
   */
  async confirmRevoked(order: ConfirmOrder): Promise<Confirmation> {
    const access = deps.slotAccess(order.slot);
    const context = Context.current();
    const leaked =
      order.leaked === undefined ? undefined : await deps.open(order.leaked, { slot: order.slot, purpose: "leaked" });
    let row: number[] = [];
    let seen = "nothing was seen yet";
    while (Date.now() < Date.parse(order.until)) {
      context.heartbeat();
      const listed = await listedAlive(access, order.keyId);
      if (listed !== false) {
        seen = listed === true ? "the provider still lists it as alive" : listed;
        row = [];
      } else if (leaked !== undefined) {
        const verdict = classifyAnswer(access.provider.name, await access.provider.tryKey(leaked));
        seen = `the provider answered the leaked value: ${verdict}`;
        row = verdict === "key refused" ? [...row, Date.now()] : [];
      } else if (!order.throughPrev) {
        const missing = missingOf(access);
        return {
          note: `${missing === undefined ? "the provider lists it as alive no more" : `no list can be read: ${missing}`}; no probe could see its death`,
        };
      } else {
        const verdict = await verdictOn(access, order, "prev");
        seen = `prev answered: ${verdict}`;
        row = verdict === "key refused" ? [...row, Date.now()] : [];
      }
      const [first] = row;
      if (first !== undefined && isRow(row, order.rule, Date.now())) {
        return {
          deadAt: new Date(first).toISOString(),
          note: `${row.length} refusals in a row over ${order.rule.span}`,
        };
      }
      await context.sleep(pauseInRowMs(order.rule));
    }
    return { note: `not seen dead until the deadline; ${seen}` };
  },

  /** Removes the rotation's aliases and sweeps keys it left. Gone is success, so repeating is safe. */
  async finish({ installedKeyId, handedIn, ...order }: FinishOrder): Promise<Finished> {
    const access = deps.slotAccess(order.slot);
    await removeAliases(access, order.rotationId);
    const warnings: string[] = [];
    const leftOver: Released["leftOver"] = [];
    try {
      await requireInstalled(access, order, installedKeyId);
      await revokeLeftovers(deps, access, order.rotationId, installedKeyId);
      leftOver.push(...(await unused(access, handedIn, installedKeyId)));
    } catch (error) {
      if (!(error instanceof RotationFailure) || error.type !== "SlotChanged") throw error;
      warnings.push(error.message);
      const ids = new Set([installedKeyId, ...(await liveKeysOf(access, order.rotationId)).map(({ id }) => id)]);
      leftOver.push(...[...ids].map((id) => ({ id, why: changedByHand })));
    }
    return { leftOver, warnings, nextDue: new Date(Date.now() + inMs(access.policy.every)).toISOString() };
  },

  /**
   * Leaves a slot whose rotation stopped with one working, installed key: its aliases go, the new key is revoked where
   * nobody can have used it, and what has to stay alive is named. Looks what the slot holds, so repeating is safe.
   */
  async releaseSlot({ installStarted, oldKeyId, newKeyId, handedIn, ...order }: ReleaseOrder): Promise<Released> {
    const access = deps.slotAccess(order.slot);
    const held = await readIfThere(access);
    const mark = parseMark(held?.comment);
    await removeAliases(access, order.rotationId);
    if (held !== undefined && mark?.rotationId === order.rotationId) {
      const old = await named(access, oldKeyId, "clients may still use it");
      const doubt = await doubtAbout(access, mark, held);
      if (doubt === undefined) {
        await revokeLeftovers(deps, access, order.rotationId);
        return { leftOver: [...old, ...(await unused(access, handedIn, mark.keyId))], warnings: [] };
      }
      // The edges may still serve it: nothing is revoked.
      const live = await liveIdsOf(access, order.rotationId, handedIn);
      return {
        leftOver: [...old, ...live.map((id) => ({ id, why: changedByHand }))],
        warnings: [`somebody changed ${order.slot} meanwhile: ${doubt}; look what it holds`],
      };
    }
    if (!installStarted) {
      await revokeLeftovers(deps, access, order.rotationId);
      return { leftOver: await unused(access, handedIn), warnings: [] };
    }
    const live = await liveIdsOf(access, order.rotationId, handedIn);
    const unheld = oldKeyId !== undefined && (await findHolders(deps, access, oldKeyId)).length === 0;
    const why = unheld ? "no slot shows that it holds it" : "the slot shows it, until the new key arrives after all";
    return {
      leftOver: [
        ...live.map((id) => ({ id, why: id === newKeyId ? mayStillArrive : "it was made for this rotation" })),
        // Both are named: which of them nobody holds in the end is not known yet.
        ...(unheld || live.length > 0 ? await named(access, oldKeyId, why) : []),
      ],
      warnings: [`${order.slot} does not hold the key this rotation wrote: look what it holds`],
    };
  },
});

const mayStillArrive = "its installation was begun and did not show: it may still arrive";
const changedByHand = "the slot was changed by hand after it was installed";

/** The key with the reason why it stays, unless its provider knows it as dead. */
async function named({ provider }: SlotAccess, id: string | undefined, why: string): Promise<Released["leftOver"]> {
  if (id === undefined) return [];
  if (!canManage(provider)) return [{ id, why }];
  const state = (await provider.findKey(id))?.state;
  return state === "active" || state === "disabled" ? [{ id, why }] : [];
}

/** The rotation's own keys that may be alive: those its provider lists under its name, and those handed in under any. */
async function liveIdsOf(access: SlotAccess, rotationId: string, handedIn: string[] = []): Promise<string[]> {
  if (!canManage(access.provider)) return handedIn;
  const ours = (await liveKeysOf(access, rotationId)).map(({ id }) => id);
  const others = await unused(access, handedIn);
  return [...new Set([...ours, ...others.map(({ id }) => id)])];
}

/** The keys that people handed in and no slot holds: nobody else would name them, since their names may be any. */
async function unused(
  access: SlotAccess,
  handedIn: string[] = [],
  installedKeyId?: string,
): Promise<Released["leftOver"]> {
  const why = "it was handed in and is not in the slot: revoke it by hand";
  const ids = handedIn.filter((id) => id !== installedKeyId);
  if (!canManage(access.provider)) return ids.map((id) => ({ id, why }));
  return (await Promise.all(ids.map((id) => named(access, id, why)))).flat();
}

/** Whether the provider lists the key as alive, or why it could not be asked; where no credential may ask, it is not. */
async function listedAlive({ provider }: SlotAccess, keyId: string): Promise<boolean | string> {
  if (!canManage(provider)) return false;
  try {
    return (await provider.findKey(keyId))?.state === "active";
  } catch (error) {
    if (error instanceof RotationFailure) return error.message;
    throw error;
  }
}

/** What a probe says; no answer at all says nothing about the key. */
async function verdictOn(access: SlotAccess, order: OfRotation, alias: ProbeAlias): Promise<Verdict> {
  try {
    return classifyAnswer(access.provider.name, await probe(access, order, alias));
  } catch (error) {
    if (error instanceof RotationFailure && error.type === "Unavailable") return "unavailable";
    throw error;
  }
}

async function probe(access: SlotAccess, { rotationId }: OfRotation, alias: ProbeAlias): Promise<Answer> {
  const { place, policy, probeModel } = access;
  return access.probe({
    ...place,
    alias: alias === "real" ? place.alias : rotationAliases(rotationId)[alias],
    path: alias === "real" ? policy.probePath : "native",
    model: probeModel,
    rotationId,
    signal: Context.current().cancellationSignal,
  });
}

/** What an answer that is not a good one means for a rotation; what may be propagation is tried again until the deadline. */
function notProven(
  { slot, alias, until }: VerifyThroughGatewayOrder,
  verdict: Verdict,
  answer: Answer,
): RotationFailure {
  const where = `${slot}, alias ${alias}`;
  const trace = answer.requestId === undefined ? "" : ` (request ${answer.requestId})`;
  const inTime = Date.now() < Date.parse(until);
  const failure = (type: FailureType, sentence: string, retried: boolean): RotationFailure =>
    new RotationFailure(inTime && retried ? "NotYetPropagated" : type, `${where}: ${sentence}${trace}`, {
      retried: inTime && retried,
      ...(answer.retryAfterMs === undefined ? {} : { retryAfterMs: answer.retryAfterMs }),
    });
  switch (verdict) {
    case "key refused":
      return failure("KeyRejected", "the provider refuses the key the gateway sent: look which key it holds", true);
    case "works, not allowed":
      return failure("KeyRejected", "the key may not make this call: compare its permissions with the old key's", true);
    case "alias unknown":
    case "no key sent":
    case "not the stored key":
      return failure(
        "SlotMissing",
        `the gateway has no stored key to send (${verdict}): look at its provider config`,
        true,
      );
    case "gateway token refused":
      return failure(
        "AdminCredentialRejected",
        "the gateway refuses our token: give CLOUDFLARE_GATEWAY_TOKEN the right AI Gateway Run",
        false,
      );
    case "rate limited":
      return new RotationFailure("RateLimited", `${where}: requests are limited${trace}`, {
        ...(answer.retryAfterMs === undefined ? {} : { retryAfterMs: answer.retryAfterMs }),
        retried: inTime,
      });
    case "cached":
    case "unavailable":
    case "unclear":
      return failure(
        "Unavailable",
        `no answer that proves the key (${verdict}, status ${answer.status}): try again later`,
        true,
      );
    case "works":
    case "works, no quota":
      return failure(
        "ResponseUnexpected",
        `a good answer was taken for a bad one (${verdict}): report it as our bug`,
        false,
      );
  }
}

/** Without a credential the key itself is asked whether it still works; how long it lives nobody tells. */
async function requireWorking({ name, provider }: SlotAccess, { id }: NewKey, value: Redacted): Promise<undefined> {
  const verdict = classifyAnswer(provider.name, await provider.tryKey(value));
  if (verdict !== "key refused") return;
  throw new RotationFailure(
    "KeyRejected",
    `${provider.name} refuses ${id} for ${name}: it is not installed, start again`,
  );
}

/** Longest life first, halved while the organisation refuses it; read back, since only what the provider says counts. */
async function giveFinalLife(
  { name, policy }: SlotAccess,
  provider: ManagedProvider,
  { id }: NewKey,
): Promise<Date | undefined> {
  // An approval may have taken days, in which somebody ended the key.
  const state = (await provider.findKey(id))?.state ?? "gone";
  if (state !== "active") {
    throw new RotationFailure("KeyRejected", `key ${id} for ${name} is ${state}: it is not installed, start again`);
  }
  if (canIssue(provider)) {
    for (const life of keyLives(policy)) {
      try {
        await provider.setKeyLife(id, inMs(life));
        break;
      } catch (error) {
        if (!(error instanceof KeyLifeTooLong) || life === durationOf(leastLifeMs(policy))) throw error;
      }
    }
  }
  const expiresAt = (await provider.findKey(id))?.expiresAt;
  if (expiresAt !== undefined && expiresAt.getTime() - Date.now() < leastLifeMs(policy) - 60_000) {
    throw new RotationFailure(
      "KeyRejected",
      `key ${id} for ${name} expires at ${expiresAt.toISOString()}, before the next rotation can replace it: it is not installed; a key of ${provider.name} lives ${keyLifeOf[provider.name]}`,
    );
  }
  return expiresAt;
}

/** The mark that is written into a secret's comment beside the key's value. */
function markOf({ id, fingerprint }: NewKey, rotationId: string, at: Date): string {
  return formatMark({ keyId: id, rotationId, fingerprint, at });
}

function installedAt(at: Date, expiresAt: Date | undefined): Installed {
  return { at: at.toISOString(), ...(expiresAt === undefined ? {} : { expiresAt: expiresAt.toISOString() }) };
}

async function removeAliases({ place, secrets }: SlotAccess, rotationId: string): Promise<void> {
  for (const alias of Object.values(rotationAliases(rotationId))) await secrets.remove({ ...place, alias });
}
