import { setTimeout } from "node:timers/promises";

import { Context } from "@temporalio/activity";
import type { Client } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { TestWorkflowEnvironment } from "@temporalio/testing";
import { DefaultLogger, type LogEntry, Runtime } from "@temporalio/worker";

import type { Inspection, SeenKey } from "../../src/activities/contract.ts";
import type { RotationActivities } from "../../src/activities/index.ts";
import { parseInventory } from "../../src/config.ts";
import type { CustodyEntry, Fate } from "../../src/domain/custody.ts";
import type { Policy } from "../../src/domain/policy.ts";
import { slotWorkflowId, taskQueue } from "../../src/domain/rotation.ts";
import { findTestServer } from "../../src/temporal/binaries.ts";
import { addSearchAttributes, searchAttributeNames } from "../../src/temporal/search-attributes.ts";
import { createWorker } from "../../src/worker.ts";
import { workflowBundle } from "./workflow-bundle.ts";

export const slot = "production/openai";
export const workflowId = slotWorkflowId(slot);

/** A server that skips time, on which workflows run with activities that are played. */
export interface Skipping {
  env: TestWorkflowEnvironment;
  client: Client;
  /** Runs `body` while the worker serves these activities. */
  withWorker<Result>(played: Played, body: () => Promise<Result>): Promise<Result>;
  /** Leaves this server, which stands still once a child went on as another run: the next test gets another one. */
  spend(): void;
  stop(): Promise<void>;
}

export async function startSkipping(): Promise<Skipping> {
  const losses = new Losses();
  Runtime.install({
    logger: new DefaultLogger("WARN", (entry) => losses.read(entry)),
    telemetryOptions: { logging: { forward: { level: "WARN" } } },
  });
  let served: RotationActivities;
  let opened = await openServer(() => served);
  /** The body of a test that failed: it left a run under way, or a server whose time stands still. */
  let unfinished: Promise<unknown> | undefined;
  let isSpent = false;
  return {
    get env() {
      return opened.env;
    },
    get client() {
      return opened.env.client;
    },
    withWorker: async ({ activities }, body) => {
      if (unfinished !== undefined || isSpent) {
        await opened.endRuns();
        await Promise.race([unfinished?.catch(() => undefined), setTimeout(5_000)]);
        await opened.stop();
        opened = await openServer(() => served);
        isSpent = false;
      }
      served = activities;
      const ended = opened.running.then(() => Promise.reject(new Error("the worker ended")));
      const result = body();
      unfinished = result;
      await Promise.race([result, ended, losses.next()]);
      unfinished = undefined;
      return result;
    },
    spend: () => {
      isSpent = true;
    },
    stop: async () => {
      if (unfinished !== undefined) await opened.endRuns();
      await opened.stop();
    },
  };
}

interface Opened {
  env: TestWorkflowEnvironment;
  /** Resolves when the worker ended. */
  running: Promise<void>;
  /** Ends the runs that are still under way. */
  endRuns(): Promise<void>;
  stop(): Promise<void>;
}

async function openServer(served: () => RotationActivities): Promise<Opened> {
  const { path } = await findTestServer();
  const env = await TestWorkflowEnvironment.createTimeSkipping({
    server: { executable: { type: "existing-path", path } },
  });
  await addSearchAttributes(env.connection, env.namespace ?? "default", searchAttributeNames);
  const runs = new Set<string>();
  const worker = await createWorker({
    connection: env.nativeConnection,
    namespace: env.namespace ?? "default",
    activities: delegating(play(() => env.currentTimeMs()).activities, () => {
      runs.add(Context.current().info.workflowExecution?.workflowId ?? "");
      return served();
    }),
    workflows: await workflowBundle(),
  });
  const running = worker.run();
  return {
    env,
    running,
    endRuns: async () => {
      await Promise.allSettled([...runs].map((id) => env.client.workflow.getHandle(id).terminate("its test ended")));
    },
    stop: async () => {
      worker.shutdown();
      await running;
      await env.teardown();
    },
  };
}

/**
 * The server that skips time loses a workflow task that cancels an activity which completes in the same moment: it refuses
 * the task's completion with ACTIVITY_UNKNOWN and never gives the task again, and the run stands still for ever. A real
 * server takes such a completion. The test that met it fails with this error, for which alone it is tried again.
 */
export class TaskLost extends Error {
  constructor() {
    super("TaskLost: the server that skips time lost a workflow task");
  }
}

