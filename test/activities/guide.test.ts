import { expect, test } from "vitest";

import { prod, prodGateway, staging, type Stage, startStage, type StageOptions } from "../support/activities.ts";

/** A rotation in the dialect `guide`, which keeps no marks: nothing that is held may be revoked for want of one. */

const guide = (more: StageOptions = {}): Promise<Stage> =>
  startStage({
    inventory: { dialect: "guide" },
    slots: {
      [prod]: {
        openai: { project: "proj_abc", serviceAccount: "svc_acct_1" },
        secretId: "github-ai-agent-prod_openai_default",
      },
      [staging]: {
        openai: { project: "proj_abc", serviceAccount: "svc_acct_1" },
        secretId: "github-ai-agent-staging_openai_default",
      },
    },
    ...more,
  });
/** What the last results of the slots tell. */
const last = (keyId: string | undefined, neighbours: string | undefined = "key_stg_1") => ({
  lastInstalledKey: (slot: string) => Promise.resolve(slot === prod ? keyId : neighbours),
});

test("takes the held key from the last result, or from the operator, and says which", async () => {
  const stage = await guide(last("key_prod_1"));
  const found = await stage.run("inspectSlot", {});
  expect(found.held).toMatchObject({ id: "key_prod_1", how: "last result" });
  expect(found).toMatchObject({ staged: false, sharedWith: [] });
  const other = await stage.keyByHand("by hand");
  expect((await stage.run("inspectSlot", { heldKeyId: other.id })).held).toMatchObject({
    id: other.id,
    how: "operator",
  });
});

test("asks the operator where there is no last result", async () => {
  const stage = await guide();
  await expect(stage.run("inspectSlot", {})).rejects.toThrow("--held-key");
});

test("installs, ends the old key, and keeps the new one", async () => {
  const stage = await guide(last("key_prod_1"));
  const { secretModified } = await stage.run("inspectSlot", {});
  const key = await stage.newKey();
  await stage.run("installKey", { key, secretModified });
  await stage.run("installKey", { key, secretModified });
  expect(await stage.held(prodGateway)).toBe(key.id);
  await stage.run("awaitPropagation", { until: new Date().toISOString() });
  await stage.run("verifyThroughGateway", {
    alias: "real",
    goodAnswers: 2,
    until: new Date(Date.now() + 5_000).toISOString(),
    installedKeyId: key.id,
  });
  await stage.run("revokeKey", { keyId: "key_prod_1", installedKeyId: key.id });
  expect(await stage.alive()).toContain(key.id);
  expect(await stage.alive()).not.toContain("key_prod_1");
});

test("revokes nothing while a neighbour's last result is gone: it may hold the same key", async () => {
  const stage = await guide({ lastInstalledKey: (slot) => Promise.resolve(slot === prod ? "key_prod_1" : undefined) });
  const { secretModified } = await stage.run("inspectSlot", {});
  const key = await stage.newKey();
  await stage.run("installKey", { key, secretModified });
  await expect(stage.run("revokeKey", { keyId: "key_prod_1", installedKeyId: key.id })).rejects.toThrow(staging);
  const [holders] = await stage.run("lookAtHolders", { keyIds: ["key_prod_1"], installedKeyId: key.id });
  expect(holders).toMatchObject({ yes: [], unknown: [{ slot: staging, why: expect.stringContaining("no result") }] });
  expect(await stage.alive()).toContain("key_prod_1");
});

test("never revokes the key it installed, nor one that another slot's last rotation left there", async () => {
  const stage = await guide(last(undefined, "key_prod_1"));
  await expect(stage.run("revokeKey", { keyId: "key_prod_1", installedKeyId: "key_prod_1" })).rejects.toThrow("holds");
  await expect(stage.run("revokeKey", { keyId: "key_prod_1", installedKeyId: "key_x" })).rejects.toThrow(staging);
  expect(await stage.alive()).toContain("key_prod_1");
});

test("knows what it wrote itself, and goes by the last result where it wrote nothing", async () => {
  const stage = await guide(last("key_prod_1"));
  const ask = async (installed: { installedKeyId?: string }) =>
    (await stage.run("lookAtHolders", { keyIds: ["key_prod_1", "key_new"], ...installed })).map(({ yes }) => yes);
  expect(await ask({})).toEqual([[prod], []]);
  expect(await ask({ installedKeyId: "key_new" })).toEqual([[], [prod]]);
});
