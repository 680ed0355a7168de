import { setTimeout as pause } from "node:timers/promises";
import { MockActivityEnvironment } from "@temporalio/testing";
import { describe, expect, test } from "vitest";

import { failureInterceptor } from "../../src/activities/failures.ts";
import { type HeldBy, requireInstalled, whoHolds } from "../../src/activities/held-key.ts";
import { formatMark } from "../../src/domain/mark.ts";
import { Redacted } from "../../src/redacted.ts";
import {
  prod,
  prodGateway,
  type Stage,
  staging,
  stagingGateway,
  startStage,
  type StageOptions,
} from "../support/activities.ts";

/** Who holds a key is asked at the moment of the act, has three answers, and one stale answer is never final. */

const batch = "production/openai:batch";
const sameAccount = { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } };
const withBatch: StageOptions = { slots: { [batch]: sameAccount } };

/** What an activity would do, as one attempt of one. */
async function attempt<T>(work: () => Promise<T>, number = 1): Promise<T> {
  const environment = new MockActivityEnvironment(
    { attempt: number },
    { interceptors: [() => ({ inbound: failureInterceptor() })] },
  );
  return environment.run(work);
}

async function holdersOf(stage: Stage, keyId: string): Promise<HeldBy> {
  const [holders] = await stage.run("lookAtHolders", { keyIds: [keyId] });
  return { yes: holders?.yes ?? [], unknown: holders?.unknown ?? [] };
}

/** An answer of Cloudflare's, once: what lists miss and reads find late. */
const once = (path: string, body: unknown, more: Record<string, unknown> = {}) => ({
  service: "cloudflare",
  method: "GET",
  path,
  mode: "status",
  status: 200,
  times: 1,
  body,
  ...more,
});
const emptyList = { success: true, errors: [], messages: [], result: [] };
const notFound = {
  success: false,
  errors: [{ code: 1001, message: "secret_not_found" }],
  messages: [],
  result: null,
};
const markOf = (keyId: string): string =>
  formatMark({ keyId, rotationId: "r", fingerprint: new Redacted(keyId).fingerprint(), at: new Date() });
const gone = (times: number) => once("/secrets/[^/?]+$", notFound, { status: 404, times });

/** A secret of the right name and no provider config: what a script leaves that knows nothing of configs. */
async function secretAlone(stage: Stage, alias: string, value: string): Promise<void> {
  await stage.cloudflare("POST", `/secrets_store/stores/${stage.seed["storeId"]}/secrets`, [
    { name: `${prodGateway}_openai_${alias}`, value, scopes: ["ai_gateway"], comment: "by a script" },
  ]);
}

