import { ApplicationFailure, CancellationScope, condition, isCancellation } from "@temporalio/workflow";

import type { Compromised, EmergencyPlan, Inspection, RunningRotation } from "../activities/contract.ts";
import { defined } from "../domain/defined.ts";
import type { EscalationAnswer } from "../domain/escalation.ts";
import type { LeakedResult, RotationResult } from "../domain/rotation.ts";
import { management } from "./groups.ts";
import { everySlotOfLeak } from "./leaked-key.ts";
import { emergencyRotationInput, type EmergencyRotationStart, escalateUpdate, parseInput } from "./messages.ts";
import { swapKey } from "./normal-rotation.ts";
import { isRunGone, oneRunPerSlot } from "./one-run-per-slot.ts";
import {
  correctOutage,
  cutNow,
  lookUpCompromised,
  saw,
  startClocks,
  unlessHandedOver,
} from "./rotation/compromised.ts";
import { endWhenMoved, moveMeanwhile } from "./rotation/end-when-moved.ts";
import type { End } from "./rotation/ending.ts";
import { failureDetails, failureMessage, failureType } from "./rotation/failures.ts";
import { gatherEvidence } from "./rotation/gather-evidence.ts";
import type { Leak } from "./rotation/known.ts";
import { measureOutage, outageToMeasure } from "./rotation/measure-outage.ts";
import { Rotation } from "./rotation/rotation.ts";
import { finish } from "./rotation/settle.ts";
import { confirmRevoked, heldKey, notRevoked } from "./rotation/steps.ts";

/** How long a look is repeated that an outage prevents: past the deadline too, since the slot still needs a new key. */
const lookForMs = 24 * 3_600_000;

/**
 * Gets compromised keys out of a slot, by the clock: `swap-first` puts a new key in and then cuts the old one, at the
 * revoke deadline at the latest; `cut-first` cuts at once and then replaces. Ends with what the keys were used for.
 *
 * Input `{"slot":"production/openai","strategy"?,"compromisedKeyId"?,"compromisedKeyIds"?,"leaked"?,"since"?,"reason"?,
 * "heldKeyId"?,"formerRunId"?}`; result `RotationResult` with `clocks` and `incident`. Where a rotation of the slot is
 * running it is told (`escalate`) and the result is `joined`. `{"leaked"}` alone finds every slot that holds the value;
 * the result is `LeakedResult`. Fails with `KeyAmbiguous` before any clock where it would have to guess which key is
 * meant, and with `KeyUnknown` where nobody knows the key: nothing was changed.
 */
export async function emergencyRotation(input: unknown): Promise<RotationResult | LeakedResult> {
  const start = parseInput(emergencyRotationInput, input, "emergencyRotation");
  const { slot } = start;
  if (slot === undefined) return everySlotOfLeak(start);
  return oneRunPerSlot("emergencyRotation", { ...start, slot }, rotateInEmergency, join);
}

async function rotateInEmergency(start: EmergencyRotationStart): Promise<RotationResult> {
  const rotation = new Rotation("emergency", start);
  const { record } = rotation;
  // Before anything is waited for: a run that is stopped at once answers for these keys too.
  const named = namedKeys(rotation, start);
  if (start.first !== undefined) for (const id of named) rotation.compromised.first.set(id, start.first);
  startTheClocks(rotation, named, start.reason ?? "the key is compromised", start);
  rotation.compromised.leak = start.carried?.leak ?? (named.length > 0 ? undefined : leakOf(rotation, start));
  const leaked = leakedKeys(rotation);
  if (named.length > 0) void rotation.passage.beside(() => endLeaked(rotation, { leaked, named }));
  return rotation.toTheEnd(async () => {
    // A cut at once, where it is asked for, does not wait for the policy.
    if (start.strategy !== "cut-first") await rotation.readPolicy();
    const strategy = start.strategy ?? rotation.policy?.emergency.strategy;
    const reason = start.reason ?? `the key is compromised (${strategy})`;
    const asked = named.length > 0 ? named : ((await leaked) ?? (await plannedKeys(rotation, start)));
    startTheClocks(rotation, asked, reason, start);

    const cutsFirst = strategy === "cut-first" && start.cutBy === undefined;
    const keyIds = cutsFirst ? await cutFirst(rotation, asked) : asked;
    for (const id of keyIds) startClocks(rotation, id);
    const found = await look(rotation, start);
    rotation.plan(found);
    const compromised = await findAll(rotation, keyIds);
    startTheClocks(
      rotation,
      compromised.map(({ id }) => id),
      reason,
      start,
    );
    record.oldKey = { id: mainOf(compromised, found)?.id ?? found.held.id };

    correctOutage(rotation);

    const held = heldOf(compromised, found) ?? mayBeHeld(rotation, compromised, found);
    const others = compromised.filter((key) => key !== held);
    const strangers = others.map(({ id }) => rotation.passage.beside(() => endWhenMoved(rotation, id)));
    if (held === undefined) {
      await Promise.all(strangers);
      return rotation.passage.pastTheReturn(() => endWithoutSwap(rotation, { start, found, compromised, reason }));
    }
    const elsewhere = rotation.passage.beside(() => moveMeanwhile(rotation, held.id));
    await swap(rotation, found);
    await elsewhere;
    if (start.cutBy !== undefined) {
      await rotation.step("finish", () => finish(rotation));
      return { outcome: "rotated", reason };
    }
    return rotation.passage.pastTheReturn(async () => {
      record.stage = "revoking";
      await endWhenMoved(rotation, held.id);
      await Promise.all(strangers);
      for (const key of compromised) await seeDead(rotation, { key, found, leaked: start.leaked });
      await rotation.step("finish", () => finish(rotation));
      await gatherAll(rotation, { start, found, compromised });
      return { outcome: "rotated", reason };
    });
  });
}

