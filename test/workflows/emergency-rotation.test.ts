import type { WorkflowFailedError, WorkflowHandle } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { EscalationAnswer } from "../../src/domain/escalation.ts";
import type { Progress, RotationResult } from "../../src/domain/rotation.ts";
import {
  documentedPolicy,
  failing,
  play,
  type Played,
  type Skipping,
  slot,
  startOptions,
  startSkipping,
} from "../support/time-skipping.ts";
import { failureOf, resultOf } from "./endings.ts";

const minute = 60_000;
const hour = 60 * minute;

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const now = (): Promise<number> => skipping.env.currentTimeMs();
const start = (
  workflowType: string,
  input: Record<string, unknown> = {},
  workflowId?: string,
): Promise<WorkflowHandle> =>
  skipping.client.workflow.start(workflowType, {
    ...startOptions,
    args: [{ slot, ...input }],
    ...(workflowId === undefined ? {} : { workflowId }),
  });
const emergency = (played: Played, input: Record<string, unknown> = {}): Promise<RotationResult> =>
  skipping.withWorker(played, async () => resultOf(await start("emergencyRotation", input)));

/** An activity that fails as it would while the provider makes no keys. */
const noNewKeys = {
  issueKey: async () => {
    throw failing("KeyLimitReached");
  },
};

