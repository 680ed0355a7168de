import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Body, World } from "./world.ts";
import { eventually, items, ping, startWorld, text } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    timeScale: 600,
    settleMs: 0,
    deathMs: 0,
    listLagMs: 0,
    activationMs: 0,
    googleSettleMs: 0,
    anthropicSettleMs: 0,
    anthropicDeathMs: 0,
    reviveMs: 0,
    operationMs: 0,
    usageLag: { openai: { minMs: 0, jitterMs: 0 }, anthropic: { minMs: 0, jitterMs: 0 } },
    usageDisorder: false,
  });
});
afterAll(() => world.close());
afterEach(async () => {
  await world.call("DELETE", `${world.control}/lies`);
  await world.call("POST", `${world.control}/options`, { body: { usageRequests: "told", inactiveKeysWork: true } });
});

const lie = (body: unknown): ReturnType<World["call"]> => world.call("POST", `${world.control}/lies`, { body });
const secrets = (): string => `/secrets_store/stores/${world.seed["storeId"]}/secrets`;
const configs = "/ai-gateway/gateways/github-ai-agent-prod/provider_configs";
const openAiKeys = "/organization/projects/proj_abc/api_keys";
const newKeys = "/organization/projects/proj_abc/service_accounts/svc_acct_1/api_keys";
const prodSecret = "github-ai-agent-prod_openai_default";
const secretNames = async (): Promise<string[]> =>
  items((await world.cloudflare("GET", `${secrets()}?per_page=100`)).body["result"]).map(({ name }) => text(name));
const openAiIds = async (query = "limit=100"): Promise<string[]> =>
  items((await world.openai("GET", `${openAiKeys}?owner_project_access=any&${query}`)).body["data"]).map(({ id }) =>
    text(id),
  );
const issue = async (name = "made for a lie"): Promise<{ id: string; value: string }> => {
  const { body } = await world.openai("POST", newKeys, { name });
  return { id: text(body["id"]), value: text(body["value"]) };
};
const anthropic = (method: string, path: string, body?: unknown): ReturnType<World["call"]> =>
  world.call(method, `${world.env["ANTHROPIC_BASE_URL"]}/v1${path}`, {
    body,
    headers: { "x-api-key": world.env["ANTHROPIC_ADMIN_KEY"] ?? "", "anthropic-version": "2026-10-21" },
  });
const google = (method: string, path: string): ReturnType<World["call"]> =>
  world.call(method, `${world.env["GOOGLE_APIKEYS_BASE_URL"]}/v2/projects/my-project/locations/global${path}`, {
    headers: { authorization: `Bearer ${world.env["GOOGLE_OAUTH_ACCESS_TOKEN"]}` },
  });
const lies = async (): Promise<Body[]> => items((await world.call("GET", `${world.control}/lies`)).body["lies"]);

