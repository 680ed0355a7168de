import { WorkflowExecutionAlreadyStartedError } from "@temporalio/common";
import {
  ApplicationFailure,
  CancellationScope,
  condition,
  isCancellation,
  ParentClosePolicy,
  startChild,
} from "@temporalio/workflow";

import type { Compromised, CompromisedOrder } from "../../activities/contract.ts";
import { slotWorkflowId } from "../../domain/rotation.ts";
import { cleanup, management } from "../groups.ts";
import { escalateUpdate } from "../messages.ts";
import { failureMessage, failureType } from "./failures.ts";
import { askToRevoke } from "./revoke-by-hand.ts";
import { withoutGivingUp } from "./revoke-for-good.ts";
import type { Rotation } from "./rotation.ts";

/** How often a slot is asked to move at most, where its run ended and it still holds the key. */
const mostAsks = 3;
/** How long between two looks at who holds a key, first and at most. */
const firstLookMs = 30_000;
const longestLookMs = 300_000;

/** Shows the clocks of this key's emergency, where none are shown yet. */
export function startClocks(rotation: Rotation, keyId: string): void {
  const { record, clock, policy } = rotation;
  const told = clock.find(keyId);
  const revokeBy = clock.deadlineOf(keyId);
  if (record.clocks !== undefined || told === undefined || revokeBy === undefined || policy === undefined) return;
  record.clocks = {
    told: told.at,
    installBy: new Date(Date.parse(told.at) + rotation.ms(policy.emergency.installWithin)).toISOString(),
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
    const before = rotation.seen.get(key.id);
    rotation.seen.set(key.id, order.providerOnly === true && before !== undefined ? before : key);
    if (order.providerOnly !== true) rotation.lookedAt.add(key.id);
    custody.take(key.id, "compromised", custody.has(key.id) ? {} : { given: true });
    custody.reopen(key.id);
    if (key.state === "dead") custody.settle(key.id, { fate: "ended", at: now(), seen: true });
  }
  return found;
}

/** Cuts a compromised key now, whoever uses it. A cut says something of a key that was seen: it is looked up first. */
export async function cutNow(rotation: Rotation, keyId: string, { patiently }: { patiently: boolean }): Promise<void> {
  const { record } = rotation;
  if (record.custody.isEnded(keyId)) return;
  const cut = async (): Promise<string> => {
    if (!rotation.seen.has(keyId)) await lookUpCompromised(rotation, { keyIds: [keyId], providerOnly: true });
    const { through = rotation.of.slot } = rotation.seen.get(keyId) ?? {};
    const { at, how } = await cleanup.cutKey({ ...rotation.of, keyId, through });
    record.reached("cut", at);
    rotation.cut.add(keyId);
    noteOutage(rotation, keyId, at);
    if (how !== "disabled") record.custody.settle(keyId, { fate: "ended", at, seen: how === "dead already" });
    return `${keyId} ${how}`;
  };
  await rotation.step("cutKey", () => (patiently ? withoutGivingUp(rotation, keyId, cut) : cut()));
}

/** Ends a compromised key for good, in the order of the steps: first switched off at once where it was cut before its time. */
export async function endCompromised(rotation: Rotation, keyId: string): Promise<void> {
  return once(rotation, keyId, () => endForGood(rotation, keyId));
}

/** What the clock does at the deadline: cuts the key whatever the state of the rest. Never rejects. */
export async function cutAtDeadline(rotation: Rotation, keyId: string): Promise<void> {
  if (rotation.cutBy !== undefined) return;
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
    if (isGone(error)) {
      rotation.record.custody.settle(keyId, { fate: "named", why: `nothing was cut: ${failureMessage(error)}` });
    }
    rotation.record.warn(`${keyId} could not be cut at its deadline: ${failureMessage(error)}`);
  }
}

/**
 * Moves every other slot off the key, then ends it. At its deadline its clock cuts it, whatever still holds it; where
 * policy says hold, it is named instead. Fails where a person called the emergency off.
 */
