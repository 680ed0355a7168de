import { describe, expect, test } from "vitest";

import {
  horizonOf,
  type IdleFacts,
  judgeIdle,
  type KeyUse,
  newKeySeenUntil,
  oldKeyLastUse,
  othersReported,
  requestsIn,
  usedBefore,
} from "../../src/domain/idle.ts";

/** Times in minutes; the new key was installed at 0, the wait began at 10. */
const minute = 60_000;
const at = (minutes: number): number => Date.parse("2026-11-20T10:00:00Z") + minutes * minute;
const use = (keyId: string, from: number, requests = 1, width = 1): KeyUse => ({
  keyId,
  from: at(from),
  to: at(from + width),
  requests,
});

/** At minute 60 the data shows the new key until minute 46; the old one was last used in minute 5. */
const facts = (change: Partial<IdleFacts> = {}): IdleFacts => ({
  now: at(60),
  oldKeyId: "old",
  newKeyId: "new",
  installedAt: at(0),
  since: at(10),
  quietPeriodMs: 15 * minute,
  usageLagMs: 15 * minute,
  bucketMs: minute,
  uses: [use("old", 5), use("new", 45)],
  ...change,
});

describe("the horizon: up to when late data counts (promise 3)", () => {
  test("is the end of the newest bucket with the new key, less one bucket", () => {
    expect(horizonOf(facts({ uses: [use("new", 20), use("new", 40), use("new", 30)] }))).toBe(at(40));
  });

  test("is never later than now less the usage lag and a bucket, whose rows come only after its end", () => {
    expect(horizonOf(facts({ uses: [use("new", 59)] }))).toBe(at(44));
  });

  test("is the provider's own word, less one bucket, where it gives one", () => {
    expect(horizonOf(facts({ refreshedAt: at(33) }))).toBe(at(32));
    expect(horizonOf(facts({ refreshedAt: at(60) }))).toBe(at(44));
  });

  test("does not exist while the data shows no use of the new key, whatever the provider says of itself", () => {
    expect(horizonOf(facts({ uses: [] }))).toBeUndefined();
    expect(horizonOf(facts({ uses: [use("old", 45)] }))).toBeUndefined();
    expect(horizonOf(facts({ uses: [use("old", 45)], refreshedAt: at(50) }))).toBeUndefined();
  });

  test("does not come from buckets that began before the install: those show our own proofs", () => {
    expect(newKeySeenUntil(facts({ uses: [use("new", -1), use("new", -0.5)] }))).toBeUndefined();
    expect(newKeySeenUntil(facts({ uses: [use("new", 0)] }))).toBe(at(1));
  });

  test("does not come from rows of no requests", () => {
    expect(horizonOf(facts({ uses: [use("new", 45, 0)] }))).toBeUndefined();
  });

  test("takes buckets as wide as the provider makes them", () => {
    expect(horizonOf(facts({ uses: [use("new", 20, 1, 10)], bucketMs: 10 * minute }))).toBe(at(20));
  });
});

describe("the old key's last use", () => {
  test("is the later of its buckets and its last_used_at, in whatever order rows came", () => {
    const uses = [use("old", 7), use("old", 3), use("new", 40)];
    expect(oldKeyLastUse(facts({ uses }))).toBe(at(8));
    expect(oldKeyLastUse(facts({ uses, oldKeyLastUsedAt: at(9) }))).toBe(at(9));
    expect(oldKeyLastUse(facts({ uses, oldKeyLastUsedAt: at(1) }))).toBe(at(8));
    expect(oldKeyLastUse(facts({ uses: [], oldKeyLastUsedAt: at(1) }))).toBe(at(1));
    expect(oldKeyLastUse(facts({ uses: [use("old", 3, 0)] }))).toBeUndefined();
  });
});

