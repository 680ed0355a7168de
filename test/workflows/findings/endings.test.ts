import { Context } from "@temporalio/activity";
import type { WorkflowHandle } from "@temporalio/client";
import { ApplicationFailure, CancelledFailure } from "@temporalio/common";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { setTimeout as pause } from "node:timers/promises";

import type { Duration } from "../../../src/domain/duration.ts";
import type { Progress, RotationResult } from "../../../src/domain/rotation.ts";
import {
  documentedPolicy,
  endOf,
  failing,
  fateOf,
  minute,
  playSlots,
  type Skipping,
  type Slots,
  slot,
  startIn,
  startSkipping,
} from "./slots.ts";

/** Promise 6: however a run ends, each key it answers for is held, ended or named. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

/** Runs `then` while the activity of this name is under way, and ends it afterwards. */
function gate(): { opened: Promise<void>; open(): void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open: () => open() };
}

const called = async (slots: Slots, name: string): Promise<void> =>
  expect.poll(() => slots.played.names(), { timeout: 10_000 }).toContain(name);

describe("an abort while a step is under way", () => {
  for (const workflowType of ["emergencyRotation", "normalRotation"]) {
    test(`of ${workflowType} waits for the key that is being made, and ends it`, async () => {
      const making = gate();
      const slots = playSlots(skipping, undefined, (right) => ({
        issueKey: async (order) => {
          await making.opened;
          return right.issueKey(order);
        },
      }));
      const result = await skipping.withWorker(slots.played, async () => {
        const handle = await startIn(skipping, workflowType);
        await called(slots, "issueKey");
        await handle.signal("abortSignal", { by: "ada" });
        await pause(1_000);
        making.open();
        return endOf(handle);
      });
      expect(result).toMatchObject({ outcome: "aborted", newKey: null });
      expect(slots.endOf("key_1")).toBeDefined();
      expect(fateOf(result, "key_1")).toBe("ended");
      expect(result.steps.map(({ step }) => step)).not.toContain("cutKey");
      expect(slots.played.names()).not.toContain("cutKey");
    });
  }

  for (const stop of ["an abort", "a cancellation"]) {
    const say = (handle: WorkflowHandle): Promise<unknown> =>
      stop === "an abort" ? handle.signal("abortSignal", { by: "ada" }) : handle.cancel();

    test(`${stop} while a new key is refused ends that key, and names none that it can end`, async () => {
      const verifying = gate();
      const slots = playSlots(skipping, undefined, () => ({
        verifyAtProvider: async () => {
          await verifying.opened;
          throw failing("KeyRejected");
        },
      }));
      const result = await skipping.withWorker(slots.played, async () => {
        const handle = await startIn(skipping, "normalRotation");
        await called(slots, "verifyAtProvider");
        await say(handle);
        await pause(500);
        verifying.open();
        return endOf(handle);
      });
      expect(result).toMatchObject({ outcome: "aborted", newKey: null, leftOver: [] });
      expect(fateOf(result, "key_1")).toBe("ended");
      expect(slots.endOf("key_1")).toBeDefined();
    });

    test(`${stop} while a refused key is settled has it settled at the end`, async () => {
      let settled = 0;
      const slots = playSlots(skipping, undefined, (right) => ({
        verifyAtProvider: async () => {
          throw failing("KeyRejected");
        },
        settleKeys: async (order) => {
          if (++settled > 1) return right.settleKeys(order);
          await Context.current().cancelled;
          throw new Error("unreachable");
        },
      }));
      const result = await skipping.withWorker(slots.played, async () => {
        const handle = await startIn(skipping, "normalRotation");
        await called(slots, "settleKeys");
        await say(handle);
        return endOf(handle);
      });
      expect(result).toMatchObject({ outcome: "aborted", newKey: null, leftOver: [] });
      expect(fateOf(result, "key_1")).toBe("ended");
      expect(slots.endOf("key_1")).toBeDefined();
    });
  }

  test("names a handed-in key that was being looked at", async () => {
    const looking = gate();
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), canIssue: false }),
      acceptKey: async ({ sealed }) => {
        await looking.opened;
        return { id: "key_by_hand", fingerprint: "0123456789abcdef", sealed };
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(minute);
      const submitting = handle.executeUpdate("submitKey", { args: [{ sealed: "sealed" }] });
      await called(slots, "acceptKey");
      await handle.signal("abortSignal", { by: "ada" });
      await pause(500);
      looking.open();
      expect(await submitting).toEqual({ taken: { id: "key_by_hand" } });
      return endOf(handle);
    });
    expect(result.leftOver.map(({ id }) => id)).toEqual(["key_by_hand"]);
  });

  test("of a cut that goes first says that the key was cut, when, and that requests fail", async () => {
    const cutting = gate();
    const slots = playSlots(skipping, undefined, (right) => ({
      cutKey: async (order) => {
        await cutting.opened;
        return right.cutKey(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", {
        strategy: "cut-first",
        compromisedKeyId: "key_old",
      });
      await called(slots, "cutKey");
      await handle.signal("abortSignal", { by: "ada" });
      await pause(500);
      cutting.open();
      return endOf(handle);
    });
    expect(slots.endOf("key_old")).toBeDefined();
    expect(fateOf(result, "key_old")).toBe("ended");
    expect(result.times.cut).toBeDefined();
    expect(result.outage).toMatchObject({ slots: [slot] });
    expect(result.outage?.until).toBeUndefined();
  });
});

