import type { Dependencies } from "../../src/activities/dependencies.ts";
import { managed } from "../../src/activities/managed.ts";
import type { RotationActivities } from "../../src/activities/index.ts";
import { inMs } from "../../src/domain/duration.ts";
import type { SandboxOptions } from "../../src/sandbox/index.ts";

/** Broken ways to rotate, which must lose requests: else the sandbox would prove nothing. */

/** All waits nothing, and the idle check overruled at once. */
export const noWaits = {
  propagationWait: "0ms",
  cacheInvalidationWait: "0ms",
  quietPeriod: "0ms",
  usageLag: "0ms",
  goodAnswers: 1,
  graceCeiling: { after: "0ms", ifUnknown: "revoke", ifUsed: "revoke" },
};

/** Usage that comes later than the quiet period is long. */
export const lateUsage: SandboxOptions = { usageLag: { openai: { minMs: 20 * 60_000, jitterMs: 60_000 } } };

export function lateUsagePolicy(timeScale: number): Record<string, unknown> {
  return { usageLag: `${Math.round((25 * 60_000) / timeScale)}ms` };
}

/** Takes a quiet period without rows for a quiet period without use. */
export function idleByNoRows(dependencies: Dependencies): Partial<RotationActivities> {
  return {
    async checkIdle({ slot, oldKeyId, newKeyId }) {
      const access = dependencies.slotAccess(slot);
      const { policy } = access;
      const now = Date.now();
      const quietMs = inMs(policy.quietPeriod);
      const { buckets } = await managed(access).readUsage({
        keyIds: [oldKeyId, newKeyId],
        from: new Date(now - quietMs),
        to: new Date(now),
      });
      const used = buckets.some(({ keyId, requests }) => keyId === oldKeyId && requests > 0);
      const later = new Date(now + quietMs / 5).toISOString();
      if (used)
        return {
          kind: "used",
          note: "rows",
          newKeyRequests: 1_000,
          clientsBefore: "yes",
          probeAt: later,
          askAt: later,
        };
      return { kind: "idle", note: "no rows", newKeyRequests: 1_000, clientsBefore: "yes" };
    },
  };
}
