import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createGemini, geminiKeyEnd, type GeminiOptions, keyIdOf } from "../../src/providers/gemini.ts";
import { isRegistered } from "../../src/providers/index.ts";
import { canDisable, canHandIn, canIssue } from "../../src/providers/provider.ts";
import { Redacted } from "../../src/redacted.ts";
import { openapiAt, strangersIn } from "../support/openapi.ts";
import { startVendor, type Vendor, type VendorReply } from "../support/vendor.ts";
import { failureOf as failureWithout, http } from "./support.ts";

const token = "ya29.made-up-0123456789abcdef";
const value = "AQ.made-up-0123456789_abcdef-0123456789";
const name = "kt.acme.production.gemini.default.0a1b2c3d.1-1";
const keyId = keyIdOf(name);
const keysPath = "/v2/projects/my-project/locations/global/keys";
const document = openapiAt("google-apikeys-v2.openapi.json");
const failureOf = (attempt: Promise<unknown>) => failureWithout(attempt, [token, value]);

let vendor: Vendor;
let gemini: ReturnType<typeof createGemini> & ReturnType<typeof geminiKeyEnd>;
let pauses: number[];
let pausing: (ms: number) => Promise<void>;

beforeEach(async () => {
  vendor = await startVendor();
  pauses = [];
  pausing = async (ms) => void pauses.push(ms);
  const options: GeminiOptions = {
    http,
    apiKeysBaseUrl: vendor.url,
    monitoringBaseUrl: vendor.url,
    geminiBaseUrl: vendor.url,
    auth: { token: () => Promise.resolve(new Redacted(token)) },
    project: "my-project",
    serviceAccount: "gw@my-project.iam.gserviceaccount.com",
    pause: (ms) => pausing(ms),
  };
  gemini = { ...createGemini(options), ...geminiKeyEnd(options) };
});

afterEach(async () => {
  const management = vendor.calls.filter(({ path }) => !path.startsWith("/v1beta/"));
  expect(management.filter(({ headers }) => headers.authorization !== `Bearer ${token}`)).toEqual([]);
  expect(management.filter(({ headers }) => headers["x-goog-user-project"] !== "my-project")).toEqual([]);
  if (document !== undefined) {
    const keysApi = vendor.calls.filter(({ path }) => path.startsWith("/v2/"));
    expect(keysApi.flatMap((call) => strangersIn(document, call))).toEqual([]);
  }
  await vendor.close();
});

const row = (more: object = {}) => ({
  name: `projects/123/locations/global/keys/${keyId}`,
  uid: "c1d2",
  displayName: name,
  createTime: "2026-11-22T10:00:00Z",
  updateTime: "2026-11-22T10:00:00Z",
  etag: 'W/"x=="',
  serviceAccountEmail: "gw@my-project.iam.gserviceaccount.com",
  annotations: { "managed-by": "keyturn", "keyturn-name": name },
  ...more,
});
const deleted = { deleteTime: "2026-11-22T11:00:00Z" };
const record = {
  id: keyId,
  name,
  state: "active",
  createdAt: new Date("2026-11-22T10:00:00Z"),
  owner: { kind: "service account", id: "gw@my-project.iam.gserviceaccount.com" },
};
const running = { body: { name: "operations/akmf.p7-123-x" } };
const done = (more: object = {}): VendorReply => ({
  // Google puts the value in here: it must go no further.
  body: { name: "operations/akmf.p7-123-x", done: true, response: { ...row(), keyString: value }, ...more },
});
const refused = (status: number, error: object = {}): VendorReply => ({
  status,
  headers: { "x-request-id": "req_1" },
  body: { error: { code: status, message: `about ${value} ${token}`, status: "", details: [], ...error } },
});
const because = (reason: string) => ({
  details: [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason, domain: "googleapis.com" }],
});
const gone = refused(404, { status: "NOT_FOUND" });
const asked = () => vendor.calls.map(({ method, path }) => `${method} ${path.replace(keysPath, "")}`);
const issue = () => gemini.issueKey({ name, lifeMs: 3_600_000 });

