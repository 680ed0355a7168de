import { type Duration, durationOf, inMs, readableMs } from "./duration.ts";
import type { ProviderName } from "./slot.ts";

export type AtCeiling = "revoke" | "ask";

/** How one slot is rotated: the inventory's `policy`, with the slot's own values over it. See keyturn.example.yaml. */
export interface Policy {
  every: Duration;
  keyLife: Duration;
  settleBudget: Duration;
  alive: RowRule;
  propagationWait: Duration;
  propagationBudget: Duration;
  goodAnswers: number;
  probePath: "native" | "compat";
  cacheInvalidationWait: Duration;
  quietPeriod: Duration;
  usageLag: Duration;
  graceCeiling: { after: Duration; ifUnknown: AtCeiling; ifUsed: AtCeiling };
  soak: Duration;
  /** The longest that one request of a client lasts: so long after its last possible use the old key is not touched. */
  longestRequest: Duration;
  personDeadline: Duration;
  revokeAlertAfter: Duration;
  dead: RowRule;
  /** For Google's standard keys, which die slowly; elsewhere there are none. */
  deadStandard?: RowRule;
  aliases: "auto" | "always" | "never";
  approval: "never" | "before-revoke" | "before-install";
  emergency: {
    strategy: "swap-first" | "cut-first";
    installWithin: Duration;
    revokeWithin: Duration;
    atDeadline: "revoke" | "hold";
  };
}

/** So many like answers in a row that span at least this long: a key counts as alive after good ones, as dead after refusals. */
export interface RowRule {
  answers: number;
  span: Duration;
}

/** One good answer is enough: of a key that was believed before, or where there is no time for more. */
export const oneAnswer: RowRule = { answers: 1, span: "0s" as Duration };

/** The row that lets a new key into a slot; in an emergency over a tenth of `installWithin` at most, so that the clock is kept. */
export function aliveRule({ alive, emergency }: Policy, { emergency: hurried }: { emergency: boolean }): RowRule {
  const most = durationOf(inMs(emergency.installWithin) / 10);
  return hurried && inMs(alive.span) > inMs(most) ? { ...alive, span: most } : alive;
}

const rowPattern = /^(?<answers>[1-9]\d?) over (?<span>\d+(?:\.\d+)?(?:ms|s|m|h))$/;

/** Reads `"5 over 30s"`; nothing when the text is not such a rule. */
export function parseRowRule(text: string): RowRule | undefined {
  const groups = rowPattern.exec(text)?.groups;
  if (groups === undefined) return undefined;
  return { answers: Number(groups["answers"]), span: groups["span"] as Duration };
}

/** How long to pause between two answers of a row, so that they are spread over its span. */
export function pauseInRowMs({ answers, span }: RowRule): number {
  return Math.max(20, Math.min(inMs(span) / Math.max(1, answers - 1), 15_000));
}

/** Whether the answers that came so far, at these times, are row enough by now. */
export function isRow(at: number[], { answers, span }: RowRule, now: number): boolean {
  const [first = now] = at;
  return at.length >= answers && now - first >= inMs(span);
}

/** How long a key must at least still live when it is installed: one period and a day, so that the next rotation finds it alive. */
export function leastLifeMs(policy: Pick<Policy, "every">): number {
  return inMs(policy.every) + 86_400_000;
}

/**
 * From when on the old key may be switched off or revoked, in milliseconds since the epoch: a request that began with it
 * at the last possible moment is over by then. That moment is the end of the cache wait, or the last use seen.
 */
export function untouchedUntil(
  { longestRequest }: Pick<Policy, "longestRequest">,
  { cacheWaitOver, lastUsed = cacheWaitOver }: { cacheWaitOver: number; lastUsed?: number },
): number {
  return Math.max(cacheWaitOver, lastUsed) + inMs(longestRequest);
}

/**
 * How long the death of a revoked key is watched for before it is reported as not confirmed: ten spans of the rule,
 * since a provider's tail of death was seen to be as long as the rule's own span.
 */
export function deadBudgetMs({ dead }: Pick<Policy, "dead">): number {
  return inMs(dead.span) * 10;
}

/**
 * The longest a rotation may take by its own rules, in milliseconds: the sum of what bounds its waits. A start whose
 * execution timeout is shorter would be killed half-way and is refused.
 */
