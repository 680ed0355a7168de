import { describe, expect, test } from "vitest";

import { prod, prodGateway, type Stage, staging, stagingGateway, startStage } from "../support/activities.ts";
import { setGateway, visit } from "../support/doctor.ts";

const gatewayFields = {
  authentication: true,
  cache_invalidate_on_update: false,
  cache_ttl: 0,
  collect_logs: true,
  rate_limiting_interval: 0,
  rate_limiting_limit: 0,
};

test("finds nothing wrong where nothing is, writes nothing, and asks Cloudflare only a few times", async () => {
  const stage = await startStage();
  for (const gateway of [prodGateway, stagingGateway]) await setGateway(stage, gateway, { byok_only: true });
  const before = { writes: await stage.writes(), requests: (await stage.requests()).length };
  const { findings, counts } = await visit(stage);
  expect(findings.filter(({ about, level }) => about !== "Temporal" && /warning|problem/.test(level))).toEqual([]);
  expect(counts.ok).toBeGreaterThan(20);
  expect(await stage.writes()).toEqual(before.writes);
  const asked = (await stage.requests()).slice(before.requests).filter((line) => line.includes("/accounts/"));
  // Stores, quota and secrets of the account; each gateway and its configs.
  expect(asked.length).toBeLessThanOrEqual(7);
});

test("each finding that is not ok has a next move", async () => {
  const { findings } = await visit(await startStage());
  for (const { level, remedy } of findings) expect(remedy !== undefined).toBe(level !== "ok");
});

test("a service that does not answer is unknown, not a problem", async () => {
  const stage = await startStage();
  await stage.fault({ service: "cloudflare", method: "GET", path: "", mode: "status", status: 503 });
  const { findings } = await visit(stage);
  const said = findings.filter(({ check }) => /^(?:cloudflare-|gateway$|quota)/.test(check));
  expect(new Set(said.map(({ level }) => level))).toEqual(new Set(["unknown"]));
});

describe("the Cloudflare API token", () => {
  test("may read the secrets store and gateways; whether it may write is unknown", async () => {
    const { said } = await visit(await startStage());
    expect(said("cloudflare-secrets-read")).toEqual(["ok: the Cloudflare API token reads the secrets store"]);
    expect(said("cloudflare-gateway-read")).toEqual(["ok: the Cloudflare API token reads gateways"]);
    expect(said("cloudflare-write").join()).toMatch(/^unknown: /);
  });

  test("without Secrets Store rights is a problem of that right alone", async () => {
    const stage = await startStage();
    const { said } = await visit(stage, { env: { CLOUDFLARE_API_TOKEN: stage.seed["noSecretsStoreToken"] } });
    expect(said("cloudflare-secrets-read").join()).toMatch(/^problem: .*Secrets Store Read/);
    expect(said("cloudflare-gateway-read").join()).toMatch(/^ok/);
  });

  test("without AI Gateway rights is a problem", async () => {
    const stage = await startStage();
    const { said, healthy } = await visit(stage, { env: { CLOUDFLARE_API_TOKEN: stage.seed["runToken"] } });
    expect(said("cloudflare-gateway-read").join()).toMatch(/^problem: .*AI Gateway Read/);
    expect(healthy).toBe(false);
  });
});

describe("the gateway token", () => {
  test("is taken", async () => {
    const { said } = await visit(await startStage());
    expect(said("gateway-token")).toEqual([
      "ok: the gateway takes our token (AI Gateway Run)",
      "ok: the gateway takes our token (AI Gateway Run)",
    ]);
  });

  test("that may not run is a problem", async () => {
    const { said } = await visit(await startStage(), { env: { CLOUDFLARE_GATEWAY_TOKEN: "made-up" } });
    expect(said("gateway-token").join()).toMatch(/^problem: the gateway refuses our token/);
  });

  test("is unknown where the gateway answers anybody", async () => {
    const stage = await startStage();
    await setGateway(stage, prodGateway, { authentication: false });
    const { said } = await visit(stage, { only: [prod] });
    expect(said("gateway-token").join()).toMatch(/^unknown: /);
    expect(said("gateway-authentication").join()).toMatch(/^problem: .* answers anybody/);
  });
});

describe("room for two aliases", () => {
  test.each([
    [2, "auto", /^ok: .*room for 2 more/],
    [1, "auto", /^warning: .*room for 1 more.*in place/],
    [1, "always", /^problem: .*room for 1 more/],
  ] as const)("%d left, aliases: %s", async (room, aliases, said) => {
    const stage = await startStage();
    await stage.leaveRoom(room);
    expect((await visit(stage, { policy: { aliases } })).said("quota").join()).toMatch(said);
  });
});

