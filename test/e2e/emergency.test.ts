import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { RotationResult } from "../../src/domain/rotation.ts";
import { slotWorkflowId } from "../../src/domain/rotation.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import {
  allSlots,
  handInWhereWanted,
  liveKeys,
  progressOf,
  steal,
  type Subject,
  subjects,
  thiefModels,
  type Typist,
  typist,
  valueOf,
} from "../support/providers.ts";
import { foundIn, keepingLogger, logged, readableHistory } from "../support/secrecy.ts";
import { startTemporal, startWorld, type World } from "../support/world.ts";
import type { Traffic } from "../support/traffic.ts";

/**
 * The documented waits and both clocks, divided by one factor. Usage comes sooner, since how late it comes is not what is
 * told here, and Google takes its new keys after a minute at the latest.
 */
const wholeScale = 20;
const scaledBy = (scale: number): ((minutes: number) => string) => {
  return (minutes) => `${(minutes * 60_000) / scale}ms`;
};
const wholeMinutes = scaledBy(wholeScale);
const wholePolicy = {
  emergency: { installWithin: wholeMinutes(5), revokeWithin: wholeMinutes(60) },
  usageLag: wholeMinutes(5),
};
/** Faster where the clocks are not what is told: but for the install clock, since a machine is not faster by the factor. */
const timeScale = 60;
const minutes = scaledBy(timeScale);
const policy = { emergency: { installWithin: "20s", revokeWithin: minutes(60) }, usageLag: minutes(5) };
const soon = { minMs: 60_000, jitterMs: 60_000 };
/** Caches that drop a key within the documented cache wait: an emergency waits no longer. */
const sandbox = {
  usageLag: { openai: soon, anthropic: soon, google: soon },
  googleSettleMs: 60_000,
  edges: [
    { name: "lhr", propagationMs: 2_000, cacheTtlMs: 60_000, isolates: 8 },
    { name: "iad", propagationMs: 8_000, cacheTtlMs: 180_000, isolates: 8 },
    { name: "sin", propagationMs: 20_000, cacheTtlMs: 300_000, isolates: 8 },
    { name: "gru", propagationMs: 45_000, cacheTtlMs: 500_000, isolates: 8 },
  ],
};
const openai = subjects[0] as Subject;

let temporal: DevServer;
beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
});
afterAll(() => temporal.stop());

interface Played {
  result: RotationResult;
  history: string;
  traffic: Traffic;
  stolen: number;
  code: number | null;
}

/** Emergencies of all three providers at once, typed at the command line, with a thief at work beside the clients. */
async function playAll(
  world: World,
  strategy: "swap-first" | "cut-first",
  perSecond: number,
): Promise<Map<string, Played>> {
  const played = new Map<string, Played>();
  const type = await typist(world, temporal);
  const since = new Date(Date.now() - 1_000).toISOString();
  await Promise.all(
    subjects.map(async (subject) => {
      const { slot, provider, heldKey } = subject;
      const traffic = world.traffic(perSecond, provider);
      await world.later(60_000);
      const stolen = await steal(world, subject, await valueOf(world, heldKey), 150);
      const held = subject.told.heldKeyId === undefined ? [] : ["--held-key", subject.told.heldKeyId];
      const said = [
        "--strategy",
        strategy,
        "--key",
        heldKey,
        "--since",
        since,
        "--why",
        "seen in a public gist",
        ...held,
      ];
      const typed = type(["emergency", slot, "--yes", "--json", ...said]);
      await handInWhereWanted(world, subject, type);
      const { code, stdout, stderr } = await typed;
      await world.later(60_000);
      await traffic.stop();
      if (stdout === "") throw new Error(stderr);
      const printed = JSON.parse(stdout) as RotationResult & { result?: RotationResult };
      const history = await readableHistory(world.client.workflow.getHandle(slotWorkflowId(slot)));
      played.set(slot, {
        result: printed.result ?? printed,
        history: history + stdout + stderr,
        traffic,
        stolen,
        code,
      });
    }),
  );
  await type.leave();
  return played;
}

