import { afterAll, beforeAll, describe, expect, test } from "vitest";

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
import { type Progress, slotWorkflowId } from "../../../src/domain/rotation.ts";

/** Promise 9: the deadline of a compromised key is the run's, whatever fails, waits or is told in between. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

/** Minutes from then to the end of the key. */
const minutesTo = (slots: Slots, keyId: string, fromMs: number): number =>
  ((slots.endOf(keyId)?.at ?? Infinity) - fromMs) / minute;

const hold = documentedPolicy({ emergency: { ...documentedPolicy().emergency, atDeadline: "hold" } });

describe("an emergency of a named key, whose slot cannot be looked at", () => {
  test("cuts it at the deadline though Cloudflare is away for two hours, and then puts a new key in", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const away = async (): Promise<boolean> => (await skipping.env.currentTimeMs()) < beganMs + 2 * hour;
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => {
        if (await away()) throw failing("Unavailable", { retried: true });
        return right.inspectSlot(order);
      },
      // The provider can be asked all the time; the slots cannot.
      findCompromised: async (order) => {
        if (order.providerOnly !== true && (await away())) throw failing("Unavailable", { retried: true });
        return right.findCompromised(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" })),
    );
    expect(minutesTo(slots, "key_old", beganMs)).toBeGreaterThanOrEqual(60);
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(61);
    expect(fateOf(result, "key_old")).toBe("ended");
    expect(slots.holds[slot]).toBe("key_1");
  });

  test.each(["SlotMissing", "AdminCredentialRejected", "InvalidInput"])(
    "cuts it at the deadline where the look is refused at once as %s",
    async (type) => {
      const slots = playSlots(skipping, undefined, () => ({ inspectSlot: () => Promise.reject(failing(type)) }));
      const beganMs = await skipping.env.currentTimeMs();
      const result = await skipping.withWorker(slots.played, async () =>
        endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" })),
      );
      expect(minutesTo(slots, "key_old", beganMs)).toBeGreaterThanOrEqual(60);
      expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(61);
      expect(result).toMatchObject({ outcome: "cut", newKey: null });
      expect(fateOf(result, "key_old")).toBe("ended");
    },
  );

  test("names it as compromised and alive where policy says hold, and fails as the look did", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      inspectSlot: () => Promise.reject(failing("SlotMissing")),
      readPolicy: () => Promise.resolve(hold),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" })),
    );
    expect(result.failed).toBe("SlotMissing");
    expect(slots.ends).toEqual([]);
    expect(result.leftOver).toEqual([{ id: "key_old", why: expect.stringMatching(/compromised and ALIVE/) }]);
  });

  test("cuts first without a look at the slot, also where the key is the one that the plan names", async () => {
    const slots = playSlots(skipping, undefined, () => ({ inspectSlot: () => Promise.reject(failing("SlotMissing")) }));
    const beganMs = await skipping.env.currentTimeMs();
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { strategy: "cut-first" })),
    );
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThan(1);
    expect(fateOf(result, "key_old")).toBe("ended");
  });
});

