import type { WorkflowHandle } from "@temporalio/client";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { type RotationResult, slotWorkflowId } from "../../src/domain/rotation.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { keyByHand, moreSlots, revokeByHand, serveByHand, slotOf } from "../support/more-slots.ts";
import {
  allSlots,
  handInWhereWanted,
  liveKeys,
  progressOf,
  type Subject,
  subjects,
  typist,
} from "../support/providers.ts";
import { everything, seed, someOf, wanted } from "../support/sample.ts";
import { keepingLogger } from "../support/secrecy.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";

/**
 * A normal rotation is told that a key is compromised, at each of its steps: its old key, its new one before and after it
 * is in the slot, and a stranger. Whenever it comes, one live key is left and no client sees anything.
 */

vi.setConfig({ testTimeout: 120_000 });

type Step = (typeof steps)[number];
/** Without `disableKey`: OpenAI cannot undo it. */
const steps = [
  "inspectSlot",
  "issueKey",
  "verifyAtProvider",
  "stageAliases",
  "verifyThroughGateway(new)",
  "installKey",
  "awaitPropagation",
  "verifyThroughGateway(real)",
  "awaitCacheInvalidation",
  "awaitIdle",
  "revokeKey",
  "confirmRevoked",
  "finish",
] as const;
const from = (step: Step): readonly Step[] => steps.slice(steps.indexOf(step));

/** The activity with which a step shows that it has begun, where it is not of the step's own name. */
const shows: Record<string, string> = { awaitIdle: "checkIdle", disableKey: "lookForErrors", finish: "removeAliases" };

/** What is waited for in each slot, and what is done then. */
const moments = new Map<string, { step: string; come: () => Promise<void> }>();

interface Case {
  step: Step;
  which: "old" | "new" | "stranger";
}
/** Of those that are not about its old key, a few each day: KEYTURN_FAULTS=all has every one. */
const chosen = (all: Case[], count: number): Case[] => (everything ? all : someOf(all, Number(wanted) || count, seed));
const cases: Case[] = [
  ...steps.map((step) => ({ step, which: "old" as const })),
  ...chosen(
    from("verifyAtProvider").map((step) => ({ step, which: "new" as const })),
    5,
  ),
  ...chosen(
    steps.map((step) => ({ step, which: "stranger" as const })),
    2,
  ),
];

/** Slots in which cases run side by side, as many as vitest runs at once, one after the other in each. */
const aliases = ["e1", "e2", "e3", "e4", "e5"];
const free = [...aliases];

let temporal: DevServer;
let world: World;
beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
  world = await startWorld({
    temporal,
    timeScale: quick.timeScale,
    policy: { ...quick.policy, propagationBudget: "60s", settleBudget: "60s" },
    slots: { ...allSlots, ...moreSlots(aliases) },
    // Caches that drop a key within the documented cache wait: who hurries waits no longer.
    sandbox: {
      edges: ["lhr", "iad", "sin", "gru"].map((name, index) => ({
        name,
        propagationMs: 10_000 * index,
        cacheTtlMs: 100_000 * (index + 1),
        isolates: 8,
      })),
    },
    beforeActivity: async (name, order) => {
      const moment = moments.get(String(order["slot"]));
      if (moment === undefined) return;
      const { step } = moment;
      const at = name === "verifyThroughGateway" ? `${name}(${String(order["alias"])})` : name;
      if (at !== (shows[step] ?? step)) return;
      moments.delete(String(order["slot"]));
      await moment.come();
    },
  });
  for (const alias of aliases) {
    const key = await serveByHand(world, alias);
    await world.until(async () => (await world.servedKeys("openai", alias)).join() === key);
  }
});
afterAll(async () => {
  await world.stop();
  await temporal.stop();
});

/** Rotates the slot; at the step it is told that the key is compromised, and goes on when it has taken that in. */
async function rotateAndTell(
  slot: string,
  step: string,
  keyId: () => Promise<string>,
  start: Record<string, unknown> = {},
): Promise<{ result: RotationResult; handle: WorkflowHandle }> {
  let tell = (): void => undefined;
  const told = new Promise<void>((resolve) => (tell = resolve));
  const come = async (): Promise<void> => {
    // A day in buckets of the sandbox's is a million of them.
    const since = new Date(Date.now() - 1_000).toISOString();
    const escalation = { compromisedKeyId: await keyId(), by: "ada", since };
    await world.client.workflow
      .getHandle(slotWorkflowId(slot))
      .startUpdate("escalate", { args: [escalation], waitForStage: "ACCEPTED" });
    tell();
  };
  const bySight = step === "awaitCacheInvalidation"; // all of it is a timer
  if (!bySight) moments.set(slot, { step, come });
  const handle = await world.start({ slot, ...start });
  if (bySight) {
    await world.until(async () => (await progressOf(world, slot)).phase === step);
    await come();
  }
  await told;
  return { result: (await handle.result()) as RotationResult, handle };
}

