import Cloudflare from "cloudflare";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Body, World } from "./world.ts";
import { answerSchema, departures, eventually, items, openApi, startWorld, text } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({ timeScale: 20, secretQuota: 12, listLagMs: 10_000 });
});
afterAll(() => world.close());

const secrets = (): string => `/secrets_store/stores/${world.seed["storeId"]}/secrets`;
const configs = "/ai-gateway/gateways/github-ai-agent-prod/provider_configs";
const secretNamed = async (name: string): Promise<Body | undefined> => {
  const { body } = await world.cloudflare("GET", `${secrets()}?search=${name}`);
  return items(body["result"]).find((secret) => text(secret["name"]) === name);
};

describe("Secrets Store", () => {
  test("has the secret of each gateway of the example inventory, active and without a comment", async () => {
    for (const gateway of ["github-ai-agent-prod", "github-ai-agent-staging"]) {
      expect(await secretNamed(`${gateway}_openai_default`)).toMatchObject({
        status: "active",
        comment: null,
        scopes: ["ai_gateway"],
      });
    }
  });

  test("never tells a value", async () => {
    const { body } = await world.call("GET", `${world.control}/values`);
    const list = JSON.stringify((await world.cloudflare("GET", secrets())).body);
    const held = JSON.stringify((await world.cloudflare("GET", configs)).body);
    for (const { value } of items(body["values"])) {
      expect(list).not.toContain(text(value));
      expect(held).not.toContain(text(value));
    }
  });

  test("creates from an array, pending at first, and shows it in lists only later", async () => {
    const created = await world.cloudflare("POST", secrets(), [
      { name: "late_one", value: "made-up-value", scopes: ["ai_gateway"], comment: "a note" },
    ]);
    expect(created.body["result"]).toMatchObject([{ status: "pending", comment: "a note" }]);
    const id = text(created.body["result"]?.[0]?.["id"]);
    expect(await secretNamed("late_one")).toBeUndefined();
    const one = (): Promise<{ body: Body }> => world.cloudflare("GET", `${secrets()}/${id}`);
    expect((await one()).body["result"]).toMatchObject({ name: "late_one" });
    await eventually(one, ({ body }) => text(body["result"]?.["status"]) === "active");
    await eventually(
      () => secretNamed("late_one"),
      (secret) => secret !== undefined,
    );
    expect(await secretNamed("late_one")).toMatchObject({ id });
  });

  test("refuses a taken name, bad scopes, an unknown id and a full quota, in its words", async () => {
    const taken = { name: "github-ai-agent-prod_openai_default", value: "v", scopes: ["ai_gateway"] };
    const word = async (...request: Parameters<World["cloudflare"]>): Promise<unknown> => {
      const { status, body } = await world.cloudflare(...request);
      return [status, body["errors"]?.[0]?.["code"], body["errors"]?.[0]?.["message"]];
    };
    expect(await word("POST", secrets(), [taken])).toEqual([409, 1003, "secret_name_already_exists"]);
    expect(await word("POST", secrets(), [{ ...taken, name: "x", scopes: ["no"] }])).toEqual([
      400,
      1001,
      "secret_scope_invalid",
    ]);
    expect(await word("GET", `${secrets()}/${"0".repeat(32)}`)).toEqual([404, 1001, "secret_not_found"]);
    const many = Array.from({ length: 20 }, (_, index) => ({ ...taken, name: `many_${index}` }));
    expect(await word("POST", secrets(), many)).toEqual([400, 1003, "maximum_secrets_exceeded"]);
  });

  test("duplicates a secret without telling its value, and deletes with 202", async () => {
    const held = await secretNamed("github-ai-agent-prod_openai_default");
    const copy = await world.cloudflare("POST", `${secrets()}/${text(held?.["id"])}/duplicate`, {
      name: "a_copy",
      scopes: ["ai_gateway"],
    });
    expect(copy.body["result"]).toMatchObject({ name: "a_copy", comment: null });
    const id = text(copy.body["result"]?.["id"]);
    const removed = await world.cloudflare("DELETE", `${secrets()}/${id}`);
    expect([removed.status, removed.body["result"]]).toEqual([202, null]);
    expect((await world.cloudflare("GET", `${secrets()}/${id}`)).status).toBe(404);
  });

  test("lets only tokens with the right permission in", async () => {
    const { noSecretsStoreToken = "", readOnlyToken = "", runToken = "" } = world.seed;
    const status = async (method: string, token: string): Promise<number> =>
      (await world.cloudflare(method, secrets(), method === "GET" ? undefined : [], token)).status;
    expect(await status("GET", noSecretsStoreToken)).toBe(403);
    expect(await status("GET", runToken)).toBe(403);
    expect(await status("GET", readOnlyToken)).toBe(200);
    expect(await status("POST", readOnlyToken)).toBe(403);
    expect(await status("GET", "made-up")).toBe(401);
  });
});

