import { describe, expect, test } from "vitest";

import { parseMark } from "../../src/domain/mark.ts";
import { rotationAliases } from "../../src/domain/slot.ts";
import { insufficientQuota } from "../../src/sandbox/index.ts";
import { durationMs, inFuture, once, prodGateway, type Stage, startStage } from "../support/activities.ts";

const day = 86_400_000;
const aliasesOf = (stage: Stage) => rotationAliases(stage.of.rotationId);
const secretWrites = async (stage: Stage): Promise<string[]> =>
  (await stage.writes()).filter((line) => line.startsWith("PATCH"));
const before = async (stage: Stage): Promise<string> =>
  new Date((await stage.secret(prodGateway)).modified).toISOString();
const writeRoutes = { service: "cloudflare", path: "/(secrets|provider_configs)" };

describe("stageAliases", () => {
  const staged = async (stage: Stage, keyId: string) => {
    const aliases = aliasesOf(stage);
    expect(await stage.held(prodGateway, aliases.new)).toBe(keyId);
    expect(await stage.held(prodGateway, aliases.prev)).toBe("key_prod_1");
    expect((await stage.aliases(prodGateway)).toSorted()).toEqual(["default", aliases.new, aliases.prev].toSorted());
  };

  test("puts the new key and a copy of the old one on aliases of this rotation; again changes nothing of that", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.run("stageAliases", { key });
    await staged(stage, key.id);
    await stage.run("stageAliases", { key });
    await staged(stage, key.id);
    expect(await stage.held(prodGateway)).toBe("key_prod_1");
  });

  test("says on both aliases whose they are, and gives neither a mark of a key", async () => {
    const stage = await startStage();
    await stage.run("stageAliases", { key: await stage.newKey() });
    for (const alias of Object.values(aliasesOf(stage))) {
      const { comment } = await stage.secret(prodGateway, alias);
      expect(comment).toContain(stage.of.rotationId);
      expect(comment).toContain("acme");
      expect(parseMark(comment ?? undefined)).toBeUndefined();
    }
  });

  // Four writes: two secrets, two provider configs. Lists lag by 50 ms here, so that a repetition sees too little.
  describe.each(["lost-answer", "lost-request", "half"])("ends at the same after a %s", (mode) => {
    test.each([0, 1, 2, 3])("of write %d", async (skip) => {
      const stage = await startStage({ sandbox: { listLagMs: 30_000 } });
      const key = await stage.newKey();
      await stage.fault({ ...writeRoutes, method: "POST", mode, skip, times: 1 });
      await stage.repeat("stageAliases", { key });
      await staged(stage, key.id);
    });
  });

  test("puts another key on the alias when the first one was refused", async () => {
    const stage = await startStage();
    await stage.run("stageAliases", { key: await stage.newKey(1) });
    const second = await stage.newKey(2);
    await stage.run("stageAliases", { key: second });
    await staged(stage, second.id);
  });

  test.each([1, 0])("goes on in place where the store has room for %d, and leaves no alias behind", async (room) => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.leaveRoom(room);
    expect(await stage.repeat("stageAliases", { key })).toEqual({
      inPlace: expect.stringContaining("no room") as string,
    });
    expect(await stage.aliases(prodGateway)).toEqual(["default"]);
    expect(await stage.held(prodGateway)).toBe("key_prod_1");
  });

  test("fails for good when the store is full and policy always wants aliases", async () => {
    const stage = await startStage({ policy: { aliases: "always" } });
    await stage.leaveRoom(1);
    const key = await stage.newKey();
    await expect(stage.repeat("stageAliases", { key })).rejects.toMatchObject({
      type: "KeyLimitReached",
      nonRetryable: true,
    });
    expect(await stage.held(prodGateway)).toBe("key_prod_1");
  });

  test("makes both anew where it is asked again: the copy is what the slot holds by now", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const second = await stage.newKey(2);
    await stage.run("stageAliases", { key: second });
    expect(await stage.held(prodGateway, aliasesOf(stage).prev)).toBe("key_prod_1");
    await stage.repeat("stageAliases", { key: second, again: true });
    expect(await stage.held(prodGateway, aliasesOf(stage).prev)).toBe(key.id);
    expect(await stage.held(prodGateway, aliasesOf(stage).new)).toBe(second.id);
  });

  test("makes the copy anew once and not with each attempt, so that the gateway comes to see it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const second = await stage.newKey(2);
    await stage.run("stageAliases", { key: second });
    const unseen = {
      success: false,
      errors: [{ code: 7001, message: "Secret was not found" }],
      messages: [],
      result: null,
    };
    const late = { service: "cloudflare", method: "POST", path: "/provider_configs", mode: "status", status: 400 };
    // The gateway sees the secret of the first alias, and not yet that of the copy.
    await stage.fault({ ...late, body: unseen, skip: 1, times: 1 });
    const beats: unknown[] = [];
    const attempt = (number: number) =>
      stage.run("stageAliases", { key: second, again: true }, number, {
        info: { heartbeatTimeoutMs: 10_000, heartbeatDetails: beats.at(-1) },
        onAttempt: (environment) => environment.on("heartbeat", (details) => beats.push(details)),
      });
    await expect(attempt(1)).rejects.toMatchObject({ type: "NotYetPropagated" });
    await attempt(2);
    expect(await stage.held(prodGateway, aliasesOf(stage).prev)).toBe(key.id);
    const copies = (await stage.writes()).filter((line) => line.endsWith("/duplicate"));
    expect(copies).toHaveLength(2); // the one of before, and one more
  });

  test.each(["lost-answer", "lost-request"])("makes both anew also after a %s of the removal", async (mode) => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const second = await stage.newKey(2);
    await stage.fault({ ...writeRoutes, method: "DELETE", mode, times: 2 });
    await stage.repeat("stageAliases", { key: second, again: true });
    expect(await stage.held(prodGateway, aliasesOf(stage).prev)).toBe(key.id);
  });
});