/** Hears of tasks that the server lost: the worker only logs that their completion was refused. */
class Losses {
  #tell: (() => void) | undefined;

  read({ level, message, meta }: LogEntry): void {
    if (`${message} ${JSON.stringify(meta)}`.includes("ACTIVITY_UNKNOWN")) this.#tell?.();
    else if (level === "ERROR") process.stderr.write(`${message} ${JSON.stringify(meta)}\n`);
  }

  /** Rejects with the next loss. */
  next(): Promise<never> {
    return new Promise((_, reject) => {
      this.#tell = () => reject(new TaskLost());
    });
  }
}

/** One worker serves all tests of a file, since starting it costs more than most of them; each plays its own world. */
function delegating(all: RotationActivities, served: () => RotationActivities): RotationActivities {
  return Object.fromEntries(
    (Object.keys(all) as (keyof RotationActivities)[]).map((name) => [
      name,
      (order: never) => (served()[name] as (given: never) => Promise<unknown>)(order),
    ]),
  ) as unknown as RotationActivities;
}

/** The policy of an inventory that sets nothing: the documented waits. */
export function documentedPolicy(changes: Partial<Policy> = {}): Policy {
  const inventory = parseInventory(
    JSON.stringify({
      installation: "acme",
      account: "a",
      environments: { production: { gateway: "gw" } },
      slots: { [slot]: { openai: { project: "p", serviceAccount: "s" } } },
      sealing: [{ kid: "k", publicKey: { kty: "EC", crv: "P-256", x: "x", y: "y" } }],
    }),
    "keyturn.yaml",
    {},
  );
  const policy = inventory.slots[slot]?.policy;
  if (policy === undefined) throw new Error("the inventory of the test has no slot");
  return { ...policy, ...changes };
}

/** Activities that are played: what was called when, with what. */
export interface Played {
  activities: RotationActivities;
  calls: { name: string; at: number; order: Record<string, unknown> }[];
  names(): string[];
  times(name: string): number[];
}

const seenKey: SeenKey = {
  id: "",
  madeBy: "a person",
  state: "alive",
  what: "held",
  heldBy: [slot],
  heldUnknown: [],
  through: slot,
};

type Overrides = { [Name in keyof RotationActivities]?: RotationActivities[Name] };

/**
 * Plays the outside world of a rotation in which all goes well; `overrides` makes parts of it go otherwise. `now` is the
 * server's clock, which skips.
 */
