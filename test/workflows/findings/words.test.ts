import { setTimeout as pause } from "node:timers/promises";
import type { WorkflowHandle } from "@temporalio/client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { EscalationAnswer } from "../../../src/domain/escalation.ts";
import type { Progress, RotationResult } from "../../../src/domain/rotation.ts";
import type { Right, World } from "../../support/slots.ts";
import { endOf, failing, fateOf, passUntil, playSlots, type Skipping, slot, startIn, startSkipping } from "./slots.ts";

/** Words about compromised keys, and what becomes of them while they wait, or where they go. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const handedIn = { canIssue: false, handIn: { where: "x", keyName: "k", keyType: "t", belongsTo: "b" } };
const toldOf = (compromisedKeyId: string): { args: [object] } => ({ args: [{ compromisedKeyId, by: "ada" }] });
const entryOf = (result: Pick<RotationResult, "keys">, keyId: string) => result.keys.find(({ id }) => id === keyId);
/** The run that goes on under the workflow id after a hand-over. */
const latest = ({ workflowId }: WorkflowHandle): WorkflowHandle => skipping.client.workflow.getHandle(workflowId);
const asksForKey = async (handle: WorkflowHandle): Promise<boolean> =>
  (await handle.query<Progress>("progress")).waiting?.asks?.kind === "key";

/** Says it, and returns how to hear the answer, which may take its time. */
async function say(handle: WorkflowHandle, keyId: string): Promise<() => Promise<EscalationAnswer>> {
  const word = await handle.startUpdate<EscalationAnswer, [object]>("escalate", {
    ...toldOf(keyId),
    waitForStage: "ACCEPTED",
  });
  return () => word.result();
}

/** What waits until it is opened. */
function gate(): { open: () => void; opened: Promise<void> } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { open: () => open(), opened };
}

describe("a word that waits for its turn", () => {
  test("is the first about its key where the word before it was refused: the key is cut", async () => {
    const { open, opened } = gate();
    let asked = 0;
    const slots = playSlots(skipping, { [slot]: "key_cur" }, (right) => ({
      inspection: handedIn,
      findCompromised: async (order) => {
        if (++asked > 1) return right.findCompromised(order);
        await opened;
        throw failing("KeyUnknown");
      },
    }));
    const { answer, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => asksForKey(handle));
      const [first, second] = [await say(handle, "key_stray"), await say(handle, "key_stray")];
      open();
      await expect(first()).rejects.toThrow();
      const said = await second();
      await passUntil(skipping, () => slots.endOf("key_stray") !== undefined);
      await handle.signal("abortSignal", { by: "bob" });
      return { answer: said, result: await endOf(handle) };
    });
    expect(answer.does).toBe("cuts");
    expect(fateOf(result, "key_stray")).toBe("ended");
  });

  test("starts no emergency that an abort has called off meanwhile", async () => {
    const { open, opened } = gate();
    const slots = playSlots(skipping, { [slot]: "key_old" }, (right) => ({
      findCompromised: async (order) => {
        if (order.keyIds.includes("key_stray")) await opened;
        return right.findCompromised(order);
      },
    }));
    const { answers, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.holds[slot] === "key_1");
      const words = [await say(handle, "key_stray"), await say(handle, "key_1"), await say(handle, "key_old")];
      await handle.signal("abortSignal", { by: "bob", why: "false alarm" });
      await pause(300);
      open();
      const said = await Promise.all(words.map((answer) => answer()));
      return { answers: said, result: await endOf(latest(handle)) };
    });
    for (const { does, says, by } of answers) {
      expect(does).toBe("already");
      expect(says).toContain("aborted by bob: false alarm");
      expect(by).toBeUndefined();
    }
    expect(result).toMatchObject({ kind: "normal", outcome: "aborted" });
    expect(slots.ends).toEqual([]);
    for (const id of ["key_stray", "key_1", "key_old"]) {
      expect(entryOf(result, id)).toMatchObject({ fate: "named", why: expect.stringContaining("nobody cuts it") });
    }
  });

  test("counts where the same is said again after the abort", async () => {
    const { open, opened } = gate();
    const slots = playSlots(skipping, { [slot]: "key_old" }, (right) => ({
      findCompromised: async (order) => {
        if (order.keyIds.includes("key_stray")) await opened;
        return right.findCompromised(order);
      },
    }));
    const { again, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.holds[slot] === "key_1");
      await say(handle, "key_stray");
      await say(handle, "key_1");
      await handle.signal("abortSignal", { by: "bob" });
      await expect.poll(() => slots.played.names()).toContain("findCompromised");
      const word = await say(handle, "key_1");
      open();
      return { again: await word(), result: await endOf(latest(handle)) };
    });
    expect(again.does).toBe("hands-over");
    expect(fateOf(result, "key_1")).toBe("ended");
    expect(entryOf(result, "key_stray")).toMatchObject({ fate: "named" });
  });
});