describe("seePrevAnswer", () => {
  const order = (ms: number) => ({ alias: "prev" as const, goodAnswers: 1, until: inFuture(ms) });
  const staged = async (): Promise<Stage> => {
    const stage = await startStage();
    await stage.run("stageAliases", { key: await stage.newKey() });
    return stage;
  };

  test("sees the copy of the old key answer, also without money", async () => {
    const stage = await staged();
    expect(await stage.run("seePrevAnswer", order(0))).toEqual({ answered: true, note: "prev answered" });
    await stage.fault({ service: "openai", path: "completions", mode: "status", status: 429, body: insufficientQuota });
    expect(await stage.run("seePrevAnswer", order(0))).toMatchObject({ answered: true });
  });

  test("asks again until the deadline, then says that it did not answer and stops nobody", async () => {
    const stage = await staged();
    await stage.openai("DELETE", "/organization/projects/proj_abc/api_keys/key_prod_1");
    await expect(stage.run("seePrevAnswer", order(60_000))).rejects.toMatchObject({
      type: "NotYetPropagated",
      nonRetryable: false,
    });
    const answer = await stage.run("seePrevAnswer", order(-1));
    expect(answer).toEqual({ answered: false, note: "prev did not answer: key refused" });
  });

  test("stops nobody when no answer comes at all", async () => {
    const stage = await staged();
    await stage.fault({ service: "gateway", path: "", mode: "reset" });
    expect(await stage.run("seePrevAnswer", order(-1))).toEqual({
      answered: false,
      note: "prev did not answer: unavailable",
    });
  });
});

