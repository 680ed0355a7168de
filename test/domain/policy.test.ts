import { describe, expect, test } from "vitest";

import { type Duration, inMs } from "../../src/domain/duration.ts";
import {
  aliveRule,
  deadBudgetMs,
  decideDue,
  type DueFacts,
  keyLives,
  leastLifeMs,
  longestRotationMs,
  parseRowRule,
  type Policy,
  untouchedUntil,
} from "../../src/domain/policy.ts";

const day = 86_400_000;
const hour = 3_600_000;
const minute = 60_000;
const every = "90d" as Duration;

const policy: Policy = {
  every,
  keyLife: "365d" as Duration,
  settleBudget: "15m" as Duration,
  alive: { answers: 5, span: "10s" as Duration },
  propagationWait: "30s" as Duration,
  propagationBudget: "2m" as Duration,
  goodAnswers: 5,
  probePath: "native",
  cacheInvalidationWait: "10m" as Duration,
  quietPeriod: "15m" as Duration,
  usageLag: "15m" as Duration,
  graceCeiling: { after: "24h" as Duration, ifUnknown: "revoke", ifUsed: "ask" },
  soak: "15m" as Duration,
  longestRequest: "15m" as Duration,
  personDeadline: "7d" as Duration,
  revokeAlertAfter: "1h" as Duration,
  dead: { answers: 5, span: "30s" as Duration },
  aliases: "auto",
  approval: "never",
  emergency: {
    strategy: "swap-first",
    installWithin: "5m" as Duration,
    revokeWithin: "1h" as Duration,
    atDeadline: "revoke",
  },
};

describe("whether a rotation is due: the first check with something to say decides", () => {
  const now = Date.parse("2026-11-20T10:00:00Z");
  const facts: DueFacts = { onlyIfDue: true, now, every, heldSince: now - day, heldUntil: now + 300 * day };

  type Change = { [Name in keyof DueFacts]?: DueFacts[Name] | undefined };
  test.each<[string, Change, { due: boolean; reason: RegExp }]>([
    ["asked for, however young the key", { onlyIfDue: false }, { due: true, reason: /^asked for$/ }],
    ["the age is unknown", { heldSince: undefined }, { due: true, reason: /age of the key is unknown/ }],
    [
      "it expires before half a period is over",
      { heldUntil: now + 45 * day - minute },
      { due: true, reason: /expires in 44d/ },
    ],
    ["it has expired", { heldUntil: now - day }, { due: true, reason: /expired 1d ago/ }],
    [
      "it is young and lives long enough",
      { heldUntil: now + 45 * day },
      { due: false, reason: /1d old, and 90d is its period/ },
    ],
    ["a day is missing", { heldSince: now - 89 * day }, { due: false, reason: /89d old/ }],
    ["exactly one period has passed", { heldSince: now - 90 * day }, { due: true, reason: /older than 90d/ }],
    ["it never expires and is old", { heldSince: now - 400 * day, heldUntil: undefined }, { due: true, reason: /90d/ }],
  ])("%s", (_, change, { due, reason }) => {
    const merged = Object.fromEntries(
      Object.entries({ ...facts, ...change }).filter(([, value]) => value !== undefined),
    );
    expect(decideDue(merged as unknown as DueFacts)).toEqual({ due, reason: expect.stringMatching(reason) as string });
  });
});

describe("how long a key may live", () => {
  test("asks for the policy's life, then halves it, and ends at one period and a day", () => {
    expect(keyLives(policy).map((life) => inMs(life) / day)).toEqual([365, 182.5, 91.25, 91]);
    expect(leastLifeMs(policy)).toBe(91 * day);
  });

  test.each(["1d", "30d", "91d", "92d", "182d", "400d", "1000d"])("never goes under the least with %s", (keyLife) => {
    const lives = keyLives({ every, keyLife: keyLife as Duration }).map(inMs);
    expect(Math.min(...lives)).toBe(91 * day);
    expect(lives.at(-1)).toBe(91 * day);
    expect(lives).toEqual(lives.toSorted((a, b) => b - a));
    expect(new Set(lives).size).toBe(lives.length);
  });
});

describe("the longest a rotation may take", () => {
  const sum =
    15 * minute + 10_000 + 30_000 + 3 * 2 * minute + 10 * minute + 24 * hour + 15 * minute + 15 * minute + 5 * minute;

  test("is the sum of what bounds its waits, with a person's time where one may be asked", () => {
    expect(longestRotationMs(policy, { byPerson: false })).toBe(sum + 7 * day);
  });

  test("leaves the person out where policy never asks", () => {
    const cut: Policy = { ...policy, graceCeiling: { ...policy.graceCeiling, ifUsed: "revoke" } };
    expect(longestRotationMs(cut, { byPerson: false })).toBe(sum);
    expect(longestRotationMs({ ...cut, approval: "before-revoke" }, { byPerson: false })).toBe(sum + 7 * day);
  });

  test("counts the wait for a hand-issued key instead of the settling", () => {
    expect(longestRotationMs(policy, { byPerson: true })).toBe(sum + 14 * day - 15 * minute);
  });

  test("watches for a death ten spans long", () => {
    expect(deadBudgetMs(policy)).toBe(5 * minute);
  });
});

describe("the longest request of a client", () => {
  const cacheWaitOver = 100 * minute;

  test("keeps the old key untouched for its time after the cache wait, or after the last use seen", () => {
    expect(untouchedUntil(policy, { cacheWaitOver })).toBe(115 * minute);
    expect(untouchedUntil(policy, { cacheWaitOver, lastUsed: 40 * minute })).toBe(115 * minute);
    expect(untouchedUntil(policy, { cacheWaitOver, lastUsed: 130 * minute })).toBe(145 * minute);
  });
});

describe("the row of good answers that lets a new key in", () => {
  const google: Policy = { ...policy, alive: { answers: 10, span: "2m" as Duration } };

  test("is the policy's; in an emergency it leaves the clock of five minutes its time", () => {
    expect(aliveRule(google, { emergency: false })).toEqual(google.alive);
    expect(aliveRule(google, { emergency: true })).toEqual({ answers: 10, span: "30000ms" });
    expect(aliveRule(policy, { emergency: true })).toEqual(policy.alive);
  });
});

describe("a rule of answers in a row", () => {
  test.each([
    ["5 over 30s", { answers: 5, span: "30s" }],
    ["10 over 30m", { answers: 10, span: "30m" }],
    ["1 over 0s", { answers: 1, span: "0s" }],
    ["99 over 1.5h", { answers: 99, span: "1.5h" }],
  ])("reads %s", (text, rule) => {
    expect(parseRowRule(text)).toEqual(rule);
  });

  test.each(["", "5", "30s", "0 over 30s", "100 over 30s", "5 over 30", "5 in 30s", "five over 30s", "-5 over 30s"])(
    "does not take %j for one",
    (text) => {
      expect(parseRowRule(text)).toBeUndefined();
    },
  );
});