describe("a list", () => {
  test("leaves a secret out by name, so often as is said, while a read by id finds it", async () => {
    const id = text(
      items((await world.cloudflare("GET", `${secrets()}?search=${prodSecret}`)).body["result"])[0]?.["id"],
    );
    await lie({ about: "secrets", mode: "missing", which: `^${prodSecret}$`, times: 2 });
    const before = await secretNames();
    expect(before).not.toContain(prodSecret);
    expect(before).toContain("github-ai-agent-staging_openai_default");
    expect((await world.cloudflare("GET", `${secrets()}/${id}`)).status).toBe(200);
    expect(await secretNames()).not.toContain(prodSecret);
    expect(await secretNames()).toContain(prodSecret);
    expect(await lies()).toMatchObject([{ hits: 2 }]);
  });

  test("leaves a row out for so long as is said, and lets some lists pass first", async () => {
    await lie({ about: "secrets", mode: "missing", which: prodSecret, forMs: 2_000, skip: 1 });
    expect(await secretNames()).toContain(prodSecret);
    expect(await secretNames()).not.toContain(prodSecret);
    await eventually(secretNames, (names) => names.includes(prodSecret));
  });

  test("leaves rows out now and then", async () => {
    await lie({ about: "secrets", mode: "missing", odds: 0.5 });
    const counts = await Promise.all(Array.from({ length: 20 }, async () => (await secretNames()).length));
    expect(Math.max(...counts)).toBeGreaterThan(Math.min(...counts));
    expect(Math.max(...counts)).toBeGreaterThan(0);
  });

  test("leaves out provider configs and the keys of each provider; what they serve and open goes on", async () => {
    const { id, value } = await issue();
    await lie([
      { about: "provider-configs", mode: "missing", which: prodSecret },
      { about: "openai-keys", mode: "missing", which: id },
      { about: "anthropic-keys", mode: "missing", which: "^apikey_prod_1$" },
      { about: "google-keys", mode: "missing", which: "^gemini-prod-1$" },
    ]);
    const shown = items((await world.cloudflare("GET", configs)).body["result"]).map(({ provider_slug: slug }) => slug);
    expect(shown).toEqual(["anthropic", "google-ai-studio"]);
    expect(await openAiIds()).not.toContain(id);
    const listed = items((await anthropic("GET", "/organizations/api_keys")).body["data"]).map((key) =>
      text(key["id"]),
    );
    expect([listed.includes("apikey_prod_1"), listed.includes("apikey_stg_1")]).toEqual([false, true]);
    expect((await google("GET", "/keys")).body["keys"]).toBeUndefined();

    expect((await world.chat()).status).toBe(200);
    expect((await world.openai("GET", "/models", undefined, value)).status).toBe(200);
    expect((await world.openai("GET", `${openAiKeys}/${id}`)).status).toBe(200);
    expect((await anthropic("GET", "/organizations/api_keys/apikey_prod_1")).status).toBe(200);
    expect((await google("GET", "/keys/gemini-prod-1")).status).toBe(200);
  });

  test("by offset hides a row when another is deleted between two of its pages", async () => {
    const made = await world.cloudflare(
      "POST",
      secrets(),
      ["z-1", "z-2", "z-3"].map((name) => ({ name, value: "made-up-value", scopes: ["ai_gateway"] })),
    );
    const [first] = items(made.body["result"]).map(({ id }) => text(id));
    const page = async (number: number): Promise<string[]> =>
      items(
        (await world.cloudflare("GET", `${secrets()}?search=z-&order=name&direction=asc&per_page=1&page=${number}`))
          .body["result"],
      ).map(({ name }) => text(name));
    expect(await page(1)).toEqual(["z-1"]);
    await world.cloudflare("DELETE", `${secrets()}/${first}`);
    expect([...(await page(2)), ...(await page(3))]).toEqual(["z-3"]);
  });
});

