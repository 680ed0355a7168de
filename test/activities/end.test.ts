import { describe, expect, test } from "vitest";

import { prodGateway, type Stage, startStage } from "../support/activities.ts";

/** The end of a run (promise 6): its aliases go, and each key it answers for is held by a slot, or ended, or named. */

const old = "key_prod_1";
const live = async (stage: Stage): Promise<string[]> => (await stage.alive()).filter((id) => id !== "key_stg_1");
const ownAliases = async (stage: Stage): Promise<string[]> =>
  (await stage.aliases(prodGateway)).filter((alias) => alias.startsWith("kt-"));
/** A key of this rotation whose answer was lost. */
const lost = (stage: Stage): Promise<{ id: string }> =>
  stage.keyByHand(`kt.acme.production.openai.default.${stage.of.rotationId.slice(0, 8)}.1-9`);
const entry = (id: string, role: "old" | "new", given: boolean) => ({ id, role, given });

type Fates = Record<string, string>;
/** What a run does at its end, as often as Temporal would; `ordinals` are those not accounted for. */
async function end(stage: Stage, keys: ReturnType<typeof entry>[], ordinals: number[] = []): Promise<Fates> {
  await stage.repeat("removeAliases", {});
  const ask = (found: string[]) =>
    stage.repeat("settleKeys", { keys: [...keys, ...found.map((id) => entry(id, "new", false))], ordinals });
  const first = await ask([]);
  const settled = first.found === undefined ? first : await ask(first.found);
  return Object.fromEntries(settled.keys.map(({ id, fate }) => [id, fate.fate]));
}
/** Alive, and neither in a slot nor named. */
async function orphans(stage: Stage, fates: Fates): Promise<string[]> {
  const held = await stage.held(prodGateway);
  return (await live(stage)).filter((id) => id !== held && fates[id] !== "named");
}

describe("the end of a rotation that went well", () => {
  const finished = async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.run("revokeKey", { keyId: old, installedKeyId: key.id });
    return { stage, key };
  };

  test("leaves the new key and nothing else, however often it is done", async () => {
    const { stage, key } = await finished();
    await lost(stage);
    for (let times = 0; times < 2; times++) {
      expect(await end(stage, [entry(key.id, "new", true)], [1])).toMatchObject({ [key.id]: "held" });
      expect(await ownAliases(stage)).toEqual([]);
      expect(await live(stage)).toEqual([key.id]);
    }
    await expect(stage.secret(prodGateway, `kt-${stage.of.rotationId.slice(0, 8)}-new`)).rejects.toThrow("no secret");
  });

  // Two provider configs, two secrets, and the key that was left.
  describe.each(["lost-answer", "lost-request", "half"])("is the same after a %s", (mode) => {
    test.each([0, 1, 2, 3])("of removal %d at Cloudflare", async (skip) => {
      const { stage, key } = await finished();
      await stage.fault({ service: "cloudflare", method: "DELETE", path: "", mode, skip, times: 1 });
      await end(stage, [entry(key.id, "new", true)]);
      expect(await ownAliases(stage)).toEqual([]);
      expect(await live(stage)).toEqual([key.id]);
    });

    test("of the end of a key that was left", async () => {
      const { stage, key } = await finished();
      await lost(stage);
      await stage.fault({ service: "openai", method: "DELETE", path: "", mode, times: 1 });
      await end(stage, [entry(key.id, "new", true)], [1]);
      expect(await live(stage)).toEqual([key.id]);
    });

    test("of the end of the old key", async () => {
      const stage = await startStage();
      const { key } = await stage.installed();
      await stage.fault({ service: "openai", method: "DELETE", path: "", mode, times: 1 });
      expect(await stage.repeat("revokeKey", { keyId: old, installedKeyId: key.id })).toMatchObject({ seen: true });
      expect(await live(stage)).toEqual([key.id]);
    });
  });

  test("names what it gave, and ends what it did not, when somebody changed the slot", async () => {
    const { stage, key } = await finished();
    const { id } = await lost(stage);
    await stage.edit(prodGateway, { value: (await stage.keyByHand("by hand")).value, comment: "mine" });
    const fates = await end(stage, [entry(key.id, "new", true)], [1]);
    expect(fates[key.id]).toBe("named");
    expect(await live(stage)).toContain(key.id);
    expect(await live(stage)).not.toContain(id);
    expect(await ownAliases(stage)).toEqual([]);
  });
});

