import { describe, expect, test } from "vitest";

import { deadRuleOf } from "../../src/activities/slots.ts";
import { RotationFailure } from "../../src/domain/failure.ts";
import type { Policy } from "../../src/domain/policy.ts";
import type { RotationResult } from "../../src/domain/rotation.ts";
import type { KeyRecord } from "../../src/providers/provider.ts";
import {
  durationMs,
  prod,
  prodGateway,
  staging,
  stagingGateway,
  type Stage,
  startStage,
} from "../support/activities.ts";

/** inspectSlot guards promises 3 (which key is held is known, not guessed) and 11 (refused at once, nothing changed). */

const inspect = (stage: Stage, order: Record<string, unknown> = {}) => stage.run("inspectSlot", order);

/** A refusal that is final and changed nothing. */
async function refused(stage: Stage, type: string, message: RegExp, order: Record<string, unknown> = {}) {
  const before = await stage.writes();
  await expect(inspect(stage, order)).rejects.toMatchObject({
    type,
    nonRetryable: true,
    message: expect.stringMatching(message) as string,
  });
  expect(await stage.writes()).toEqual(before);
}

const gatewayFields = {
  cache_invalidate_on_update: false,
  cache_ttl: 0,
  collect_logs: true,
  rate_limiting_interval: 0,
  rate_limiting_limit: 0,
};
const setGateway = (stage: Stage, fields: Record<string, unknown>) =>
  stage.cloudflare("PUT", `/ai-gateway/gateways/${prodGateway}`, {
    ...gatewayFields,
    authentication: true,
    store_id: stage.seed["storeId"],
    ...fields,
  });