export async function endWhenMoved(rotation: Rotation, keyId: string): Promise<void> {
  const { record, clock } = rotation;
  if (rotation.cut.has(keyId)) return endCut(rotation, keyId);
  await moveOthers(rotation, keyId);
  if (rotation.handsOver || record.custody.find(keyId)?.fate !== undefined) return;
  const who = clock.calledOff(keyId);
  if (who !== undefined) throw ApplicationFailure.nonRetryable(who, "Aborted");
  const holders = whoHoldsBack(rotation, keyId);
  if (holders === undefined) return endOrAsk(rotation, keyId);
  const policy = await rotation.readPolicy();
  if (!clock.isDue(keyId)) return; // the slot's own: the exit waits for its clock
  if (policy.emergency.atDeadline === "hold") {
    const why = `it is compromised and ALIVE: ${holders} holds it, and policy says to hold it past its deadline`;
    record.custody.settle(keyId, { fate: "named", why });
    return;
  }
  await condition(() => rotation.handsOver || !rotation.ends.has(keyId));
}

/** What was cut before its slots had moved: they are moved now, and it is ended for good without waiting for them. */
async function endCut(rotation: Rotation, keyId: string): Promise<void> {
  await startWhereCut(rotation, keyId);
  await endOrAsk(rotation, keyId);
}

/** Moves the other slots while this one moves: they are not to wait for it, nor to fail with it. */
export async function moveMeanwhile(rotation: Rotation, keyId: string): Promise<void> {
  return rotation.cut.has(keyId) ? startWhereCut(rotation, keyId) : moveOthers(rotation, keyId);
}

/** Starts emergencies in the other slots that hold a key which was cut first: requests fail there. */
async function startWhereCut(rotation: Rotation, keyId: string): Promise<void> {
  if (!rotation.cut.has(keyId) || rotation.cutBy !== undefined) return;
  if (!rotation.lookedAt.has(keyId)) await lookBeside(rotation, keyId);
  for (const slot of rotation.seen.get(keyId)?.heldBy ?? []) {
    if (slot === rotation.of.slot || rotation.started.has(slot)) continue;
    await moveSlot(rotation, { slot, keyId, moving: new Set() });
  }
}

/** Ends the key by its provider's API; where nobody of ours can, asks a person to. */
export async function endOrAsk(rotation: Rotation, keyId: string): Promise<void> {
  const { found } = rotation;
  if (found?.byHand === undefined) return endCompromised(rotation, keyId);
  await rotation.step("revokeKey", () => askToRevoke(rotation, keyId, found));
}

/**
 * Starts an emergency in every other slot that holds the key, or says so to the run that is on there, and looks again
 * until none holds it. Returns at the key's deadline at the latest, when its clock cuts it.
 */
export async function moveOthers(rotation: Rotation, keyId: string): Promise<void> {
  const running = rotation.moves.get(keyId);
  if (running !== undefined) return running;
  const moving = moveEach(rotation, keyId).finally(() => rotation.moves.delete(keyId));
  rotation.moves.set(keyId, moving);
  return moving;
}

async function moveEach(rotation: Rotation, keyId: string): Promise<void> {
  const asked = new Map<string, number>();
  const moving = new Set<string>();
  if (rotation.cutBy !== undefined) return;
  if (!rotation.lookedAt.has(keyId)) await lookBeside(rotation, keyId);
  for (let pauseMs = firstLookMs; ; pauseMs = Math.min(pauseMs * 2, longestLookMs)) {
    const { heldBy = [], unknown = [] } = rotation.seen.get(keyId) ?? {};
    const others = heldBy.filter((slot) => slot !== rotation.of.slot);
    const untold = unknown.filter(({ slot }) => slot !== rotation.of.slot);
    if ((others.length === 0 && untold.length === 0) || isOver(rotation, keyId)) return;
    for (const slot of others) {
      const asks = asked.get(slot) ?? 0;
      if (moving.has(slot) || asks >= mostAsks) continue;
      asked.set(slot, asks + 1);
      await moveSlot(rotation, { slot, keyId, moving });
    }
    const names = [
      ...others,
      ...untold.map(({ slot, why }) => `${slot} (it cannot be told whether it holds it: ${why})`),
    ];
    const before = moving.size;
    await rotation.waiting(
      {
        for: `${names.join(", ")} to move off ${keyId}`,
        until: rotation.clock.deadlineOf(keyId) ?? rotation.deadlineIn(pauseMs),
        then:
          rotation.policy?.emergency.atDeadline === "hold"
            ? "it stays alive (policy: atDeadline hold)"
            : "it is cut all the same, and requests fail where it is still held",
      },
      () => condition(() => moving.size < before || isOver(rotation, keyId), pauseMs, { summary: "other slots" }),
    );
    if (isOver(rotation, keyId)) return noteUnlooked(rotation, keyId);
    await lookAgain(rotation, keyId);
  }
}

