import {
  ApplicationFailure,
  CancellationScope,
  condition,
  isCancellation,
  ParentClosePolicy,
  sleep,
  startChild,
} from "@temporalio/workflow";

import type { Compromised, Inspection, NewKey } from "../activities/contract.ts";
import type { Policy } from "../domain/policy.ts";
import { type Clocks, type RotationResult, slotWorkflowId } from "../domain/rotation.ts";
import { gatherEvidence } from "./gather-evidence.ts";
import { cleanup, management } from "./groups.ts";
import { type EmergencyRotationStart, emergencyRotationInput, escalateUpdate, parseInput } from "./messages.ts";
import { swapKey } from "./normal-rotation.ts";
import { oneRunPerSlot } from "./one-run-per-slot.ts";
import { askToRevoke, believeOnlyDeath } from "./revoke-by-hand.ts";
import { endForGood } from "./revoke-for-good.ts";
import { failureMessage, failureType, Rotation } from "./rotation.ts";
import { confirmRevoked, heldKey } from "./steps.ts";

/** How long `cut-first` waits at most for a look at the slot, before it cuts. */
const lookFirstMs = 3_000;

/**
 * Gets a compromised key out of a slot, by the clock: `swap-first` puts a new key in and then cuts the old one, at the
 * revoke deadline at the latest; `cut-first` cuts at once and then replaces. Ends with what the key was used for.
 *
 * Input `{"slot":"production/openai","strategy"?,"compromisedKeyId"?,"leaked"?,"since"?,"reason"?,"heldKeyId"?}`; result
 * `RotationResult` with `clocks` and `incident`. Where a rotation of the slot is running it is told (`escalate`) and the
 * result is `joined`.
 */
export async function emergencyRotation(input: unknown): Promise<RotationResult> {
  const start = parseInput(emergencyRotationInput, input, "emergencyRotation");
  return oneRunPerSlot("emergencyRotation", start, rotateInEmergency, join);
}

async function rotateInEmergency(start: EmergencyRotationStart): Promise<RotationResult> {
  const rotation = new Rotation("emergency", start);
  return rotation.toTheEnd(async () => {
    const policy = await management.readPolicy({ slot: rotation.of.slot });
    const strategy = start.strategy ?? policy.emergency.strategy;
    const clocks = rotation.startClocks(policy);
    const reason = start.reason ?? `the key is compromised (${strategy})`;
    const cutFirst = strategy === "cut-first" && start.cutBy === undefined;

    const inspection = { ...rotation.of, ...(start.heldKeyId === undefined ? {} : { heldKeyId: start.heldKeyId }) };
    const looking = rotation.step("inspectSlot", () => management.inspectSlot(inspection), { told: heldKey });
    if (cutFirst && start.compromisedKeyId !== undefined) {
      // A key that is gone can no longer be matched with the slot. Whatever comes of the look, the cut waits no longer.
      await Promise.race([looking.catch(() => undefined), sleep(lookFirstMs, { summary: "a look at the slot" })]);
      await cut(rotation, start.compromisedKeyId);
    }
    const found = await looking;
    rotation.plan(found);
    for (const check of found.byHand?.unknown ?? []) rotation.unknown(check);
    const compromised = await find(rotation, start, found);
    rotation.compromised(compromised.id);
    if (cutFirst) await cut(rotation, compromised.id);
    if (compromised.id !== found.held.id) return cutOnly(rotation, { start, found, policy, compromised, reason });

    const others = await startOthers(rotation, start, compromised);
    const key = await swapInTime(rotation, { found, clocks, compromised });
    if (key === undefined) return conclude(rotation, { start, policy, compromised, outcome: "cut", reason });
    if (rotation.outage !== undefined) rotation.outage.until = rotation.times.verified ?? new Date().toISOString();
    if (start.cutBy !== undefined) {
      await rotation.step("finish", () => rotation.finish(key));
      rotation.leaves(compromised.id, `${start.cutBy} cuts it when all slots have moved`);
      return rotation.ended("rotated", reason);
    }
    await others(clocks);

    return rotation.pastTheReturn(async () => {
      for (const id of [compromised.id, ...(start.leftOver ?? [])]) {
        await rotation.step("revokeKey", () => end(rotation, found, id));
        if (found.byHand !== undefined && id !== compromised.id)
          rotation.leaves(id, "only a person said it is revoked");
      }
      await rotation.step("confirmRevoked", () => seeDead(rotation, { policy, compromised, leaked: start.leaked }));
      believeOnlyDeath(rotation, compromised.id);
      await rotation.step("finish", () => rotation.finish(key));
      return conclude(rotation, { start, policy, compromised, outcome: "rotated", reason });
    });
  });
}

