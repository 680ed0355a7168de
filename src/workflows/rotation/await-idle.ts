import { condition, isCancellation } from "@temporalio/workflow";

import type { IdleAnswer, Inspection, NewKey } from "../../activities/contract.ts";
import { inMs } from "../../domain/duration.ts";
import { untouchedUntil } from "../../domain/policy.ts";
import type { Wait } from "../../domain/rotation.ts";
import { management, propagation } from "../groups.ts";
import { failureMessage, failureType } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/**
 * Step 10: waits until the provider's own data shows clients on the new key and the old one idle, or the grace ceiling is
 * reached, where policy decides. Sleeps until the earliest moment at which the key could count as idle, lets a probe
 * through the slot mark how far the data has come, then asks once. At last the longest request may still be under way.
 */
export async function awaitIdle(rotation: Rotation, found: Inspection, key: NewKey): Promise<string> {
  rotation.record.stage = "draining";
  const note = await waitForIdle(rotation, found, key);
  await outlastRequests(rotation, found);
  return note;
}

async function waitForIdle(rotation: Rotation, found: Inspection, key: NewKey): Promise<string> {
  const { record } = rotation;
  const sinceMs = Date.now();
  const ceilingMs = sinceMs + inMs(found.policy.graceCeiling.after);
  const ask = async (): Promise<IdleAnswer> => {
    const answer = await management.checkIdle({
      ...rotation.of,
      oldKeyId: found.held.id,
      newKeyId: key.id,
      installedAt: record.times.installed ?? record.times.started,
      since: new Date(sinceMs).toISOString(),
      oldKeyProbes: rotation.swap.oldKeyProbes,
    });
    if (answer.lastUsed !== undefined) record.reached("lastUsed", answer.lastUsed);
    record.unknown(...(answer.unknownSurfaces ?? []).map((surface) => `use of ${surface} by key`));
    return answer;
  };

  const hurried = (): string | undefined => (rotation.hurry === undefined ? undefined : `cut short: ${rotation.hurry}`);
  const before = hurried();
  if (before !== undefined) return before;
  let answer = await ask();
  let purged = !found.canPurge;
  let isAtCeiling = false;
  while (!isEnough(rotation, answer)) {
    if (answer.kind === "used" && !purged) {
      await rotation.step("purgeCache", () => purge(rotation, answer.note));
      purged = true;
    }
    const shown = answer;
    const wait = isAtCeiling
      ? await askPerson(rotation, found, shown)
      : await waitForData(rotation, { found, key, shown, ceilingMs });
    const hurry = hurried();
    if (hurry !== undefined) return hurry;
    answer = await ask();
    if (isEnough(rotation, answer)) break;
    if (wait !== undefined) {
      // What came after the use that was shown was not accepted.
      if (!isNewUse(shown, answer)) return accepted(rotation, wait.by, answer);
      record.warn(
        `the old key was used after ${wait.by} had accepted its use until ${shown.lastUsed ?? "then"}: asked again`,
      );
    }
    if (Date.now() < ceilingMs) continue;
    if (decisionAtCeiling(answer, found) === "revoke") {
      if (answer.kind !== "used") record.unknown("use of the old key");
      return `the ceiling of ${found.policy.graceCeiling.after} is reached, and policy says revoke: ${answer.note}`;
    }
    isAtCeiling = true;
  }
  if (answer.newKeyRequests <= rotation.swap.probes) record.unknown("clients' use of the new key");
  return answer.note;
}

/** Idle, and clients were seen on the new key; or nobody had used the old one, so that our own probe has to do. */
function isEnough(rotation: Rotation, answer: IdleAnswer): boolean {
  if (answer.kind !== "idle") return false;
  return answer.newKeyRequests > rotation.swap.probes || answer.clientsBefore === "no";
}

function isNewUse(shown: IdleAnswer, now: IdleAnswer): boolean {
  if (now.lastUsed === undefined) return false;
  return shown.lastUsed === undefined || Date.parse(now.lastUsed) > Date.parse(shown.lastUsed);
}

function accepted(rotation: Rotation, by: string, answer: IdleAnswer): string {
  if (answer.kind === "unknown") rotation.record.unknown("use of the old key");
  if (answer.newKeyRequests <= rotation.swap.probes) rotation.record.unknown("clients' use of the new key");
  return `use accepted by ${by}: ${answer.note}`;
}

