import { describe, expect, test } from "vitest";

import { durationMs, prodGateway, type Stage, startStage } from "../support/activities.ts";

/** finish and releaseSlot guard promise 6: each key is held by a slot, or revoked, or named. */

const old = "key_prod_1";
const live = async (stage: Stage): Promise<string[]> => (await stage.alive()).filter((id) => id !== "key_stg_1");
const ownAliases = async (stage: Stage): Promise<string[]> =>
  (await stage.aliases(prodGateway)).filter((alias) => alias.startsWith("kt-"));
/** Alive, and neither in the slot nor named. */
async function orphans(stage: Stage, leftOver: { id: string }[]): Promise<string[]> {
  const held = await stage.held(prodGateway);
  return (await live(stage)).filter((id) => id !== held && !leftOver.some((left) => left.id === id));
}
/** A key of this rotation whose answer was lost. */
const lost = (stage: Stage): Promise<{ id: string }> =>
  stage.keyByHand(`kt.acme.production.openai.default.${stage.of.rotationId.slice(0, 8)}.1-9`);

describe("finish", () => {
  const finished = async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.run("revokeKey", { keyId: old, installedKeyId: key.id });
    return { stage, key };
  };

  test("removes the aliases, sweeps what this rotation left, and says when the next one is due; again is success", async () => {
    const { stage, key } = await finished();
    await lost(stage);
    for (let times = 0; times < 2; times++) {
      const { leftOver, warnings, nextDue } = await stage.run("finish", { installedKeyId: key.id });
      expect({ leftOver, warnings }).toEqual({ leftOver: [], warnings: [] });
      expect(Math.round((Date.parse(nextDue) - Date.now()) / 86_400_000)).toBe(90);
      expect(await ownAliases(stage)).toEqual([]);
      expect(await live(stage)).toEqual([key.id]);
    }
    await expect(stage.secret(prodGateway, `kt-${stage.of.rotationId.slice(0, 8)}-new`)).rejects.toThrow("no secret");
  });

  // Two provider configs, two secrets, and the key that was left.
  describe.each(["lost-answer", "lost-request", "half"])("ends at the same after a %s", (mode) => {
    test.each([0, 1, 2, 3])("of removal %d at Cloudflare", async (skip) => {
      const { stage, key } = await finished();
      await stage.fault({ service: "cloudflare", method: "DELETE", path: "", mode, skip, times: 1 });
      await stage.repeat("finish", { installedKeyId: key.id });
      expect(await ownAliases(stage)).toEqual([]);
      expect(await live(stage)).toEqual([key.id]);
    });

    test("of the sweep", async () => {
      const { stage, key } = await finished();
      await lost(stage);
      await stage.fault({ service: "openai", method: "DELETE", path: "", mode, times: 1 });
      await stage.repeat("finish", { installedKeyId: key.id });
      expect(await live(stage)).toEqual([key.id]);
    });
  });

  test("revokes nothing and names every key of its own when somebody changed the slot", async () => {
    const { stage, key } = await finished();
    const { id } = await lost(stage);
    await stage.edit(prodGateway, { value: (await stage.keyByHand("by hand")).value, comment: "mine" });
    const { leftOver, warnings } = await stage.run("finish", { installedKeyId: key.id });
    expect(leftOver.map((left) => left.id).toSorted()).toEqual([key.id, id].toSorted());
    expect(warnings).toEqual([expect.stringContaining("somebody changed production/openai")]);
    expect(await live(stage)).toEqual(expect.arrayContaining([key.id, id]));
    expect(await ownAliases(stage)).toEqual([]);
  });
});