describe("swap-first emergencies of all three providers at once, under live traffic", () => {
  let world: World;
  let played: Map<string, Played>;
  beforeAll(async () => {
    world = await startWorld({ temporal, timeScale: wholeScale, slots: allSlots, policy: wholePolicy, sandbox });
    // So few that the thief's burst stands out among them, also where a busy machine spreads it over two buckets.
    played = await playAll(world, "swap-first", 10);
  }, 400_000);
  afterAll(() => world.stop());

  describe.each(subjects)("$slot", (subject) => {
    const of = (): Played => played.get(subject.slot) as Played;

    test("lose no request", () => {
      expect(of().code).toBe(0);
      expect(of().traffic.failures).toEqual([]);
      expect(of().traffic.served).toBeGreaterThan(200);
    });

    test("end with one live key, the new one, in the slot, and the compromised one seen dead", async () => {
      const { result } = of();
      expect(result).toMatchObject({
        kind: "emergency",
        outcome: "rotated",
        reason: "seen in a public gist",
        oldKey: { id: subject.heldKey },
        leftOver: [],
      });
      expect(await liveKeys(world, subject)).toEqual([result.newKey?.id]);
      expect(await world.servedKeys(subject.provider)).toEqual([result.newKey?.id]);
      expect(result.times.confirmedDead).toBeDefined();
    });

    test("keep their clocks", () => {
      const { clocks } = of().result;
      expect(Date.parse(clocks?.installed ?? "")).toBeLessThanOrEqual(Date.parse(clocks?.installBy ?? ""));
      expect(Date.parse(clocks?.revoked ?? "")).toBeLessThanOrEqual(Date.parse(clocks?.revokeBy ?? ""));
    });

    test("report the thief, who came straight to the provider", () => {
      const { result, stolen } = of();
      expect(stolen).toBe(150);
      const { incident } = result;
      expect(incident).toMatchObject({ compromisedKey: { id: subject.heldKey } });
      expect(incident?.providerRequests).toBeGreaterThanOrEqual(stolen);
      const reported = incident?.strangers.reduce((sum, { requests }) => sum + requests, 0) ?? 0;
      expect(reported).toBeGreaterThan(0);
      expect(reported).toBeLessThanOrEqual(stolen);
      expect(incident?.strangeModels).toEqual(subject.tellsModels ? [thiefModels[subject.provider]] : []);
    });

    test("show no key in the clear: not in history, logs or on the terminal", async () => {
      const values = await world.values();
      expect(foundIn(of().history, values)).toEqual([]);
      expect(foundIn(logged.join("\n"), values)).toEqual([]);
    });
  });
});

describe("cut-first emergencies of all three providers at once", () => {
  let world: World;
  let played: Map<string, Played>;
  beforeAll(async () => {
    world = await startWorld({ temporal, timeScale, slots: allSlots, policy, sandbox });
    // So few that the sandbox's record keeps each failure.
    played = await playAll(world, "cut-first", 2);
  }, 240_000);
  afterAll(() => world.stop());

  test.each(subjects)("$slot: cut within 10 s, replaced, and the outage is the one clients had", async (subject) => {
    const { result, code } = played.get(subject.slot) as Played;
    expect(code).toBe(0);
    expect(result).toMatchObject({ outcome: "rotated", oldKey: { id: subject.heldKey } });
    expect(Date.parse(result.times.cut ?? "") - Date.parse(result.times.started)).toBeLessThan(10_000);
    expect(await liveKeys(world, subject)).toEqual([result.newKey?.id]);

    const { failures } = (await world.record()).traffic;
    expect(failures.length).toBeLessThan(100);
    const at = failures.filter(({ keyId }) => keyId === subject.heldKey).map((failure) => Date.parse(failure.at));
    expect(at.length).toBeGreaterThan(0);
    const { from, until = "" } = result.outage ?? { from: "" };
    expect(Math.min(...at)).toBeGreaterThanOrEqual(Date.parse(from) - 100);
    expect(Math.abs(Math.max(...at, Date.parse(result.times.verified ?? "")) - Date.parse(until))).toBeLessThan(1_000);
  });
});

