import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createSecretsStore, type SecretsStore } from "../../src/cloudflare/secrets-store.ts";
import { Redacted } from "../../src/redacted.ts";
import { startVendor, type Vendor } from "../support/vendor.ts";
import { account, controlPlane, failureOf, key, ok, refused, strangers, token } from "./support.ts";

const prefix = `/accounts/${account}/secrets_store`;
const name = "prod-gw_openai_default";
const at = "2026-11-22T10:00:00Z";
const row = (more: object = {}) => ({
  id: "s1",
  store_id: "store1",
  name,
  status: "pending",
  created: at,
  modified: at,
  comment: null,
  scopes: ["ai_gateway"],
  ...more,
});
const record = { id: "s1", name, status: "pending", created: new Date(at), modified: new Date(at) };

let vendor: Vendor;
let store: SecretsStore;

beforeEach(async () => {
  vendor = await startVendor();
  store = createSecretsStore(controlPlane(vendor));
});
afterEach(async () => {
  expect(strangers(vendor)).toEqual([]);
  expect(vendor.calls.filter(({ headers }) => headers.authorization !== `Bearer ${token}`)).toEqual([]);
  await vendor.close();
});

const make = () =>
  store.createSecret("store1", {
    name,
    value: new Redacted(key),
    scopes: ["ai_gateway"],
    comment: "keyturn/1",
  });
const write = () =>
  store.updateSecret("store1", "s1", {
    value: new Redacted(key),
    scopes: ["ai_gateway"],
    comment: "keyturn/1",
  });
const copy = () =>
  store.duplicateSecret("store1", "s1", {
    name: "prod-gw_openai_kt-0a1b2c3d-prev",
    scopes: ["ai_gateway"],
    comment: "keyturn/1",
  });

test("reads quota and stores", async () => {
  vendor.replies(ok({ secrets: { quota: 100, usage: 7 } }), ok([{ id: "store1", name: "default_secrets_store" }]));
  expect(await store.quota()).toEqual({ quota: 100, usage: 7 });
  expect(await store.stores()).toEqual([{ id: "store1", name: "default_secrets_store" }]);
  expect(vendor.calls.map(({ path }) => path)).toEqual([`${prefix}/quota`, `${prefix}/stores`]);
});

describe("finding a secret", () => {
  test("asks for all pages and compares names exactly", async () => {
    const full = Array.from({ length: 100 }, (_, index) => row({ id: `x${index}`, name: `${name}-${index}` }));
    // A total that is wrong after deletes must not end the search.
    vendor.replies(ok(full, { page: 1, per_page: 100, total_count: 100 }), ok([row()], { page: 2, per_page: 100 }));
    expect(await store.findSecret("store1", name)).toEqual(record);
    expect(vendor.calls.map(({ query }) => query.get("page"))).toEqual(["1", "2"]);
  });

  test("goes on where the service gives smaller pages than it was asked for", async () => {
    const two = [row({ id: "a", name: "a" }), row({ id: "b", name: "b" })];
    vendor.replies(ok(two, { per_page: 2 }), ok([row()], { per_page: 2 }));
    expect(await store.findSecret("store1", name)).toEqual(record);
  });

  test("finds nothing when only others or its deleted row are there", async () => {
    vendor.replies(ok([row({ name: name.toUpperCase() }), row({ status: "deleted" })]));
    expect(await store.findSecret("store1", name)).toBeUndefined();
  });
});

test("reads one secret with its comment, and nothing where it is gone", async () => {
  vendor.replies(ok(row({ comment: "keyturn/1", status: "active" })), refused(404, 1001, "secret_not_found"));
  expect(await store.getSecret("store1", "s1")).toEqual({
    ...record,
    status: "active",
    comment: "keyturn/1",
  });
  expect(await store.getSecret("store1", "s1")).toBeUndefined();
});

test("makes a secret in an array and reads it from one", async () => {
  vendor.replies(ok([row({ comment: "keyturn/1" })]));
  expect(await make()).toEqual({ kind: "created", made: { ...record, comment: "keyturn/1" } });
  expect(vendor.calls[0]).toMatchObject({
    method: "POST",
    path: `${prefix}/stores/store1/secrets`,
    body: [{ name, value: key, scopes: ["ai_gateway"], comment: "keyturn/1" }],
  });
});