/** The live keys that were made for the alias, by hand or by keyturn. */
async function liveKeysOf(alias: string): Promise<string[]> {
  const { keys } = await world.record();
  return keys
    .filter(({ name }) => name === `by hand for ${alias}` || name.includes(`.${alias}.`))
    .filter(({ state }) => state === "active" || state === "disabled")
    .map(({ id }) => id);
}

describe("told of a compromised key", () => {
  test.concurrent.for(cases)("$which, at $step: one live key, no request lost", async (told) => {
    const alias = free.pop() ?? "none";
    try {
      await play(alias, told);
    } finally {
      free.push(alias);
    }
  });

  async function play(alias: string, { step, which }: (typeof cases)[number]): Promise<void> {
    const slot = slotOf(alias);
    const [old = ""] = await liveKeysOf(alias);
    const traffic = world.traffic(5, "openai", alias);
    const stranger = which === "stranger" ? (await keyByHand(world, `of a script beside ${slot}`)).id : "";
    let compromised = "";
    const { result } = await rotateAndTell(slot, step, async () => {
      compromised = which === "new" ? ((await progressOf(world, slot)).newKey?.id ?? "") : { old, stranger }[which];
      return compromised;
    });
    const { served } = traffic;
    await world.until(async () => traffic.served > served + 5);
    await traffic.stop();

    expect(traffic.failures).toEqual([]);
    const alive = await liveKeysOf(alias);
    if (which === "new" && steps.indexOf(step) < steps.indexOf("installKey")) {
      expect(result).toMatchObject({ kind: "normal", outcome: "aborted", oldKey: { id: old }, leftOver: [] });
      expect(alive).toEqual([old]);
    } else if (which === "new") {
      // Nobody called its old key compromised: where it was not ended yet, it stays, and is named.
      expect(result).toMatchObject({ kind: "emergency", outcome: "rotated", oldKey: { id: compromised } });
      const fates = Object.fromEntries(result.keys.map(({ id, fate }) => [id, fate]));
      expect(fates).toMatchObject({ [compromised]: "ended", [result.newKey?.id ?? ""]: "held" });
      const named = fates[old] === "named" ? [old] : [];
      expect(new Set(alive)).toEqual(new Set([result.newKey?.id, ...named]));
      // As its operator would: the next case in this slot begins with one key.
      for (const id of named) await revokeByHand(world, id);
    } else {
      expect(result).toMatchObject({ kind: "normal", outcome: "rotated", leftOver: [], oldKey: { id: old } });
      expect(alive).toEqual([result.newKey?.id]);
    }
    const { keys } = await world.record();
    expect(keys.find(({ id }) => id === compromised)?.state).toBe("revoked");
    if (which === "old" && steps.indexOf(step) < steps.indexOf("awaitIdle")) {
      expect(result.steps.find(({ step: name }) => name === "awaitIdle")?.note).toContain("cut short");
      expect(result.clocks?.revoked).toBe(result.times.revoked);
    }
  }
});

describe("told of its old key while that is switched off to see whether anybody needs it", () => {
  const switched = subjects.filter(({ provider }) => provider !== "openai");

  test.concurrent.for(switched)("$slot: it is revoked without the rest of the soak", async (subject: Subject) => {
    const { slot, heldKey, provider } = subject;
    const traffic = world.traffic(5, provider);
    const type = await typist(world, temporal);
    const handedIn = handInWhereWanted(world, subject, type);
    const { result } = await rotateAndTell(slot, "disableKey", async () => heldKey, subject.told);
    await handedIn;
    await type.leave();
    await traffic.stop();
    expect(traffic.failures).toEqual([]);
    expect(result).toMatchObject({ outcome: "rotated", oldKey: { id: heldKey }, leftOver: [], clocks: {} });
    expect(await liveKeys(world, subject)).toEqual([result.newKey?.id]);
  });
});