describe("cut-first emergencies while no new key can be made", () => {
  const [, gemini, anthropic] = subjects as [Subject, Subject, Subject];
  let world: World;
  let type: Typist;
  beforeAll(async () => {
    world = await startWorld({ temporal, timeScale, slots: allSlots, policy, sandbox });
    type = await typist(world, temporal);
  });
  afterAll(async () => {
    await type.leave();
    await world.stop();
  });

  const started = async ({ slot, heldKey, told }: Subject) =>
    world.start({ slot, strategy: "cut-first", compromisedKeyId: heldKey, ...told }, undefined, "emergencyRotation");
  /** Creation fails, with this status, until the faults are cleared. */
  const failCreation = async (service: string, status: number): Promise<{ id: number }> =>
    (await world.ask("/faults", {
      service,
      method: "POST",
      path: "/(?:api_)?keys(?:\\?|$)",
      mode: "status",
      status,
    })) as { id: number };
  const createsTried = async (service: string): Promise<number> =>
    (await world.record()).requests.filter(
      ({ method, status, ...request }) => request.service === service && method === "POST" && status >= 400,
    ).length;
  const stateOf = async ({ heldKey }: Subject): Promise<string | undefined> =>
    (await world.record()).keys.find(({ id }) => id === heldKey)?.state;
  const expectCutInTime = ({ started: from, cut = "" }: RotationResult["times"]): void => {
    expect(Date.parse(cut) - Date.parse(from)).toBeLessThan(10_000);
  };
  const end = async (handle: { result(): Promise<unknown> }): Promise<RotationResult> =>
    (await handle.result()) as RotationResult;

  test.concurrent("openai, which refuses to make one: cut within 10 s, and the end is cut, the outage open", async () => {
    await failCreation("openai", 400);
    const result = await end(await started(openai));
    expect(await createsTried("openai")).toBeGreaterThan(0);
    expectCutInTime(result.times);
    expect(result).toMatchObject({ outcome: "cut", oldKey: { id: openai.heldKey }, newKey: null, leftOver: [] });
    expect(result.outage).toEqual({ from: result.times.cut, slots: [openai.slot] });
    expect(result.warnings.join()).toContain("no new key was proven in the slot");
    expect(await liveKeys(world, openai)).toEqual([]);
  });

  test.concurrent("gemini, which cannot make one now: cut within 10 s, tried on, and replaced when it can again", async () => {
    const { id } = await failCreation("apikeys", 503);
    const handle = await started(gemini);
    await world.until(async () => (await createsTried("apikeys")) > 1);
    const progress = await progressOf(world, gemini.slot);
    expect(progress).toMatchObject({ phase: "issueKey", newKey: null });
    expectCutInTime(progress.times);
    expect(await stateOf(gemini)).toBe("revoked");
    await fetch(`${world.control}/faults/${id}`, { method: "DELETE" });
    const result = await end(handle);
    expect(result).toMatchObject({
      outcome: "rotated",
      oldKey: { id: gemini.heldKey },
      times: { cut: progress.times.cut },
    });
    expect(await liveKeys(world, gemini)).toEqual([result.newKey?.id]);
  });

  test.concurrent("anthropic, while nobody has made one: switched off within 10 s, and replaced when somebody hands one in", async () => {
    const handle = await started(anthropic);
    await world.until(async () => (await progressOf(world, anthropic.slot)).waiting?.asks?.kind === "key");
    const { times } = await progressOf(world, anthropic.slot);
    expectCutInTime(times);
    expect(await stateOf(anthropic)).toBe("disabled");
    await handInWhereWanted(world, anthropic, type);
    const result = await end(handle);
    expect(result).toMatchObject({ outcome: "rotated", oldKey: { id: anthropic.heldKey } });
    expect(await stateOf(anthropic)).toBe("revoked");
    expect(await liveKeys(world, anthropic)).toEqual([result.newKey?.id]);
  });
});