/** The keys that the start names, and those whose clocks it was handed. */
function namedKeys({ record }: Rotation, start: EmergencyRotationStart): string[] {
  const { compromisedKeyId, compromisedKeyIds = [], carried } = start;
  const told = carried?.clock.map(({ keyId }) => keyId) ?? [];
  const named = [...(compromisedKeyId === undefined ? [] : [compromisedKeyId]), ...compromisedKeyIds, ...told];
  return [...new Set(named)].filter((id) => !record.custody.isEnded(id));
}

function leakOf({ startedAt }: Rotation, { leaked, reason, since }: EmergencyRotationStart): Leak | undefined {
  if (leaked === undefined) return undefined;
  return { value: leaked, at: startedAt, by: reason ?? "its value leaked", ...defined({ since }) };
}

/** The keys that have the leaked value, and their clocks; a run that is stopped at once answers for them too. */
function leakedKeys(rotation: Rotation): Promise<string[]> | undefined {
  const { leak } = rotation.compromised;
  if (leak === undefined) return undefined;
  const { value: leaked, by, at, since } = leak;
  const find = (): Promise<Compromised[]> =>
    unlessHandedOver(rotation, () => lookUpCompromised(rotation, { keyIds: [], leaked }));
  const found = CancellationScope.nonCancellable(async () => {
    const keys = await rotation.step("findCompromised", find, { says: describeFound });
    rotation.compromised.leak = undefined;
    const keyIds = keys.map(({ id }) => id);
    startTheClocks(rotation, keyIds, by, { at, ...defined({ since }) });
    return keyIds;
  });
  void rotation.passage.beside(() =>
    found.then(
      () => undefined,
      (error: unknown) => noteUntold(rotation, error),
    ),
  );
  return found;
}

/** However the run ends, and whatever else it cut: which key leaked it does not know. */
function noteUntold({ handsOver, record }: Rotation, error: unknown): void {
  if (handsOver) return; // the run that follows looks for it
  record.unknown("which key has the leaked value");
  record.warn(
    `which key has the leaked value could not be found out: ${failureMessage(error)}; start keyturn emergency with it again`,
  );
}

/** Where a run was stopped before it knew which key leaked, the one that follows finds it out beside its own. */
async function endLeaked(
  rotation: Rotation,
  { leaked, named }: { leaked: Promise<string[]> | undefined; named: string[] },
): Promise<void> {
  if (leaked === undefined) return;
  const keyIds = await leaked.catch(() => []); // said already
  await condition(() => rotation.found !== undefined || rotation.passage.ending);
  await Promise.all(keyIds.filter((id) => !named.includes(id)).map((id) => endWhenMoved(rotation, id)));
}