test("is in the registry, issues keys, switches them off and on, and takes them from people", () => {
  expect(gemini.name).toBe("gemini");
  expect([canIssue(gemini), canDisable(gemini), canHandIn(gemini), isRegistered("gemini")]).toEqual([
    true,
    true,
    true,
    true,
  ]);
});

describe("checking the admin credential", () => {
  test("reads keys and usage with it", async () => {
    vendor.replies({ body: {} }, { body: {} });
    await gemini.checkAdminCredential();
    expect(asked()).toEqual(["GET ", "GET /v3/projects/my-project/timeSeries"]);
  });

  test.each([
    [refused(401, { status: "UNAUTHENTICATED" }), "renew"],
    [refused(403, { status: "PERMISSION_DENIED" }), "apikeys.keys.list"],
    [refused(403, { status: "PERMISSION_DENIED", ...because("SERVICE_DISABLED") }), "enable"],
  ])("fails with AdminCredentialRejected and says what it needs (%#)", async (reply, word) => {
    vendor.replies(reply);
    const failure = await failureOf(gemini.checkAdminCredential());
    expect(failure).toMatchObject({ type: "AdminCredentialRejected", retried: false });
    expect(failure.message).toContain(word);
    expect(failure.message).toContain("(request req_1)");
  });

  test("names the role that reading usage needs", async () => {
    vendor.replies({ body: {} }, refused(403, { status: "PERMISSION_DENIED" }));
    expect((await failureOf(gemini.checkAdminCredential())).message).toContain("roles/monitoring.viewer");
  });

  test("fails with SlotMissing where the project is not there", async () => {
    vendor.replies(gone);
    expect((await failureOf(gemini.checkAdminCredential())).type).toBe("SlotMissing");
  });
});

describe("listing keys", () => {
  test("gives those of all pages, deleted ones as revoked, with the whole name of ours", async () => {
    const foreign = {
      name: "projects/123/locations/global/keys/b7ff1f9f-8275-410a-94dd-3855ee9b5dd2",
      uid: "b7ff1f9f-8275-410a-94dd-3855ee9b5dd2",
      displayName: "API key 1",
      createTime: "2026-01-01T00:00:00Z",
    };
    vendor.replies(
      { body: { keys: [row({ displayName: "cut" })], nextPageToken: "p2" } },
      { body: { keys: [{ ...foreign, ...deleted, annotations: { "keyturn-name": "not ours" } }] } },
    );
    expect(await gemini.listKeys()).toEqual([
      record,
      {
        id: "b7ff1f9f-8275-410a-94dd-3855ee9b5dd2",
        name: "API key 1",
        standard: true,
        state: "revoked",
        createdAt: new Date("2026-01-01T00:00:00Z"),
      },
    ]);
    expect(vendor.calls.map(({ query }) => query.toString())).toEqual([
      "pageSize=100&showDeleted=true",
      "pageSize=100&pageToken=p2&showDeleted=true",
    ]);
  });

  test("fails rather than go round for ever", async () => {
    const same = { body: { keys: [], nextPageToken: "p2" } };
    vendor.replies(same, same);
    expect((await failureOf(gemini.listKeys())).type).toBe("ResponseUnexpected");
  });
});

test("finds a key, or nothing", async () => {
  vendor.replies({ body: row() }, gone);
  expect(await gemini.findKey(keyId)).toEqual(record);
  expect(await gemini.findKey(keyId)).toBeUndefined();
});

describe("the id of a new key", () => {
  test("fits Google's rule, says what it is, and is the same for the same name", () => {
    const names = [name, "", "0-1", `${name}${"x".repeat(80)}`, "Ü", "a.-.b", "123e4567-e89b-12d3-a456-426614174000"];
    for (const one of names) {
      expect(keyIdOf(one)).toMatch(/^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/);
      expect(keyIdOf(one)).not.toMatch(/^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/);
      expect(keyIdOf(one)).toBe(keyIdOf(one));
    }
    expect(new Set(names.map(keyIdOf)).size).toBe(names.length);
    expect(keyId).toMatch(/^kt-acme-production-gemini-default-0a1b2c3d-1-1-[0-9a-f]{10}$/);
  });
});

