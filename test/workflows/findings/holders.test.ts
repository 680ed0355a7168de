import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { EscalationAnswer } from "../../../src/domain/escalation.ts";
import { slotWorkflowId } from "../../../src/domain/rotation.ts";
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
  slot,
  startIn,
  startSkipping,
} from "./slots.ts";

/** A compromised key that other slots hold: they are moved off it first, and asked again before it is cut. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const now = (): Promise<number> => skipping.env.currentTimeMs();
const other = (): { slot: string } => ({ slot: otherSlot });

describe("a compromised key that another slot holds", () => {
  test("is cut after that slot moved off it, though the emergency was started in the wrong slot", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_batch" });
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_batch" })),
    );
    expect(slots.endOf("key_batch")).toMatchObject({ heldBy: [] });
    expect(slots.holds).toMatchObject({ [slot]: "key_old", [otherSlot]: "key_1" });
    expect(fateOf(result, "key_batch")).toBe("ended");
    expect(slots.endOf("key_old")).toBeUndefined();
  });

  test("is cut only when edges had time to drop it, where a slot had moved off it just before", async () => {
    let untilMs = Infinity;
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_batch" }, (right) => {
      const left = () => ({ left: [{ slot: otherSlot, until: new Date(untilMs).toISOString() }] });
      return {
        findCompromised: async (order) => (await right.findCompromised(order)).map((key) => ({ ...key, ...left() })),
        lookAtHolders: async (order) => (await right.lookAtHolders(order)).map((seen) => ({ ...seen, ...left() })),
      };
    });
    untilMs = (await now()) + 8 * minute;
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_before" })),
    );
    expect(slots.endOf("key_before")?.at ?? 0).toBeGreaterThanOrEqual(untilMs);
    expect((slots.endOf("key_before")?.at ?? Infinity) - untilMs).toBeLessThanOrEqual(5 * minute);
    expect(fateOf(result, "key_before")).toBe("ended");
  });

  test("is cut after that slot moved off it, where a rotation of a third key is told of it", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_batch" });
    const { answer, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(3 * minute);
      const said = await handle.executeUpdate<EscalationAnswer, [object]>("escalate", {
        args: [{ compromisedKeyId: "key_batch" }],
      });
      return { answer: said, result: await endOf(handle) };
    });
    expect(slots.endOf("key_batch")).toMatchObject({ heldBy: [] });
    expect(slots.holds[otherSlot]).not.toBe("key_batch");
    expect(answer).toMatchObject({ does: "moves-first", keyId: "key_batch", says: expect.stringContaining(otherSlot) });
    expect(fateOf(result, "key_batch")).toBe("ended");
  });

  test("is looked for again soon, where the look before its end could not tell of one slot", async () => {
    let looks = 0;
    const slots = playSlots(skipping, { [slot]: "key_cur" }, (right) => ({
      lookAtHolders: async (order) => {
        const unknown = ++looks === 1 ? [{ slot: otherSlot, why: "a list does not show its secret" }] : [];
        return (await right.lookAtHolders(order)).map((seen) => ({ ...seen, unknown }));
      },
    }));
    const toldMs = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(3 * minute);
      const at = await now();
      await handle.executeUpdate("escalate", { args: [{ compromisedKeyId: "key_stray" }] });
      await endOf(handle);
      return at;
    });
    expect(looks).toBeGreaterThan(1);
    expect((slots.endOf("key_stray")?.at ?? Infinity) - toldMs).toBeLessThan(5 * minute);
  });

  test("is cut after that slot moved off it, though no new key gets into the first one", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" }, () => ({
      stageAliases: ({ slot: into }) =>
        into === slot ? Promise.reject(failing("RequestInvalid")) : Promise.resolve({}),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation")),
    );
    expect(slots.endOf("key_old")).toMatchObject({ heldBy: [slot] });
    expect(result).toMatchObject({ outcome: "cut", outage: { slots: [slot] } });
  });

  test("is not ended by a second try where another slot took it after the first was refused", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_other" }, (right, world) => {
      let tries = 0;
      return {
        endCompromisedKey: async (order) => {
          if (order.keyId !== "key_batch" || ++tries > 1) return right.endCompromisedKey(order);
          world.holds[otherSlot] = "key_batch";
          throw failing("AdminCredentialRejected");
        },
      };
    });
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_batch" })),
    );
    expect(slots.endOf("key_batch")).toMatchObject({ heldBy: [] });
    expect(fateOf(result, "key_batch")).toBe("ended");
    expect(slots.holds[otherSlot]).not.toBe("key_batch");
  });

  test("is an outage there where cut-first did not see that slot, once it is seen", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_batch" }, (right) => ({
      findCompromised: async (order) =>
        (await right.findCompromised(order)).map((key) => ({ ...key, heldBy: [], unknown: [] })),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { strategy: "cut-first", compromisedKeyId: "key_batch" })),
    );
    expect(slots.endOf("key_batch")).toMatchObject({ heldBy: [otherSlot] });
    expect(result.outage).toMatchObject({ slots: [otherSlot] });
  });

  test("has emergencies started in every slot where cut-first cut it, for requests fail in all of them", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" });
    await skipping.withWorker(slots.played, async () => {
      await endOf(await startIn(skipping, "emergencyRotation", { strategy: "cut-first", compromisedKeyId: "key_old" }));
      await endOf(skipping.client.workflow.getHandle(slotWorkflowId(otherSlot)));
    });
    expect(slots.endOf("key_old")?.heldBy.toSorted()).toEqual([slot, otherSlot].toSorted());
    expect(Object.values(slots.holds)).not.toContain("key_old");
  });

  test("is cut after that slot moved off it, though the rotation that was told of it put no new key in", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" }, () => ({
      stageAliases: ({ slot: into }) =>
        into === slot ? Promise.reject(failing("RequestInvalid")) : Promise.resolve({}),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await handle.executeUpdate("escalate", { args: [{ compromisedKeyId: "key_old" }] });
      return endOf(handle);
    });
    expect(slots.endOf("key_old")).toMatchObject({ heldBy: [slot] });
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("is not put into another slot by the run that made it, which is told", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_batch" }, (right) => ({
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        ...(order.slot === otherSlot ? { policy: documentedPolicy({ approval: "before-install" }) } : {}),
      }),
      findCompromised: async (order) =>
        (await right.findCompromised(order)).map((key) => ({ ...key, madeFor: otherSlot })),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const there = await startIn(skipping, "normalRotation", other());
      await passUntil(skipping, () => slots.made.includes("key_1"));
      await skipping.env.sleep(2 * minute);
      await endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_1" }));
      return endOf(there);
    });
    expect(result).toMatchObject({ outcome: "aborted" });
    expect(fateOf(result, "key_1")).toBe("ended");
    expect(slots.holds[otherSlot]).toBe("key_batch");
  });

  test("is left alone by an emergency that only moves its slot, though that holds another key by now", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_batch" });
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { ...other(), compromisedKeyId: "key_old", cutBy: slot })),
    );
    expect(slots.ends).toEqual([]);
    expect(fateOf(result, "key_old")).toBe("named");
    expect(slots.holds[otherSlot]).toBe("key_batch");
  });

  test("is left to the emergency that cuts it, though no slot is seen to hold it any more", async () => {
    const slots = playSlots(skipping);
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_other", cutBy: otherSlot })),
    );
    expect(slots.ends).toEqual([]);
    expect(fateOf(result, "key_other")).toBe("named");
  });

  test("is told to the rotation that runs there, which hurries", async () => {
    const policy = documentedPolicy({ approval: "before-install" });
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" }, (right) => ({
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        ...(order.slot === otherSlot ? { policy } : {}),
      }),
    }));
    const beganMs = await now();
    await skipping.withWorker(slots.played, async () => {
      const there = await startIn(skipping, "normalRotation", other());
      // It waits for an approval, for days.
      await skipping.env.sleep(3 * minute);
      await endOf(await startIn(skipping, "emergencyRotation"));
      await endOf(there);
    });
    expect(slots.holds[otherSlot]).not.toBe("key_old");
    expect(slots.endOf("key_old")).toMatchObject({ heldBy: [] });
    expect((slots.endOf("key_old")?.at ?? Infinity) - beganMs).toBeLessThanOrEqual(40 * minute);
  });

  test("does not outlive both slots' moves where an emergency was started in each", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" });
    const beganMs = await now();
    const results = await skipping.withWorker(slots.played, async () => {
      const here = await startIn(skipping, "emergencyRotation");
      const there = await startIn(skipping, "emergencyRotation", other());
      return [await endOf(here), await endOf(there)];
    });
    expect(slots.endOf("key_old")).toMatchObject({ heldBy: [] });
    expect((slots.endOf("key_old")?.at ?? Infinity) - beganMs).toBeLessThanOrEqual(30 * minute);
    for (const result of results) expect(fateOf(result, "key_old")).toBe("ended");
  });
});

describe("a key that nobody knows", () => {
  test("is refused, and nothing is changed", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      findCompromised: () => Promise.reject(failing("KeyUnknown")),
    }));
    for (const strategy of ["swap-first", "cut-first"]) {
      const result = await skipping.withWorker(slots.played, async () =>
        endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_typo", strategy })),
      );
      expect(result.failed).toBe("KeyUnknown");
      expect(result.leftOver).toEqual([]);
    }
    expect(slots.ends).toEqual([]);
    expect(slots.made).toEqual([]);
  });

  test("is refused by a rotation that is told of it, which goes on as it was", async () => {
    const slots = playSlots(skipping, undefined, (right) => ({
      findCompromised: async (order) => {
        if (order.keyIds.includes("key_typo")) throw failing("KeyUnknown");
        return right.findCompromised(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(3 * minute);
      const joining = await startIn(skipping, "emergencyRotation", { workflowId: "e", compromisedKeyId: "key_typo" });
      expect((await endOf(joining)).failed).toBe("KeyUnknown");
      return endOf(handle);
    });
    expect(result).toMatchObject({ outcome: "rotated" });
    expect(fateOf(result, "key_typo")).toBeUndefined();
    expect(slots.endOf("key_typo")).toBeUndefined();
  });
});

describe("a child emergency", () => {
  test("does not tell the one that started it each of its steps, which nobody there listens to", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" });
    const events = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation");
      await passUntil(skipping, () => slots.endOf("key_old") !== undefined);
      await endOf(handle);
      return (await handle.fetchHistory()).events ?? [];
    });
    const signals = events.filter(({ workflowExecutionSignaledEventAttributes: signal }) => signal != null);
    expect(signals).toEqual([]);
  });
});

// The last of the file: the server skips no time any more after a child was started again under the id of one that ended.
describe("a slot that does not move", () => {
  test("does not get the key cut before the deadline by an abort of its emergency, and then fails, which is said", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" }, (right) => ({
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        ...(order.slot === otherSlot ? { canIssue: false } : {}),
      }),
    }));
    const beganMs = await now();
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation");
      const child = skipping.client.workflow.getHandle(slotWorkflowId(otherSlot));
      await passUntil(skipping, () => slots.played.calls.some(({ order }) => order["slot"] === otherSlot));
      await skipping.env.sleep(2 * minute);
      await child.signal("abortSignal", { by: "ada" });
      // It is asked again, and nobody hands a key in there.
      const ended = await endOf(handle);
      await child.signal("abortSignal", { by: "ada" });
      await endOf(child);
      return ended;
    });
    const { at = 0, heldBy } = slots.endOf("key_old") ?? {};
    expect(at - beganMs).toBeGreaterThanOrEqual(hour);
    expect(heldBy).toEqual([otherSlot]);
    expect(result.outage).toMatchObject({ slots: [otherSlot] });
  });
});