test("tells beside the API which key lies in each secret, with or without a config", async () => {
  await world.cloudflare("POST", secrets(), [{ name: "no_config", value: "made-up-value", scopes: ["ai_gateway"] }]);
  const { body } = await world.call("GET", `${world.control}/secrets`);
  const named = (name: string): Body | undefined => items(body["secrets"]).find((row) => text(row["name"]) === name);
  expect(named("github-ai-agent-prod_openai_default")).toMatchObject({ keyId: "key_prod_1", config: true });
  expect(named("no_config")).toMatchObject({ keyId: null, config: false });
  const keys = items((await world.call("GET", `${world.control}/keys`)).body["keys"]).map(({ id }) => text(id));
  expect(keys).toContain("key_prod_1");
});

describe("AI Gateway", () => {
  test("replaces a gateway whole and names each missing field", async () => {
    const path = "/ai-gateway/gateways/github-ai-agent-staging";
    const bare = await world.cloudflare("PUT", path, { byok_only: true });
    expect(bare.status).toBe(400);
    expect(bare.body["errors"]).toHaveLength(5);
    const before = (await world.cloudflare("GET", path)).body["result"];
    const after = await world.cloudflare("PUT", path, { ...before, byok_only: true });
    expect(after.body["result"]).toMatchObject({ byok_only: true, store_id: before?.["store_id"] });
  });

  test("makes a config only once its secret is seen, once per alias, and gives it back on deletion", async () => {
    const name = "github-ai-agent-prod_openai_canary";
    const config = { alias: "canary", provider_slug: "openai", default_config: false };
    await world.cloudflare("POST", secrets(), [{ name, value: "v".repeat(20), scopes: ["ai_gateway"] }]);
    const early = await world.cloudflare("POST", configs, config);
    expect(early.body["errors"]?.[0]).toMatchObject({ code: 7001, message: `Secret '${name}' was not found` });
    const made = await eventually(
      () => world.cloudflare("POST", configs, config),
      ({ status }) => status === 200,
    );
    expect(made.body["result"]).toMatchObject({ alias: "canary", secret_preview: "****vvvv" });
    const again = await world.cloudflare("POST", configs, config);
    expect(again.body["errors"]?.[0]?.["message"]).toContain("already exists");
    const path = `${configs}/${text(made.body["result"]?.["id"])}`;
    const rotated = await world.cloudflare("PUT", path, { secret: "made-up-abcd" });
    expect(rotated.body["result"]).toMatchObject({ secret_preview: "****abcd" });
    const removed = await world.cloudflare("DELETE", path);
    expect(removed.body["result"]).toMatchObject({ alias: "canary" });
    expect((await world.cloudflare("PUT", path, { secret: "x" })).body["errors"]?.[0]).toMatchObject({
      code: 7002,
    });
  });

  test("pages logs by at most 50 and filters them by one JSON parameter", async () => {
    const logs = "/ai-gateway/gateways/github-ai-agent-prod/logs";
    await world.chat({ "cf-aig-metadata": '{"keyturn":"rot-1"}' });
    await world.chat();
    expect((await world.cloudflare("GET", `${logs}?per_page=100`)).body["errors"]?.[0]).toMatchObject({
      code: 7001,
    });
    const filters = encodeURIComponent(JSON.stringify([{ key: "metadata.value", operator: "eq", value: ["rot-1"] }]));
    const { body } = await eventually(
      () => world.cloudflare("GET", `${logs}?filters=${filters}&per_page=50`),
      (answer) => items(answer.body["result"]).length === 1,
    );
    expect(body["result"]?.[0]).toMatchObject({
      provider: "openai",
      success: true,
      cached: false,
      byok: true,
      wholesale: false,
    });
    expect(body["result"]?.[0]?.["tokens_in"]).toBeGreaterThan(0);
  });
});