describe("a cut that is refused after an attempt that was not answered", () => {
  test.each([true, false])("is an outage where that one may have been made (%s)", async (mayBeCut) => {
    const slots = playSlots(skipping, undefined, () => ({
      cutKey: () => Promise.reject(failing("AdminCredentialRejected", { details: [{ mayBeCut }] })),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { strategy: "cut-first", compromisedKeyId: "key_old" })),
    );
    expect(result.outcome).toBe("rotated");
    expect(result.outage?.slots).toEqual(mayBeCut ? [slot] : undefined);
  });
});

describe("a clean-up", () => {
  const unanswered = { issueKey: () => Promise.reject(failing("Unavailable")) };

  test("takes the keys it finds before they are ended, so that a lost answer loses none", async () => {
    const slots = playSlots(skipping, undefined, (right) => ({
      ...unanswered,
      settleKeys: async (order) =>
        order.known?.includes("key_lost") === true
          ? right.settleKeys(order)
          : { keys: [], found: ["key_lost"], warnings: [] },
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(slots.endOf("key_lost")).toBeDefined();
    expect(fateOf(result, "key_lost")).toBe("ended");
  });

  test("looks twice at what a slot holds: somebody may have replaced it in between", async () => {
    let looks = 0;
    const slots = playSlots(skipping, undefined, (right, { holds }) => ({
      ...unanswered,
      settleKeys: async (order) => {
        if (++looks === 2) holds[slot] = "key_by_hand";
        return right.settleKeys(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(fateOf(result, "key_old")).toBe("named");
  });

  test.each([true, false])("that sees the new key out of its slot (%s) calls nothing rotated", async (seen) => {
    const slots = playSlots(skipping, undefined, (right) => ({
      settleKeys: async (order) => ({ ...(await right.settleKeys(order)), ...(seen ? { notHeld: ["key_1"] } : {}) }),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(result.failed).toBe(seen ? "SlotChanged" : undefined);
    expect(result.outcome).toBe(seen ? "aborted" : "rotated");
  });
});

describe("an installation that stops before its write has left", () => {
  const stopped = (sent: boolean) =>
    ApplicationFailure.create({ type: "SlotChanged", message: "changed", nonRetryable: true, details: [{ sent }] });

  test("leaves the new key to be ended, since nobody was given it", async () => {
    const slots = playSlots(skipping, undefined, () => ({ installKey: () => Promise.reject(stopped(false)) }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(result.failed).toBe("SlotChanged");
    expect(fateOf(result, "key_1")).toBe("ended");
  });

  test("leaves it to be ended after an abort too", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      installKey: async () => {
        await Context.current().cancelled.catch(() => undefined);
        throw new CancelledFailure("cancelled", [{ sent: false }]);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await called(slots, "installKey");
      await handle.signal("abortSignal", { by: "ada" });
      return endOf(handle);
    });
    expect(result.failed).toBeUndefined();
    expect(result.outcome).toBe("aborted");
    expect(fateOf(result, "key_1")).toBe("ended");
  });

  test.each([true, undefined])("names the new key where the write may have left (sent: %s)", async (sent) => {
    const slots = playSlots(skipping, undefined, () => ({
      installKey: () => Promise.reject(sent === undefined ? failing("SlotChanged") : stopped(sent)),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(slots.endOf("key_1")).toBeUndefined();
    expect(result.leftOver.map(({ id }) => id)).toEqual(["key_1"]);
  });
});

describe("how a run ends", () => {
  test("as NobodyDecided where nobody approved in time, and as an outcome where somebody aborted", async () => {
    const policy = documentedPolicy({ approval: "before-install", personDeadline: "1h" as Duration });
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), policy }),
    }));
    const [late, aborted] = await skipping.withWorker(slots.played, async () => {
      const first = await endOf(await startIn(skipping, "normalRotation"));
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(10 * minute);
      await handle.signal("abortSignal", { by: "ada", why: "wrong day" });
      return [first, await endOf(handle)];
    });
    expect(late?.failed).toBe("NobodyDecided");
    expect(aborted).toMatchObject({ outcome: "aborted", reason: "aborted by ada: wrong day" });
    for (const result of [late, aborted]) expect(fateOf(result ?? { keys: [] }, "key_old")).toBe("held");
  });

  test("as NobodyDecided where nobody handed a key in", async () => {
    const policy = documentedPolicy({ personDeadline: "1h" as Duration });
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), policy, canIssue: false }),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(result.failed).toBe("NobodyDecided");
  });

  test("at once, and nothing is changed, where a run timeout would kill it in the middle", async () => {
    const slots = playSlots(skipping);
    const { result, names } = await skipping.withWorker(slots.played, async () => {
      const handle: WorkflowHandle = await skipping.client.workflow.start("normalRotation", {
        taskQueue: "keyturn",
        workflowId: `keyturn/${slot}`,
        args: [{ slot }],
        workflowRunTimeout: "5 minutes",
      });
      return { result: await endOf(handle), names: slots.played.names() };
    });
    expect(result.failed).toBe("InvalidInput");
    expect(names).not.toContain("issueKey");
  });

  test("under its own rotation's id where it only joins a running one", async () => {
    const slots = playSlots(skipping);
    const { joined, progress, rotated } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(3 * minute);
      const shown: Progress = await handle.query("progress");
      const joining = await startIn(skipping, "emergencyRotation", { workflowId: "e", compromisedKeyId: "key_old" });
      return { progress: shown, joined: await endOf(joining), rotated: await endOf(handle) };
    });
    expect(joined).toMatchObject({ outcome: "joined", rotationId: progress.rotationId });
    expect(rotated).toMatchObject({ outcome: "rotated", rotationId: progress.rotationId });
  });

  test("as the run it follows, though it is told something as that ends", async () => {
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        due: { due: false, reason: "it is young" },
      }),
    }));
    const results = await skipping.withWorker(slots.played, async () => {
      const ends: RotationResult[] = [];
      for (const waitMs of [0, 20, 60, 120]) {
        const follower = await startIn(skipping, "normalRotation", { workflowId: `f${waitMs}`, onlyIfDue: true });
        await pause(waitMs);
        await follower.signal("approveSignal", { by: "ada" }).catch(() => undefined);
        ends.push(await endOf(follower));
      }
      return ends;
    });
    for (const result of results) expect(result).toMatchObject({ outcome: "kept" });
  });
});
