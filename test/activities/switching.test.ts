import { describe, expect, test } from "vitest";

import { keyActivities } from "../../src/activities/keys.ts";
import type { KeySwitch, Provider } from "../../src/providers/provider.ts";
import { prod, type Stage, stagingGateway, startStage } from "../support/activities.ts";

/** Keys that can be switched off and on again. Promise 3: never the key that a slot holds, without revoking it either. */

const old = "key_prod_1";

/** A slot whose provider could switch keys off, which OpenAI cannot: what would be switched is noted. */
async function switchable() {
  const stage = await startStage();
  const { key } = await stage.installed();
  const access = stage.dependencies.slotAccess(prod);
  const switched: string[] = [];
  const provider: Provider & KeySwitch = {
    ...access.provider,
    disableKey: async (id) => void switched.push(`off ${id}`),
    enableKey: async (id) => void switched.push(`on ${id}`),
  };
  const { disableKey, enableKey, cutKey } = keyActivities({
    ...stage.dependencies,
    slotAccess: () => ({ ...access, provider }),
  });
  const order = { ...stage.of, installedKeyId: key.id };
  return { stage, key, switched, order, disableKey, enableKey, cutKey };
}
const holdInStaging = async (stage: Stage): Promise<void> =>
  stage.edit(stagingGateway, { value: await stage.valueOf(old) });

describe("disableKey (promise 3)", () => {
  test("switches the old key off once the slot holds the new one, and enableKey on again", async () => {
    const { switched, order, disableKey, enableKey } = await switchable();
    expect(await disableKey({ ...order, keyId: old })).toMatchObject({ how: "disabled" });
    await enableKey({ ...order, keyId: old });
    expect(switched).toEqual([`off ${old}`, `on ${old}`]);
  });

  test("switches nothing off that a slot holds, its own or another", async () => {
    const { stage, key, switched, order, disableKey } = await switchable();
    await expect(disableKey({ ...order, keyId: key.id })).rejects.toMatchObject({ type: "SlotChanged" });
    await holdInStaging(stage);
    await expect(disableKey({ ...order, keyId: old })).rejects.toMatchObject({ type: "SlotChanged" });
    expect(switched).toEqual([]);
  });

  test("is refused where the provider cannot undo it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await expect(stage.run("disableKey", { keyId: old, installedKeyId: key.id })).rejects.toMatchObject({
      type: "InvalidInput",
    });
    expect(await stage.alive()).toContain(old);
  });
});

describe("cutKey", () => {
  test("switches the compromised key off where that can be undone, whoever holds it", async () => {
    const { stage, switched, order, cutKey } = await switchable();
    await holdInStaging(stage);
    expect(await cutKey({ ...order, keyId: old })).toMatchObject({ how: "disabled" });
    expect(switched).toEqual([`off ${old}`]);
    expect(await stage.alive()).toContain(old);
  });

  test("revokes it where it cannot; again is success", async () => {
    const stage = await startStage();
    for (let times = 0; times < 2; times++) {
      expect(await stage.run("cutKey", { keyId: old })).toMatchObject({ how: "revoked" });
    }
    expect(await stage.alive()).not.toContain(old);
  });
});