/** A rotation of the slot is running: it is told, and decides by which key it is. */
async function join(
  start: EmergencyRotationStart,
  { workflowId, runId }: { workflowId: string; runId: string },
): Promise<RotationResult> {
  const { slot, leaked, reason = "compromised", since } = start;
  const byValue = { slot, rotationId: runId, ...(leaked === undefined ? {} : { leaked }) };
  const compromisedKeyId =
    start.compromisedKeyId ?? (leaked === undefined ? undefined : (await management.findCompromised(byValue)).id);
  if (compromisedKeyId === undefined) {
    throw ApplicationFailure.nonRetryable(
      `a rotation of ${slot} is running (workflow ${workflowId}, run ${runId}): say which key is compromised, with compromisedKeyId`,
      "InvalidInput",
    );
  }
  const arg = {
    compromisedKeyId,
    why: reason,
    by: "an emergency that joins",
    ...(since === undefined ? {} : { since }),
  };
  const said = await management.updateRun({ workflowId, runId, update: escalateUpdate.name, arg });
  const now = new Date().toISOString();
  return {
    slot,
    kind: "emergency",
    outcome: "joined",
    reason: `${said} (workflow ${workflowId}, run ${runId})`,
    rotationId: runId,
    oldKey: { id: compromisedKeyId },
    newKey: null,
    times: { started: now, finished: now },
    unknown: [],
    leftOver: [],
    warnings: [],
    steps: [],
  };
}

async function find(rotation: Rotation, start: EmergencyRotationStart, found: Inspection): Promise<Compromised> {
  const { compromisedKeyId, leaked } = start;
  const named = compromisedKeyId ?? (leaked === undefined ? found.held.id : undefined);
  return rotation.step("findCompromised", () =>
    management.findCompromised({
      ...rotation.of,
      ...(named === undefined ? {} : { compromisedKeyId: named }),
      ...(leaked === undefined ? {} : { leaked }),
      ...(rotation.times.cut === undefined ? {} : { cut: true }),
    }),
  );
}

/**
 * Cuts the key at once. From here on requests may fail until a new key is in. A cut that is refused ends nothing: the
 * key is replaced all the same, and its revocation is not given up.
 */
async function cut(rotation: Rotation, keyId: string): Promise<void> {
  if (rotation.times.cut !== undefined) return;
  try {
    await rotation.step("cutKey", async () => {
      const { at, how } = await cleanup.cutKey({ ...rotation.of, keyId });
      rotation.reached("cut", at);
      rotation.outage = { from: at };
      return `${keyId} ${how}`;
    });
  } catch (error) {
    // Without an admin credential only a person can cut: that is said at once.
    if (isCancellation(error) || failureType(error) === "InvalidInput") throw error;
    rotation.warn([`${keyId} could not be cut at once, and is replaced first: ${failureMessage(error)}`]);
  }
}

/**
 * Says how long requests could fail: past the proof of the new key, isolates go on sending the cut one while it is in
 * their caches. The last refusal in the gateway's logs tells; without logs the end is named unknown.
 */
async function measureOutage(rotation: Rotation): Promise<string> {
  const { outage } = rotation;
  if (outage === undefined) return "none";
  const proven = outage.until ?? outage.from;
  try {
    const { lastRefused, note } = await management.findLastRefusal({ ...rotation.of, from: outage.from });
    if (note === undefined) {
      if (lastRefused !== undefined && lastRefused > proven) outage.until = lastRefused;
      return lastRefused === undefined ? "no client was refused" : `a client was last refused at ${lastRefused}`;
    }
    rotation.warn([note]);
  } catch (error) {
    rotation.warn([`how long requests failed could not be read: ${failureMessage(error)}`]);
  }
  rotation.unknown("end of the outage");
  return `requests failed at least until ${proven}`;
}

/** The key is in no slot of ours, or in another: it is ended, and this slot's key stays. */
async function cutOnly(
  rotation: Rotation,
  { found, ...ending }: Ending & { found: Inspection },
): Promise<RotationResult> {
  const { start, policy, compromised } = ending;
  rotation.outage = undefined;
  return rotation.pastTheReturn(async () => {
    await rotation.step("revokeKey", () => end(rotation, found, compromised.id));
    await rotation.step("confirmRevoked", () => seeDead(rotation, { policy, compromised, leaked: start.leaked }));
    believeOnlyDeath(rotation, compromised.id);
    return conclude(rotation, { ...ending, outcome: "cut" });
  });
}

/** Sees the compromised key dead, by the rule of its kind. */
async function seeDead(
  rotation: Rotation,
  {
    policy,
    compromised: { id, dead = policy.dead },
    leaked,
  }: Pick<Ending, "policy" | "compromised"> & { leaked: string | undefined },
): Promise<string> {
  return confirmRevoked(rotation, { policy: { ...policy, dead }, keyId: id, leaked });
}