describe("issuing a key", () => {
  test("makes it for Gemini alone, bound to the service account, and reads its value", async () => {
    vendor.replies(gone, done(), { body: row() }, { body: { keyString: value } });
    const issued = await issue();
    expect(issued.key).toEqual(record);
    expect(issued.value.reveal()).toBe(value);
    expect(asked()).toEqual([`GET /${keyId}`, "POST ", `GET /${keyId}`, `GET /${keyId}/keyString`]);
    expect(vendor.calls[1]?.query.get("keyId")).toBe(keyId);
    expect(vendor.calls[1]?.body).toEqual({
      displayName: name,
      serviceAccountEmail: "gw@my-project.iam.gserviceaccount.com",
      annotations: { "managed-by": "keyturn", "keyturn-name": name },
      restrictions: { apiTargets: [{ service: "generativelanguage.googleapis.com" }] },
    });
    expect(pauses).toEqual([]);
  });

  test("cuts the display name, which may have 63 characters", async () => {
    const long = `${name}${"x".repeat(40)}`;
    const made = row({ annotations: { "managed-by": "keyturn", "keyturn-name": long } });
    vendor.replies(gone, done(), { body: made }, { body: { keyString: value } });
    expect((await gemini.issueKey({ name: long, lifeMs: 1 })).key.name).toBe(long);
    expect(vendor.calls[1]?.body).toMatchObject({ displayName: long.slice(0, 63) });
  });

  test("waits for the operation, ever longer", async () => {
    vendor.replies(gone, running, running, running, done(), { body: row() }, { body: { keyString: value } });
    expect((await issue()).value.reveal()).toBe(value);
    expect(pauses).toEqual([250, 500, 1_000]);
    expect(vendor.calls[2]?.path).toBe("/v2/operations/akmf.p7-123-x");
  });

  test("does not wait for ever", async () => {
    vendor.replies(gone, ...Array.from({ length: 60 }, () => running));
    expect(await failureOf(issue())).toMatchObject({ type: "Unavailable", retried: true });
    expect(pauses.reduce((sum, ms) => sum + ms, 0)).toBeLessThan(65_000);
  });

  test("does not wait past a cancellation", async () => {
    pausing = () => Promise.reject(new Error("cancelled"));
    vendor.replies(gone, running);
    await expect(issue()).rejects.toThrow("cancelled");
  });

  test("finds the key that an earlier attempt made, and reads its value", async () => {
    vendor.replies({ body: row() }, { body: { keyString: value } });
    expect((await issue()).value.reveal()).toBe(value);
    expect(vendor.calls).toHaveLength(2);
  });

  test.each([
    ["the create", [refused(409, { status: "ALREADY_EXISTS" })]],
    ["its operation", [done({ error: { code: 6, message: "exists" }, response: undefined })]],
  ])("finds the key that was made meanwhile, by the word of %s", async (_, replies) => {
    vendor.replies(gone, ...replies, { body: row() }, { body: { keyString: value } });
    expect((await issue()).key.id).toBe(keyId);
  });

  test("takes no key that is not its own, and none that is deleted", async () => {
    vendor.replies({ body: row({ annotations: {} }) });
    expect((await failureOf(issue())).type).toBe("RequestInvalid");
    vendor.replies({ body: row(deleted) });
    expect(await failureOf(issue())).toMatchObject({ type: "Unavailable", retried: true });
  });

  test.each([
    [refused(401), "AdminCredentialRejected", "renew"],
    [refused(403), "AdminCredentialRejected", "iam.serviceAccountApiKeyBindings.create"],
    [
      refused(400, {
        status: "FAILED_PRECONDITION",
        ...because("FLOW_APIKEY_SERVICE_ACCOUNT_BINDING_PERMISSION_ERROR"),
      }),
      "RequestInvalid",
      "organization policy",
    ],
    [
      refused(403, { message: "constraints/iam.managed.disableServiceAccountApiKeyCreation" }),
      "RequestInvalid",
      "organization policy",
    ],
    [refused(400, { status: "FAILED_PRECONDITION" }), "RequestInvalid", "billing"],
    [refused(400, { status: "INVALID_ARGUMENT" }), "RequestInvalid", "refused the request"],
    [refused(404), "SlotMissing", "service account"],
    [refused(409, { status: "ABORTED" }), "Unavailable", "try again"],
    [refused(429, { status: "RESOURCE_EXHAUSTED" }), "RateLimited", "limits"],
    [refused(503), "Unavailable", "may have taken effect"],
    [{ fault: "resets" as const }, "Unavailable", "may have taken effect"],
    [done({ error: { code: 7, message: value } }), "AdminCredentialRejected", "grant"],
    [done({ error: { code: 9, message: "FLOW_APIKEY_SERVICE_ACCOUNT_BINDING_X" } }), "RequestInvalid", "policy"],
    [done({ error: { code: 9, message: value } }), "RequestInvalid", "billing"],
    [done({ error: { code: 8, message: value } }), "RateLimited", "limits"],
    [done({ error: { code: 14, message: value } }), "Unavailable", "look"],
    [done({ error: { code: 3, message: value } }), "RequestInvalid", "code 3"],
    [{ body: { done: "yes" } }, "ResponseUnexpected", "done"],
  ])("tells a refusal apart (%#)", async (reply, type, words) => {
    vendor.replies(gone, reply);
    const failure = await failureOf(issue());
    expect(failure.type).toBe(type);
    expect(failure.message).toContain(words);
  });

  test("tells of a key that was made and does not show yet", async () => {
    vendor.replies(gone, done(), gone);
    expect(await failureOf(issue())).toMatchObject({ type: "Unavailable", retried: true });
  });

  test("gives no key an end, and asks nobody for it", async () => {
    expect(await gemini.setKeyLife(keyId, 86_400_000)).toBeUndefined();
    expect(vendor.calls).toEqual([]);
  });
});

