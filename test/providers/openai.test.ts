import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RotationFailure } from "../../src/domain/failure.ts";
import { createHttp } from "../../src/http.ts";
import { createProvider, isRegistered } from "../../src/providers/index.ts";
import { canSwitch } from "../../src/providers/key-end.ts";
import { createOpenAi, openAiKeyEnd } from "../../src/providers/openai.ts";
import { canDisable, canIssue, KeyLifeTooLong } from "../../src/providers/provider.ts";
import { Redacted } from "../../src/redacted.ts";
import { openapiAt, strangersIn } from "../support/openapi.ts";
import { startVendor, type Vendor, type VendorReply } from "../support/vendor.ts";

const adminKey = "sk-admin-made-up-0123456789abcdef";
const key = "sk-svcacct-made-up-0123456789abcdef";
const project = "/v1/organization/projects/proj_1";
const document = openapiAt("openai-subset.json");

let vendor: Vendor;
let openai: ReturnType<typeof createOpenAi> & ReturnType<typeof openAiKeyEnd>;

beforeEach(async () => {
  vendor = await startVendor();
  const options = {
    http: createHttp({ timeoutMs: 2_000, userAgent: "keyturn/0.0.0" }),
    baseUrl: `${vendor.url}/v1`,
    adminKey: new Redacted(adminKey),
    project: "proj_1",
    serviceAccount: "svc_acct_1",
  };
  openai = { ...createOpenAi(options), ...openAiKeyEnd(options) };
});

afterEach(async () => {
  if (document !== undefined) {
    const strange = vendor.calls
      .map((call) => ({ ...call, path: call.path.replace(/^\/v1/, "") }))
      // In the SDK, not in the document.
      .filter(({ path }) => path !== "/organization/usage/decisions")
      .flatMap((call) => strangersIn(document, call));
    expect(strange).toEqual([]);
  }
  await vendor.close();
});

const row = (more: object = {}) => ({
  object: "organization.project.api_key",
  id: "key_1",
  name: "kt-acme-1",
  redacted_value: "sk-svc...9AbC",
  created_at: 1_790_000_100,
  last_used_at: null,
  expires_at: null,
  owner_project_access: "active",
  owner: {
    type: "service_account",
    service_account: { id: "svc_acct_1", name: "gw", role: "member" },
  },
  ...more,
});
const record = {
  id: "key_1",
  name: "kt-acme-1",
  state: "active",
  createdAt: new Date(1_790_000_100_000),
  maskedValue: "sk-svc...9AbC",
  owner: { kind: "service account", id: "svc_acct_1" },
};
const page = (data: object[], more: object = {}): VendorReply => ({
  body: { object: "list", data, first_id: null, last_id: null, has_more: false, ...more },
});
const refused = (status: number, error: object = {}): VendorReply => ({
  status,
  headers: { "x-request-id": "req_1" },
  // A service that echoes what it was sent: none of it may show in a message.
  body: {
    error: {
      message: `about ${key} ${adminKey}`,
      type: "invalid_request_error",
      param: null,
      code: null,
      ...error,
    },
  },
});

async function failureOf(attempt: Promise<unknown>): Promise<RotationFailure> {
  const error = await attempt.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RotationFailure)) throw new Error("it did not fail as a rotation failure", { cause: error });
  for (const secret of [key, adminKey]) expect(`${error.message} ${error.stack}`).not.toContain(secret);
  return error;
}

const issue = () => openai.issueKey({ name: "kt-acme-1", lifeMs: 3_600_999 });

test("is in the registry, issues keys, and switches none off", () => {
  const made = createProvider("openai", {
    http: createHttp({ userAgent: "keyturn/0.0.0" }),
    baseUrl: vendor.url,
    adminKey: new Redacted(adminKey),
    project: "proj_1",
    serviceAccount: "svc_acct_1",
  });
  expect(made.name).toBe("openai");
  expect(canIssue(made)).toBe(true);
  expect([canDisable(made), canSwitch(openai)]).toEqual([false, false]);
  // What ends keys is apart: nobody who holds the provider can end one.
  expect("revokeKey" in made).toBe(false);
  expect(isRegistered("openai")).toBe(true);
});

