import { afterEach, beforeEach, expect, test } from "vitest";
import { type AiGateway, createAiGateway } from "../../src/cloudflare/ai-gateway.ts";
import { startVendor, type Vendor } from "../support/vendor.ts";
import { account, controlPlane, failureOf, ok, refused, strangers } from "./support.ts";

const prefix = `/accounts/${account}/ai-gateway/gateways/prod-gw`;
const config = {
  id: "c1",
  gateway_id: "prod-gw",
  provider_slug: "openai",
  alias: "default",
  default_config: 1,
  secret_id: "s1",
  secret_preview: "9AbC",
  modified_at: "2026-11-22T10:00:00Z",
};
const read = {
  id: "c1",
  providerSlug: "openai",
  alias: "default",
  defaultConfig: true,
  secretId: "s1",
  secretPreview: "9AbC",
  modified: new Date("2026-11-22T10:00:00Z"),
};

let vendor: Vendor;
let gateways: AiGateway;

beforeEach(async () => {
  vendor = await startVendor();
  gateways = createAiGateway(controlPlane(vendor));
});
afterEach(async () => {
  expect(strangers(vendor)).toEqual([]);
  await vendor.close();
});

const make = () =>
  gateways.createProviderConfig("prod-gw", {
    alias: "kt-0a1b2c3d-new",
    providerSlug: "openai",
    defaultConfig: false,
    secretId: "s2",
  });

test("reads a gateway; what it does not say is off", async () => {
  vendor.replies(
    ok({ id: "prod-gw", authentication: true, store_id: "store1", byok_only: true, cache_ttl: 0 }),
    ok({ id: "prod-gw", store_id: null }),
  );
  expect(await gateways.getGateway("prod-gw")).toEqual({
    id: "prod-gw",
    authentication: true,
    storeId: "store1",
    byokOnly: true,
  });
  expect(await gateways.getGateway("prod-gw")).toEqual({
    id: "prod-gw",
    authentication: false,
    byokOnly: false,
  });
  expect(vendor.calls[0]?.path).toBe(prefix);
});

test("a gateway that is not there is SlotMissing", async () => {
  vendor.replies(refused(404, 7002, "Gateway not found"), refused(200, 7002, "Gateway not found"));
  for (let count = 0; count < 2; count += 1) {
    const failure = await failureOf(gateways.getGateway("prod-gw"));
    expect(failure.type).toBe("SlotMissing");
    expect(failure.message).toContain("gateway prod-gw is not there");
  }
});

test("lists the provider configs of all pages, with flags as numbers or not", async () => {
  const full = Array.from({ length: 100 }, (_, index) => ({
    ...config,
    alias: `a${index}`,
    default_config: false,
  }));
  vendor.replies(ok(full), ok([config]));
  const found = await gateways.listProviderConfigs("prod-gw");
  expect(found).toHaveLength(101);
  expect(found[0]?.defaultConfig).toBe(false);
  expect(found.at(-1)).toEqual(read);
});

test("makes an alias", async () => {
  vendor.replies(ok({ ...config, default_config: 0 }));
  expect(await make()).toEqual({ kind: "created", made: { ...read, defaultConfig: false } });
  expect(vendor.calls[0]).toMatchObject({
    method: "POST",
    path: `${prefix}/provider_configs`,
    body: {
      alias: "kt-0a1b2c3d-new",
      provider_slug: "openai",
      default_config: false,
      secret_id: "s2",
    },
  });
});

test("tells an alias that is taken from a secret that is not seen yet and a gateway that is gone", async () => {
  vendor.replies(
    refused(400, 7001, "Provider config already exists"),
    refused(400, 7001, "Secret was not found"),
    refused(404, 7002, "not found"),
    refused(400, 7001, "Validation failed"),
    refused(403, 10000, "Authentication error"),
    refused(504, 7001, "already exists"),
  );
  expect(await make()).toEqual({ kind: "taken" });
  expect(await failureOf(make())).toMatchObject({ type: "NotYetPropagated", retried: true });
  expect((await failureOf(make())).type).toBe("SlotMissing");
  expect((await failureOf(make())).type).toBe("RequestInvalid");
  const credential = await failureOf(make());
  expect(credential.type).toBe("AdminCredentialRejected");
  expect(credential.message).toContain("Secrets Store Write and AI Gateway Write");
  expect((await failureOf(make())).type).toBe("Unavailable");
});

test("deletes an alias, also when it is gone", async () => {
  vendor.replies(ok(config), refused(404, 7002, "not found"), refused(403, 10000, "Authentication error"));
  await gateways.deleteProviderConfig("prod-gw", "c1");
  await gateways.deleteProviderConfig("prod-gw", "c1");
  expect(vendor.calls[0]).toMatchObject({
    method: "DELETE",
    path: `${prefix}/provider_configs/c1`,
  });
  expect((await failureOf(gateways.deleteProviderConfig("prod-gw", "c1"))).type).toBe("AdminCredentialRejected");
});

test("reads logs in pages of fifty, between two times, and says where a bound ended the reading", async () => {
  const log = (id: string, created_at = "2026-11-22T10:00:01Z") => ({
    id,
    created_at,
    provider: "openai",
    model: "gpt-5-mini",
    path: "chat/completions",
    duration: 12,
    success: 1,
    status_code: 200,
    cached: false,
    tokens_in: 3,
    tokens_out: 4,
    cost: 0.01,
    metadata: '{"keyturn":"probe"}',
    byok: true,
  });
  const full = Array.from({ length: 50 }, (_, index) => log(`l${index}`));
  vendor.replies(ok(full), ok([full[49], log("last")]), ok([...full.slice(1), log("l50", "2026-11-22T10:00:02Z")]));
  const span = { from: new Date("2026-11-22T10:00:00Z"), to: new Date("2026-11-22T11:00:00Z") };

  const { rows, ...rest } = await gateways.readLogs("prod-gw", span);

  expect(rest).toEqual({});
  expect(rows).toHaveLength(51);
  expect(rows.at(-1)).toEqual({
    id: "last",
    at: new Date("2026-11-22T10:00:01Z"),
    provider: "openai",
    model: "gpt-5-mini",
    success: true,
    status: 200,
    cached: false,
    tokensIn: 3,
    tokensOut: 4,
    costUsd: 0.01,
    metadata: '{"keyturn":"probe"}',
    byok: true,
  });
  expect(vendor.calls[0]?.query.get("per_page")).toBe("50");
  expect(JSON.parse(vendor.calls[0]?.query.get("filters") ?? "")).toEqual([
    { key: "created_at", operator: "gt", value: ["2026-11-22T10:00:00.000Z"] },
    { key: "created_at", operator: "lt", value: ["2026-11-22T11:00:00.000Z"] },
  ]);
  expect(vendor.calls[0]?.query.get("order_by_direction")).toBe("asc");
  const some = await gateways.readLogs("prod-gw", { ...span, atMost: 10, newestFirst: true });
  expect(some.rows).toHaveLength(50);
  expect(some.readTo).toEqual(new Date("2026-11-22T10:00:02Z"));
  expect(vendor.calls).toHaveLength(3);
  expect(vendor.calls[2]?.query.get("order_by_direction")).toBe("desc");
});
