import type { WorkflowHandle } from "@temporalio/client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { RotationActivities } from "../../src/activities/index.ts";
import type { CustodyEntry } from "../../src/domain/custody.ts";
import { type Progress, type RotationResult, rotationSteps } from "../../src/domain/rotation.ts";
import {
  documentedPolicy,
  failing,
  play,
  type Played,
  type Skipping,
  slot,
  startOptions,
  startSkipping,
  workflowId,
} from "../support/time-skipping.ts";
import { failureOf } from "./endings.ts";

const minute = 60_000;
const hour = 60 * minute;

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const now = (): Promise<number> => skipping.env.currentTimeMs();
const start = (input: Record<string, unknown> = {}): Promise<WorkflowHandle> =>
  skipping.client.workflow.start("normalRotation", { ...startOptions, args: [{ slot, ...input }] });
const rotate = (played: Played, input: Record<string, unknown> = {}): Promise<RotationResult> =>
  skipping.withWorker(played, async () => (await (await start(input)).result()) as RotationResult);

describe("with the documented waits", () => {
  test("takes the fourteen steps in their order", async () => {
    const result = await rotate(play(now));
    expect(result.outcome).toBe("rotated");
    expect(result.steps.map(({ step }) => step)).toEqual(rotationSteps);
    expect(result.oldKey).toEqual({ id: "key_old" });
    expect(result.newKey).toEqual({ id: "key_1" });
  });

  test("waits 30 s for propagation and 10 min for caches, then revokes only when the provider shows the old key idle", async () => {
    const played = play(now);
    await rotate(played);
    const [installed = 0] = played.times("installKey");
    const [active = 0] = played.times("awaitPropagation");
    const [asked = 0, answered = 0] = played.times("checkIdle");
    const [revoked = 0] = played.times("revokeKey");
    expect(active - installed).toBeGreaterThanOrEqual(30_000 - 1_000);
    expect(asked - active).toBeGreaterThanOrEqual(10 * minute - 1_000);
    expect(answered - asked).toBeGreaterThanOrEqual(32 * minute - 1_000);
    expect(revoked).toBeGreaterThanOrEqual(answered);
    expect(revoked - installed).toBeLessThan(hour);
  });

  test("asks the provider a few times, not hundreds", async () => {
    const played = play(now);
    await rotate(played);
    expect(played.times("checkIdle")).toHaveLength(2);
  });

  test("probes through its own alias before it asks again, so that the data can show how far it has come", async () => {
    const played = play(now);
    await rotate(played);
    const afterCache = played.names().slice(played.names().indexOf("checkIdle"));
    expect(afterCache.slice(0, 3)).toEqual(["checkIdle", "verifyThroughGateway", "checkIdle"]);
  });

  test("takes its own probe for proof of the new key only where no client had used the old one, and says so", async () => {
    const shown = async (newKeyRequests: number): Promise<string[]> => {
      const answer = { kind: "idle", note: "quiet", newKeyRequests, clientsBefore: "no" } as const;
      return (await rotate(play(now, { checkIdle: async () => answer }))).unknown;
    };
    expect(await shown(5)).toEqual(["clients' use of the new key"]);
    expect(await shown(6)).toEqual([]);
  });

  test("asks a person where clients used the old key before and none is ever seen on the new one, whatever policy says of unknown use", async () => {
    const answer = {
      kind: "too early",
      note: "no rows of the new key",
      newKeyRequests: 0,
      newKeyNeverReported: true,
      clientsBefore: "yes",
    } as const;
    const played = play(now, { checkIdle: async () => answer });
    const { type, result } = await failureOf(rotate(played));
    expect(type).toBe("NobodyDecided");
    expect(result.keys).toMatchObject([
      { id: "key_old", fate: "named" },
      { id: "key_1", fate: "held" },
    ]);
    expect(played.names()).not.toContain("revokeKey");
  });

  test("says while it waits what for, until when and what happens then", async () => {
    const played = play(now);
    await skipping.withWorker(played, async () => {
      const handle = await start();
      await skipping.env.sleep(5 * minute);
      const progress: Progress = await handle.query("progress");
      expect(progress.phase).toBe("awaitCacheInvalidation");
      expect(progress.waiting).toMatchObject({
        for: "caches to drop the old key",
        then: "the old key's use is watched",
      });
      const { since = "", until = "" } = progress.waiting ?? {};
      expect(Date.parse(until) - Date.parse(since)).toBe(10 * minute);
      await handle.result();
    });
  });
});

