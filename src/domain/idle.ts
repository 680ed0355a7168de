/**
 * Whether a key is idle, judged from data that comes late. See docs/rotation.md, "awaitIdle". Times are milliseconds
 * since the epoch.
 */

export interface KeyUse {
  keyId: string;
  from: number;
  to: number;
  /** At least so many. */
  requests: number;
  tokens?: number;
}

/** A row that names a key is use of it, unless it says zero: a provider that counts only tokens counts no requests. */
export function isUse({ requests, tokens = 0 }: Pick<KeyUse, "requests" | "tokens">): boolean {
  return requests > 0 || tokens > 0;
}

export interface IdleFacts {
  now: number;
  oldKeyId: string;
  newKeyId: string;
  installedAt: number;
  /** Since when the old key must have been quiet at the earliest: the begin of the wait. */
  since: number;
  quietPeriodMs: number;
  usageLagMs: number;
  bucketMs: number;
  uses: KeyUse[];
  /** The old key's `last_used_at`, where the provider has one. */
  oldKeyLastUsedAt?: number;
  /** Until when the provider itself says its data is complete. */
  refreshedAt?: number;
}

export type IdleVerdict =
  /** `lastUsed` is the end of the last bucket that shows use of the old key, where one was ever seen. */
  | { kind: "idle"; horizon: number; lastUsed?: number }
  /** In use since the wait began, whether or not the data shows the new key yet. */
  | { kind: "used"; horizon?: number; lastUsed: number; askAt: number; probeAt: number }
  /** Not enough of the data has arrived to judge. */
  | { kind: "too early"; horizon?: number; lastUsed?: number; askAt: number; probeAt: number };

/**
 * Up to when the provider's data counts: the end of the newest bucket that shows use of the new key, or the
 * provider's own word, and never later than now less the usage lag, each less one bucket: rows of a bucket come the lag
 * after its end, and neighbours may come in the wrong order. Nothing where the data shows no use of the new key since
 * it was installed: then "no rows" says nothing about the old key either.
 */
export function horizonOf(facts: IdleFacts): number | undefined {
  const newest = newKeySeenUntil(facts);
  if (newest === undefined) return undefined;
  return Math.min(facts.refreshedAt ?? newest, facts.now - facts.usageLagMs) - facts.bucketMs;
}

/** The end of the newest bucket, begun after the install, in which the new key served a request. */
export function newKeySeenUntil({ uses, newKeyId, installedAt }: IdleFacts): number | undefined {
  return latest(uses.filter((use) => use.keyId === newKeyId && isUse(use) && use.from >= installedAt));
}

/** When the old key was last used, by the usage buckets and by its `last_used_at`. */
export function oldKeyLastUse({ uses, oldKeyId, oldKeyLastUsedAt }: IdleFacts): number | undefined {
  const inBuckets = latest(uses.filter((use) => use.keyId === oldKeyId && isUse(use)));
  if (oldKeyLastUsedAt === undefined) return inBuckets;
  return Math.max(oldKeyLastUsedAt, inBuckets ?? oldKeyLastUsedAt);
}

/**
 * Judges the old key. Idle means: no use for the whole quiet period, and the whole period before the horizon. Else
 * says when it could count as idle at the earliest (`askAt`), and when a probe of ours should make the provider show
 * that its data has come that far (`probeAt`).
 */
export function judgeIdle(facts: IdleFacts): IdleVerdict {
  const lastUsed = oldKeyLastUse(facts);
  const horizon = horizonOf(facts);
  const quietFrom = Math.max(facts.since, lastUsed ?? facts.since);
  const quietUntil = quietFrom + facts.quietPeriodMs;
  if (horizon !== undefined && quietUntil <= horizon) {
    return { kind: "idle", horizon, ...(lastUsed === undefined ? {} : { lastUsed }) };
  }
  const plan = nextAsk({ quietUntil, now: facts.now, usageLagMs: facts.usageLagMs, bucketMs: facts.bucketMs });
  const shown = horizon === undefined ? {} : { horizon };
  if (lastUsed !== undefined && lastUsed > facts.since) return { kind: "used", ...shown, lastUsed, ...plan };
  return { kind: "too early", ...shown, ...(lastUsed === undefined ? {} : { lastUsed }), ...plan };
}

/**
 * When to probe and when to ask so that one answer can settle it: the probe's bucket must end a bucket after the quiet
 * period, and the question must come the usage lag after that.
 */
function nextAsk(facts: { quietUntil: number; now: number; usageLagMs: number; bucketMs: number }): {
  probeAt: number;
  askAt: number;
} {
  const probeAt = Math.max(facts.quietUntil + facts.bucketMs, facts.now);
  return { probeAt, askAt: probeAt + facts.usageLagMs + facts.bucketMs };
}

/** Requests in these rows, at least: a row that counts only tokens is one. */
export function requestsIn(uses: KeyUse[]): number {
  return uses.reduce((sum, use) => sum + (isUse(use) ? Math.max(1, use.requests) : 0), 0);
}

/** What tells whether clients used the old key before the new one was installed. */
export interface BeforeFacts {
  oldKeyId: string;
  installedAt: number;
  /** How far back is looked. */
  lookBackMs: number;
  /** Requests of ours with the old key in that time: they are nobody's use. */
  probes: number;
  uses: KeyUse[];
  /** Up to when the provider's data counts, where it does. */
  horizon?: number;
}

/** Whether clients used the old key in the time before the install. "No" takes data that is good until then. */
export function usedBefore(facts: BeforeFacts): "yes" | "no" | "unknown" {
  const { oldKeyId, installedAt, lookBackMs, probes, uses, horizon } = facts;
  const before = uses.filter(
    ({ keyId, from, to }) => keyId === oldKeyId && from < installedAt && to > installedAt - lookBackMs,
  );
  if (requestsIn(before) > probes) return "yes";
  return horizon !== undefined && horizon >= installedAt ? "no" : "unknown";
}

/**
 * Whether rows of other keys show that the provider's data has come beyond the install, so that rows of the new key,
 * which we used at once, should have come too. Rows younger than the usage lag tell nothing: neighbours may come in the
 * wrong order.
 */
export function othersReported({ uses, newKeyId, installedAt, now, usageLagMs, bucketMs }: IdleFacts): boolean {
  const settled = now - usageLagMs - bucketMs;
  return uses.some((use) => use.keyId !== newKeyId && isUse(use) && use.from >= installedAt && use.to <= settled);
}

function latest(uses: KeyUse[]): number | undefined {
  return uses.length === 0 ? undefined : uses.reduce((end, use) => Math.max(end, use.to), 0);
}