describe("a key that nobody answers for at once", () => {
  test("is cut at its deadline, though its end was refused and the next try is yet to come", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const slots = playSlots(skipping, undefined, (right) => ({
      endCompromisedKey: async (order) => {
        const isRefused = (await skipping.env.currentTimeMs()) < beganMs + 35 * minute;
        if (isRefused) throw failing("AdminCredentialRejected");
        return right.endCompromisedKey(order);
      },
    }));
    await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_stray" })),
    );
    expect(minutesTo(slots, "key_stray", beganMs)).toBeLessThanOrEqual(61);
  });

  test("has a new deadline where it is told again after an abort that came past the first", async () => {
    let mended = false;
    const slots = playSlots(skipping, undefined, (right) => ({
      issueKey: () => Promise.reject(failing("KeyLimitReached")),
      cutKey: async (order) => {
        if (!mended) throw failing("AdminCredentialRejected");
        return right.cutKey(order);
      },
      settleKeys: async (order) => {
        if (!mended) throw failing("Unavailable", { retried: true });
        return right.settleKeys(order);
      },
    }));
    const told = { args: [{ compromisedKeyId: "key_old" }] as [object] };
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await handle.executeUpdate("escalate", told);
      await skipping.env.sleep(80 * minute);
      await handle.signal("abortSignal", { by: "ada" });
      await skipping.env.sleep(2 * minute);
      await handle.executeUpdate("escalate", told);
      mended = true;
      return endOf(handle);
    });
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("delays no other that is cut first with it", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const slots = playSlots(skipping, undefined, (right) => ({
      cutKey: async (order) => {
        const isAway = order.keyId === "key_stray" && minutesTo(slots, "key_old", beganMs) === Infinity;
        if (isAway) throw failing("Unavailable", { retried: true });
        return right.cutKey(order);
      },
    }));
    const compromisedKeyIds = ["key_stray", "key_old"];
    await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { strategy: "cut-first", compromisedKeyIds })),
    );
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(1);
    expect(slots.endOf("key_stray")).toBeDefined();
  });

  test("keeps no other from being cut first and replaced, where nobody knows it at all", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const slots = playSlots(skipping, undefined, (right) => ({
      findCompromised: async (order) => {
        if (order.keyIds.includes("key_typo")) throw failing("KeyUnknown");
        return right.findCompromised(order);
      },
    }));
    const compromisedKeyIds = ["key_typo", "key_old"];
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { strategy: "cut-first", compromisedKeyIds })),
    );
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(1);
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_1" } });
    expect(fateOf(result, "key_typo")).toBeUndefined();
  });
});

describe("an emergency whose policy is refused for a while", () => {
  test("goes on when it can be read, and cuts by the deadline that ran from the start", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const slots = playSlots(skipping, undefined, () => ({
      readPolicy: async () => {
        const passedMs = (await skipping.env.currentTimeMs()) - beganMs;
        if (passedMs < 15 * minute) throw failing("ResponseUnexpected");
        // Not answered: one read of it lasts.
        if (passedMs < 30 * minute) throw failing("Unavailable", { retried: true });
        return documentedPolicy();
      },
      issueKey: () => Promise.reject(failing("KeyLimitReached")),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" });
      for (const then of [10, 15]) {
        await skipping.env.sleep(then * minute);
        const progress: Progress = await handle.query("progress");
        expect(progress.waiting).toMatchObject({
          person: true,
          for: expect.stringMatching(/the policy of .* when key_old must be cut/) as string,
        });
      }
      return endOf(handle);
    });
    expect(minutesTo(slots, "key_old", beganMs)).toBeGreaterThanOrEqual(60);
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(61);
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("cuts at once all the same where that is asked for", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const slots = playSlots(skipping, undefined, () => ({
      readPolicy: () => Promise.reject(failing("ResponseUnexpected")),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old", strategy: "cut-first" })),
    );
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThan(1);
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_1" } });
  });

  test("cuts by the deadline that another slot gave, though it can never be read", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const slots = playSlots(skipping, undefined, () => ({
      readPolicy: () => Promise.reject(failing("ResponseUnexpected")),
      inspectSlot: () => Promise.reject(failing("SlotMissing")),
    }));
    const first = { revokeBy: new Date(beganMs + 40 * minute).toISOString(), atDeadline: "revoke" };
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await handle.signal("escalateSignal", { compromisedKeyId: "key_old", by: "ada", first });
      return endOf(handle);
    });
    expect(minutesTo(slots, "key_old", beganMs)).toBeGreaterThanOrEqual(40);
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(41);
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("ends at once where it is aborted, with the key named", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      readPolicy: () => Promise.reject(failing("ResponseUnexpected")),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_old" });
      await skipping.env.sleep(10 * minute);
      await handle.signal("abortSignal", { by: "ada" });
      return endOf(handle);
    });
    const { started, finished = "" } = result.times;
    expect(Date.parse(finished) - Date.parse(started)).toBeLessThanOrEqual(11 * minute);
    expect(result.outcome).toBe("aborted");
    expect(result.leftOver).toEqual([{ id: "key_old", why: expect.stringMatching(/ALIVE.*aborted by ada/) as string }]);
  });
});