describe("the end of a rotation that stopped leaves one working, installed key, and names what else must stay", () => {
  test("before anything was made", async () => {
    const stage = await startStage();
    expect(await end(stage, [entry(old, "old", true)])).toEqual({ [old]: "held" });
    expect(await live(stage)).toEqual([old]);
  });

  test("after the new key was made and staged: it is ended, the old one serves", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.run("stageAliases", { key });
    for (let times = 0; times < 2; times++) {
      expect(await end(stage, [entry(old, "old", true), entry(key.id, "new", false)])).toEqual({
        [old]: "held",
        [key.id]: "ended",
      });
      expect(await live(stage)).toEqual([old]);
      expect(await ownAliases(stage)).toEqual([]);
      expect(await stage.chat()).toBe(200);
    }
  });

  test("after the install: the new key serves, the old one is named, since clients may use it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const fates = await end(stage, [entry(old, "old", true), entry(key.id, "new", true)]);
    expect(fates).toEqual({ [old]: "named", [key.id]: "held" });
    expect(await live(stage)).toEqual([old, key.id]);
    expect(await ownAliases(stage)).toEqual([]);
  });

  test("after the old key was revoked: it is not named as alive", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.run("revokeKey", { keyId: old, installedKeyId: key.id });
    expect(await end(stage, [entry(old, "old", true), entry(key.id, "new", true)])).toEqual({
      [old]: "ended",
      [key.id]: "held",
    });
  });

  test("after somebody wrote a key of their own before the install: ours is ended, theirs serves, the old one is named", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const theirs = await stage.keyByHand("by hand");
    await stage.edit(prodGateway, { value: theirs.value });
    const fates = await end(stage, [entry(old, "old", true), entry(key.id, "new", false)]);
    expect(fates[old]).toBe("named");
    expect(await orphans(stage, fates)).toEqual([]);
    expect(await stage.chat()).toBe(200);
  });

  test.each(["value", "both"])(
    "after somebody edited the %s since the install: both keys are named, and neither is ended",
    async (what) => {
      const stage = await startStage();
      const { key } = await stage.installed();
      const { value } = await stage.keyByHand("by hand");
      await stage.edit(prodGateway, { value, ...(what === "both" ? { comment: "mine" } : {}) });
      const fates = await end(stage, [entry(old, "old", true), entry(key.id, "new", true)]);
      expect(fates).toEqual({ [old]: "named", [key.id]: "named" });
      expect(await live(stage)).toEqual(expect.arrayContaining([old, key.id]));
      expect(await orphans(stage, fates)).toEqual([]);
    },
  );

  test("after somebody deleted the secret", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    const { id } = await stage.secret(prodGateway);
    await stage.cloudflare("DELETE", `/secrets_store/stores/${stage.seed["storeId"]}/secrets/${id}`);
    const fates = await end(stage, [entry(old, "old", true), entry(key.id, "new", false)]);
    expect(fates[old]).toBe("named");
    expect(await orphans(stage, fates)).toEqual([]);
  });

  test.each(["lost-answer", "lost-request"])("after a %s of any of its own removals", async (mode) => {
    for (const skip of [0, 1, 2, 3]) {
      const stage = await startStage();
      const key = await stage.newKey();
      await stage.run("stageAliases", { key });
      await stage.fault({ service: "cloudflare", method: "DELETE", path: "", mode, skip, times: 1 });
      await stage.fault({ service: "openai", method: "DELETE", path: "", mode, times: 1 });
      await end(stage, [entry(old, "old", true), entry(key.id, "new", false)]);
      expect(await live(stage)).toEqual([old]);
      expect(await ownAliases(stage)).toEqual([]);
    }
  });
});
