import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Progress } from "../../../src/domain/rotation.ts";
import {
  documentedPolicy,
  endOf,
  failing,
  fateOf,
  hour,
  minute,
  otherSlot,
  passUntil,
  playSlots,
  type Skipping,
  type Slots,
  slot,
  startIn,
  startSkipping,
} from "./slots.ts";

/** Which slots fail and since when, which key a time is of, and what is said of keys that stay alive. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const now = (): Promise<number> => skipping.env.currentTimeMs();
const toldOf = (compromisedKeyId: string): { args: [object] } => ({ args: [{ compromisedKeyId, by: "ada" }] });
const hold = documentedPolicy({ emergency: { ...documentedPolicy().emergency, atDeadline: "hold" } });
const handedIn = { canIssue: false, handIn: { where: "x", keyName: "k", keyType: "t", belongsTo: "b" } };

/** The end of an emergency of the slot. */
const emergencyOf = (slots: Slots, input: Record<string, unknown>) =>
  skipping.withWorker(slots.played, async () => endOf(await startIn(skipping, "emergencyRotation", input)));

/** The end of a `cut-first` of the old key whose new key is called compromised while evidence is gathered. */
const cutFirstTwice = (slots: Slots) =>
  skipping.withWorker(slots.played, async () => {
    const handle = await startIn(skipping, "emergencyRotation", {
      strategy: "cut-first",
      compromisedKeyId: "key_old",
    });
    await passUntil(skipping, () => slots.played.names().includes("gatherEvidence"));
    await handle.executeUpdate("escalate", toldOf("key_1"));
    return endOf(skipping.client.workflow.getHandle(handle.workflowId));
  });

describe("an outage", () => {
  test("that is over hides none that comes after it", async () => {
    const slots = playSlots(skipping, undefined, (right, { made }) => ({
      issueKey: async (order) => {
        if (made.length > 0) throw failing("KeyLimitReached");
        return right.issueKey(order);
      },
    }));
    const result = await cutFirstTwice(slots);
    expect(slots.endOf("key_1")?.heldBy).toEqual([slot]);
    expect(result.outage?.until).toBeUndefined();
    expect(result.warnings).toContainEqual(expect.stringContaining("REQUESTS FAIL"));
    expect(result.warnings).toContainEqual(expect.stringMatching(/^requests could fail .* until /));
  });

  test("is in each slot that held one of the keys when it was cut", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_b" }, (right) => ({
      issueKey: () => Promise.reject(failing("KeyLimitReached")),
      inspectSlot: async (order) => {
        if (order.slot === otherSlot) throw failing("AdminCredentialRejected");
        return right.inspectSlot(order);
      },
    }));
    const result = await emergencyOf(slots, { compromisedKeyIds: ["key_old", "key_b"] });
    for (const { heldBy } of slots.ends) expect(result.outage?.slots).toEqual(expect.arrayContaining(heldBy));
  });

  test("is in the run's own slot too, where the old key was put back before it was cut", async () => {
    const slots = playSlots(skipping, undefined, (right, { holds }) => ({
      lookAtHolders: async (order) => {
        if (holds[slot] === "key_1") holds[slot] = "key_old";
        return right.lookAtHolders(order);
      },
    }));
    const result = await emergencyOf(slots, { compromisedKeyId: "key_old" });
    expect(slots.endOf("key_old")?.heldBy).toEqual([slot]);
    expect(result.outage).toMatchObject({ slots: [slot] });
    expect(result.outage?.until).toBeUndefined();
  });

  test("is in the run's own slot too, where another compromised key was put in before it was cut", async () => {
    const slots = playSlots(skipping, { [slot]: "key_cur" }, (right, { holds }) => ({
      lookAtHolders: async (order) => {
        holds[slot] = "key_stray";
        return right.lookAtHolders(order);
      },
    }));
    const result = await emergencyOf(slots, { compromisedKeyId: "key_stray" });
    expect(slots.endOf("key_stray")?.heldBy).toEqual([slot]);
    expect(result.outage).toMatchObject({ slots: [slot] });
  });

  test("in two slots is over once both serve new keys", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" });
    const result = await emergencyOf(slots, { strategy: "cut-first", compromisedKeyId: "key_old" });
    expect(Object.values(slots.holds)).not.toContain("key_old");
    expect(result.outage).toMatchObject({ until: expect.any(String), slots: [slot, otherSlot] });
    expect(result.warnings.join()).not.toContain("REQUESTS FAIL");
  });

  test("that is over leaves the proof of the next key as long as ever", async () => {
    const slots = playSlots(skipping);
    const result = await cutFirstTwice(slots);
    expect(result.steps.find(({ step }) => step === "stageAliases")).toMatchObject({ outcome: "done" });
  });
});

