import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import { createGatewayProbe, type Probe } from "../../src/cloudflare/data-plane.ts";
import { type Answer, classifyAnswer } from "../../src/domain/answer.ts";
import type { ProviderName } from "../../src/domain/slot.ts";
import { answerOf, createHttp } from "../../src/http.ts";
import type { Provider } from "../../src/providers/provider.ts";
import { Redacted } from "../../src/redacted.ts";
import { anthropicSpendLimit, geminiLocation, insufficientQuota } from "../../src/sandbox/index.ts";
import { type Body, eventually, items, startWorld, text, type World } from "../sandbox/world.ts";
import { readPage, section, table } from "../support/markdown.ts";
import { providerAt } from "../support/providers-at.ts";

/**
 * docs/providers.md says how providers and the gateway refuse; test/domain/answer.test.ts holds the classifier to each row.
 * Here the sandbox is made to give these answers, and the real clients read them: a row is either seen, or it is named
 * below with the reason why the sandbox does not play it.
 */

const page = readPage("docs/providers.md");
type Row = Record<string, string>;

const told = (row: Row, columns: string[]): string =>
  columns
    .map((column) => row[column] ?? "")
    .filter((cell) => cell !== "")
    .join(" ");
const providerRows = table(section(page, "What a provider's answer means"));
const gatewayRows = table(section(page, "What the gateway's own answer means"));
const facts = ["provider", "HTTP", "type", "code", "status", "reason", "words", "retry-after"];
const nameOf = (row: Row): string => told(row, facts);
const gatewayNameOf = (row: Row): string => told(row, ["HTTP", "internalCode"]);

/** Rows that the sandbox does not play. */
const notPlayed: Record<string, string> = {
  "openai 401 invalid_request_error This API key has expired": "what OpenAI says of an expired key is not published",
  "openai 401 invalid_request_error ip_not_authorized": "it has no IP allowlists",
  "openai 401 something new": "stands for what nobody knows yet",
  "openai 403 Country, region, or territory not supported": "it has no places",
  "openai 429 insufficient_quota credit_balance_exhausted":
    "its accounts have no balance; `insufficient_quota` is the same",
  "openai 429 insufficient_quota project_spend_limit_exceeded": "its projects have no limits",
  "openai 429 slow_down": "it is never overloaded",
  "openai 503 slow_down": "it is never overloaded",
  "anthropic 400 invalid_request_error You have reached your specified spend limit": "its account says `usage limits`",
  "gemini 400 INVALID_ARGUMENT API key expired. Please renew the API key.": "its keys have no end",
  "gemini 400 INVALID_ARGUMENT Invalid value at 'contents'": "it looks only whether there are any contents",
  "gemini 401 UNAUTHENTICATED CREDENTIALS_MISSING": "its Gemini says `unregistered callers`; its admin API says this",
  "gemini 403 PERMISSION_DENIED SERVICE_DISABLED": "its APIs are always enabled",
  "gemini 403 PERMISSION_DENIED API_KEY_IP_ADDRESS_BLOCKED": "it has no client restrictions",
  "gemini 403 PERMISSION_DENIED API_KEY_HTTP_REFERRER_BLOCKED": "it has no client restrictions",
};
const gatewayNotPlayed: Record<string, string> = {
  "429 2003": "its gateways have no rate limits",
  "429 2041": "it has no spend limits",
  "429 2045": "it has no spend limits",
  "400": "stands for codes that nobody listed; which one `byok_only` has is not known, and it says 2005",
  "401": "stands for codes that nobody listed",
  "402": "stands for codes that nobody listed",
  "429": "stands for codes that nobody listed",
  "500": "stands for codes that nobody listed",
};

let world: World;
let value: (keyId: string) => Promise<Redacted>;
const http = createHttp({ timeoutMs: 5_000, userAgent: "keyturn/0.0.0" });

beforeAll(async () => {
  const edges = [{ name: "one", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }];
  const prompt = {
    settleMs: 0,
    deathMs: 0,
    anthropicSettleMs: 0,
    anthropicDeathMs: 0,
    googleSettleMs: 0,
    googleDeathMs: 0,
  };
  world = await startWorld({
    ...prompt,
    googleStandardDeathMs: { minMs: 0, maxMs: 0 },
    operationMs: 0,
    listLagMs: 0,
    edges,
  });
  value = async (keyId) => {
    const { body } = await world.call("GET", `${world.control}/values`);
    return new Redacted(text(items(body["values"]).find(({ id }) => text(id) === keyId)?.["value"]));
  };
});
afterAll(() => world.close());
afterEach(async () => {
  await world.call("DELETE", `${world.control}/faults`);
  await world.call("POST", `${world.control}/options`, { body: { unifiedBilling: true } });
});

