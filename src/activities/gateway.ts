import { Context } from "@temporalio/activity";
import { CancelledFailure } from "@temporalio/common";

import { canPurge, type Held } from "../cloudflare/slot-secrets.ts";
import { type Answer, classifyAnswer, provesKey, type Verdict } from "../domain/answer.ts";
import { durationOf, inMs } from "../domain/duration.ts";
import { type FailureType, RotationFailure } from "../domain/failure.ts";
import { formatAliasComment, formatMark, noFingerprint, parseMark } from "../domain/mark.ts";
import { isRow, keyLives, leastLifeMs, pauseInRowMs } from "../domain/policy.ts";
import { keyLifeOf, quotaHome } from "../domain/provider-limits.ts";
import { rotationAliases } from "../domain/slot.ts";
import { canIssue, canManage, KeyLifeTooLong, type KeyRecord, type ManagedProvider } from "../providers/provider.ts";
import { maskSecrets, type Redacted } from "../redacted.ts";
import type {
  Active,
  Confirmation,
  ConfirmOrder,
  InstallFailed,
  InstallOrder,
  Installed,
  NewKey,
  OfRotation,
  PrevAnswer,
  ProbeAlias,
  RestoreOrder,
  Saved,
  SavedOrder,
  Staged,
  StageOrder,
  Verified,
  VerifyThroughGatewayOrder,
} from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { asOne } from "./fence.ts";
import { remember, remembered } from "./heartbeat.ts";
import { readIfThere, readSurely, requireInstalled } from "./held-key.ts";
import { findSurely, lookUp, missingOf } from "./managed.ts";
import { findElsewhere } from "./seen-keys.ts";

/** Between two probes in a row, so that they are not one moment's luck. */
const probePauseMs = 200;

/** The name under which an attempt lets the next one know that the former copy was removed. */
const copyRemoved = "the former copy was removed";