/** Without a name, the key that the slot holds, where that is no guess. */
async function plannedKeys(rotation: Rotation, start: EmergencyRotationStart): Promise<string[]> {
  const { since, heldKeyId, formerRunId } = start;
  const order = { slot: rotation.of.slot, ...defined({ since, heldKeyId, formerRunId }) };
  const plan = await outlastingOutages(rotation, () =>
    rotation.step("findCompromised", () => management.planEmergency(order), { says: whichKey }),
  );
  const { ambiguous, keys } = plan;
  for (const { id, state, through, heldBy, heldUnknown } of keys) {
    const unknown = heldUnknown.map((slot) => ({ slot, why: "it could not be looked at" }));
    saw(rotation, { id, how: "id", state, through, heldBy, unknown });
    rotation.compromised.lookedAt.add(id);
  }
  if (ambiguous === undefined && keys.length > 0) return keys.map(({ id }) => id);
  const why = ambiguous?.why ?? `which key ${rotation.of.slot} holds is unknown`;
  throw ApplicationFailure.create({
    type: "KeyAmbiguous",
    message: `${why}: start again with the ids of the keys that are compromised`,
    nonRetryable: true,
    details: [{ candidates: ambiguous?.candidates ?? [] }],
  });
}

function whichKey({ keys, ambiguous }: EmergencyPlan): string {
  return ambiguous?.why ?? keys.map(({ id, madeBy }) => `${id}, made by ${madeBy}`).join("; ");
}

/** The clocks run from the start of the run. A slot that only moves off a key leaves the clock to the one that cuts. */
function startTheClocks(
  rotation: Rotation,
  keyIds: string[],
  by: string,
  { at = rotation.startedAt, since }: { at?: string; since?: string | undefined },
): void {
  const { record, clock } = rotation;
  for (const keyId of keyIds) {
    record.custody.take(keyId, "compromised", record.custody.has(keyId) ? {} : { given: true });
    if (rotation.cutBy === undefined && clock.find(keyId) === undefined) {
      record.custody.reopen(keyId);
      clock.tell({ keyId, at, by, ...defined({ since }) });
      // An abort that came with the start calls it off as one that comes later does.
      if (rotation.mailbox.aborted !== undefined) clock.callOff(rotation.mailbox.aborted, [keyId]);
    }
    startClocks(rotation, keyId);
  }
  if (record.oldKey === null && keyIds[0] !== undefined) record.oldKey = { id: keyIds[0] };
}

/**
 * Cuts the keys before anything else, none of them later for another's sake. One that fails is replaced first, and cut at
 * its deadline. Returns them without those that nobody knows, or that only a person can cut; fails where that is all.
 */
async function cutFirst(rotation: Rotation, keyIds: string[]): Promise<string[]> {
  const refused = new Map<string, unknown>();
  const cuts = keyIds.map(async (keyId) => {
    try {
      await cutNow(rotation, keyId, { patiently: false });
    } catch (error) {
      if (isCancellation(error)) throw error;
      if (isRefusal(error)) refused.set(keyId, error);
      else rotation.record.warn(`${keyId} could not be cut at once, and is replaced first: ${failureMessage(error)}`);
    }
  });
  // Each comes to its end, a cancelled one too: none is left running.
  const stopped = (await Promise.allSettled(cuts)).find(({ status }) => status === "rejected");
  if (stopped?.status === "rejected") throw stopped.reason;
  for (const [keyId, error] of refused) refuse(rotation, keyId, error);
  const rest = keyIds.filter((id) => !refused.has(id));
  const [first, ...more] = refused.values();
  if (rest.length === 0 && first !== undefined) throw first;
  if (first !== undefined) rotation.record.warn(...[first, ...more].map(failureMessage));
  return rest;
}

function isRefusal(error: unknown): boolean {
  return ["KeyUnknown", "KeyAmbiguous", "InvalidInput"].includes(failureType(error) ?? "");
}

/** A key that nobody knows is nobody's to answer for; one that only a person can cut is named. */
function refuse({ record, clock, found }: Rotation, keyId: string, error: unknown): void {
  clock.forget(keyId);
  const isOurs = found?.earlier.some(({ id }) => id === keyId) === true || record.inherited.has(keyId);
  if (failureType(error) === "KeyUnknown" && !isOurs) record.custody.drop(keyId);
  else record.custody.settle(keyId, { fate: "named", why: failureMessage(error) });
}

/** What the slot holds, by a look that outlasts outages; the clock runs beside it. */
async function look(rotation: Rotation, start: EmergencyRotationStart): Promise<Inspection> {
  const { heldKeyId, formerRunId } = start;
  const cutKeys = [...rotation.compromised.cut].map((id) => ({
    id,
    ...defined({ ending: rotation.compromised.seen.get(id)?.ending }),
  }));
  const order = {
    ...rotation.of,
    ...defined({ heldKeyId, formerRunId }),
    ...(cutKeys.length === 0 ? {} : { cutKeys }),
  };
  const found = await outlastingOutages(rotation, () =>
    rotation.step("inspectSlot", () => management.inspectSlot(order), { says: heldKey }),
  );
  rotation.swap.heldSeenAt = Date.now();
  return found;
}