describe("ending a key", () => {
  test.each(["revokeKey", "disableKey"] as const)("%s deletes it and waits for that", async (verb) => {
    vendor.replies({ body: row() }, running, done());
    await gemini[verb](keyId);
    expect(asked()).toEqual([`GET /${keyId}`, `DELETE /${keyId}`, "GET /v2/operations/akmf.p7-123-x"]);
    expect(vendor.calls[1]?.query.toString()).toBe("");
  });

  test("succeeds where it is deleted, or purged since it was seen, and not where it is not known", async () => {
    vendor.replies({ body: row(deleted) }, gone, gone, { body: row() }, gone);
    await gemini.revokeKey(keyId);
    expect(await failureOf(gemini.revokeKey(keyId))).toMatchObject({ type: "KeyUnknown", retried: false });
    await gemini.revokeKey(keyId);
    expect(asked().filter((call) => call.startsWith("DELETE"))).toHaveLength(2);
  });

  test("goes by no read that does not find it", async () => {
    vendor.replies(gone, done(), gone, done());
    await gemini.revokeKey(keyId);
    await gemini.enableKey(keyId);
    expect(asked()).toEqual([`GET /${keyId}`, `DELETE /${keyId}`, `GET /${keyId}`, `POST /${keyId}:undelete`]);
  });

  test("is undone within 30 days, and not where there is nothing to undo", async () => {
    vendor.replies({ body: row(deleted) }, done(), { body: row() }, gone, gone);
    await gemini.enableKey(keyId);
    await gemini.enableKey(keyId);
    expect((await failureOf(gemini.enableKey(keyId))).type).toBe("RequestInvalid");
    const undeletion = `POST /${keyId}:undelete`;
    expect(asked()).toEqual([`GET /${keyId}`, undeletion, `GET /${keyId}`, `GET /${keyId}`, undeletion]);
  });
});