describe("verifyThroughGateway (promise 2: proof on the clients' own path)", () => {
  const verify = (stage: Stage, alias: "new" | "real", ms = 60_000, more: Record<string, unknown> = {}) =>
    stage.run("verifyThroughGateway", { alias, goodAnswers: 2, until: inFuture(ms), ...more });
  const staged = async (): Promise<Stage> => {
    const stage = await startStage();
    await stage.run("stageAliases", { key: await stage.newKey() });
    return stage;
  };

  test("passes after as many good answers in a row as policy wants, with the new key and no other", async () => {
    const stage = await staged();
    expect(await verify(stage, "new")).toEqual({ at: expect.any(String) as string, probes: 2, warnings: [] });
    const keyId = await stage.held(prodGateway, aliasesOf(stage).new);
    expect(await stage.probes()).toEqual(Array(2).fill({ alias: aliasesOf(stage).new, keyId, status: 200 }));
  });

  test("begins a new row after each answer that was not good", async () => {
    const stage = await staged();
    await stage.fault({ service: "openai", path: "completions", mode: "status", status: 401, skip: 1, times: 1 });
    await expect(verify(stage, "new")).rejects.toMatchObject({ type: "NotYetPropagated", nonRetryable: false });
    expect(await verify(stage, "new")).toMatchObject({ probes: 2 });
  });

  test("takes an answer without money for a proof of the key, and warns", async () => {
    const stage = await staged();
    await stage.fault({ service: "openai", path: "completions", mode: "status", status: 429, body: insufficientQuota });
    expect((await verify(stage, "new")).warnings).toEqual([
      "openai has no quota left for this key: look at the limits of the project and the organisation",
    ]);
  });

  const gatewayError = (status: number, code: number) => ({
    service: "gateway",
    mode: "status",
    status,
    body: { success: false, name: "AiGatewayError", internalCode: code, httpCode: status, error: [{ code }] },
  });
  const good = { id: "chatcmpl-1", object: "chat.completion", choices: [] };
  const cached = {
    service: "gateway",
    mode: "status",
    status: 200,
    body: good,
    headers: { "cf-aig-cache-status": "HIT" },
  };
  const openai = (status: number, error: Record<string, unknown>) => ({
    service: "openai",
    path: "completions",
    mode: "status",
    status,
    body: { error },
  });

  // What it becomes in time, and what it is after the deadline.
  test.each([
    [
      "the key is refused",
      openai(401, { code: "invalid_api_key", message: "Incorrect" }),
      "NotYetPropagated",
      "KeyRejected",
    ],
    ["the key may not make the call", openai(403, { message: "no" }), "NotYetPropagated", "KeyRejected"],
    ["no key was sent", openai(401, { message: "You didn't provide an API key." }), "NotYetPropagated", "SlotMissing"],
    ["the alias is unknown", gatewayError(400, 2040), "NotYetPropagated", "SlotMissing"],
    ["Cloudflare's credentials were to pay", gatewayError(402, 2021), "NotYetPropagated", "SlotMissing"],
    ["the answer came from a cache", cached, "NotYetPropagated", "Unavailable"],
    ["the provider is down", openai(500, { message: "sorry" }), "NotYetPropagated", "Unavailable"],
    ["the gateway's limit is reached", gatewayError(429, 2003), "RateLimited", "RateLimited"],
    ["the provider's limit is reached", openai(429, { code: "rate_limit_exceeded" }), "RateLimited", "RateLimited"],
  ])("does not pass when %s: tried again in time, then for good", async (_, fault, inTime, then) => {
    const stage = await staged();
    await stage.fault(fault);
    await expect(verify(stage, "new")).rejects.toMatchObject({ type: inTime, nonRetryable: false });
    await expect(verify(stage, "new", -1)).rejects.toMatchObject({ type: then, nonRetryable: true });
  });

  test("fails at once when the gateway refuses our own token", async () => {
    const stage = await staged();
    await stage.fault(gatewayError(401, 2009));
    await expect(verify(stage, "new")).rejects.toMatchObject({ type: "AdminCredentialRejected", nonRetryable: true });
  });

  test("is tried again after a lost answer", async () => {
    const stage = await staged();
    await stage.fault({ service: "gateway", path: "", mode: "lost-answer", times: 1 });
    await expect(verify(stage, "new")).rejects.toMatchObject({ type: "Unavailable", nonRetryable: false });
    expect(await verify(stage, "new")).toMatchObject({ probes: 2 });
  });

  test("looks on the real alias first whether the slot still holds the installed key", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    expect(await verify(stage, "real", 60_000, { installedKeyId: key.id })).toMatchObject({ probes: 2 });
    await stage.edit(prodGateway, { value: await stage.valueOf("key_prod_1") });
    await expect(verify(stage, "real", 60_000, { installedKeyId: key.id })).rejects.toMatchObject({
      type: "SlotChanged",
      nonRetryable: true,
      message: expect.stringContaining("both keys stay alive") as string,
    });
  });
});