describe("checking the admin credential", () => {
  test("reads the service account with it", async () => {
    vendor.replies({ body: { id: "svc_acct_1", name: "gw", role: "member" } });
    await openai.checkAdminCredential();
    expect(vendor.calls[0]?.path).toBe(`${project}/service_accounts/svc_acct_1`);
    expect(vendor.calls[0]?.headers.authorization).toBe(`Bearer ${adminKey}`);
  });

  test.each([401, 403])("fails with AdminCredentialRejected on %d and names the variable", async (status) => {
    vendor.replies(refused(status));
    const failure = await failureOf(openai.checkAdminCredential());
    expect(failure).toMatchObject({ type: "AdminCredentialRejected", retried: false });
    expect(failure.message).toContain("OPENAI_ADMIN_KEY");
    expect(failure.message).toContain("(request req_1)");
  });

  test("fails with SlotMissing where project or service account is not there", async () => {
    vendor.replies(refused(404), refused(404));
    expect((await failureOf(openai.checkAdminCredential())).type).toBe("SlotMissing");
    expect((await failureOf(openai.listKeys())).type).toBe("SlotMissing");
  });
});

describe("listing keys", () => {
  test("gives those of all pages and all owners", async () => {
    const person = row({ id: "key_2", owner: { type: "user", user: { id: "user_1" } } });
    vendor.replies(page([row()], { has_more: true, last_id: "key_1" }), page([person]));
    const found = await openai.listKeys();
    expect(found[0]).toEqual(record);
    expect(found[1]).toEqual({ ...record, id: "key_2", owner: { kind: "user", id: "user_1" } });
    expect(vendor.calls.map(({ query }) => query.toString())).toEqual([
      "limit=100&owner_project_access=any",
      "limit=100&after=key_1&owner_project_access=any",
    ]);
  });

  test("goes on after the last row where the page does not say", async () => {
    vendor.replies(page([row()], { has_more: true, last_id: null }), page([]));
    expect(await openai.listKeys()).toHaveLength(1);
    expect(vendor.calls[1]?.query.get("after")).toBe("key_1");
  });

  test("fails rather than go round for ever", async () => {
    const same = page([row()], { has_more: true, last_id: "key_1" });
    vendor.replies(same, same);
    expect((await failureOf(openai.listKeys())).type).toBe("ResponseUnexpected");
    expect(vendor.calls).toHaveLength(2);
  });

  test("tells expired keys from active ones, flags those whose owner has no access, and reads times in part seconds", async () => {
    vendor.replies(
      page([
        row({ expires_at: 1_000.5, last_used_at: 999.25 }),
        row({ owner_project_access: "inactive" }),
        row({ expires_at: Date.now() / 1000 + 60 }),
      ]),
    );
    const found = await openai.listKeys();
    expect(found.map(({ state }) => state)).toEqual(["expired", "active", "active"]);
    expect(found.map(({ flag }) => flag)).toEqual([
      undefined,
      expect.stringContaining("owner_project_access: inactive"),
      undefined,
    ]);
    expect(found[0]).toMatchObject({
      expiresAt: new Date(1_000_500),
      lastUsedAt: new Date(999_250),
    });
  });
});

test("finds a key, or nothing", async () => {
  vendor.replies({ body: row() }, refused(404));
  expect(await openai.findKey("key_1")).toEqual(record);
  expect(await openai.findKey("key_1")).toBeUndefined();
  expect(vendor.calls[0]?.path).toBe(`${project}/api_keys/key_1`);
});

