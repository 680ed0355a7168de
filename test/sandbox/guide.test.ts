import { afterAll, beforeAll, expect, test } from "vitest";
import type { Body, World } from "./world.ts";
import { eventually, items, ping, startWorld, text } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    dialect: "guide",
    logLagMs: 0,
    purgeMs: 50,
    settleMs: 0,
    edges: [{ name: "one", propagationMs: 0, cacheTtlMs: 3_600_000, isolates: 4 }],
  });
});
afterAll(() => world.close());

const secrets = "/ai-gateway/secrets";
const name = "github-ai-agent-prod_openai_default";

/** As the guide's curl lines send it: JSON without saying so. */
const curl = async (method: string, path: string, body: unknown): Promise<[number, Body]> => {
  const response = await fetch(`${world.env["CLOUDFLARE_API_BASE_URL"]}${path}`, {
    method,
    body: Buffer.from(JSON.stringify(body)),
    headers: { authorization: `Bearer ${world.env["CLOUDFLARE_API_TOKEN"]}` },
  });
  return [response.status, (await response.json()) as Body];
};
const isolates = async (): Promise<Body | undefined> => {
  const { body } = await world.call("GET", `${world.control}/slots`);
  const slot = items(body["slots"]).find(
    ({ gateway, provider }) => [text(gateway), text(provider)].join() === "github-ai-agent-prod,openai",
  );
  return slot?.["edges"]?.[0]?.["isolates"];
};

test("writes a secret by id or name, shows it masked, and purges what the isolates cached", async () => {
  const account = `/accounts/${world.env["CLOUDFLARE_ACCOUNT_ID"]}`;
  const made = await world.openai("POST", "/organization/projects/proj_abc/service_accounts/svc_acct_1/api_keys");
  const [value, id] = [text(made.body["value"]), text(made.body["id"])];
  expect((await world.chat()).status).toBe(200);
  const [status, written] = await curl("PUT", `${account}${secrets}/${name}`, { value });
  expect([status, written["success"]]).toEqual([200, true]);
  const shown = await world.cloudflare("GET", `${secrets}/${text(written["result"]?.["id"])}`);
  expect(shown.body["result"]).toMatchObject({ name, value: `****${value.slice(-4)}`, status: "pending" });
  expect(JSON.stringify(shown.body)).not.toContain(value);
  const secretId = text(shown.body["result"]?.["id"]);
  const store = await world.cloudflare("GET", `/secrets_store/stores/${world.seed["storeId"]}/secrets/${secretId}`);
  expect(store.body["result"]?.["modified"]).toBe(shown.body["result"]?.["modified_at"]);
  expect(await isolates()).toEqual({ key_prod_1: 4 });
  expect((await curl("POST", "/cache/purge", { files: ["github-ai-agent-prod/secrets"] }))[0]).toBe(200);
  await eventually(isolates, (held) => Number(held?.[id]) === 4);
  expect((await world.chat()).status).toBe(200);
  expect((await curl("POST", "/cache/purge", { files: ["nope/secrets"] }))[0]).toBe(400);
  expect((await curl("PUT", `${account}${secrets}/nope`, { value }))[0]).toBe(404);
  expect(
    (await world.cloudflare("GET", `${secrets}/${name}`, undefined, world.env["CLOUDFLARE_GATEWAY_TOKEN"])).status,
  ).toBe(403);
});

test("tells the logs one row a line, under the guide's names", async () => {
  const contents = [{ role: "user", parts: [{ text: "ping" }] }];
  const path = "google-ai-studio/v1beta/models/gemini-2.5-flash:generateContent";
  await world.chat({}, { path, body: { contents } });
  await world.chat({}, { path: "compat/chat/completions", body: { ...ping, model: "openai/gpt-4" } });
  const logs = async (query: string): Promise<Body[]> => {
    const { headers, body } = await world.cloudflare("GET", `/ai-gateway/gateways/github-ai-agent-prod/logs${query}`);
    expect(headers.get("content-type")).toBe("application/x-ndjson");
    const raw = typeof body === "string" ? String(body) : JSON.stringify(body);
    return raw
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Body);
  };
  const [newest] = await logs("");
  expect(newest).toMatchObject({ provider: "openai", model: "gpt-4", response_tokens: 2 });
  expect(Number(newest?.["total_tokens"])).toBe(Number(newest?.["request_tokens"]) + 2);
  expect(Number(newest?.["cost_usd"])).toBeGreaterThan(0);
  expect((await logs("?provider=google")).map(({ provider }) => text(provider))).toEqual(["google"]);
  expect(await logs("?per_page=1")).toHaveLength(1);
  await world.call("POST", `${world.control}/options`, { body: { dialect: "secrets-store" } });
  const real = await world.cloudflare(
    "GET",
    "/ai-gateway/gateways/github-ai-agent-prod/logs?provider=google-ai-studio",
  );
  expect(items(real.body["result"])[0]).toMatchObject({ provider: "google-ai-studio", tokens_out: 2 });
});
