import { ApplicationFailure, CancellationScope, condition, isCancellation } from "@temporalio/workflow";

import type { Compromised, CompromisedOrder, CutFailed } from "../../activities/contract.ts";
import { defined } from "../../domain/defined.ts";
import { inMs } from "../../domain/duration.ts";
import { cleanup, management } from "../groups.ts";
import { failureDetails, failureMessage, failureType } from "./failures.ts";
import { askToRevoke } from "./revoke-by-hand.ts";
import { withoutGivingUp } from "./revoke-for-good.ts";
import type { Rotation } from "./rotation.ts";

/** Shows the clocks of this key's emergency, where none are shown yet; a deadline that another slot brought is shown anew. */
export function startClocks(rotation: Rotation, keyId: string): void {
  const { record, clock, policy } = rotation;
  const told = clock.find(keyId);
  const revokeBy = clock.deadlineOf(keyId);
  if (record.clocks !== undefined && record.clocks.told === told?.at)
    Object.assign(record.clocks, defined({ revokeBy }));
  if (record.clocks !== undefined || told === undefined || revokeBy === undefined || policy === undefined) return;
  record.clocks = {
    told: told.at,
    installBy: new Date(Date.parse(told.at) + inMs(policy.emergency.installWithin)).toISOString(),
    revokeBy,
    ...(record.times.installed === undefined ? {} : { installed: record.times.installed }),
  };
}

/** Looks at the keys, at their providers and in all slots, and takes them into custody. Fails where nobody knows one. */
export async function lookUpCompromised(
  rotation: Rotation,
  order: Pick<CompromisedOrder, "keyIds" | "leaked" | "providerOnly">,
): Promise<Compromised[]> {
  const found = await management.findCompromised({ ...rotation.of, ...order });
  for (const key of found) {
    const { custody } = rotation.record;
    const before = rotation.compromised.seen.get(key.id);
    if (order.providerOnly !== true || before === undefined) saw(rotation, key);
    if (order.providerOnly !== true) rotation.compromised.lookedAt.add(key.id);
    custody.take(key.id, "compromised", custody.has(key.id) ? {} : { given: true });
    custody.reopen(key.id);
    if (key.state !== "dead") continue;
    custody.settle(key.id, { fate: "ended", at: now(), seen: true });
    // Whoever ended it: where a slot serves it, requests fail.
    if ((failingSlots(rotation, key.id) ?? []).length > 0) noteOutage(rotation, key.id, now());
  }
  return found;
}

/**
 * Notes what a look at a key told. A slot that was seen to hold it and cannot be told now holds it still, for all anybody
 * knows. Where slots are seen to hold one that was cut, requests fail there since.
 */
export function saw(rotation: Rotation, key: Compromised): void {
  const { seen, cut } = rotation.compromised;
  const before = seen.get(key.id)?.heldBy ?? [];
  const still = key.unknown.map(({ slot }) => slot).filter((slot) => before.includes(slot));
  seen.set(key.id, { ...key, heldBy: [...new Set([...key.heldBy, ...still])] });
  const fail = cut.has(key.id) && (failingSlots(rotation, key.id) ?? []).length > 0;
  if (fail) noteOutage(rotation, key.id, rotation.record.timesOf(key.id).cut ?? now());
}

/** The slot was seen to answer with the new key: what was seen of it before is of no account. */
export function servesNewKey({ record, of, compromised: { seen } }: Rotation, at: string | undefined): void {
  record.verified(at);
  for (const [id, key] of seen) {
    if (id !== record.newKey?.id) seen.set(id, { ...key, heldBy: key.heldBy.filter((slot) => slot !== of.slot) });
  }
}

