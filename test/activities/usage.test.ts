import { describe, expect, test } from "vitest";

import { managed } from "../../src/activities/managed.ts";
import { usageActivities } from "../../src/activities/usage.ts";
import type { ManagedProvider } from "../../src/providers/provider.ts";
import { inFuture, prod, prodGateway, type Stage, startStage } from "../support/activities.ts";

/** checkIdle guards promise 3: only a key seen idle in the provider's own, late data counts as idle. */

/** Buckets of 100 ms, a quiet period of 300 ms, a usage lag of 50 ms. */
async function installed(options: Parameters<typeof startStage>[0] = {}) {
  const stage = await startStage(options);
  const { key } = await stage.installed();
  const installedAt = new Date().toISOString();
  const ask = (since = installedAt) =>
    stage.run("checkIdle", { oldKeyId: "key_prod_1", newKeyId: key.id, installedAt, since });
  return { stage, ask };
}
const oldKeyUsed = (stage: Stage) => stage.chat(prodGateway, `kt-${stage.of.rotationId.slice(0, 8)}-prev`);
/** A client's request with the new key. */
const newKeyUsed = (stage: Stage) => stage.chat();

describe("checkIdle", () => {
  test("finds the old key idle once the data shows the new one beyond a whole quiet period", async () => {
    const { stage, ask } = await installed();
    const since = new Date().toISOString();
    await expect
      .poll(
        async () => {
          await newKeyUsed(stage);
          return ask(since);
        },
        { timeout: 5_000, interval: 30 },
      )
      .toMatchObject({ kind: "idle" });
    const last = await ask(since);
    expect(Date.parse(last.horizon ?? "") - Date.parse(since)).toBeGreaterThanOrEqual(300);
    expect(last.newKeyRequests).toBeGreaterThan(2);
    expect(last.note).toMatch(/quiet for 300ms/);
  });

  test("never takes the absence of rows for idleness, however long it lasts", async () => {
    const { ask } = await installed();
    const longAgo = inFuture(-60_000);
    expect(await ask(longAgo)).toMatchObject({ kind: "too early", newKeyRequests: 0 });
    expect((await ask(longAgo)).note).toContain("does not show the new key yet");
  });

  test("finds a key used by clients in use, with the time and a plan of when to ask again", async () => {
    const { stage, ask } = await installed();
    await oldKeyUsed(stage);
    await expect.poll(() => ask(), { timeout: 5_000, interval: 30 }).toMatchObject({ kind: "used" });
    const { lastUsed, probeAt, askAt } = await ask();
    expect(Date.parse(probeAt ?? "") - Date.parse(lastUsed ?? "")).toBeGreaterThanOrEqual(300 + 100 - 1);
    expect(Date.parse(askAt ?? "") - Date.parse(probeAt ?? "")).toBe(50 + 100);
  });

  test("finds it in use also by last_used_at alone", async () => {
    const { stage, ask } = await installed({
      sandbox: { usageLag: { openai: { minMs: 3_600_000_000, jitterMs: 0 } } },
    });
    await oldKeyUsed(stage);
    expect(await ask(inFuture(-10_000))).toMatchObject({ kind: "used" });
  });

  test("holds no use against the old key that was before the wait", async () => {
    const { stage, ask } = await installed();
    await oldKeyUsed(stage);
    const later = inFuture(5_000);
    expect((await ask(later)).kind).toBe("too early");
  });

  test.each([
    [undefined, "unknown"],
    [new Date(), "used"],
  ])("calls use that bears no key's name unknown, unless last_used_at (%s) shows it", async (lastUsedAt, kind) => {
    const stage = await startStage();
    const access = stage.dependencies.slotAccess(prod);
    const provider: ManagedProvider = {
      ...managed(access),
      findKey: (id) =>
        Promise.resolve({
          id,
          name: "",
          state: "active",
          createdAt: new Date(0),
          ...(lastUsedAt === undefined ? {} : { lastUsedAt }),
        }),
      readUsage: () => Promise.resolve({ buckets: [], bucketMs: 100, unknownSurfaces: [], perKey: false }),
    };
    const { checkIdle } = usageActivities({ ...stage.dependencies, slotAccess: () => ({ ...access, provider }) });
    const order = { ...stage.of, oldKeyId: "old", newKeyId: "new" };
    const since = inFuture(-10_000);
    expect(await checkIdle({ ...order, installedAt: since, since })).toMatchObject({ kind });
  });

  test("names the ways to use a key that the provider cannot tell by key (promise 12)", async () => {
    const { ask } = await installed();
    expect((await ask()).unknownSurfaces).toEqual(
      expect.arrayContaining(["vector_stores", "code_interpreter_sessions"]),
    );
  });

  test("changes nothing, and is tried again when the provider does not answer", async () => {
    const { stage, ask } = await installed();
    const writes = await stage.writes();
    await stage.fault({ service: "openai", method: "GET", path: "/usage/", mode: "lost-answer", skip: 3, times: 1 });
    await expect(ask()).rejects.toMatchObject({ type: "Unavailable", nonRetryable: false });
    expect((await ask()).kind).toBe("too early");
    expect(await stage.writes()).toEqual(writes);
  });
});
