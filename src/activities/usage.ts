import { inMs, readableMs } from "../domain/duration.ts";
import { type IdleFacts, judgeIdle } from "../domain/idle.ts";
import type { IdleAnswer, IdleOrder } from "./contract.ts";
import { canManage } from "../providers/provider.ts";
import type { Dependencies } from "./dependencies.ts";
import { missingOf } from "./managed.ts";

export const usageActivities = (deps: Dependencies) => ({
  /** Asks the provider once whether the old key is idle; unknown where no credential may ask. Only reads, so repeating is safe. */
  async checkIdle({ slot, oldKeyId, newKeyId, installedAt, since }: IdleOrder): Promise<IdleAnswer> {
    const { policy, provider } = deps.slotAccess(slot);
    if (!canManage(provider)) {
      return { kind: "unknown", note: `no use can be read: ${missingOf({ provider })}`, newKeyRequests: 0 };
    }
    const quietPeriodMs = inMs(policy.quietPeriod);
    const installed = Date.parse(installedAt);
    const report = await provider.readUsage({
      keyIds: [oldKeyId, newKeyId],
      from: new Date(Math.min(installed, Date.parse(since)) - quietPeriodMs),
      to: new Date(),
    });
    const old = await provider.findKey(oldKeyId);
    const facts: IdleFacts = {
      now: Date.now(),
      oldKeyId,
      newKeyId,
      installedAt: installed,
      since: Date.parse(since),
      quietPeriodMs,
      usageLagMs: inMs(policy.usageLag),
      bucketMs: report.bucketMs,
      uses: report.buckets.map(({ from, to, ...use }) => ({ ...use, from: from.getTime(), to: to.getTime() })),
      ...(old?.lastUsedAt === undefined ? {} : { oldKeyLastUsedAt: old.lastUsedAt.getTime() }),
      ...(report.refreshedAt === undefined ? {} : { refreshedAt: report.refreshedAt.getTime() }),
    };
    const verdict = judgeIdle(facts);
    const newKeyRequests = facts.uses
      .filter(({ keyId, from }) => keyId === newKeyId && from >= installed)
      .reduce((sum, { requests }) => sum + requests, 0);
    // What was seen in use stays used, whatever names the rest of the usage bears.
    const unknown = report.perKey === false && verdict.kind !== "used";
    return {
      kind: unknown ? "unknown" : verdict.kind,
      note: unknown ? "the provider's usage names none of these keys" : describe(verdict, facts),
      newKeyRequests,
      ...(report.unknownSurfaces.length === 0 ? {} : { unknownSurfaces: report.unknownSurfaces }),
      ...(verdict.lastUsed === undefined ? {} : { lastUsed: time(verdict.lastUsed) }),
      ...(verdict.horizon === undefined ? {} : { horizon: time(verdict.horizon) }),
      ...(verdict.kind === "idle" ? {} : { probeAt: time(verdict.probeAt), askAt: time(verdict.askAt) }),
    };
  },
});

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
