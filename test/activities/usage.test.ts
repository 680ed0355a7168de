import { describe, expect, test } from "vitest";

import { managed } from "../../src/activities/managed.ts";
import { usageActivities } from "../../src/activities/usage.ts";
import type { KeyRecord, ManagedProvider } from "../../src/providers/provider.ts";
import { inFuture, prod, prodGateway, runHere, type Stage, startStage } from "../support/activities.ts";

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
    expect(last.newKeyRequests).toBeGreaterThanOrEqual(2);
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
    ["does not show", "unknown"],
    ["shows", "used"],
  ])("calls use that bears no key's name unknown where last_used_at %s it: %s", async (shows, kind) => {
    const stage = await startStage();
    const lastUsedAt = shows === "shows" ? new Date() : undefined;
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

  /** A surface that shows one row of the old key in the minute that is over, counted like this. */
  const rowOf = (stage: Stage, surface: string, counts: Record<string, unknown>) => {
    const start_time = Date.now() / 1000 - 0.2;
    const results = [{ object: "result", api_key_id: "key_prod_1", model: "m", ...counts }];
    const data = [{ object: "bucket", start_time, end_time: start_time + 0.1, results }];
    const body = { object: "page", data, has_more: false, next_page: null };
    return stage.fault({
      service: "openai",
      method: "GET",
      path: `/usage/${surface}`,
      mode: "status",
      status: 200,
      body,
    });
  };

  test.each([
    ["tokens and no count of requests", "completions", { num_model_requests: null, input_tokens: 900 }],
    ["tokens and no requests", "completions", { num_model_requests: 0, output_tokens: 1 }],
    ["in a field that we do not know", "decisions", { num_decisions: 3 }],
    ["nothing at all", "decisions", {}],
  ])("takes a row that names the key and counts %s for use", async (_, surface, counts) => {
    const { stage, ask } = await installed();
    await rowOf(stage, surface, counts);
    expect(await ask(inFuture(-10_000))).toMatchObject({ kind: "used", lastUsed: expect.any(String) });
  });

  test("takes a row that says zero for none", async () => {
    const { stage, ask } = await installed();
    await rowOf(stage, "completions", { num_model_requests: 0, input_tokens: 0, output_tokens: 0 });
    expect((await ask(inFuture(-10_000))).kind).toBe("too early");
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

describe("the evidence for the new key (promise 2 d)", () => {
  /** Installed after so many requests of clients with the old key, and then used by us until the data shows it. */
  async function afterClients(requests: number, oldKeyProbes?: number) {
    const stage = await startStage();
    for (let sent = 0; sent < requests; sent++) await stage.chat();
    const { key } = await stage.installed();
    const installedAt = new Date().toISOString();
    const ask = () =>
      stage.run("checkIdle", {
        oldKeyId: "key_prod_1",
        newKeyId: key.id,
        installedAt,
        since: installedAt,
        ...(oldKeyProbes === undefined ? {} : { oldKeyProbes }),
      });
    return { stage, ask };
  }

  test("says that clients used the old key before the install, and counts one request as our own", async () => {
    const answersOf = async (...clients: Parameters<typeof afterClients>) => {
      const { ask } = await afterClients(...clients);
      return async () => (await ask()).clientsBefore;
    };
    // The provider's data shows a request a while after it.
    await expect.poll(await answersOf(3), { timeout: 5_000 }).toBe("yes");
    expect(await (await answersOf(1))()).toBe("unknown");
    await expect.poll(await answersOf(1, 0), { timeout: 5_000 }).toBe("yes");
  });

  test("says that nobody did only of data that is good until the install", async () => {
    const { stage, ask } = await afterClients(1);
    expect((await ask()).clientsBefore).toBe("unknown");
    const answer = async () => {
      await newKeyUsed(stage);
      return (await ask()).clientsBefore;
    };
    await expect.poll(answer, { timeout: 5_000, interval: 30 }).toBe("no");
  });

  test("looks back a day, not only one quiet period", async () => {
    const { dependencies, of } = await startStage();
    const access = dependencies.slotAccess(prod);
    const installedAt = Date.now() - 3_600_000;
    const from = new Date(installedAt - 20 * 3_600_000);
    const use = { keyId: "old", from, to: new Date(from.getTime() + 60_000), requests: 2, tokens: 0 };
    const asked: number[] = [];
    const provider: ManagedProvider = {
      ...managed(access),
      findKey: () => Promise.resolve(undefined),
      listKeys: () => Promise.resolve([]),
      readUsage: (query) => {
        asked.push(installedAt - query.from.getTime());
        return Promise.resolve({ buckets: query.from <= from ? [use] : [], bucketMs: 60_000, unknownSurfaces: [] });
      },
    };
    const { checkIdle } = usageActivities({ ...dependencies, slotAccess: () => ({ ...access, provider }) });
    const since = new Date(installedAt).toISOString();
    const order = { ...of, oldKeyId: "old", newKeyId: "new", installedAt: since, since };
    const answer = await runHere(() => checkIdle(order));
    expect(answer.clientsBefore).toBe("yes");
    expect(Math.max(...asked)).toBe(24 * 3_600_000);
  });

  const hour = 3_600_000;
  const record = (id: string, lastUsedAt?: Date): KeyRecord => ({
    id,
    name: id,
    state: "active",
    createdAt: new Date(0),
    ...(lastUsedAt === undefined ? {} : { lastUsedAt }),
  });

  /** A provider that reports these keys in use an hour after the install, which was three hours ago. */
  async function reporting(keyIds: string[], others: KeyRecord[] = []) {
    const { dependencies, of } = await startStage();
    const access = dependencies.slotAccess(prod);
    const installedAt = Date.now() - 3 * hour;
    const from = new Date(installedAt + hour);
    const provider: ManagedProvider = {
      ...managed(access),
      findKey: (id) => Promise.resolve(record(id)),
      listKeys: () => Promise.resolve([record("old"), record("new"), ...others]),
      readUsage: (query) =>
        Promise.resolve({
          buckets: keyIds
            .filter((keyId) => query.keyIds.includes(keyId) && query.to > from)
            .map((keyId) => ({ keyId, from, to: new Date(from.getTime() + 60_000), requests: 1, tokens: 0 })),
          bucketMs: 60_000,
          unknownSurfaces: [],
        }),
    };
    const { checkIdle } = usageActivities({ ...dependencies, slotAccess: () => ({ ...access, provider }) });
    const since = new Date(installedAt).toISOString();
    return checkIdle({ ...of, oldKeyId: "old", newKeyId: "new", installedAt: since, since });
  }

  test.each([
    ["reports the old key", () => reporting(["old"])],
    ["reports another key of the project", () => reporting(["third"], [record("third")])],
    ["shows another key's last use", () => reporting([], [record("third", new Date(Date.now() - hour))])],
  ])("says that the provider %s and never the new one", async (_, ask) => {
    expect(await ask()).toMatchObject({ newKeyNeverReported: true, newKeyRequests: 0 });
  });

  test.each([
    ["reports the new key", () => reporting(["old", "new"])],
    ["reports nothing at all", () => reporting([], [record("third")])],
    ["shows another key's last use only from before", () => reporting([], [record("third", new Date(0))])],
  ])("does not say so where it %s", async (_, ask) => {
    expect(await ask()).not.toHaveProperty("newKeyNeverReported");
  });
});