async function outlastingOutages<Result>(rotation: Rotation, ask: () => Promise<Result>): Promise<Result> {
  const untilMs = Date.parse(rotation.record.times.started) + lookForMs;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      const mayPass = ["Unavailable", "RateLimited"].includes(failureType(error) ?? "");
      if (isCancellation(error) || !mayPass || Date.now() >= untilMs) throw error;
      rotation.record.warn(`the look at ${rotation.of.slot} is repeated: ${failureMessage(error)}`);
    }
  }
}

/** All compromised keys with their holders. A key that nobody knows ends the emergency, and nothing was changed. */
async function findAll(rotation: Rotation, keyIds: string[]): Promise<Compromised[]> {
  const wasSeen = (id: string): boolean => rotation.compromised.cut.has(id) && rotation.compromised.seen.has(id);
  const cut = keyIds.filter(wasSeen);
  const rest = keyIds.filter((id) => !wasSeen(id));
  const seen = await lookAtCut(rotation, cut);
  if (rest.length === 0) return seen;
  try {
    const find = (): Promise<Compromised[]> => lookUpCompromised(rotation, { keyIds: rest });
    return [...seen, ...(await rotation.step("findCompromised", find, { says: describeFound }))];
  } catch (error) {
    if (!isRefusal(error)) throw error;
    // Of several ids some may be nobody's: the others are compromised all the same.
    const { keyIds: nobodys = rest } = (failureDetails(error) ?? {}) as { keyIds?: string[] };
    for (const id of nobodys) refuse(rotation, id, error);
    const known = keyIds.filter((id) => !nobodys.includes(id));
    if (known.length === 0 || known.length === keyIds.length) throw error;
    rotation.record.warn(failureMessage(error));
    return findAll(rotation, known);
  }
}

/** Who holds the keys that were cut before anybody looked. Their provider may know them no more: they were seen before. */
async function lookAtCut(rotation: Rotation, keyIds: string[]): Promise<Compromised[]> {
  if (keyIds.length === 0) return [];
  const all = await management.lookAtHolders({ ...rotation.of, keyIds }).catch((error: unknown) => {
    if (isCancellation(error)) throw error;
    rotation.record.warn(`which slots hold what was cut could not be asked: ${failureMessage(error)}`);
    return undefined;
  });
  return keyIds.flatMap((id) => {
    const seen = rotation.compromised.seen.get(id);
    if (seen === undefined) return [];
    if (all === undefined) return [seen];
    const { yes = [], unknown = [], left } = all.find(({ keyId }) => keyId === id) ?? {};
    const here = rotation.found?.held.id === id ? [rotation.of.slot] : [];
    const key = { ...seen, heldBy: [...new Set([...here, ...yes])], unknown, left };
    saw(rotation, key);
    rotation.compromised.lookedAt.add(id);
    return [key];
  });
}

function describeFound(found: Compromised[]): string {
  return found
    .map(({ id, how, state, heldBy, unknown }) => {
      const holders = heldBy.length === 0 ? "no slot" : heldBy.join(", ");
      const doubt = unknown.length === 0 ? "" : `; it cannot be told of ${unknown.map(({ slot }) => slot).join(", ")}`;
      return `${id} (by ${how}, ${state}), held by ${holders}${doubt}`;
    })
    .join("; ");
}

function mainOf(compromised: Compromised[], found: Inspection): Compromised | undefined {
  return heldOf(compromised, found) ?? compromised[0];
}

function heldOf(compromised: Compromised[], { held }: Inspection): Compromised | undefined {
  return compromised.find(({ id }) => id === held.id);
}

/**
 * Without an admin credential the slot's key has a name of ours, which nobody can compare with the id that a person gave:
 * where the slot may hold that key, a new one goes in before anybody is asked to revoke it.
 */
function mayBeHeld({ of }: Rotation, compromised: Compromised[], { byHand }: Inspection): Compromised | undefined {
  if (byHand === undefined) return undefined;
  return compromised.find(
    ({ state, heldBy, unknown }) =>
      state !== "dead" && (heldBy.includes(of.slot) || unknown.some(({ slot }) => slot === of.slot)),
  );
}

