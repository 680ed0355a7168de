import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createGuideLogs, createGuideSecrets } from "../../src/cloudflare/guide.ts";
import { canPurge, type Place } from "../../src/cloudflare/slot-secrets.ts";
import { Redacted } from "../../src/redacted.ts";
import { startVendor, type Vendor } from "../support/vendor.ts";
import { account, controlPlane, failureOf, key, ok, refused, token } from "./support.ts";

const place: Place = { gateway: "prod-gw", provider: "gemini", alias: "default" };
const alias: Place = { ...place, alias: "kt-0a1b2c3d-new" };
const content = { value: new Redacted(key), comment: "keyturn/1" };

let vendor: Vendor;
let secrets: ReturnType<typeof createGuideSecrets>;

beforeEach(async () => {
  vendor = await startVendor();
  secrets = createGuideSecrets({ ...controlPlane(vendor), place, secretId: "s1" });
});
afterEach(async () => {
  expect(vendor.calls.filter(({ headers }) => headers.authorization !== `Bearer ${token}`)).toEqual([]);
  await vendor.close();
});

test("writes a value to the letter, and no comment", async () => {
  vendor.replies(ok({ id: "s1" }), { status: 200 });
  await secrets.write(place, content);
  await secrets.write(place, content);
  expect(vendor.calls[0]).toMatchObject({
    method: "PUT",
    path: `/accounts/${account}/ai-gateway/secrets/s1`,
    body: { value: key },
  });
  expect(Object.keys(vendor.calls[0]?.body as object)).toEqual(["value"]);
});

test("asks for cached secrets to be dropped", async () => {
  vendor.replies(ok({}), refused(403, 10000, "no"), { status: 503 });
  expect(canPurge(secrets)).toBe(true);
  await secrets.purgeCache("prod-gw");
  expect(vendor.calls[0]).toMatchObject({
    method: "POST",
    path: "/cache/purge",
    body: { files: ["prod-gw/secrets"] },
  });
  expect((await failureOf(secrets.purgeCache("prod-gw"))).type).toBe("AdminCredentialRejected");
  expect((await failureOf(secrets.purgeCache("prod-gw"))).type).toBe("Unavailable");
});

test("reads nothing and makes no aliases, and asks nobody for that", async () => {
  expect(secrets.keepsMarks).toBe(false);
  expect(await secrets.storeOf("prod-gw")).toEqual({ authenticated: true, byokOnly: false, secretsLeft: 0 });
  expect(await secrets.read(place)).toEqual({ status: "active", modified: new Date(0) });
  expect((await failureOf(secrets.read(alias))).type).toBe("SlotMissing");
  for (const attempt of [
    secrets.make(alias, content),
    secrets.makeCopy(alias, place, ""),
    secrets.write(alias, content),
  ]) {
    expect(await failureOf(attempt)).toMatchObject({ type: "RequestInvalid", retried: false });
  }
  await secrets.remove(alias);
  expect((await failureOf(secrets.remove(place))).type).toBe("RequestInvalid");
  expect(vendor.calls).toEqual([]);
});

test.each([
  [refused(404, 7002, "not found"), "SlotMissing", "secretId"],
  [refused(401, 0, "no"), "AdminCredentialRejected", "CLOUDFLARE_API_TOKEN"],
  [refused(429, 971, "wait"), "RateLimited", "limits"],
  [refused(500, 0, "no"), "Unavailable", "may have taken effect"],
  [refused(400, 7001, "no"), "RequestInvalid", "refused"],
])("tells a refusal of a write apart (%#)", async (reply, type, words) => {
  vendor.replies(reply);
  const failure = await failureOf(secrets.write(place, content));
  expect(failure.type).toBe(type);
  expect(failure.message).toContain(words);
});

describe("reading logs", () => {
  const span = { from: new Date("2026-11-22T10:00:00Z"), to: new Date("2026-11-22T11:00:00Z") };
  const row = (more: object = {}) => ({
    id: "l1",
    timestamp: "2026-11-22T10:05:00Z",
    provider: "google",
    model: "gemini-2.5-flash",
    request_tokens: 12,
    response_tokens: 30,
    total_tokens: 42,
    cost_usd: 0.002,
    status: 200,
    ...more,
  });
  const read = {
    id: "l1",
    at: new Date("2026-11-22T10:05:00Z"),
    provider: "google",
    model: "gemini-2.5-flash",
    success: true,
    status: 200,
    cached: false,
    tokensIn: 12,
    tokensOut: 30,
    costUsd: 0.002,
  };

  test("takes one row a line, in the guide's words or Cloudflare's, oldest first", async () => {
    const lines = [
      row({ id: "l3", timestamp: "2026-11-22T10:07:00Z", status: 500 }),
      row({ id: "l9", timestamp: "2026-11-22T12:00:00Z" }),
      row(),
      { id: 2, created_at: "2026-11-22T10:06:00Z", provider: "openai", tokens_in: 1, tokens_out: 2, success: 0 },
    ];
    vendor.replies({ body: `${lines.map((line) => JSON.stringify(line)).join("\n")}\n` });
    const { rows } = await createGuideLogs(controlPlane(vendor))("prod-gw", span);
    expect(rows.map(({ id }) => id)).toEqual(["l1", "2", "l3"]);
    expect(rows[0]).toEqual(read);
    expect(rows[1]).toMatchObject({ provider: "openai", tokensIn: 1, tokensOut: 2, success: false });
    expect(rows[2]).toMatchObject({ success: false, status: 500 });
    expect(vendor.calls[0]?.path).toBe(`/accounts/${account}/ai-gateway/gateways/prod-gw/logs`);
    expect(vendor.calls[0]?.query.toString()).toBe("");
  });

  test("takes an envelope and nothing at all, and half a line for no answer", async () => {
    vendor.replies(ok([row()]), { status: 200 }, { body: `${JSON.stringify(row())}\n{"id"` }, { body: { id: 7 } });
    const logs = createGuideLogs(controlPlane(vendor));
    expect(await logs("prod-gw", span)).toEqual({ rows: [read] });
    expect(await logs("prod-gw", span)).toEqual({ rows: [] });
    expect((await failureOf(logs("prod-gw", span))).type).toBe("Unavailable");
    expect((await failureOf(logs("prod-gw", span))).type).toBe("ResponseUnexpected");
  });
});