describe("at the grace ceiling of 24 h", () => {
  const unknown: Partial<RotationActivities> = {
    checkIdle: async () => ({
      kind: "too early",
      note: "no rows of the new key",
      newKeyRequests: 0,
      clientsBefore: "unknown",
    }),
  };
  const used: Partial<RotationActivities> = {
    checkIdle: async () => ({
      kind: "used",
      note: "somebody uses it",
      newKeyRequests: 9,
      clientsBefore: "yes",
      lastUsed: "2026-11-23T10:00:00.000Z",
    }),
  };

  test("revokes a key whose use is unknown, and says so", async () => {
    const played = play(now, unknown);
    const result = await rotate(played);
    expect(result.outcome).toBe("rotated");
    expect(result.unknown).toContain("use of the old key");
    const [asked = 0] = played.times("checkIdle");
    const [revoked = 0] = played.times("revokeKey");
    expect(revoked - asked).toBeGreaterThanOrEqual(24 * hour - 1_000);
    expect(revoked - asked).toBeLessThan(25 * hour);
  });

  test("asks a person about a key that is still used, and stops with both keys alive when nobody answers in 7 d", async () => {
    const played = play(now, used);
    const { type, message, result } = await failureOf(rotate(played));
    expect(type).toBe("NobodyDecided");
    expect(message).toContain("nobody accepted");
    expect(result.leftOver).toEqual([{ id: "key_old", why: "clients may still use it" }]);
    expect(played.names()).not.toContain("revokeKey");
    const [asked = 0] = played.times("checkIdle");
    const [released = 0] = played.times("settleKeys");
    expect(released - asked).toBeGreaterThanOrEqual(8 * 24 * hour);
  });

  test("goes on when a person accepts the use, and records who and why", async () => {
    const played = play(now, used);
    const result = await skipping.withWorker(played, async () => {
      const handle = await start();
      await skipping.env.sleep(26 * hour);
      expect((await handle.query<Progress>("progress")).waiting?.action).toContain("keyturn approve");
      const asked = played.times("checkIdle").length;
      await handle.signal("approveSignal", { by: "ada", why: "a forgotten batch job" });
      const ended = (await handle.result()) as RotationResult;
      expect(played.times("checkIdle")).toHaveLength(asked + 1);
      return ended;
    });
    expect(result.outcome).toBe("rotated");
    expect(result.steps.find(({ step }) => step === "awaitIdle")?.note).toContain("ada: a forgotten batch job");
  });
});

describe("a new key that is not good", () => {
  test("is revoked and replaced by another, three at most", async () => {
    const played = play(now, {
      verifyAtProvider: async () => {
        throw failing("KeyRejected");
      },
    });
    const { type, result } = await failureOf(rotate(played));
    expect(type).toBe("KeyRejected");
    expect(played.times("issueKey")).toHaveLength(3);
    expect(played.names().at(-1)).toBe("settleKeys");
    expect(result.keys).toMatchObject([
      { id: "key_old", role: "old", fate: "held" },
      { id: "key_1", role: "new", fate: "ended" },
      { id: "key_2", role: "new", fate: "ended" },
      { id: "key_3", role: "new", fate: "ended" },
    ]);
    expect(played.names()).not.toContain("installKey");
    expect(result.newKey).toBeNull();
  });

  test("is replaced when its seal cannot be opened before it is installed", async () => {
    let tries = 0;
    const played = play(now, {
      verifyAtProvider: async () => {
        if (++tries === 1) throw failing("SealUnreadable");
        return { probes: 0, warnings: [] };
      },
    });
    expect((await rotate(played)).newKey).toEqual({ id: "key_2" });
  });

  for (const step of ["stageAliases", "installKey"] as const) {
    test(`is replaced when its seal is opened no more at ${step}, each under a number of its own`, async () => {
      let tries = 0;
      const right = play(now).activities[step] as (order: never) => Promise<unknown>;
      const played = play(now, {
        [step]: async (order: never) => {
          if (++tries === 1) throw failing("SealUnreadable", { details: [{ sent: false }] });
          return right(order);
        },
      });
      const result = await rotate(played);
      expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_2" } });
      expect(result.keys.find(({ id }) => id === "key_1")).toMatchObject({ fate: "ended" });
      const orders = played.calls.filter(({ name }) => name === "issueKey").map(({ order }) => order["ordinal"]);
      expect(orders).toEqual([1, 2]);
    });
  }

  test("that fails through the gateway is never installed", async () => {
    const played = play(now, {
      verifyThroughGateway: async () => {
        throw failing("KeyRejected");
      },
    });
    await failureOf(rotate(played));
    expect(played.names()).not.toContain("installKey");
    expect(played.names().slice(-3)).toEqual(["removeAliases", "settleKeys", "removeAliases"]);
  });
});