/** Waits until the provider's data can settle it. Returns who accepted the use that was shown, if somebody did. */
async function waitForData(
  rotation: Rotation,
  { found, key, shown, ceilingMs }: { found: Inspection; key: NewKey; shown: IdleAnswer; ceilingMs: number },
): Promise<{ by: string } | undefined> {
  const { probeAt, askAt } = schedule(shown, ceilingMs);
  return rotation.waiting(
    {
      for:
        shown.kind === "idle"
          ? `clients to be seen on the new key, since they used the old one before (${shown.note})`
          : `the old key to be idle for ${found.policy.quietPeriod} (${shown.note})`,
      until: new Date(ceilingMs).toISOString(),
      then: `the provider is asked again at ${new Date(askAt).toISOString()}; at the ceiling: ${
        decisionAtCeiling(shown, found) === "revoke" ? "the old key is revoked" : "a person is asked"
      }`,
      action: `nothing, or keyturn approve ${rotation.of.slot} to accept the use it shows`,
      asks: { kind: "approval", of: "use", accepts: usedOf(shown) },
    },
    async (wait) => {
      await sleepUntil(rotation, wait, probeAt, "until the quiet period can be over");
      if (probeAt < ceilingMs && !isOver(rotation, wait)) await probe(rotation, found, key);
      await sleepUntil(rotation, wait, askAt, "until the provider's data has come that far");
      const decision = rotation.mailbox.decisionFor(wait);
      return decision === undefined ? undefined : { by: decision.said };
    },
  );
}

/** At the ceiling: a person accepts the use that is shown, or the rotation stops with both keys alive. */
async function askPerson(
  rotation: Rotation,
  found: Inspection,
  shown: IdleAnswer,
): Promise<{ by: string } | undefined> {
  const missing =
    shown.kind === "idle" || shown.newKeyNeverReported === true
      ? "clients used the old key before, and none was seen on the new one"
      : shown.note;
  const decision = await rotation.mailbox.person({
    for: `a person to accept the use of the old key: ${missing}`,
    asks: { kind: "approval", of: "use", accepts: usedOf(shown) },
    deadline: found.policy.personDeadline,
    orElse: "nobody accepted the use of the old key in time: both keys stay alive",
  });
  return decision === undefined ? undefined : { by: decision.said };
}

function usedOf({ lastUsed }: IdleAnswer): string {
  return lastUsed ?? "no use seen";
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

function isOver(rotation: Rotation, wait: Wait): boolean {
  return rotation.mailbox.decisionFor(wait) !== undefined || rotation.hurry !== undefined;
}

/** Sleeps until then, or until somebody approves or calls the old key compromised. */
async function sleepUntil(rotation: Rotation, wait: Wait, at: number, summary: string): Promise<void> {
  const ms = at - Date.now();
  if (ms > 0) await condition(() => isOver(rotation, wait), ms, { summary });
}

/** One request of ours through the slot: its bucket shows how far the provider's data has come. One that fails is noted. */
async function probe(rotation: Rotation, { policy }: Inspection, key: NewKey): Promise<void> {
  try {
    const verified = await propagation.verifyThroughGateway({
      ...rotation.of,
      alias: "real",
      goodAnswers: 1,
      until: rotation.deadline(policy.propagationBudget),
      installedKeyId: key.id,
    });
    rotation.swap.probes += verified.probes;
  } catch (error) {
    if (isCancellation(error) || failureType(error) === "SlotChanged") throw error;
    rotation.record.warn(`a probe through ${rotation.of.slot} failed: ${failureMessage(error)}`);
  }
}

/** Unknown use is policy's where the provider reports no key at all; where it reports others and not the new one, a person's. */
function decisionAtCeiling(answer: IdleAnswer, { policy: { graceCeiling } }: Inspection): "revoke" | "ask" {
  if (answer.kind === "used") return graceCeiling.ifUsed;
  if (answer.kind === "idle" || answer.newKeyNeverReported === true) return "ask";
  return graceCeiling.ifUnknown;
}

/** A request that the old key began may still be under way: streams, sockets. */
async function outlastRequests(rotation: Rotation, { policy }: Inspection): Promise<void> {
  const { lastUsed } = rotation.record.times;
  const overMs = untouchedUntil(policy, {
    cacheWaitOver: rotation.swap.cachesOverAt,
    ...(lastUsed === undefined ? {} : { lastUsed: Math.min(Date.parse(lastUsed), Date.now()) }),
  });
  const ms = overMs - Date.now();
  if (ms <= 0 || rotation.hurry !== undefined) return;
  await rotation.waiting(
    {
      for: `requests that began with the old key to end (longestRequest ${policy.longestRequest})`,
      until: new Date(overMs).toISOString(),
      then: "the old key is switched off or revoked",
    },
    () => condition(() => rotation.hurry !== undefined, ms, { summary: "the longest request" }),
  );
}