describe("a normal rotation that is told of a compromised key", () => {
  let world: World;
  let type: Typist;
  let traffic: Traffic;
  beforeAll(async () => {
    world = await startWorld({ temporal, timeScale, slots: allSlots, policy, sandbox });
    type = await typist(world, temporal);
    traffic = world.traffic(20);
  });
  afterAll(async () => {
    await type.leave();
    await world.stop();
  });

  const reached = async (phase: string): Promise<void> =>
    world.until(async () => (await progressOf(world, openai.slot)).phase === phase);
  const emergency = async (...more: string[]) => {
    const { code, stdout, stderr } = await type(["emergency", openai.slot, "--yes", "--json", ...more]);
    if (stdout === "") throw new Error(stderr);
    return { code, stderr, result: JSON.parse(stdout) as RotationResult };
  };
  const end = async (handle: { result(): Promise<unknown> }): Promise<RotationResult> =>
    (await handle.result()) as RotationResult;

  test("hurries when it is its old key", async () => {
    const handle = await world.start();
    await reached("awaitIdle");
    const { code, result, stderr } = await emergency("--key", "key_prod_1");
    expect(stderr).toContain("the rotation hurries: key_prod_1 is cut as soon as the new key serves");
    expect(code).toBe(0);
    expect(result).toMatchObject({ outcome: "rotated", oldKey: { id: "key_prod_1" }, clocks: {} });
    expect(result.rotationId).toBe((await end(handle)).rotationId);
    expect(await liveKeys(world, openai)).toEqual([result.newKey?.id]);
  }, 60_000);

  test("ends as aborted, the old key serving, when it is its new key and that is not installed", async () => {
    const [old] = await liveKeys(world, openai);
    await world.faults({ service: "openai", method: "GET", path: "^/v1/models", mode: "status", status: 401 });
    const handle = await world.start();
    await reached("verifyAtProvider");
    const { newKey } = await progressOf(world, openai.slot);
    const { code, result } = await emergency("--key", newKey?.id ?? "");
    await world.clearFaults();
    expect(code).toBe(1);
    expect(result).toMatchObject({ outcome: "aborted", oldKey: { id: old }, leftOver: [] });
    expect((await end(handle)).outcome).toBe("aborted");
    expect(await liveKeys(world, openai)).toEqual([old]);
  }, 60_000);

  test("is followed by an emergency when it is its new key and that is installed, and its old key is named, since nobody called it compromised", async () => {
    const [old = ""] = await liveKeys(world, openai);
    await world.start();
    await reached("awaitCacheInvalidation");
    const { newKey } = await progressOf(world, openai.slot);
    const { code, result, stderr } = await emergency("--key", newKey?.id ?? "");
    expect(stderr).toContain(`an emergency of ${newKey?.id} follows at once`);
    expect(code).toBe(0);
    expect(result).toMatchObject({ kind: "emergency", outcome: "rotated", oldKey: newKey });
    expect(result.leftOver).toMatchObject([{ id: old }]);
    expect(new Set(await liveKeys(world, openai))).toEqual(new Set([result.newKey?.id, old]));
    await world.openai("DELETE", `/organization/projects/proj_abc/api_keys/${old}`);
  }, 90_000);

  test("cuts a key that is neither, and goes on", async () => {
    const path = "/organization/projects/proj_abc/service_accounts/svc_acct_1/api_keys";
    const { id } = (await world.openai("POST", path, { name: "of a script" })) as { id: string };
    const handle = await world.start();
    await reached("awaitCacheInvalidation");
    const { code, stderr } = await emergency("--key", id, "--detach");
    expect(code).toBe(0);
    expect(stderr).toContain(`${id} is not a key of this run and no slot holds it: it is cut now`);
    await world.until(async () => !(await liveKeys(world, openai)).includes(id));
    await handle.signal("abortSignal", { by: "ada" });
    await end(handle);
  }, 60_000);

  test("loses no request in any of this", async () => {
    await world.later(60_000);
    await traffic.stop();
    expect(traffic.failures).toEqual([]);
    expect(traffic.served).toBeGreaterThan(200);
  });
});