describe("swap-first, with the documented clocks", () => {
  test("puts a new key in within 5 minutes and revokes the compromised one within the hour, without a quiet period", async () => {
    const played = play(now);
    const result = await emergency(played);
    expect(result).toMatchObject({
      kind: "emergency",
      outcome: "rotated",
      oldKey: { id: "key_old" },
      newKey: { id: "key_1" },
    });
    const { started, installed = "", verified = "", revoked = "" } = result.times;
    expect(Date.parse(installed) - Date.parse(started)).toBeLessThanOrEqual(5 * minute);
    expect(Date.parse(revoked) - Date.parse(started)).toBeLessThanOrEqual(hour);
    expect(Date.parse(revoked) - Date.parse(verified)).toBeGreaterThanOrEqual(10 * minute);
    expect(played.names()).not.toContain("checkIdle");
    expect(result.clocks).toMatchObject({ installed, revoked });
  });

  test("shows its clocks while it runs", async () => {
    const played = play(now);
    await skipping.withWorker(played, async () => {
      const handle = await start("emergencyRotation");
      await skipping.env.sleep(2 * minute);
      const { clocks, phase }: Progress = await handle.query("progress");
      expect(phase).toBe("awaitCacheInvalidation");
      expect(clocks).toMatchObject({ installed: expect.any(String), revokeBy: expect.any(String) });
      await handle.result();
    });
  });

  test("ends with what the key was used for, looked at until the provider's late data has settled", async () => {
    const counts = [3, 7, 7];
    const played = play(now, {
      gatherEvidence: async ({ from, to }) => ({
        from,
        to,
        providerRequests: counts.shift() ?? 7,
        providerTokens: 0,
        strangers: [{ from, to, requests: 4, models: ["gpt-5-pro"] }],
        strangeModels: ["gpt-5-pro"],
        notes: [],
      }),
    });
    const { incident } = await emergency(played);
    expect(incident).toMatchObject({
      compromisedKey: { id: "key_old" },
      providerRequests: 7,
      strangeModels: ["gpt-5-pro"],
    });
    expect(played.times("gatherEvidence")).toHaveLength(3);
  });

  test("names the compromised key's use as unknown where the provider cannot be read", async () => {
    const played = play(now, { gatherEvidence: async () => Promise.reject(failing("AdminCredentialRejected")) });
    const { outcome, unknown, incident } = await emergency(played);
    expect({ outcome, unknown, incident }).toEqual({ outcome: "rotated", unknown: ["use of the compromised key"] });
  });

  test("cuts the key at the deadline though no new key can be made", async () => {
    const played = play(now, noNewKeys);
    const result = await emergency(played);
    expect(result).toMatchObject({ outcome: "cut", newKey: null });
    const { started, cut = "" } = result.times;
    expect(Date.parse(cut) - Date.parse(started)).toBeGreaterThanOrEqual(hour - 1_000);
    expect(Date.parse(cut) - Date.parse(started)).toBeLessThanOrEqual(hour + minute);
    expect(played.names()).toContain("cutKey");
    expect(result.keys).toMatchObject([{ id: "key_old", role: "compromised", fate: "ended" }]);
  });

  test("cuts the key at once when a person says so, since no new key can be made", async () => {
    const played = play(now, noNewKeys);
    await skipping.withWorker(played, async () => {
      const handle = await start("emergencyRotation");
      await skipping.env.sleep(5 * minute);
      expect((await handle.query<Progress>("progress")).waiting).toMatchObject({
        asks: { kind: "approval", of: "cut-now" },
        person: true,
      });
      await handle.signal("approveSignal", { by: "ada" });
      const { outcome, times } = (await handle.result()) as RotationResult;
      expect(outcome).toBe("cut");
      expect(Date.parse(times.cut ?? "") - Date.parse(times.started)).toBeLessThan(10 * minute);
    });
  });

  test("with atDeadline hold, never cuts a key without a new one", async () => {
    const policy = documentedPolicy();
    const played = play(now, {
      ...noNewKeys,
      inspection: { policy: { ...policy, emergency: { ...policy.emergency, atDeadline: "hold" } } },
    });
    await expect(emergency(played)).rejects.toThrow();
    expect(played.names()).not.toContain("cutKey");
    expect(played.names()).not.toContain("endCompromisedKey");
  });

  test("cuts at the deadline while a person still has not handed in a key, and goes on when one comes", async () => {
    const played = play(now, { inspection: { canIssue: false } });
    await skipping.withWorker(played, async () => {
      const handle = await start("emergencyRotation");
      await skipping.env.sleep(2 * hour);
      expect(played.names()).toContain("cutKey");
      await handle.signal("submitKeySignal", { sealed: "sealed" });
      const result = (await handle.result()) as RotationResult;
      expect(result).toMatchObject({ outcome: "rotated", newKey: { id: "key_by_hand" } });
      expect(result.outage).toMatchObject({ from: expect.any(String), until: expect.any(String) });
    });
  });

  test("starts emergencies in the other slots that hold the key, and cuts it when the last has moved", async () => {
    const played: Played = play(now, {
      findCompromised: async (order) => {
        const found = await play(now).activities.findCompromised(order);
        return found.map((key) => ({ ...key, heldBy: [slot, "staging/openai"] }));
      },
      lookAtHolders: async ({ keyIds }) => {
        const moved = played.calls.some(
          ({ name, order }) => name === "settleKeys" && order["slot"] === "staging/openai",
        );
        return keyIds.map((keyId) => ({ keyId, yes: moved ? [] : ["staging/openai"], unknown: [] }));
      },
    });
    const result = await emergency(played);
    expect(result.outcome).toBe("rotated");
    expect(result.warnings).toEqual([]);
    const moved = (await skipping.client.workflow.getHandle("keyturn/staging/openai").result()) as RotationResult;
    expect(Date.parse(moved.times.finished ?? "")).toBeLessThanOrEqual(Date.parse(result.times.revoked ?? ""));
    expect(played.times("endCompromisedKey")).toHaveLength(1);
  });

  test("of a key that this slot does not hold only cuts it", async () => {
    const played = play(now);
    const result = await emergency(played, { compromisedKeyId: "key_elsewhere" });
    expect(result).toMatchObject({ outcome: "cut", oldKey: { id: "key_elsewhere" }, newKey: null });
    expect(played.names()).not.toContain("issueKey");
  });
});