describe("a new key that the slot turned out not to hold, and that is called compromised", () => {
  test.each([
    ["revoke", documentedPolicy()],
    ["hold", hold],
  ])("is ended once its edges dropped it, with atDeadline %s", async (_, policy) => {
    const slots = playSlots(skipping, undefined, (_right, { holds }) => ({
      inspection: { policy },
      checkIdle: async () => {
        holds[slot] = "key_old";
        const later = new Date((await now()) + 2 * hour).toISOString();
        const used = { kind: "used", note: "used", lastUsed: new Date(0).toISOString(), clientsBefore: "yes" } as const;
        return { ...used, newKeyRequests: 9, probeAt: later, askAt: later };
      },
    }));
    const toldAt = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.played.names().includes("checkIdle"));
      const at = await now();
      await handle.executeUpdate("escalate", toldOf("key_1"));
      await endOf(skipping.client.workflow.getHandle(handle.workflowId));
      return at;
    });
    const { at = 0, heldBy } = slots.endOf("key_1") ?? {};
    expect(heldBy).toEqual([]);
    expect(at - toldAt).toBeGreaterThanOrEqual(10 * minute);
    expect(at - toldAt).toBeLessThan(30 * minute);
  });
});

describe("the times of a result", () => {
  test("do not tell the end of another key than the old one", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      inspection: { policy: hold },
      issueKey: () => Promise.reject(failing("KeyLimitReached")),
    }));
    const result = await emergencyOf(slots, { compromisedKeyIds: ["key_old", "key_stray"] });
    expect(slots.endOf("key_stray")).toBeDefined();
    expect(slots.endOf("key_old")).toBeUndefined();
    expect(result.times).not.toHaveProperty("revoked");
  });

  test("do not tell the death of another key than the old one", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      confirmRevoked: async ({ keyId }) =>
        keyId === "key_old" ? { note: "not seen" } : { deadAt: new Date(await now()).toISOString(), note: "seen" },
    }));
    const result = await emergencyOf(slots, { compromisedKeyIds: ["key_old", "key_stray"] });
    expect(result.times).not.toHaveProperty("confirmedDead");
    expect(result.unknown).toContain("confirmedDead");
  });

  test("do not tell the cut of a key elsewhere, which shortens nothing here either", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_stray" }, (right) => ({
      inspection: handedIn,
      inspectSlot: async (order) => {
        if (order.slot === otherSlot) throw failing("AdminCredentialRejected");
        return right.inspectSlot(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, async () => (await handle.query<Progress>("progress")).waiting?.asks?.kind === "key");
      await handle.executeUpdate("escalate", toldOf("key_stray"));
      await passUntil(skipping, () => slots.endOf("key_stray") !== undefined);
      await handle.executeUpdate("submitKey", { args: [{ sealed: "sealed" }] });
      await passUntil(skipping, () => slots.played.names().includes("installKey"));
      await handle.signal("abortSignal", { by: "bob" });
      return endOf(handle);
    });
    const rules = slots.played.calls.flatMap(({ name, order }) => (name === "verifyAtProvider" ? [order["rule"]] : []));
    expect(rules[0]).not.toMatchObject({ answers: 1 });
    expect(slots.played.names()).toContain("seePrevAnswer");
    for (const moment of ["cut", "revoked"]) expect(result.times).not.toHaveProperty(moment);
  });
});

describe("a compromised key that stays alive", () => {
  test("is not called cut where the slot holds another one", async () => {
    const slots = playSlots(skipping, { [slot]: "key_cur", [otherSlot]: "key_stray" }, (right) => ({
      inspection: { policy: hold },
      inspectSlot: async (order) => {
        if (order.slot === otherSlot) throw failing("AdminCredentialRejected");
        return right.inspectSlot(order);
      },
    }));
    const result = await emergencyOf(slots, { compromisedKeyId: "key_stray" });
    expect(slots.ends).toEqual([]);
    expect(result).toMatchObject({ outcome: "kept", leftOver: [{ id: "key_stray" }] });
  });

  test("is not called cut where the slot could not be looked at and another key was ended", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      readPolicy: async () => hold,
      inspectSlot: () => Promise.reject(failing("AdminCredentialRejected")),
    }));
    const result = await emergencyOf(slots, { compromisedKeyIds: ["key_old", "key_stray"] });
    expect(fateOf(result, "key_stray")).toBe("ended");
    expect(fateOf(result, "key_old")).toBe("named");
    expect(result.failed).toBe("AdminCredentialRejected");
  });

  test("is not said to be held by a slot of which it cannot be told", async () => {
    const unknown = [{ slot: otherSlot, why: "its secret could not be read" }];
    const slots = playSlots(skipping, { [slot]: "key_cur" }, (right) => ({
      inspection: { policy: hold },
      findCompromised: async (order) => (await right.findCompromised(order)).map((key) => ({ ...key, unknown })),
      lookAtHolders: async ({ keyIds }) => keyIds.map((keyId) => ({ keyId, yes: [], unknown })),
    }));
    const result = await emergencyOf(slots, { compromisedKeyId: "key_stray" });
    expect(result.leftOver[0]?.why).toContain(`whether ${otherSlot} holds it cannot be told`);
  });
});
