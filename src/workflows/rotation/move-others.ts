import { WorkflowExecutionAlreadyStartedError } from "@temporalio/common";
import { condition, isCancellation, ParentClosePolicy, startChild } from "@temporalio/workflow";

import { defined } from "../../domain/defined.ts";
import { inMs } from "../../domain/duration.ts";
import type { EscalationAnswer } from "../../domain/escalation.ts";
import type { Policy } from "../../domain/policy.ts";
import { type RotationResult, slotWorkflowId } from "../../domain/rotation.ts";
import { management } from "../groups.ts";
import { escalateUpdate } from "../messages.ts";
import { isOver, lookBeside, saw, startClocks, stillLeaving, unlessHandedOver, whileItMatters } from "./compromised.ts";
import { failureMessage, failureType } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/** How often a slot is asked to move at most, where its run ended and it still holds the key. */
const mostAsks = 3;
/** How long between two looks at who holds a key at most, in waits for propagation; the first two are one wait apart. */
const longestLook = 10;

/** However short the policy's wait is. */
const soonestLookMs = 1_000;

/** What is known of the other slots that hold one key, or held it. */
interface Movers {
  /** How often each was asked to move. */
  asked: Map<string, number>;
  /** Those whose emergency of ours runs. */
  moving: Set<string>;
  /** Those whose emergency ended with a new key that served, its caches waited for. */
  moved: Set<string>;
  /** Those that were seen to hold it, and since when they were seen not to: their edges may send it for a while. */
  leftAt: Map<string, number>;
}

/**
 * Starts an emergency in every other slot that holds the key, or says so to the run that is on there, and looks again
 * until none holds it and their edges had time to drop it. Returns at the key's deadline at the latest, when its clock
 * cuts it. Whoever calls it for the same key waits for the same moves.
 */
export async function moveOthers(rotation: Rotation, keyId: string): Promise<void> {
  const running = rotation.compromised.moves.get(keyId);
  if (running !== undefined) return running;
  const moving = moveEach(rotation, keyId).finally(() => rotation.compromised.moves.delete(keyId));
  rotation.compromised.moves.set(keyId, moving);
  return moving;
}

/** Starts emergencies in the other slots that hold a key which was cut first: requests fail there. */
export async function startWhereCut(rotation: Rotation, keyId: string): Promise<void> {
  if (!rotation.compromised.cut.has(keyId)) return;
  if (!rotation.compromised.lookedAt.has(keyId)) await lookBeside(rotation, keyId);
  for (const slot of rotation.compromised.seen.get(keyId)?.heldBy ?? []) {
    if (slot === rotation.of.slot || rotation.compromised.started.has(slot)) continue;
    await moveSlot(rotation, { slot, keyId, movers: noMovers() });
  }
}

function noMovers(): Movers {
  return { asked: new Map(), moving: new Set(), moved: new Set(), leftAt: new Map() };
}