export const gatewayActivities = (deps: Dependencies) => ({
  /**
   * Puts the new key on the alias `new` and a copy of the slot's secret on `prev`, and says whose they are. Looks first;
   * repeating overwrites `new` with the same value and leaves a `prev` that is there, unless both are asked for `again`:
   * then `prev` is what the slot holds now. Where the store has no room and policy allows to go on in place, says so and
   * leaves neither.
   */
  async stageAliases({ slot, rotationId, key, again = false }: StageOrder): Promise<Staged> {
    const access = deps.slotAccess(slot);
    const { installation, place, policy, secrets } = access;
    const aliases = rotationAliases(rotationId);
    const comment = formatAliasComment({ installation, rotationId });
    const value = await deps.open(key.sealed, { slot, rotationId });
    const prev = { ...place, alias: aliases.prev };
    try {
      // Once, not with each attempt: the gateway sees a copy only a while after it was made.
      if (again && remembered(copyRemoved) !== true) {
        await secrets.remove(prev);
        remember(copyRemoved, true);
      }
      await secrets.make({ ...place, alias: aliases.new }, { value, comment });
      await secrets.makeCopy(prev, place, comment);
      return {};
    } catch (error) {
      if (!isFull(error) || policy.aliases !== "auto") throw error;
      await removeAliases(access, rotationId);
      return { inPlace: "the secrets store has no room for two more, and policy allows to go on in place" };
    }
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
    return { at: new Date().toISOString(), probes: order.goodAnswers, warnings: [...warnings] };
  },

  /**
   * Gives the new key its final life and writes value and mark into the slot's secret in one request. Looks first: an
   * earlier attempt whose answer was lost is found by its mark. Fails with `SlotChanged` when somebody else wrote since
   * the rotation began. Its failure, and its cancellation, say whether the write may have left (`InstallFailed`).
   */
  async installKey(order: InstallOrder): Promise<Installed> {
    // What an earlier attempt sent may still arrive, whatever it ended with.
    const write = { sent: Context.current().info.attempt > 1 };
    try {
      return await install(deps, order, write);
    } catch (error) {
      throw withDetails(error, write);
    }
  },

  /**
   * Reads back what the slot holds: the first question where it does not answer with the new key. Only reads. Fails with
   * `SlotChanged` when somebody else wrote into it.
   */
  async checkSaved({ slot, rotationId, installedKeyId }: SavedOrder): Promise<Saved> {
    const access = deps.slotAccess(slot);
    if (!access.secrets.keepsMarks) return { note: "unknown: this dialect tells nothing of what is stored" };
    const held = await requireInstalled(access, { slot, rotationId }, installedKeyId);
    const { status, modified } = held ?? (await readSurely(access));
    return { note: `saved: the mark names ${installedKeyId}, written at ${modified.toISOString()}, status ${status}` };
  },

  /**
   * Puts the old value back into the slot from its copy on `prev`, with a gap of seconds: the last resort where the slot
   * fails with the new one. Looks that the slot still holds what this rotation wrote, and again right before it deletes
   * that: fails with `SlotChanged`, and changes nothing, where somebody wrote into it. The slot then bears the old key's
   * mark. A repetition finds it done, or fills the slot that an earlier attempt left empty.
   */
  async restoreOldValue(order: RestoreOrder): Promise<void> {
    const { slot, rotationId, installedKeyId, oldKeyId, oldFingerprint = noFingerprint } = order;
    const access = deps.slotAccess(slot);
    const { place, secrets } = access;
    const aliases = rotationAliases(rotationId);
    const prev = { ...place, alias: aliases.prev };
    const held = await readIfThere(access);
    if (held !== undefined && isRestored(held, order)) return;
    const emptied = held === undefined && Context.current().info.attempt > 1;
    const seen = emptied ? undefined : await requireInstalled(access, order, installedKeyId);
    const comment =
      oldKeyId === undefined
        ? restoredComment(rotationId)
        : formatMark({ keyId: oldKeyId, rotationId, fingerprint: oldFingerprint, at: new Date() });
    try {
      // Between its two writes the slot is empty.
      await asOne(() => secrets.replaceByCopy(place, prev, { comment, seen }));
    } catch (error) {
      if (!isFull(error)) throw error;
      // Somebody took the place that was just given up: our other alias makes room, since an empty slot serves nobody.
      await secrets.remove({ ...place, alias: aliases.new });
      await asOne(() => secrets.replaceByCopy(place, prev, { comment, seen: undefined }));
    }
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
    const { status } = await readSurely(deps.slotAccess(slot));
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
    const { leaked, unreadable } = await openLeaked(deps, order);
    const isProbed = leaked !== undefined || order.throughPrev;
    let row: number[] = [];
    let seen = "nothing was seen yet";
    while (Date.now() < Date.parse(order.until)) {
      context.heartbeat();
      let listed = await listedAlive(deps, access, order.keyId, { surely: false });
      if (listed === false && isProbed) {
        const verdict = await verdictOnDead(access, order, leaked);
        seen = `${leaked === undefined ? "prev answered" : "the provider answered the leaked value"}: ${verdict}`;
        row = verdict === "key refused" ? [...row, Date.now()] : [];
      }
      const [first] = row;
      const isRefused = first !== undefined && isRow(row, order.rule, Date.now());
      // A sure look waits for lists that are late: it is made once all else says that the key is dead.
      if (listed === false && (isRefused || !isProbed)) {
        listed = await listedAlive(deps, access, order.keyId, { surely: true });
        if (listed === false) return confirmation(access, order, { row, unreadable });
      }
      if (listed !== false) {
        seen = listed === true ? "the provider still lists it as alive" : listed;
        row = [];
      }
      await context.sleep(pauseInRowMs(order.rule));
    }
    return { note: `${unreadable}not seen dead until the deadline; ${seen}` };
  },
});