describe("issuing a key", () => {
  test("gives its value only as a secret", async () => {
    vendor.replies({
      body: {
        id: "key_9",
        name: "kt-acme-1",
        value: key,
        created_at: 1_790_000_100,
        expires_at: 1_790_003_700,
      },
    });
    const issued = await issue();
    expect(issued.value.reveal()).toBe(key);
    expect(issued.key).toEqual({
      id: "key_9",
      name: "kt-acme-1",
      state: "active",
      createdAt: new Date(1_790_000_100_000),
      expiresAt: new Date(1_790_003_700_000),
      owner: { kind: "service account", id: "svc_acct_1" },
    });
    expect(vendor.calls[0]).toMatchObject({
      method: "POST",
      path: `${project}/service_accounts/svc_acct_1/api_keys`,
      body: { name: "kt-acme-1", expires_in_seconds: 3_600 },
    });
  });

  test.each([
    [refused(400, { param: "expires_in_seconds" }), "RequestInvalid", true],
    [
      refused(400, {
        message: "expires_in_seconds must not exceed the organization's maximum lifetime for API keys",
      }),
      "RequestInvalid",
      true,
    ],
    [refused(403, { message: "The requested expiration is past the maximum" }), "RequestInvalid", true],
    [refused(400, { code: "api_key_limit_reached" }), "KeyLimitReached", false],
    [refused(403, { message: "You have reached the maximum number of API keys" }), "KeyLimitReached", false],
    [refused(400, { message: "Project is archived" }), "RequestInvalid", false],
    [refused(401), "AdminCredentialRejected", false],
    [refused(403, { message: "Missing scopes: api.management.write" }), "AdminCredentialRejected", false],
    [refused(404), "SlotMissing", false],
    [refused(429, { message: "Rate limit reached for keys" }), "RateLimited", false],
    [refused(500, { param: "expires_in_seconds" }), "Unavailable", false],
    [{ fault: "resets" as const }, "Unavailable", false],
    [{ body: "<html>" }, "Unavailable", false],
    [{ body: { id: "key_9", value: "", created_at: 1 } }, "ResponseUnexpected", false],
  ])("tells a refusal apart (%#)", async (reply, type, tooLong) => {
    vendor.replies(reply);
    const failure = await failureOf(issue());
    expect(failure.type).toBe(type);
    expect(failure instanceof KeyLifeTooLong).toBe(tooLong);
    expect(vendor.calls).toHaveLength(1);
  });
});

describe("setting a key's life", () => {
  test("changes nothing but the end, and returns it", async () => {
    vendor.replies({ body: row({ expires_at: 1_800_000_000 }) });
    expect(await openai.setKeyLife("key_1", 86_400_000)).toEqual(new Date(1_800_000_000_000));
    expect(vendor.calls[0]).toMatchObject({
      method: "POST",
      path: `${project}/api_keys/key_1`,
      body: { expires_in_seconds: 86_400 },
    });
    expect(vendor.calls[0]?.body).not.toHaveProperty("scopes");
  });

  test("tells a life that policy forbids from a key that expired already", async () => {
    vendor.replies(
      refused(400, { message: "expires_in_seconds exceeds the maximum allowed" }),
      refused(400, { message: "Expired API keys cannot be updated" }),
    );
    expect(await failureOf(openai.setKeyLife("key_1", 86_400_000))).toBeInstanceOf(KeyLifeTooLong);
    const expired = await failureOf(openai.setKeyLife("key_1", 86_400_000));
    expect(expired.type).toBe("RequestInvalid");
    expect(expired).not.toBeInstanceOf(KeyLifeTooLong);
  });
});

describe("revoking a key", () => {
  test("deletes it alone", async () => {
    vendor.replies({
      body: { object: "organization.project.api_key.deleted", id: "key_1", deleted: true },
    });
    await openai.revokeKey("key_1");
    expect(vendor.calls).toHaveLength(1);
    expect(vendor.calls[0]).toMatchObject({ method: "DELETE", path: `${project}/api_keys/key_1` });
  });

  test("says of a key that neither the call nor the list knows that nothing was ended", async () => {
    vendor.replies(refused(404), page([row({ id: "key_2" })]));
    const failure = await failureOf(openai.revokeKey("key_1"));
    expect(failure).toMatchObject({ type: "KeyUnknown", retried: false });
    expect(failure.message).toContain("openai knows no key key_1 in project proj_1: nothing was ended");
    expect(vendor.calls[1]?.path).toBe(`${project}/api_keys`);
  });

  test("is tried again while the list still shows it", async () => {
    vendor.replies(refused(404), page([row()]));
    expect(await failureOf(openai.revokeKey("key_1"))).toMatchObject({
      type: "Unavailable",
      retried: true,
    });
  });
});

describe("trying a key", () => {
  test("asks for the models with it and nothing else", async () => {
    vendor.replies({ headers: { "x-request-id": "req_7" }, body: { object: "list", data: [] } });
    expect(await openai.tryKey(new Redacted(key))).toEqual({
      status: 200,
      cached: false,
      requestId: "req_7",
    });
    expect(vendor.calls[0]?.path).toBe("/v1/models");
    expect(vendor.calls[0]?.headers.authorization).toBe(`Bearer ${key}`);
  });

  test("tells what was wrong", async () => {
    vendor.replies(refused(401, { code: "invalid_api_key" }), {
      ...refused(429, { code: "insufficient_quota" }),
    });
    expect(await openai.tryKey(new Redacted(key))).toMatchObject({
      status: 401,
      providerError: { code: "invalid_api_key", type: "invalid_request_error" },
    });
    expect(await openai.tryKey(new Redacted(key))).toMatchObject({
      status: 429,
      providerError: { code: "insufficient_quota" },
    });
  });
});

