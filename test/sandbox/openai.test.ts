import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Body, World } from "./world.ts";
import { answerSchema, departures, eventually, items, openApi, ping, startWorld, text } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    timeScale: 60,
    settleMs: 0,
    deathMs: 12_000,
    listLagMs: 30_000,
    usageLag: { openai: { minMs: 60_000, jitterMs: 60_000 } },
  });
});
afterAll(() => world.close());

const keysOfProject = "/organization/projects/proj_abc/api_keys";
const newKeys = "/organization/projects/proj_abc/service_accounts/svc_acct_1/api_keys";
const issue = async (more: Record<string, unknown> = {}): Promise<Body> =>
  (await world.openai("POST", newKeys, { name: "rot-1", ...more })).body;

describe("keys", () => {
  test("come with their value once, and show in the list later, masked and with their owner", async () => {
    const key = await issue({ expires_in_seconds: 3_600 });
    expect(text(key["value"])).toMatch(/^sk-svcacct-/);
    const list = (): Promise<{ body: Body }> =>
      world.openai("GET", `${keysOfProject}?owner_project_access=any&limit=100`);
    const find = (body: Body): Body | undefined => items(body["data"]).find(({ id }) => id === key["id"]);
    expect(find((await list()).body)).toBeUndefined();
    const { body } = await eventually(list, (answer) => find(answer.body) !== undefined);
    expect(find(body)).toMatchObject({
      name: "rot-1",
      last_used_at: null,
      owner: { type: "service_account", service_account: { id: "svc_acct_1" } },
    });
    expect(JSON.stringify(body)).not.toContain(text(key["value"]));
  });

  test("page with limit and after", async () => {
    await issue();
    await issue();
    const { body } = await eventually(
      () => world.openai("GET", `${keysOfProject}?owner_project_access=any&limit=1`),
      (answer) => answer.body["has_more"] !== undefined && Boolean(answer.body["has_more"]),
    );
    const next = await world.openai("GET", `${keysOfProject}?limit=1&after=${text(body["last_id"])}`);
    expect(next.body["first_id"]).not.toBe(body["first_id"]);
  });

  test("go on working for a moment when deleted, then are refused by name", async () => {
    const key = await issue();
    const value = text(key["value"]);
    const probe = (): Promise<{ status: number; body: Body }> => world.openai("GET", "/models", undefined, value);
    expect((await probe()).status).toBe(200);
    const path = `${keysOfProject}/${text(key["id"])}`;
    expect((await world.openai("DELETE", path)).body).toMatchObject({ deleted: true });
    expect((await world.openai("DELETE", path)).status).toBe(404);
    expect((await probe()).status).toBe(200);
    const { body } = await eventually(probe, ({ status }) => status === 401);
    expect(body["error"]).toMatchObject({ code: "invalid_api_key", type: "invalid_request_error" });
    expect(JSON.stringify(body)).not.toContain(value);
    const known = items((await world.record())["keys"]).find(({ id }) => id === key["id"]);
    expect(known).toMatchObject({ state: "revoked" });
    const dead = Date.parse(text(known?.["deadAt"]));
    expect(dead - Date.parse(text(known?.["revokedAt"]))).toBe(200);
  });

  test("expire, may be given another life, and then may not", async () => {
    const key = await issue({ expires_in_seconds: 3_600 });
    const path = `${keysOfProject}/${text(key["id"])}`;
    const longer = await world.openai("POST", path, { expires_in_seconds: 7_200 });
    expect(Number(longer.body["expires_at"]) - Number(key["expires_at"])).toBeGreaterThan(3_500);
    expect((await world.openai("POST", path, {})).status).toBe(400);
    await world.call("POST", `${world.control}/keys/${text(key["id"])}/expire`);
    expect((await world.openai("GET", "/models", undefined, text(key["value"]))).status).toBe(401);
    expect((await world.openai("POST", path, { expires_in_seconds: 60 })).status).toBe(400);
  });

  test("with scopes lack the others, which is not the same as being wrong", async () => {
    const key = await issue({ scopes: ["api.model.read"] });
    const value = text(key["value"]);
    expect((await world.openai("GET", "/models", undefined, value)).status).toBe(200);
    const refused = await world.openai("POST", "/chat/completions", ping, value);
    expect(refused.status).toBe(401);
    expect(refused.body["error"]).toMatchObject({ code: null });
    expect(text(refused.body["error"]?.["message"])).toContain("Missing scopes");
  });

  test("must have a life where the organisation says so", async () => {
    const options = `${world.control}/options`;
    await world.call("POST", options, { body: { maxKeyLifeSeconds: 600 } });
    expect((await world.openai("POST", newKeys, {})).status).toBe(400);
    expect((await world.openai("POST", newKeys, { expires_in_seconds: 601 })).status).toBe(400);
    expect((await world.openai("POST", newKeys, { expires_in_seconds: 600 })).status).toBe(200);
    await world.call("POST", options, { body: { maxKeyLifeSeconds: 0 } });
  });

  test("may be refused while they settle", async () => {
    const slow = await startWorld({ settleMs: 60_000 });
    const key = (await slow.openai("POST", newKeys, {})).body;
    await eventually(
      () => slow.openai("GET", "/models", undefined, text(key["value"])),
      ({ status }) => status === 401,
    );
    await slow.close();
  });
});