describe("cut-first", () => {
  test("cuts before it does anything else, then replaces the shortest way, and says how long requests could fail", async () => {
    const played = play(now);
    const result = await emergency(played, { strategy: "cut-first", compromisedKeyId: "key_old" });
    // The look at the provider is part of the cut: only a key that was seen is cut. The policy is read beside it.
    const [first, second] = played.calls.filter(({ name }) => name !== "readPolicy");
    expect(first).toMatchObject({ name: "findCompromised", order: { providerOnly: true } });
    expect(second?.name).toBe("cutKey");
    expect(played.names().slice(0, played.names().indexOf("installKey"))).not.toContain("stageAliases");
    expect(result.outcome).toBe("rotated");
    expect(result.outage).toEqual({ from: result.times.cut, until: result.times.verified, slots: [slot] });
  });

  test("says that requests failed until the slot answered, not until a worker came back to hear of it", async () => {
    let answered: string | undefined;
    const played = play(now, {
      verifyThroughGateway: async ({ goodAnswers }) => {
        answered = new Date((await now()) - 3_000).toISOString();
        return { at: answered, probes: goodAnswers, warnings: [] };
      },
    });
    const result = await emergency(played, { strategy: "cut-first", compromisedKeyId: "key_old" });
    expect(answered).toBeDefined();
    expect(result.times.verified).toBe(answered);
    expect(result.outage?.until).toBe(answered);
  });

  test("cuts although the slot cannot be looked at, and puts a new key in as soon as it can", async () => {
    let began: number | undefined;
    const right = play(now).activities.inspectSlot;
    const played = play(now, {
      inspectSlot: async (order) => {
        began ??= await now();
        if ((await now()) - began < 2 * hour) throw failing("Unavailable", { retried: true });
        return right(order);
      },
    });
    const result = await emergency(played, { strategy: "cut-first", compromisedKeyId: "key_old" });
    expect(result).toMatchObject({
      outcome: "rotated",
      keys: [{ id: "key_old", role: "compromised", fate: "ended" }, {}],
    });
    const [asked = 0] = played.times("readPolicy");
    expect((played.times("cutKey")[0] ?? Infinity) - asked).toBeLessThan(10_000);
  });

  test("replaces a key all the same whose cut is refused, and does not give up its revocation", async () => {
    let refusals = 0;
    const played = play(now, {
      cutKey: () => Promise.reject(failing("AdminCredentialRejected")),
      endCompromisedKey: async ({ keyId }) => {
        if (++refusals < 3) throw failing("AdminCredentialRejected");
        return { at: new Date(await now()).toISOString(), seen: false, note: `${keyId} revoked` };
      },
    });
    const result = await emergency(played, { strategy: "cut-first", compromisedKeyId: "key_old" });
    expect(result).toMatchObject({ outcome: "rotated", oldKey: { id: "key_old" } });
    expect(result.warnings).toContainEqual(expect.stringContaining("key_old could not be cut at once"));
    expect(result.times).toMatchObject({ revoked: expect.any(String) as string });
    expect(result.outage).toBeUndefined();
  });

  test("says that requests failed for as long as caches held the cut key, where the gateway's logs show it", async () => {
    let lastRefused = "";
    const played = play(now, {
      findLastRefusal: async () => ({ lastRefused: (lastRefused = new Date((await now()) + 3_600_000).toISOString()) }),
    });
    const result = await emergency(played, { strategy: "cut-first", compromisedKeyId: "key_old" });
    expect(result.outage).toMatchObject({ from: result.times.cut, until: lastRefused });
  });

  test("names the end of the outage as unknown where the logs cannot be read", async () => {
    const played = play(now, { findLastRefusal: async () => ({ note: "the logs cannot be read" }) });
    const result = await emergency(played, { strategy: "cut-first", compromisedKeyId: "key_old" });
    expect(result).toMatchObject({ unknown: ["end of the outage"] });
    expect(result.warnings).toContain("the logs cannot be read");
  });

  test("cuts although nothing can be made", async () => {
    const result = await emergency(play(now, noNewKeys), { strategy: "cut-first", compromisedKeyId: "key_old" });
    expect(result).toMatchObject({ outcome: "cut", newKey: null });
    const { started, cut = "" } = result.times;
    expect(Date.parse(cut) - Date.parse(started)).toBeLessThan(10_000);
    expect(result.outage).toEqual({ from: cut, slots: [slot] });
  });
});

