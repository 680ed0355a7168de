import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { anthropicKeyEnd, createAnthropic } from "../../src/providers/anthropic.ts";
import { createProvider, isRegistered } from "../../src/providers/index.ts";
import { canDisable, canHandIn, canIssue } from "../../src/providers/provider.ts";
import { Redacted } from "../../src/redacted.ts";
import { openapiAt, strangersIn } from "../support/openapi.ts";
import { startVendor, type Vendor, type VendorReply } from "../support/vendor.ts";
import { failureOf as failureWithout, http } from "./support.ts";

const adminKey = "sk-ant-admin01-made-up-0123456789abcdef";
const key = "sk-ant-api03-Abc-made-up-0123456789-wxAA";
const keysPath = "/v1/organizations/api_keys";
const document = openapiAt("anthropic-subset.json");
const failureOf = (attempt: Promise<unknown>) => failureWithout(attempt, [adminKey, key]);

let vendor: Vendor;
let anthropic: ReturnType<typeof createAnthropic> & ReturnType<typeof anthropicKeyEnd>;

beforeEach(async () => {
  vendor = await startVendor();
  const options = { http, baseUrl: vendor.url, adminKey: new Redacted(adminKey), workspace: "wrkspc_1" };
  anthropic = { ...createAnthropic(options), ...anthropicKeyEnd(options) };
});

afterEach(async () => {
  if (document !== undefined) expect(vendor.calls.flatMap((call) => strangersIn(document, call))).toEqual([]);
  expect(vendor.calls.filter(({ headers }) => headers["anthropic-version"] !== "2026-10-21")).toEqual([]);
  await vendor.close();
});

const row = (more: object = {}) => ({
  id: "apikey_1",
  type: "api_key",
  name: "kt.acme.1",
  status: "active",
  created_at: "2026-11-20T09:00:00Z",
  expires_at: null,
  created_by: { id: "user_1", type: "user" },
  partial_key_hint: "sk-ant-api03-Abc...wxAA",
  principal: { type: "service_account_actor", service_account_id: "svac_1" },
  scope: { type: "workspace", workspace_id: "wrkspc_1" },
  ...more,
});
const record = {
  id: "apikey_1",
  name: "kt.acme.1",
  state: "active",
  createdAt: new Date("2026-11-20T09:00:00Z"),
  maskedValue: "sk-ant-api03-Abc...wxAA",
  owner: { kind: "service account", id: "svac_1" },
};
const page = (data: object[], more: object = {}): VendorReply => ({
  body: { data, first_id: null, last_id: null, has_more: false, ...more },
});
const refused = (status: number, error: object = {}): VendorReply => ({
  status,
  headers: { "request-id": "req_1" },
  // A service that echoes what it was sent: none of it may show in a message.
  body: {
    type: "error",
    error: { type: "invalid_request_error", message: `about ${key} ${adminKey}`, ...error },
    request_id: "req_1",
  },
});

test("is in the registry, makes no keys, switches them off and on, and takes them from people", () => {
  const made = createProvider("anthropic", {
    http,
    baseUrl: vendor.url,
    adminKey: new Redacted(adminKey),
    workspace: "wrkspc_1",
  });
  expect(made.name).toBe("anthropic");
  expect("revokeKey" in made || "disableKey" in made).toBe(false);
  expect([canIssue(made), canDisable(made), canHandIn(made), isRegistered("anthropic")]).toEqual([
    false,
    true,
    true,
    true,
  ]);
});

describe("checking the admin credential", () => {
  test("reads the organisation with it", async () => {
    vendor.replies({ body: { id: "org_1", type: "organization", name: "acme" } });
    await anthropic.checkAdminCredential();
    expect(vendor.calls[0]?.path).toBe("/v1/organizations/me");
    expect(vendor.calls[0]?.headers["x-api-key"]).toBe(adminKey);
  });

  test.each([401, 403, 404])("fails with AdminCredentialRejected on %d and names the variable", async (status) => {
    vendor.replies(refused(status));
    const failure = await failureOf(anthropic.checkAdminCredential());
    expect(failure).toMatchObject({ type: "AdminCredentialRejected", retried: false });
    expect(failure.message).toContain("ANTHROPIC_ADMIN_KEY");
    expect(failure.message).toContain("(request req_1)");
  });
});