describe("idle", () => {
  test("is a key without use for the whole quiet period, all of it before the horizon", () => {
    expect(judgeIdle(facts())).toEqual({ kind: "idle", horizon: at(44), lastUsed: at(6) });
  });

  test("may be a key that no row ever showed, once the data shows the new one beyond the quiet period", () => {
    expect(judgeIdle(facts({ uses: [use("new", 45)] }))).toEqual({ kind: "idle", horizon: at(44) });
  });

  test("is reached exactly when the quiet period ends at the horizon, and not a millisecond before", () => {
    // The wait began at 10, so the quiet period ends at 25: the new key's bucket must end at 26.
    const edge = facts({ uses: [use("new", 25)] });
    expect(judgeIdle(edge).kind).toBe("idle");
    expect(judgeIdle({ ...edge, since: edge.since + 1 }).kind).toBe("too early");
    expect(judgeIdle({ ...edge, uses: [use("new", 24)] }).kind).toBe("too early");
  });

  test("counts from the begin of the wait, however long the key was quiet before", () => {
    expect(judgeIdle(facts({ since: at(40) })).kind).toBe("too early");
  });

  test("is not what no rows say", () => {
    expect(judgeIdle(facts({ uses: [] }))).toMatchObject({ kind: "too early" });
    expect(judgeIdle(facts({ uses: [], refreshedAt: at(59) }))).toMatchObject({ kind: "too early" });
  });

  test("is not what data from before the quiet period's end says, though hours have passed", () => {
    expect(judgeIdle(facts({ now: at(600), uses: [use("new", 20)] })).kind).toBe("too early");
  });

  test("is not a key used in the last bucket", () => {
    expect(judgeIdle(facts({ uses: [use("new", 59), use("old", 44)] }))).toMatchObject({
      kind: "used",
      horizon: at(44),
      lastUsed: at(45),
    });
  });

  test("is not a key that only last_used_at shows in use", () => {
    expect(judgeIdle(facts({ oldKeyLastUsedAt: at(44) }))).toMatchObject({ kind: "used", lastUsed: at(44) });
    expect(judgeIdle(facts({ oldKeyLastUsedAt: at(29) }))).toMatchObject({ kind: "idle", lastUsed: at(29) });
  });

  test("does not depend on the order of rows", () => {
    const uses = [use("old", 35), use("new", 45), use("old", 12), use("new", 20)];
    expect(judgeIdle(facts({ uses }))).toEqual(judgeIdle(facts({ uses: uses.toReversed() })));
    expect(judgeIdle(facts({ uses })).kind).toBe("used");
  });
});

describe("a row that names a key", () => {
  const tokensOnly = (keyId: string, from: number): KeyUse => ({ ...use(keyId, from, 0), tokens: 900 });

  test("is use of it where it counts tokens and no requests: a busy key is not called idle", () => {
    const busy = Array.from({ length: 60 }, (_, minutes) => tokensOnly("old", minutes));
    expect(judgeIdle(facts({ uses: [...busy, use("new", 59)] }))).toMatchObject({ kind: "used", lastUsed: at(60) });
    expect(oldKeyLastUse(facts({ uses: [tokensOnly("old", 3)] }))).toBe(at(4));
    expect(horizonOf(facts({ uses: [tokensOnly("new", 40)] }))).toBe(at(40));
  });

  test("is no use where it says zero", () => {
    const zero = { ...use("old", 45, 0), tokens: 0 };
    expect(judgeIdle(facts({ uses: [zero, use("new", 45)] }))).toEqual({ kind: "idle", horizon: at(44) });
  });

  test("is one request at least", () => {
    expect(requestsIn([use("old", 1, 12), tokensOnly("old", 2), use("old", 3, 0)])).toBe(13);
  });
});