async function install(
  deps: Dependencies,
  { slot, rotationId, key, secretModified, again = false }: InstallOrder,
  write: InstallFailed,
): Promise<Installed> {
  const access = deps.slotAccess(slot);
  const { place, secrets } = access;
  // A read may be stale: what was true a while ago must not look like somebody's write.
  const held = await readSurely(
    access,
    ({ comment, modified }) =>
      parseMark(comment)?.rotationId === rotationId || modified.toISOString() === secretModified,
  );
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
  const final = canManage(access.provider)
    ? await giveFinalLife(access, access.provider, { key, value })
    : await requireWorking(access, key, value);
  // The life took its time, and the look may have been at an old copy: what is written over is what was looked at.
  const unchanged = ({ modified }: Held): boolean => modified.getTime() === held.modified.getTime();
  const now = await readSurely(access, unchanged);
  if (!unchanged(now)) {
    throw new RotationFailure(
      "NotYetPropagated",
      `${slot} shows a write of ${now.modified.toISOString()}, and one of ${held.modified.toISOString()} a moment ago: nothing is installed before it is looked at again`,
    );
  }
  Context.current().cancellationSignal.throwIfAborted();
  const leaving = (): void => {
    write.sent = true;
  };
  await secrets.write(place, { value, comment: markOf(key, rotationId, new Date()) }, { seen: now, leaving });
  const replaced = mark === undefined && !isOurs(held.comment) ? held.comment : undefined;
  return {
    ...installedAt(new Date(), final.expiresAt),
    ...(replaced === undefined ? {} : { replacedComment: maskSecrets(replaced) }),
    ...(final.warnings.length === 0 ? {} : { warnings: final.warnings }),
  };
}

/** The failure or cancellation of an attempt, with what the workflow has to know of it. */
function withDetails(error: unknown, details: InstallFailed): unknown {
  if (error instanceof RotationFailure) {
    const { type, message, retried, retryAfterMs } = error;
    const wait = retryAfterMs === undefined ? {} : { retryAfterMs };
    return new RotationFailure(type, message, { retried, details: [details], ...wait });
  }
  const cancelled =
    error instanceof CancelledFailure ||
    (Context.current().cancellationSignal.aborted && error instanceof Error && error.name === "AbortError");
  return cancelled ? new CancelledFailure(error.message, [details]) : error;
}

/** The value that leaked, or why it cannot be tried: its seal may be of a key that is gone by now. */
async function openLeaked(
  deps: Dependencies,
  { slot, leaked }: ConfirmOrder,
): Promise<{ leaked?: Redacted; unreadable: string }> {
  if (leaked === undefined) return { unreadable: "" };
  try {
    return { leaked: await deps.open(leaked, { slot, purpose: "leaked" }), unreadable: "" };
  } catch (error) {
    if (!(error instanceof RotationFailure)) throw error;
    return { unreadable: `the leaked value could not be tried: ${error.message}; ` };
  }
}

/** Whether an earlier attempt put the old value back. */
function isRestored({ comment }: Held, { rotationId, oldKeyId }: RestoreOrder): boolean {
  if (comment === restoredComment(rotationId)) return true;
  const mark = parseMark(comment);
  return mark !== undefined && mark.rotationId === rotationId && mark.keyId === oldKeyId;
}

function restoredComment(rotationId: string): string {
  return `keyturn put the old value back, rotation ${rotationId}`;
}

/** Whether a comment is one that this program wrote, of whatever rotation; none is nobody's. */
function isOurs(comment: string | undefined): boolean {
  if (comment === undefined || comment === "") return true;
  return comment.startsWith("keyturn/1 ") || comment.startsWith(restoredComment(""));
}

function isFull(error: unknown): boolean {
  return error instanceof RotationFailure && error.type === "KeyLimitReached";
}

/** What is said of a key that no list shows alive, and that was refused in a row, where it could be probed. */
function confirmation(
  access: SlotAccess,
  { rule }: ConfirmOrder,
  { row, unreadable }: { row: number[]; unreadable: string },
): Confirmation {
  const [first] = row;
  if (first === undefined) {
    const missing = missingOf(access);
    const said = missing === undefined ? "the provider lists it as alive no more" : `no list can be read: ${missing}`;
    return { note: `${unreadable}${said}; no probe could see its death` };
  }
  return {
    deadAt: new Date(first).toISOString(),
    lookedAt: new Date().toISOString(),
    note: `${unreadable}${row.length} refusals in a row over ${rule.span}`,
  };
}

/** What the provider says to the leaked value, or, without one, to the old value on `prev`. */
async function verdictOnDead(access: SlotAccess, order: ConfirmOrder, leaked: Redacted | undefined): Promise<Verdict> {
  if (leaked === undefined) return verdictOn(access, order, "prev");
  return classifyAnswer(access.provider.name, await access.provider.tryKey(leaked));
}