describe("listing keys", () => {
  test("gives those of all pages that are not another workspace's", async () => {
    vendor.replies(
      page([row(), row({ id: "apikey_2", scope: { type: "workspace", workspace_id: "wrkspc_2" } })], {
        has_more: true,
        last_id: "apikey_2",
      }),
      page([
        row({ id: "apikey_3", scope: { type: "organization" } }),
        row({ id: "apikey_4", scope: null, workspace_id: "wrkspc_1", principal: null }),
        row({ id: "apikey_5", scope: undefined, workspace_id: "wrkspc_2" }),
        row({ id: "apikey_6", scope: undefined, workspace_id: null }),
      ]),
    );
    const found = await anthropic.listKeys();
    expect(found[0]).toEqual(record);
    expect(found.map(({ id }) => id)).toEqual(["apikey_1", "apikey_3", "apikey_4", "apikey_6"]);
    expect(vendor.calls.map(({ query }) => query.toString())).toEqual(["limit=100", "limit=100&after_id=apikey_2"]);
  });

  test("tells the states apart, and calls no key dead on a guess", async () => {
    vendor.replies(
      page([
        row({ status: "inactive" }),
        row({ status: "archived", expires_at: "2026-01-01T00:00:00Z" }),
        row({ status: "expired" }),
        row({ expires_at: "2026-01-01T00:00:00Z" }),
        row({ status: "something new" }),
      ]),
    );
    expect((await anthropic.listKeys()).map(({ state }) => state)).toEqual([
      "disabled",
      "revoked",
      "expired",
      "expired",
      "active",
    ]);
  });

  test("fails rather than go round for ever", async () => {
    const same = page([row()], { has_more: true, last_id: "apikey_1" });
    vendor.replies(same, same);
    expect((await failureOf(anthropic.listKeys())).type).toBe("ResponseUnexpected");
  });
});

test("finds a key, or nothing", async () => {
  vendor.replies({ body: row({ principal: null }) }, refused(404, { type: "not_found_error" }));
  const { owner: _, ...unowned } = record;
  expect(await anthropic.findKey("apikey_1")).toEqual(unowned);
  expect(await anthropic.findKey("apikey_1")).toBeUndefined();
  expect(vendor.calls[0]?.path).toBe(`${keysPath}/apikey_1`);
});

const statuses = () => vendor.calls.filter(({ method }) => method === "POST").map(({ body }) => body);

describe("switching a key", () => {
  test("off and on again", async () => {
    vendor.replies(
      { body: row() },
      { body: row({ status: "inactive" }) },
      { body: row({ status: "inactive" }) },
      { body: row() },
    );
    await anthropic.disableKey("apikey_1");
    await anthropic.enableKey("apikey_1");
    expect(statuses()).toEqual([{ status: "inactive" }, { status: "active" }]);
  });

  test("off does nothing where it is off, archived, expired or not known", async () => {
    vendor.replies(
      { body: row({ status: "inactive" }) },
      { body: row({ status: "archived" }) },
      { body: row({ status: "expired" }) },
      refused(404),
      page([]),
    );
    for (let count = 0; count < 3; count += 1) await anthropic.disableKey("apikey_1");
    expect((await failureOf(anthropic.disableKey("apikey_1"))).type).toBe("KeyUnknown");
    expect(statuses()).toEqual([]);
  });

  test("on does nothing where it is on, and says so where it cannot come back", async () => {
    vendor.replies({ body: row() }, { body: row({ status: "archived" }) }, refused(404), page([]));
    await anthropic.enableKey("apikey_1");
    expect(await failureOf(anthropic.enableKey("apikey_1"))).toMatchObject({ type: "RequestInvalid", retried: false });
    expect((await failureOf(anthropic.enableKey("apikey_1"))).type).toBe("RequestInvalid");
    expect(statuses()).toEqual([]);
  });

  test.each(["org_api_key_limit_exceeded", "workspace_api_key_limit_exceeded"])(
    "on tells %s from a bad request",
    async (error_code) => {
      vendor.replies({ body: row({ status: "inactive" }) }, refused(400, { details: { error_code } }));
      expect((await failureOf(anthropic.enableKey("apikey_1"))).type).toBe("KeyLimitReached");
      vendor.replies({ body: row({ status: "inactive" }) }, refused(400));
      expect((await failureOf(anthropic.enableKey("apikey_1"))).type).toBe("RequestInvalid");
    },
  );
});

