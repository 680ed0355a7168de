import { describe, expect, test } from "vitest";

import { rotationAliases } from "../../src/domain/slot.ts";
import { prodGateway, type Stage, startStage } from "../support/activities.ts";

const before = async (stage: Stage): Promise<string> =>
  new Date((await stage.secret(prodGateway)).modified).toISOString();

async function installed(stage: Stage) {
  const key = await stage.newKey();
  await stage.run("stageAliases", { key });
  const secretModified = await before(stage);
  await stage.run("installKey", { key, secretModified });
  return { key, secretModified };
}

describe("checkSaved", () => {
  test("tells what the slot holds, and stops at somebody's edit", async () => {
    const stage = await startStage();
    const { key } = await installed(stage);
    const check = () => stage.run("checkSaved", { installedKeyId: key.id });
    expect((await check()).note).toMatch(new RegExp(`^saved: the mark names ${key.id}, written at .*, status active$`));
    await stage.edit(prodGateway, { comment: "mine" });
    await expect(check()).rejects.toMatchObject({ type: "SlotChanged" });
  });
});

describe("restoreOldValue", () => {
  const oldKeyId = "key_prod_1";
  /** A slot that holds this rotation's key, and what is asked of it. */
  async function toRestore(options: Parameters<typeof startStage>[0] = {}) {
    const stage = await startStage(options);
    const { key } = await installed(stage);
    return { stage, key, order: { installedKeyId: key.id, oldKeyId, oldFingerprint: "0123456789abcdef" } };
  }
  const prevOf = ({ of }: Stage): string => rotationAliases(of.rotationId).prev;

  test("puts the old key back into the slot from its copy; again changes nothing", async () => {
    const { stage, order } = await toRestore();
    await stage.repeat("restoreOldValue", order);
    expect(await stage.held(prodGateway)).toBe(oldKeyId);
    const { id } = await stage.secret(prodGateway);
    await stage.repeat("restoreOldValue", order);
    expect((await stage.secret(prodGateway)).id).toBe(id);
  });

  test.each(["lost-answer", "lost-request"])("ends at the same after a %s of each of its writes", async (mode) => {
    for (const method of ["DELETE", "POST"]) {
      const { stage, order } = await toRestore();
      await stage.fault({ service: "cloudflare", method, path: "/secrets", mode, times: 1 });
      await stage.repeat("restoreOldValue", order);
      expect(await stage.held(prodGateway)).toBe(oldKeyId);
    }
  });

  test("leaves the slot as it is where there is no copy", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.run("installKey", { key, secretModified: await before(stage) });
    const restored = stage.run("restoreOldValue", { installedKeyId: key.id, oldKeyId });
    await expect(restored).rejects.toMatchObject({ type: "SlotMissing" });
    expect(await stage.held(prodGateway)).toBe(key.id);
    expect(await stage.aliases(prodGateway)).not.toContain(prevOf(stage));
  });

  test("leaves the old key's mark, so that the next look finds that key and not the one that failed", async () => {
    const { stage, order } = await toRestore();
    await stage.repeat("restoreOldValue", order);
    const { held } = await stage.run("inspectSlot", { rotationId: "another" });
    expect(held).toMatchObject({ id: oldKeyId, how: "mark", fingerprint: "0123456789abcdef" });
  });

  test("leaves a mark without a fingerprint where that is not known", async () => {
    const { stage, order } = await toRestore();
    await stage.repeat("restoreOldValue", { installedKeyId: order.installedKeyId, oldKeyId });
    const { held } = await stage.run("inspectSlot", { rotationId: "another" });
    expect(held).toMatchObject({ id: oldKeyId, how: "mark" });
    expect(held).not.toHaveProperty("fingerprint");
  });

  test.each(["value and comment", "value alone"])("never writes over somebody's edit of %s", async (what) => {
    const { stage, order } = await toRestore();
    const value = await stage.valueOf("key_stg_1");
    await stage.edit(prodGateway, { value, ...(what === "value alone" ? {} : { comment: "by ada" }) });
    await expect(stage.repeat("restoreOldValue", order)).rejects.toMatchObject({
      type: "SlotChanged",
      nonRetryable: true,
    });
    expect(await stage.held(prodGateway)).toBe("key_stg_1");
  });

  test("never writes over an edit that is made between its look and its writes", async () => {
    const { stage, order } = await toRestore();
    const { id } = await stage.secret(prodGateway, prevOf(stage));
    await stage.fault({ service: "cloudflare", method: "GET", path: `/secrets/${id}$`, mode: "slow", delayMs: 1_000 });
    const restored = stage.run("restoreOldValue", order);
    const refused = expect(restored).rejects.toMatchObject({ type: "SlotChanged" });
    await expect.poll(async () => (await stage.requests()).some((line) => line.endsWith(id))).toBe(true);
    await stage.edit(prodGateway, { value: await stage.valueOf("key_stg_1"), comment: "by ada" });
    await refused;
    expect(await stage.held(prodGateway)).toBe("key_stg_1");
  });

  test("gives up its other alias where the store is full after its delete, rather than leave the slot empty", async () => {
    const { stage, order } = await toRestore();
    await stage.leaveRoom(-1);
    await stage.run("restoreOldValue", order);
    expect(await stage.held(prodGateway)).toBe(oldKeyId);
    expect(await stage.aliases(prodGateway)).not.toContain(rotationAliases(stage.of.rotationId).new);
  });

  test("is tried again while the store stays full, and fills the slot that it left empty", async () => {
    const { stage, order } = await toRestore();
    await stage.leaveRoom(-2);
    await expect(stage.run("restoreOldValue", order)).rejects.toMatchObject({
      type: "KeyLimitReached",
      nonRetryable: false,
    });
    expect((await stage.held(prodGateway)) ?? undefined).toBeUndefined();
    await stage.leaveRoom(1);
    await stage.run("restoreOldValue", order, 2);
    expect(await stage.held(prodGateway)).toBe(oldKeyId);
  });
});

describe("installKey with another key of the same rotation", () => {
  test("writes it over the first", async () => {
    const stage = await startStage();
    const { secretModified } = await installed(stage);
    const second = await stage.newKey(2);
    await stage.run("installKey", { key: second, secretModified });
    expect(await stage.held(prodGateway)).toBe(second.id);
  });
});
