import Anthropic from "@anthropic-ai/sdk";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { anthropicSpendLimit } from "../../src/sandbox/index.ts";
import type { Answer, Body, World } from "./world.ts";
import { answerSchema, departures, eventually, items, openApi, startWorld, text } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    timeScale: 60,
    anthropicSettleMs: 0,
    // Long enough here for what is asked meanwhile, on a busy machine too.
    anthropicDeathMs: 90_000,
    reviveMs: 90_000,
    usageLag: { anthropic: { minMs: 180_000, jitterMs: 60_000 } },
  });
});
afterAll(() => world.close());

const keysPath = "/v1/organizations/api_keys";
const hello = { model: "claude-haiku-4-5", max_tokens: 16, messages: [{ role: "user", content: "ping" }] };

const anthropic = (
  method: string,
  path: string,
  more: { body?: unknown; key?: string; headers?: Record<string, string> } = {},
): Promise<Answer> =>
  world.call(method, `${world.env["ANTHROPIC_BASE_URL"]}${path}`, {
    body: more.body,
    headers: {
      "x-api-key": more.key ?? world.env["ANTHROPIC_ADMIN_KEY"] ?? "",
      "anthropic-version": "2026-10-21",
      ...more.headers,
    },
  });
const handMade = async (more: Record<string, unknown> = {}): Promise<Body> =>
  (await world.call("POST", `${world.control}/anthropic/keys`, { body: { name: "rot-1", ...more } })).body;
const models = (key: Body): Promise<Answer> => anthropic("GET", "/v1/models?limit=1", { key: text(key["value"]) });
const setStatus = (key: Body, status: string): Promise<Answer> =>
  anthropic("POST", `${keysPath}/${text(key["id"])}`, { body: { status } });

describe("keys", () => {
  test("are made by hand, and listed with a hint that fits, a little later", async () => {
    const key = await handMade({ workspaceId: "wrkspc_1", expiresInSeconds: 3_600 });
    const value = text(key["value"]);
    expect(value).toMatch(/^sk-ant-api03-/);
    const { body } = await eventually(
      () => anthropic("GET", `${keysPath}?limit=1000&status=active&workspace_id=wrkspc_1`),
      (answer) => items(answer.body["data"]).some(({ id }) => id === key["id"]),
    );
    const found = items(body["data"]).find(({ id }) => id === key["id"]);
    expect(found).toMatchObject({ name: "rot-1", status: "active", scope: { workspace_id: "wrkspc_1" } });
    const [start = "", end = ""] = text(found?.["partial_key_hint"]).split("...");
    expect([value.startsWith(start), value.endsWith(end)]).toEqual([true, true]);
    expect(JSON.stringify(body)).not.toContain(value);
    const old = await anthropic("GET", `${keysPath}/${text(key["id"])}`, {
      headers: { "anthropic-version": "2023-06-01" },
    });
    expect([found?.["workspace_id"], text(old.body["workspace_id"])]).toEqual([undefined, "wrkspc_1"]);
  });

  test("are made on a page that shows the value once", async () => {
    const url = `${world.control}/console/anthropic`;
    expect(await (await fetch(url)).text()).toContain("wrkspc_1");
    const given = new URLSearchParams({ name: "by <hand>", workspace: "wrkspc_1", expires: "" });
    const shown = await (await fetch(url, { method: "POST", body: given })).text();
    const value = /sk-ant-api03-[\w-]+/.exec(shown)?.[0] ?? "";
    expect(shown).toContain("by &lt;hand&gt;");
    expect((await anthropic("GET", "/v1/models", { key: value })).status).toBe(200);
    expect((await fetch(url, { method: "POST", body: new URLSearchParams({ name: "" }) })).status).toBe(400);
  });

  test("go on working for a moment when made inactive, and come back after a moment", async () => {
    const key = await handMade();
    expect((await setStatus(key, "inactive")).body).toMatchObject({ status: "inactive" });
    expect((await setStatus(key, "inactive")).status).toBe(200);
    expect((await models(key)).status).toBe(200);
    const { body } = await eventually(
      () => models(key),
      ({ status }) => status === 401,
    );
    expect(body).toMatchObject({
      type: "error",
      error: { type: "authentication_error", message: "invalid x-api-key" },
    });
    const known = async (): Promise<Body | undefined> =>
      items((await world.record())["keys"]).find(({ id }) => id === key["id"]);
    const disabled = await known();
    expect(disabled).toMatchObject({ state: "disabled", revokedAt: null });
    await eventually(
      () => Promise.resolve(Date.now()),
      (now) => now > Date.parse(text(disabled?.["deadAt"])),
    );
    await setStatus(key, "active");
    expect((await models(key)).status).toBe(401);
    await eventually(
      () => models(key),
      ({ status }) => status === 200,
    );
    expect(await known()).toMatchObject({ state: "active", disabledAt: null, deadAt: null });
  });

  test("are archived for good, stay listed, and expire", async () => {
    const key = await handMade();
    await setStatus(key, "archived");
    expect((await setStatus(key, "archived")).status).toBe(200);
    expect((await setStatus(key, "active")).status).toBe(400);
    await eventually(
      () => anthropic("GET", `${keysPath}?status=archived`),
      ({ body }) => items(body["data"]).some(({ id }) => id === key["id"]),
    );
    const short = await handMade();
    await world.call("POST", `${world.control}/keys/${text(short["id"])}/expire`);
    expect((await models(short)).status).toBe(401);
    expect((await anthropic("GET", `${keysPath}/${text(short["id"])}`)).body["status"]).toBe("expired");
    expect((await setStatus(short, "inactive")).status).toBe(400);
  });

  test("page both ways", async () => {
    await handMade();
    await handMade();
    const first = await eventually(
      () => anthropic("GET", `${keysPath}?limit=2`),
      ({ body }) => Boolean(body["has_more"]),
    );
    const second = await anthropic("GET", `${keysPath}?limit=1&after_id=${text(first.body["last_id"])}`);
    expect(second.body["first_id"]).not.toBe(first.body["last_id"]);
    const back = await anthropic("GET", `${keysPath}?limit=1&before_id=${text(second.body["first_id"])}`);
    expect(back.body["last_id"]).toBe(first.body["last_id"]);
    expect((await anthropic("GET", `${keysPath}?limit=1001`)).status).toBe(400);
  });
});