/** A look at the key and who holds it; neither the deadline nor a hand-over waits for it. */
export async function lookBeside(rotation: Rotation, keyId: string): Promise<void> {
  const scope = new CancellationScope();
  const look = scope
    .run(() => lookUpCompromised(rotation, { keyIds: [keyId] }))
    .then(
      () => undefined,
      (error: unknown) => {
        if (!isCancellation(error))
          rotation.record.warn(`who holds ${keyId} could not be asked: ${failureMessage(error)}`);
      },
    );
  await Promise.race([look, condition(() => isOver(rotation, keyId))]);
  scope.cancel();
  await look;
}

/** Asks who holds the key now. A look that fails leaves what was seen before. */
async function lookAgain(rotation: Rotation, keyId: string): Promise<void> {
  const scope = new CancellationScope();
  const look = scope
    .run(() => management.lookAtHolders({ ...rotation.of, keyIds: [keyId] }))
    .then(
      ([holders]) => {
        const seen = rotation.seen.get(keyId);
        if (holders === undefined || seen === undefined) return;
        rotation.seen.set(keyId, { ...seen, heldBy: holders.yes, unknown: holders.unknown });
      },
      (error: unknown) => {
        if (!isCancellation(error))
          rotation.record.warn(`who holds ${keyId} could not be asked: ${failureMessage(error)}`);
      },
    );
  // A look never delays a cut.
  await Promise.race([look, condition(() => isOver(rotation, keyId))]);
  scope.cancel();
  await look;
}

/** Whether nothing is left to wait for: the key is settled, due, called off, or goes with a hand-over. */
function isOver(rotation: Rotation, keyId: string): boolean {
  return (
    rotation.handsOver ||
    rotation.clock.isDue(keyId) ||
    rotation.clock.calledOff(keyId) !== undefined ||
    rotation.record.custody.find(keyId)?.fate !== undefined
  );
}

function noteUnlooked(rotation: Rotation, keyId: string): void {
  for (const { slot } of rotation.seen.get(keyId)?.unknown ?? []) {
    rotation.record.unknown(`whether ${slot} holds ${keyId}`);
  }
}

/** The slots that keep the key from being ended now, since they hold it or may; undefined if none does. */
export function whoHoldsBack(rotation: Rotation, keyId: string): string | undefined {
  const seen = rotation.seen.get(keyId);
  if (seen === undefined || !rotation.lookedAt.has(keyId)) return "a slot that could not be looked at";
  const own = rotation.of.slot;
  const elsewhere = [...seen.heldBy, ...seen.unknown.map(({ slot }) => slot)].filter((slot) => slot !== own);
  const holders = holdsHere(rotation, keyId, seen) ? [own, ...elsewhere] : elsewhere;
  return holders.length === 0 ? undefined : [...new Set(holders)].join(", ");
}

/** The slot's own key is held until the new one was proven there and the caches dropped the old. */
function holdsHere({ found, of, cachesOverAt }: Rotation, keyId: string, seen: Compromised): boolean {
  if (found?.held.id === keyId) return cachesOverAt === 0;
  return seen.heldBy.includes(of.slot) || seen.unknown.some(({ slot }) => slot === of.slot);
}

function hasMoved({ record }: Rotation): boolean {
  return record.times.verified !== undefined;
}