describe("inspectSlot finds the held key", () => {
  test("by the gateway's preview where the slot bears no mark yet, and changes nothing", async () => {
    const stage = await startStage();
    const found = await inspect(stage);
    expect(found).toMatchObject({
      held: { id: "key_prod_1", how: "preview" },
      due: { due: true, reason: "asked for" },
      sharedWith: [],
      staged: true,
      canIssue: true,
      canDisable: false,
      secretModified: (await stage.secret(prodGateway)).modified,
    });
    expect(found.warnings).toEqual([expect.stringContaining("byok_only is off")]);
    expect(await stage.writes()).toEqual([]);
    expect(await inspect(stage)).toEqual(found);
  });

  test("by its mark after a rotation", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    expect((await inspect(stage)).held).toMatchObject({ id: key.id, how: "mark" });
  });

  test("by its mark also while lists and previews lag behind the write", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const { key } = await stage.installed();
    expect((await inspect(stage)).held).toMatchObject({ id: key.id, how: "mark" });
  });

  test("by its preview when somebody edited the value by hand and left the mark in place", async () => {
    const stage = await startStage();
    await stage.installed();
    const { id, value } = await stage.keyByHand("by hand");
    await stage.edit(prodGateway, { value });
    const { held, warnings } = await inspect(stage);
    expect(held).toMatchObject({ id, how: "preview" });
    expect(warnings).toContainEqual(expect.stringContaining("the mark is not believed"));
  });

  test("not by a preview from before the value was written", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const { id, value } = await stage.keyByHand("by hand");
    await stage.edit(prodGateway, { value });
    await refused(
      stage,
      "InvalidInput",
      /no preview of its present value; start with --held-key and one of: .*key_prod_1/,
    );
    expect((await inspect(stage, { heldKeyId: id })).held).toMatchObject({ id, how: "operator" });
  });

  test("not by a preview that fits several keys; the operator says which, from those it names", async () => {
    const stage = await startStage();
    const masked = (await stage.valueOf("key_prod_1")).slice(-4);
    const twin = { id: "key_twin", name: "twin", created_at: 1_780_000_000, redacted_value: `sk-svc...${masked}` };
    const own = { id: "key_prod_1", name: "own", created_at: 1_780_000_000, redacted_value: `sk-svc...${masked}` };
    const body = { object: "list", data: [own, twin], has_more: false };
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys\\?", mode: "status", status: 200, body });
    await refused(stage, "InvalidInput", /more than one key fits .*key_prod_1 \(own\), key_twin \(twin\)/);
    expect((await inspect(stage, { heldKeyId: "key_twin" })).held).toMatchObject({ id: "key_twin", how: "operator" });
  });

  test("as the operator says, where that does not contradict what is seen", async () => {
    const stage = await startStage();
    expect((await inspect(stage, { heldKeyId: "key_prod_1" })).held).toMatchObject({
      id: "key_prod_1",
      how: "operator",
    });
    const { id } = await stage.keyByHand("another");
    await refused(stage, "InvalidInput", /preview for production\/openai is not that of key_/, { heldKeyId: id });
    await refused(stage, "InvalidInput", /the provider has no key key_none/, { heldKeyId: "key_none" });
  });

  test("by its mark, and refuses an operator who says otherwise", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await refused(stage, "InvalidInput", new RegExp(`holds ${key.id} by its mark, not key_prod_1`), {
      heldKeyId: "key_prod_1",
    });
    expect((await inspect(stage, { heldKeyId: key.id })).held.how).toBe("mark");
  });

  test("also when it is dead at its provider, and warns", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${key.id}`);
    const { held, warnings } = await inspect(stage);
    expect(held.id).toBe(key.id);
    expect(warnings).toContainEqual(expect.stringContaining("is not alive at its provider"));
  });

  test("and calls it not dead for a flag of the provider's, which it quotes", async () => {
    const stage = await startStage();
    const redacted_value = `sk-svc...${(await stage.valueOf("key_prod_1")).slice(-4)}`;
    const row = { id: "key_prod_1", name: "own", created_at: 1_780_000_000, redacted_value };
    const body = { data: [{ ...row, owner_project_access: "inactive" }], has_more: false };
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys\\?", mode: "status", status: 200, body });
    const { held, warnings } = await inspect(stage);
    expect(held.id).toBe("key_prod_1");
    expect(warnings).not.toContainEqual(expect.stringContaining("is not alive"));
    expect(warnings).toContainEqual(expect.stringContaining("owner_project_access: inactive"));
  });

  test("also where one list misses it, with no word of its death", async () => {
    const stage = await startStage();
    const missing = (which: string) => stage.lie({ about: "openai-keys", mode: "missing", which, times: 1 });
    const honest = await inspect(stage);
    await missing("key_prod_1");
    expect(await inspect(stage)).toEqual(honest);
    await missing("key_prod_1");
    expect((await inspect(stage, { heldKeyId: "key_prod_1" })).held).toMatchObject({ id: "key_prod_1" });
    const { key } = await stage.installed();
    await missing(key.id);
    const marked = await inspect(stage);
    expect(marked.held).toMatchObject({ id: key.id, how: "mark" });
    expect(marked.warnings.join()).not.toContain("not alive");
  });

  test("not at all where only the last result names it and it is dead: that is not what the slot holds", async () => {
    const settings = { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } };
    const stage = await startStage({
      inventory: { dialect: "guide" },
      slots: {
        [prod]: { ...settings, secretId: "github-ai-agent-prod_openai_default" },
        [staging]: { ...settings, secretId: "github-ai-agent-staging_openai_default" },
      },
      lastInstalledKey: () => Promise.resolve("key_prod_1"),
    });
    const row = { id: "key_prod_1", name: "own", created_at: 1_780_000_000, expires_at: 1_780_000_001 };
    const body = { data: [row], has_more: false };
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys\\?", mode: "status", status: 200, body });
    await expect(inspect(stage)).rejects.toMatchObject({
      type: "InvalidInput",
      message: expect.stringContaining("--held-key") as string,
    });
  });

  test("not at all when an unmarked slot holds a dead key: no live key fits", async () => {
    const stage = await startStage();
    await stage.openai("DELETE", "/organization/projects/proj_abc/api_keys/key_prod_1");
    await refused(
      stage,
      "InvalidInput",
      /no key fits the gateway's preview; start with --held-key and one of: none is alive/,
    );
  });
});

describe("inspectSlot finds who shares the key (promise 3: never one that another slot shares)", () => {
  const batch = "production/openai:batch";
  const sameAccount = { [batch]: { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } } };

  test("in another alias of the gateway", async () => {
    const stage = await startStage({ slots: sameAccount });
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    const found = await inspect(stage);
    expect(found.sharedWith).toEqual([batch]);
    expect(found.warnings).toContainEqual(expect.stringContaining(`also held by ${batch}`));
  });

  test("in a slot of another service account and in one of another project, where it got by hand", async () => {
    const stage = await startStage({
      slots: { [batch]: { openai: { project: "proj_abc", serviceAccount: "svc_acct_9" } } },
    });
    const value = await stage.valueOf("key_prod_1");
    await stage.serve(prodGateway, "batch", value);
    await stage.edit(stagingGateway, { value });
    expect((await inspect(stage)).sharedWith).toEqual([staging, batch]);
  });

  test("and cannot tell where a secret lies without a provider config: it may serve, too", async () => {
    const stage = await startStage({ slots: sameAccount, sandbox: { configNeeded: false } });
    const body = {
      name: `${prodGateway}_openai_batch`,
      value: await stage.valueOf("key_prod_1"),
      scopes: ["ai_gateway"],
    };
    await stage.cloudflare("POST", `/secrets_store/stores/${stage.seed["storeId"]}/secrets`, [body]);
    const { sharedWith, unknown, warnings } = await inspect(stage);
    expect(sharedWith).toEqual([]);
    expect(unknown).toEqual([`whether ${batch} holds key_prod_1`]);
    expect(warnings).toContainEqual(expect.stringContaining(`whether ${batch} holds key_prod_1 too cannot be told`));
  });

  test("and takes a slot of the inventory that is not made yet for no holder", async () => {
    const stage = await startStage({ slots: sameAccount });
    expect((await inspect(stage)).sharedWith).toEqual([]);
  });
});

describe("inspectSlot looks again at what the slot's last run left behind (promise 6: named until seen dead)", () => {
  type LastClosed = NonNullable<NonNullable<Parameters<typeof startStage>[0]>["lastClosed"]>;
  const closed = (leftOver: { id: string; why: string }[]): LastClosed => {
    const result = { leftOver } as unknown as RotationResult;
    return () => Promise.resolve({ runId: "run_before", status: "COMPLETED", result });
  };

  test("and says which of it is alive, in whatever project it is", async () => {
    const left = ["key_prod_1", "key_dead", "key_stg_1", "key_gone", "by-hand-0123456789abcdef"];
    const stage = await startStage({ lastClosed: closed(left.map((id) => ({ id, why: `left ${id}` }))) });
    const { key } = await stage.installed();
    const found = await inspect(stage, { rotationId: "another" });
    expect(found.held.id).toBe(key.id);
    expect(found.earlier).toEqual([
      { id: "key_prod_1", why: "left key_prod_1", state: "alive" },
      { id: "key_dead", why: "left key_dead", state: "dead" },
      { id: "key_stg_1", why: "left key_stg_1", state: "alive" },
      { id: "key_gone", why: "left key_gone", state: "dead" },
      { id: "by-hand-0123456789abcdef", why: "left by-hand-0123456789abcdef", state: "unknown" },
    ]);
    expect(found.unknown).toEqual([]);
  });

  test("and calls none dead that one read does not find", async () => {
    const left: { id: string; why: string }[] = [];
    const stage = await startStage({ lastClosed: closed(left) });
    const { id } = await stage.keyByHand("left by a run");
    left.push({ id, why: "left" });
    await stage.lie({ about: "openai-keys", mode: "not-found", which: id, times: 1 });
    expect((await inspect(stage)).earlier).toEqual([{ id, why: "left", state: "alive" }]);
  });

  test("but not at the key that the slot holds by now", async () => {
    const stage = await startStage({ lastClosed: closed([{ id: "key_prod_1", why: "both are alive" }]) });
    expect((await inspect(stage)).earlier).toEqual([]);
  });

  test("and takes the operator's word for a key that it ended and its provider lists no more", async () => {
    const result = { leftOver: [], keys: [{ id: "key_prod_1", role: "compromised", fate: "ended" }] };
    const last = { runId: "run_before", status: "COMPLETED", result: result as unknown as RotationResult } as const;
    const stage = await startStage({ lastClosed: () => Promise.resolve(last) });
    await stage.run("cutKey", { keyId: "key_prod_1", through: "production/openai" });
    await expect(inspect(stage)).rejects.toThrow();
    expect((await inspect(stage, { heldKeyId: "key_prod_1" })).held).toMatchObject({
      id: "key_prod_1",
      how: "operator",
    });
  });

  test("by the run that the starter saw, and never by itself", async () => {
    const asked: unknown[] = [];
    const stage = await startStage({
      lastClosed: (...which) => {
        asked.push(which);
        return Promise.resolve(undefined);
      },
    });
    expect((await inspect(stage, { formerRunId: "run_before" })).earlier).toEqual([]);
    expect(asked).toEqual([[prod, { hint: "run_before", except: expect.any(String) as string }]]);
  });

  test("calls unknown what a project cannot be asked", async () => {
    const stage = await startStage({ lastClosed: closed([{ id: "key_elsewhere", why: "left" }]) });
    await stage.fault({ service: "openai", method: "GET", path: "/proj_stg/api_keys", mode: "status", status: 403 });
    expect((await inspect(stage)).earlier).toEqual([{ id: "key_elsewhere", why: "left", state: "unknown" }]);
  });

  test("asks a few times, and then goes on and says that it cannot be told", async () => {
    const away = () => Promise.reject(new RotationFailure("Unavailable", "temporal does not answer"));
    const stage = await startStage({ lastClosed: away });
    await expect(inspect(stage)).rejects.toMatchObject({ type: "Unavailable", nonRetryable: false });
    const { earlier, unknown, warnings } = await stage.run("inspectSlot", {}, 3);
    expect(earlier).toEqual([]);
    expect(unknown).toEqual(["which keys earlier runs of the slot left behind"]);
    expect(warnings).toContainEqual(expect.stringContaining("temporal does not answer"));
  });

  test("says so where that run ended without a word", async () => {
    const lastClosed: LastClosed = () => Promise.resolve({ runId: "run_before", status: "TERMINATED" });
    const { unknown, warnings } = await inspect(await startStage({ lastClosed }));
    expect(unknown).toEqual(["which keys earlier runs of the slot left behind"]);
    expect(warnings).toContainEqual(expect.stringContaining("run_before ended as TERMINATED"));
  });
});

describe("inspectSlot says whether a rotation is due", () => {
  test("and why not, when it was asked only for one that is", async () => {
    const stage = await startStage({ policy: { every: "200d" } });
    expect((await inspect(stage, { onlyIfDue: true })).due).toEqual({
      due: false,
      reason: expect.stringMatching(/^the key is 120d.* old, and 200d is its period$/) as string,
    });
    expect((await inspect(stage)).due.due).toBe(true);
  });

  test("by the key's age and by the end of its life", async () => {
    const old = await startStage();
    expect((await inspect(old, { onlyIfDue: true })).due).toEqual({ due: true, reason: "the key is older than 90d" });
    const expiring = await startStage({ policy: { every: "200d" } });
    const path = "/organization/projects/proj_abc/api_keys/key_prod_1";
    await expiring.openai("POST", path, { expires_in_seconds: 86_400 * 10 });
    const { due } = await inspect(expiring, { onlyIfDue: true });
    expect(due).toEqual({ due: true, reason: expect.stringMatching(/^the key expires in (9d|10d)/) as string });
  });
});

describe("inspectSlot counts the room for aliases", () => {
  test.each([
    ["auto", 2, true],
    ["auto", 1, false],
    ["never", 100, false],
    ["always", 2, true],
  ])("with aliases: %s and room for %d, staged is %s", async (aliases, room, staged) => {
    const stage = await startStage({ policy: { aliases } });
    await stage.leaveRoom(room);
    expect((await inspect(stage)).staged).toBe(staged);
  });

  test("and refuses where aliases must be made and cannot", async () => {
    const stage = await startStage({ policy: { aliases: "always" } });
    await stage.leaveRoom(1);
    await refused(stage, "KeyLimitReached", /room for 1 more, and production\/openai needs 2/);
  });
});

describe("inspectSlot refuses, before anything is changed,", () => {
  test("a gateway without a store", async () => {
    const stage = await startStage();
    await setGateway(stage, { store_id: undefined });
    await refused(stage, "SlotMissing", /has no secrets store/);
  });

  test("a gateway that answers anybody", async () => {
    const stage = await startStage();
    await setGateway(stage, { authentication: false });
    await refused(stage, "SlotMissing", /answers anybody: switch on its authentication/);
  });

  test("a slot whose alias nobody made, and one nobody named", async () => {
    const slots = { "production/openai:batch": { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } } };
    const stage = await startStage({ slots });
    await refused(stage, "SlotMissing", /has no secret github-ai-agent-prod_openai_batch/, {
      slot: "production/openai:batch",
    });
    await refused(stage, "InvalidInput", /no slot production\/opnai .* did you mean production\/openai/, {
      slot: "production/opnai",
    });
  });

  test("a service account that is not there", async () => {
    const slots = { [prod]: { openai: { project: "proj_abc", serviceAccount: "svc_acct_none" } } };
    await refused(await startStage({ slots }), "SlotMissing", /svc_acct_none|proj_abc/);
  });

  test("an admin credential that is refused, and a Cloudflare token without its rights", async () => {
    const wrong = await startStage({ env: { OPENAI_ADMIN_KEY: "sk-admin-MadeUpMadeUpMadeUp1234" } });
    await refused(wrong, "AdminCredentialRejected", /renew OPENAI_ADMIN_KEY/);
    const poor = await startStage({ env: { CLOUDFLARE_API_TOKEN: "made-up-token" } });
    await refused(poor, "AdminCredentialRejected", /CLOUDFLARE_API_TOKEN the right/);
  });
});

test("a key of Google's standard kind is seen dead by its own rule, any other by the provider's", () => {
  const [dead, deadStandard] = [
    { answers: 10, span: durationMs(120_000) },
    { answers: 10, span: durationMs(1_800_000) },
  ];
  const policy = { dead, deadStandard } as unknown as Policy;
  const key: KeyRecord = { id: "a", name: "a", state: "active", createdAt: new Date() };
  expect(deadRuleOf(policy, { ...key, standard: true })).toBe(deadStandard);
  expect([deadRuleOf(policy, key), deadRuleOf(policy, undefined)]).toEqual([dead, dead]);
});

test.each([
  [429, "RateLimited"],
  [500, "Unavailable"],
])("inspectSlot is tried again after a %d, and says who answered it", async (status, type) => {
  const stage = await startStage();
  await stage.fault({
    service: "cloudflare",
    method: "GET",
    path: "/secrets",
    mode: "status",
    status,
    retryAfter: 7,
    times: 1,
  });
  await expect(inspect(stage)).rejects.toMatchObject({ type, nonRetryable: false, nextRetryDelay: 7_000 });
  expect((await inspect(stage)).held.id).toBe("key_prod_1");
});