describe("releaseSlot leaves one working, installed key, and names what else must stay", () => {
  const release = (stage: Stage, installStarted: boolean, more: { newKeyId?: string; handedIn?: string[] } = {}) =>
    stage.run("releaseSlot", { installStarted, oldKeyId: old, ...more });

  test("before anything was made", async () => {
    const stage = await startStage();
    expect(await release(stage, false)).toEqual({ leftOver: [], warnings: [] });
    expect(await live(stage)).toEqual([old]);
  });

  test("after the new key was made and staged: it is revoked, the old one serves", async () => {
    const stage = await startStage();
    await stage.run("stageAliases", { key: await stage.newKey() });
    for (let times = 0; times < 2; times++) {
      expect(await release(stage, false)).toEqual({ leftOver: [], warnings: [] });
      expect(await live(stage)).toEqual([old]);
      expect(await ownAliases(stage)).toEqual([]);
      expect(await stage.chat()).toBe(200);
    }
  });

  test("after the install: the new key serves, the old one is named, since clients may use it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const { leftOver, warnings } = await release(stage, true);
    expect({ leftOver, warnings }).toEqual({ leftOver: [{ id: old, why: "clients may still use it" }], warnings: [] });
    expect(await live(stage)).toEqual([old, key.id]);
    expect(await ownAliases(stage)).toEqual([]);
  });

  test("after the install: other keys of this rotation are swept", async () => {
    const stage = await startStage();
    await stage.installed();
    const { id } = await lost(stage);
    const { leftOver } = await release(stage, true);
    expect(await live(stage)).not.toContain(id);
    expect(await orphans(stage, leftOver)).toEqual([]);
  });

  test("after the old key was revoked: it is not named as alive", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.run("revokeKey", { keyId: old, installedKeyId: key.id });
    expect(await release(stage, true)).toEqual({ leftOver: [], warnings: [] });
  });

  test("after an install whose write did not show: both keys are named, since the write may still arrive", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const { leftOver, warnings } = await release(stage, true, { newKeyId: key.id });
    expect(leftOver).toEqual([
      { id: key.id, why: expect.stringContaining("may still arrive") as string },
      { id: "key_prod_1", why: expect.stringContaining("until the new key arrives") as string },
    ]);
    expect(warnings).toEqual([expect.stringContaining("does not hold the key this rotation wrote")]);
    expect(await live(stage)).toEqual([old, key.id]);
  });

  test("after a hand-in that was not installed: it is named, whatever its name, and one that was never the new key as well", async () => {
    const stage = await startStage();
    const { id } = await stage.keyByHand("a name of their own");
    expect((await release(stage, false, { handedIn: [id] })).leftOver).toEqual([
      { id, why: expect.stringContaining("handed in and is not in the slot") as string },
    ]);
    const begun = await release(stage, true, { handedIn: [id], newKeyId: id });
    expect(begun.leftOver).toContainEqual({ id, why: expect.stringContaining("may still arrive") as string });
    const made = await stage.newKey();
    const { leftOver } = await release(stage, true, { newKeyId: "key_another" });
    expect(leftOver.find((key) => key.id === made.id)?.why).toBe("it was made for this rotation");
  });

  test("after somebody wrote a key of their own before the install: both keys are named", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.edit(prodGateway, { value: (await stage.keyByHand("by hand")).value });
    const { leftOver } = await release(stage, true);
    expect(leftOver.map(({ id }) => id)).toEqual([key.id, old]);
    expect(await orphans(stage, leftOver)).toEqual([]);
  });

  test.each(["value", "both"])(
    "after somebody edited the %s since the install: nothing is revoked, both keys are named",
    async (what) => {
      const stage = await startStage();
      const { key } = await stage.installed();
      const { value } = await stage.keyByHand("by hand");
      await stage.edit(prodGateway, { value, ...(what === "both" ? { comment: "mine" } : {}) });
      const { leftOver, warnings } = await release(stage, true);
      expect(leftOver.map(({ id }) => id).toSorted()).toEqual([key.id, old].toSorted());
      expect(warnings).toHaveLength(1);
      expect(await live(stage)).toEqual(expect.arrayContaining([old, key.id]));
      expect(await orphans(stage, leftOver)).toEqual([]);
    },
  );

  test("after somebody deleted the secret", async () => {
    const stage = await startStage();
    await stage.run("issueKey", { ordinal: 1, unprovenLife: durationMs(3_600_000) });
    const { id } = await stage.secret(prodGateway);
    await stage.cloudflare("DELETE", `/secrets_store/stores/${stage.seed["storeId"]}/secrets/${id}`);
    expect(await release(stage, false)).toEqual({ leftOver: [], warnings: [] });
    expect(await live(stage)).toEqual([old]);
  });

  test.each(["lost-answer", "lost-request"])("after a %s of any of its own removals", async (mode) => {
    for (const skip of [0, 1, 2, 3]) {
      const stage = await startStage();
      await stage.run("stageAliases", { key: await stage.newKey() });
      await stage.fault({ service: "cloudflare", method: "DELETE", path: "", mode, skip, times: 1 });
      await stage.fault({ service: "openai", method: "DELETE", path: "", mode, times: 1 });
      await stage.repeat("releaseSlot", { installStarted: false, oldKeyId: old });
      expect(await live(stage)).toEqual([old]);
      expect(await ownAliases(stage)).toEqual([]);
    }
  });
});