test("a service account comes with a key and takes all its keys along", async () => {
  const accounts = "/organization/projects/proj_abc/service_accounts";
  const { body: account } = await world.openai("POST", accounts, { name: "gw-2" });
  const value = text(account["api_key"]?.["value"]);
  expect((await world.openai("GET", "/models", undefined, value)).status).toBe(200);
  await world.openai("DELETE", `${accounts}/${text(account["id"])}`);
  await eventually(
    () => world.openai("GET", "/models", undefined, value),
    ({ status }) => status === 401,
  );
});

test("keeps admin keys and project keys apart", async () => {
  const key = text((await issue())["value"]);
  expect((await world.openai("GET", "/organization/projects", undefined, key)).status).toBe(401);
  expect((await world.openai("GET", "/models")).status).toBe(401);
  const readOnly = world.seed["openaiReadOnlyAdminKey"];
  expect((await world.openai("GET", keysOfProject, undefined, readOnly)).status).toBe(200);
  expect((await world.openai("POST", newKeys, {}, readOnly)).status).toBe(401);
});

describe("usage", () => {
  const usage = (query: string): Promise<{ body: Body }> =>
    world.openai("GET", `/organization/usage/completions?bucket_width=1m&limit=1440&${query}`);
  const rows = (body: Body): Body[] => items(body["data"]).flatMap((bucket) => items(bucket["results"]));

  test("comes late, in buckets as wide as the time scale says, split by what it is grouped by", async () => {
    const key = await issue();
    const sent = Date.now();
    const start = sent / 1_000 - 2;
    for (let call = 0; call < 3; call++) {
      await world.openai("POST", "/chat/completions", ping, text(key["value"]));
    }
    const query = `start_time=${start}&group_by[]=api_key_id&api_key_ids[]=${text(key["id"])}`;
    expect(rows((await usage(query)).body)).toEqual([]);
    const total = (body: Body): number => rows(body).reduce((sum, row) => sum + Number(row["num_model_requests"]), 0);
    const { body } = await eventually(
      () => usage(query),
      (answer) => total(answer.body) === 3,
      12_000,
    );
    expect(Date.now() - sent).toBeGreaterThan(1_000);
    expect(rows(body)[0]).toMatchObject({ api_key_id: key["id"], model: null, project_id: null });
    for (const bucket of items(body["data"])) {
      expect(Number(bucket["end_time"]) - Number(bucket["start_time"])).toBeCloseTo(1);
    }
    const plain = await usage(`start_time=${start}&group_by=model&api_key_ids=${text(key["id"])}`);
    expect(rows(plain.body)[0]).toMatchObject({ api_key_id: null, model: "gpt-5-mini" });
    const embeddings = await world.openai("GET", `/organization/usage/embeddings?bucket_width=1m&limit=60&${query}`);
    expect(rows(embeddings.body)).toEqual([]);
  }, 15_000);

  test("pages by buckets", async () => {
    const start = Math.floor(Date.now() / 1_000) - 5;
    const first = await world.openai(
      "GET",
      `/organization/usage/completions?bucket_width=1m&limit=2&start_time=${start}`,
    );
    expect(items(first.body["data"])).toHaveLength(2);
    const second = await world.openai(
      "GET",
      `/organization/usage/completions?bucket_width=1m&limit=2&start_time=${start}&page=${text(first.body["next_page"])}`,
    );
    expect(Number(second.body["data"]?.[0]?.["start_time"])).toBeCloseTo(start + 2);
  });
});