/** Cuts a compromised key now, whoever uses it. A cut says something of a key that was seen: it is looked up first. */
export async function cutNow(rotation: Rotation, keyId: string, { patiently }: { patiently: boolean }): Promise<void> {
  const { record } = rotation;
  if (record.custody.isEnded(keyId)) return;
  const cut = async (): Promise<string> => {
    if (!rotation.compromised.seen.has(keyId))
      await lookUpCompromised(rotation, { keyIds: [keyId], providerOnly: true });
    const { through = rotation.of.slot } = rotation.compromised.seen.get(keyId) ?? {};
    const sent = { at: record.now(), slots: failingSlots(rotation, keyId) };
    const { at, how } = await cleanup.cutKey({ ...rotation.of, keyId, through }).catch((error: unknown) => {
      // One that was stopped, or not answered, may have been made, whatever a later attempt was told.
      const isUntold = isCancellation(error) || failureType(error) === "Unavailable";
      const { mayBeCut = isUntold } = (failureDetails(error) ?? {}) as Partial<CutFailed>;
      if (mayBeCut) noteUnsure(rotation, keyId);
      throw error;
    });
    rotation.compromised.cutUnsure.delete(keyId);
    record.keyReached(keyId, "cut", at);
    rotation.compromised.cut.add(keyId);
    noteOutage(rotation, keyId, at);
    // Answered when slots had moved already, though it may have been made when it was asked for.
    const { verified = at } = record.times;
    record.outages.was(sent.slots, { from: sent.at, until: verified > sent.at ? verified : at });
    if (rotation.compromised.lookedAt.has(keyId)) warnOfDoubt(rotation, keyId);
    if (how !== "disabled") record.custody.settle(keyId, { fate: "ended", at, seen: how === "dead already" });
    return `${keyId} ${how}`;
  };
  const act = (): Promise<string> => unlessHandedOver(rotation, cut, keyId);
  await rotation.step("cutKey", () => (patiently ? withoutGivingUp(rotation, keyId, act) : act()));
}

/** Ends a compromised key for good, in the order of the steps: first switched off at once where it was cut before its time. */
export async function endCompromised(rotation: Rotation, keyId: string): Promise<void> {
  return once(rotation, keyId, () => endForGood(rotation, keyId));
}

/** What the clock does at the deadline: cuts the key whatever the state of the rest. Never rejects. */
export async function cutAtDeadline(rotation: Rotation, keyId: string): Promise<void> {
  const { byHand } = rotation.found ?? {};
  if (byHand !== undefined) {
    rotation.record.warn(`the deadline for ${keyId} came, and only a person can cut it: ${byHand.missing}`);
    return;
  }
  try {
    await once(rotation, keyId, async () => {
      await cutNow(rotation, keyId, { patiently: true });
      await endForGood(rotation, keyId);
    });
  } catch (error) {
    // Nobody else stops it: the run that follows cuts it.
    if (isCancellation(error)) return;
    if (isGone(error)) {
      rotation.record.custody.settle(keyId, { fate: "named", why: `nothing was cut: ${failureMessage(error)}` });
    }
    rotation.record.warn(`${keyId} could not be cut at its deadline: ${failureMessage(error)}`);
  }
}

/** Ends the key by its provider's API; where nobody of ours can, asks a person to. */
export async function endOrAsk(rotation: Rotation, keyId: string): Promise<void> {
  const { found } = rotation;
  if (found?.byHand === undefined) return endCompromised(rotation, keyId);
  await rotation.step("revokeKey", () => askToRevoke(rotation, keyId, found));
}

/** A look at the key and who holds it. */
export async function lookBeside(rotation: Rotation, keyId: string): Promise<void> {
  return whileItMatters(rotation, keyId, async () => {
    await lookUpCompromised(rotation, { keyIds: [keyId] });
  });
}

/** Asks about the key; neither its deadline nor a hand-over waits for the answer. What goes wrong is a warning. */
export async function whileItMatters(rotation: Rotation, keyId: string, ask: () => Promise<void>): Promise<void> {
  const scope = new CancellationScope();
  const asked = scope.run(ask).catch((error: unknown) => {
    if (isCancellation(error)) return;
    rotation.record.warn(`who holds ${keyId} could not be asked: ${failureMessage(error)}`);
  });
  await Promise.race([asked, condition(() => isPastLooking(rotation, keyId))]);
  scope.cancel();
  await asked;
}

/** What brings a key back into use. Where it is called compromised meanwhile, attempts that are under way are stopped. */
export function unlessCompromised<Result>(
  rotation: Rotation,
  keyId: string,
  bringBack: () => Promise<Result>,
  scope?: CancellationScope,
): Promise<Result> {
  return stoppedOnce(() => rotation.isCompromised(keyId), bringBack, scope);
}