describe("refuses", () => {
  test("without a key, with a wrong one, and with one that may not", async () => {
    const bare = await world.call("GET", `${world.env["ANTHROPIC_BASE_URL"]}/v1/models`);
    expect([bare.status, bare.body["error"]?.["message"]]).toEqual([401, "x-api-key header is required"]);
    const wrong = await anthropic("GET", "/v1/models", { key: "sk-ant-api03-no" });
    expect(wrong.body["error"]).toEqual({ type: "authentication_error", message: "invalid x-api-key" });
    expect(wrong.headers.get("request-id")).toBe(text(wrong.body["request_id"]));
    const key = text((await handMade())["value"]);
    expect((await anthropic("GET", keysPath, { key })).body["error"]?.["type"]).toBe("permission_error");
    expect((await anthropic("GET", "/v1/models")).status).toBe(403);
    const readOnly = world.seed["anthropicReadOnlyAdminKey"] ?? "";
    expect((await anthropic("GET", keysPath, { key: readOnly })).status).toBe(200);
    expect((await anthropic("POST", `${keysPath}/apikey_stg_1`, { key: readOnly, body: {} })).status).toBe(403);
    expect((await anthropic("GET", "/v1/models", { key, headers: { "anthropic-version": "1" } })).status).toBe(400);
  });

  test("a key without a workspace, unless the request names one", async () => {
    const key = text((await handMade({ unscoped: true }))["value"]);
    const { status, body } = await anthropic("GET", "/v1/models", { key });
    expect([status, body["error"]?.["type"]]).toEqual([400, "invalid_request_error"]);
    expect(text(body["error"]?.["message"])).toContain("anthropic-workspace-id");
    const headers = { "anthropic-workspace-id": "wrkspc_1" };
    expect((await anthropic("GET", "/v1/models", { key, headers })).status).toBe(200);
  });

  test("to make one key too many active", async () => {
    const key = await handMade();
    await setStatus(key, "inactive");
    const limit = (anthropicKeyLimit: unknown): Promise<Answer> =>
      world.call("POST", `${world.control}/options`, { body: { anthropicKeyLimit } });
    await limit({ organization: 0, workspace: 1 });
    const refused = await setStatus(key, "active");
    expect([refused.status, refused.body["error"]?.["details"]]).toEqual([
      400,
      { error_code: "workspace_api_key_limit_exceeded" },
    ]);
    await limit({ organization: 0, workspace: 0 });
    expect((await setStatus(key, "active")).status).toBe(200);
  });

  test("with money or capacity gone, as a fault", async () => {
    const key = text((await handMade())["value"]);
    const fault = { service: "anthropic", path: "messages", mode: "status", times: 1 };
    await world.fault({ ...fault, status: 400, body: anthropicSpendLimit });
    await world.fault({ ...fault, status: 529 });
    const call = (): Promise<Answer> => anthropic("POST", "/v1/messages", { key, body: hello });
    expect(text((await call()).body["error"]?.["message"])).toContain("usage limits");
    expect((await call()).body["error"]?.["type"]).toBe("overloaded_error");
    expect((await call()).status).toBe(200);
  });
});

