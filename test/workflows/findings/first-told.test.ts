import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { slotWorkflowId } from "../../../src/domain/rotation.ts";
import {
  documentedPolicy,
  endOf,
  fateOf,
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

describe("a compromised key that another slot holds", () => {
  test("has that slot's deadline and policy where its run was told before, though that run tells nobody", async () => {
    const hold = documentedPolicy({ emergency: { ...documentedPolicy().emergency, atDeadline: "hold" } });
    const slots = playSlots(skipping, { [slot]: "key_mine", [otherSlot]: "key_old" }, (right) => ({
      readPolicy: async (order) => (order.slot === otherSlot ? hold : documentedPolicy()),
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        ...(order.slot === otherSlot ? { canIssue: false, policy: hold } : {}),
      }),
    }));
    await skipping.withWorker(slots.played, async () => {
      const told = await startIn(skipping, "normalRotation", { slot: otherSlot });
      await told.executeUpdate("escalate", { args: [{ compromisedKeyId: "key_old" }] });
      await skipping.env.sleep(2 * minute);
      const stranger = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" });
      await skipping.env.sleep(3 * hour);
      expect(slots.endOf("key_old")).toBeUndefined();
      // Held past its deadline, it is named, and nothing is left to do.
      expect(fateOf(await endOf(stranger), "key_old")).toBe("named");
      await told.signal("abortSignal", { by: "ada" });
      await endOf(told);
    });
  });
});

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