test("blocks the whole account for a while after too many calls", async () => {
  const small = await startWorld({ timeScale: 300, rateLimit: { calls: 5, windowMs: 300_000 } });
  const quota = (token?: string): ReturnType<World["cloudflare"]> =>
    small.cloudflare("GET", "/secrets_store/quota", undefined, token);
  for (let call = 0; call < 5; call++) {
    const { status, headers } = await quota();
    expect([status, headers.get("ratelimit")]).toEqual([200, `"default";r=${4 - call};t=1`]);
  }
  expect((await quota()).status).toBe(429);
  const other = await quota(small.seed["readOnlyToken"]);
  expect([other.status, other.headers.get("retry-after")]).toEqual([429, "1"]);
  await eventually(quota, ({ status }) => status === 200);
  await small.close();
});

test("serves Cloudflare's own SDK", async () => {
  const client = new Cloudflare({
    apiToken: world.env["CLOUDFLARE_API_TOKEN"] ?? "",
    baseURL: world.env["CLOUDFLARE_BASE_URL"] ?? "",
    maxRetries: 0,
  });
  const account_id = world.env["CLOUDFLARE_ACCOUNT_ID"] ?? "";
  const stores = await client.secretsStore.stores.list({ account_id });
  const store = stores.result[0]?.id ?? "";
  expect(store).toBe(world.seed["storeId"]);
  const created = await client.secretsStore.stores.secrets.create(store, {
    account_id,
    body: [{ name: "by_sdk", value: "made-up", scopes: ["ai_gateway"] }],
  });
  const id = created.result[0]?.id ?? "";
  const edited = await client.secretsStore.stores.secrets.edit(id, {
    account_id,
    store_id: store,
    value: "made-up-2",
    comment: "edited",
  });
  expect(edited).toMatchObject({ name: "by_sdk", comment: "edited" });
  await client.secretsStore.stores.secrets.delete(id, { account_id, store_id: store });
  const gateway = await client.aiGateway.get("github-ai-agent-prod", { account_id });
  expect(gateway.authentication).toBe(true);
  const held = await client.aiGateway.providerConfigs.list("github-ai-agent-prod", { account_id });
  expect(held.result.map(({ alias }) => alias)).toContain("default");
});

const api = openApi("cloudflare-subset.json");
test.skipIf(api === undefined)("answers as the published schema says", async () => {
  if (api === undefined) return;
  const account = "/accounts/{account_id}";
  const store = world.seed["storeId"];
  const held = await secretNamed("github-ai-agent-prod_openai_default");
  const calls: [string, string, string, unknown?][] = [
    ["get", "/secrets_store/quota", "/secrets_store/quota"],
    ["get", "/secrets_store/stores", "/secrets_store/stores"],
    ["get", "/secrets_store/stores/{store_id}/secrets", `/secrets_store/stores/${store}/secrets`],
    [
      "get",
      "/secrets_store/stores/{store_id}/secrets/{secret_id}",
      `/secrets_store/stores/${store}/secrets/${text(held?.["id"])}`,
    ],
    [
      "patch",
      "/secrets_store/stores/{store_id}/secrets/{secret_id}",
      `/secrets_store/stores/${store}/secrets/${text(held?.["id"])}`,
      { comment: "seen" },
    ],
    ["get", "/ai-gateway/gateways", "/ai-gateway/gateways"],
    ["get", "/ai-gateway/gateways/{id}", "/ai-gateway/gateways/github-ai-agent-prod"],
    ["get", "/ai-gateway/gateways/{gateway_id}/logs", "/ai-gateway/gateways/github-ai-agent-prod/logs"],
  ];
  for (const [method, template, path, body] of calls) {
    const answer = await world.cloudflare(method.toUpperCase(), path, body);
    expect(answer.status).toBe(200);
    expect(departures(api, answerSchema(api, account + template, method), answer.body)).toEqual([]);
  }
});