describe("reading usage", () => {
  const span = { from: new Date(1_790_000_040_500), to: new Date(1_790_000_100_200) };
  const bucket = (results: object[], start = 1_790_000_040, width = 60) => ({
    object: "bucket",
    start_time: start,
    end_time: start + width,
    results,
  });
  const use = (more: object = {}) => ({
    object: "organization.usage.completions.result",
    api_key_id: "key_1",
    model: "gpt-x",
    num_model_requests: 12,
    input_tokens: 900,
    output_tokens: 300,
    ...more,
  });
  const usage = (data: object[], more: object = {}): VendorReply => ({
    body: { object: "page", data, has_more: false, next_page: null, ...more },
  });
  const others = (count: number): VendorReply[] => Array.from({ length: count }, () => usage([bucket([])]));

  test("takes a row that names a key for use unless it says zero, in whatever field it counts", async () => {
    const nothing = { num_model_requests: null, input_tokens: null, output_tokens: null, model: null };
    vendor.replies(
      usage([
        bucket([
          use({ ...nothing, num_characters: 40 }),
          use(nothing),
          use({ ...nothing, num_model_requests: 0, input_tokens: 0 }),
          use({ ...nothing, num_model_requests: 0, output_tokens: 7 }),
          { api_key_id: null, num_characters: 0 },
        ]),
      ]),
      ...others(8),
    );
    const { buckets } = await openai.readUsage({ keyIds: ["key_1"], ...span });
    expect(buckets.map(({ requests }) => requests)).toEqual([1, 1, 0, 1]);
  });

  test("does not pass over use that no key is named for, in whatever field it is counted", async () => {
    vendor.replies(usage([bucket([{ api_key_id: null, num_characters: 40 }])]));
    await expect(openai.readUsage({ keyIds: ["key_1"], ...span })).rejects.toMatchObject({
      type: "ResponseUnexpected",
    });
  });

  test("asks every surface that knows keys, in minutes and whole seconds, all pages", async () => {
    vendor.replies(
      usage([bucket([use()])], { has_more: true, next_page: "page_2" }),
      usage([bucket([use({ api_key_id: "key_2", num_model_requests: 1, model: null })], 1_790_000_100)]),
      ...others(5),
      usage([
        bucket([
          use({
            model: undefined,
            num_model_requests: undefined,
            num_requests: 3,
            input_tokens: undefined,
            output_tokens: undefined,
          }),
        ]),
      ]),
      ...others(1),
      refused(404),
    );

    const report = await openai.readUsage({ keyIds: ["key_1", "key_2"], ...span });

    const at = { from: new Date(1_790_000_040_000), to: new Date(1_790_000_100_000) };
    expect(report).toEqual({
      bucketMs: 60_000,
      unknownSurfaces: ["vector_stores", "code_interpreter_sessions", "decisions"],
      buckets: [
        { keyId: "key_1", ...at, requests: 12, tokens: 1_200, model: "gpt-x" },
        {
          keyId: "key_2",
          from: new Date(1_790_000_100_000),
          to: new Date(1_790_000_160_000),
          requests: 1,
          tokens: 1_200,
        },
        { keyId: "key_1", ...at, requests: 3, tokens: 0 },
      ],
    });
    expect(vendor.calls.map(({ path }) => path.replace("/v1/organization/usage/", ""))).toEqual([
      "completions",
      "completions",
      "embeddings",
      "moderations",
      "images",
      "audio_speeches",
      "audio_transcriptions",
      "file_search_calls",
      "web_search_calls",
      "decisions",
    ]);
    const query = (index: number) => vendor.calls[index]?.query;
    expect(Object.fromEntries(query(0) ?? [])).toMatchObject({
      start_time: "1790000040",
      end_time: "1790000101",
      bucket_width: "1m",
      limit: "1440",
    });
    expect(query(0)?.getAll("api_key_ids[]")).toEqual(["key_1", "key_2"]);
    expect(query(0)?.getAll("group_by[]")).toEqual(["api_key_id", "model"]);
    expect(query(1)?.get("page")).toBe("page_2");
    expect(query(7)?.getAll("group_by[]")).toEqual(["api_key_id"]);
  });

  test.skipIf(document === undefined)("knows each surface of the vendor's document, by key or as unknown", async () => {
    vendor.replies(...others(9));
    const { unknownSurfaces } = await openai.readUsage({ keyIds: ["key_1"], ...span });
    const prefix = "/organization/usage/";
    const byKey = new Set(vendor.calls.map(({ path }) => path.slice(`/v1${prefix}`.length)));
    for (const [path, { get }] of Object.entries(document?.paths ?? {})) {
      if (!path.startsWith(prefix)) continue;
      const grouping = get?.parameters?.find(({ name }) => name === "group_by");
      const surface = path.slice(prefix.length);
      expect([surface, byKey.has(surface)]).toEqual([surface, JSON.stringify(grouping).includes('"api_key_id"')]);
      expect([surface, unknownSurfaces.includes(surface)]).toEqual([surface, !byKey.has(surface)]);
    }
  });

  test("reads the width of a bucket from its ends, and takes the one asked for where there is none", async () => {
    vendor.replies(usage([bucket([use()], 1_790_000_040.5, 0.5)]), ...Array.from({ length: 8 }, () => usage([])));
    const fast = await openai.readUsage({ keyIds: ["key_1"], ...span });
    expect(fast.bucketMs).toBe(500);
    expect(fast.buckets[0]?.from).toEqual(new Date(1_790_000_040_500));
    vendor.replies(...Array.from({ length: 9 }, () => usage([])));
    expect(await openai.readUsage({ keyIds: ["key_1"], ...span })).toMatchObject({
      buckets: [],
      bucketMs: 60_000,
    });
  });

  test("does not take use that no key is named for as no use", async () => {
    vendor.replies(usage([bucket([use({ api_key_id: null })])]));
    expect((await failureOf(openai.readUsage({ keyIds: ["key_1"], ...span }))).type).toBe("ResponseUnexpected");
  });

  test("leaves out keys that were not asked for", async () => {
    vendor.replies(usage([bucket([use({ api_key_id: "key_7" })])]), ...others(8));
    expect((await openai.readUsage({ keyIds: ["key_1"], ...span })).buckets).toEqual([]);
  });

  test("fails where the main surface is refused or its pages go round", async () => {
    vendor.replies(refused(404));
    expect((await failureOf(openai.readUsage({ keyIds: ["key_1"], ...span }))).type).toBe("RequestInvalid");
    const same = usage([bucket([])], { has_more: true, next_page: "page_2" });
    vendor.replies(same, same);
    expect((await failureOf(openai.readUsage({ keyIds: ["key_1"], ...span }))).type).toBe("ResponseUnexpected");
  });
});

