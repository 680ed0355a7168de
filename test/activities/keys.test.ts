import { setTimeout as pause } from "node:timers/promises";
import { MockActivityEnvironment } from "@temporalio/testing";
import { describe, expect, test } from "vitest";

import type { NewKey } from "../../src/activities/contract.ts";
import { keyActivities } from "../../src/activities/keys.ts";
import { managed } from "../../src/activities/managed.ts";
import type { Identified, KeyRecord } from "../../src/providers/provider.ts";
import { insufficientQuota } from "../../src/sandbox/index.ts";
import {
  durationMs,
  inFuture,
  once,
  prod,
  prodGateway,
  staging,
  stagingGateway,
  type Stage,
  startStage,
} from "../support/activities.ts";

const seeded = ["key_prod_1", "key_stg_1"];
const ours = async (stage: Stage): Promise<string[]> => (await stage.alive()).filter((id) => !seeded.includes(id));
/** Requests that end or switch off a key. */
const ends = async (stage: Stage): Promise<string[]> =>
  (await stage.writes()).filter((line) => line.startsWith("DELETE") && line.includes("/api_keys/"));
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

  test.each(["lost-answer", "half", "malformed"])("names the key that a %s left, and ends nothing", async (mode) => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "POST", path: issueRoute, mode, times: 1 });
    const key = await stage.repeat("issueKey", { ordinal: 1, unprovenLife: hours(2) });
    expect(key.leftBehind).toHaveLength(1);
    expect((await ours(stage)).toSorted()).toEqual([key.id, ...key.leftBehind].toSorted());
    expect(await ends(stage)).toEqual([]);
  });

  test("names none where the first request never arrived", async () => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "POST", path: issueRoute, mode: "lost-request", times: 1 });
    const key = await stage.repeat("issueKey", { ordinal: 1, unprovenLife: hours(2) });
    expect(key.leftBehind).toEqual([]);
    expect(await ours(stage)).toEqual([key.id]);
  });

  test("hands its key over although the list cannot be read: the run looks its ordinals up at its end", async () => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys", mode: "status", status: 503 });
    const key = await stage.run("issueKey", { ordinal: 1, unprovenLife: hours(2) }, 2);
    expect(key.leftBehind).toEqual([]);
    expect(await ours(stage)).toEqual([key.id]);
  });

  test("ends no key that a later attempt made, however late this one is: that key may serve by now", async () => {
    const stage = await startStage();
    // The late attempt's list comes when the key is made and in no slot yet, and what it would end after it is.
    const slow = { service: "openai", mode: "slow", times: 1 };
    await stage.fault({ ...slow, method: "GET", path: "/proj_abc/api_keys\\?", delayMs: 700 });
    await stage.fault({ ...slow, method: "DELETE", path: "/api_keys/", delayMs: 2_000 });
    const order = { ordinal: 1, unprovenLife: hours(2) };
    const late = stage.run("issueKey", order, 1);
    await expect.poll(async () => (await stage.requests()).some((line) => /api_keys/.test(line))).toBe(true);
    const key = await stage.run("issueKey", order, 2);
    await pause(1_000);
    const secretModified = new Date((await stage.secret(prodGateway)).modified).toISOString();
    await stage.run("installKey", { key, secretModified });
    await late;
    expect(await stage.alive()).toContain(key.id);
    expect(await stage.chat()).toBe(200);
    expect(await ends(stage)).toEqual([]);
  });

  test("names by exact name alone: this ordinal, and attempts before its own", async () => {
    const stage = await startStage();
    const short = stage.of.rotationId.slice(0, 8);
    const made = async (name: string) => (await stage.keyByHand(name)).id;
    const own = `kt.acme.production.openai.default.${short}`;
    const before = [await made(`${own}.2-1`), await made(`${own}.2-3`)];
    for (const name of [
      `${own}.2-4`,
      `${own}.2-5`,
      `${own}.1-1`,
      `${own}.22-1`,
      `${own}.2-1.copy`,
      "kt.acme.production.openai.default.ffffffff.2-1",
      `kt.acme.production.openai.batch.${short}.2-1`,
      `kt.acme-2.production.openai.default.${short}.2-1`,
      "made by hand",
    ]) {
      await made(name);
    }
    const alive = await ours(stage);
    const key = await stage.run("issueKey", { ordinal: 2, unprovenLife: hours(2) }, 4);
    expect(key.leftBehind.toSorted()).toEqual(before.toSorted());
    expect((await ours(stage)).toSorted()).toEqual([...alive, key.id].toSorted());
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

describe("acceptKey takes a key that a person made", () => {
  const openedAt = (): string => inFuture(-60_000);
  const refusal = (id: string, heldBy: string[] = []) => ({
    type: "InvalidInput",
    nonRetryable: true,
    details: [{ handedIn: { id, heldBy } }],
  });
  async function handedIn(options: Parameters<typeof startStage>[0] = {}) {
    const stage = await startStage(options);
    const { id, value } = await stage.keyByHand("by ada");
    const { sealed, fingerprint } = await stage.asNewKey({ id, value });
    const accept = (order: { keyId?: string; openedAt?: string } = {}) =>
      stage.run("acceptKey", { sealed, openedAt: openedAt(), ...order });
    return { stage, id, value, sealed, fingerprint, accept };
  }

  test("and says which it is; only reads", async () => {
    const { stage, id, sealed, fingerprint, accept } = await handedIn();
    const writes = await stage.writes();
    expect(await accept()).toEqual({ id, fingerprint, sealed });
    expect(await accept({ keyId: id })).toEqual({ id, fingerprint, sealed });
    expect(await stage.writes()).toEqual(writes);
  });

  test.each([
    ["refuses it", 401, { error: { message: "Incorrect API key provided", code: "invalid_api_key" } }],
    ["does not let it list models", 403, { error: { message: "no" } }],
    ["is away", 503, {}],
  ])("also while its provider %s: verifyAtProvider tries it for its budget", async (_, status, body) => {
    const { stage, id, accept } = await handedIn();
    await stage.fault({ service: "openai", method: "GET", path: "^/v1/models", mode: "status", status, body });
    expect((await accept()).id).toBe(id);
  });

  test("but none that a slot holds, and says who holds it", async () => {
    const { stage, id, value, accept } = await handedIn();
    await stage.edit(stagingGateway, { value });
    await expect(accept()).rejects.toMatchObject({
      ...refusal(id, [staging]),
      message: expect.stringContaining(`${staging} holds it already`) as string,
    });
  });

  test("but none that is older than the request for it", async () => {
    const { id, accept } = await handedIn();
    await expect(accept({ openedAt: inFuture(3_600_000) })).rejects.toMatchObject(refusal(id));
  });

  test("but none that another rotation could not replace in time", async () => {
    const { stage, id, accept } = await handedIn();
    const path = `/organization/projects/proj_abc/api_keys/${id}`;
    await stage.openai("POST", path, { expires_in_seconds: 86_400 });
    await expect(accept()).rejects.toMatchObject({
      ...refusal(id),
      message: expect.stringContaining("and a key must live") as string,
    });
  });

  test("but none that is another than the person says, and owns the one it is", async () => {
    const { id, accept } = await handedIn();
    await expect(accept({ keyId: "key_other" })).rejects.toMatchObject(refusal(id));
  });

  test("but none that its provider does not show, owned by the id that the person says, where one is said", async () => {
    const stage = await startStage();
    const { sealed } = await stage.asNewKey({ id: "", value: "sk-svcacct-madeUpMadeUpMadeUpMadeUp" });
    const accept = (more: object) => stage.run("acceptKey", { sealed, openedAt: openedAt(), ...more });
    await expect(accept({ keyId: "key_said" })).rejects.toMatchObject(refusal("key_said"));
    const refused = await accept({}).catch((error: unknown) => error);
    expect(refused).toMatchObject({ type: "InvalidInput" });
    expect((refused as { details?: unknown[] }).details ?? []).toEqual([]);
  });

  test("named after its fingerprint where it cannot be looked up: it may be alive", async () => {
    const { stage, fingerprint, accept } = await handedIn();
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys", mode: "status", status: 401 });
    await expect(accept()).rejects.toMatchObject(refusal(`by-hand-${fingerprint}`));
  });

  test("also one that is flagged as switched off, where it answers: a proof outweighs a flag", async () => {
    const { stage, id, sealed } = await handedIn();
    const access = stage.dependencies.slotAccess(prod);
    const off = async (createdAt: Date) => {
      const key: KeyRecord = { id, name: "by ada", state: "disabled", createdAt };
      const refused: Identified = { kind: "refused", fault: "dead", message: "it is switched off", key };
      const provider = { ...managed(access), identifyKey: () => Promise.resolve(refused) };
      const { acceptKey } = keyActivities({ ...stage.dependencies, slotAccess: () => ({ ...access, provider }) });
      const order = { ...stage.of, sealed, openedAt: openedAt() };
      return (await new MockActivityEnvironment().run(acceptKey, order)) as NewKey;
    };
    expect((await off(new Date())).id).toBe(id);
    await expect(off(new Date(0))).rejects.toMatchObject({ type: "InvalidInput" });
    const body = { error: { message: "Incorrect API key provided", code: "invalid_api_key" } };
    await stage.fault({ service: "openai", method: "GET", path: "^/v1/models", mode: "status", status: 401, body });
    await expect(off(new Date())).rejects.toMatchObject({ type: "InvalidInput" });
  });

  test("by hand under the id that the person says, else under one made of its fingerprint", async () => {
    const { accept, id, fingerprint } = await handedIn({ env: { OPENAI_ADMIN_KEY: undefined } });
    expect((await accept({ keyId: id })).id).toBe(id);
    expect((await accept()).id).toBe(`by-hand-${fingerprint}`);
  });

  test("by hand but none that a slot shows or marks", async () => {
    const { stage, value, fingerprint, accept } = await handedIn({ env: { OPENAI_ADMIN_KEY: undefined } });
    const id = `by-hand-${fingerprint}`;
    await stage.edit(stagingGateway, { value });
    await expect(accept()).rejects.toMatchObject(refusal(id, [staging]));
    const at = new Date().toISOString();
    await stage.edit(stagingGateway, { value, comment: `keyturn/1 key=key_9 rot=other fp=${fingerprint} at=${at}` });
    await expect(accept()).rejects.toMatchObject(refusal(id, [staging]));
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
