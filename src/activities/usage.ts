import { inMs, readableMs } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import {
  type IdleFacts,
  judgeIdle,
  type KeyUse,
  newKeySeenUntil,
  othersReported,
  requestsIn,
  usedBefore,
} from "../domain/idle.ts";
import {
  canManage,
  type KeyRecord,
  type ManagedProvider,
  type UsageBucket,
  type UsageReport,
} from "../providers/provider.ts";
import type { IdleAnswer, IdleOrder } from "./contract.ts";
import type { Dependencies } from "./dependencies.ts";
import { findSurely, missingOf } from "./managed.ts";

/** How far back clients are looked for: a day, and never more buckets than a day has minutes. */
const lookBackMs = 24 * 3_600_000;
const lookBackBuckets = 1_440;

/** Of how many other keys use is read, to see whether the provider reports any at all. */
const othersAsked = 5;

export const usageActivities = (deps: Dependencies) => ({
  /** Asks the provider once whether the old key is idle; unknown where no credential may ask. Only reads, so repeating is safe. */
  async checkIdle({ slot, oldKeyId, newKeyId, installedAt, since, ...order }: IdleOrder): Promise<IdleAnswer> {
    const { policy, provider, secondLookMs } = deps.slotAccess(slot);
    if (!canManage(provider)) {
      return {
        kind: "unknown",
        note: `no use can be read: ${missingOf({ provider })}`,
        newKeyRequests: 0,
        clientsBefore: "unknown",
      };
    }
    const quietPeriodMs = inMs(policy.quietPeriod);
    const installed = Date.parse(installedAt);
    const ask = (): Promise<UsageReport> =>
      provider.readUsage({
        keyIds: [oldKeyId, newKeyId],
        from: new Date(Math.min(installed, Date.parse(since)) - quietPeriodMs),
        to: new Date(),
      });
    let report = await ask();
    const old = (await findSurely({ provider, secondLookMs }, [oldKeyId])).get(oldKeyId);
    // What was not shown while its use was asked for, and is there, was not asked about.
    if (isMissed(report, old)) report = await ask();
    if (isMissed(report, old)) {
      throw new RotationFailure(
        "Unavailable",
        `the use of ${oldKeyId} was not told: its provider did not show the key`,
      );
    }
    const facts: IdleFacts = {
      now: Date.now(),
      oldKeyId,
      newKeyId,
      installedAt: installed,
      since: Date.parse(since),
      quietPeriodMs,
      usageLagMs: inMs(policy.usageLag),
      bucketMs: report.bucketMs,
      uses: usesOf(report.buckets),
      ...(old?.lastUsedAt === undefined ? {} : { oldKeyLastUsedAt: old.lastUsedAt.getTime() }),
      ...(report.refreshedAt === undefined ? {} : { refreshedAt: report.refreshedAt.getTime() }),
    };
    const verdict = judgeIdle(facts);
    const perKey = report.perKey !== false;
    // What was seen in use stays used, whatever names the rest of the usage bears.
    const unknown = !perKey && verdict.kind !== "used";
    const silent = perKey && (await isNeverReported(provider, facts));
    return {
      kind: unknown ? "unknown" : verdict.kind,
      note: unknown ? "the provider's usage names none of these keys" : describe(verdict, facts),
      newKeyRequests: requestsIn(facts.uses.filter(({ keyId, from }) => keyId === newKeyId && from >= installed)),
      clientsBefore: perKey ? await clientsBefore(provider, facts, verdict.horizon, order.oldKeyProbes) : "unknown",
      ...(silent ? { newKeyNeverReported: true } : {}),
      ...(report.unknownSurfaces.length === 0 ? {} : { unknownSurfaces: report.unknownSurfaces }),
      ...(verdict.lastUsed === undefined ? {} : { lastUsed: time(verdict.lastUsed) }),
      ...(verdict.horizon === undefined ? {} : { horizon: time(verdict.horizon) }),
      ...(verdict.kind === "idle" ? {} : { probeAt: time(verdict.probeAt), askAt: time(verdict.askAt) }),
    };
  },
});

function isMissed({ notShown = [] }: UsageReport, old: KeyRecord | undefined): boolean {
  return old !== undefined && notShown.includes(old.id);
}

/** Whether clients used the old key in the day before the install: from the rows that are there, else from the whole day's. */
async function clientsBefore(
  provider: ManagedProvider,
  { oldKeyId, installedAt, bucketMs, uses }: IdleFacts,
  horizon: number | undefined,
  probes = 1,
): Promise<IdleAnswer["clientsBefore"]> {
  const facts = {
    oldKeyId,
    installedAt,
    lookBackMs: Math.min(lookBackMs, lookBackBuckets * bucketMs),
    probes,
    ...(horizon === undefined ? {} : { horizon }),
  };
  if (usedBefore({ ...facts, uses }) === "yes") return "yes";
  const { buckets, notShown } = await provider.readUsage({
    keyIds: [oldKeyId],
    from: new Date(installedAt - facts.lookBackMs),
    to: new Date(installedAt),
  });
  return notShown === undefined ? usedBefore({ ...facts, uses: usesOf(buckets) }) : "unknown";
}

/** Whether the provider reports use of other keys since the install, and none of the new one, though it had the time. */
async function isNeverReported(provider: ManagedProvider, facts: IdleFacts): Promise<boolean> {
  if (newKeySeenUntil(facts) !== undefined) return false;
  if (othersReported(facts)) return true;
  const { now, installedAt, usageLagMs, bucketMs, oldKeyId, newKeyId } = facts;
  const settled = now - usageLagMs - bucketMs;
  if (settled <= installedAt) return false;
  const others = (await provider.listKeys())
    .filter(({ id, state }) => state === "active" && id !== oldKeyId && id !== newKeyId)
    .toSorted((one, other) => lastSign(other) - lastSign(one));
  if (others.some(({ lastUsedAt }) => isBetween(lastUsedAt, installedAt, settled))) return true;
  const keyIds = others.slice(0, othersAsked).map(({ id }) => id);
  if (keyIds.length === 0) return false;
  const { buckets } = await provider.readUsage({ keyIds, from: new Date(installedAt), to: new Date(settled) });
  return othersReported({ ...facts, uses: usesOf(buckets) });
}

/** When a key was last seen to be somebody's concern: keys of today's traffic come first. */
function lastSign({ lastUsedAt, createdAt }: KeyRecord): number {
  return (lastUsedAt ?? createdAt).getTime();
}

function isBetween(at: Date | undefined, from: number, to: number): boolean {
  return at !== undefined && at.getTime() >= from && at.getTime() <= to;
}

function usesOf(buckets: UsageBucket[]): KeyUse[] {
  return buckets.map(({ from, to, ...use }) => ({ ...use, from: from.getTime(), to: to.getTime() }));
}

function describe(verdict: ReturnType<typeof judgeIdle>, { now, quietPeriodMs }: IdleFacts): string {
  const last = verdict.lastUsed === undefined ? "no use seen" : `last used ${time(verdict.lastUsed)}`;
  const horizon =
    verdict.horizon === undefined
      ? "the provider's data does not show the new key yet"
      : `the provider's data is good until ${time(verdict.horizon)}, ${readableMs(now - verdict.horizon)} ago`;
  return verdict.kind === "idle"
    ? `${last}, quiet for ${readableMs(quietPeriodMs)}; ${horizon}`
    : `${last}; ${horizon}`;
}

function time(ms: number): string {
  return new Date(ms).toISOString();
}
