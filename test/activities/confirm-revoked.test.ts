import { describe, expect, test } from "vitest";

import type { Duration } from "../../src/domain/duration.ts";
import { rotationAliases } from "../../src/domain/slot.ts";
import { Redacted } from "../../src/redacted.ts";
import type { Sealing } from "../../src/sealing.ts";
import { inFuture, prod, type Stage, startStage } from "../support/activities.ts";

/**
 * confirmRevoked guards promises 8 and 12: "confirmed dead" is said only of a key whose own provider refused it, in its
 * own words, as often and as long as policy wants. The rule here is three refusals over 60 ms.
 */

const keyId = "key_prod_1";
const revokedRoute = `/organization/projects/proj_abc/api_keys/${keyId}`;

const rule = { answers: 3, span: "60ms" as Duration };

async function staged({ revoke = true, ...options }: { revoke?: boolean; sandbox?: object } = {}): Promise<Stage> {
  const stage = await startStage(options);
  await stage.run("stageAliases", { key: await stage.newKey() });
  if (revoke) await stage.openai("DELETE", revokedRoute);
  return stage;
}

const confirm = (stage: Stage, ms = 250, throughPrev = true) =>
  stage.run("confirmRevoked", { keyId, throughPrev, until: inFuture(ms), rule });
const probesOfPrev = async (stage: Stage) =>
  (await stage.probes()).filter(({ alias }) => alias === rotationAliases(stage.of.rotationId).prev);

describe("confirmRevoked", () => {
  test("sees a real death: as many refusals in a row as policy wants, over its span, dated at the first", async () => {
    const stage = await staged();
    const started = Date.now();
    const { deadAt, note } = await confirm(stage, 5_000);
    expect(note).toMatch(/^[34] refusals in a row over 60ms$/);
    expect(Date.now() - Date.parse(deadAt ?? "")).toBeGreaterThanOrEqual(60);
    expect(Date.parse(deadAt ?? "")).toBeGreaterThanOrEqual(started);
    expect((await probesOfPrev(stage)).every((probe) => probe.status === 401 && probe.keyId === keyId)).toBe(true);
    expect((await confirm(stage, 5_000)).deadAt).toBeDefined();
  });

  test("waits for a key that goes on working for a while, and dates its death after that", async () => {
    const stage = await staged({ revoke: false, sandbox: { deathMs: 90_000 } });
    await stage.openai("DELETE", revokedRoute);
    const revoked = Date.now();
    const { deadAt } = await confirm(stage, 5_000);
    expect(Date.parse(deadAt ?? "")).toBeGreaterThanOrEqual(revoked + 70);
  });

  test("never confirms a key that the provider still lists as alive", async () => {
    const stage = await staged({ revoke: false });
    const confirmation = await confirm(stage);
    expect(confirmation).toEqual({ note: "not seen dead until the deadline; the provider still lists it as alive" });
    expect(await probesOfPrev(stage)).toEqual([]);
  });

  test("waits for late lists once, at the end of the row, and not before each probe", async () => {
    const stage = await staged();
    const lists = async () => (await stage.requests()).filter((line) => /^GET \S*\/api_keys(\?|$)/.test(line)).length;
    const before = await lists();
    expect((await confirm(stage, 5_000)).deadAt).toBeDefined();
    expect((await lists()) - before).toBe(1);
  });

  test("says so where no probe can see the death", async () => {
    const stage = await staged();
    expect(await confirm(stage, 250, false)).toEqual({
      note: "the provider lists it as alive no more; no probe could see its death",
    });
  });

  const gatewayError = (status: number, code: number) => ({
    service: "gateway",
    status,
    body: { success: false, name: "AiGatewayError", internalCode: code, error: [{ code, message: "Unauthorized" }] },
  });
  const refusal = { error: { message: "Incorrect API key provided: sk-svc***9AbC.", code: "invalid_api_key" } };
  const openai = (status: number, error: Record<string, unknown>) => ({
    service: "openai",
    path: "completions",
    status,
    body: { error },
  });

  test.each([
    ["the gateway's own 401", gatewayError(401, 2009), "gateway token refused"],
    ["the gateway that knows no such alias", gatewayError(400, 2040), "alias unknown"],
    ["the gateway that wants Cloudflare's credentials to pay", gatewayError(402, 2021), "not the stored key"],
    ["the gateway's limit", gatewayError(429, 2003), "rate limited"],
    [
      "a refusal that came from the cache",
      { service: "gateway", status: 401, body: refusal, headers: { "cf-aig-cache-status": "HIT" } },
      "cached",
    ],
    [
      "a 401 because no key was sent",
      openai(401, { message: "You didn't provide an API key.", code: null }),
      "no key sent",
    ],
    [
      "a 401 without the provider's words",
      { service: "openai", path: "completions", status: 401, body: "no" },
      "unclear",
    ],
    ["a 401 about scopes", openai(401, { message: "Missing scopes: model.request" }), "works, not allowed"],
    ["a 403", openai(403, { message: "Country not supported" }), "works, not allowed"],
    ["the provider's 429", openai(429, { code: "rate_limit_exceeded" }), "rate limited"],
    ["an account without money", openai(429, { code: "insufficient_quota" }), "works, no quota"],
    ["the provider's 500", openai(500, { message: "sorry" }), "unavailable"],
    ["the provider's 503", openai(503, { message: "overloaded" }), "unavailable"],
    ["an answer that Cloudflare paid for", openai(200, {}), "works"],
  ])("is not fooled by %s", async (_, fault, verdict) => {
    const stage = await staged();
    await stage.fault({ mode: "status", ...fault });
    // Time for more probes than the rule wants, also on a busy machine.
    expect(await confirm(stage, 1_000)).toEqual({
      note: `not seen dead until the deadline; prev answered: ${verdict}`,
    });
    expect((await probesOfPrev(stage)).length).toBeGreaterThan(3);
  });

  test("is not fooled by a gateway that does not answer", async () => {
    const stage = await staged();
    await stage.fault({ service: "gateway", path: "", mode: "reset" });
    expect((await confirm(stage)).deadAt).toBeUndefined();
  });

  test("begins a new row after each answer that was no refusal", async () => {
    const stage = await staged();
    for (const skip of [2, 3, 4]) {
      await stage.fault({ ...openai(500, {}), mode: "status", skip, times: 1 });
    }
    const { deadAt } = await confirm(stage, 5_000);
    const statuses = (await probesOfPrev(stage)).map(({ status }) => status);
    const last = statuses.lastIndexOf(500);
    expect(last).toBeGreaterThanOrEqual(2);
    expect(statuses.slice(last + 1).length).toBeGreaterThanOrEqual(3);
    expect(deadAt).toBeDefined();
  });

  test("reports as not confirmed when the provider cannot be asked, and stops nobody", async () => {
    const stage = await staged();
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys/", mode: "status", status: 401 });
    const { deadAt, note } = await confirm(stage);
    expect(deadAt).toBeUndefined();
    expect(note).toMatch(/^not seen dead until the deadline; openai refused the admin credential/);
  });

  test("goes on when the provider could not be asked once", async () => {
    const stage = await staged();
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys/", mode: "lost-answer", skip: 1, times: 1 });
    expect((await confirm(stage, 5_000)).deadAt).toBeDefined();
  });

  test("says at once, when run again after its deadline, that it saw nothing", async () => {
    expect(await confirm(await staged(), -1)).toEqual({
      note: "not seen dead until the deadline; nothing was seen yet",
    });
  });
});