describe("usage", () => {
  const beta = { "anthropic-beta": "analytics-usage-cost-2026-08-24" };
  const at = (ms: number): string => encodeURIComponent(new Date(ms).toISOString());
  const usage = (from: number, more: string): Promise<Answer> =>
    anthropic(
      "GET",
      `/v1/organizations/analytics/usage?starting_at=${at(from)}&ending_at=${at(Date.now() + 1_000)}&${more}`,
      { headers: beta },
    );

  test("comes late, grouped, and says how fresh it is", async () => {
    const key = await handMade({ workspaceId: "wrkspc_1" });
    const sent = Date.now();
    for (let call = 0; call < 3; call++) {
      await anthropic("POST", "/v1/messages", { key: text(key["value"]), body: hello });
    }
    const query = `time_bucket_width=1m&limit=1000&group_by[]=api_key_id&api_key_ids[]=${text(key["id"])}`;
    expect(items((await usage(sent - 2_000, query)).body["data"])).toEqual([]);
    const total = (body: Body): number =>
      items(body["data"]).reduce((sum, row) => sum + Number(row["usage"]?.["requests"]), 0);
    let asked = 0;
    const { body } = await eventually(
      () => {
        asked = Date.now();
        return usage(sent - 2_000, query);
      },
      (answer) => total(answer.body) === 3,
      30_000,
    );
    const answered = Date.now();
    const row = body["data"]?.[0];
    expect(row?.["group"]).toMatchObject({ api_key_id: key["id"], model: null });
    expect(Date.parse(text(row?.["ending_at"])) - Date.parse(text(row?.["starting_at"]))).toBe(1_000);
    const fresh = Date.parse(text(body["data_refreshed_at"]));
    expect([fresh > asked - 6_000, fresh < answered - 3_900]).toEqual([true, true]);
    const old = await anthropic(
      "GET",
      `/v1/organizations/usage_report/messages?bucket_width=1m&starting_at=${at(sent - 1_000)}&group_by[]=model&api_key_ids[]=${text(key["id"])}`,
    );
    const results = items(old.body["data"]).flatMap((bucket) => items(bucket["results"]));
    expect(results[0]).toMatchObject({ api_key_id: null, model: "claude-haiku-4-5" });
  });

  test("needs its beta header, an end for buckets, and a range in bounds", async () => {
    const path = "/v1/organizations/analytics/usage";
    const now = Date.now();
    expect((await anthropic("GET", `${path}?starting_at=${at(now - 1_000)}`)).status).toBe(400);
    const withBeta = (query: string): Promise<Answer> => anthropic("GET", `${path}?${query}`, { headers: beta });
    expect((await withBeta(`starting_at=${at(now - 1_000)}&time_bucket_width=1m`)).status).toBe(400);
    expect(
      (await withBeta(`starting_at=${at(now - 90_000_000)}&ending_at=${at(now)}&time_bucket_width=1m`)).status,
    ).toBe(400);
    expect((await withBeta(`starting_at=${at(now - 90_000_000)}`)).status).toBe(200);
  });
});