describe("trying a key", () => {
  test("sends it in one place only", async () => {
    vendor.replies({ body: { models: [] } });
    expect(await gemini.tryKey(new Redacted(value))).toEqual({ status: 200, cached: false });
    const [call] = vendor.calls;
    expect(call?.path).toBe("/v1beta/models");
    expect(call?.query.toString()).toBe("pageSize=1");
    expect(call?.headers["x-goog-api-key"]).toBe(value);
    expect(call?.headers.authorization).toBeUndefined();
  });

  test("tells what was wrong, in an array of one too", async () => {
    const { status, body } = refused(400, { status: "INVALID_ARGUMENT", ...because("API_KEY_INVALID") });
    vendor.replies({ ...(status === undefined ? {} : { status }), body: [body] });
    expect(await gemini.tryKey(new Redacted(value))).toMatchObject({
      status: 400,
      providerError: { status: "INVALID_ARGUMENT", reason: "API_KEY_INVALID" },
    });
  });
});

describe("reading usage", () => {
  const query = {
    keyIds: [keyId],
    from: new Date("2026-11-22T10:00:00.500Z"),
    to: new Date("2026-11-22T10:30:00Z"),
  };
  const series = (label: string, points: [string, string | undefined, object][]) => ({
    resource: { type: "consumed_api", labels: { credential_id: label, method: "GenerateContent" } },
    points: points.map(([endTime, startTime, given]) => ({ interval: { startTime, endTime }, value: given })),
  });
  const point = (count: string | number): [string, string, object] => [
    "2026-11-22T10:01:00Z",
    "2026-11-22T10:00:00Z",
    typeof count === "string" ? { int64Value: count } : { doubleValue: count },
  ];

  test("takes a point that counts in a form it does not know for use", async () => {
    const unknown: [string, string, object] = ["2026-11-22T10:01:00Z", "2026-11-22T10:00:00Z", { boolValue: true }];
    vendor.replies({ body: row() }, { body: { timeSeries: [series("apikey:c1d2", [unknown])] } });
    expect((await gemini.readUsage(query)).buckets).toMatchObject([{ keyId, requests: 1 }]);
  });

  test("asks for the key's own label, all pages, and adds its series up", async () => {
    vendor.replies(
      { body: row() },
      { body: { timeSeries: [series("apikey:c1d2", [point("4")])], nextPageToken: "p2" } },
      {
        body: {
          timeSeries: [
            series("apikey:c1d2", [point(2), ["2026-11-22T10:05:00Z", "2026-11-22T10:04:00Z", { int64Value: "0" }]]),
          ],
        },
      },
    );
    expect(await gemini.readUsage(query)).toEqual({
      bucketMs: 60_000,
      unknownSurfaces: [],
      buckets: [
        {
          keyId,
          from: new Date("2026-11-22T10:00:00Z"),
          to: new Date("2026-11-22T10:01:00Z"),
          requests: 6,
          tokens: 0,
        },
      ],
    });
    expect(Object.fromEntries(vendor.calls[1]?.query ?? [])).toEqual({
      filter:
        'metric.type="serviceruntime.googleapis.com/api/request_count" AND resource.type="consumed_api" AND resource.labels.service="generativelanguage.googleapis.com" AND resource.labels.credential_id="apikey:c1d2"',
      "interval.startTime": "2026-11-22T10:00:00.000Z",
      "interval.endTime": "2026-11-22T10:30:00.000Z",
      "aggregation.alignmentPeriod": "60s",
      "aggregation.perSeriesAligner": "ALIGN_SUM",
      pageSize: "10000",
    });
    expect(vendor.calls[2]?.query.get("pageToken")).toBe("p2");
  });

  test("reads the width from the points, and takes a minute where they have none", async () => {
    vendor.replies(
      { body: row() },
      {
        body: {
          timeSeries: [
            series("apikey:c1d2", [["2026-11-22T10:00:01.500Z", "2026-11-22T10:00:01Z", { int64Value: "1" }]]),
          ],
        },
      },
    );
    expect(await gemini.readUsage(query)).toMatchObject({ bucketMs: 500, buckets: [{ requests: 1 }] });
    vendor.replies(
      { body: row() },
      { body: { timeSeries: [series("apikey:c1d2", [["2026-11-22T10:01:00Z", undefined, { int64Value: 1 }]])] } },
    );
    expect(await gemini.readUsage(query)).toMatchObject({
      bucketMs: 60_000,
      buckets: [{ from: new Date("2026-11-22T10:00:00Z") }],
    });
  });

  test.each([
    // Nobody used anything: no rows is all there is to say.
    [[], undefined],
    // Another key of the project shows, so keys are told apart and ours was not seen.
    [["apikey:e3f4"], undefined],
    [["apikey:e3f4", "serviceaccount:1"], undefined],
    // Use under other names, and no key bound to a service account among them: it could be ours.
    [["serviceaccount:1"], false],
    [["apikey:standard", "serviceaccount:1"], false],
    [["apikey:never-heard-of"], false],
  ])("where our key does not show but %j do, use per key is told: %s", async (labels, perKey) => {
    const listed = [row(), row({ uid: "e3f4" }), row({ uid: "standard", serviceAccountEmail: undefined })];
    vendor.replies(
      { body: row() },
      { body: {} },
      { body: { timeSeries: labels.map((label) => series(label, [point("1")])) } },
      ...(labels.length === 0 ? [] : [{ body: { keys: listed } }]),
    );
    expect((await gemini.readUsage(query)).perKey).toBe(perKey);
  });

  test("asks under the id itself for a key that is purged", async () => {
    vendor.replies(gone, { body: {} }, { body: {} });
    await gemini.readUsage(query);
    expect(vendor.calls[1]?.query.get("filter")).toContain(`"apikey:${keyId}"`);
  });

  test("does not take an incomplete answer for a whole one, nor go round for ever", async () => {
    vendor.replies({ body: row() }, { body: { timeSeries: [], executionErrors: [{ code: 4 }] } });
    expect(await failureOf(gemini.readUsage(query))).toMatchObject({
      type: "Unavailable",
      message: expect.stringContaining("usage of project my-project is incomplete"),
    });
    const same = { body: { nextPageToken: "p2" } };
    vendor.replies({ body: row() }, same, same);
    expect((await failureOf(gemini.readUsage(query))).type).toBe("ResponseUnexpected");
  });
});