describe("lookAtHolders", () => {
  test("names each slot that holds a key, by mark and by preview, and none for a key that nobody holds", async () => {
    const stage = await startStage(withBatch);
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    const { key } = await stage.installed();
    const answers = await stage.run("lookAtHolders", { keyIds: ["key_prod_1", key.id, "key_stg_1"] });
    expect(answers).toMatchObject([
      { keyId: "key_prod_1", yes: [batch], unknown: [] },
      { keyId: key.id, yes: [prod], unknown: [] },
      { keyId: "key_stg_1", yes: [staging], unknown: [] },
    ]);
    expect(await stage.writes()).not.toContainEqual(expect.stringContaining("DELETE"));
  });

  test("names a slot whose edges may still send what it held before its last write, and until when", async () => {
    const stage = await startStage({
      ...withBatch,
      policy: { propagationWait: "30s", cacheInvalidationWait: "10m" },
    });
    const { key } = await stage.installed();
    await pause(1_100); // by Cloudflare's clock, in whole seconds
    const young = await stage.keyByHand("younger than the write");
    const answers = await stage.run("lookAtHolders", { keyIds: ["key_prod_1", key.id, young.id] });
    const [old, held, made] = answers;
    expect(old?.left).toContainEqual({ slot: prod, until: expect.any(String) as string });
    const until = Date.parse(old?.left?.find(({ slot }) => slot === prod)?.until ?? "");
    expect(Math.abs(until - Date.now() - 630_000)).toBeLessThan(10_000);
    // What it holds it did not leave, and what was made later it never had.
    expect(held?.left ?? []).not.toContainEqual(expect.objectContaining({ slot: prod }));
    expect(made?.left ?? []).not.toContainEqual(expect.objectContaining({ slot: prod }));
  });

  test("counts a slot that may work without a provider config as one of which it cannot be told", async () => {
    const stage = await startStage({ ...withBatch, sandbox: { configNeeded: false } });
    await secretAlone(stage, "batch", await stage.valueOf("key_prod_1"));
    expect(await stage.chat(prodGateway, "batch")).toBe(200);
    const { yes, unknown } = await holdersOf(stage, "key_prod_1");
    expect(yes).toEqual([prod]);
    expect(unknown).toEqual([{ slot: batch, why: expect.stringContaining("no provider config") as string }]);
  });

  test.each([
    ["the list of secrets is empty", "/secrets\\?"],
    ["the list of provider configs is empty", "/provider_configs"],
  ])("says no of no slot because %s once", async (_, path) => {
    const stage = await startStage(withBatch);
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    await stage.fault(once(path, emptyList));
    const { yes, unknown } = await holdersOf(stage, "key_prod_1");
    expect([...yes, ...unknown.map(({ slot }) => slot)].toSorted()).toEqual([prod, batch]);
  });

  test("says no of no slot because of any single answer that is late or misses what is there", async () => {
    const stage = await startStage(withBatch);
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    const before = (await stage.requests()).length;
    await holdersOf(stage, "key_prod_1");
    const reads = (await stage.requests()).slice(before).filter((line) => line.includes("/accounts/"));
    const kinds = [once("/secrets\\?", emptyList), once("/provider_configs", emptyList), gone(1)];
    let lies = 0;
    for (const kind of kinds) {
      const count = reads.filter((line) => new RegExp(kind.path).test(line)).length;
      expect(count).toBeGreaterThan(0);
      for (let skip = 0; skip < count; skip++) {
        await stage.fault({ ...kind, skip });
        const { yes, unknown } = await holdersOf(stage, "key_prod_1");
        expect([...yes, ...unknown.map(({ slot }) => slot)]).toEqual(expect.arrayContaining([prod, batch]));
        await fetch(`${stage.control}/faults`, { method: "DELETE" });
        lies += 1;
      }
    }
    expect(lies).toBeGreaterThanOrEqual(5);
  }, 60_000);

  test("says no of no slot because its secret is not found by id once", async () => {
    const stage = await startStage();
    await stage.fault(gone(2));
    expect(await holdersOf(stage, "key_prod_1")).toEqual({ yes: [prod], unknown: [] });
  });

  /** What the sandbox is to lie about. */
  const lie = (stage: Stage, told: Record<string, unknown>[]) =>
    fetch(`${stage.control}/lies`, { method: "POST", body: JSON.stringify(told) });

  test("says no of no slot because neither its secret nor its config is listed for a moment", async () => {
    const stage = await startStage(withBatch);
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    await lie(stage, [
      { about: "secrets", mode: "missing", which: "_openai_batch$", times: 2 },
      { about: "provider-configs", mode: "missing", which: "batch", times: 2 },
    ]);
    expect((await holdersOf(stage, "key_prod_1")).yes.toSorted()).toEqual([prod, batch]);
  });

  test("says no of no slot because one read of its secret is stale", async () => {
    const stage = await startStage({ ...withBatch, sandbox: { patchRefreshesPreview: false } });
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    const { id } = await stage.secret(prodGateway, "batch");
    const mark = async (keyId: string): Promise<void> => {
      const path = `/secrets_store/stores/${stage.seed["storeId"]}/secrets/${id}`;
      await stage.cloudflare("PATCH", path, { comment: markOf(keyId) });
    };
    await mark("key_former");
    await pause(1_000);
    const { id: byHand } = await stage.keyByHand("by hand");
    await mark(byHand);
    await lie(stage, [{ about: "secrets", mode: "stale", which: "_openai_batch$", times: 1, agoMs: 900 }]);
    expect(await holdersOf(stage, byHand)).toMatchObject({ yes: [batch] });
  });

  test("says yes of no slot because one read of its secret is stale, though the list of the same second cannot tell", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const { value } = await stage.keyByHand("by hand");
    // Both writes in one second, so that their times do not tell which is the later.
    await pause(1_000 - (Date.now() % 1_000) + 50);
    await stage.edit(prodGateway, { value: await stage.valueOf("key_prod_1"), comment: markOf("key_prod_1") });
    await pause(400);
    await stage.edit(prodGateway, { value, comment: "by alice" });
    await pause(50);
    await lie(stage, [{ about: "secrets", mode: "stale", times: 1, agoMs: 250 }]);
    const { yes, unknown } = await holdersOf(stage, "key_prod_1");
    expect(yes).toEqual([]);
    expect(unknown.map(({ slot }) => slot)).toEqual([prod]);
  });

  test("says yes of no slot because one read of its secret is older than the list", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const { value } = await stage.keyByHand("by hand");
    await pause(1_100);
    await stage.edit(prodGateway, { value, comment: "by alice" });
    for (const skip of [0, 1]) {
      await lie(stage, [{ about: "secrets", mode: "stale", times: 1, agoMs: 1_050, skip }]);
      const { yes, unknown } = await holdersOf(stage, "key_prod_1");
      expect(yes).toEqual([]);
      expect(unknown.map(({ slot }) => slot)).toEqual([prod]);
    }
  });

  test("reads the slot itself by its id, whatever lists still show", async () => {
    const stage = await startStage();
    await stage.edit(prodGateway, { comment: markOf("key_former") });
    const { id } = await stage.keyByHand("by hand");
    const { id: secretId } = await stage.secret(prodGateway);
    await pause(20);
    // So late that the former mark is all that lists show.
    await stage.options({ listLagMs: 600 * 1_000 });
    await pause(1_000);
    const path = `/secrets_store/stores/${stage.seed["storeId"]}/secrets/${secretId}`;
    await stage.cloudflare("PATCH", path, { comment: markOf(id) });
    expect((await holdersOf(stage, id)).yes).toEqual([prod]);
  });

  test("says that a slot which nobody made holds nothing", async () => {
    const stage = await startStage(withBatch);
    expect(await holdersOf(stage, "key_prod_1")).toEqual({ yes: [prod], unknown: [] });
  });

  test("names a slot that cannot be read, after a few attempts, and does not fail for it", async () => {
    const stage = await startStage();
    const away = { service: "cloudflare", method: "GET", path: "/secrets_store/", mode: "status", status: 500 };
    await stage.fault(away);
    await expect(stage.run("lookAtHolders", { keyIds: ["key_prod_1"] })).rejects.toMatchObject({ type: "Unavailable" });
    const [holders] = await stage.run("lookAtHolders", { keyIds: ["key_prod_1"] }, 3);
    expect(holders?.unknown.map(({ slot }) => slot)).toEqual([prod, staging]);
  });

  test("rules a slot out by a list only where the list shows a mark that is believed", async () => {
    const stage = await startStage();
    const { id, value } = await stage.keyByHand("by hand");
    await stage.edit(stagingGateway, { value, comment: "pasted by hand" });
    const before = (await stage.requests()).length;
    expect(await holdersOf(stage, id)).toEqual({ yes: [staging], unknown: [] });
    const { id: secretId } = await stage.secret(stagingGateway);
    expect((await stage.requests()).slice(before)).toContainEqual(expect.stringContaining(`/secrets/${secretId}`));
  });

  test("cannot tell of a neighbour whose preview is from before its last write, unless its value is older than the key", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    await stage.edit(stagingGateway, { value: await stage.valueOf("key_stg_1"), comment: "pasted by hand" });
    const { unknown } = await holdersOf(stage, "key_prod_1");
    expect(unknown.map(({ slot }) => slot)).toEqual([staging]);
    const access = stage.dependencies.slotAccess(prod);
    const young = { id: "key_of_tomorrow", createdAt: new Date(Date.now() + 86_400_000) };
    const held = await attempt(() => whoHolds(stage.dependencies, access, [young]));
    expect(held.get("key_of_tomorrow")).toEqual({ yes: [], unknown: [] });
  });

  test("does not take a mark by hand in another slot for any key, where the value's fingerprint is known", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const mark = {
      keyId: "by-hand-0123456789abcdef",
      rotationId: "r",
      fingerprint: "0123456789abcdef",
      at: new Date(),
    };
    await stage.edit(stagingGateway, { value: await stage.valueOf("key_stg_1"), comment: formatMark(mark) });
    const access = stage.dependencies.slotAccess(prod);
    const known = { id: "key_x", fingerprint: "fedcba9876543210" };
    const held = await attempt(() => whoHolds(stage.dependencies, access, [known, { id: "key_y" }]));
    expect(held.get("key_x")?.unknown.map(({ slot }) => slot)).not.toContain(staging);
    expect(held.get("key_y")?.unknown.map(({ slot }) => slot)).toContain(staging);
  });

  test("finds a row that fell between two pages of a list while another was deleted", async () => {
    const stage = await startStage({ ...withBatch, sandbox: { secretQuota: 300 } });
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    const { result } = (await stage.cloudflare(
      "GET",
      `/secrets_store/stores/${stage.seed["storeId"]}/secrets?per_page=100`,
    )) as { result: Record<string, unknown>[] };
    // One page whose row of the slot slipped to the page before, which was read already.
    const without = result.filter(({ name }) => name !== `${prodGateway}_openai_batch`);
    await stage.fault(once("/secrets\\?", { ...emptyList, result: without }));
    expect((await holdersOf(stage, "key_prod_1")).yes.toSorted()).toEqual([prod, batch]);
  });
});