describe("a rotation that is told that its old key is compromised", () => {
  const told = { compromisedKeyId: "key_old", by: "ada" };
  const escalate: { args: [object] } = { args: [told] };

  test("cuts it by the deadline though no new key can be made", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      verifyAtProvider: () => Promise.reject(failing("KeyRejected")),
    }));
    const beganMs = await skipping.env.currentTimeMs();
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await handle.signal("escalateSignal", told);
      return endOf(handle);
    });
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(61);
    expect(result.failed).toBe("KeyRejected");
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("cuts it by the deadline though the slot was changed by somebody before the new key was in", async () => {
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), canIssue: false }),
      installKey: () => Promise.reject(failing("SlotChanged")),
    }));
    const { toldMs, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(3 * minute);
      const at = await skipping.env.currentTimeMs();
      await handle.executeUpdate("escalate", escalate);
      await handle.signal("submitKeySignal", { sealed: "sealed" });
      return { toldMs: at, result: await endOf(handle) };
    });
    expect(minutesTo(slots, "key_old", toldMs)).toBeLessThanOrEqual(61);
    expect(result.failed).toBe("SlotChanged");
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("cuts it by the deadline though it was told while the run cleaned up after a failure", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const slots = playSlots(skipping, undefined, () => ({
      stageAliases: () => Promise.reject(failing("RequestInvalid")),
      removeAliases: async () => {
        if ((await skipping.env.currentTimeMs()) < beganMs + 10 * minute)
          throw failing("Unavailable", { retried: true });
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * minute);
      await handle.executeUpdate("escalate", escalate);
      return endOf(handle);
    });
    expect(minutesTo(slots, "key_old", beganMs + 5 * minute)).toBeLessThanOrEqual(61);
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("keeps the deadline through a cancellation, which says nothing of the key", async () => {
    const slots = playSlots(skipping);
    const beganMs = await skipping.env.currentTimeMs();
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(10_000);
      await handle.executeUpdate("escalate", escalate);
      await handle.cancel();
      return endOf(handle);
    });
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(61);
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("cuts nothing after an abort, and names the key with who said so", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      stageAliases: () => Promise.reject(failing("RequestInvalid")),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(10_000);
      await handle.executeUpdate("escalate", escalate);
      // The server that skips time takes no cancellation of an activity that has just ended.
      await skipping.env.sleep(minute);
      await handle.signal("abortSignal", { by: "ada", why: "false alarm" });
      return endOf(handle);
    });
    await skipping.env.sleep(2 * hour);
    expect(slots.endOf("key_old")).toBeUndefined();
    expect(result.leftOver).toContainEqual({
      id: "key_old",
      why: expect.stringMatching(/compromised and ALIVE.*aborted by ada: false alarm/),
    });
  });

  test("is cut all the same where it was told after an abort, though the first tries are refused", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const within = async (minutes: number): Promise<boolean> =>
      (await skipping.env.currentTimeMs()) < beganMs + minutes * minute;
    const slots = playSlots(skipping, undefined, (right) => ({
      stageAliases: () => Promise.reject(failing("RequestInvalid")),
      removeAliases: async () => {
        if (await within(10)) throw failing("Unavailable", { retried: true });
      },
      cutKey: async (order) => {
        if (await within(80)) throw failing("AdminCredentialRejected");
        return right.cutKey(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(minute);
      await handle.signal("abortSignal", { by: "ada" });
      await skipping.env.sleep(4 * minute);
      await handle.executeUpdate("escalate", escalate);
      return endOf(handle);
    });
    expect(minutesTo(slots, "key_old", beganMs)).toBeLessThanOrEqual(110);
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("is named after an abort, and asked about no more, where its end is refused for good", async () => {
    let isAborted = false;
    let asked = 0;
    const slots = playSlots(skipping, undefined, () => ({
      stageAliases: () => Promise.reject(failing("RequestInvalid")),
      removeAliases: async () => {
        if (!isAborted) throw failing("Unavailable", { retried: true });
      },
      endCompromisedKey: () => {
        asked += 1;
        return Promise.reject(failing("AdminCredentialRejected"));
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(minute);
      await handle.executeUpdate("escalate", { args: [{ compromisedKeyId: "key_1", by: "eve" }] });
      await handle.signal("abortSignal", { by: "ada" });
      isAborted = true;
      return endOf(handle);
    });
    expect(asked).toBe(1);
    expect(fateOf(result, "key_1")).toBe("named");
  });

  test("moves the other slot that holds it too, and then cuts it", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_old" });
    const { toldMs, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(3 * minute);
      const at = await skipping.env.currentTimeMs();
      await handle.executeUpdate("escalate", escalate);
      return { toldMs: at, result: await endOf(handle) };
    });
    expect(slots.holds[otherSlot]).not.toBe("key_old");
    expect(slots.endOf("key_old")).toMatchObject({ heldBy: [] });
    expect(minutesTo(slots, "key_old", toldMs)).toBeLessThanOrEqual(60);
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("never switches it on again, though clients are refused while it is off", async () => {
    let looks = 0;
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), canDisable: true }),
      lookForErrors: () =>
        Promise.resolve({ newErrors: ++looks > 1 ? 5 : 0, note: "5 refused requests since, 0 before" }),
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.played.names().includes("disableKey"));
      await skipping.env.sleep(6 * minute);
      await handle.executeUpdate("escalate", escalate);
      return endOf(handle);
    });
    expect(slots.played.names()).not.toContain("enableKey");
    expect(fateOf(result, "key_old")).toBe("ended");
    expect(slots.endOf("key_old")).toBeDefined();
  });

  test("stops switching it on again where the word comes meanwhile", async () => {
    let isOn = false;
    let isReached = false;
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), canDisable: true }),
      lookForErrors: () => Promise.resolve({ newErrors: 5, note: "5 refused requests since, 0 before" }),
      // Its provider answers again once the word has come.
      enableKey: async () => {
        if (!isReached) throw failing("Unavailable", { retried: true });
        isOn = true;
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.played.names().includes("enableKey"));
      await handle.executeUpdate("escalate", escalate);
      isReached = true;
      return endOf(handle);
    });
    expect(isOn).toBe(false);
    expect(result.outcome).toBe("rotated");
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("says how long it was off, not how long it was to be", async () => {
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), canDisable: true }),
    }));
    const { steps } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.played.names().includes("disableKey"));
      await handle.executeUpdate("escalate", escalate);
      return endOf(handle);
    });
    const note = steps.find(({ step }) => step === "disableKey")?.note;
    expect(note).toMatch(/^off for (?:[\d.]+s|1m|1m \d+s), cut short/);
  });

  test("writes down no approval that nobody gave", async () => {
    const policy = documentedPolicy({ approval: "before-revoke" });
    const slots = playSlots(skipping, undefined, (right) => ({
      inspectSlot: async (order) => ({ ...(await right.inspectSlot(order)), policy }),
    }));
    const { steps } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await skipping.env.sleep(5 * hour);
      await handle.executeUpdate("escalate", escalate);
      return endOf(handle);
    });
    const approval = steps.find(({ step }) => step.startsWith("approval"));
    expect(approval).toMatchObject({ outcome: "skipped" });
    expect(JSON.stringify(steps)).not.toMatch(/approved by/);
  });
});

