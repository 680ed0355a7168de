import { setTimeout as pause } from "node:timers/promises";
import { Context } from "@temporalio/activity";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { type Progress, type RotationResult, slotWorkflowId, type Submitted } from "../../../src/domain/rotation.ts";
import { play } from "../../support/time-skipping.ts";
import {
  documentedPolicy,
  endOf,
  failing,
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

/** What people say, and what comes to light, at moments nobody thinks of. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const entryOf = (result: Pick<RotationResult, "keys">, keyId: string) => result.keys.find(({ id }) => id === keyId);
const now = (): Promise<number> => skipping.env.currentTimeMs();
const toldOf = (compromisedKeyId: string): { args: [object] } => ({ args: [{ compromisedKeyId, by: "ada" }] });
const hold = documentedPolicy({ emergency: { ...documentedPolicy().emergency, atDeadline: "hold" } });
const handedIn = { canIssue: false, handIn: { where: "x", keyName: "k", keyType: "t", belongsTo: "b" } };

describe("a key that policy holds past its deadline", () => {
  test("is ended after it, once the slot moved and nobody holds it", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old" }, () => ({ inspection: { policy: hold, ...handedIn } }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" });
      await skipping.env.sleep(70 * minute);
      await handle.executeUpdate("submitKey", { args: [{ sealed: "sealed" }] });
      return endOf(handle);
    });
    expect(result.outcome).toBe("rotated");
    expect(entryOf(result, "key_old")).toMatchObject({ fate: "ended" });
  });

  test("is ended at it, where another slot moved off it after the last look", async () => {
    const slots = playSlots(skipping, { [slot]: "key_cur", [otherSlot]: "key_stray" }, (right) => ({
      inspection: { policy: hold },
      inspectSlot: async (order) => {
        if (order.slot === otherSlot) throw failing("AdminCredentialRejected");
        return right.inspectSlot(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_stray" });
      await skipping.env.sleep(hour - 10_000);
      slots.holds[otherSlot] = "key_by_hand";
      return endOf(handle);
    });
    expect(entryOf(result, "key_stray")).toMatchObject({ fate: "ended" });
    expect(slots.endOf("key_stray")?.heldBy).toEqual([]);
  });

  test("is not ended by a try that succeeds at last, where a slot took it meanwhile", async () => {
    const startedAt = await now();
    const slots = playSlots(skipping, { [slot]: "key_cur", [otherSlot]: "key_b" }, (right) => ({
      inspection: { policy: hold },
      endCompromisedKey: async (order) => {
        if ((await now()) < startedAt + 100 * minute) throw failing("AdminCredentialRejected");
        return right.endCompromisedKey(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_stray" });
      await skipping.env.sleep(80 * minute);
      slots.holds[otherSlot] = "key_stray";
      return endOf(handle);
    });
    expect(slots.endOf("key_stray")).toBeUndefined();
    expect(entryOf(result, "key_stray")).toMatchObject({ fate: "named", why: expect.stringContaining(otherSlot) });
  });
});

describe("a compromised key that nobody knew at its deadline", () => {
  test("is ended once it is seen", async () => {
    const startedAt = await now();
    let asked = 0;
    const slots = playSlots(skipping, { [slot]: "key_old" }, (right) => ({
      inspectSlot: async (order) => {
        if ((await now()) < startedAt + 3 * hour) throw failing("Unavailable", { retried: true });
        return right.inspectSlot(order);
      },
      findCompromised: async (order) => {
        if (order.providerOnly === true && ++asked === 1) throw failing("KeyUnknown");
        return right.findCompromised(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" })),
    );
    expect(asked).toBeGreaterThan(0);
    expect(entryOf(result, "key_old")).toMatchObject({ fate: "ended" });
    expect(slots.endOf("key_old")).toBeDefined();
  });
});

describe("a rotation that is told of its held key while it looks whether it is due", () => {
  test("replaces it, whatever its age", async () => {
    let look = (): void => undefined;
    const looked = new Promise<void>((resolve) => (look = resolve));
    const played = play(now, {
      inspectSlot: async (order) => {
        await looked;
        return { ...(await play(now).activities.inspectSlot(order)), due: { due: false, reason: "3d old" } };
      },
    });
    const result = await skipping.withWorker(played, async () => {
      const handle = await startIn(skipping, "normalRotation", { onlyIfDue: true });
      await handle.signal("escalateSignal", { compromisedKeyId: "key_old", by: "ada" });
      await passUntil(skipping, async () => (await handle.query<Progress>("progress")).phase === "inspectSlot");
      look();
      return endOf(handle);
    });
    expect(result).toMatchObject({ outcome: "rotated", reason: expect.stringContaining("ada says key_old") });
    expect(entryOf(result, "key_old")).toMatchObject({ fate: "ended" });
    expect(result.outage).toBeUndefined();
  });
});

describe("a hand-over", () => {
  test("is called off by an abort that comes while what is under way ends", async () => {
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => (release = resolve));
    let asked = 0;
    const right = play(now).activities;
    const slots = playSlots(skipping, { [slot]: "key_old" }, () => ({
      checkIdle: async (order) => {
        asked += 1;
        await gate;
        return right.checkIdle(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      // In short steps: while an activity is under way real time passes.
      await passUntil(skipping, () => asked > 0, { step: 1 / 30 });
      await handle.executeUpdate("escalate", toldOf("key_1"));
      await handle.signal("abortSignal", { by: "bob", why: "false alarm" });
      release();
      return endOf(skipping.client.workflow.getHandle(handle.workflowId));
    });
    expect(result).toMatchObject({ kind: "normal", outcome: "aborted", reason: "aborted by bob: false alarm" });
    expect(slots.endOf("key_1")).toBeUndefined();
    expect(entryOf(result, "key_1")).toMatchObject({ fate: "named", why: expect.stringContaining("nobody cuts it") });
  });

  test("that is called off leaves no alias that it had kept the run from removing", async () => {
    let removals = 0;
    const slots = playSlots(skipping, { [slot]: "key_old" }, () => ({
      removeAliases: async () => {
        if (++removals > 1) return;
        const handle = skipping.client.workflow.getHandle(slotWorkflowId(slot));
        await handle.executeUpdate("escalate", toldOf("key_1"));
        await handle.signal("abortSignal", { by: "bob", why: "false alarm" });
        await Context.current().cancelled;
      },
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(entryOf(result, "key_1")).toMatchObject({ fate: "named", why: expect.stringContaining("nobody cuts it") });
    expect(removals).toBeGreaterThan(1);
    expect(result.warnings.join("; ")).not.toContain("could not be removed");
  });

  test("leaves an approval that was shown before it without a wait that it counts for", async () => {
    let isFollowed = false;
    const slots = playSlots(skipping, { [slot]: "key_old" }, () => ({
      inspection: { staged: false },
      checkIdle: async () => {
        const later = new Date((await now()) + hour).toISOString();
        const used = { kind: "used", note: "used", lastUsed: new Date(0).toISOString(), clientsBefore: "yes" } as const;
        return { ...used, newKeyRequests: 9, probeAt: later, askAt: later };
      },
      verifyThroughGateway: async ({ goodAnswers }) => {
        if (isFollowed) throw failing("AdminCredentialRejected");
        return { probes: goodAnswers, warnings: [] };
      },
    }));
    const ids = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      const follower = skipping.client.workflow.getHandle(handle.workflowId);
      const waiting = async () => (await follower.query<Progress>("progress")).waiting;
      await passUntil(skipping, async () => (await waiting())?.asks?.kind === "approval");
      const shown = await waiting();
      isFollowed = true;
      await handle.executeUpdate("escalate", toldOf("key_1"));
      await passUntil(skipping, async () => {
        const wait = await waiting();
        return wait?.asks?.kind === "approval" && wait.asks.of === "cut-now";
      });
      const late = follower.executeUpdate("approve", { args: [{ by: "ada", wait: shown?.id }] });
      await expect(late).rejects.toThrow();
      const asks = await waiting();
      await follower.signal("abortSignal", { by: "bob" });
      await endOf(follower);
      return [shown?.id, asks?.id];
    });
    expect(Number(ids[1]?.slice(1))).toBeGreaterThan(Number(ids[0]?.slice(1)));
    expect(slots.endOf("key_1")).toBeUndefined();
  });
});

describe("an emergency", () => {
  test("with a timeout that is too short for all its waits says so, and goes on", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old" });
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(
        await skipping.client.workflow.start("emergencyRotation", {
          taskQueue: "keyturn",
          workflowId: `keyturn/${slot}`,
          args: [{ slot, compromisedKeyId: "key_old" }],
          workflowExecutionTimeout: "12 hours",
        }),
      ),
    );
    expect(result.outcome).toBe("rotated");
    expect(result.warnings.join()).toContain("the execution timeout of 12h is shorter");
  });

  test("that only ends another key sets no next date for the slot's own", async () => {
    const slots = playSlots(skipping, { [slot]: "key_cur" });
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_stray" })),
    );
    expect(entryOf(result, "key_stray")).toMatchObject({ fate: "ended" });
    expect(result.nextDue).toBeUndefined();
  });

  test("which cannot find out which key leaked says so, though it cut another that it was told of meanwhile", async () => {
    let fail = (): void => undefined;
    const looked = new Promise<void>((resolve) => (fail = resolve));
    const slots = playSlots(skipping, { [slot]: "key_cur" }, (right) => ({
      findCompromised: async (order) => {
        if (order.leaked === undefined) return right.findCompromised(order);
        await looked;
        throw failing("ResponseUnexpected");
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { leaked: "sealed", strategy: "cut-first" });
      await handle.signal("escalateSignal", { compromisedKeyId: "key_stray", by: "ada" });
      await expect.poll(() => slots.played.names()).toContain("findCompromised");
      fail();
      return endOf(handle);
    });
    expect(entryOf(result, "key_stray")).toMatchObject({ fate: "ended" });
    expect(result.unknown).toContain("which key has the leaked value");
  });

  test("that is called off after a cut which only switched off says so", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old" }, () => ({
      cutKey: async () => ({ at: new Date(await now()).toISOString(), how: "disabled" }),
      endCompromisedKey: () => Promise.reject(failing("AdminCredentialRejected")),
      issueKey: () => Promise.reject(failing("KeyLimitReached")),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", {
        compromisedKeyId: "key_old",
        strategy: "cut-first",
      });
      await skipping.env.sleep(5 * minute);
      await handle.signal("abortSignal", { by: "bob" });
      return endOf(handle);
    });
    expect(entryOf(result, "key_old")).toMatchObject({ why: expect.stringContaining("SWITCHED OFF") });
  });

  test("without an admin credential puts a new key in first, where the slot may hold the one that was named", async () => {
    const unknown = [{ slot, why: "nothing tells" }];
    const byHand = { missing: "OPENAI_ADMIN_KEY is not set", oldKey: "ends-in-9AbC", where: "console", unknown: [] };
    const played = play(now, {
      inspection: { ...handedIn, held: { id: "ends-in-9AbC", how: "preview" }, byHand },
      findCompromised: async ({ keyIds }) =>
        keyIds.map((id) => ({ id, how: "id", state: "unknown", through: slot, heldBy: [], unknown })),
      lookAtHolders: async ({ keyIds }) => keyIds.map((keyId) => ({ keyId, yes: [], unknown })),
      confirmRevoked: async () => ({ note: "not seen" }),
    });
    const asked = await skipping.withWorker(played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_prod_1" });
      await passUntil(skipping, async () => (await handle.query<Progress>("progress")).waiting?.asks !== undefined);
      const { waiting } = await handle.query<Progress>("progress");
      await handle.terminate();
      return waiting?.asks?.kind;
    });
    expect(asked).toBe("key");
  });
});

describe("a word about a key that nobody knows", () => {
  test("leaves nothing of an abort that came while it was looked up: told again, it is cut", async () => {
    const startedAt = await now();
    let asked = 0;
    let answer = (): void => undefined;
    const gate = new Promise<void>((resolve) => (answer = resolve));
    const slots = playSlots(skipping, { [slot]: "key_cur" }, (right) => ({
      findCompromised: async (order) => {
        if (order.keyIds.includes("key_stray") && ++asked === 1) {
          await gate;
          throw failing("KeyUnknown");
        }
        return right.findCompromised(order);
      },
      removeAliases: async () => {
        if ((await now()) < startedAt + 20 * minute) throw failing("Unavailable", { retried: true });
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.holds[slot] === "key_1");
      await handle.signal("escalateSignal", { compromisedKeyId: "key_stray", by: "ada" });
      await expect.poll(() => asked, { timeout: 10_000 }).toBe(1);
      await handle.signal("abortSignal", { by: "bob" });
      answer();
      await expect.poll(() => slots.played.names().filter((name) => name === "findCompromised").length).toBe(1);
      await pause(300);
      await handle.executeUpdate("escalate", toldOf("key_stray"));
      return endOf(handle);
    });
    expect(entryOf(result, "key_stray")).toMatchObject({ fate: "ended" });
  });
});

describe("two keys that are handed in at once", () => {
  test("are not both taken: the second is refused, and named", async () => {
    let handed = 0;
    let accept = (): void => undefined;
    const gate = new Promise<void>((resolve) => (accept = resolve));
    const slots = playSlots(skipping, { [slot]: "key_old" }, () => ({
      inspection: handedIn,
      acceptKey: async ({ sealed }) => {
        const id = `key_h${++handed}`;
        await gate;
        return { id, fingerprint: "0123456789abcdef", sealed };
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, async () => (await handle.query<Progress>("progress")).waiting?.asks?.kind === "key");
      const submit = (sealed: string) =>
        handle.startUpdate<Submitted, [object]>("submitKey", { args: [{ sealed }], waitForStage: "ACCEPTED" });
      const [first, second] = [await submit("a"), await submit("b")];
      accept();
      expect(await first.result()).toEqual({ taken: { id: "key_h1" } });
      await expect(second.result()).rejects.toThrow();
      return endOf(handle);
    });
    expect(slots.holds[slot]).toBe("key_h1");
    expect(result.keys.map(({ id }) => id)).toEqual(["key_old", "key_h1"]);
  });
});