/** Starts emergencies in the other slots that hold the key. What it returns waits until all have moved, or the deadline. */
async function startOthers(
  rotation: Rotation,
  start: EmergencyRotationStart,
  { id, heldBy }: Compromised,
): Promise<(clocks: Clocks) => Promise<void>> {
  const slots = start.cutBy === undefined ? heldBy.filter((name) => name !== rotation.of.slot) : [];
  const moving = new Set(slots);
  for (const slot of slots) {
    const args = [{ slot, compromisedKeyId: id, strategy: "swap-first", cutBy: rotation.of.slot }];
    try {
      const child = await startChild("emergencyRotation", {
        workflowId: slotWorkflowId(slot),
        args,
        parentClosePolicy: ParentClosePolicy.ABANDON,
        staticSummary: `emergency rotation of ${slot}`,
      });
      void child.result().then(
        () => moving.delete(slot),
        (error: unknown) => rotation.warn([`${slot}, which holds ${id} too, has not moved: ${failureMessage(error)}`]),
      );
    } catch (error) {
      rotation.warn([`${slot} holds ${id} too, and no emergency could be started there: ${failureMessage(error)}`]);
    }
  }
  return async ({ revokeBy }) => {
    if (moving.size === 0) return;
    const wait = {
      for: `${[...moving].join(", ")} to move off ${id}`,
      until: revokeBy,
      then: "it is cut all the same",
    };
    await rotation.waiting(wait, async () => {
      await condition(() => moving.size === 0, msUntil(revokeBy), { summary: "other slots" });
    });
  };
}

/**
 * Puts a new key in, and cuts the compromised one at the revoke deadline if that comes first and policy says so. Returns
 * nothing where the key had to be cut without a new one.
 */
async function swapInTime(
  rotation: Rotation,
  { found, clocks, compromised }: { found: Inspection; clocks: Clocks; compromised: Compromised },
): Promise<NewKey | undefined> {
  type Swapped = { key: NewKey } | { error: unknown };
  const swap: Promise<Swapped> = swapKey(rotation, found).then(
    (key) => ({ key }),
    (error: unknown) => ({ error }),
  );
  const deadline = new CancellationScope();
  const late = deadline.run(async () => {
    await sleep(msUntil(clocks.revokeBy), { summary: "until the compromised key is cut" });
    return "late" as const;
  });
  const first = await Promise.race([swap, late.catch(() => "late" as const)]);
  const revokes = found.policy.emergency.atDeadline === "revoke";
  if (first === "late" && revokes) {
    if (found.byHand === undefined) await cut(rotation, compromised.id);
    else
      rotation.warn([`the deadline for ${compromised.id} came, and only a person can cut it: ${found.byHand.missing}`]);
  }
  const ended = first === "late" ? await swap : first;
  if ("key" in ended) {
    deadline.cancel();
    return ended.key;
  }
  if (isCancellation(ended.error)) throw ended.error;
  rotation.warn([`no new key could be put in: ${failureMessage(ended.error)}`]);
  if (!revokes && rotation.times.cut === undefined) throw ended.error;
  if (rotation.times.cut === undefined) {
    await rotation.waiting(
      {
        for: `the revoke deadline, since no new key could be put in: ${failureMessage(ended.error)}`,
        until: clocks.revokeBy,
        then: `${compromised.id} is cut without a new key, and requests fail`,
        action: `keyturn approve ${rotation.of.slot} to cut it now, or keyturn abort ${rotation.of.slot} and start again`,
        takes: "approval",
        person: true,
      },
      async () => {
        await condition(() => rotation.approved, msUntil(clocks.revokeBy), {
          summary: "until the compromised key is cut",
        });
      },
    );
    if (found.byHand === undefined) await cut(rotation, compromised.id);
  }
  await CancellationScope.nonCancellable(async () => {
    await rotation.step("revokeKey", () => end(rotation, found, compromised.id));
    believeOnlyDeath(rotation, compromised.id);
    await rotation.release();
  });
  return undefined;
}

/** Ends a compromised key for good: by the provider's API, or, without an admin credential, by a person. */
async function end(rotation: Rotation, found: Inspection, keyId: string): Promise<string> {
  if (found.byHand !== undefined) return askToRevoke(rotation, keyId, found);
  return endForGood(rotation, { keyId, policy: found.policy });
}

interface Ending {
  start: EmergencyRotationStart;
  policy: Policy;
  compromised: Compromised;
  reason: string;
}

/** Gathers evidence until the provider's late data no longer changes it, and ends. */
async function conclude(
  rotation: Rotation,
  { start, policy, compromised, outcome, reason }: Ending & { outcome: "rotated" | "cut" },
): Promise<RotationResult> {
  if (rotation.outage !== undefined && outcome === "rotated") {
    await CancellationScope.nonCancellable(() => rotation.step("measureOutage", () => measureOutage(rotation)));
  }
  await CancellationScope.nonCancellable(() =>
    rotation.step("gatherEvidence", () =>
      gatherEvidence(
        rotation,
        { keyId: compromised.id, createdAt: compromised.createdAt, since: start.since },
        policy.usageLag,
      ),
    ),
  );
  return rotation.ended(outcome, reason);
}

function msUntil(at: string): number {
  return Math.max(1, Date.parse(at) - Date.now());
}