async function moveEach(rotation: Rotation, keyId: string): Promise<void> {
  if (rotation.cutBy !== undefined && !rotation.clock.has(keyId)) return;
  const movers = noMovers();
  const policy = await policyWhileItMatters(rotation, keyId);
  if (policy === undefined) return;
  const edgesMs = inMs(policy.propagationWait) + inMs(policy.cacheInvalidationWait);
  if (!rotation.compromised.lookedAt.has(keyId)) await lookBeside(rotation, keyId);
  if (await tellThoseWhoMayPutItIn(rotation, keyId)) await lookAgain(rotation, keyId);
  const firstLookMs = Math.max(inMs(policy.propagationWait), soonestLookMs);
  for (let pauseMs = firstLookMs; ; pauseMs = Math.min(pauseMs * 2, firstLookMs * longestLook)) {
    const { heldBy = [], unknown = [] } = rotation.compromised.seen.get(keyId) ?? {};
    const others = heldBy.filter((slot) => slot !== rotation.of.slot);
    const untold = unknown.filter(({ slot }) => slot !== rotation.of.slot);
    const leaving = [...noteLeft(movers, others, edgesMs), ...stillLeaving(rotation, keyId)];
    const isDone = others.length === 0 && untold.length === 0 && leaving.length === 0;
    if (isDone || isOver(rotation, keyId)) return;
    for (const slot of others) {
      const asks = movers.asked.get(slot) ?? 0;
      if (movers.moving.has(slot) || asks >= mostAsks) continue;
      movers.asked.set(slot, asks + 1);
      await moveSlot(rotation, { slot, keyId, movers });
    }
    const holders = [
      ...others,
      ...untold.map(({ slot, why }) => `${slot} (it cannot be told whether it holds it: ${why})`),
    ];
    const written = [...new Set(leaving.map(({ slot }) => slot))].join(", ");
    const waitsFor = [
      ...(holders.length === 0 ? [] : [`${holders.join(", ")} to move off ${keyId}`]),
      ...(written === "" ? [] : [`edges that may still send ${keyId} for ${written}, which was written a moment ago`]),
    ];
    const wereMoving = movers.moving.size;
    const soonestMs = Math.min(pauseMs, ...leaving.map(({ leftMs }) => leftMs));
    await rotation.waiting(
      {
        for: waitsFor.join("; "),
        until: rotation.clock.deadlineOf(keyId) ?? rotation.deadlineIn(pauseMs),
        then:
          rotation.clock.atDeadlineOf(keyId) === "hold"
            ? "it stays alive (policy: atDeadline hold)"
            : "it is cut all the same, and requests fail where it is still held or sent",
      },
      () =>
        condition(() => movers.moving.size < wereMoving || isOver(rotation, keyId), soonestMs, {
          summary: "other slots",
        }),
    );
    if (isOver(rotation, keyId)) return noteUnlooked(rotation, keyId);
    await lookAgain(rotation, keyId);
  }
}

/** Undefined where there is nothing to wait for any more before it could be read. */
async function policyWhileItMatters(rotation: Rotation, keyId: string): Promise<Policy | undefined> {
  if (rotation.policy !== undefined) return rotation.policy;
  return Promise.race([rotation.readPolicy(), condition(() => isOver(rotation, keyId)).then(() => undefined)]);
}

/** The slots that hold it no more and whose edges may still send it, and how long yet. */
function noteLeft(movers: Movers, holders: string[], edgesMs: number): { slot: string; leftMs: number }[] {
  for (const slot of holders) movers.leftAt.set(slot, NaN);
  for (const [slot, at] of movers.leftAt) {
    if (Number.isNaN(at) && !holders.includes(slot)) movers.leftAt.set(slot, Date.now());
  }
  return [...movers.leftAt]
    .map(([slot, at]) => ({ slot, leftMs: at + edgesMs - Date.now() }))
    .filter(({ slot, leftMs }) => leftMs > 0 && !movers.moved.has(slot));
}

/** Asks who holds the key now. A look that fails leaves what was seen before. */
export async function lookAgain(rotation: Rotation, keyId: string): Promise<void> {
  return whileItMatters(rotation, keyId, async () => {
    const [holders] = await management.lookAtHolders({ ...rotation.of, keyIds: [keyId], ...writtenBy(rotation) });
    const seen = rotation.compromised.seen.get(keyId);
    if (holders === undefined || seen === undefined) return;
    const { yes, unknown, left } = holders;
    saw(rotation, { ...seen, heldBy: yes, unknown, left });
  });
}

/**
 * A run of another slot may put the key in though nothing holds it now: one that made it, and one that replaced it just
 * now and would put it back. Such a run is told, and gives it up. Returns whether one was.
 */
