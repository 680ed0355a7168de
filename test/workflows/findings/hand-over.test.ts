import { Context } from "@temporalio/activity";
import type { WorkflowHandle } from "@temporalio/client";
import { CancelledFailure } from "@temporalio/common";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { durationOf } from "../../../src/domain/duration.ts";
import { type Progress, slotWorkflowId, type Submitted } from "../../../src/domain/rotation.ts";
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

/** A run whose new key is called compromised once it was installed: an emergency goes on with all its keys, at once. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const now = (): Promise<number> => skipping.env.currentTimeMs();
const toldOf = (compromisedKeyId: string): { args: [object] } => ({ args: [{ compromisedKeyId, by: "ada" }] });
/** Whatever runs under the slot's id now: after a hand-over that is another run. */
const running = (handle: Pick<WorkflowHandle, "workflowId">): WorkflowHandle =>
  skipping.client.workflow.getHandle(handle.workflowId);
const calls = (slots: Slots, ...names: string[]): unknown[] =>
  slots.played.calls.filter(({ name }) => names.includes(name)).map(({ order }) => order["keyId"]);

describe("a leaked value whose key could not be found out", () => {
  test("goes with a hand-over, and its key is ended by the deadline of the first word", async () => {
    let asked = 0;
    let release = (): void => undefined;
    const told = new Promise<void>((resolve) => (release = resolve));
    const slots = playSlots(skipping, undefined, (right) => ({
      findCompromised: async ({ leaked, ...order }) => {
        if (leaked === undefined) return right.findCompromised(order);
        await told;
        if (++asked === 1) throw failing("ResponseUnexpected");
        return right.findCompromised({ ...order, keyIds: ["key_lost"] });
      },
    }));
    const beganMs = await now();
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { leaked: "sealed.value" });
      await handle.signal("escalateSignal", { compromisedKeyId: "key_old", by: "ada" });
      release();
      return endOf(handle);
    });
    expect(asked).toBe(2);
    expect(fateOf(result, "key_old")).toBe("ended");
    expect(fateOf(result, "key_lost")).toBe("ended");
    expect((slots.endOf("key_lost")?.at ?? Infinity) - beganMs).toBeLessThanOrEqual(hour + minute);
  });
});

describe("a serving key that is called compromised while an emergency ends another one", () => {
  const unanswered = { retried: true };

  test("is replaced before it is cut, though the end of the other is not answered for hours", async () => {
    const beganMs = await now();
    const slots = playSlots(skipping, undefined, (right) => ({
      endCompromisedKey: async (order) => {
        const isAway = order.keyId === "key_stray" && (await now()) < beganMs + 5 * hour;
        if (isAway) throw failing("Unavailable", unanswered);
        return right.endCompromisedKey(order);
      },
      cutKey: async (order) => {
        const isAway = order.keyId === "key_stray" && (await now()) < beganMs + 5 * hour;
        if (isAway) throw failing("Unavailable", unanswered);
        return right.cutKey(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_stray" });
      await skipping.env.sleep(5 * minute);
      await handle.executeUpdate("escalate", toldOf("key_old"));
      return endOf(running(handle));
    });
    expect(slots.endOf("key_old")).toMatchObject({ heldBy: [] });
    expect(fateOf(result, "key_old")).toBe("ended");
    expect(fateOf(result, "key_stray")).toBe("ended");
  });

  test("is cut by its own deadline, though the cut of the other at its deadline is not answered for hours", async () => {
    const beganMs = await now();
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_batch" }, (right) => ({
      issueKey: async (order) => {
        if (order.slot === otherSlot) throw failing("KeyLimitReached");
        return right.issueKey(order);
      },
      cutKey: async (order) => {
        const isAway = order.keyId === "key_batch" && (await now()) < beganMs + 9 * hour;
        if (isAway) throw failing("Unavailable", unanswered);
        return right.cutKey(order);
      },
    }));
    const toldMs = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_batch" });
      await passUntil(skipping, () => slots.played.names().includes("cutKey"));
      const at = await now();
      await handle.executeUpdate("escalate", toldOf("key_old"));
      await endOf(running(handle));
      return at;
    });
    expect((slots.endOf("key_old")?.at ?? Infinity) - toldMs).toBeLessThanOrEqual(61 * minute);
    expect(slots.endOf("key_old")).toMatchObject({ heldBy: [] });
    expect(slots.endOf("key_batch")).toBeDefined();
  });
});