describe("a slot that does not answer after the install", () => {
  const failsUntil = (mended: () => boolean): Partial<RotationActivities> => ({
    verifyThroughGateway: async ({ alias, goodAnswers }) => {
      if (alias === "real" && !mended()) throw failing("KeyRejected");
      return { probes: goodAnswers, warnings: [] };
    },
  });

  test("gets the value stored once more", async () => {
    const played: Played = play(
      now,
      failsUntil(() => played.calls.some(({ name, order }) => name === "installKey" && order["again"] === true)),
    );
    const result = await rotate(played);
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_1" } });
    const steps = result.steps.map(({ step }) => step);
    const from = steps.indexOf("verifyThroughGateway(real)");
    expect(steps.slice(from, from + 5)).toEqual([
      "verifyThroughGateway(real)",
      "checkSaved",
      "tryDirectly",
      "storeAgain",
      "verifyThroughGateway(real)",
    ]);
    expect(result.steps.slice(from + 1, from + 4).map(({ note }) => note)).toEqual([
      "was it saved? saved: the mark names key_1",
      "does key_1 work at its provider, and has it quota? it does: the gateway is the cause",
      "key_1 written once more: the slot did not answer with it",
    ]);
  });

  test("gets another key at once where the provider refuses the first, since storing it again would not help", async () => {
    const played: Played = play(now, {
      ...failsUntil(() => played.times("issueKey").length === 2),
      verifyAtProvider: async ({ key }) => {
        if (key.id === "key_1" && played.times("awaitPropagation").length > 0) throw failing("KeyRejected");
        return { probes: 0, warnings: [] };
      },
    });
    const result = await rotate(played);
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_2" } });
    expect(result.steps.map(({ step }) => step)).not.toContain("storeAgain");
    expect(result.steps.find(({ step }) => step === "tryDirectly")?.outcome).toBe("done");
    expect(result.warnings).toContainEqual(expect.stringContaining("key_1 is stored"));
  });

  test("then gets another key", async () => {
    const played: Played = play(
      now,
      failsUntil(() => played.times("issueKey").length === 2),
    );
    const result = await rotate(played);
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_2" } });
    expect(played.calls.find(({ name }) => name === "revokeKey")).toMatchObject({ order: { installedKeyId: "key_2" } });
  });

  test("at last gets the old value back, and the rotation stops with both keys alive", async () => {
    const played = play(
      now,
      failsUntil(() => false),
    );
    const { type, result } = await failureOf(rotate(played));
    expect(type).toBe("KeyRejected");
    expect(result.steps.at(-1)).toMatchObject({ step: "restoreOldValue", outcome: "done" });
    expect(played.names()).not.toContain("revokeKey");
    expect(result.leftOver.map(({ id }) => id)).toContain("key_1");
  });

  test("keeps what it holds when the copy of the old key was never seen to answer", async () => {
    const played = play(now, {
      ...failsUntil(() => false),
      seePrevAnswer: async () => ({ answered: false, note: "prev did not answer" }),
    });
    await failureOf(rotate(played));
    expect(played.names()).not.toContain("restoreOldValue");
  });
});