describe("an emergency while a normal rotation runs", () => {
  const real = {
    updateRun: async ({ workflowId, update, arg }: { workflowId: string; update: string; arg: unknown }) =>
      skipping.client.workflow.getHandle(workflowId).executeUpdate<unknown, [unknown]>(update, { args: [arg] }),
  };
  const duringCacheWait = async (
    played: Played,
    input: Record<string, unknown>,
  ): Promise<{ joined: RotationResult; rotated: RotationResult }> =>
    skipping.withWorker(played, async () => {
      const running = await start("normalRotation");
      await skipping.env.sleep(3 * minute);
      const second = await start("emergencyRotation", input, "emergency-by-hand");
      return { joined: await resultOf(second), rotated: await resultOf(running) };
    });

  test("hurries it when its old key is compromised: no quiet period, no soak", async () => {
    const played = play(now, { ...real, inspection: { canDisable: true } });
    const { joined, rotated } = await duringCacheWait(played, { compromisedKeyId: "key_old" });
    expect(joined).toMatchObject({ kind: "emergency", outcome: "joined" });
    expect(rotated).toMatchObject({ kind: "normal", outcome: "rotated" });
    expect(played.names()).not.toContain("checkIdle");
    expect(played.names()).not.toContain("disableKey");
    expect(Date.parse(rotated.times.revoked ?? "") - Date.parse(rotated.times.started)).toBeLessThan(30 * minute);
    expect(rotated.incident).toMatchObject({ compromisedKey: { id: "key_old" }, providerRequests: 5 });
    expect(rotated.clocks?.installed).toBe(rotated.times.installed);
  });

  test("hurries it too when only the leaked value is known, and looks at its use since it may have leaked", async () => {
    const since = "2026-01-01T00:00:00.000Z";
    const played = play(now, {
      ...real,
      findCompromised: async ({ leaked = "", ...order }) =>
        play(now).activities.findCompromised({ ...order, keyIds: [leaked === "sealed" ? "key_old" : "key_none"] }),
    });
    const { joined, rotated } = await duringCacheWait(played, { leaked: "sealed", since });
    expect(joined).toMatchObject({ outcome: "joined", oldKey: { id: "key_old" } });
    expect(rotated.incident).toMatchObject({ from: since });
  });

  test("cuts its compromised old key at the deadline while a person still has not handed in a new one", async () => {
    const played = play(now, { ...real, inspection: { canIssue: false } });
    await skipping.withWorker(played, async () => {
      const running = await start("normalRotation");
      await skipping.env.sleep(3 * minute);
      const told = await now();
      await resultOf(await start("emergencyRotation", { compromisedKeyId: "key_old" }, "emergency-by-hand-3"));
      await skipping.env.sleep(2 * hour);
      const [cut = Infinity] = played.times("cutKey");
      expect(cut - told).toBeGreaterThanOrEqual(hour - 1_000);
      expect(cut - told).toBeLessThan(hour + minute);
      await running.signal("submitKeySignal", { sealed: "sealed" });
      expect(await resultOf(running)).toMatchObject({ outcome: "rotated", newKey: { id: "key_by_hand" } });
    });
  });

  test("is followed by the emergency of its new key when that is compromised and installed; the old key is named, since nobody called it compromised", async () => {
    const played = play(now, {
      ...real,
      inspectSlot: async () => {
        const first = played.times("inspectSlot").length === 1;
        return {
          ...(await play(now).activities.inspectSlot({ slot, rotationId: "" })),
          held: { id: first ? "key_old" : "key_1", how: "mark" },
        };
      },
    });
    const { rotated } = await duringCacheWait(played, { compromisedKeyId: "key_1" });
    expect(rotated).toMatchObject({
      kind: "emergency",
      outcome: "rotated",
      oldKey: { id: "key_1" },
      newKey: { id: "key_2" },
    });
    const ended = played.calls.filter(({ name }) => name === "endCompromisedKey").map(({ order }) => order["keyId"]);
    expect(ended).toEqual(["key_1"]);
    expect(rotated.keys).toMatchObject([
      { id: "key_old", role: "old", fate: "named" },
      { id: "key_1", role: "compromised", fate: "ended" },
      { id: "key_2", role: "new", fate: "held" },
    ]);
  });

  test("ends it as aborted when its new key is compromised and not installed yet", async () => {
    const played = play(now, { ...real, inspection: { policy: documentedPolicy({ approval: "before-install" }) } });
    const { rotated } = await duringCacheWait(played, { compromisedKeyId: "key_1" });
    expect(rotated).toMatchObject({ outcome: "aborted", newKey: null, oldKey: { id: "key_old" } });
    expect(rotated.keys).toMatchObject([
      { id: "key_old", fate: "held" },
      { id: "key_1", role: "compromised", fate: "ended" },
    ]);
  });

  test("cuts a key that is neither and lets it go on", async () => {
    const played = play(now, real);
    const { rotated } = await duringCacheWait(played, { compromisedKeyId: "key_elsewhere" });
    expect(rotated.outcome).toBe("rotated");
    expect(played.calls.find(({ name }) => name === "endCompromisedKey")).toMatchObject({
      // A slot may take it before a late attempt: up to its deadline that asks again.
      order: { keyId: "key_elsewhere", unheldUntil: expect.stringMatching(/^\d{4}-.*Z$/) as string },
    });
    expect(rotated.keys).toContainEqual(expect.objectContaining({ id: "key_elsewhere", fate: "ended" }));
  });

  test("waits with what it does while it still looks which key the slot holds", async () => {
    let look = (): void => undefined;
    const told = new Promise<void>((resolve) => (look = resolve));
    const played: Played = play(now, {
      inspectSlot: async (order) => told.then(async () => play(now).activities.inspectSlot(order)),
    });
    await skipping.withWorker(played, async () => {
      const running = await start("normalRotation");
      const args = [{ compromisedKeyId: "key_old" }] as const;
      const update = await running.startUpdate<EscalationAnswer, [unknown]>("escalate", {
        args: [...args],
        waitForStage: "ACCEPTED",
      });
      look();
      expect(await update.result()).toMatchObject({
        does: "hurries",
        keyId: "key_old",
        says: expect.stringContaining("the rotation hurries") as string,
      });
      expect(await running.result()).toMatchObject({ outcome: "rotated", oldKey: { id: "key_old" } });
    });
    expect(played.names()).not.toContain("cutKey");
  });

  test("that stops before it knew the slot's key stays open until the key is cut at its deadline", async () => {
    let look = (): void => undefined;
    const told = new Promise<void>((resolve) => (look = resolve));
    const played: Played = play(now, {
      inspectSlot: async () => told.then(() => Promise.reject(failing("SlotMissing"))),
    });
    await skipping.withWorker(played, async () => {
      const running = await start("normalRotation");
      const args = [{ compromisedKeyId: "key_old" }] as const;
      const update = await running.startUpdate<EscalationAnswer, [unknown]>("escalate", {
        args: [...args],
        waitForStage: "ACCEPTED",
      });
      const toldAt = await now();
      look();
      expect(await update.result()).toMatchObject({ does: "cuts", by: expect.any(String) as string });
      const { type, result } = await failureOf(running.result());
      expect(type).toBe("SlotMissing");
      expect(result.keys).toMatchObject([{ id: "key_old", role: "compromised", fate: "ended" }]);
      const [cut = Infinity] = played.times("cutKey");
      expect(cut - toldAt).toBeLessThan(hour + minute);
    });
  });

  test("without the id of the key is refused", async () => {
    const played = play(now, real);
    await skipping.withWorker(played, async () => {
      const running = await start("normalRotation");
      await skipping.env.sleep(3 * minute);
      const second = await start("emergencyRotation", {}, "emergency-by-hand-2");
      const failure = await second.result().catch((error: unknown) => (error as WorkflowFailedError).cause);
      expect(failure).toBeInstanceOf(ApplicationFailure);
      expect(failure).toMatchObject({ type: "KeyAmbiguous" });
      await running.result();
    });
  });
});