/** Puts a new key in. Where that fails the exit waits for the deadline, at which the key is cut. */
async function swap(rotation: Rotation, found: Inspection): Promise<void> {
  try {
    await swapKey(rotation, found);
  } catch (error) {
    if (!isCancellation(error)) rotation.record.warn(`no new key was proven in the slot: ${failureMessage(error)}`);
    throw error;
  }
}

interface Ending {
  start: EmergencyRotationStart;
  found: Inspection;
  compromised: Compromised[];
  reason: string;
}

/** None of the keys is the slot's: they are ended, and its own stays. */
async function endWithoutSwap(rotation: Rotation, { start, found, compromised, reason }: Ending): Promise<End> {
  for (const key of compromised) await seeDead(rotation, { key, found, leaked: start.leaked });
  await rotation.step("finish", () => finish(rotation));
  await gatherAll(rotation, { start, found, compromised });
  // The slot keeps its own key: what stays alive, or is another slot's to cut, was not cut here.
  const isCut = start.cutBy === undefined && compromised.every(({ id }) => rotation.record.custody.isEnded(id));
  return { outcome: isCut ? "cut" : "kept", reason };
}

/** Sees a compromised key dead, by the rule of its kind. */
async function seeDead(
  rotation: Rotation,
  { key: { id, dead }, found, leaked }: { key: Compromised; found: Inspection; leaked: string | undefined },
): Promise<void> {
  const policy = { ...found.policy, dead: dead ?? found.policy.dead };
  await rotation.step("confirmRevoked", () => confirmRevoked(rotation, { policy, keyId: id, leaked }), {
    unless: notRevoked(rotation, id),
  });
}

/** How long requests failed, and what each key was used for, until the provider's late data no longer changes it. */
async function gatherAll(rotation: Rotation, { start, found, compromised }: Omit<Ending, "reason">): Promise<void> {
  const outage = outageToMeasure(rotation);
  if (outage !== undefined) await rotation.step("measureOutage", () => measureOutage(rotation, outage));
  for (const { id, createdAt } of compromised) {
    const suspect = { keyId: id, createdAt, since: start.since ?? rotation.clock.find(id)?.since };
    await rotation.step("gatherEvidence", () => gatherEvidence(rotation, suspect, found.policy.usageLag));
  }
}

/** A rotation of the slot is running: it is told of every key, and decides by which key it is. Fails where it takes none. */
async function join(
  start: EmergencyRotationStart,
  { workflowId, runId, progress }: RunningRotation,
): Promise<RotationResult> {
  // A worker may be too busy to say which rotation it is; the run id in the reason finds it.
  const rotationId = progress?.rotationId ?? "unknown";
  const { slot, leaked, reason = "compromised", since, compromisedKeyId, compromisedKeyIds = [] } = start;
  const named = [...new Set([...(compromisedKeyId === undefined ? [] : [compromisedKeyId]), ...compromisedKeyIds])];
  const keyIds =
    named.length > 0 || leaked === undefined
      ? named
      : (await management.findCompromised({ slot, rotationId, keyIds: [], leaked })).map(({ id }) => id);
  if (keyIds.length === 0) {
    throw ApplicationFailure.nonRetryable(
      `a rotation of ${slot} is running (workflow ${workflowId}, run ${runId}): say which key is compromised, with compromisedKeyIds`,
      "KeyAmbiguous",
    );
  }
  const said: string[] = [];
  const refused = new Map<string, unknown>();
  // All at once: a clock starts when its word arrives, and none waits for the answer to another.
  const words = keyIds.map(async (keyId) => {
    const arg = { compromisedKeyId: keyId, why: reason, by: "an emergency that joins", ...defined({ since }) };
    try {
      const answer = (await management.updateRun({ workflowId, update: escalateUpdate.name, arg })) as EscalationAnswer;
      said.push(answer.says);
    } catch (error) {
      if (isCancellation(error) || isRunGone(error)) throw error;
      refused.set(keyId, error);
    }
  });
  await Promise.all(words);
  if (said.length === 0) throw refused.values().next().value;
  const now = new Date().toISOString();
  const why = `the run ${runId} of ${workflowId} answers for it`;
  return {
    slot,
    kind: "emergency",
    outcome: "joined",
    reason: `${said.join("; ")} (workflow ${workflowId}, run ${runId})`,
    rotationId,
    oldKey: { id: keyIds.find((id) => !refused.has(id)) ?? "" },
    newKey: null,
    times: { started: now, finished: now },
    keys: [],
    unknown: [],
    leftOver: [],
    warnings: keyIds.map((id) => `${id}: ${refused.has(id) ? failureMessage(refused.get(id)) : why}`),
    steps: [],
  };
}