describe("revoking a key", () => {
  test("archives it", async () => {
    vendor.replies({ body: row({ status: "inactive" }) }, { body: row({ status: "archived" }) });
    await anthropic.revokeKey("apikey_1");
    expect(vendor.calls[1]).toMatchObject({
      method: "POST",
      path: `${keysPath}/apikey_1`,
      body: { status: "archived" },
    });
  });

  test("succeeds where it is archived or expired, or gone since it was seen, and not where it is not known", async () => {
    vendor.replies(
      { body: row({ status: "archived" }) },
      { body: row({ status: "expired" }) },
      refused(404),
      page([]),
      { body: row() },
      refused(404),
    );
    for (let count = 0; count < 2; count += 1) await anthropic.revokeKey("apikey_1");
    expect(await failureOf(anthropic.revokeKey("apikey_1"))).toMatchObject({ type: "KeyUnknown", retried: false });
    await anthropic.revokeKey("apikey_1");
    expect(vendor.calls).toHaveLength(6);
  });

  test("goes by no read that does not find it, while the list shows it", async () => {
    vendor.replies(refused(404), page([row()]), { body: row({ status: "archived" }) });
    await anthropic.revokeKey("apikey_1");
    vendor.replies(refused(404), page([row()]), { body: row({ status: "inactive" }) });
    await anthropic.disableKey("apikey_1");
    expect(statuses()).toEqual([{ status: "archived" }, { status: "inactive" }]);
  });

  test("does nothing to a key of another workspace, which the admin key could reach", async () => {
    const theirs = row({ scope: { type: "workspace", workspace_id: "wrkspc_2" } });
    for (const end of [anthropic.revokeKey, anthropic.disableKey]) {
      vendor.replies({ body: theirs }, page([theirs]));
      expect((await failureOf(end("apikey_1"))).type).toBe("KeyUnknown");
    }
    vendor.replies({ body: theirs });
    expect(await anthropic.findKey("apikey_1")).toBeUndefined();
    expect(statuses()).toEqual([]);
  });

  test.each([
    [refused(401, { type: "authentication_error" }), "AdminCredentialRejected"],
    [refused(403, { type: "permission_error" }), "AdminCredentialRejected"],
    [refused(409, { type: "conflict_error" }), "RequestInvalid"],
    [refused(429, { type: "rate_limit_error" }), "RateLimited"],
    [refused(529, { type: "overloaded_error" }), "Unavailable"],
    [{ fault: "resets" as const }, "Unavailable"],
    [{ body: row() }, "Unavailable"],
    [{ body: { id: 7 } }, "ResponseUnexpected"],
  ])("tells a refusal apart (%#)", async (reply, type) => {
    vendor.replies({ body: row() }, reply);
    expect((await failureOf(anthropic.revokeKey("apikey_1"))).type).toBe(type);
  });
});

describe("trying a key", () => {
  test("asks for one model with it and nothing else", async () => {
    vendor.replies({ headers: { "request-id": "req_7" }, body: { data: [] } });
    expect(await anthropic.tryKey(new Redacted(key))).toEqual({ status: 200, cached: false, requestId: "req_7" });
    expect(vendor.calls[0]).toMatchObject({ path: "/v1/models" });
    expect(vendor.calls[0]?.query.toString()).toBe("limit=1");
    expect(vendor.calls[0]?.headers["x-api-key"]).toBe(key);
    expect(vendor.calls[0]?.headers.authorization).toBeUndefined();
  });

  test("tells what was wrong", async () => {
    vendor.replies(refused(401, { type: "authentication_error", message: "invalid x-api-key" }));
    expect(await anthropic.tryKey(new Redacted(key))).toMatchObject({
      status: 401,
      providerError: { type: "authentication_error" },
    });
  });
});