describe("a key that can be switched off and on again", () => {
  /** The end of a rotation that a person aborts in the step that switches the old key off. */
  const abortedInDisableKey = (played: ReturnType<typeof play>): Promise<RotationResult> =>
    skipping.withWorker(played, async () => {
      const handle = await start("normalRotation");
      await skipping.env.sleep(50 * minute);
      expect((await handle.query<Progress>("progress")).phase).toBe("disableKey");
      await handle.signal("abortSignal", { by: "ada" });
      return (await handle.result()) as RotationResult;
    });

  test("is off for the soak before it is revoked for good", async () => {
    const played = play(now, { inspection: { canDisable: true } });
    await skipping.withWorker(played, async () => (await start("normalRotation")).result());
    const [off = 0] = played.times("disableKey");
    const [revoked = 0] = played.times("revokeKey");
    expect(revoked - off).toBeGreaterThanOrEqual(15 * minute - 1_000);
    expect(played.names()).not.toContain("enableKey");
  });

  test("is switched on again when requests fail without it, and the rotation stops", async () => {
    const played = play(now, {
      inspection: { canDisable: true },
      lookForErrors: async () => ({ newErrors: 3, note: "3 refused requests since, 0 before" }),
    });
    const ending = skipping.withWorker(played, async () => (await start("normalRotation")).result());
    const failure = await ending.catch((error: unknown) => (error as WorkflowFailedError).cause);
    expect(failure).toMatchObject({ type: "KeyStillUsed" });
    expect(played.names()).toContain("enableKey");
    expect(played.names()).not.toContain("revokeKey");
  });

  test("is revoked after the soak also where the gateway's logs cannot be read, which is named as unknown", async () => {
    const played = play(now, {
      inspection: { canDisable: true },
      lookForErrors: async () => ({ note: "the gateway's logs cannot be read" }),
    });
    const rotated = await skipping.withWorker(played, async () => resultOf(await start("normalRotation")));
    expect(rotated).toMatchObject({ outcome: "rotated", unknown: ["errors at the gateway"] });
  });

  test("is switched on again when the rotation is aborted during the soak", async () => {
    const played = play(now, { inspection: { canDisable: true } });
    const result = await abortedInDisableKey(played);
    expect(result.outcome).toBe("aborted");
    expect(played.names()).toContain("enableKey");
  });

  test.each([true, false])(
    "is switched on again after an abort before anything could be told only where it may be off (%s)",
    async (mayBeOff) => {
      const played = play(now, {
        inspection: { canDisable: true },
        disableKey: async () => {
          throw failing("NotYetPropagated", { details: [{ mayBeOff }] });
        },
      });
      const result = await abortedInDisableKey(played);
      expect(result.outcome).toBe("aborted");
      expect(played.names().includes("enableKey")).toBe(mayBeOff);
    },
  );
});