export function longestRotationMs(
  policy: Policy,
  { byPerson, revokedByPerson = false }: { byPerson: boolean; revokedByPerson?: boolean },
): number {
  const personMs = inMs(policy.personDeadline);
  const asks = policy.graceCeiling.ifUnknown === "ask" || policy.graceCeiling.ifUsed === "ask";
  return (
    (byPerson ? personMs : inMs(policy.settleBudget)) +
    inMs(policy.alive.span) +
    (revokedByPerson ? personMs : 0) +
    inMs(policy.propagationWait) +
    inMs(policy.propagationBudget) * 3 +
    inMs(policy.cacheInvalidationWait) +
    inMs(policy.graceCeiling.after) +
    (asks ? personMs : 0) +
    (policy.approval === "never" ? 0 : personMs) +
    // A use that is accepted at the ceiling may have begun a moment before.
    inMs(policy.longestRequest) +
    inMs(policy.soak) +
    deadBudgetMs(policy)
  );
}

/** What the decision whether to rotate now looks at. Times in milliseconds since the epoch. */
export interface DueFacts {
  onlyIfDue: boolean;
  now: number;
  /** When the held key was installed or made, where that is known. */
  heldSince?: number;
  /** When the held key expires, where it does. */
  heldUntil?: number;
  every: Duration;
}

/**
 * Why a rotation starts now, or why it doesn't: the first check that has something to say decides. The reason is what
 * logs, the result and `keyturn status` show.
 */
export function decideDue(facts: DueFacts): { due: boolean; reason: string } {
  const checks: ((facts: DueFacts) => { due: boolean; reason: string } | undefined)[] = [
    ({ onlyIfDue }) => (onlyIfDue ? undefined : { due: true, reason: "asked for" }),
    ({ heldSince }) => (heldSince === undefined ? { due: true, reason: "the age of the key is unknown" } : undefined),
    ({ heldUntil, now, every }) =>
      heldUntil !== undefined && heldUntil - now < inMs(every) / 2
        ? { due: true, reason: expiryOf(heldUntil - now) }
        : undefined,
    ({ heldSince = 0, now, every }) =>
      now - heldSince < inMs(every)
        ? { due: false, reason: `the key is ${readableMs(now - heldSince)} old, and ${every} is its period` }
        : undefined,
  ];
  for (const check of checks) {
    const decision = check(facts);
    if (decision !== undefined) return decision;
  }
  return { due: true, reason: `the key is older than ${facts.every}` };
}

function expiryOf(leftMs: number): string {
  return leftMs > 0 ? `the key expires in ${readableMs(leftMs)}` : `the key expired ${readableMs(-leftMs)} ago`;
}

/**
 * The lives to ask for a key that is about to be installed, longest first: the policy's, then halved while the
 * organisation refuses it as too long, never under `every` and a day.
 */
export function keyLives(policy: Pick<Policy, "keyLife" | "every">): Duration[] {
  const least = leastLifeMs(policy);
  const lives: Duration[] = [];
  for (let ms = inMs(policy.keyLife); ms > least; ms /= 2) lives.push(durationOf(ms));
  lives.push(durationOf(least));
  return lives;
}

/** The values of `policy` where the inventory says nothing. They are ours; reference: docs/rotation.md. */
export const policyDefaults = {
  every: "90d",
  keyLife: "365d",
  settleBudget: { openai: "15m", anthropic: "15m", google: "10m" },
  alive: { openai: "5 over 10s", anthropic: "5 over 10s", google: "10 over 2m" },
  propagationWait: "30s",
  propagationBudget: "2m",
  goodAnswers: 5,
  probePath: "native",
  cacheInvalidationWait: "10m",
  quietPeriod: "15m",
  usageLag: { openai: "15m", anthropic: "10m", google: "35m" },
  graceCeiling: { after: "24h", ifUnknown: "revoke", ifUsed: "ask" },
  soak: "15m",
  longestRequest: "15m",
  personDeadline: "7d",
  revokeAlertAfter: "1h",
  dead: { openai: "5 over 30s", anthropic: "5 over 30s", google: "10 over 2m", "google-standard": "10 over 30m" },
  aliases: "auto",
  approval: "never",
  emergency: { strategy: "swap-first", installWithin: "5m", revokeWithin: "1h", atDeadline: "revoke" },
} as const;

/** The inventory's word for each provider, where it gives a value by provider. */
export const inventoryNames: Record<ProviderName, "openai" | "google" | "anthropic"> = {
  openai: "openai",
  gemini: "google",
  anthropic: "anthropic",
};
