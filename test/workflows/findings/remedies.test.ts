import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { VerifyThroughGatewayOrder } from "../../../src/activities/contract.ts";
import type { Approved, Progress } from "../../../src/domain/rotation.ts";
import {
  endOf,
  failing,
  fateOf,
  hour,
  minute,
  passUntil,
  playSlots,
  type Skipping,
  slot,
  startIn,
  startSkipping,
} from "./slots.ts";

/** What helps a rotation on, and what a person accepts, does no harm of its own. */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const answers = ({ goodAnswers }: VerifyThroughGatewayOrder) => Promise.resolve({ probes: goodAnswers, warnings: [] });
const iso = async (): Promise<string> => new Date(await skipping.env.currentTimeMs()).toISOString();

describe("another key, installed since the slot did not answer with the first", () => {
  test("reaches the end, though the aliases still bear the first one, which its provider refuses", async () => {
    let probes = 0;
    const slots = playSlots(skipping, undefined, () => ({
      verifyThroughGateway: (order) => {
        // The first key is refused wherever it is sent; the second one is good.
        if (order.alias === "new" && slots.made.length > 1) return Promise.reject(failing("KeyRejected"));
        if (order.alias === "real" && ++probes <= 2) return Promise.reject(failing("KeyRejected"));
        return answers(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_2" } });
    expect(fateOf(result, "key_old")).toBe("ended");
    // Clients were given it: it leaves by name.
    expect(result.leftOver.map(({ id }) => id)).toEqual(["key_1"]);
  });
});

describe("an approval of use", () => {
  test("accepts the use that was shown, and none that came later: it is asked again", async () => {
    const uses = ["2026-01-01T00:00:00.000Z"];
    const slots = playSlots(skipping, undefined, () => ({
      checkIdle: async () => ({
        kind: "used",
        note: `last used ${uses.at(-1)}`,
        lastUsed: uses.at(-1) ?? "",
        newKeyRequests: 9,
        clientsBefore: "yes",
        probeAt: new Date((await skipping.env.currentTimeMs()) + hour).toISOString(),
        askAt: new Date((await skipping.env.currentTimeMs()) + 2 * hour).toISOString(),
      }),
    }));
    const { first, second, result } = await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      const waits = async (): Promise<Progress["waiting"]> => (await handle.query<Progress>("progress")).waiting;
      await passUntil(skipping, async () => (await waits())?.asks?.kind === "approval");
      uses.push(await iso()); // a moment ago: nobody has seen it
      const yes = await handle.executeUpdate<Approved, [object]>("approve", { args: [{ by: "ada" }] });
      await skipping.env.sleep(5 * minute);
      expect(slots.endOf("key_old")).toBeUndefined();
      const again = await handle.executeUpdate<Approved, [object]>("approve", { args: [{ by: "ada" }] });
      return { first: yes, second: again, result: await endOf(handle) };
    });
    expect(first).toEqual({ by: "ada", accepts: uses[0] });
    expect(second).toEqual({ by: "ada", accepts: uses[1] });
    expect(result.outcome).toBe("rotated");
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("that was shown for one wait is refused by the next", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      checkIdle: async () => ({
        kind: "used",
        note: "used",
        lastUsed: "2026-01-01T00:00:00.000Z",
        newKeyRequests: 9,
        clientsBefore: "yes",
        probeAt: new Date((await skipping.env.currentTimeMs()) + hour).toISOString(),
        askAt: new Date((await skipping.env.currentTimeMs()) + hour).toISOString(),
      }),
    }));
    await skipping.withWorker(slots.played, async () => {
      const handle = await startIn(skipping, "normalRotation");
      const waits = async (): Promise<Progress["waiting"]> => (await handle.query<Progress>("progress")).waiting;
      await passUntil(skipping, async () => (await waits())?.asks?.kind === "approval");
      const shown = (await waits())?.id;
      await passUntil(skipping, async () => ((await waits())?.id ?? shown) !== shown, { step: 20 });
      const late = handle.executeUpdate("approve", { args: [{ by: "ada", wait: shown }] });
      await expect(late).rejects.toMatchObject({ cause: { message: expect.stringMatching(/another wait/) } });
      await handle.signal("abortSignal", { by: "ada" });
      expect((await endOf(handle)).outcome).toBe("aborted");
    });
  });
});

describe("an emergency whose slot does not answer with the new key", () => {
  test("never puts the compromised value back", async () => {
    const slots = playSlots(skipping, undefined, () => ({
      verifyThroughGateway: (order) =>
        order.alias === "real" ? Promise.reject(failing("KeyRejected")) : answers(order),
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation")),
    );
    expect(slots.played.names()).not.toContain("restoreOldValue");
    expect(fateOf(result, "key_old")).toBe("ended");
  });

  test("says that the slot holds a good key where it answers with it after all", async () => {
    const beganMs = await skipping.env.currentTimeMs();
    const slots = playSlots(skipping, undefined, () => ({
      verifyThroughGateway: async (order) => {
        // The gateway is away when the slot is proven, and back at the deadline.
        if (order.alias === "real" && (await skipping.env.currentTimeMs()) < beganMs + 30 * minute) {
          throw failing("Unavailable");
        }
        return answers(order);
      },
    }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation")),
    );
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_1" } });
    expect(fateOf(result, "key_1")).toBe("held");
    expect(result.times.verified).toBeDefined();
    expect(JSON.stringify(result.warnings)).not.toMatch(/REQUESTS FAIL|no working key/);
  });
});

describe("the shortest way in", () => {
  test("makes no alias while requests fail, between the cut and the install", async () => {
    const slots = playSlots(skipping);
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "emergencyRotation", { strategy: "cut-first", compromisedKeyId: "key_old" })),
    );
    const names = slots.played.names();
    const between = names.slice(names.indexOf("cutKey"), names.indexOf("installKey"));
    expect(between).not.toContain("stageAliases");
    expect(between).not.toContain("seePrevAnswer");
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_1" } });
  });

  test("goes on in place where the store has no room for aliases and policy leaves it open", async () => {
    const full = "in place: the store has no room for two aliases";
    const slots = playSlots(skipping, undefined, () => ({ stageAliases: () => Promise.resolve({ inPlace: full }) }));
    const result = await skipping.withWorker(slots.played, async () =>
      endOf(await startIn(skipping, "normalRotation")),
    );
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_1" } });
    expect(result.warnings).toContain(full);
    expect(result.steps.find(({ step }) => step === "verifyThroughGateway(new)")).toMatchObject({ outcome: "skipped" });
    expect(slots.holds[slot]).toBe("key_1");
  });
});