describe("an old key that still answers after the cache wait", () => {
  const used = (played: () => Played): Partial<RotationActivities> => ({
    checkIdle: async () => {
      const asked = played().times("checkIdle").length;
      if (asked > 2) return { kind: "idle", note: "idle", newKeyRequests: 100, clientsBefore: "yes" };
      const soon = new Date((await now()) + 60_000).toISOString();
      return {
        kind: "used",
        note: "last used a moment ago",
        newKeyRequests: 100,
        clientsBefore: "yes",
        probeAt: soon,
        askAt: soon,
      };
    },
  });

  test("has the caches purged once, where they can be, with the reason, and is watched on", async () => {
    const played: Played = play(now, { ...used(() => played), inspection: { canPurge: true } });
    const result = await rotate(played);
    expect(result.outcome).toBe("rotated");
    const remedies = result.steps.filter(({ step }) => step === "purgeCache");
    expect(remedies).toMatchObject([
      { outcome: "done", note: expect.stringMatching(/still answers after the cache wait \(last used a moment ago\)/) },
    ]);
    expect(played.times("purgeCache")).toHaveLength(2); // once before the cache wait, once as a remedy
    expect(result.steps.find(({ step }) => step === "awaitIdle")).toMatchObject({ outcome: "done", note: "idle" });
  });

  test("is watched on also where the purge is refused: a remedy stops nothing", async () => {
    const played: Played = play(now, {
      ...used(() => played),
      inspection: { canPurge: true },
      purgeCache: async () => {
        if (played.times("checkIdle").length > 0) throw failing("AdminCredentialRejected");
      },
    });
    const result = await rotate(played);
    expect(result.outcome).toBe("rotated");
    expect(result.steps.find(({ step }) => step === "purgeCache")?.note).toMatch(/could not be asked to drop it/);
  });

  test("is only watched on where there is nothing to purge", async () => {
    const played: Played = play(
      now,
      used(() => played),
    );
    const result = await rotate(played);
    expect(result.steps.map(({ step }) => step)).not.toContain("purgeCache");
    expect(played.names()).not.toContain("purgeCache");
  });
});