describe("a key that only a person can make", () => {
  const byHand = {
    inspection: {
      canIssue: false,
      handIn: {
        where: "https://console",
        keyName: "kt.acme",
        keyType: "a service account key",
        belongsTo: "workspace w",
      },
    },
  };

  test("is waited for, with what to make and where", async () => {
    const played = play(now, byHand);
    await skipping.withWorker(played, async () => {
      const handle = await start("normalRotation");
      await skipping.env.sleep(hour);
      const { waiting }: Progress = await handle.query("progress");
      expect(waiting).toMatchObject({ asks: { kind: "key", name: "kt.acme" }, person: true });
      expect(waiting?.action).toBe(
        "make a service account key, named kt.acme, for workspace w at https://console, to live 91d or longer, then keyturn submit-key production/openai",
      );
      await handle.signal("submitKeySignal", { sealed: "sealed" });
      expect(await handle.result()).toMatchObject({ outcome: "rotated", newKey: { id: "key_by_hand" } });
    });
  });

  test("that cannot be used is answered at once, and the wait goes on", async () => {
    let tries = 0;
    const played = play(now, {
      ...byHand,
      acceptKey: async ({ sealed }) => {
        if (++tries === 1) throw failing("InvalidInput");
        return { id: "key_by_hand", fingerprint: "0123456789abcdef", sealed };
      },
    });
    await skipping.withWorker(played, async () => {
      const handle = await start("normalRotation");
      await skipping.env.sleep(hour);
      const refused = handle.executeUpdate("submitKey", { args: [{ sealed: "bad" }] });
      await expect(refused).rejects.toThrow();
      expect((await handle.query<Progress>("progress")).waiting?.asks?.kind).toBe("key");
      await handle.executeUpdate("submitKey", { args: [{ sealed: "good" }] });
      expect(await handle.result()).toMatchObject({ outcome: "rotated" });
    });
  });

  test("that does not come in 7 days stops the rotation with nothing changed", async () => {
    const played = play(now, byHand);
    const ending = skipping.withWorker(played, async () => (await start("normalRotation")).result());
    const { type, message, result } = await failureOf(ending);
    expect(type).toBe("NobodyDecided");
    expect(message).toContain("no key was handed in");
    expect(played.names()).not.toContain("stageAliases");
    const waited = Date.parse(result.times.finished ?? "") - Date.parse(result.times.started);
    expect(waited / (24 * hour)).toBeCloseTo(7, 1);
  });
});