const provider = (name: ProviderName): Provider => providerAt(world.env, name, { http });
const settled: Record<ProviderName, string> = {
  openai: "key_prod_1",
  anthropic: "apikey_prod_1",
  gemini: "gemini-prod-1",
};
const tried = async (name: ProviderName, keyId = settled[name]): Promise<Answer> =>
  provider(name).tryKey(await value(keyId));
/** The next calls of a provider meet this. */
const meets = (service: string, fault: Record<string, unknown>) =>
  world.fault({ service, method: "*", path: "", mode: "status", ...fault });
const refusedBy =
  (name: ProviderName, fault: Record<string, unknown>): (() => Promise<Answer>) =>
  async () => {
    await meets(name, fault);
    return tried(name);
  };
/** A call without our client's own headers, read as it reads one. */
const bare = async (
  service: ProviderName,
  url: string,
  headers: Record<string, string | Redacted> = {},
  body?: unknown,
) =>
  answerOf(
    await http.exchange({
      service,
      method: body === undefined ? "GET" : "POST",
      baseUrl: url,
      route: "",
      headers,
      ...(body === undefined ? {} : { body }),
      doing: "while looking how it refuses",
    }),
  );
const at = (variable: string, path: string): string => `${world.env[variable]}${path}`;
const openAiKey = async (body: unknown): Promise<Body> =>
  (await world.openai("POST", "/organization/projects/proj_abc/service_accounts/svc_acct_1/api_keys", body)).body;
const newGoogleKey = async (more: { keyId: string; auth: boolean; restrictions?: unknown }): Promise<string> => {
  const serviceAccountEmail = more.auth ? "gw@my-project.iam.gserviceaccount.com" : undefined;
  const targets = { apiTargets: [{ service: "generativelanguage.googleapis.com" }] };
  await google("POST", `/v2/projects/my-project/locations/global/keys?keyId=${more.keyId}`, {
    displayName: more.keyId,
    ...(serviceAccountEmail === undefined ? {} : { serviceAccountEmail }),
    restrictions: more.restrictions ?? targets,
  });
  return more.keyId;
};
const google = async (method: string, path: string, body?: unknown) =>
  world.call(method, at("GOOGLE_APIKEYS_BASE_URL", path), {
    headers: { authorization: `Bearer ${world.env["GOOGLE_OAUTH_ACCESS_TOKEN"]}` },
    ...(body === undefined ? {} : { body }),
  });
const googleKey = (keyId: string): string => `/v2/projects/my-project/locations/global/keys/${keyId}`;
const anthropicVersion = { "anthropic-version": "2023-06-01" };
const messages = [{ role: "user", content: "ping" }];