describe("requireInstalled", () => {
  const look = (stage: Stage, keyId: string) => {
    const access = stage.dependencies.slotAccess(prod);
    return attempt(() => requireInstalled(access, stage.of, keyId));
  };

  test("goes on where one read does not find the secret", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.fault(gone(1));
    await expect(look(stage, key.id)).resolves.toMatchObject({ comment: expect.stringContaining(key.id) as string });
  });

  test("goes on where a list misses the secret, or the provider config, once", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    for (const path of ["/secrets\\?", "/provider_configs"]) {
      await stage.fault(once(path, emptyList));
      await expect(look(stage, key.id)).resolves.toBeDefined();
    }
  });

  test("fails with SlotChanged where two looks some seconds apart agree, and not before", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.edit(prodGateway, { comment: "pasted by hand" });
    const begun = performance.now();
    await expect(look(stage, key.id)).rejects.toMatchObject({ type: "SlotChanged" });
    expect(performance.now() - begun).toBeGreaterThanOrEqual(stage.dependencies.slotAccess(prod).secondLookMs - 50);
  });
});

describe("a key is not ended", () => {
  const look = async (stage: Stage): Promise<unknown> => {
    const { key } = await stage.installed();
    return stage.repeat("lookBeforeRevoking", { keyId: "key_prod_1", installedKeyId: key.id });
  };

  test.each([
    ["one list of secrets misses", "/secrets\\?", 1],
    ["no list of provider configs shows", "/provider_configs", 99],
  ])("because %s the slot that holds it as well", async (_, path, times) => {
    const stage = await startStage(withBatch);
    await stage.serve(prodGateway, "batch", await stage.valueOf("key_prod_1"));
    const { key } = await stage.installed();
    // The first list of the attempt is the slot's own look.
    await stage.fault(once(path, emptyList, { skip: 1, times }));
    await expect(
      stage.run("lookBeforeRevoking", { keyId: "key_prod_1", installedKeyId: key.id }),
    ).rejects.toMatchObject({ message: expect.stringContaining(batch) as string });
  });

  test("under a slot that works without a provider config", async () => {
    const stage = await startStage({ ...withBatch, sandbox: { configNeeded: false } });
    await secretAlone(stage, "batch", await stage.valueOf("key_prod_1"));
    expect(await stage.chat(prodGateway, "batch")).toBe(200);
    const { key } = await stage.installed();
    await expect(
      stage.run("lookBeforeRevoking", { keyId: "key_prod_1", installedKeyId: key.id }),
    ).rejects.toMatchObject({ message: expect.stringContaining(batch) as string });
  });

  test("and is ended where one read of the slot was stale", async () => {
    const stage = await startStage();
    await stage.installed();
    await stage.fault(gone(1));
    const { key } = { key: { id: (await stage.held(prodGateway)) ?? "" } };
    await expect(
      stage.run("lookBeforeRevoking", { keyId: "key_prod_1", installedKeyId: key.id }),
    ).resolves.toBeUndefined();
  });

  test("where nothing is wrong it is", async () => {
    await expect(look(await startStage())).resolves.toBeUndefined();
  });
});