test.each([
  ["made", make],
  ["copied", copy],
])("tells that a name is taken or the store full where one is %s", async (_, attempt) => {
  vendor.replies(
    refused(409, 1003, "secret_name_already_exists"),
    refused(400, 1003, "maximum_secrets_exceeded"),
    refused(200, 1003, "secret_name_already_exists"),
  );
  expect(await attempt()).toEqual({ kind: "taken" });
  expect(await attempt()).toEqual({ kind: "full" });
  expect(await attempt()).toEqual({ kind: "taken" });
});

test("writes value and comment in one request", async () => {
  vendor.replies(ok(row({ status: "active" })));
  expect(await write()).toEqual({ ...record, status: "active" });
  expect(vendor.calls).toHaveLength(1);
  expect(vendor.calls[0]).toMatchObject({
    method: "PATCH",
    path: `${prefix}/stores/store1/secrets/s1`,
    body: { value: key, scopes: ["ai_gateway"], comment: "keyturn/1" },
  });
});

test("copies a secret without its value", async () => {
  vendor.replies(ok(row({ id: "s2" })));
  expect(await copy()).toMatchObject({ kind: "created", made: { id: "s2" } });
  expect(vendor.calls[0]?.path).toBe(`${prefix}/stores/store1/secrets/s1/duplicate`);
  expect(vendor.calls[0]?.body).not.toHaveProperty("value");
});

test("deletes a secret, with or without a body in the answer, also when it is gone", async () => {
  vendor.replies({ ...ok(null), status: 202 }, { status: 202 }, refused(404, 1001, "secret_not_found"));
  for (let count = 0; count < 3; count += 1) await store.deleteSecret("store1", "s1");
  expect(vendor.calls.map(({ method }) => method)).toEqual(["DELETE", "DELETE", "DELETE"]);
});

describe("a refusal", () => {
  test.each([
    [refused(400, 10000, "Authentication error"), "AdminCredentialRejected"],
    [refused(401, 0, "no"), "AdminCredentialRejected"],
    [refused(403, 9109, "Unauthorized"), "AdminCredentialRejected"],
    [refused(200, 10000, "Authentication error"), "AdminCredentialRejected"],
    [refused(404, 1001, "secret_not_found"), "SlotMissing"],
    [refused(404, 1001, "store_not_found"), "SlotMissing"],
    [refused(404, 7003, "Could not route to /accounts/x"), "SlotMissing"],
    [refused(400, 1001, "secret_scope_invalid"), "RequestInvalid"],
    [refused(200, 1001, "invalid_json_body"), "ResponseUnexpected"],
    [refused(429, 971, "Please wait"), "RateLimited"],
    [refused(503, 1001, "secret_not_found"), "Unavailable"],
    [{ status: 504, body: "<html>" }, "Unavailable"],
    [{ body: { success: true, result: { id: 7 } } }, "ResponseUnexpected"],
    [{ body: ok(row()).body, fault: "stops half way" as const }, "Unavailable"],
  ])("of a write is told apart (%#)", async (reply, type) => {
    vendor.replies(reply);
    const failure = await failureOf(write());
    expect(failure.type).toBe(type);
    expect(failure.message[0]).toMatch(/[a-z]/);
  });

  test("of the token names the right it lacks, the variable and the request", async () => {
    vendor.replies(refused(403, 10000, "Authentication error"), refused(403, 10000, "Authentication error"));
    const failure = await failureOf(write());
    expect(failure.message).toContain('"Secrets Store Write"');
    expect(failure.message).toContain("CLOUDFLARE_API_TOKEN");
    expect(failure.message).toContain("(request 8c2f00-FRA)");
    expect((await failureOf(store.quota())).message).toContain('"Secrets Store Read"');
  });

  test("of a store that is gone is not taken for a secret that is", async () => {
    vendor.replies(refused(404, 1001, "store_not_found"), refused(404, 1001, "store_not_found"));
    expect((await failureOf(store.deleteSecret("store1", "s1"))).type).toBe("SlotMissing");
    expect((await failureOf(store.getSecret("store1", "s1"))).type).toBe("SlotMissing");
  });

  test("that a service in trouble gives is not taken for an answer", async () => {
    vendor.replies(refused(500, 1001, "secret_not_found"), refused(504, 1003, "secret_name_already_exists"));
    expect((await failureOf(store.deleteSecret("store1", "s1"))).type).toBe("Unavailable");
    expect((await failureOf(make())).type).toBe("Unavailable");
  });
});