/** How each row is brought about, by the facts of its row. */
const played: Record<string, () => Promise<Answer>> = {
  "openai 200": () => tried("openai"),
  "openai 401 invalid_request_error invalid_api_key Incorrect API key provided: sk-svcac***": async () => {
    const { id, value: made } = await openAiKey({ name: "to be deleted" });
    await world.openai("DELETE", `/organization/projects/proj_abc/api_keys/${text(id)}`);
    return eventually(
      () => provider("openai").tryKey(new Redacted(text(made))),
      ({ status }) => status !== 200,
    );
  },
  "openai 401 invalid_request_error Missing scopes: api.model.read": async () => {
    const { value: made } = await openAiKey({ name: "scoped", scopes: ["api.responses.write"] });
    return provider("openai").tryKey(new Redacted(text(made)));
  },
  "openai 401 invalid_request_error You didn't provide an API key": () =>
    bare("openai", at("OPENAI_BASE_URL", "/models")),
  "openai 429 insufficient_quota insufficient_quota": refusedBy("openai", { status: 429, body: insufficientQuota }),
  "openai 429 requests rate_limit_exceeded 20 s": refusedBy("openai", { status: 429, retryAfter: 20 }),
  "openai 503 server_error server_is_overloaded": refusedBy("openai", { status: 503 }),

  "anthropic 200": () => tried("anthropic"),
  "anthropic 401 authentication_error invalid x-api-key": () =>
    provider("anthropic").tryKey(new Redacted("sk-ant-api03-made-up-0123456789abcdef")),
  "anthropic 401 authentication_error x-api-key header is required": () =>
    bare("anthropic", at("ANTHROPIC_BASE_URL", "/v1/models"), anthropicVersion),
  "anthropic 400 invalid_request_error anthropic-workspace-id is required": async () => {
    const made = await world.call("POST", `${world.control}/anthropic/keys`, {
      body: { name: "of no one", unscoped: true },
    });
    return provider("anthropic").tryKey(new Redacted(text(made.body["value"])));
  },
  "anthropic 400 invalid_request_error You have reached your specified API usage limits": refusedBy("anthropic", {
    status: 400,
    body: anthropicSpendLimit,
  }),
  "anthropic 400 invalid_request_error max_tokens: Field required": async () =>
    bare(
      "anthropic",
      at("ANTHROPIC_BASE_URL", "/v1/messages"),
      { ...anthropicVersion, "x-api-key": await value("apikey_prod_1") },
      { model: "claude-haiku-4-5", messages },
    ),
  "anthropic 402 billing_error": refusedBy("anthropic", { status: 402 }),
  "anthropic 429 rate_limit_error 20 s": refusedBy("anthropic", { status: 429, retryAfter: 20 }),
  "anthropic 429 rate_limit_error": refusedBy("anthropic", { status: 429 }),
  "anthropic 403 permission_error": async () =>
    provider("anthropic").tryKey(new Redacted(world.env["ANTHROPIC_ADMIN_KEY"] ?? "")),
  "anthropic 404 not_found_error": async () =>
    bare(
      "anthropic",
      at("ANTHROPIC_BASE_URL", "/v1/messages"),
      { ...anthropicVersion, "x-api-key": await value("apikey_prod_1") },
      { model: "claude-no-such", max_tokens: 16, messages },
    ),
  "anthropic 409 conflict_error": refusedBy("anthropic", { status: 409 }),
  "anthropic 529 overloaded_error": refusedBy("anthropic", { status: 529 }),
  "anthropic 500 api_error": refusedBy("anthropic", { status: 500 }),
  "anthropic 504 timeout_error": refusedBy("anthropic", { status: 504 }),
  "anthropic 400 invalid_request_error Your credit balance is too low": refusedBy("anthropic", {
    status: 400,
    body: {
      type: "error",
      error: { type: "invalid_request_error", message: "Your credit balance is too low to access the API." },
    },
  }),

  "gemini 200": () => tried("gemini"),
  "gemini 400 INVALID_ARGUMENT API_KEY_INVALID API key not valid": async () => {
    const id = await newGoogleKey({ keyId: "standard-deleted", auth: false });
    const made = await value(id);
    await google("DELETE", googleKey(id));
    return eventually(
      () => provider("gemini").tryKey(made),
      ({ status }) => status !== 200,
    );
  },
  "gemini 401 UNAUTHENTICATED ACCESS_TOKEN_TYPE_UNSUPPORTED": async () => {
    const id = await newGoogleKey({ keyId: "auth-deleted", auth: true });
    const made = await value(id);
    await google("DELETE", googleKey(id));
    return eventually(
      () => provider("gemini").tryKey(made),
      ({ status }) => status !== 200,
    );
  },
  "gemini 403 PERMISSION_DENIED Method doesn't allow unregistered callers": () =>
    bare("gemini", at("GEMINI_BASE_URL", "/v1beta/models")),
  "gemini 403 PERMISSION_DENIED Your API key was reported as leaked": async () => {
    const id = await newGoogleKey({ keyId: "leaked", auth: true });
    await world.call("POST", `${world.control}/google/keys/${id}/leak`, { body: {} });
    return tried("gemini", id);
  },
  "gemini 403 PERMISSION_DENIED API_KEY_SERVICE_BLOCKED": async () => {
    const restrictions = { apiTargets: [{ service: "translate.googleapis.com" }] };
    return tried("gemini", await newGoogleKey({ keyId: "of-another-api", auth: true, restrictions }));
  },
  "gemini 400 FAILED_PRECONDITION User location is not supported": refusedBy("gemini", {
    status: 400,
    body: geminiLocation,
  }),
  "gemini 429 RESOURCE_EXHAUSTED": refusedBy("gemini", { status: 429 }),
  "gemini 500, 503": refusedBy("gemini", { status: 503 }),
};

const probe = (more: Partial<Probe> = {}, token?: string): Promise<Answer> =>
  createGatewayProbe({
    http,
    gatewayBaseUrl: world.env["CLOUDFLARE_GATEWAY_BASE_URL"] ?? "",
    accountId: world.env["CLOUDFLARE_ACCOUNT_ID"] ?? "",
    token: new Redacted(token ?? world.env["CLOUDFLARE_GATEWAY_TOKEN"] ?? ""),
  })({
    gateway: "github-ai-agent-prod",
    provider: "openai",
    alias: "default",
    path: "native",
    model: "gpt-5-mini",
    rotationId: "0a1b2c3d-4e5f-4a6b-8c7d-000000000000",
    ...more,
  });