describe("an emergency that joins the run that is on", () => {
  const joining = (input: object): Promise<WorkflowHandle> =>
    startIn(skipping, "emergencyRotation", { workflowId: `join-${Math.random()}`, ...input });
  const typo = (right: Right): World => ({
    findCompromised: async (order) => {
      if (order.keyIds.includes("key_typo")) throw failing("KeyUnknown", { details: [{ keyIds: ["key_typo"] }] });
      return right.findCompromised(order);
    },
  });

  test("tells it of every key, though it refuses one, and says which", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old" }, typo);
    const { joined, rotated } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.holds[slot] === "key_1");
      const second = await joining({ compromisedKeyIds: ["key_typo", "key_old", "key_stray"] });
      return { joined: await endOf(second), rotated: await endOf(handle) };
    });
    expect(joined).toMatchObject({ outcome: "joined", oldKey: { id: "key_old" } });
    expect(joined.warnings[0]).toMatch(/^key_typo: .*KeyUnknown/);
    for (const id of ["key_old", "key_stray"]) expect(fateOf(rotated, id)).toBe("ended");
  });

  test("fails where it takes none of them", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old" }, typo);
    const joined = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await passUntil(skipping, () => slots.holds[slot] === "key_1");
      const end = await endOf(await joining({ compromisedKeyId: "key_typo" }));
      await handle.terminate();
      return end;
    });
    expect(joined.failed).toBe("KeyUnknown");
  });

  test("goes on by itself where that run has ended before it was told", async () => {
    const { open, opened } = gate();
    const slots = playSlots(skipping, { [slot]: "key_old" }, (right) => ({
      inspection: handedIn,
      findRun: async (order) => {
        const run = await right.findRun(order);
        await opened;
        return run;
      },
    }));
    await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await expect.poll(() => asksForKey(handle), { timeout: 10_000 }).toBe(true);
      const second = await joining({ formerRunId: "x", compromisedKeyId: "key_old" });
      await expect.poll(() => slots.played.names()).toContain("findRun");
      await handle.signal("abortSignal", { by: "bob" });
      await expect.poll(async () => (await handle.describe()).status.name, { timeout: 10_000 }).toBe("COMPLETED");
      open();
      // The server skips no time once an id was started again under a parent: that it runs is all that is waited for.
      const type = async (): Promise<string> => (await latest(handle).describe()).type;
      await expect.poll(type, { timeout: 10_000 }).toBe("emergencyRotation");
      await latest(handle).terminate();
      await second.terminate();
    });
  });

  test("gives up where no run is ever there to be told", async () => {
    const slots = playSlots(skipping, { [slot]: "key_old" }, () => ({
      inspection: handedIn,
      updateRun: async () => {
        throw failing("SlotMissing");
      },
    }));
    const result = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      await expect.poll(() => asksForKey(handle), { timeout: 10_000 }).toBe(true);
      const end = await endOf(await joining({ compromisedKeyId: "key_old" }));
      await handle.terminate();
      return end;
    });
    expect(result.failed).toBe("SlotMissing");
    expect(slots.played.names().filter((name) => name === "updateRun")).toHaveLength(3);
  });
});