/** One slot: an emergency there that leaves the cut to this one, or the word to the run that is on. */
async function moveSlot(
  rotation: Rotation,
  { slot, keyId, moving }: { slot: string; keyId: string; moving: Set<string> },
): Promise<void> {
  const { of, record } = rotation;
  const workflowId = slotWorkflowId(slot);
  rotation.started.add(slot);
  const reason = `${keyId}, which ${slot} holds too, is compromised`;
  try {
    const child = await startChild("emergencyRotation", {
      workflowId,
      args: [{ slot, compromisedKeyIds: [keyId], strategy: "swap-first", cutBy: of.slot, reason }],
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: `emergency rotation of ${slot}`,
    });
    moving.add(slot);
    // Its end is only a reason to look again.
    void child.result().then(
      () => moving.delete(slot),
      (error: unknown) => {
        moving.delete(slot);
        if (!isCancellation(error)) record.warn(`the emergency of ${slot} ended: ${failureMessage(error)}`);
      },
    );
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) {
      record.warn(`${slot} holds ${keyId} too, and no emergency could be started there: ${failureMessage(error)}`);
      return;
    }
    try {
      const arg = { compromisedKeyId: keyId, by: `the emergency of ${of.slot}`, why: reason };
      await management.updateRun({ workflowId, update: escalateUpdate.name, arg });
    } catch (refused) {
      record.warn(`${slot} holds ${keyId} too, and the run there did not take it: ${failureMessage(refused)}`);
    }
  }
}

async function endForGood(rotation: Rotation, keyId: string): Promise<void> {
  const { record } = rotation;
  if (record.custody.isEnded(keyId)) {
    if (record.times.revoked === undefined) record.reached("revoked", endedAt(rotation, keyId));
    return;
  }
  await rotation.step("revokeKey", () =>
    withoutGivingUp(rotation, keyId, async () => {
      if (!rotation.seen.has(keyId)) await lookUpCompromised(rotation, { keyIds: [keyId], providerOnly: true });
      const { through = rotation.of.slot } = rotation.seen.get(keyId) ?? {};
      const { at, seen, note } = await cleanup.endCompromisedKey({ ...rotation.of, keyId, through });
      record.reached("revoked", at);
      record.custody.settle(keyId, { fate: "ended", at, seen });
      return note;
    }),
  );
}

function endedAt({ record: { custody } }: Rotation, keyId: string): string {
  const fate = custody.find(keyId)?.fate;
  return fate?.fate === "ended" ? fate.at : now();
}

/** From here on requests may fail where a slot still serves the key. */
function noteOutage(rotation: Rotation, keyId: string, at: string): void {
  const slots = failingSlots(rotation, keyId);
  if (slots.length > 0) rotation.record.outage ??= { from: at, slots };
}

function failingSlots(rotation: Rotation, keyId: string): string[] {
  const { record, of, seen, found } = rotation;
  const isHeld = found === undefined ? !rotation.lookedAt.has(keyId) : found.held.id === keyId && !hasMoved(rotation);
  const isNew = keyId === record.newKey?.id && record.custody.find(keyId)?.given === true;
  const holders = (seen.get(keyId)?.heldBy ?? []).filter((slot) => slot !== of.slot);
  return [...(isHeld || isNew ? [of.slot] : []), ...holders];
}

/** A key that was cut before anybody looked may be held by no slot at all, or by others than was thought. */
export function correctOutage(rotation: Rotation, compromised: Compromised[]): void {
  const { outage } = rotation.record;
  if (outage === undefined) return;
  const cut = compromised.filter(({ id }) => rotation.cut.has(id));
  const slots = [...new Set(cut.flatMap(({ id }) => failingSlots(rotation, id)))];
  if (slots.length === 0) rotation.record.outage = undefined;
  else outage.slots = slots;
}

/** One end of a key at a time: whoever comes second waits for the first. */
async function once(rotation: Rotation, keyId: string, end: () => Promise<void>): Promise<void> {
  const running = rotation.ends.get(keyId);
  if (running !== undefined) return running;
  const ending = end().finally(() => rotation.ends.delete(keyId));
  rotation.ends.set(keyId, ending);
  return ending;
}

function isGone(error: unknown): boolean {
  return failureType(error) === "KeyUnknown";
}

function now(): string {
  return new Date().toISOString();
}