// The last of the file: the server skips no time any more after a child was started again under the id of one that ended.
describe("a slot that does not move", () => {
  test("makes an outage where a slot was seen to hold it that cannot be told of at last", async () => {
    let looks = 0;
    const slots = playSlots(skipping, { [slot]: "key_old", [otherSlot]: "key_batch" }, (right) => ({
      inspectSlot: async (order) => ({
        ...(await right.inspectSlot(order)),
        ...(order.slot === otherSlot ? { canIssue: false } : {}),
      }),
      lookAtHolders: async (order) => {
        const told = await right.lookAtHolders(order);
        if (order.slot !== slot || ++looks < 3) return told;
        return told.map(({ keyId }) => ({ keyId, yes: [], unknown: [{ slot: otherSlot, why: "its list has a gap" }] }));
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "emergencyRotation", { compromisedKeyId: "key_batch" });
      const ended = await endOf(handle);
      const child = skipping.client.workflow.getHandle(slotWorkflowId(otherSlot));
      await child.signal("abortSignal", { by: "ada" });
      await endOf(child);
      return ended;
    });
    expect(slots.endOf("key_batch")).toMatchObject({ heldBy: [otherSlot] });
    expect(result.outage).toMatchObject({ slots: [otherSlot] });
    expect(result.warnings).toContainEqual(expect.stringContaining("whether it holds key_batch"));
  });
});