describe("revoking", () => {
  test("is never given up while it fails", async () => {
    let failures = 0;
    const played = play(now, {
      revokeKey: async ({ keyId }) => {
        if (++failures <= 30) throw failing("Unavailable", { retried: true });
        return { at: new Date(await now()).toISOString(), seen: false, note: `${keyId} revoked` };
      },
    });
    expect((await rotate(played)).outcome).toBe("rotated");
    expect(failures).toBe(31);
  });

  test("shows after an hour of failing what a person can do, and an abort then ends it with the key named", async () => {
    const played = play(now, {
      revokeKey: async () => {
        throw failing("AdminCredentialRejected");
      },
    });
    const result = await skipping.withWorker(played, async () => {
      const handle = await start();
      await skipping.env.sleep(4 * hour);
      const progress: Progress = await handle.query("progress");
      expect(progress.phase).toBe("revokeKey");
      expect(progress.action).toContain("keyturn abort");
      await handle.signal("abortSignal", { by: "ada" });
      return (await handle.result()) as RotationResult;
    });
    expect(result.outcome).toBe("aborted");
    expect(result.leftOver.map(({ id }) => id)).toEqual(["key_old"]);
  });

  test.each(["revokeKey", "disableKey", "lookBeforeRevoking"] as const)(
    "shows as a wait that it cannot be told whether a slot holds the key, in %s, and goes on when it can",
    async (activity) => {
      const beganMs = await now();
      const cannotTell = async (): Promise<never> => {
        throw failing("NotYetPropagated");
      };
      const right = play(now).activities;
      const isUntold = async (): Promise<boolean> => (await now()) < beganMs + 5 * hour;
      const byHand = { missing: "OPENAI_ADMIN_KEY is not set", oldKey: "key_old", where: "the console", unknown: [] };
      const played = play(now, {
        inspection: {
          canDisable: activity === "disableKey",
          ...(activity === "lookBeforeRevoking" ? { byHand } : {}),
        },
        revokeKey: async (order) =>
          activity === "revokeKey" && (await isUntold()) ? cannotTell() : right.revokeKey(order),
        disableKey: async (order) =>
          activity === "disableKey" && (await isUntold()) ? cannotTell() : right.disableKey(order),
        lookBeforeRevoking: async () => {
          if (activity === "lookBeforeRevoking" && (await isUntold())) await cannotTell();
        },
      });
      await skipping.withWorker(played, async () => {
        const handle = await start();
        await skipping.env.sleep(4 * hour);
        const { waiting }: Progress = await handle.query("progress");
        expect(waiting).toMatchObject({
          for: "the revocation of key_old: it failed: NotYetPropagated",
          until: expect.any(String) as string,
          action: expect.stringContaining("fix what the message says") as string,
        });
        await skipping.env.sleep(2 * hour);
        if (activity === "lookBeforeRevoking") await handle.signal("approveSignal", { by: "ada" });
        expect(((await handle.result()) as RotationResult).outcome).toBe("rotated");
      });
      // Minutes apart, not seconds: nobody is asked a thousand times a day.
      expect(played.names().filter((name) => name === activity).length).toBeLessThan(200);
    },
  );

  test("does not happen to a key that another slot holds: it is named instead", async () => {
    const right = play(now).activities.settleKeys;
    const played = play(now, {
      inspection: { sharedWith: ["staging/openai"] },
      settleKeys: async (order) => {
        const { keys, warnings } = await right(order);
        const by = "staging/openai";
        return {
          keys: keys.map((key) => (key.id === "key_old" ? { ...key, fate: { fate: "held", by } } : key)),
          warnings,
        };
      },
    });
    const result = await rotate(played);
    expect(result.outcome).toBe("rotated");
    expect(played.names()).not.toContain("revokeKey");
    expect(result.keys[0]).toMatchObject({ id: "key_old", fate: "held", why: "staging/openai holds it" });
  });

  test("stops when the slot no longer holds what was installed", async () => {
    const played = play(now, {
      revokeKey: async () => {
        throw failing("SlotChanged");
      },
    });
    expect((await failureOf(rotate(played))).type).toBe("SlotChanged");
  });
});

describe("a death that cannot be seen", () => {
  test("is reported as unknown, never as seen", async () => {
    const result = await rotate(play(now, { confirmRevoked: async () => ({ note: "not seen dead" }) }));
    expect(result.outcome).toBe("rotated");
    expect(result.times.revoked).toBeDefined();
    expect(result.times.confirmedDead).toBeUndefined();
    expect(result.unknown).toContain("confirmedDead");
  });

  test("is not looked for through a copy that never answered", async () => {
    const played = play(now, { seePrevAnswer: async () => ({ answered: false, note: "prev did not answer" }) });
    await rotate(played);
    expect(played.calls.find(({ name }) => name === "confirmRevoked")?.order).toMatchObject({ throughPrev: false });
  });
});

describe("approvals", () => {
  test("before-install: nothing is written until somebody approves", async () => {
    const played = play(now, { inspection: { policy: documentedPolicy({ approval: "before-install" }) } });
    await skipping.withWorker(played, async () => {
      const handle = await start();
      await skipping.env.sleep(2 * hour);
      expect(played.names()).not.toContain("installKey");
      expect((await handle.query<Progress>("progress")).waiting?.for).toBe("an approval before install");
      await handle.signal("approveSignal", { by: "ada" });
      const result = (await handle.result()) as RotationResult;
      expect(result.steps).toContainEqual(
        expect.objectContaining({ step: "approval before-install", note: "approved by ada" }),
      );
    });
  });

  test("before-revoke: the old key is judged again after the approval", async () => {
    const played = play(now, { inspection: { policy: documentedPolicy({ approval: "before-revoke" }) } });
    await skipping.withWorker(played, async () => {
      const handle = await start();
      await skipping.env.sleep(5 * hour);
      expect(played.names()).not.toContain("revokeKey");
      const asked = played.times("checkIdle").length;
      await handle.signal("approveSignal", {});
      await handle.result();
      expect(played.times("checkIdle").length).toBeGreaterThan(asked);
    });
  });
});