export function play(
  now: () => Promise<number>,
  { inspection = {}, ...overrides }: Overrides & { inspection?: Partial<Inspection> } = {},
): Played {
  const calls: Played["calls"] = [];
  let issued = 0;
  /** What the slot holds. */
  let holds = inspection.held?.id ?? "key_old";
  const iso = async (ms = 0): Promise<string> => new Date((await now()) + ms).toISOString();
  const fateOf = async ({ id, role, given }: Pick<CustodyEntry, "id" | "role" | "given">): Promise<Fate> => {
    if (id === holds) return { fate: "held", by: slot };
    if (role === "new" && !given) return { fate: "ended", at: await iso(), seen: false };
    return { fate: "named", why: role === "old" ? "clients may still use it" : "look who uses it" };
  };
  const good: Partial<RotationActivities> = {
    inspectSlot: async () => ({
      policy: documentedPolicy(),
      due: { due: true, reason: "asked for" },
      held: { id: "key_old", how: "mark" },
      sharedWith: [],
      earlier: [],
      unknown: [],
      secretModified: "2026-01-01T00:00:00.000Z",
      staged: true,
      canIssue: true,
      canDisable: false,
      canPurge: false,
      warnings: [],
      ...inspection,
    }),
    issueKey: async () => ({
      id: `key_${++issued}`,
      fingerprint: "0123456789abcdef",
      sealed: "sealed",
      leftBehind: [],
    }),
    verifyAtProvider: async () => ({ probes: 0, warnings: [] }),
    stageAliases: async () => ({}),
    seePrevAnswer: async () => ({ answered: true, note: "prev answered" }),
    verifyThroughGateway: async ({ goodAnswers }) => ({ probes: goodAnswers, warnings: [] }),
    installKey: async ({ key }) => {
      holds = key.id;
      return { at: await iso() };
    },
    awaitPropagation: async () => ({ note: "active" }),
    checkIdle: async ({ since }) => {
      const askAt = new Date(Date.parse(since) + 32 * 60_000).toISOString();
      const probeAt = new Date(Date.parse(since) + 16 * 60_000).toISOString();
      const kind = (await now()) >= Date.parse(askAt) ? "idle" : "too early";
      return {
        kind,
        note: kind,
        newKeyRequests: 100,
        clientsBefore: "yes",
        ...(kind === "idle" ? {} : { probeAt, askAt }),
      };
    },
    revokeKey: async ({ keyId }) => ({ at: await iso(), seen: false, note: `${keyId} revoked` }),
    lookBeforeRevoking: async () => undefined,
    confirmRevoked: async () => ({ deadAt: await iso(), note: "5 refusals in a row" }),
    readPolicy: async () => inspection.policy ?? documentedPolicy(),
    acceptKey: async ({ sealed }) => ({ id: "key_by_hand", fingerprint: "0123456789abcdef", sealed }),
    disableKey: async () => ({ at: await iso(), wasOff: false }),
    enableKey: async () => undefined,
    cutKey: async () => ({ at: await iso(), how: "revoked" }),
    endCompromisedKey: async ({ keyId }) => ({ at: await iso(), seen: false, note: `${keyId} revoked` }),
    lookForErrors: async () => ({ newErrors: 0, note: "0 refused requests since, 0 before" }),
    findLastRefusal: async () => ({}),
    findCompromised: async ({ keyIds }) =>
      (keyIds.length === 0 ? ["key_old"] : keyIds).map((id) => ({
        id,
        how: "id",
        state: "alive",
        through: slot,
        heldBy: id === holds ? [slot] : [],
        unknown: [],
      })),
    lookAtHolders: async ({ keyIds }) =>
      keyIds.map((keyId) => ({ keyId, yes: keyId === holds ? [slot] : [], unknown: [] })),
    planEmergency: async () => ({
      slot,
      account: "a",
      gateway: "gw",
      keys: [{ ...seenKey, id: inspection.held?.id ?? "key_old" }],
      unknown: [],
      warnings: [],
    }),
    listSlotKeys: async () => ({ slot, keys: [{ ...seenKey, id: "key_old" }], unknown: [] }),
    findLeaked: async () => ({
      matches: [{ keyId: "key_old", how: "fingerprint", slots: [slot], held: true }],
      unknown: [],
    }),
    gatherEvidence: async ({ from, to }) => ({
      from,
      to,
      providerRequests: 5,
      providerTokens: 50,
      gatewayRequests: 3,
      strangers: [],
      strangeModels: [],
      notes: [],
    }),
    checkSaved: async ({ installedKeyId }) => ({ note: `saved: the mark names ${installedKeyId}` }),
    restoreOldValue: async () => undefined,
    purgeCache: async () => undefined,
    removeAliases: async () => undefined,
    settleKeys: async ({ keys }) => ({
      keys: await Promise.all(keys.map(async (key) => ({ ...key, fate: await fateOf(key) }))),
      warnings: [],
    }),
    findRun: async ({ workflowId: id }) => ({ workflowId: id, runId: "run" }),
    updateRun: async () => "done",
    findOrphans: async () => ({ installation: "acme", orphans: [], spared: [], blocked: [], unknown: [] }),
    revokeOrphan: async () => ({ kind: "ended", at: await iso() }),
    removeOrphanAlias: async () => ({ kind: "ended", at: await iso() }),
    ...overrides,
  };
  const recorded = Object.fromEntries(
    Object.entries(good).map(([name, activity]) => [
      name,
      async (order: Record<string, unknown>) => {
        calls.push({ name, at: await now(), order });
        return (activity as (given: Record<string, unknown>) => Promise<unknown>)(order);
      },
    ]),
  ) as unknown as RotationActivities;
  return {
    activities: recorded,
    calls,
    names: () => calls.map(({ name }) => name),
    times: (name) => calls.filter((call) => call.name === name).map(({ at }) => at),
  };
}

/** A failure as the interceptor makes it of ours. */
export function failing(
  type: string,
  { retried = false, details = [] }: { retried?: boolean; details?: unknown[] } = {},
): ApplicationFailure {
  return ApplicationFailure.create({ type, message: `it failed: ${type}`, nonRetryable: !retried, details });
}

export const startOptions = { taskQueue, workflowId, args: [{ slot }] };