describe("confirmRevoked of a key whose value leaked", () => {
  const leaked = async (stage: Stage) => {
    const { seal }: Pick<Sealing, "seal"> = stage.dependencies;
    const value = new Redacted(await stage.valueOf(keyId));
    return { keyId, rule, throughPrev: false, leaked: await seal(value, { slot: prod, purpose: "leaked" }) };
  };

  test("sees its death at the provider itself, without any alias", async () => {
    const stage = await startStage();
    const order = await leaked(stage);
    await stage.openai("DELETE", revokedRoute);
    const { deadAt, note } = await stage.run("confirmRevoked", { ...order, until: inFuture(5_000) });
    expect(deadAt).toBeDefined();
    expect(note).toMatch(/^[34] refusals in a row over 60ms$/);
    expect(await stage.probes()).toEqual([]);
  });

  test.each([
    [500, "unavailable"],
    [429, "rate limited"],
    [403, "works, not allowed"],
    [200, "works"],
  ])("is not fooled by the provider's %d", async (status, verdict) => {
    const stage = await startStage();
    const order = await leaked(stage);
    await stage.openai("DELETE", revokedRoute);
    await stage.fault({ service: "openai", method: "GET", path: "^/v1/models", mode: "status", status, body: {} });
    expect(await stage.run("confirmRevoked", { ...order, until: inFuture(250) })).toEqual({
      note: `not seen dead until the deadline; the provider answered the leaked value: ${verdict}`,
    });
  });

  test("says so where the seal of the value opens no more, and looks through prev instead", async () => {
    const stage = await staged();
    const order = { keyId, rule, until: inFuture(5_000), leaked: "not.a.sealed.key." };
    const { deadAt, note } = await stage.run("confirmRevoked", { ...order, throughPrev: true });
    expect(deadAt).toBeDefined();
    expect(note).toMatch(/^the leaked value could not be tried: .*; [34] refusals in a row over 60ms$/);
    expect(await stage.run("confirmRevoked", { ...order, throughPrev: false })).toEqual({
      note: expect.stringMatching(/^the leaked value could not be tried: .*; no probe could see its death$/) as string,
    });
  });
});