describe("stopping", () => {
  const stoppable = [
    ["issueKey", false],
    ["verifyAtProvider", false],
    ["stageAliases", false],
    ["seePrevAnswer", false],
    ["verifyThroughGateway", false],
    ["installKey", true],
    ["awaitPropagation", true],
    ["checkIdle", true],
  ] as const;
  for (const [name, installStarted] of stoppable) {
    for (const how of ["abort", "cancel"] as const) {
      test(`by ${how} during ${name} cleans up and completes as aborted`, async () => {
        let stop: () => Promise<void> = async () => undefined;
        const right = play(now).activities[name] as (order: never) => Promise<unknown>;
        const played = play(now, {
          [name]: async (order: never) => {
            await stop();
            stop = async () => undefined;
            return right(order);
          },
        });
        const result = await skipping.withWorker(played, async () => {
          const handle = await start();
          stop = async () => {
            await (how === "abort" ? handle.signal("abortSignal", { by: "ada" }) : handle.cancel());
            await handle.query("progress"); // the workflow has taken it in
          };
          return (await handle.result()) as RotationResult;
        });
        expect(result.outcome).toBe("aborted");
        const settled = played.calls.findLast((call) => call.name === "settleKeys")?.order["keys"] as CustodyEntry[];
        expect(settled.some(({ role, given }) => role === "new" && given)).toBe(installStarted);
        expect(played.names()).not.toContain("revokeKey");
      });
    }
  }

  for (const name of ["revokeKey", "confirmRevoked", "settleKeys"] as const) {
    test(`during ${name} comes too late: the rotation finishes`, async () => {
      let stop: () => Promise<void> = async () => undefined;
      const right = play(now).activities[name] as (order: never) => Promise<unknown>;
      const played = play(now, {
        [name]: async (order: never) => {
          await stop();
          return right(order);
        },
      });
      const result = await skipping.withWorker(played, async () => {
        const handle = await start();
        stop = async () => {
          await handle.cancel();
          await handle.query("progress");
        };
        return (await handle.result()) as RotationResult;
      });
      expect(result.outcome).toBe("rotated");
    });
  }
});

describe("a clean-up that fails for good (promise 6)", () => {
  const refused = { stageAliases: () => Promise.reject(failing("RequestInvalid")) };

  test("is tried again, since its cause may have passed", async () => {
    let refusals = 0;
    const right = play(now).activities.settleKeys;
    const played = play(now, {
      ...refused,
      settleKeys: async (order) => {
        if (++refusals < 3) throw failing("ResponseUnexpected");
        return right(order);
      },
    });
    const { result } = await failureOf(rotate(played));
    expect(played.times("settleKeys")).toHaveLength(3);
    expect(result).toMatchObject({ leftOver: [], warnings: [] });
  });

  test("and then names each key", async () => {
    const played = play(now, { ...refused, settleKeys: () => Promise.reject(failing("AdminCredentialRejected")) });
    const { result } = await failureOf(rotate(played));
    expect(played.times("settleKeys")).toHaveLength(3);
    expect(result.leftOver.map(({ id }) => id)).toEqual(["key_old", "key_1"]);
    expect(result.warnings).toContainEqual(expect.stringContaining("cleaning up failed"));
  });
});