/**
 * What the run that follows does again: attempts that are under way are stopped when this one hands over. What is done to a
 * key that is due goes on until nothing else keeps this run from it: until then the deadline is its own.
 */
export function unlessHandedOver<Result>(
  rotation: Rotation,
  work: () => Promise<Result>,
  keyId?: string,
): Promise<Result> {
  const isLate = (): boolean => keyId !== undefined && rotation.clock.isDue(keyId) && !rotation.passage.ending;
  return stoppedOnce(() => rotation.handsOver && !isLate(), work);
}

/** Does the work, and stops its attempts once it is so. */
async function stoppedOnce<Result>(
  isSo: () => boolean,
  work: () => Promise<Result>,
  scope: CancellationScope = new CancellationScope(),
): Promise<Result> {
  let isDone = false;
  void CancellationScope.nonCancellable(() => condition(() => isDone || isSo())).then(() => {
    if (!isDone) scope.cancel();
  });
  try {
    return await scope.run(work);
  } finally {
    isDone = true;
  }
}

/** Whether nothing is left to wait for: the key is settled, due, called off, or goes with a hand-over. */
export function isOver(rotation: Rotation, keyId: string): boolean {
  return rotation.clock.isDue(keyId) || isPastLooking(rotation, keyId);
}

/** The same, but that a key which policy holds past its deadline is still looked at: unheld, it is ended. */
export function isPastLooking(rotation: Rotation, keyId: string): boolean {
  return (
    rotation.handsOver ||
    isCutNow(rotation, keyId) ||
    rotation.clock.calledOff(keyId) !== undefined ||
    rotation.record.custody.find(keyId)?.fate !== undefined
  );
}

/** Whether the key's deadline has come, and it is ended whoever holds it. */
function isCutNow({ clock }: Rotation, keyId: string): boolean {
  return clock.isDue(keyId) && clock.atDeadlineOf(keyId) === "revoke";
}

/** The slots whose edges may still send the key that was there before their last write, and for how long yet. */
export function stillLeaving(rotation: Rotation, keyId: string): { slot: string; leftMs: number }[] {
  const left = rotation.compromised.seen.get(keyId)?.left ?? [];
  // What this run's own write replaced is known: see `staysHere`.
  const isOwn = (slot: string): boolean => slot === rotation.of.slot && rotation.record.times.installed !== undefined;
  return left
    .filter(({ slot }) => !isOwn(slot))
    .map(({ slot, until }) => ({ slot, leftMs: Date.parse(until) - Date.now() }))
    .concat({ slot: rotation.of.slot, leftMs: leftHereMs(rotation, keyId) })
    .filter(({ leftMs }) => leftMs > 0);
}

/** How long this slot's edges may send a key that was in it before, and was replaced by nothing of this run. */
function leftHereMs(rotation: Rotation, keyId: string): number {
  const { policy, swap, found, record } = rotation;
  const isGone = found?.held.id !== keyId && record.times.installed === undefined;
  if (policy === undefined || swap.heldSeenAt === undefined || !swap.given.has(keyId) || !isGone) return 0;
  return swap.heldSeenAt + inMs(policy.propagationWait) + inMs(policy.cacheInvalidationWait) - Date.now();
}

/** Why the key is not ended now: slots hold it, or may; undefined if none does. */
export function whyHeldBack(rotation: Rotation, keyId: string): string | undefined {
  const seen = rotation.compromised.seen.get(keyId);
  if (seen === undefined || !rotation.compromised.lookedAt.has(keyId)) return "who holds it could not be looked at";
  const holders = [...new Set([...(staysHere(rotation, keyId) ? [rotation.of.slot] : []), ...seen.heldBy])];
  const untold = seen.unknown.map(({ slot }) => slot).filter((slot) => !holders.includes(slot));
  const leaving = stillLeaving(rotation, keyId).map(({ slot }) => slot);
  const reasons = [
    ...(holders.length === 0 ? [] : [`${holders.join(", ")} holds it`]),
    ...(untold.length === 0 ? [] : [`whether ${untold.join(", ")} holds it cannot be told`]),
    ...(leaving.length === 0 ? [] : [`edges may still send it for ${leaving.join(", ")}`]),
  ];
  return reasons.length === 0 ? undefined : reasons.join("; ");
}

