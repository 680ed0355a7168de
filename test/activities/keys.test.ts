import { describe, expect, test } from "vitest";

import { parseMark } from "../../src/domain/mark.ts";
import { insufficientQuota } from "../../src/sandbox/index.ts";
import {
  durationMs,
  inFuture,
  once,
  prodGateway,
  stagingGateway,
  type Stage,
  startStage,
} from "../support/activities.ts";

const seeded = ["key_prod_1", "key_stg_1"];
const ours = async (stage: Stage): Promise<string[]> => (await stage.alive()).filter((id) => !seeded.includes(id));
const issueRoute = "/service_accounts/[^/]+/api_keys";
const hours = (count: number) => durationMs(count * 3_600_000);

describe("issueKey (promises 4 and 6: no value in the clear, no orphans)", () => {
  test("makes a key that bears its maker, slot, rotation and attempt, lives shortly, and returns it sealed", async () => {
    const stage = await startStage();
    const key = await stage.run("issueKey", { ordinal: 1, unprovenLife: hours(2) });
    const [made] = (await stage.keys()).filter(({ id }) => id === key.id);
    const short = stage.of.rotationId.slice(0, 8);
    expect(made?.name).toBe(`kt.acme.production.openai.default.${short}.1-1`);
    const lifeMs = Date.parse(made?.expiresAt ?? "") - Date.now();
    expect(lifeMs).toBeGreaterThan(2 * 3_600_000 - 10_000);
    expect(lifeMs).toBeLessThanOrEqual(2 * 3_600_000);
    const value = await stage.valueOf(key.id);
    expect(JSON.stringify(key)).not.toContain(value.slice(-20));
    expect((await stage.dependencies.open(key.sealed, stage.of)).reveal()).toBe(value);
    expect((await stage.dependencies.open(key.sealed, stage.of)).fingerprint()).toBe(key.fingerprint);
  });

  test.each(["lost-answer", "half", "malformed", "lost-request"])("leaves one live key after a %s", async (mode) => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "POST", path: issueRoute, mode, times: 1 });
    const key = await stage.repeat("issueKey", { ordinal: 1, unprovenLife: hours(2) });
    expect(await ours(stage)).toEqual([key.id]);
  });

  test("leaves one live key when the step is run again after its success was lost", async () => {
    const stage = await startStage();
    const first = await stage.newKey();
    const second = await stage.newKey();
    expect(second.id).not.toBe(first.id);
    expect(await ours(stage)).toEqual([second.id]);
  });

  test("leaves a key that no list shows yet to the sweep of the leftovers, and to the end of its life", async () => {
    const stage = await startStage({ sandbox: { listLagMs: 30_000 } });
    await stage.fault({ service: "openai", method: "POST", path: issueRoute, mode: "lost-answer", times: 1 });
    const key = await stage.repeat("issueKey", { ordinal: 1, unprovenLife: hours(2) });
    expect((await ours(stage)).length).toBe(2);
    await expect
      .poll(async () => {
        await stage.run("issueKey", { ordinal: 2, unprovenLife: hours(2) });
        return (await ours(stage)).includes(key.id);
      })
      .toBe(false);
    for (const made of await stage.keys()) {
      if (!seeded.includes(made.id)) expect(made.expiresAt).not.toBeNull();
    }
  });

  test("never revokes the key that the slot holds, although this rotation made it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.run("issueKey", { ordinal: 2, unprovenLife: hours(2) });
    expect(await stage.alive()).toContain(key.id);
  });

  test("never touches keys of another rotation, slot or installation", async () => {
    const stage = await startStage();
    const short = stage.of.rotationId.slice(0, 8);
    const names = [
      "kt.acme.production.openai.default.ffffffff.1-1",
      `kt.acme.production.openai.batch.${short}.1-1`,
      `kt.acme-2.production.openai.default.${short}.1-1`,
      "made by hand",
    ];
    const others: string[] = [];
    for (const name of names) others.push((await stage.keyByHand(name)).id);
    const key = await stage.newKey();
    expect((await ours(stage)).toSorted()).toEqual([...others, key.id].toSorted());
  });

  test("fails for good when no more keys are allowed, or the credential may not make them", async () => {
    const stage = await startStage();
    const body = {
      error: { message: "You have reached the maximum number of API keys", type: "invalid_request_error" },
    };
    await stage.fault({
      service: "openai",
      method: "POST",
      path: issueRoute,
      mode: "status",
      status: 400,
      body,
      times: 1,
    });
    await expect(stage.newKey()).rejects.toMatchObject({
      type: "KeyLimitReached",
      nonRetryable: true,
      message: expect.stringContaining("the limit of the project and the organisation") as string,
    });
    const readOnly = await startStage();
    const poor = await startStage({ env: { OPENAI_ADMIN_KEY: readOnly.seed["openaiReadOnlyAdminKey"] } });
    await expect(poor.newKey()).rejects.toMatchObject({ type: "AdminCredentialRejected", nonRetryable: true });
  });
});