describe("reading usage", () => {
  const from = new Date("2026-11-22T10:00:00.500Z");
  const to = new Date("2026-11-22T10:10:00Z");
  const span = { keyIds: ["apikey_1", "apikey_2"], from, to };
  const use = (more: { group?: object; usage?: object; at?: string } = {}) => ({
    starting_at: `2026-11-22T${more.at ?? "10:00"}:00Z`,
    ending_at: `2026-11-22T${more.at ?? "10:00"}:00Z`.replace(/:(\d\d):00Z/, (_, m: string) => `:${m}:59Z`),
    group: { api_key_id: "apikey_1", model: "claude-x", ...more.group },
    usage: { requests: 4, total_tokens: 5_100, ...more.usage },
  });
  const usage = (data: object[], more: object = {}): VendorReply => ({
    body: { data, has_more: false, next_page: null, data_refreshed_at: "2026-11-22T10:09:00Z", ...more },
  });

  test("takes a row that names a key for use unless it says zero", async () => {
    vendor.replies(
      usage([
        use({ usage: { requests: null, total_tokens: null } }),
        use({ usage: { requests: 0, total_tokens: 9 } }),
        use({ usage: { requests: 0, total_tokens: 0 } }),
        use({ usage: { requests: 0, total_tokens: null } }),
      ]),
    );
    const { buckets } = await anthropic.readUsage(span);
    expect(buckets.map(({ requests }) => requests)).toEqual([1, 1, 0, 0]);
  });

  test("asks the beta report by key and minute, all pages, and takes its word on freshness", async () => {
    vendor.replies(
      usage([use()], { has_more: true, next_page: "p2", data_refreshed_at: "2026-11-22T10:08:00Z" }),
      usage([
        use({ group: { api_key_id: "apikey_2", model: null }, usage: { requests: null } }),
        use({ group: { api_key_id: "apikey_7" } }),
        use({ group: { api_key_id: null }, usage: { requests: 0, total_tokens: 0 } }),
      ]),
    );
    const ends = { from: new Date("2026-11-22T10:00:00Z"), to: new Date("2026-11-22T10:00:59Z") };
    expect(await anthropic.readUsage(span)).toEqual({
      bucketMs: 59_000,
      unknownSurfaces: [],
      refreshedAt: new Date("2026-11-22T10:08:00Z"),
      buckets: [
        { keyId: "apikey_1", ...ends, requests: 4, tokens: 5_100, model: "claude-x" },
        { keyId: "apikey_2", ...ends, requests: 1, tokens: 5_100 },
      ],
    });
    const [first, second] = vendor.calls;
    expect(first?.path).toBe("/v1/organizations/analytics/usage");
    expect(first?.headers["anthropic-beta"]).toBe("analytics-usage-cost-2026-08-24");
    expect(Object.fromEntries(first?.query ?? [])).toMatchObject({
      starting_at: "2026-11-22T10:00:00.000Z",
      ending_at: "2026-11-22T10:10:00.000Z",
      time_bucket_width: "1m",
      limit: "1000",
    });
    expect(first?.query.getAll("api_key_ids[]")).toEqual(["apikey_1", "apikey_2"]);
    expect(first?.query.getAll("group_by[]")).toEqual(["api_key_id", "model"]);
    expect(second?.query.get("page")).toBe("p2");
  });

  test("splits more than a day at whole minutes, and is as fresh as its oldest part", async () => {
    vendor.replies(
      usage([], { data_refreshed_at: "2026-11-22T10:07:00Z" }),
      usage([], { data_refreshed_at: "2026-11-22T10:08:00Z" }),
    );
    const report = await anthropic.readUsage({
      keyIds: ["apikey_1"],
      from: new Date("2026-11-21T10:00:30Z"),
      to: new Date("2026-11-22T10:10:00Z"),
    });
    expect(report).toEqual({
      buckets: [],
      bucketMs: 60_000,
      unknownSurfaces: [],
      refreshedAt: new Date("2026-11-22T10:07:00Z"),
    });
    expect(vendor.calls.map(({ query }) => [query.get("starting_at"), query.get("ending_at")])).toEqual([
      ["2026-11-21T10:00:30.000Z", "2026-11-22T10:00:00.000Z"],
      ["2026-11-22T10:00:00.000Z", "2026-11-22T10:10:00.000Z"],
    ]);
  });

  test.each([
    refused(404, { type: "not_found_error" }),
    refused(403, { type: "permission_error" }),
    refused(400, { message: "Unexpected value for the anthropic-beta header" }),
    refused(400, { message: "analytics are not available to this organization" }),
  ])("falls back to the older report where the beta is not offered (%#)", async (notOffered) => {
    vendor.replies(notOffered, {
      body: {
        data: [
          {
            starting_at: "2026-11-22T10:00:00Z",
            ending_at: "2026-11-22T10:01:00Z",
            results: [
              {
                api_key_id: "apikey_1",
                model: "claude-x",
                uncached_input_tokens: 10,
                cache_read_input_tokens: 1,
                cache_creation: { ephemeral_5m_input_tokens: 4 },
                output_tokens: 5,
              },
            ],
          },
          { starting_at: "2026-11-22T10:01:00Z", ending_at: "2026-11-22T10:02:00Z", results: [] },
        ],
        has_more: false,
        next_page: null,
      },
    });
    expect(await anthropic.readUsage(span)).toEqual({
      bucketMs: 60_000,
      unknownSurfaces: [],
      buckets: [
        {
          keyId: "apikey_1",
          from: new Date("2026-11-22T10:00:00Z"),
          to: new Date("2026-11-22T10:01:00Z"),
          requests: 1,
          tokens: 20,
          model: "claude-x",
        },
      ],
    });
    expect(vendor.calls[1]).toMatchObject({ path: "/v1/organizations/usage_report/messages" });
    expect(vendor.calls[1]?.query.get("bucket_width")).toBe("1m");
    expect(vendor.calls[1]?.headers["anthropic-beta"]).toBeUndefined();
  });

  test("does not fall back for a refusal that says something else", async () => {
    vendor.replies(refused(400, { message: "starting_at is too early" }));
    expect((await failureOf(anthropic.readUsage(span))).type).toBe("RequestInvalid");
    vendor.replies(refused(401, { type: "authentication_error" }));
    expect((await failureOf(anthropic.readUsage(span))).type).toBe("AdminCredentialRejected");
  });

  test("does not take use that no key is named for as no use", async () => {
    vendor.replies(usage([use({ group: { api_key_id: null } })]));
    expect((await failureOf(anthropic.readUsage(span))).type).toBe("ResponseUnexpected");
  });

  test("fails where pages go round", async () => {
    const same = usage([], { has_more: true, next_page: "p2" });
    vendor.replies(same, same);
    expect((await failureOf(anthropic.readUsage(span))).type).toBe("ResponseUnexpected");
  });
});