/** The slot's own key is held until the new one was proven there and the caches dropped the old. */
function staysHere({ found, swap: { cachesOverAt, given, heldSeenAt }, record }: Rotation, keyId: string): boolean {
  if (cachesOverAt !== 0) return false;
  if (found?.held.id === keyId) return true;
  // A key that was put in and replaced again: its edges may still send it. See `stillLeaving` where this run replaced none.
  const isReplaced = record.times.installed !== undefined || heldSeenAt === undefined;
  return given.has(keyId) && keyId !== record.newKey?.id && isReplaced;
}

/** Ends a key that no slot holds. False where one was seen to hold it by the time a refused try was repeated. */
export async function endUnheld(rotation: Rotation, keyId: string): Promise<boolean> {
  try {
    await endCompromised(rotation, keyId);
    return true;
  } catch (error) {
    if (failureType(error) === "SlotChanged") return false;
    throw error;
  }
}

/** Fails with `SlotChanged` where a slot holds the key that is neither cut nor due. */
async function requireUnheld(rotation: Rotation, keyId: string): Promise<void> {
  if (rotation.compromised.cut.has(keyId) || isCutNow(rotation, keyId)) return;
  await lookBeside(rotation, keyId);
  const holders = rotation.compromised.seen.get(keyId)?.heldBy ?? [];
  if (holders.length === 0 || isCutNow(rotation, keyId)) return;
  throw ApplicationFailure.nonRetryable(`${holders.join(", ")} holds ${keyId} by now`, "SlotChanged");
}

async function endForGood(rotation: Rotation, keyId: string): Promise<void> {
  const { record } = rotation;
  if (record.custody.isEnded(keyId)) {
    if (record.timesOf(keyId).revoked === undefined) record.keyReached(keyId, "revoked", endedAt(rotation, keyId));
    return;
  }
  let tries = 0;
  const end = async (): Promise<string> => {
    if (!rotation.compromised.seen.has(keyId))
      await lookUpCompromised(rotation, { keyIds: [keyId], providerOnly: true });
    if (tries++ > 0) await requireUnheld(rotation, keyId);
    const { through = rotation.of.slot } = rotation.compromised.seen.get(keyId) ?? {};
    const order = { ...rotation.of, keyId, through, ...defined({ unheldUntil: unheldUntil(rotation, keyId) }) };
    const { at, seen, note } = await cleanup.endCompromisedKey(order);
    record.keyReached(keyId, "revoked", at);
    record.custody.settle(keyId, { fate: "ended", at, seen });
    return note;
  };
  await rotation.step("revokeKey", () =>
    withoutGivingUp(rotation, keyId, () => unlessHandedOver(rotation, end, keyId)),
  );
}

/** Up to when the key is ended only while no slot holds it; undefined where that does not count. */
function unheldUntil(rotation: Rotation, keyId: string): string | undefined {
  const { clock, compromised } = rotation;
  if (compromised.cut.has(keyId) || isCutNow(rotation, keyId)) return undefined;
  return clock.atDeadlineOf(keyId) === "hold" ? never : clock.deadlineOf(keyId);
}

const never = "9999-12-31T23:59:59Z";

function endedAt({ record: { custody } }: Rotation, keyId: string): string {
  const fate = custody.find(keyId)?.fate;
  return fate?.fate === "ended" ? fate.at : now();
}

/** Nobody can tell whether a cut was made, until somebody looks. */
function noteUnsure(rotation: Rotation, keyId: string): void {
  rotation.compromised.cutUnsure.add(keyId);
  noteOutage(rotation, keyId, rotation.record.now());
}

/** From here on requests may fail where a slot still serves the key; where is left open while nobody could look. */
function noteOutage(rotation: Rotation, keyId: string, at: string): void {
  rotation.record.outages.open(failingSlots(rotation, keyId), at);
}