describe("verifyAtProvider (promise 2: proof before revocation)", () => {
  const verify = async (stage: Stage, settleMs: number) =>
    stage.run("verifyAtProvider", { key: await stage.newKey(), settleUntil: inFuture(settleMs), rule: once });

  test("passes a key that its provider accepts, and writes nothing", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const before = await stage.writes();
    const order = { key, settleUntil: inFuture(0), rule: once };
    expect(await stage.run("verifyAtProvider", order)).toEqual({ probes: 0, warnings: [] });
    expect(await stage.run("verifyAtProvider", order)).toEqual({ probes: 0, warnings: [] });
    expect(await stage.writes()).toEqual(before);
  });

  test("tries a refused key again while the provider may still be settling, and then no more", async () => {
    const body = { error: { message: "Incorrect API key provided", code: "invalid_api_key" } };
    const refusal = { service: "openai", method: "GET", path: "^/v1/models", mode: "status", status: 401, body };
    const stage = await startStage();
    await stage.fault(refusal);
    await expect(verify(stage, 60_000)).rejects.toMatchObject({ type: "KeyRejected", nonRetryable: false });
    await expect(verify(stage, -1)).rejects.toMatchObject({ type: "KeyRejected", nonRetryable: true });
  });

  test("waits out a provider that settles", async () => {
    const stage = await startStage({ sandbox: { settleMs: 60_000 } });
    const key = await stage.newKey();
    await expect(
      stage.repeat("verifyAtProvider", { key, settleUntil: inFuture(5_000), rule: once }),
    ).resolves.toBeTruthy();
  });

  test("does not believe a provider that is still settling and takes its new key now and then (promise 1)", async () => {
    // Each request is taken or refused by chance for 400 ms.
    const stage = await startStage({ sandbox: { settleMs: 240_000 } });
    const key = await stage.newKey();
    const issued = Date.now();
    const rule = { answers: 10, span: durationMs(150) };
    await stage.repeat("verifyAtProvider", { key, settleUntil: inFuture(5_000), rule });
    expect(Date.now() - issued).toBeGreaterThanOrEqual(400);
  });

  test("passes a key without the right to list models, and says so", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.openai("POST", `/organization/projects/proj_abc/api_keys/${key.id}`, { scopes: ["api.model.request"] });
    const { warnings } = await stage.run("verifyAtProvider", { key, settleUntil: inFuture(0), rule: once });
    expect(warnings).toEqual([`openai accepts ${key.id}, but: works, not allowed`]);
  });

  test("passes a key without money, and says where its quota lives", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.fault({ service: "openai", path: "/models", mode: "status", status: 429, body: insufficientQuota });
    const { warnings } = await stage.run("verifyAtProvider", { key, settleUntil: inFuture(0), rule: once });
    expect(warnings).toEqual([
      `openai accepts ${key.id}, but: works, no quota: look at the limits of the project and the organisation`,
    ]);
  });

  test.each([
    [429, "RateLimited"],
    [503, "Unavailable"],
  ])("takes a %d for no refusal of the key", async (status, type) => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "GET", path: "^/v1/models", mode: "status", status, retryAfter: 3 });
    await expect(verify(stage, -1)).rejects.toMatchObject({ type, nonRetryable: false, nextRetryDelay: 3_000 });
  });

  test("warns of a shape it has not seen, and judges by the answer alone", async () => {
    const stage = await startStage();
    const key = await stage.asNewKey({ id: "key_odd", value: "MadeUp-odd" });
    await expect(stage.run("verifyAtProvider", { key, settleUntil: inFuture(-1), rule: once })).rejects.toMatchObject({
      type: "KeyRejected",
      message: expect.not.stringContaining("MadeUp") as string,
    });
  });

  test("does not open a key that was sealed for another rotation", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const other = { key, settleUntil: inFuture(0), rule: once, rotationId: "another" };
    await expect(stage.run("verifyAtProvider", other)).rejects.toMatchObject({
      type: "SealUnreadable",
      nonRetryable: true,
    });
  });
});

describe("revokeLeftoverKeys (promise 6)", () => {
  test("revokes what this rotation made and no slot holds, once", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    expect(await stage.run("revokeLeftoverKeys", {})).toEqual([key.id]);
    expect(await stage.run("revokeLeftoverKeys", {})).toEqual([]);
    expect(await stage.alive()).toEqual(seeded);
  });

  test("spares a key that any slot holds", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.edit(stagingGateway, { value: await stage.valueOf(key.id) });
    expect(await stage.run("revokeLeftoverKeys", {})).toEqual([]);
  });

  test("goes on after a lost answer", async () => {
    const stage = await startStage();
    await stage.newKey();
    await stage.fault({ service: "openai", method: "DELETE", path: "/api_keys/", mode: "lost-answer", times: 1 });
    await stage.repeat("revokeLeftoverKeys", {});
    expect(await stage.alive()).toEqual(seeded);
  });
});