test("serves Anthropic's own SDK", async () => {
  const baseURL = world.env["ANTHROPIC_BASE_URL"] ?? "";
  const made = await handMade();
  const client = new Anthropic({ apiKey: text(made["value"]), baseURL, maxRetries: 0 });
  const ids: string[] = [];
  for await (const model of client.models.list({ limit: 2 })) ids.push(model.id);
  expect(ids).toContain("claude-haiku-4-5");
  const ask = { model: "claude-haiku-4-5", max_tokens: 16, messages: [{ role: "user" as const, content: "ping" }] };
  const message = await client.messages.create(ask);
  expect(message.usage.output_tokens).toBeGreaterThan(0);
  const streamed = await client.messages.stream(ask).finalMessage();
  expect(streamed.content).toMatchObject([{ type: "text", text: "pong" }]);
  await expect(client.models.retrieve("no-such")).rejects.toMatchObject({ status: 404 });

  const admin = new Anthropic({ apiKey: world.env["ANTHROPIC_ADMIN_KEY"] ?? "", baseURL, maxRetries: 0 });
  const names: string[] = [];
  for await (const key of admin.organization.apiKeys.list({ limit: 2 })) names.push(key.id);
  expect(names).toContain("apikey_prod_1");
  const off = await admin.organization.apiKeys.update(text(made["id"]), { status: "inactive" });
  expect(off.status).toBe("inactive");
  const workspaces = await admin.organization.workspaces.list();
  expect(workspaces.data.map(({ id }) => id)).toEqual(["wrkspc_1", "wrkspc_2"]);
  const page = await admin.beta.organization.analytics.usage.list({
    starting_at: new Date(Date.now() - 60_000).toISOString(),
    ending_at: new Date().toISOString(),
    time_bucket_width: "1m",
    group_by: ["api_key_id"],
    betas: ["analytics-usage-cost-2026-08-24"],
  });
  expect(page.data_refreshed_at).not.toBeNull();
});

test("is reached through the gateway, natively and by compat", async () => {
  const native = await world.chat(
    { "anthropic-version": "2023-06-01" },
    { path: "anthropic/v1/messages", body: hello },
  );
  expect([native.status, native.body["type"]]).toEqual([200, "message"]);
  const placeholder = await world.chat(
    { "anthropic-version": "2023-06-01", "x-api-key": "placeholder" },
    { path: "anthropic/v1/messages", body: hello },
  );
  expect([placeholder.status, placeholder.body["error"]?.["type"]]).toEqual([401, "authentication_error"]);
  const path = "compat/chat/completions";
  const body = { model: "anthropic/claude-haiku-4-5", messages: [{ role: "user", content: "ping" }] };
  const { body: chat } = await world.chat({}, { path, body });
  expect(chat).toMatchObject({ object: "chat.completion", choices: [{ message: { content: "pong" } }] });
  const cached = { "cf-aig-cache-ttl": "60" };
  await world.chat(cached, { path, body });
  expect((await world.chat(cached, { path, body })).body).toMatchObject({ object: "chat.completion" });
  const streamed = await world.chat({}, { path, body: { ...body, stream: true } });
  expect(String(streamed.body)).toMatch(/"content":"pong".*data: \[DONE\]/s);
  const key = items((await world.record())["keys"]).find(({ id }) => text(id) === "apikey_prod_1");
  expect(key?.["lastUsedAt"]).not.toBeNull();
});

const api = openApi("anthropic-subset.json");
test.skipIf(api === undefined)("answers as the schema says", async () => {
  if (api === undefined) return;
  const made = await handMade();
  const key = text(made["value"]);
  const now = encodeURIComponent(new Date(Date.now() - 60_000).toISOString());
  const headers = { "anthropic-beta": "analytics-usage-cost-2026-08-24" };
  const calls: [string, string, string, { body?: unknown; key?: string }?][] = [
    ["get", "/v1/organizations/me", "/v1/organizations/me"],
    ["get", keysPath, keysPath],
    ["get", `${keysPath}/{api_key_id}`, `${keysPath}/${text(made["id"])}`],
    ["post", `${keysPath}/{api_key_id}`, `${keysPath}/${text(made["id"])}`, { body: { name: "by schema" } }],
    ["get", "/v1/organizations/analytics/usage", `/v1/organizations/analytics/usage?starting_at=${now}`],
    ["get", "/v1/organizations/usage_report/messages", `/v1/organizations/usage_report/messages?starting_at=${now}`],
    ["get", "/v1/models", "/v1/models", { key }],
    ["post", "/v1/messages", "/v1/messages", { key, body: hello }],
  ];
  for (const [method, template, path, more] of calls) {
    const answer = await anthropic(method.toUpperCase(), path, { ...more, headers });
    expect([path, answer.status]).toEqual([path, 200]);
    expect([path, departures(api, answerSchema(api, template, method), answer.body)]).toEqual([path, []]);
  }
});
