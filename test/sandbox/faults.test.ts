import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { ExchangeEvent } from "../../src/sandbox/index.ts";
import { insufficientQuota, startSandbox } from "../../src/sandbox/index.ts";
import type { Body, World } from "./world.ts";
import { eventually, items, startWorld, text } from "./world.ts";

let world: World;
const events: ExchangeEvent[] = [];
beforeAll(async () => {
  world = await startWorld({ timeScale: 60, settleMs: 0, hooks: (event) => void events.push(event) });
});
afterAll(() => world.close());
afterEach(async () => {
  await world.call("DELETE", `${world.control}/faults`);
});

const accounts = "/organization/projects/proj_abc/service_accounts";
const create = (name: string): ReturnType<World["openai"]> =>
  world.openai("POST", `${accounts}/svc_acct_1/api_keys`, { name });
const fault = (mode: string, more: Record<string, unknown> = {}): Promise<unknown> =>
  world.fault({ service: "openai", method: "POST", path: "api_keys", mode, times: 1, ...more });
const keysNamed = async (name: string): Promise<Body[]> =>
  items((await world.record())["keys"]).filter((key) => text(key["name"]) === name);
const lastRow = async (): Promise<Body | undefined> => items((await world.record())["requests"]).at(-1);

describe("a fault", () => {
  test("`status` answers in the service's words and executes nothing", async () => {
    await fault("status", { status: 429, retryAfter: 7, skip: 1 });
    expect((await create("skipped")).status).toBe(200);
    const refused = await create("refused");
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "7"]);
    expect(refused.body["error"]).toMatchObject({ code: "rate_limit_exceeded" });
    expect(await keysNamed("refused")).toEqual([]);
    expect(await lastRow()).toMatchObject({ fault: "status", executed: false, status: 429 });
    expect((await create("after")).status).toBe(200);
    const { body } = await world.call("GET", `${world.control}/faults`);
    expect(body["faults"]).toMatchObject([{ matched: 2, hits: 1 }]);
  });

  test("`status` can fake any answer, also behind the gateway", async () => {
    await fault("status", { status: 429, body: insufficientQuota, path: "chat/completions" });
    const poor = await world.chat();
    expect([poor.status, poor.body["error"]?.["code"]]).toEqual([429, "insufficient_quota"]);
    await world.fault({
      service: "gateway",
      method: "POST",
      path: "chat/completions",
      mode: "status",
      status: 200,
      body: { choices: [] },
      headers: { "cf-aig-cache-status": "HIT" },
      when: { "cf-aig-byok-alias": "^kt-" },
    });
    expect((await world.chat()).headers.get("cf-aig-cache-status")).toBe("MISS");
    const faked = await world.chat({ "cf-aig-byok-alias": "kt-1-prev" });
    expect([faked.status, faked.headers.get("cf-aig-cache-status")]).toEqual([200, "HIT"]);
  });

  test.each([
    ["lost-request", 0],
    ["reset", 0],
    ["lost-answer", 1],
    ["half", 1],
  ])("`%s` breaks the connection, with %i keys made", async (mode, made) => {
    await fault(mode);
    await expect(create(mode)).rejects.toThrow();
    expect(await keysNamed(mode)).toHaveLength(made);
    expect(await lastRow()).toMatchObject({ fault: mode, executed: made === 1 });
  });

  test("`late` lands after the connection is long gone", async () => {
    await fault("late", { delayMs: 80 });
    await expect(create("late")).rejects.toThrow();
    expect(await keysNamed("late")).toEqual([]);
    await eventually(
      () => keysNamed("late"),
      (keys) => keys.length === 1,
    );
  });

  test("`slow` answers in the end", async () => {
    await fault("slow", { delayMs: 60 });
    const started = performance.now();
    expect((await create("slow")).status).toBe(200);
    expect(performance.now() - started).toBeGreaterThan(55);
  });

  test("`slow-answer` executes at once and answers late", async () => {
    await fault("slow-answer", { delayMs: 80 });
    const started = performance.now();
    const answer = create("answered late");
    await eventually(
      () => keysNamed("answered late"),
      (keys) => keys.length === 1,
    );
    expect(performance.now() - started).toBeLessThan(75);
    expect((await answer).status).toBe(200);
    expect(performance.now() - started).toBeGreaterThan(75);
  });

  test("`malformed` answers what is no JSON", async () => {
    await fault("malformed");
    expect(typeof (await create("malformed")).body).toBe("string");
    expect(await keysNamed("malformed")).toHaveLength(1);
  });

  test("`timeout` never answers and executes nothing", async () => {
    await fault("timeout");
    const given = AbortSignal.timeout(100);
    const hung = fetch(`${world.env["OPENAI_BASE_URL"]}${accounts}/svc_acct_1/api_keys`, {
      method: "POST",
      headers: { authorization: `Bearer ${world.env["OPENAI_ADMIN_KEY"]}` },
      signal: given,
    });
    await expect(hung).rejects.toThrow(/timeout/);
    expect(await lastRow()).toMatchObject({ fault: "timeout", executed: false, status: null });
  });

  test("that makes no sense is refused", async () => {
    expect((await world.fault({ service: "openai", mode: "sleepy" })).status).toBe(400);
    expect((await world.fault({ service: "openai", mode: "reset", path: "(" })).status).toBe(400);
  });
});

test("tells hooks of each phase, also of the gateway's calls to a provider", async () => {
  events.length = 0;
  await world.chat();
  await eventually(
    () => Promise.resolve(events.map(({ service, phase }) => `${service} ${phase}`)),
    (seen) => seen.at(-1) === "gateway answered",
  );
  expect(events.map(({ service, phase }) => `${service} ${phase}`)).toEqual([
    "gateway received",
    "openai received",
    "openai executed",
    "openai answered",
    "gateway executed",
    "gateway answered",
  ]);
});

test("records who asked what, counts writes, and tells no key value", async () => {
  const before = Number((await world.record())["writes"]);
  await create("counted");
  await world.openai("GET", "/organization/projects");
  const record = await world.record();
  expect(Number(record["writes"])).toBe(before + 1);
  expect(items(record["requests"]).at(-2)).toMatchObject({
    service: "openai",
    method: "POST",
    status: 200,
    executed: true,
    userAgent: "node",
  });
  const { body } = await world.call("GET", `${world.control}/values`);
  for (const { value } of items(body["values"])) {
    expect(JSON.stringify(record)).not.toContain(text(value));
  }
});

test("closes although a request hangs", async () => {
  const other = await startSandbox();
  await fetch(`${other.control}/faults`, {
    method: "POST",
    body: JSON.stringify({ service: "openai", mode: "timeout" }),
  });
  const hung = fetch(`${other.env["OPENAI_BASE_URL"]}/models`);
  hung.catch(() => {});
  await eventually(
    async () => (await (await fetch(`${other.control}/faults`)).json()) as Body,
    (body) => Number(body["faults"]?.[0]?.["hits"]) === 1,
  );
  await other.close();
  await expect(hung).rejects.toThrow();
});
