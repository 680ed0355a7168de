import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createGatewayProbe, type GatewayProbe, type Probe } from "../../src/cloudflare/data-plane.ts";
import { Redacted } from "../../src/redacted.ts";
import { startVendor, type Vendor } from "../support/vendor.ts";
import { account, failureOf, http, key, token } from "./support.ts";

let vendor: Vendor;
let probe: GatewayProbe;

beforeEach(async () => {
  vendor = await startVendor();
  probe = createGatewayProbe({
    http,
    gatewayBaseUrl: `${vendor.url}/v1`,
    accountId: account,
    token: new Redacted(token),
  });
});
afterEach(() => vendor.close());

const asked = (more: Partial<Probe> = {}): Probe => ({
  gateway: "prod_gw",
  provider: "openai",
  alias: "default",
  path: "native",
  model: "gpt-5-mini",
  rotationId: "0a1b2c3d-4e5f-4a6b-8c7d-000000000000",
  ...more,
});

describe("a probe", () => {
  test("shuts every way to a good answer but the stored key", async () => {
    vendor.replies({ body: {} }, { body: {} });
    await probe(asked());
    await probe(asked({ alias: "kt-0a1b2c3d-new" }));
    const [plain, aliased] = vendor.calls;
    expect(plain?.path).toBe(`/v1/${account}/prod_gw/openai/chat/completions`);
    expect(plain?.headers).toMatchObject({
      "cf-aig-authorization": `Bearer ${token}`,
      "cf-aig-no-wholesale": "true",
      "cf-aig-skip-cache": "true",
      "cf-aig-max-attempts": "1",
      "cf-aig-collect-log-payload": "false",
      "cf-aig-metadata": '{"keyturn":"probe","rotation":"0a1b2c3d"}',
    });
    for (const name of ["authorization", "x-api-key", "x-goog-api-key", "cf-aig-byok-alias"]) {
      expect(plain?.headers).not.toHaveProperty(name);
    }
    expect(aliased?.headers["cf-aig-byok-alias"]).toBe("kt-0a1b2c3d-new");
  });

  test.each([
    [asked(), "openai/chat/completions", "gpt-5-mini", "max_completion_tokens"],
    [
      asked({ provider: "anthropic", model: "claude-haiku-4-5" }),
      "anthropic/v1/messages",
      "claude-haiku-4-5",
      "max_tokens",
    ],
    [asked({ path: "compat" }), "compat/chat/completions", "openai/gpt-5-mini", "max_completion_tokens"],
    [
      asked({ provider: "gemini", model: "gemini-2.5-flash", path: "compat" }),
      "compat/chat/completions",
      "google-ai-studio/gemini-2.5-flash",
      "max_tokens",
    ],
  ])("speaks as the provider wants it (%#)", async (wanted, path, model, limit) => {
    vendor.replies({ body: {} });
    await probe(wanted);
    expect(vendor.calls[0]?.path).toBe(`/v1/${account}/prod_gw/${path}`);
    expect(vendor.calls[0]?.body).toEqual({
      model,
      messages: [{ role: "user", content: "ping" }],
      [limit]: expect.any(Number),
    });
  });

  test("names the model of Gemini in the path", async () => {
    vendor.replies({ body: {} });
    await probe(asked({ provider: "gemini", model: "gemini-2.5-flash" }));
    expect(vendor.calls[0]?.path).toBe(
      `/v1/${account}/prod_gw/google-ai-studio/v1/models/gemini-2.5-flash:generateContent`,
    );
    expect(vendor.calls[0]?.body).toMatchObject({ contents: [{ parts: [{ text: "ping" }] }] });
  });

  test("sends Anthropic its version", async () => {
    vendor.replies({ body: {} });
    await probe(asked({ provider: "anthropic" }));
    expect(vendor.calls[0]?.headers["anthropic-version"]).toBe("2023-06-01");
  });
});

describe("the answer", () => {
  test("of a good probe is its status and the gateway's own id", async () => {
    vendor.replies({
      headers: { "cf-aig-cache-status": "MISS", "cf-aig-log-id": "01LOG", "cf-ray": "8c2f" },
      body: { choices: [] },
    });
    expect(await probe(asked())).toEqual({ status: 200, cached: false, requestId: "01LOG" });
  });

  test("tells a cached one", async () => {
    vendor.replies({ headers: { "cf-aig-cache-status": "HIT" }, body: {} });
    expect(await probe(asked())).toEqual({ status: 200, cached: true });
  });

  test("tells the gateway's own error from the provider's", async () => {
    const own = {
      success: false,
      error: [{ code: 2040, message: "no BYOK credential" }],
      name: "AiGatewayError",
      httpCode: 400,
      internalCode: 2040,
    };
    vendor.replies(
      { status: 400, body: own },
      {
        status: 401,
        body: { error: { code: "invalid_api_key", type: "invalid_request_error", message: key } },
      },
      {
        status: 400,
        body: [{ error: { status: "INVALID_ARGUMENT", details: [{ reason: "API_KEY_INVALID" }] } }],
      },
      {
        status: 429,
        headers: { "retry-after": "3" },
        body: { name: "AiGatewayError", internalCode: 2003 },
      },
      { status: 502, body: "<html>" },
    );
    expect(await probe(asked())).toEqual({
      status: 400,
      cached: false,
      gatewayError: { internalCode: 2040 },
    });
    expect(await probe(asked())).toEqual({
      status: 401,
      cached: false,
      providerError: { code: "invalid_api_key", type: "invalid_request_error", message: key },
    });
    expect(await probe(asked())).toEqual({
      status: 400,
      cached: false,
      providerError: { status: "INVALID_ARGUMENT", reason: "API_KEY_INVALID" },
    });
    expect(await probe(asked())).toEqual({
      status: 429,
      cached: false,
      gatewayError: { internalCode: 2003 },
      retryAfterMs: 3_000,
    });
    expect(await probe(asked())).toEqual({ status: 502, cached: false });
  });

  test("that does not come whole is Unavailable", async () => {
    vendor.replies({ fault: "resets" }, { body: `{"choices":"${key}"`.padEnd(200), fault: "stops half way" });
    expect((await failureOf(probe(asked()))).type).toBe("Unavailable");
    expect((await failureOf(probe(asked()))).type).toBe("Unavailable");
  });
});
