/** Which key is meant: asked of a worker, else looked at from here, in ten seconds at most. Nothing is changed. */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";

import type { EmergencyPlan, LeakedFound, PlanOrder, SlotKeys } from "../activities/contract.ts";
import { type Environment, type Inventory, readCredentials } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { taskQueue } from "../domain/rotation.ts";
import type { Redacted } from "../redacted.ts";
import type { Temporal } from "../temporal/client.ts";
import { describeFailure } from "./failures.ts";
import type { Here } from "./from-here.ts";
import { nobodyWorks } from "./watch.ts";

export interface Asking {
  env: Environment;
  inventory: Inventory;
  temporal: Temporal;
  /** The leaked value, where one was typed. */
  leaked?: Redacted | undefined;
}

/** Who looked, and what was seen. */
export type Look<Seen> = { kind: "seen"; seen: Seen; by: "worker" | "here" } | { kind: "unseen"; why: string };

/** What an emergency would be about. Fails as `planEmergency` does where somebody looked and nobody knows the key. */
export async function planOf(order: PlanOrder, asking: Asking): Promise<Look<EmergencyPlan>> {
  return lookFor<EmergencyPlan>(asking, {
    worker: () => ofWorker(asking.temporal, "planEmergency", order),
    here: async (here) => (await fromHere(here)).planEmergency(order),
  });
}

/** The live keys of a slot's project. */
export async function keysOf(slot: string, asking: Asking): Promise<Look<SlotKeys>> {
  return lookFor<SlotKeys>(asking, {
    worker: () => ofWorker(asking.temporal, "listSlotKeys", { slot }),
    here: async (here) => (await fromHere(here)).listSlotKeys({ slot }),
  });
}

/** Who has a leaked value, over all slots: no worker is asked before the yes, since it is they who then look it up. */
export async function leakedOf(asking: Asking): Promise<Look<LeakedFound>> {
  return lookFor<LeakedFound>(asking, { here: async (here) => (await fromHere(here)).findLeaked({ leaked: "" }) });
}

async function fromHere(here: Here) {
  const { activitiesHere } = await import("./from-here.ts"); // the worker's code, which takes a second to load
  return activitiesHere(here);
}

const withinMs = 10_000;
/** So long a worker has the question to itself. */
const workerAloneMs = 3_000;

interface Ways<Seen> {
  worker?: () => Promise<Seen>;
  here: (here: Here) => Promise<Seen>;
}

/** An answer about the key: nobody else has to be asked, and asking again would not change it. */
const answers = new Set(["KeyUnknown", "KeyAmbiguous"]);

/** Asks a worker, and from here where none works or it takes its time; the first that can tell is heard. */
export async function lookFor<Seen>(
  { env, inventory, temporal, leaked }: Asking,
  { worker, here }: Ways<Seen>,
  { aloneMs = workerAloneMs, atMostMs = withinMs }: { aloneMs?: number; atMostMs?: number } = {},
): Promise<Look<Seen>> {
  const over = new AbortController();
  const why: string[] = [];
  let answer: { error: unknown } | undefined;
  const tried = async (who: "worker" | "here", ask: () => Promise<Seen>): Promise<Look<Seen>> => {
    try {
      return { kind: "seen", seen: await ask(), by: who };
    } catch (error) {
      const { type, message } = describeFailure(error);
      if (answers.has(type)) answer ??= { error };
      why.push(`${who === "worker" ? "the worker" : "from here"}: ${message}`);
      throw error;
    }
  };
  const idle = worker === undefined ? "none is asked" : await nobodyWorks(temporal);
  const ways: Promise<Look<Seen>>[] = [];
  let workerFailed: Promise<unknown> = Promise.resolve();
  if (worker !== undefined && idle === undefined) {
    const asked = tried("worker", worker);
    workerFailed = Promise.race([
      asked.then(
        () => delay(atMostMs, undefined, { signal: over.signal, ref: false }),
        () => undefined,
      ),
      delay(aloneMs, undefined, { signal: over.signal, ref: false }),
    ]).catch(() => undefined);
    ways.push(asked);
  } else if (worker !== undefined) {
    why.push("no worker works");
  }
  ways.push(
    workerFailed.then(async () => {
      if (over.signal.aborted || answer !== undefined) throw new Error("answered already");
      return tried("here", () => here({ inventory, credentials: readCredentials(env), temporal, leaked }));
    }),
  );
  const nobody = (last?: string): Look<Seen> => {
    if (answer !== undefined) throw answer.error;
    return { kind: "unseen", why: [...why, ...(last === undefined ? [] : [last])].join("; ") };
  };
  const late = async (): Promise<Look<Seen>> => {
    await delay(atMostMs, undefined, { signal: over.signal }).catch(() => undefined);
    return nobody(`nobody could tell within ${atMostMs / 1_000} s`);
  };
  try {
    return await Promise.race([late(), Promise.any(ways).catch(() => nobody())]);
  } finally {
    over.abort();
  }
}

/** A tiny workflow of its own: a worker reads, and the answer is its result. */
async function ofWorker<Seen>({ client }: Temporal, workflowType: string, order: { slot: string }): Promise<Seen> {
  const handle = await client.workflow.start(workflowType, {
    taskQueue,
    workflowId: `keyturn/plan/${order.slot}/${randomUUID()}`,
    args: [order],
    workflowExecutionTimeout: withinMs,
    staticSummary: `looks which keys ${order.slot} has; changes nothing`,
  });
  try {
    return (await handle.result()) as Seen;
  } catch (error) {
    if (describeFailure(error).type !== "TimedOut") throw error;
    throw new RotationFailure("Unavailable", `no answer within ${withinMs / 1_000} s`);
  }
}