describe("taking a key from a person", () => {
  const openedAt = new Date("2026-11-20T09:03:00Z");
  const identify = () => anthropic.identifyKey(new Redacted(key), { openedAt });

  test("says where, what kind and under which name", () => {
    const told = anthropic.handInInstructions({ name: "kt.acme.production.anthropic.default.0a1b2c3d.1-1" });
    expect(told.where).toBe("https://platform.claude.com/settings/keys");
    expect(told.keyName).toBe("kt.acme.production.anthropic.default.0a1b2c3d.1-1");
    expect(told.keyType).toContain("service account key");
    expect(told.belongsTo).toBe("workspace wrkspc_1");
  });

  test("finds the one key whose hint fits, made at most minutes before the request", async () => {
    vendor.replies(page([row({ id: "apikey_0", partial_key_hint: "sk-ant-api03-Zzz...wxAA" }), row()]));
    expect(await identify()).toEqual({ kind: "identified", key: record });
  });

  test.each([
    ["none", [row({ partial_key_hint: null }), row({ partial_key_hint: "sk-ant-api03-Abc...zzzz" })]],
    ["none", [row({ partial_key_hint: "sk-ant-..." })]],
    ["several", [row(), row({ id: "apikey_2" })]],
    ["dead", [row({ status: "inactive" })]],
    ["dead", [row({ expires_at: "2026-01-01T00:00:00Z" })]],
    ["made before", [row({ created_at: "2026-11-20T08:57:00Z" })]],
    ["wrong workspace", [row({ scope: { type: "workspace", workspace_id: "wrkspc_2" } })]],
    ["unscoped", [row({ scope: { type: "organization" } })]],
  ])("refuses it: %s (%#)", async (fault, rows) => {
    vendor.replies(page(rows));
    const found = await identify();
    expect(found).toMatchObject({ kind: "refused", fault });
    expect(JSON.stringify(found)).not.toContain(key);
  });

  test("passes over a dead key that looks the same", async () => {
    vendor.replies(page([row({ id: "apikey_0", status: "archived" }), row()]));
    expect(await identify()).toMatchObject({ kind: "identified", key: { id: "apikey_1" } });
  });

  test("says that nothing can be looked up where the admin credential is refused, and fails on an outage", async () => {
    vendor.replies(refused(401), refused(500));
    expect((await identify()).kind).toBe("unknown");
    expect((await failureOf(identify())).type).toBe("Unavailable");
  });
});

test("knows the shapes its keys have today, and others' apart", () => {
  expect(anthropic.looksLikeKey(new Redacted(key))).toBe(true);
  for (const value of [adminKey, "sk-ant-api01-made-up-0123456789", "sk-proj-made-up-0123456789abcdef", ` ${key}`]) {
    expect(anthropic.looksLikeKey(new Redacted(value))).toBe(false);
  }
});