describe("revokeKey (promise 3: never the key that a slot holds)", () => {
  const revoke = (stage: Stage, keyId: string, installedKeyId: string) =>
    stage.run("revokeKey", { keyId, installedKeyId });
  const changed = { type: "SlotChanged", nonRetryable: true };

  test("revokes the old key once the slot holds the new one; again is success", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    expect(await revoke(stage, "key_prod_1", key.id)).toMatchObject({ note: "key_prod_1 revoked" });
    expect(await revoke(stage, "key_prod_1", key.id)).toMatchObject({ note: "key_prod_1 revoked" });
    expect((await stage.alive()).toSorted()).toEqual([key.id, "key_stg_1"].toSorted());
  });

  test.each(["lost-answer", "lost-request", "half"])("ends at the same after a %s", async (mode) => {
    const stage = await startStage({ sandbox: { listLagMs: 30_000 } });
    const { key } = await stage.installed();
    await stage.fault({ service: "openai", method: "DELETE", path: "/api_keys/", mode, times: 1 });
    await stage.repeat("revokeKey", { keyId: "key_prod_1", installedKeyId: key.id });
    expect(await stage.alive()).not.toContain("key_prod_1");
  });

  test("never revokes the key the slot holds, whoever asks for it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await expect(revoke(stage, key.id, key.id)).rejects.toMatchObject(changed);
    expect(await stage.alive()).toContain(key.id);
  });

  test("revokes nothing before the new key is installed", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await expect(revoke(stage, "key_prod_1", key.id)).rejects.toMatchObject(changed);
    expect(await stage.alive()).toContain("key_prod_1");
  });

  test("revokes nothing after somebody put the old key back, with or without the mark", async () => {
    for (const comment of [undefined, "by hand"]) {
      const stage = await startStage();
      const { key } = await stage.installed();
      const value = await stage.valueOf("key_prod_1");
      await stage.edit(prodGateway, { value, ...(comment === undefined ? {} : { comment }) });
      await expect(revoke(stage, "key_prod_1", key.id)).rejects.toMatchObject(changed);
      expect(await stage.alive()).toContain("key_prod_1");
    }
  });

  test("revokes nothing after somebody put a third key into the slot: they may want the old one back", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.edit(prodGateway, { value: (await stage.keyByHand("by hand")).value });
    await expect(revoke(stage, "key_prod_1", key.id)).rejects.toMatchObject(changed);
    expect(await stage.alive()).toEqual(expect.arrayContaining(["key_prod_1", key.id]));
  });

  const batch = { "production/openai:batch": { openai: { project: "proj_abc", serviceAccount: "svc_acct_9" } } };

  test("revokes no key that another slot holds by its preview", async () => {
    const stage = await startStage({ slots: batch });
    const { key } = await stage.installed();
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    await expect(revoke(stage, "key_prod_1", key.id)).rejects.toMatchObject({
      ...changed,
      message: "production/openai:batch holds key_prod_1: it is not revoked; rotate production/openai:batch first",
    });
    expect(await stage.alive()).toContain("key_prod_1");
  });

  test("revokes no key that another slot holds by its mark, though its preview shows nothing of it", async () => {
    const stage = await startStage({ slots: batch, sandbox: { patchRefreshesPreview: false } });
    const { key } = await stage.installed();
    const at = new Date().toISOString();
    const comment = `keyturn/1 key=key_prod_1 rot=other fp=0123456789abcdef at=${at}`;
    expect(parseMark(comment)).toBeDefined();
    await stage.edit(stagingGateway, { value: await stage.valueOf("key_prod_1"), comment });
    await expect(revoke(stage, "key_prod_1", key.id)).rejects.toMatchObject(changed);
  });

  test("revokes no key that somebody put into another slot minutes after that slot's own rotation", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const at = new Date(Date.now() - 60_000).toISOString();
    const comment = `keyturn/1 key=key_stg_1 rot=other fp=0123456789abcdef at=${at}`;
    await stage.edit(stagingGateway, { value: await stage.valueOf("key_prod_1"), comment });
    await expect(revoke(stage, "key_prod_1", key.id)).rejects.toMatchObject(changed);
  });

  test("revokes no key that a disbelieved mark still names, while nothing shows another one", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const { key } = await stage.installed();
    const value = await stage.valueOf("key_prod_1");
    const comment = "keyturn/1 key=key_prod_1 rot=other fp=0123456789abcdef at=2026-01-01T00:00:00.000Z";
    await stage.edit(stagingGateway, { value, comment });
    await expect(revoke(stage, "key_prod_1", key.id)).rejects.toMatchObject(changed);
  });

  test("revokes the old key although the gateway's preview still shows it", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const { key } = await stage.installed();
    await revoke(stage, "key_prod_1", key.id);
    expect(await stage.alive()).not.toContain("key_prod_1");
  });
});