describe("the slot's place", () => {
  test("a gateway that is not there is one problem, and what hangs on it is not guessed", async () => {
    const { of, said } = await visit(await startStage(), {
      environments: { production: { gateway: "nowhere" } },
      only: [prod],
    });
    expect(said("gateway").join()).toMatch(/^problem: gateway nowhere is not there/);
    const hanging = ["gateway-authentication", "gateway-store", "byok-only", "secret", "provider-config", "held-key"];
    expect(hanging.flatMap((check) => of(check).map(({ level }) => level))).toEqual(hanging.map(() => "unknown"));
  });

  test("a gateway without a store", async () => {
    const stage = await startStage();
    await stage.cloudflare("POST", "/ai-gateway/gateways", { id: "storeless", ...gatewayFields });
    const { said } = await visit(stage, { environments: { staging: { gateway: "storeless" } }, only: [staging] });
    expect(said("gateway-store").join()).toMatch(/^problem: gateway storeless has no secrets store/);
  });

  test("byok_only off is a warning, on is ok", async () => {
    const stage = await startStage();
    await setGateway(stage, prodGateway, { byok_only: true });
    const { of } = await visit(stage);
    expect(of("byok-only").map(({ about, level }) => [about, level])).toEqual([
      [prod, "ok"],
      [staging, "warning"],
    ]);
  });

  test("an alias whose secret and provider config are not there", async () => {
    const batch = "production/openai:batch";
    const slots = { [batch]: { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } } };
    const { said } = await visit(await startStage(), { slots, only: [batch] });
    expect(said("secret").join()).toMatch(/^problem: secret github-ai-agent-prod_openai_batch is not in the store/);
    expect(said("provider-config").join()).toMatch(/^problem: .* no provider config for alias batch/);
  });

  test("a secret that is not active yet", async () => {
    const stage = await startStage({ sandbox: { activationMs: 600_000_000 } });
    await stage.edit(prodGateway, { value: await stage.valueOf("key_prod_1") });
    expect((await visit(stage, { only: [prod] })).said("secret").join()).toMatch(/^warning: .* is pending/);
  });

  test("in the dialect guide, what is not told is unknown", async () => {
    const stage = await startStage({ sandbox: { dialect: "guide" } });
    const openai = { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } };
    const { of } = await visit(stage, {
      inventory: {
        dialect: "guide",
        slots: { [prod]: { ...openai, secretId: "github-ai-agent-prod_openai_default" } },
      },
    });
    const checks = ["gateway", "gateway-authentication", "gateway-store", "byok-only", "secret", "provider-config"];
    expect(checks.flatMap((check) => of(check).map(({ level }) => level))).toEqual(checks.map(() => "unknown"));
  });
});

describe("what clients can fall back to", () => {
  const removeOthers = async (stage: Stage): Promise<void> => {
    const path = `/ai-gateway/gateways/${prodGateway}/provider_configs`;
    const { result } = (await stage.cloudflare("GET", path)) as { result: { id: string; provider_slug: string }[] };
    for (const { id, provider_slug } of result) {
      if (provider_slug !== "openai") await stage.cloudflare("DELETE", `${path}/${id}`);
    }
  };

  test("is what the gateway stores of other providers, whether the inventory has it or not", async () => {
    const { said } = await visit(await startStage(), { only: [prod] });
    expect(said("fallback")).toEqual([
      `ok: clients can fall back to anthropic, google-ai-studio in gateway ${prodGateway}`,
    ]);
  });

  test("is a warning where there is no other provider, and for that slot alone", async () => {
    const stage = await startStage();
    await removeOthers(stage);
    // Another alias of the same provider is no help.
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    const { of } = await visit(stage);
    expect(of("fallback").map(({ about, level }) => [about, level])).toEqual([
      [prod, "warning"],
      [staging, "ok"],
    ]);
    expect(of("fallback")[0]).toMatchObject({
      message: expect.stringContaining("stores no other provider than openai"),
      remedy: expect.stringContaining("the gateway does not"),
    });
  });

  test("is told by the inventory in the dialect guide, else unknown", async () => {
    const openai = { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" }, secretId: "one" };
    const anthropic = { anthropic: { workspace: "wrkspc_1" }, secretId: "two" };
    const levels = async (slots: Record<string, unknown>): Promise<string[]> => {
      const stage = await startStage({ sandbox: { dialect: "guide" } });
      const { of } = await visit(stage, { inventory: { dialect: "guide", slots }, only: [prod] });
      return of("fallback").map(({ level }) => level);
    };
    expect(await levels({ [prod]: openai })).toEqual(["unknown"]);
    expect(await levels({ [prod]: openai, "production/anthropic": anthropic })).toEqual(["ok"]);
    expect(await levels({ [prod]: openai, "staging/anthropic": anthropic })).toEqual(["unknown"]);
  });
});