describe("taking a key from a person", () => {
  const identify = () => gemini.identifyKey(new Redacted(value), { openedAt: new Date("2026-11-22T10:02:00Z") });
  const found = { body: { parent: "projects/123", name: row().name } };

  test("says where, what kind and under which name", () => {
    const told = gemini.handInInstructions({ name });
    expect(told.where).toContain("project=my-project");
    expect(told.keyName).toBe(name);
    expect(told.keyType).toContain("gw@my-project.iam.gserviceaccount.com");
  });

  test("lets Google look the value up", async () => {
    vendor.replies(found, { body: row() });
    expect(await identify()).toEqual({ kind: "identified", key: record });
    expect(vendor.calls[0]?.query.get("keyString")).toBe(value);
  });

  test.each([
    ["none", [{ body: { parent: "projects/123" } }]],
    ["none", [gone]],
    ["none", [refused(400)]],
    ["wrong project", [found, gone]],
    ["wrong project", [found, { body: row({ name: row().name.replace("123", "456") }) }]],
    ["dead", [found, { body: row(deleted) }]],
    ["made before", [found, { body: row({ createTime: "2026-11-22T09:56:00Z" }) }]],
  ])("refuses it: %s (%#)", async (fault, replies) => {
    vendor.replies(...replies);
    expect(await identify()).toMatchObject({ kind: "refused", fault });
  });

  test("says that nothing can be looked up without the right to, and keeps the value to itself", async () => {
    vendor.replies(refused(403));
    const unknown = await identify();
    expect(unknown.kind).toBe("unknown");
    expect(JSON.stringify(unknown)).not.toContain(value);
    vendor.replies({ fault: "resets" });
    expect((await failureOf(identify())).type).toBe("Unavailable");
  });
});

test("knows the shapes its keys have today, and others' apart", () => {
  for (const one of [value, `AIza${"a".repeat(35)}`]) expect(gemini.looksLikeKey(new Redacted(one))).toBe(true);
  for (const one of ["sk-proj-made-up-0123456789abcdef", "AIzaShort", ` ${value}`]) {
    expect(gemini.looksLikeKey(new Redacted(one))).toBe(false);
  }
});