test("tells the last use of a key late", async () => {
  const key = await issue();
  await world.openai("GET", "/models", undefined, text(key["value"]));
  const one = (): Promise<{ body: Body }> => world.openai("GET", `${keysOfProject}/${text(key["id"])}`);
  expect((await one()).body["last_used_at"]).toBeNull();
  await eventually(one, ({ body }) => body["last_used_at"] !== null);
});

test("serves OpenAI's own SDK", async () => {
  const baseURL = world.env["OPENAI_BASE_URL"] ?? "";
  const adminAPIKey = world.env["OPENAI_ADMIN_KEY"] ?? "";
  const made = await issue();
  const client = new OpenAI({ apiKey: text(made["value"]), adminAPIKey, baseURL, maxRetries: 0 });
  const names: string[] = [];
  for await (const model of client.models.list()) names.push(model.id);
  expect(names).toContain("gpt-5-mini");
  const chat = await client.chat.completions.create({
    model: "gpt-5-mini",
    messages: [{ role: "user", content: "ping" }],
  });
  expect(chat.usage?.total_tokens).toBeGreaterThan(0);
  let streamed = "";
  const stream = await client.chat.completions.create({
    model: "gpt-5-mini",
    messages: [{ role: "user", content: "ping" }],
    stream: true,
  });
  for await (const chunk of stream) streamed += chunk.choices[0]?.delta.content ?? "";
  expect(streamed).toBe("pong");
  const response = await client.responses.create({ model: "gpt-5-mini", input: "ping" });
  expect(response.output_text).toBe("pong");
  const embedding = await client.embeddings.create({ model: "text-embedding-3-small", input: "x" });
  expect(embedding.data).toHaveLength(1);
  await expect(client.models.retrieve("no-such")).rejects.toMatchObject({ code: "model_not_found" });

  const { projects } = client.admin.organization;
  const second = await projects.serviceAccounts.apiKeys.create("svc_acct_1", {
    project_id: "proj_abc",
    name: "rot-2",
  });
  const gone = await projects.apiKeys.delete(second.id, { project_id: "proj_abc" });
  expect(gone.deleted).toBe(true);
  const page = await client.admin.organization.usage.completions({
    start_time: Math.floor(Date.now() / 1_000) - 60,
    bucket_width: "1m",
    group_by: ["api_key_id"],
  });
  expect(page.object).toBe("page");
});

const api = openApi("openai-subset.json");
test.skipIf(api === undefined)("answers as the published schema says", async () => {
  if (api === undefined) return;
  const key = await issue();
  const project = "/organization/projects/{project_id}";
  const calls: [string, string, string, unknown?][] = [
    ["get", "/organization/projects", "/organization/projects"],
    ["get", project, "/organization/projects/proj_abc"],
    ["get", `${project}/api_keys`, `${keysOfProject}?owner_project_access=any`],
    ["get", `${project}/api_keys/{api_key_id}`, `${keysOfProject}/${text(key["id"])}`],
    ["post", `${project}/api_keys/{api_key_id}`, `${keysOfProject}/${text(key["id"])}`, { expires_in_seconds: 600 }],
    ["get", `${project}/service_accounts`, "/organization/projects/proj_abc/service_accounts"],
    ["post", `${project}/service_accounts`, "/organization/projects/proj_abc/service_accounts", { name: "by schema" }],
    ["post", `${project}/service_accounts/{service_account_id}/api_keys`, newKeys, {}],
    ["get", "/organization/usage/completions", "/organization/usage/completions?start_time=1"],
    ["get", "/organization/costs", "/organization/costs?start_time=1"],
    ["get", "/organization/admin_api_keys", "/organization/admin_api_keys"],
    ["get", "/organization/audit_logs", "/organization/audit_logs"],
  ];
  for (const [method, template, path, body] of calls) {
    const answer = await world.openai(method.toUpperCase(), path, body);
    expect([path, answer.status]).toEqual([path, 200]);
    expect([path, departures(api, answerSchema(api, template, method), answer.body)]).toEqual([path, []]);
  }
  const models = await world.openai("GET", "/models", undefined, text(key["value"]));
  expect(departures(api, answerSchema(api, "/models", "get"), models.body)).toEqual([]);
});
