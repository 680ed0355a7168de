import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { slotWorkflowId } from "../../../src/domain/rotation.ts";
import {
  documentedPolicy,
  endOf,
  hour,
  minute,
  otherSlot,
  passUntil,
  playSlots,
  type Skipping,
  slot,
  startIn,
  startSkipping,
} from "./slots.ts";

/** The first telling's slot gives deadline and policy. In a file of its own: the server skips no time after it. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

describe("a compromised key that two slots hold", () => {
  test("has the deadline and the policy of the slot that was told first, though a person tells another one later", async () => {
    const hold = documentedPolicy({ emergency: { ...documentedPolicy().emergency, atDeadline: "hold" } });
    // Nobody hands a key in, in neither slot.
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" }, (right) => ({
      readPolicy: async (order) => (order.slot === otherSlot ? hold : documentedPolicy()),
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        canIssue: false,
        policy: order.slot === otherSlot ? hold : documentedPolicy(),
      }),
    }));
    await skipping.withWorker(slots.played, async () => {
      const first = await startIn(skipping, "emergencyRotation", { slot: otherSlot });
      const child = skipping.client.workflow.getHandle(slotWorkflowId(slot));
      await passUntil(skipping, () => slots.played.calls.some(({ order }) => order["slot"] === slot));
      await skipping.env.sleep(2 * minute);
      const told = await startIn(skipping, "emergencyRotation", {
        workflowId: "told-later",
        compromisedKeyId: "key_old",
      });
      await skipping.env.sleep(3 * hour);
      expect(slots.endOf("key_old")).toBeUndefined();
      for (const run of [first, child]) {
        await run.signal("abortSignal", { by: "ada" });
        await endOf(run);
      }
      await endOf(told);
    });
  });
});