async function tellThoseWhoMayPutItIn(rotation: Rotation, keyId: string): Promise<boolean> {
  const { madeFor, left = [] } = rotation.compromised.seen.get(keyId) ?? {};
  const slots = new Set([...(madeFor === undefined ? [] : [madeFor]), ...left.map(({ slot }) => slot)]);
  slots.delete(rotation.of.slot);
  let isTold = false;
  for (const slot of slots) {
    await whileItMatters(rotation, keyId, async () => {
      const running = await management.findRun({ workflowId: slotWorkflowId(slot) }).catch((error: unknown) => {
        if (failureType(error) === "SlotMissing") return undefined;
        throw error;
      });
      const isItsOwn = running?.progress?.keys.some(({ id, fate }) => id === keyId && fate === "open") === true;
      if (!isItsOwn) return;
      isTold = true;
      await tellRun(rotation, { slot, keyId, why: `${keyId}, which the run of ${slot} answers for, is compromised` });
    });
  }
  return isTold;
}

/** What this run wrote into its slot last: where no marks are kept, nothing else tells. */
function writtenBy({ record: { newKey, custody } }: Rotation): { installedKeyId?: string } {
  return newKey !== null && custody.find(newKey.id)?.given === true ? { installedKeyId: newKey.id } : {};
}

function noteUnlooked(rotation: Rotation, keyId: string): void {
  for (const { slot } of rotation.compromised.seen.get(keyId)?.unknown ?? []) {
    rotation.record.unknown(`whether ${slot} holds ${keyId}`);
  }
}

/** One slot: an emergency there that leaves the cut to this one, or the word to the run that is on. */
async function moveSlot(
  rotation: Rotation,
  { slot, keyId, movers }: { slot: string; keyId: string; movers: Movers },
): Promise<void> {
  const { of, record } = rotation;
  const workflowId = slotWorkflowId(slot);
  rotation.compromised.started.add(slot);
  const reason = `${keyId}, which ${slot} holds too, is compromised`;
  const first = defined({ first: rotation.clock.firstOf(keyId) });
  try {
    const child = await startChild("emergencyRotation", {
      workflowId,
      args: [{ slot, compromisedKeyIds: [keyId], strategy: "swap-first", cutBy: of.slot, reason, ...first }],
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: `emergency rotation of ${slot}`,
    });
    movers.moving.add(slot);
    // Its end is only a reason to look again.
    void child.result().then(
      (result) => {
        movers.moving.delete(slot);
        const { outcome, times } = result as RotationResult;
        if (outcome !== "rotated") return;
        movers.moved.add(slot);
        if (times.verified !== undefined) record.outages.close([slot], times.verified);
      },
      (error: unknown) => {
        movers.moving.delete(slot);
        if (!isCancellation(error)) record.warn(`the emergency of ${slot} ended: ${failureMessage(error)}`);
      },
    );
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) {
      record.warn(`${slot} holds ${keyId} too, and no emergency could be started there: ${failureMessage(error)}`);
      return;
    }
    await tellRun(rotation, { slot, keyId, why: reason });
  }
}

/** The word to the run that is on in a slot. One that does not take it is a warning. */
async function tellRun(
  rotation: Rotation,
  { slot, keyId, why }: { slot: string; keyId: string; why: string },
): Promise<void> {
  const { of, record, clock } = rotation;
  try {
    const by = `the emergency of ${of.slot}`;
    const arg = { compromisedKeyId: keyId, by, why, ...defined({ first: clock.firstOf(keyId) }) };
    const order = { workflowId: slotWorkflowId(slot), update: escalateUpdate.name, arg };
    // The run that follows a hand-over says it again: none waits for who does not answer.
    const answer = (await unlessHandedOver(rotation, () => management.updateRun(order))) as
      | EscalationAnswer
      | undefined;
    clock.goBy(keyId, answer?.first);
    if (record.clocks !== undefined) startClocks(rotation, keyId);
  } catch (refused) {
    if (isCancellation(refused)) throw refused;
    record.warn(`${why}, and the run of ${slot} did not take it: ${failureMessage(refused)}`);
  }
}