describe("which key a slot holds is not taken", () => {
  const later = { rotationId: "0badcafe-1234-4234-8234-123456789012" };

  test("from a preview that is older than its value: the old value was put back", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await pause(5);
    await stage.run("restoreOldValue", { installedKeyId: key.id });
    expect(await stage.held(prodGateway)).toBe("key_prod_1");
    await expect(stage.run("inspectSlot", later)).rejects.toMatchObject({
      type: "InvalidInput",
      message: expect.stringMatching(/no preview of its present value; start with --held-key/) as string,
    });
    expect((await holdersOf(stage, key.id)).yes).toEqual([]);
  });

  test("but from the mark, where the old key was known when its value was put back", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.run("restoreOldValue", { installedKeyId: key.id, oldKeyId: "key_prod_1" });
    expect((await stage.run("inspectSlot", later)).held).toMatchObject({ id: "key_prod_1", how: "mark" });
    expect(await holdersOf(stage, "key_prod_1")).toEqual({ yes: [prod], unknown: [] });
  });

  test("from a mark after an edit that came later: what was edited is said, and its key is offered first", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const at = new Date(Date.now() - 3_600_000);
    const mark = { keyId: "key_prod_1", rotationId: "r", fingerprint: "0123456789abcdef", at };
    await stage.keyByHand("another");
    await stage.edit(prodGateway, { comment: formatMark(mark) });
    await expect(stage.run("inspectSlot", later)).rejects.toMatchObject({
      type: "InvalidInput",
      message: expect.stringMatching(
        /the secret was modified at .*, its mark is of .*; if that edit left the value alone, start with --held-key key_prod_1 \(made by hand\); else with one of: key_\w+ \(another\)/,
      ) as string,
    });
    expect((await stage.run("inspectSlot", { ...later, heldKeyId: "key_prod_1" })).held.how).toBe("operator");
  });

  test("from a masked value that shows nothing", async () => {
    const stage = await startStage();
    const blank = { id: "key_blank", name: "blank", created_at: 1_780_000_000, redacted_value: "sk-..." };
    const body = { object: "list", data: [blank], has_more: false };
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys\\?", mode: "status", status: 200, body });
    await expect(stage.run("inspectSlot", {})).rejects.toMatchObject({
      type: "InvalidInput",
      message: expect.stringContaining("no key fits the gateway's preview") as string,
    });
  });
});