describe("whether clients used the old key before the install", () => {
  const before = { oldKeyId: "old", installedAt: at(0), lookBackMs: 1_440 * minute, probes: 1 };

  test("yes, where it shows more requests than ours in the day before", () => {
    expect(usedBefore({ ...before, uses: [use("old", -1_000, 2)] })).toBe("yes");
    expect(usedBefore({ ...before, uses: [use("old", -1_000), use("old", -3)] })).toBe("yes");
    expect(usedBefore({ ...before, probes: 0, uses: [use("old", -0.5)] })).toBe("yes");
  });

  test("no, where the data is good until the install and shows only our own", () => {
    expect(usedBefore({ ...before, uses: [use("old", -3)], horizon: at(0) })).toBe("no");
    expect(usedBefore({ ...before, uses: [], horizon: at(40) })).toBe("no");
  });

  test("unknown, where the data is not good until then", () => {
    expect(usedBefore({ ...before, uses: [] })).toBe("unknown");
    expect(usedBefore({ ...before, uses: [use("old", -3)], horizon: at(-1) })).toBe("unknown");
  });

  test("whatever other keys, later minutes and earlier days show", () => {
    const uses = [use("new", -3, 9), use("old", 0, 9), use("old", -1_441, 9)];
    expect(usedBefore({ ...before, uses, horizon: at(40) })).toBe("no");
  });
});

describe("other keys that the provider reports", () => {
  test("show that the new one should have come too, once they are older than the usage lag", () => {
    expect(othersReported(facts({ uses: [use("old", 3)] }))).toBe(true);
    expect(othersReported(facts({ uses: [use("third", 43)] }))).toBe(true);
    expect(othersReported(facts({ uses: [use("third", 44)] }))).toBe(false);
  });

  test("show nothing from before the install, nor by rows of zero, nor by the new key itself", () => {
    expect(othersReported(facts({ uses: [use("old", -1), use("third", 3, 0), use("new", 3)] }))).toBe(false);
  });
});

describe("used", () => {
  test("is a key seen in use since the wait began, also while nothing shows the new one yet", () => {
    // At the ceiling policy treats "unknown" and "used" differently: what was seen in use must not pass for unknown.
    expect(judgeIdle(facts({ uses: [use("old", 30)] }))).toMatchObject({ kind: "used", lastUsed: at(31) });
    expect(judgeIdle(facts({ uses: [], oldKeyLastUsedAt: at(30) }))).toMatchObject({ kind: "used", lastUsed: at(30) });
  });

  test("is not a key whose last use was before the wait", () => {
    expect(judgeIdle(facts({ uses: [use("old", 5)] }))).toMatchObject({ kind: "too early", lastUsed: at(6) });
  });
});

describe("when to probe and when to ask", () => {
  test("probes a bucket after the quiet period and asks the usage lag and a bucket later", () => {
    const verdict = judgeIdle(facts({ now: at(12), uses: [use("old", 5)] }));
    expect(verdict).toMatchObject({ kind: "too early", probeAt: at(26), askAt: at(42) });
  });

  test("starts over from each use of the old key", () => {
    const verdict = judgeIdle(facts({ now: at(42), uses: [use("old", 30), use("new", 26)] }));
    expect(verdict).toMatchObject({ kind: "used", probeAt: at(47), askAt: at(63) });
  });

  test("never lies in the past", () => {
    expect(judgeIdle(facts({ uses: [] }))).toMatchObject({ probeAt: at(60), askAt: at(76) });
  });
});

/** A provider whose rows come late, some in two parts, neighbours now and then in the wrong order. */
interface Scene {
  lag: (bucket: number) => number;
  bucketMs: number;
  oldUses: number[];
  newUses: number[];
}

function rowsAt(now: number, { lag, bucketMs, oldUses, newUses }: Scene): KeyUse[] {
  const shown = (keyId: string, times: number[]): KeyUse[] =>
    times
      .map((time) => Math.floor(time / bucketMs))
      .filter((bucket) => (bucket + 1) * bucketMs + lag(bucket) <= now)
      .map((bucket) => ({ keyId, from: bucket * bucketMs, to: (bucket + 1) * bucketMs, requests: 1 }));
  return [...shown("old", oldUses), ...shown("new", newUses)];
}

function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Follows the plan of each answer, as awaitIdle does; our probe is a use of the new key. */
function follow(scene: Scene, base: Omit<IdleFacts, "now" | "uses">) {
  let now = base.since;
  for (let asks = 1; asks <= 100; asks++) {
    const verdict = judgeIdle({ ...base, now, uses: rowsAt(now, scene) });
    if (verdict.kind === "idle") return { ...verdict, now, asks };
    scene.newUses.push(verdict.probeAt);
    now = verdict.askAt;
  }
  throw new Error("never idle");
}

