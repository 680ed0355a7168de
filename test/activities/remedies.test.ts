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
  test("puts the old key back into the slot from its copy; again changes nothing", async () => {
    const stage = await startStage();
    await installed(stage);
    await stage.repeat("restoreOldValue", {});
    expect(await stage.held(prodGateway)).toBe("key_prod_1");
    const { id } = await stage.secret(prodGateway);
    await stage.repeat("restoreOldValue", {});
    expect((await stage.secret(prodGateway)).id).toBe(id);
  });

  test.each(["lost-answer", "lost-request"])("ends at the same after a %s of each of its writes", async (mode) => {
    for (const method of ["DELETE", "POST"]) {
      const stage = await startStage();
      await installed(stage);
      await stage.fault({ service: "cloudflare", method, path: "/secrets", mode, times: 1 });
      await stage.repeat("restoreOldValue", {});
      expect(await stage.held(prodGateway)).toBe("key_prod_1");
    }
  });

  test("leaves the slot as it is where there is no copy", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.run("installKey", { key, secretModified: await before(stage) });
    await expect(stage.run("restoreOldValue", {})).rejects.toMatchObject({ type: "SlotMissing" });
    expect(await stage.held(prodGateway)).toBe(key.id);
    expect(await stage.aliases(prodGateway)).not.toContain(rotationAliases(stage.of.rotationId).prev);
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