const gatewayPlayed: Record<string, () => Promise<Answer>> = {
  "400 2005": async () => {
    const secrets = `/secrets_store/stores/${world.seed["storeId"]}/secrets`;
    const { body } = await world.cloudflare("GET", `${secrets}?per_page=100`);
    const secret = items(body["result"]).find(({ name }) => text(name) === "github-ai-agent-staging_openai_default");
    await world.cloudflare("DELETE", `${secrets}/${text(secret?.["id"])}`);
    return eventually(
      () => probe({ gateway: "github-ai-agent-staging" }),
      ({ status }) => status !== 200,
    );
  },
  "502 2005": async () => {
    await world.fault({ service: "openai", method: "*", path: "", mode: "reset", times: 1 });
    return probe();
  },
  "401, 400 2009": () => probe({}, "made-up"),
  "402 2021": async () => {
    await world.call("POST", `${world.control}/options`, { body: { unifiedBilling: false } });
    await world.cloudflare("POST", "/ai-gateway/gateways", {
      id: "empty",
      authentication: false,
      store_id: world.seed["storeId"],
      cache_invalidate_on_update: false,
      cache_ttl: 0,
      collect_logs: true,
      rate_limiting_interval: 0,
      rate_limiting_limit: 0,
    });
    // A probe of ours forbids it, so it is asked as a client asks.
    const url = `${world.env["CLOUDFLARE_GATEWAY_BASE_URL"]}/${world.env["CLOUDFLARE_ACCOUNT_ID"]}/empty/openai/models`;
    const answer = await world.call("GET", url);
    return {
      status: answer.status,
      cached: false,
      gatewayError: { internalCode: Number(answer.body["internalCode"]) },
    };
  },
  "400 2040": () => probe({ alias: "no-such" }),
  "404, 400 7003": async () => {
    const base = `${world.env["CLOUDFLARE_GATEWAY_BASE_URL"]}/${world.env["CLOUDFLARE_ACCOUNT_ID"]}/github-ai-agent-prod`;
    const headers = { "cf-aig-authorization": `Bearer ${world.env["CLOUDFLARE_GATEWAY_TOKEN"]}` };
    const answer = await world.call("GET", `${base}/compat/models`, { headers });
    return {
      status: answer.status,
      cached: false,
      gatewayError: { internalCode: Number(answer.body["internalCode"]) },
    };
  },
};

describe("each row is seen from the sandbox, or named with the reason why not", () => {
  test("of a provider's answers", () => {
    expect([...Object.keys(played), ...Object.keys(notPlayed)].toSorted()).toEqual(providerRows.map(nameOf).toSorted());
  });
  test("of the gateway's own answers", () => {
    const known = [...Object.keys(gatewayPlayed), ...Object.keys(gatewayNotPlayed)];
    expect(known.toSorted()).toEqual(gatewayRows.map(gatewayNameOf).toSorted());
  });
});

describe("a provider's answer, as the sandbox gives it", () => {
  const rows = providerRows
    .filter((row) => played[nameOf(row)] !== undefined)
    .map((row) => ({ row, name: nameOf(row) }));
  test.each(rows)("$name", async ({ row, name }) => {
    const answer = await played[name]?.();
    expect(row["HTTP"]?.split(", ")).toContain(String(answer?.status));
    const { type, code, status, reason, message = "" } = answer?.providerError ?? {};
    const said: Row = { type: type ?? "", code: code ?? "", status: status ?? "", reason: reason ?? "" };
    for (const fact of ["type", "code", "status", "reason"])
      if (row[fact]) expect([fact, said[fact]]).toEqual([fact, row[fact]]);
    // The words may have others between them: a header's name, a masked key.
    for (const word of (row["words"] ?? "").split(" ")) if (!word.includes("***")) expect(message).toContain(word);
    if (row["retry-after"]) expect(answer?.retryAfterMs).toBe(Number.parseInt(row["retry-after"], 10) * 1_000);
    expect(answer === undefined ? undefined : classifyAnswer(row["provider"] as ProviderName, answer)).toBe(
      row["verdict"],
    );
  });
});

describe("the gateway's own answer, as the sandbox gives it", () => {
  const rows = gatewayRows
    .filter((row) => gatewayPlayed[gatewayNameOf(row)] !== undefined)
    .map((row) => ({ row, name: gatewayNameOf(row) }));
  test.each(rows)("$name", async ({ row, name }) => {
    const answer = await gatewayPlayed[name]?.();
    expect(row["HTTP"]?.split(", ")).toContain(String(answer?.status));
    expect(answer?.gatewayError?.internalCode).toBe(Number(row["internalCode"]));
    expect(answer === undefined ? undefined : classifyAnswer("openai", answer)).toBe(row["verdict"]);
  });
});