describe("the plan, on random providers", () => {
  const base = { oldKeyId: "old", newKeyId: "new", installedAt: at(0), bucketMs: minute };
  const seeds = Array.from({ length: 500 }, (_, index) => index + 1);

  function sceneOf(seed: number, usageLagMs: number, mostLate: number) {
    const random = randomOf(seed);
    const lags = new Map<number, number>();
    const lag = (bucket: number): number => {
      if (!lags.has(bucket)) lags.set(bucket, random() * mostLate);
      return lags.get(bucket) ?? 0;
    };
    const times = (most: number, from: number, to: number): number[] =>
      Array.from({ length: Math.floor(random() * most) }, () => Math.round(at(from + random() * (to - from))));
    const quietPeriodMs = Math.round((1 + random() * 20) * minute);
    const known = { ...base, since: Math.round(at(random() * 15)), quietPeriodMs, usageLagMs };
    const scene: Scene = { lag, bucketMs: minute, oldUses: times(30, -10, 120), newUses: times(60, 0, 200) };
    return { scene, known };
  }

  /** What the verdict must not have missed: a use of the old key that really was before the horizon. */
  function missed({ oldUses }: Scene, verdict: { horizon: number; lastUsed?: number }): number[] {
    return oldUses.filter((time) => time < verdict.horizon && time > (verdict.lastUsed ?? Number.NEGATIVE_INFINITY));
  }

  test("a key is called idle only when its whole quiet period lies before a horizon behind which all is known", () => {
    for (const seed of seeds) {
      const usageLagMs = (1 + (seed % 20)) * minute;
      const { scene, known } = sceneOf(seed, usageLagMs, usageLagMs);
      const verdict = follow(scene, known);
      const quietSince = Math.max(known.since, verdict.lastUsed ?? known.since);
      expect(verdict.horizon - quietSince, `seed ${seed}`).toBeGreaterThanOrEqual(known.quietPeriodMs);
      expect(missed(scene, verdict), `seed ${seed}`).toEqual([]);
    }
  });

  test("that holds at any other moment too, as when an approval makes us ask early", () => {
    let idle = 0;
    for (const seed of seeds) {
      const usageLagMs = (1 + (seed % 20)) * minute;
      const { scene, known } = sceneOf(seed, usageLagMs, usageLagMs);
      for (let minutes = 0; minutes < 200; minutes += 1.7) {
        const now = known.since + minutes * minute;
        const verdict = judgeIdle({ ...known, now, uses: rowsAt(now, scene) });
        if (verdict.kind !== "idle") continue;
        idle++;
        expect(missed(scene, verdict), `seed ${seed}, ${minutes} minutes`).toEqual([]);
      }
    }
    expect(idle).toBeGreaterThan(1_000);
  });

  test("that holds although rows come later than we were told, as long as they come in order", () => {
    for (const seed of seeds) {
      const lateness = (20 + (seed % 40)) * minute;
      const { scene, known } = sceneOf(seed, 5 * minute, 0);
      const late = { ...scene, lag: () => lateness };
      expect(missed(late, follow(late, known)), `seed ${seed}`).toEqual([]);
    }
  });

  test("a key nobody uses is settled with two questions, when the data is as late as we were told", () => {
    for (const seed of seeds) {
      const usageLagMs = (1 + (seed % 20)) * minute;
      const { scene, known } = sceneOf(seed, usageLagMs, usageLagMs);
      expect(follow({ ...scene, oldUses: [], newUses: [] }, known).asks, `seed ${seed}`).toBeLessThanOrEqual(2);
    }
  });

  test("stragglers cost at most one question each", () => {
    for (const seed of seeds) {
      const { scene, known } = sceneOf(seed, 10 * minute, 10 * minute);
      const stragglers = scene.oldUses.filter((time) => time > known.since - minute).length;
      expect(follow(scene, known).asks, `seed ${seed}`).toBeLessThanOrEqual(stragglers + 2);
    }
  });
});