/** Whether the provider lists the key as alive, or why it could not be asked; where no credential may ask, it is not. */
async function listedAlive(
  deps: Dependencies,
  access: SlotAccess,
  keyId: string,
  { surely }: { surely: boolean },
): Promise<boolean | string> {
  const { provider, secondLookMs } = access;
  if (!canManage(provider)) return false;
  try {
    if (!surely) return (await provider.findKey(keyId))?.state === "active";
    const key = (await findSurely({ provider, secondLookMs }, [keyId])).get(keyId);
    return key === undefined ? (await findElsewhere(deps, access, keyId)) !== undefined : key.state === "active";
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

interface FinalLife {
  expiresAt?: Date;
  warnings: string[];
}

/** Without a credential the key itself is asked whether it still works; how long it lives nobody tells. */
async function requireWorking({ name, provider }: SlotAccess, { id }: NewKey, value: Redacted): Promise<FinalLife> {
  const verdict = classifyAnswer(provider.name, await provider.tryKey(value));
  if (verdict !== "key refused") return { warnings: [] };
  throw new RotationFailure(
    "KeyRejected",
    `${provider.name} refuses ${id} for ${name}: it is not installed, start again`,
  );
}

/**
 * What there is to say of a key that its provider does not plainly call active: an approval may have taken days, in which
 * somebody ended it. Revoked or expired is final; what anything else means, an answer to the key itself tells.
 */
async function doubtState(
  { name, provider }: SlotAccess,
  { id }: NewKey,
  { value, record }: { value: Redacted; record: KeyRecord | undefined },
): Promise<string[]> {
  if (record?.state === "active" && record.flag === undefined) return [];
  const shown = record === undefined ? "gone" : (record.flag ?? record.state);
  const dead = new RotationFailure(
    "KeyRejected",
    `key ${id} for ${name} is ${shown}: it is not installed, start again`,
  );
  if (record?.state === "revoked" || record?.state === "expired") throw dead;
  const answer = await provider.tryKey(value);
  const verdict = classifyAnswer(provider.name, answer);
  if (verdict === "key refused") throw dead;
  if (!provesKey(verdict)) {
    throw new RotationFailure(
      "Unavailable",
      `${provider.name} could not try ${id}, which it shows as ${shown}: ${verdict}`,
      answer.retryAfterMs === undefined ? {} : { retryAfterMs: answer.retryAfterMs },
    );
  }
  if (record !== undefined) return [`${provider.name} takes ${id}, though it shows it so: ${shown}`];
  throw new RotationFailure(
    "NotYetPropagated",
    `${provider.name} takes ${id} and does not show it: it is looked up again`,
  );
}

/** Longest life first, halved while the organisation refuses it; read back, since only what the provider says counts. */
async function giveFinalLife(
  access: SlotAccess,
  provider: ManagedProvider,
  { key, value }: { key: NewKey; value: Redacted },
): Promise<FinalLife> {
  const { name, policy } = access;
  const { id } = key;
  const warnings = await doubtState(access, key, { value, record: await provider.findKey(id) });
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
  return { warnings, ...(expiresAt === undefined ? {} : { expiresAt }) };
}

/** The mark that is written into a secret's comment beside the key's value. */
function markOf({ id, fingerprint }: NewKey, rotationId: string, at: Date): string {
  return formatMark({ keyId: id, rotationId, fingerprint, at });
}

function installedAt(at: Date, expiresAt: Date | undefined): Installed {
  return { at: at.toISOString(), ...(expiresAt === undefined ? {} : { expiresAt: expiresAt.toISOString() }) };
}

/** What a list does not show may have been made a moment ago: it is looked for twice. */
async function removeAliases({ place, secrets, secondLookMs }: SlotAccess, rotationId: string): Promise<void> {
  const unseen: string[] = [];
  for (const alias of Object.values(rotationAliases(rotationId))) {
    if (!(await secrets.remove({ ...place, alias }))) unseen.push(alias);
  }
  if (unseen.length > 0) await Context.current().sleep(secondLookMs);
  for (const alias of unseen) await secrets.remove({ ...place, alias });
}