describe("installKey", () => {
  const holds = async (stage: Stage, keyId: string) => {
    expect(await stage.held(prodGateway)).toBe(keyId);
    const mark = parseMark((await stage.secret(prodGateway)).comment ?? undefined);
    expect(mark).toMatchObject({ keyId, rotationId: stage.of.rotationId });
    const expires = (await stage.keys()).find(({ id }) => id === keyId)?.expiresAt;
    return Math.round((Date.parse(expires ?? "") - Date.now()) / day);
  };

  test("gives the key its final life and writes value and mark in one request; again it finds its mark and writes nothing", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const order = { key, secretModified: await before(stage) };
    const installed = await stage.run("installKey", order);
    expect(await holds(stage, key.id)).toBe(365);
    expect(Date.parse(installed.expiresAt ?? "") - Date.now()).toBeGreaterThan(364 * day);
    const writes = await stage.writes();
    expect(await secretWrites(stage)).toHaveLength(1);
    const again = await stage.run("installKey", order);
    expect(await stage.writes()).toEqual(writes);
    expect(again.expiresAt).toBe(installed.expiresAt);
  });

  test.each(["lost-answer", "lost-request", "half", "malformed"])(
    "installs once after a %s of the write",
    async (mode) => {
      const stage = await startStage();
      const key = await stage.newKey();
      const secretModified = await before(stage);
      await stage.fault({ service: "cloudflare", method: "PATCH", path: "/secrets/", mode, times: 1 });
      await expect(stage.run("installKey", { key, secretModified })).rejects.toMatchObject({ nonRetryable: false });
      await stage.repeat("installKey", { key, secretModified });
      await holds(stage, key.id);
      expect(await secretWrites(stage)).toHaveLength(mode === "lost-request" ? 2 : 1);
    },
  );

  test("ends at the same when a write that timed out lands after its repetition", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const secretModified = await before(stage);
    await stage.fault({
      service: "cloudflare",
      method: "PATCH",
      path: "/secrets/",
      mode: "late",
      delayMs: 1_500,
      times: 1,
    });
    await expect(stage.run("installKey", { key, secretModified })).rejects.toMatchObject({ type: "Unavailable" });
    const { at } = await stage.run("installKey", { key, secretModified });
    await expect.poll(async () => (await stage.secret(prodGateway)).modified > at, { timeout: 5_000 }).toBe(true);
    await holds(stage, key.id);
    await stage.run("revokeKey", { keyId: "key_prod_1", installedKeyId: key.id });
  });

  test.each(["value", "comment"])("writes nothing after somebody edited the %s", async (what) => {
    const stage = await startStage();
    const key = await stage.newKey();
    const secretModified = await before(stage);
    await stage.edit(prodGateway, what === "value" ? { value: await stage.valueOf("key_stg_1") } : { comment: "mine" });
    const writes = await stage.writes();
    for (const again of [false, true]) {
      await expect(stage.run("installKey", { key, secretModified, again })).rejects.toMatchObject({
        type: "SlotChanged",
        nonRetryable: true,
      });
    }
    expect(await stage.writes()).toEqual(writes);
  });

  test("writes nothing over an edit that its first look does not show yet", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const secretModified = await before(stage);
    const value = await stage.valueOf("key_stg_1");
    await stage.edit(prodGateway, { value });
    await stage.lie({ about: "secrets", mode: "stale", which: "_openai_default$", times: 1 });
    await expect(stage.repeat("installKey", { key, secretModified })).rejects.toMatchObject({ type: "SlotChanged" });
    expect(await stage.held(prodGateway)).toBe("key_stg_1");
    expect(await secretWrites(stage)).toHaveLength(1);
  });

  test("stores the value again where it is asked to, and never over somebody's edit that kept the mark", async () => {
    const stage = await startStage();
    const { key, secretModified } = await stage.installed();
    const order = { key, secretModified, again: true };
    await stage.run("installKey", order);
    expect(await secretWrites(stage)).toHaveLength(2);
    await holds(stage, key.id);
    await stage.edit(prodGateway, { value: await stage.valueOf("key_prod_1") });
    await expect(stage.run("installKey", order)).rejects.toMatchObject({ type: "SlotChanged", nonRetryable: true });
    await expect(stage.run("installKey", { ...order, again: false })).rejects.toMatchObject({ type: "SlotChanged" });
    expect(await stage.held(prodGateway)).toBe("key_prod_1");
  });

  test.each([
    [365, 365],
    [200, 182],
    [100, 91],
    [91, 91],
  ])("takes a maximum life of %d days by halving to %d", async (most, life) => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.options({ maxKeyLifeSeconds: most * 86_400 });
    await stage.run("installKey", { key, secretModified: await before(stage) });
    expect(await holds(stage, key.id)).toBe(life);
  });

  test("refuses a life under one period and a day, and writes nothing", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.options({ maxKeyLifeSeconds: 91 * 86_400 - 1 });
    await expect(stage.run("installKey", { key, secretModified: await before(stage) })).rejects.toMatchObject({
      type: "RequestInvalid",
      nonRetryable: true,
      message: expect.stringContaining("lower keyLife, or raise the organisation's maximum") as string,
    });
    expect(await secretWrites(stage)).toEqual([]);
  });

  test("believes what the provider says of the life, not what it was asked for", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const shortLived = { id: key.id, name: "x", created_at: 1, expires_at: Math.floor(Date.now() / 1_000) + 86_400 };
    await stage.fault({
      service: "openai",
      method: "GET",
      path: `/api_keys/${key.id}`,
      mode: "status",
      status: 200,
      body: shortLived,
    });
    await expect(stage.run("installKey", { key, secretModified: await before(stage) })).rejects.toMatchObject({
      type: "KeyRejected",
      nonRetryable: true,
      message: expect.stringMatching(
        /before the next rotation can replace it.*; a key of openai lives a year/,
      ) as string,
    });
    expect(await secretWrites(stage)).toEqual([]);
  });

  test.each(["revoked", "expired"])("never installs a key that was %s meanwhile", async (how) => {
    const stage = await startStage();
    const key = await stage.newKey();
    if (how === "revoked") await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${key.id}`);
    else await stage.expire(key.id);
    await expect(stage.run("installKey", { key, secretModified: await before(stage) })).rejects.toMatchObject({
      nonRetryable: true,
    });
    expect(await secretWrites(stage)).toEqual([]);
  });

  test("installs nothing that it cannot open", async () => {
    const stage = await startStage();
    const key = { ...(await stage.newKey()), sealed: "not.a.sealed.key." };
    await expect(stage.run("installKey", { key, secretModified: await before(stage) })).rejects.toMatchObject({
      type: "SealUnreadable",
    });
    expect(await secretWrites(stage)).toEqual([]);
  });
});

describe("installKey tells whether its write left (no key is kept alive for a write that never was)", () => {
  const details = (sent: boolean) => ({ details: [{ sent }] });
  const order = async (stage: Stage) => ({ key: await stage.newKey(), secretModified: await before(stage) });
  const unreadable = { service: "cloudflare", method: "GET", path: "/secrets", mode: "status", status: 503, times: 1 };

  test("not sent, where the first attempt fails before", async () => {
    const stage = await startStage();
    const asked = await order(stage);
    await stage.fault(unreadable);
    await expect(stage.run("installKey", asked)).rejects.toMatchObject({ type: "Unavailable", ...details(false) });
    await stage.edit(prodGateway, { comment: "mine" });
    await expect(stage.run("installKey", asked)).rejects.toMatchObject({ type: "SlotChanged", ...details(false) });
    expect(await secretWrites(stage)).toHaveLength(1);
  });

  test("not sent, where the secret cannot be found for the write itself", async () => {
    const stage = await startStage();
    const asked = await order(stage);
    // The look takes two requests of the secrets, its list and the secret.
    await stage.fault({ ...unreadable, skip: 2 });
    await expect(stage.run("installKey", asked)).rejects.toMatchObject({ type: "Unavailable", ...details(false) });
    expect(await secretWrites(stage)).toEqual([]);
  });

  test("perhaps sent, where an earlier attempt was made, whatever this one met", async () => {
    const stage = await startStage();
    const asked = await order(stage);
    await stage.fault(unreadable);
    await expect(stage.run("installKey", asked, 2)).rejects.toMatchObject({ type: "Unavailable", ...details(true) });
  });

  test.each(["lost-answer", "lost-request"])("perhaps sent, after a %s of the write", async (mode) => {
    const stage = await startStage();
    const asked = await order(stage);
    await stage.fault({ service: "cloudflare", method: "PATCH", path: "/secrets/", mode, times: 1 });
    await expect(stage.run("installKey", asked)).rejects.toMatchObject({ type: "Unavailable", ...details(true) });
  });

  test.each([
    ["not sent, where it is cancelled before", "openai", "GET", `/api_keys/`, false],
    ["perhaps sent, where it is cancelled in the write", "cloudflare", "PATCH", "/secrets/", true],
  ])("%s", async (_, service, method, path, sent) => {
    const stage = await startStage();
    const asked = await order(stage);
    await stage.fault({ service, method, path, mode: "slow", delayMs: 500, times: 1 });
    let cancel: (() => void) | undefined;
    const installing = stage.run("installKey", asked, 1, {
      onAttempt: (environment) => {
        cancel = () => environment.cancel();
      },
    });
    const ended = installing.then(
      () => ({ done: true }),
      (error: unknown) => error,
    );
    const seen = (await stage.requests()).length;
    await expect.poll(async () => (await stage.requests()).length).toBeGreaterThan(seen);
    await expect.poll(async () => (await stage.requests()).findLast((line) => line.startsWith(method))).toMatch(path);
    cancel?.();
    const end = await ended;
    expect(end).toMatchObject(sent ? {} : { name: "CancelledFailure", ...details(false) });
    expect(await secretWrites(stage)).toHaveLength(sent ? 1 : 0);
  });
});

describe("installKey quotes what it writes over", () => {
  test("a comment that somebody else wrote, and nothing where there was none or one of ours", async () => {
    const stage = await startStage();
    await stage.edit(prodGateway, { comment: "made by ada for the launch" });
    const key = await stage.newKey();
    const order = { key, secretModified: await before(stage) };
    expect((await stage.run("installKey", order)).replacedComment).toBe("made by ada for the launch");
    expect(await stage.run("installKey", { ...order, again: true })).not.toHaveProperty("replacedComment");
    expect(await (await startStage()).installed()).toBeTruthy();
  });
});

describe("installKey of a key that its provider lists as switched off", () => {
  /** The provider's flag, whatever the key answers. */
  const flagged = async (stage: Stage) => {
    const key = await stage.newKey();
    const body = { id: key.id, name: "x", created_at: 1, owner_project_access: "inactive" };
    await stage.fault({
      service: "openai",
      method: "GET",
      path: `/api_keys/${key.id}`,
      mode: "status",
      status: 200,
      body,
    });
    return { key, secretModified: await before(stage) };
  };
  const models = { service: "openai", method: "GET", path: "^/v1/models", mode: "status" };

  test("installs it where the key itself answers, and warns: a proof outweighs a flag", async () => {
    const stage = await startStage();
    const order = await flagged(stage);
    const { warnings } = await stage.run("installKey", order);
    expect(await stage.held(prodGateway)).toBe(order.key.id);
    expect(warnings).toEqual([expect.stringContaining(`openai takes ${order.key.id}, though it shows it so: `)]);
  });

  test("does not install it where the key is refused", async () => {
    const stage = await startStage();
    const order = await flagged(stage);
    const body = { error: { message: "Incorrect API key provided", code: "invalid_api_key" } };
    await stage.fault({ ...models, status: 401, body });
    await expect(stage.run("installKey", order)).rejects.toMatchObject({ type: "KeyRejected", nonRetryable: true });
    expect(await secretWrites(stage)).toEqual([]);
  });

  test("tries again where the key could not be asked", async () => {
    const stage = await startStage();
    const order = await flagged(stage);
    await stage.fault({ ...models, status: 503 });
    await expect(stage.run("installKey", order)).rejects.toMatchObject({ type: "Unavailable", nonRetryable: false });
    expect(await secretWrites(stage)).toEqual([]);
  });
});

describe("awaitPropagation", () => {
  test("says active when Cloudflare does, tries again until the deadline, and then fails", async () => {
    const stage = await startStage({ sandbox: { activationMs: 60_000_000 } });
    await stage.installed();
    await expect(stage.run("awaitPropagation", { until: inFuture(60_000) })).rejects.toMatchObject({
      type: "NotYetPropagated",
      nonRetryable: false,
      message: expect.stringContaining("is pending, not active") as string,
    });
    await expect(stage.run("awaitPropagation", { until: inFuture(-1) })).rejects.toMatchObject({ nonRetryable: true });
  });

  test("passes once it is active", async () => {
    const stage = await startStage({ sandbox: { activationMs: 30_000 } });
    await stage.installed();
    expect(await stage.repeat("awaitPropagation", { until: inFuture(5_000) })).toEqual({ note: "active" });
  });
});

test("no activity's order or answer holds a key's value (promise 4)", async () => {
  const stage = await startStage();
  const { key, secretModified } = await stage.installed();
  const answers = [
    key,
    await stage.run("inspectSlot", {}),
    await stage.run("installKey", { key, secretModified }),
    await stage.run("verifyAtProvider", { key, settleUntil: inFuture(0), rule: once }),
    await stage.run("issueKey", { ordinal: 2, unprovenLife: durationMs(day) }),
  ];
  for (const { id } of await stage.keys()) {
    expect(JSON.stringify(answers)).not.toContain((await stage.valueOf(id)).slice(12));
  }
});