describe("a new key that is called compromised after it was installed", () => {
  test("has its clocks at once, though aliases cannot be removed for hours", async () => {
    let toldMs = Infinity;
    const slots = playSlots(skipping, undefined, () => ({
      removeAliases: async () => {
        if ((await now()) < toldMs + 3 * hour) throw failing("Unavailable", { retried: true });
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      toldMs = await now();
      await handle.executeUpdate("escalate", toldOf("key_1"));
      await skipping.env.sleep(2 * minute);
      const progress: Progress = await running(handle).query("progress");
      expect(progress.kind).toBe("emergency");
      expect(Date.parse(progress.clocks?.revokeBy ?? "")).toBeLessThanOrEqual(toldMs + hour + minute);
      return endOf(running(handle));
    });
    expect((slots.endOf("key_1")?.at ?? Infinity) - toldMs).toBeLessThanOrEqual(61 * minute);
    expect(fateOf(result, "key_1")).toBe("ended");
    expect(slots.holds[slot]).toBe("key_2");
  });

  test("is ended within the hour though the death of the old key is watched for hours", async () => {
    let watchedMs = Infinity;
    const slots = playSlots(skipping, undefined, () => ({
      confirmRevoked: async () => {
        watchedMs = Math.min(watchedMs, await now());
        if ((await now()) < watchedMs + 3 * hour) throw failing("Unavailable", { retried: true });
        return { deadAt: new Date(await now()).toISOString(), note: "seen dead" };
      },
    }));
    const { toldMs, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.played.names().includes("confirmRevoked"));
      const at = await now();
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return { toldMs: at, result: await endOf(running(handle)) };
    });
    expect((slots.endOf("key_1")?.at ?? Infinity) - toldMs).toBeLessThanOrEqual(61 * minute);
    expect(fateOf(result, "key_1")).toBe("ended");
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("is seen in the slot, where its write was not answered and landed after the look, and requests fail", async () => {
    const slots = playSlots(skipping, undefined, (right, { holds }) => ({
      installKey: async () => {
        await Context.current().cancelled.catch(() => undefined);
        throw new CancelledFailure("cancelled", [{ sent: true }]);
      },
      findCompromised: async (order) => {
        const found = await right.findCompromised(order);
        // Its provider had ended it by itself.
        return found.map((key) => (key.id === "key_1" ? { ...key, state: "dead" } : key));
      },
      gatherEvidence: async ({ from, to }) => {
        holds[slot] = "key_1";
        return {
          from,
          to,
          providerRequests: 0,
          providerTokens: 0,
          gatewayRequests: 0,
          strangers: [],
          strangeModels: [],
          notes: [],
        };
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await expect.poll(() => slots.played.names(), { timeout: 10_000 }).toContain("installKey");
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    expect(fateOf(result, "key_1")).toBe("ended");
    expect(fateOf(result, "key_old")).toBe("named");
    expect(result.outage).toMatchObject({ slots: [slot] });
    expect(result.outage?.until).toBeUndefined();
  });

  test("leaves the old key named whose revocation was being refused", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      revokeKey: () => Promise.reject(failing("AdminCredentialRejected")),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.played.names().includes("revokeKey"));
      await skipping.env.sleep(20 * minute);
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    expect(slots.endOf("key_old")).toBeUndefined();
    expect(result).toMatchObject({ kind: "emergency", outcome: "rotated", newKey: { id: "key_2" } });
    expect(result.leftOver.map(({ id }) => id)).toEqual(["key_old"]);
    expect(fateOf(result, "key_1")).toBe("ended");
  });

  test("keeps its deadline though the policy can be read no more, and is edited meanwhile", async () => {
    const edited = documentedPolicy({ emergency: { ...documentedPolicy().emergency, atDeadline: "hold" } });
    let looks = 0;
    const slots = playSlots(skipping, undefined, (right) => ({
      readPolicy: () => Promise.reject(failing("ResponseUnexpected")),
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        ...(++looks > 1 ? { policy: edited } : {}),
      }),
      issueKey: async (order) => {
        if (slots.made.length > 0) throw failing("KeyLimitReached");
        return right.issueKey(order);
      },
    }));
    const { toldMs, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      const at = await now();
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return { toldMs: at, result: await endOf(running(handle)) };
    });
    expect((slots.endOf("key_1")?.at ?? Infinity) - toldMs).toBeLessThanOrEqual(61 * minute);
    expect(fateOf(result, "key_1")).toBe("ended");
  });

  test("takes along what the rotation would have said: keys, warnings, unknown checks, and its name", async () => {
    let looks = 0;
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        ...(++looks > 1
          ? {}
          : {
              earlier: [{ id: "key_earlier", why: "clients may use it", state: "alive" as const }],
              warnings: ["the scopes are odd"],
              unknown: ["the quota"],
            }),
      }),
    }));
    const { before, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      const { rotationId }: Progress = await handle.query("progress");
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return { before: rotationId, result: await endOf(running(handle)) };
    });
    expect(result.rotationId).toBe(before);
    expect(result.leftOver.map(({ id }) => id).toSorted()).toEqual(["key_earlier", "key_old"]);
    expect(result.warnings).toContain("the scopes are odd");
    expect(result.unknown).toContain("the quota");
  });

  test("leaves no key half cut: what was switched off before is ended after, and nobody calls it alive", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      cutKey: async () => ({ at: new Date(await now()).toISOString(), how: "disabled" }),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", {
        strategy: "cut-first",
        compromisedKeyId: "key_old",
      });
      await passUntil(skipping, () => slots.holds[slot] === "key_1");
      await skipping.env.sleep(minute);
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    expect(fateOf(result, "key_old")).toBe("ended");
    expect(fateOf(result, "key_1")).toBe("ended");
    expect(slots.endOf("key_old")).toBeDefined();
    expect(result.leftOver).toEqual([]);
  });

  test("of an emergency that only moved its slot does not wait for ever for what another one cuts", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" });
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old", cutBy: otherSlot });
      await passUntil(skipping, () => slots.holds[slot] === "key_1");
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    expect(result.keys.find(({ id }) => id === "key_old")).toMatchObject({
      fate: "named",
      why: expect.stringContaining(`the emergency of ${otherSlot} cuts it`) as string,
    });
    expect(slots.holds[slot]).toBe("key_2");
  });

  test("is no clean-up's to end: each is told which keys its run knows", async () => {
    const slots = playSlots(skipping);
    await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    const settled = slots.played.calls.filter(({ name }) => name === "settleKeys");
    expect(settled.length).toBeGreaterThan(0);
    for (const { order } of settled) expect(order["known"]).toEqual(expect.arrayContaining(["key_old", "key_1"]));
  });

  test("does not take with it the old key, which another slot holds and nobody called compromised", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" });
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    await skipping.env.sleep(2 * hour);
    expect(slots.endOf("key_old")).toBeUndefined();
    expect(calls(slots, "endCompromisedKey", "cutKey", "revokeKey")).not.toContain("key_old");
    expect(result.keys.find(({ id }) => id === "key_old")).toMatchObject({
      fate: "held",
      why: `${otherSlot} holds it`,
    });
  });

  test("goes on however much was said of it, though a start takes fewer words", async () => {
    const slots = playSlots(skipping);
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      const why = "it was seen ".repeat(41);
      await handle.executeUpdate("escalate", { args: [{ compromisedKeyId: "key_1", by: "ada", why }] });
      return endOf(running(handle));
    });
    expect(result).toMatchObject({ kind: "emergency", outcome: "rotated", newKey: { id: "key_2" } });
    expect(fateOf(result, "key_1")).toBe("ended");
  });

  test("is replaced before it is cut where no mark tells that the slot holds it, and the last result names the old key", async () => {
    const remembered = (id: string): string[] => (id === "key_old" ? [slot] : []);
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        held: { id: order.heldKeyId ?? "key_old", how: order.heldKeyId === undefined ? "last result" : "operator" },
      }),
      findCompromised: async (order) =>
        (await right.findCompromised(order)).map((key) => ({ ...key, heldBy: remembered(key.id) })),
      lookAtHolders: async ({ keyIds }) => keyIds.map((keyId) => ({ keyId, yes: remembered(keyId), unknown: [] })),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    expect(slots.endOf("key_1")).toMatchObject({ heldBy: [] });
    expect(result).toMatchObject({ kind: "emergency", outcome: "rotated", newKey: { id: "key_2" } });
  });

  test("does not bring back the emergency that a person called off before", async () => {
    let abortedMs = Infinity;
    const slots = playSlots(skipping, undefined, () => ({
      removeAliases: async () => {
        if ((await now()) < abortedMs + 10 * minute) throw failing("Unavailable", { retried: true });
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" });
      await passUntil(skipping, () => slots.holds[slot] === "key_1");
      await skipping.env.sleep(2 * minute);
      abortedMs = await now();
      await handle.signal("abortSignal", { by: "ada" });
      await skipping.env.sleep(2 * minute);
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    await skipping.env.sleep(2 * hour);
    expect(fateOf(result, "key_1")).toBe("ended");
    expect(slots.endOf("key_old")).toBeUndefined();
    expect(result.leftOver).toContainEqual({
      id: "key_old",
      why: expect.stringMatching(/ALIVE.*aborted by ada/) as string,
    });
  });

  test("leaves the old key named where no new one can be made and the compromised one is cut", async () => {
    const slots = playSlots(skipping, undefined, (right) => ({
      issueKey: async (order) => {
        if (slots.made.length > 0) throw failing("KeyLimitReached");
        return right.issueKey(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return endOf(running(handle));
    });
    expect(slots.endOf("key_1")).toBeDefined();
    expect(result).toMatchObject({ kind: "emergency", outcome: "cut" });
    expect(result.leftOver.map(({ id }) => id)).toEqual(["key_old"]);
  });

  test("leaves the start that follows it able to hand a key in to the emergency", async () => {
    let looks = 0;
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), canIssue: ++looks === 1 }),
    }));
    const submitted = await skipping.withWorker(slots.played, async () => {
      const follower = await startIn(skipping, "normalRotation", { workflowId: "by-hand" });
      await skipping.env.sleep(3 * minute);
      await follower.executeUpdate("escalate", toldOf("key_1"));
      // In real time: the server skips none while it waits for a child that went on as another run.
      const progress = async (): Promise<Progress> => follower.query("progress");
      await expect.poll(progress, { timeout: 20_000 }).toMatchObject({ kind: "emergency", waiting: { person: true } });
      const taken = await follower.executeUpdate<Submitted, [object]>("submitKey", { args: [{ sealed: "sealed" }] });
      await running(follower).terminate();
      await running({ workflowId: slotWorkflowId(slot) }).terminate();
      return taken;
    });
    skipping.spend();
    expect(submitted).toEqual({ taken: { id: "key_by_hand" } });
  });
});