describe("a read by id", () => {
  test("finds nothing once, and a write at the same time meets the truth", async () => {
    const { id } = await issue();
    await lie({ about: "openai-keys", mode: "not-found", which: id, times: 1 });
    const missed = await world.openai("GET", `${openAiKeys}/${id}`);
    expect([missed.status, missed.body["error"]?.["type"]]).toEqual([404, "invalid_request_error"]);
    expect((await world.openai("GET", `${openAiKeys}/${id}`)).status).toBe(200);
    await lie({ about: "openai-keys", mode: "not-found" });
    expect((await world.openai("POST", `${openAiKeys}/${id}`, { expires_in_seconds: 600 })).status).toBe(200);
    expect((await world.openai("DELETE", `${openAiKeys}/${id}`)).status).toBe(200);
  });

  test("of a secret finds what was there before the last write, once", async () => {
    const [secret] = items((await world.cloudflare("GET", `${secrets()}?search=${prodSecret}`)).body["result"]);
    const path = `${secrets()}/${text(secret?.["id"])}`;
    const comment = async (): Promise<unknown> =>
      (await world.cloudflare("GET", path)).body["result"]?.["comment"] ?? null;
    await world.cloudflare("PATCH", path, { comment: "written by somebody" });
    await lie({ about: "secrets", mode: "stale", times: 1 });
    expect(await comment()).toBeNull();
    expect(await comment()).toBe("written by somebody");
    await lie({ about: "secrets", mode: "not-found", which: prodSecret, times: 1 });
    const missed = await world.cloudflare("GET", path);
    expect([missed.status, missed.body["errors"]?.[0]?.["message"]]).toEqual([404, "secret_not_found"]);
  });

  test("shows a key that is ended as alive, a new one not yet, and an old life, where its replica lags", async () => {
    const [ended, changed] = [await issue("ended"), await issue("changed")];
    // Older than what is read, and all that follows is younger, on a busy machine too.
    await new Promise((resolve) => setTimeout(resolve, 2_100));
    await world.openai("DELETE", `${openAiKeys}/${ended.id}`);
    await world.openai("POST", `${openAiKeys}/${changed.id}`, { expires_in_seconds: 600 });
    const fresh = await issue("fresh");
    await lie({ about: "openai-keys", mode: "stale", agoMs: 2_000 });
    const [was, life, young] = await Promise.all(
      [ended, changed, fresh].map(({ id }) => world.openai("GET", `${openAiKeys}/${id}`)),
    );
    expect([was?.status, life?.body["expires_at"] ?? null, young?.status]).toEqual([200, null, 404]);
    await world.call("DELETE", `${world.control}/lies`);
    expect((await world.openai("GET", `${openAiKeys}/${ended.id}`)).status).toBe(404);
    expect((await world.openai("GET", `${openAiKeys}/${changed.id}`)).body["expires_at"]).not.toBeNull();
  });

  test("of the other providers is stale too", async () => {
    const status = async (): Promise<unknown> =>
      (await anthropic("GET", "/organizations/api_keys/apikey_stg_1")).body["status"];
    await anthropic("POST", "/organizations/api_keys/apikey_stg_1", { status: "inactive" });
    await lie({ about: "anthropic-keys", mode: "stale", times: 1 });
    expect([await status(), await status()]).toEqual(["active", "inactive"]);
    await anthropic("POST", "/organizations/api_keys/apikey_stg_1", { status: "active" });
    await lie({ about: "google-keys", mode: "not-found", times: 1 });
    expect((await google("GET", "/keys/gemini-prod-1")).status).toBe(404);
    await google("DELETE", "/keys/gemini-prod-1");
    await lie({ about: "google-keys", mode: "stale", times: 1 });
    expect((await google("GET", "/keys/gemini-prod-1")).body["deleteTime"]).toBeUndefined();
    expect((await google("GET", "/keys/gemini-prod-1")).body["deleteTime"]).toBeDefined();
  });
});

test("lies are listed and cleared one by one, and those that make no sense are refused", async () => {
  const added = await lie({ about: "secrets", mode: "missing" });
  await lie({ about: "secrets", mode: "stale" });
  expect((await lies()).map(({ mode }) => mode)).toEqual(["missing", "stale"]);
  await world.call("DELETE", `${world.control}/lies/${String(added.body["id"])}`);
  expect((await lies()).map(({ mode }) => mode)).toEqual(["stale"]);
  expect((await lie({ about: "weather", mode: "missing" })).status).toBe(400);
  expect((await lie({ about: "secrets", mode: "sleepy" })).status).toBe(400);
  expect((await lie({ about: "secrets", mode: "stale", which: "(" })).status).toBe(400);
});

describe("a key whose service account lost its role", () => {
  const role = (name: string): ReturnType<World["call"]> =>
    world.call("POST", `${world.control}/openai/service-accounts/svc_acct_1/role`, { body: { role: name } });

  test("is listed as inactive, and works or does not, as is set", async () => {
    const { id, value } = await issue();
    await role("none");
    expect((await world.openai("GET", `${openAiKeys}/${id}`)).body["owner_project_access"]).toBe("inactive");
    expect(await openAiIds("")).toContain(id);
    expect((await world.openai("GET", "/models", undefined, value)).status).toBe(200);
    await world.call("POST", `${world.control}/options`, { body: { inactiveKeysWork: false } });
    const refused = await world.openai("GET", "/models", undefined, value);
    expect([refused.status, refused.body["error"]?.["code"]]).toEqual([401, "invalid_api_key"]);
    expect((await world.chat()).status).toBe(401);
    await role("member");
    expect((await world.openai("GET", "/models", undefined, value)).status).toBe(200);
  });
});