describe("a start", () => {
  test("of a key that is not due ends as kept, with the reason", async () => {
    const played = play(now, { inspection: { due: { due: false, reason: "the key is 3d old" } } });
    expect(await rotate(played, { onlyIfDue: true })).toMatchObject({
      outcome: "kept",
      reason: "the key is 3d old",
      newKey: null,
    });
    expect(played.names()).toEqual(["inspectSlot"]);
  });

  for (const [input, word] of [
    [{ slot: "production" }, "slot"],
    [{ slot: "production/nope" }, "slot"],
    [{ slot, heldKey: "x" }, "unknown field heldKey"],
    [{ slot, onlyIfDue: "yes" }, "onlyIfDue"],
    ["production/openai", "input"],
  ] as const) {
    test(`with ${JSON.stringify(input)} is refused at once`, async () => {
      const played = play(now);
      const ending = skipping.withWorker(played, () =>
        skipping.client.workflow.execute("normalRotation", { ...startOptions, args: [input] }),
      );
      const { type, message } = await failureOf(ending);
      expect(type).toBe("InvalidInput");
      expect(message).toContain(word);
      expect(played.calls).toEqual([]);
    });
  }

  test("whose execution timeout is shorter than its waits can be is refused", async () => {
    const played = play(now);
    const ending = skipping.withWorker(played, () =>
      skipping.client.workflow.execute("normalRotation", { ...startOptions, workflowExecutionTimeout: "12 hours" }),
    );
    const { type, message } = await failureOf(ending);
    expect(type).toBe("InvalidInput");
    expect(message).toContain("execution timeout");
    expect(played.names()).not.toContain("issueKey");
  });

  test("under another id runs the slot's own workflow and ends as it does", async () => {
    const played = play(now);
    const result = (await skipping.withWorker(played, () =>
      skipping.client.workflow.execute("normalRotation", { ...startOptions, workflowId: "by-hand-1" }),
    )) as RotationResult;
    expect(result.outcome).toBe("rotated");
    const { status } = await skipping.client.workflow.getHandle(workflowId).describe();
    expect(status.name).toBe("COMPLETED");
  });

  test("under another id while the slot is busy fails at once and names the running one", async () => {
    const played = play(now);
    await skipping.withWorker(played, async () => {
      const running = await start();
      await skipping.env.sleep(5 * minute);
      const second = skipping.client.workflow.execute("normalRotation", { ...startOptions, workflowId: "by-hand-2" });
      const { type, message } = await failureOf(second);
      expect(type).toBe("SlotBusy");
      expect(message).toContain(workflowId);
      await running.result();
    });
  });

  /**
   * Waits until what the follower passed on has stopped the step of its run. Time must not skip before: the server loses a
   * workflow task into which both a timer and a cancellation fall (seen with 1.24, 2026-11).
   */
  const arrived = async (): Promise<void> =>
    expect
      .poll(async () => {
        const { steps }: Progress = await skipping.client.workflow.getHandle(workflowId).query("progress");
        return steps.at(-1)?.outcome;
      })
      .toBe("failed");

  test("under another id passes on a cancellation and what it is told, and answers progress", async () => {
    const played = play(now);
    await skipping.withWorker(played, async () => {
      const follower = await skipping.client.workflow.start("normalRotation", {
        ...startOptions,
        workflowId: "by-hand-3",
      });
      await skipping.env.sleep(5 * minute);
      const progress: Progress = await follower.query("progress");
      expect(progress).toMatchObject({ phase: "awaitCacheInvalidation", follows: { workflowId } });
      await follower.signal("abortSignal", { by: "ada", why: "wrong day" });
      await arrived();
      const result = (await follower.result()) as RotationResult;
      expect(result).toMatchObject({ outcome: "aborted", reason: "aborted by ada: wrong day" });
    });
  });

  test("under another id that is cancelled has its rotation aborted", async () => {
    const played = play(now);
    await skipping.withWorker(played, async () => {
      const follower = await skipping.client.workflow.start("normalRotation", {
        ...startOptions,
        workflowId: "by-hand-4",
      });
      await skipping.env.sleep(5 * minute);
      await follower.cancel();
      await arrived();
      expect(((await follower.result()) as RotationResult).outcome).toBe("aborted");
      expect(played.names()).toContain("settleKeys");
    });
  });

  test("under another id that is terminated leaves its rotation alone", async () => {
    const played = play(now);
    await skipping.withWorker(played, async () => {
      const follower = await skipping.client.workflow.start("normalRotation", {
        ...startOptions,
        workflowId: "by-hand-5",
      });
      await skipping.env.sleep(5 * minute);
      await follower.terminate();
      const result = (await skipping.client.workflow.getHandle(workflowId).result()) as RotationResult;
      expect(result.outcome).toBe("rotated");
    });
  });
});