describe("what a start carries", () => {
  test.each([{}, { custody: {} }, "all of it"])("is refused where no rotation hands over %j", async (carried) => {
    const slots = playSlots(skipping);
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old", carried })),
    );
    expect(result.failed).toBe("InvalidInput");
    expect(slots.ends).toEqual([]);
  });

  test("takes no list of keys to end, which nobody would look at", async () => {
    const slots = playSlots(skipping);
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old", leftOver: ["key_other"] })),
    );
    expect(result.failed).toBe("InvalidInput");
    expect(slots.ends).toEqual([]);
  });
});

describe("a serving key that is called compromised while its run waits in the exit", () => {
  const refusedInSlot = (slots: Slots, alias: string): boolean =>
    alias === "real" && slots.endOf("key_old") === undefined;

  test("is replaced by its deadline, though the use of the key before is still being told", async () => {
    let looks = 0;
    const policy = documentedPolicy({ usageLag: durationOf(35 * minute) });
    const slots = playSlots(skipping, undefined, (_right, playing) => ({
      readPolicy: async () => policy,
      inspection: { policy },
      verifyThroughGateway: async ({ alias, goodAnswers }) => {
        if (refusedInSlot(playing, alias)) throw failing("AdminCredentialRejected");
        return { probes: goodAnswers, warnings: [] };
      },
      gatherEvidence: async ({ from, to }) => ({
        from,
        to,
        providerRequests: ++looks,
        providerTokens: 0,
        gatewayRequests: 0,
        strangers: [],
        strangeModels: [],
        notes: [],
      }),
    }));
    const { at, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" });
      await passUntil(skipping, () => slots.played.names().includes("gatherEvidence"));
      const told = await now();
      await handle.executeUpdate("escalate", toldOf("key_1"));
      return { at: told, result: await endOf(running(handle)) };
    });
    expect(slots.endOf("key_1")?.heldBy).toEqual([]);
    expect((slots.endOf("key_1")?.at ?? Infinity) - at).toBeLessThan(hour);
    expect(result.unknown).toContain("use of key_old that its provider told later");
    expect(result.incident?.compromisedKey.id).toBe("key_1");
  });

  test("is handed over at once, though the slot is asked for an answer that does not come", async () => {
    let mayAnswer = false;
    const slots = playSlots(skipping, undefined, (_right, playing) => ({
      verifyThroughGateway: async ({ alias, goodAnswers }) => {
        if (refusedInSlot(playing, alias)) throw failing("AdminCredentialRejected");
        if (alias === "real" && !mayAnswer) throw failing("Unavailable", { retried: true });
        return { probes: goodAnswers, warnings: [] };
      },
    }));
    const waitedMs = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" });
      await passUntil(skipping, () => slots.endOf("key_old") !== undefined);
      await skipping.env.sleep(2 * minute);
      const told = await now();
      await handle.executeUpdate("escalate", toldOf("key_1"));
      await passUntil(skipping, () => slots.played.times("inspectSlot").length > 1);
      mayAnswer = true;
      await endOf(running(handle));
      return (slots.played.times("inspectSlot")[1] ?? Infinity) - told;
    });
    expect(waitedMs).toBeLessThan(5 * minute);
    expect(slots.endOf("key_1")?.heldBy).toEqual([]);
  });

  test("is handed over at once, though the run of another slot does not answer what it is told", async () => {
    const handedIn = { canIssue: false, handIn: { where: "x", keyName: "k", keyType: "t", belongsTo: "b" } };
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" }, (right) => ({
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        ...(order.slot === otherSlot ? handedIn : {}),
      }),
      updateRun: () => Promise.reject(failing("Unavailable", { retried: true })),
    }));
    const { waitedMs, result } = await skipping.withWorker(slots.played, async () => {
      const other = await startIn(skipping, "normalRotation", { slot: otherSlot });
      await passUntil(skipping, () => slots.played.names().includes("inspectSlot"));
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" });
      await passUntil(skipping, () => slots.holds[slot] === "key_1", { step: 1 / 30 });
      await skipping.env.sleep(minute);
      const told = await now();
      await handle.executeUpdate("escalate", toldOf("key_1"));
      const ended = await endOf(running(handle));
      await other.terminate();
      const looks = slots.played.calls.filter(({ name, order }) => name === "inspectSlot" && order["slot"] === slot);
      return { waitedMs: (looks[1]?.at ?? Infinity) - told, result: ended };
    });
    expect(waitedMs).toBeLessThan(5 * minute);
    expect(slots.endOf("key_1")?.heldBy).toEqual([]);
    expect(fateOf(result, "key_old")).toBe("ended");
  });
});
