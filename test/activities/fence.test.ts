import { setTimeout as pause } from "node:timers/promises";
import type { MockActivityEnvironment } from "@temporalio/testing";
import { describe, expect, test } from "vitest";

import { createHttp } from "../../src/http.ts";
import { mayWrite } from "../../src/activities/fence.ts";
import { type AttemptOptions, durationMs, prod, type Stage, startStage } from "../support/activities.ts";

/** An attempt that Temporal gave up on writes nothing more (design, "Fences"). */

const order = { keyId: "key_prod_1", through: prod };
const oneHour = { ordinal: 1, unprovenLife: durationMs(3_600_000) };
const watched = (details?: unknown): AttemptOptions => ({
  info: { heartbeatTimeoutMs: 10_000, heartbeatDetails: details },
  requestMs: 400,
});
const timed = async (work: Promise<unknown>): Promise<number> => {
  const from = performance.now();
  await work;
  return performance.now() - from;
};

/** What the attempt's signs of life carried. */
async function beatsOf(stage: Stage, attempt: number, options: AttemptOptions): Promise<unknown[]> {
  const beats: unknown[] = [];
  const onAttempt = (environment: MockActivityEnvironment) =>
    environment.on("heartbeat", (details) => beats.push(details));
  await stage.run("endCompromisedKey", order, attempt, { ...options, onAttempt }).catch(() => undefined);
  return beats;
}

describe("an attempt", () => {
  test("that was cancelled sends no more writes, whatever it has read", async () => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "GET", path: "", mode: "slow", delayMs: 300, times: 1 });
    const before = await stage.writes();
    const onAttempt = (environment: MockActivityEnvironment) => setTimeout(() => environment.cancel(), 100);
    await expect(stage.run("endCompromisedKey", order, 1, { onAttempt })).rejects.toMatchObject({
      name: "CancelledFailure",
    });
    await pause(400);
    expect(await stage.writes()).toEqual(before);
    expect(await stage.alive()).toContain("key_prod_1");
  });

  test("that is past its time by its own clock sends no more writes, and says so", async () => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "GET", path: "", mode: "slow", delayMs: 300, times: 1 });
    await expect(
      stage.run("endCompromisedKey", order, 1, { info: { startToCloseTimeoutMs: 200 } }),
    ).rejects.toMatchObject({
      type: "Unavailable",
      nonRetryable: false,
      message: expect.stringContaining("endCompromisedKey is past its time") as string,
    });
    expect(await stage.alive()).toContain("key_prod_1");
  });

  test("whose former one was given up on begins its writes no sooner than a request can last", async () => {
    const stage = await startStage();
    expect(await timed(stage.run("endCompromisedKey", order, 2, watched()))).toBeGreaterThan(390);
    expect(await stage.alive()).not.toContain("key_prod_1");
  });

  test("waits for nobody where it is the first, where the former ended by itself, or where nobody watches", async () => {
    const stage = await startStage();
    const ended = { facts: {}, ended: 1 };
    for (const [attempt, options] of [
      [1, watched()],
      [2, watched(ended)],
      [2, { requestMs: 400 }],
    ] as const) {
      expect(await timed(stage.run("endCompromisedKey", order, attempt, options))).toBeLessThan(300);
    }
    // An attempt between that ended without a word.
    const { id } = await stage.keyByHand("one more");
    const third = stage.run("endCompromisedKey", { ...order, keyId: id }, 3, watched(ended));
    expect(await timed(third)).toBeGreaterThan(390);
  });

  test("that fails while it still had to wait for a former one leaves the wait to the next", async () => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "GET", path: "", mode: "status", status: 503, times: 1 });
    expect((await beatsOf(stage, 2, watched())).at(-1)).toEqual({ facts: {} });
    await stage.fault({ service: "openai", method: "DELETE", path: "", mode: "status", status: 503, times: 1 });
    expect((await beatsOf(stage, 3, watched())).at(-1)).toEqual({ facts: {}, ended: 3 });
  });

  test("that waited for a former one looks again before it writes", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const revoked = stage
      .run("revokeKey", { keyId: "key_prod_1", installedKeyId: key.id }, 2, { ...watched(), requestMs: 900 })
      .catch((error: unknown) => error);
    await pause(600);
    await stage.edit("github-ai-agent-prod", { value: await stage.valueOf("key_prod_1"), comment: "by alice" });
    expect(await revoked).toMatchObject({ type: "SlotChanged" });
    expect(await stage.chat()).toBe(200);
  });

  test("that is cancelled between two writes that must not be parted makes the second one too", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const secretDelete = {
      service: "cloudflare",
      method: "DELETE",
      path: "/secrets/",
      mode: "slow",
      delayMs: 300,
      times: 1,
    };
    await stage.fault(secretDelete);
    const onAttempt = (environment: MockActivityEnvironment) => setTimeout(() => environment.cancel(), 150);
    await stage.run("restoreOldValue", { installedKeyId: key.id }, 1, { onAttempt }).catch(() => undefined);
    expect(await stage.chat()).toBe(200);
    expect(await stage.held("github-ai-agent-prod")).toBe("key_prod_1");
  });

  test("that fails by itself says so with its last sign of life, and carries on what it was told", async () => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "DELETE", path: "", mode: "status", status: 503, times: 1 });
    const beats = await beatsOf(stage, 2, watched({ facts: { a: 1 }, ended: 1 }));
    expect(beats.at(-1)).toEqual({ facts: { a: 1 }, ended: 2 });
  });

  test("that is cut off while its next one works ends no key that this one made and put in", async () => {
    const stage = await startStage();
    const { modified } = await stage.secret("github-ai-agent-prod");
    await stage.fault({
      service: "openai",
      method: "GET",
      path: "/proj_abc/api_keys\\?",
      mode: "slow",
      delayMs: 600,
      times: 1,
    });
    let zombie: MockActivityEnvironment | undefined;
    const cutOff = stage.run("issueKey", oneHour, 1, { onAttempt: (environment) => (zombie = environment) });
    await pause(100);
    const key = await stage.run("issueKey", oneHour, 2);
    zombie?.cancel();
    await stage.repeat("stageAliases", { key });
    await stage.repeat("installKey", { key, secretModified: modified });
    expect(await stage.chat()).toBe(200);
    await cutOff.catch(() => undefined);
    expect(await stage.chat()).toBe(200);
    expect(await stage.alive()).toContain(key.id);
  });
});

describe("outside of activities", () => {
  test("nothing is fenced", async () => {
    await expect(mayWrite()).resolves.toBeUndefined();
  });

  test("a fence is asked before what may change something, and not before what only asks", async () => {
    const asked: string[] = [];
    let doing = "";
    const http = createHttp({
      userAgent: "keyturn/0.0.0",
      mayWrite: () => {
        asked.push(doing);
        throw new Error("fenced");
      },
    });
    const request = { service: "nobody", baseUrl: "http://127.0.0.1:9", route: "/", doing: "while testing" };
    for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE"] as const) {
      doing = method;
      await expect(http.exchange({ ...request, method })).rejects.toThrow(
        method === "GET" ? "no whole answer" : "fenced",
      );
    }
    doing = "a model is asked";
    await expect(http.exchange({ ...request, method: "POST", changesNothing: true })).rejects.toThrow(
      "no whole answer",
    );
    expect(asked).toEqual(["POST", "PUT", "PATCH", "DELETE"]);
  });
});