/** The slots that still serve the key, this one included; undefined if nobody could look. */
function failingSlots(rotation: Rotation, keyId: string): string[] | undefined {
  const { record, of, found } = rotation;
  const holders = rotation.compromised.seen.get(keyId)?.heldBy ?? [];
  const isNew = keyId === record.newKey?.id && record.custody.find(keyId)?.given === true;
  const isHeld = found?.held.id === keyId && record.times.verified === undefined;
  const here = isNew || isHeld || holders.includes(of.slot);
  if (!here && !rotation.compromised.lookedAt.has(keyId)) return undefined;
  return [...(here ? [of.slot] : []), ...holders.filter((slot) => slot !== of.slot)];
}

/** A write that was not answered may have put a key into the slot after it was ended: then requests fail there. */
export async function lookForLateWrites(rotation: Rotation): Promise<void> {
  const { record, of, swap, compromised } = rotation;
  const keyIds = [...swap.unanswered].filter((id) => record.custody.isEnded(id));
  if (keyIds.length === 0) return;
  try {
    for (const { keyId, yes, unknown } of await management.lookAtHolders({ ...of, keyIds })) {
      const seen = compromised.seen.get(keyId);
      if (seen === undefined) continue;
      saw(rotation, { ...seen, heldBy: yes, unknown });
      if (yes.includes(of.slot)) noteOutage(rotation, keyId, now());
    }
  } catch (error) {
    record.unknown(`whether ${of.slot} holds ${keyIds.join(", ")}`);
    record.warn(`what ${of.slot} holds could not be looked at again: ${failureMessage(error)}`);
  }
}

/**
 * Keys that were cut before anybody looked may be held by no slot at all, or by others than was thought. Slots that were
 * seen to hold one before, or were written so lately that they may have, failed until now at least.
 */
export function correctOutage(rotation: Rotation): void {
  const { record, policy } = rotation;
  const { cut, cutUnsure, seen } = rotation.compromised;
  const { outages } = record;
  const outage = outages.shown;
  if (outage === undefined || policy === undefined) return;
  const keyIds = [...cut, ...cutUnsure];
  const ended = [...seen.keys()].filter((id) => record.custody.isEnded(id));
  const looked = [...new Set([...keyIds, ...ended])].map((id) => failingSlots(rotation, id));
  if (keyIds.length === 0 || looked.includes(undefined)) return;
  const failing = looked.flatMap((slots) => slots ?? []);
  for (const id of keyIds) warnOfDoubt(rotation, id);
  const written = keyIds.flatMap((id) => seen.get(id)?.left ?? []).map(({ slot }) => slot);
  const edgesMs = inMs(policy.propagationWait) + inMs(policy.cacheInvalidationWait);
  const isLong = Date.now() - Date.parse(outage.from) >= edgesMs;
  const slots = [...failing, ...written];
  if (outages.isUntold && slots.length === 0 && isLong) {
    record.unknown(`which slots served ${keyIds.join(", ")} when it was cut`);
  } else {
    outages.locate(slots);
  }
  outages.open(failing, outage.from);
  outages.was(written, { from: outage.from, until: record.now() });
  const over = outages.openSlots.filter((slot) => slot === undefined || !failing.includes(slot));
  outages.close(over, record.now());
}

function warnOfDoubt({ record, compromised }: Rotation, keyId: string): void {
  const doubted = (compromised.seen.get(keyId)?.unknown ?? []).map(({ slot }) => slot).join(", ");
  if (doubted !== "")
    record.warn(`requests may fail in ${doubted}: whether it holds ${keyId}, which was cut, cannot be told`);
}

/** One end of a key at a time: whoever comes second waits for the first. */
async function once(rotation: Rotation, keyId: string, end: () => Promise<void>): Promise<void> {
  const running = rotation.compromised.ends.get(keyId);
  if (running !== undefined) return running;
  const ending = end().finally(() => rotation.compromised.ends.delete(keyId));
  rotation.compromised.ends.set(keyId, ending);
  return ending;
}

function isGone(error: unknown): boolean {
  return failureType(error) === "KeyUnknown";
}

function now(): string {
  return new Date().toISOString();
}