describe("taking a key from a person", () => {
  const mine = "sk-svcacct-made-up-0123456789-9AbC";
  const openedAt = new Date(1_790_000_100_000);
  const identify = () => openai.identifyKey(new Redacted(mine), { openedAt });

  test("says where, what kind and under which name", () => {
    expect(openai.handInInstructions({ name: "kt-acme-1" })).toEqual({
      where: "https://platform.openai.com/api-keys",
      keyName: "kt-acme-1",
      keyType: "a key of service account svc_acct_1",
      belongsTo: "project proj_1",
    });
  });

  test("finds the one key of the project whose redacted value fits", async () => {
    vendor.replies(page([row({ id: "key_0", redacted_value: "sk-svc...zzzz" }), row()]));
    expect(await identify()).toEqual({ kind: "identified", key: record });
  });

  test.each([
    ["none", []],
    ["several", [row(), row({ id: "key_2" })]],
    ["dead", [row({ expires_at: 1_790_000_200 })]],
    ["made before", [row({ created_at: 1_789_999_000 })]],
  ])("refuses it: %s", async (fault, rows) => {
    vendor.replies(page(rows));
    expect(await identify()).toMatchObject({ kind: "refused", fault });
  });

  test("says that nothing can be looked up where the admin credential is refused", async () => {
    vendor.replies(refused(403));
    expect((await identify()).kind).toBe("unknown");
  });
});

test("knows the shapes its keys have today, and others' apart", () => {
  for (const value of [key, "sk-proj-made-up-0123456789abcdef", "sk-0123456789abcdef0123456789abcdef"]) {
    expect(openai.looksLikeKey(new Redacted(value))).toBe(true);
  }
  for (const value of ["sk-ant-api03-made-up-0123456789", adminKey, "AIzaMadeUp0123456789", "sk-short", ` ${key}`]) {
    expect(openai.looksLikeKey(new Redacted(value))).toBe(false);
  }
});