describe("a usage report", () => {
  const rowsOf = async (surface: string, id: string): Promise<Body[]> => {
    const start = Math.floor(Date.now() / 1_000) - 30;
    const query = `start_time=${start}&bucket_width=1m&limit=1440&group_by=api_key_id&api_key_ids=${id}`;
    const { body } = await world.openai("GET", `/organization/usage/${surface}?${query}`);
    return items(body["data"]).flatMap((bucket) => items(bucket["results"]));
  };
  const told = (usageRequests: string): Promise<unknown> =>
    world.call("POST", `${world.control}/options`, { body: { usageRequests } });

  test("of OpenAI counts tokens without requests, or under another name", async () => {
    const { id, value } = await issue();
    await world.openai("POST", "/chat/completions", ping, value);
    const [row] = await eventually(
      () => rowsOf("completions", id),
      (rows) => rows.length > 0,
    );
    expect(row).toMatchObject({ api_key_id: id, num_model_requests: 1 });
    await told("null");
    const [without] = await rowsOf("completions", id);
    expect(without).toMatchObject({ api_key_id: id, num_model_requests: null, output_tokens: 2 });
    await told("absent");
    expect((await rowsOf("completions", id))[0]).not.toHaveProperty("num_model_requests");
    await told("renamed");
    const [renamed] = await rowsOf("completions", id);
    expect(renamed).toMatchObject({ num_requests: 1 });
    expect(renamed).not.toHaveProperty("num_model_requests");
  });

  test("of a surface without tokens counts what that surface counts", async () => {
    const { id } = await issue();
    const use = (surface: string): Promise<unknown> =>
      world.call("POST", `${world.control}/openai/keys/${id}/usage`, { body: { surface } });
    await use("file_search_calls");
    await use("code_interpreter_sessions");
    const [searched] = await eventually(
      () => rowsOf("file_search_calls", id),
      (rows) => rows.length > 0,
    );
    expect(searched).toMatchObject({ api_key_id: id, num_requests: 1 });
    expect(searched).not.toHaveProperty("num_model_requests");
    const [session] = await eventually(
      () => rowsOf("code_interpreter_sessions", id),
      (rows) => rows.length > 0,
    );
    expect(session).toMatchObject({ num_sessions: 1 });
  });

  test("of Anthropic tells no count of requests either", async () => {
    const key = await world.call("POST", `${world.control}/anthropic/keys`, { body: { name: "counted" } });
    const use = await world.call("POST", `${world.env["ANTHROPIC_BASE_URL"]}/v1/messages`, {
      body: { model: "claude-haiku-4-5", max_tokens: 1, messages: [{ role: "user", content: "ping" }] },
      headers: { "x-api-key": text(key.body["value"]), "anthropic-version": "2023-06-01" },
    });
    expect(use.status).toBe(200);
    await told("null");
    const report = async (): Promise<Body[]> => {
      const [from, to] = [Date.now() - 60_000, Date.now() + 60_000].map((at) => new Date(at).toISOString());
      const query = `starting_at=${from}&ending_at=${to}&time_bucket_width=1m&group_by=api_key_id&api_key_ids=${text(key.body["id"])}`;
      const answer = await world.call(
        "GET",
        `${world.env["ANTHROPIC_BASE_URL"]}/v1/organizations/analytics/usage?${query}`,
        {
          headers: {
            "x-api-key": world.env["ANTHROPIC_ADMIN_KEY"] ?? "",
            "anthropic-version": "2026-10-21",
            "anthropic-beta": "analytics-usage-cost-2026-08-24",
          },
        },
      );
      return items(answer.body["data"]);
    };
    const [row] = await eventually(report, (rows) => rows.length > 0);
    expect(row?.["usage"]).toMatchObject({ requests: null });
    expect(Number(row?.["usage"]?.["total_tokens"])).toBeGreaterThan(0);
  });
});
