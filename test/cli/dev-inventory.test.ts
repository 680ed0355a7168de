import { expect, test } from "vitest";
import { stringify } from "yaml";

import { parseInventory } from "../../src/config.ts";
import { devInventory } from "../../src/cli/dev-inventory.ts";
import { generateSealingKey } from "../../src/sealing.ts";

async function policyAt(timeScale: number) {
  const { publicKey } = await generateSealingKey("dev");
  const text = stringify(devInventory([publicKey], timeScale));
  const { slots } = parseInventory(text, "keyturn.yaml", { CLOUDFLARE_ACCOUNT_ID: "made-up" });
  return slots["production/openai"]?.policy;
}

test("the inventory of a dev environment is the default policy, its waits divided by the time scale", async () => {
  expect(await policyAt(60)).toMatchObject({
    every: "90d",
    keyLife: "365d",
    propagationWait: "500ms",
    cacheInvalidationWait: "10s",
    quietPeriod: "15s",
    usageLag: "15s",
    graceCeiling: { after: "24m", ifUnknown: "revoke", ifUsed: "ask" },
    dead: { answers: 5, span: "500ms" },
  });
});

test("bounds of waits keep a floor, since a busy machine is not faster by the scale", async () => {
  const policy = await policyAt(6_000);
  expect(policy).toMatchObject({ propagationBudget: "15s", settleBudget: "15s", graceCeiling: { after: "1m" } });
});

test("at scale 1 it is what production does", async () => {
  expect(await policyAt(1)).toMatchObject({ propagationBudget: "2m", settleBudget: "15m", quietPeriod: "15m" });
});
