import { condition, isCancellation } from "@temporalio/workflow";

import type { IdleAnswer, Inspection, NewKey } from "../activities/contract.ts";
import { inMs } from "../domain/duration.ts";
import { management, propagation } from "./groups.ts";
import { failureMessage, type Rotation } from "./rotation.ts";

/**
 * Step 10: waits until the provider's own data shows the old key idle, or the grace ceiling is reached, where policy
 * decides. Sleeps until the earliest moment at which the key could count as idle, lets a probe mark how far the data
 * has come, then asks once.
 */
export async function awaitIdle(rotation: Rotation, found: Inspection, key: NewKey): Promise<string> {
  const { graceCeiling } = found.policy;
  const sinceMs = Date.now();
  const ceilingMs = sinceMs + inMs(graceCeiling.after);
  const ask = async (): Promise<IdleAnswer> => {
    const answer = await management.checkIdle({
      ...rotation.of,
      oldKeyId: found.held.id,
      newKeyId: key.id,
      installedAt: rotation.times.installed ?? rotation.times.started,
      since: new Date(sinceMs).toISOString(),
    });
    if (answer.lastUsed !== undefined) rotation.reached("lastUsed", answer.lastUsed);
    return answer;
  };

  if (rotation.hurry() !== undefined) return `hurried: ${rotation.hurry()}`;
  let answer = await ask();
  let purged = !found.canPurge;
  while (answer.kind !== "idle") {
    if (answer.kind === "used" && !purged) {
      await rotation.step("purgeCache", () => purge(rotation, answer.note));
      purged = true;
    }
    const { probeAt, askAt } = schedule(answer, ceilingMs);
    await rotation.waiting(
      {
        for: `the old key to be idle for ${found.policy.quietPeriod} (${answer.note})`,
        until: new Date(ceilingMs).toISOString(),
        then: `the provider is asked again at ${new Date(askAt).toISOString()}; at the ceiling: ${atCeiling(answer, found)}`,
        action: "nothing, or keyturn approve to accept the use it shows",
        takes: "approval",
      },
      async () => {
        await sleepUntil(rotation, probeAt, "until the quiet period can be over");
        if (probeAt < ceilingMs) await probe(rotation, found, key);
        await sleepUntil(rotation, askAt, "until the provider's data has come that far");
      },
    );
    const approved = rotation.takeApproval();
    if (rotation.hurry() !== undefined) return `hurried: ${rotation.hurry()}`;
    answer = await ask();
    if (answer.kind === "idle") break;
    if (approved !== undefined && answer.kind === "unknown") rotation.unknown("use of the old key");
    if (approved !== undefined) return `use accepted by ${approved}: ${answer.note}`;
    if (Date.now() >= ceilingMs) return overCeiling(rotation, found, answer, ask);
  }
  if (answer.newKeyRequests <= rotation.probes) rotation.unknown("clients' use of the new key");
  return answer.note;
}

/** A remedy: the cache wait is over, and the old key still answers somebody. Then its use is watched on. */
async function purge(rotation: Rotation, use: string): Promise<string> {
  const why = `the old key still answers after the cache wait (${use})`;
  try {
    await management.purgeCache(rotation.of);
  } catch (error) {
    if (isCancellation(error)) throw error;
    return `${why}, and caches could not be asked to drop it: ${failureMessage(error)}; its use is watched on`;
  }
  return `${why}: caches were asked to drop it, and its use is watched on`;
}

function schedule(answer: IdleAnswer, ceilingMs: number): { probeAt: number; askAt: number } {
  const time = (at: string | undefined): number => Math.min(at === undefined ? ceilingMs : Date.parse(at), ceilingMs);
  return { probeAt: time(answer.probeAt), askAt: time(answer.askAt) };
}

/** Sleeps until then, or until somebody approves. */
async function sleepUntil(rotation: Rotation, at: number, summary: string): Promise<void> {
  const ms = at - Date.now();
  if (ms > 0) await condition(() => rotation.approved || rotation.hurry() !== undefined, ms, { summary });
}

/** One request of ours with the new key: its bucket shows how far the provider's data has come. */
async function probe(rotation: Rotation, { policy, staged }: Inspection, key: NewKey): Promise<void> {
  const verified = await propagation.verifyThroughGateway({
    ...rotation.of,
    alias: staged ? "new" : "real",
    goodAnswers: 1,
    until: rotation.deadline(policy.propagationBudget),
    installedKeyId: key.id,
  });
  rotation.probes += verified.probes;
}

function atCeiling({ kind }: IdleAnswer, { policy: { graceCeiling } }: Inspection): string {
  const decision = kind === "unknown" || kind === "too early" ? graceCeiling.ifUnknown : graceCeiling.ifUsed;
  return decision === "revoke" ? "the old key is revoked" : "a person is asked";
}

async function overCeiling(
  rotation: Rotation,
  found: Inspection,
  answer: IdleAnswer,
  ask: () => Promise<IdleAnswer>,
): Promise<string> {
  const { graceCeiling, personDeadline } = found.policy;
  const used = answer.kind === "used";
  if (!used) rotation.unknown("use of the old key");
  if ((used ? graceCeiling.ifUsed : graceCeiling.ifUnknown) === "revoke") {
    return `the ceiling of ${graceCeiling.after} is reached, and policy says revoke: ${answer.note}`;
  }
  const by = await rotation.person({
    for: `a person to accept the use of the old key: ${answer.note}`,
    deadline: personDeadline,
    orElse: "nobody accepted the use of the old key in time: both keys stay alive",
  });
  // Days may have passed: what is accepted is recorded as it is now.
  return `use accepted by ${by}: ${(await ask()).note}`;
}
