import { setTimeout as delay } from "node:timers/promises";
import { Client, Connection, type WorkflowHandle } from "@temporalio/client";
import { NativeConnection, type Worker } from "@temporalio/worker";

import type { Dependencies } from "../../src/activities/dependencies.ts";
import { createActivities, type RotationActivities } from "../../src/activities/index.ts";
import { parseInventory, readCredentials, type SealingPublicKey } from "../../src/config.ts";
import { taskQueue, type RotationResult, slotWorkflowId } from "../../src/domain/rotation.ts";
import { type SandboxOptions, startSandbox } from "../../src/sandbox/index.ts";
import { gatewaySlugs, type ProviderName } from "../../src/domain/slot.ts";
import { createSealing, generateSealingKey, type SealingPrivateKey } from "../../src/sealing.ts";
import { productionGateway, startTraffic, type Traffic } from "./traffic.ts";
import { workflowBundle } from "./workflow-bundle.ts";
import { type DevServer, startDevServer } from "../../src/temporal/dev-server.ts";
import { searchAttributeNames } from "../../src/temporal/search-attributes.ts";
import { runsOf } from "../../src/temporal/runs.ts";
import { createWorker, type Parts, plugEndings, plugTogether } from "../../src/worker.ts";

/** The record the sandbox keeps, as far as tests ask for it. */
export interface SandboxRecord {
  keys: {
    id: string;
    name: string;
    provider: string;
    projectId: string;
    /** Anthropic's, in place of a project. */
    workspaceId?: string;
    createdAt: string;
    state: string;
    lastUsedAt: string | null;
    revokedAt: string | null;
    deadAt: string | null;
  }[];
  traffic: { served: number; failed: number; failures: { at: string; edge: string; keyId: string; status: number }[] };
  requests: { service: string; method: string; path: string; status: number; userAgent: string }[];
  writes: number;
}

/** The documented waits, each divided by the scale of time. */
export function scaledPolicy(scale: number, changes: Record<string, unknown> = {}): Record<string, unknown> {
  const ms = (minutes: number): string => `${Math.max(1, Math.round((minutes * 60_000) / scale))}ms`;
  return {
    propagationWait: ms(0.5),
    propagationBudget: "15s",
    settleBudget: "20s",
    alive: { openai: `5 over ${ms(1 / 6)}`, anthropic: `5 over ${ms(1 / 6)}`, google: `10 over ${ms(2)}` },
    cacheInvalidationWait: ms(10),
    quietPeriod: ms(15),
    usageLag: { openai: ms(15), anthropic: ms(10), google: ms(35) },
    graceCeiling: { after: ms(24 * 60) },
    soak: ms(15),
    longestRequest: ms(15),
    dead: {
      openai: `5 over ${ms(0.5)}`,
      anthropic: `5 over ${ms(0.5)}`,
      google: `10 over ${ms(2)}`,
      "google-standard": `10 over ${ms(30)}`,
    },
    ...changes,
  };
}

interface PlayedSlot {
  gateway: string;
  provider: string;
  alias: string;
  keyId: string | null;
  edges: { edge: string; isolates: Record<string, number> }[];
}

/** For tests to which the waits do not matter: done in a few seconds. */
export const quick = {
  timeScale: 600,
  policy: { graceCeiling: { after: "500ms", ifUnknown: "revoke", ifUsed: "revoke" } },
} satisfies Partial<WorldOptions>;

/** One Temporal server for a file of tests. */
export async function startTemporal(): Promise<DevServer> {
  return startDevServer({
    headless: true,
    searchAttributes: searchAttributeNames,
  });
}

export interface WorldOptions {
  temporal: Pick<DevServer, "address" | "namespace">;
  timeScale: number;
  policy?: Record<string, unknown>;
  sandbox?: SandboxOptions;
  /** More of the inventory's environments and slots; `serveMore` makes what they need outside. */
  environments?: Record<string, unknown>;
  slots?: Record<string, unknown>;
  /** Sealing keys, the first of them seals. */
  sealing?: SealingKeys;
  /** Variables of the environment that the worker does not have: a provider's admin credential. */
  without?: string[];
  /** Puts a broken activity in place of a right one. */
  breakActivities?: (dependencies: Dependencies) => Partial<RotationActivities>;
  /** Awaited before each attempt of an activity: the moment at which a test steps in. */
  beforeActivity?: (name: string, order: Record<string, unknown>) => Promise<void>;
}

/** What the inventory and a worker know of sealing keys. */
export interface SealingKeys {
  publicKeys: SealingPublicKey[];
  privateKeys: SealingPrivateKey[];
}

/** A sandbox, an inventory for it, a client and a worker, all in this process. */
export interface World {
  client: Client;
  env: Record<string, string>;
  control: string;
  inventoryText: string;
  storeId: string;
  /** Ends the worker and starts another, with these sealing keys in inventory and environment. */
  restartWorker(sealing?: SealingKeys): Promise<void>;
  /** A call of Cloudflare's API in the sandbox's account, or of OpenAI's, as somebody's hands and scripts make it. */
  cloudflare(method: string, path: string, body?: unknown): Promise<unknown>;
  openai(method: string, path: string, body?: unknown): Promise<unknown>;
  /** A call on the sandbox's control address; without a body it is a GET. */
  ask(path: string, body?: unknown): Promise<unknown>;
  options(options: Record<string, unknown>): Promise<void>;
  record(): Promise<SandboxRecord>;
  /** Every key value the sandbox ever issued. */
  values(): Promise<string[]>;
  faults(fault: Record<string, unknown>): Promise<void>;
  clearFaults(): Promise<void>;
  /** The ids of the keys that any isolate of any edge sends now for production's slot (default: openai, alias default). */
  servedKeys(provider?: ProviderName, alias?: string): Promise<string[]>;
  /** The key whose value production's slot holds in the store, as the sandbox knows it. */
  heldKey(provider: ProviderName, alias: string): Promise<string>;
  /** The secrets in the store, as Cloudflare lists them. */
  secrets(): Promise<{ id: string; name: string; comment: string | null }[]>;
  /** Waits so many milliseconds of the sandbox's time. */
  later(ms: number): Promise<void>;
  /** Waits until it is so, 20 s at most. */
  until(condition: () => Promise<boolean>): Promise<void>;
  start(input?: Record<string, unknown>, workflowId?: string, workflowType?: string): Promise<WorkflowHandle>;
  rotate(input?: Record<string, unknown>): Promise<RotationResult>;
  /** Steady requests of clients through production's gateway to the provider (default: openai). */
  traffic(perSecond: number, provider?: ProviderName, alias?: string): Traffic;
  stop(): Promise<void>;
}

export async function startWorld({
  temporal,
  timeScale,
  policy = {},
  sandbox = {},
  environments = {},
  slots = {},
  sealing: given,
  without = [],
  breakActivities = () => ({}),
  beforeActivity,
}: WorldOptions): Promise<World> {
  const played = await startSandbox({ timeScale, ...sandbox });
  const sealingKeys = given ?? (await newSealingKeys("2026-11"));
  const inventoryWith = ({ publicKeys }: SealingKeys): string =>
    JSON.stringify({
      installation: "acme",
      account: played.env["CLOUDFLARE_ACCOUNT_ID"],
      environments: {
        production: { gateway: productionGateway },
        staging: { gateway: "github-ai-agent-staging" },
        ...environments,
      },
      slots: {
        "production/openai": { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } },
        "staging/openai": { openai: { project: "proj_stg", serviceAccount: "svc_acct_2" } },
        ...slots,
      },
      sealing: publicKeys,
      policy: scaledPolicy(timeScale, policy),
    });

  const connection = await NativeConnection.connect({ address: temporal.address });
  const clientConnection = await Connection.connect({ address: temporal.address });
  const client = new Client({ connection: clientConnection, namespace: temporal.namespace });
  const startWorker = async (keys: SealingKeys): Promise<() => Promise<void>> => {
    const inventory = parseInventory(inventoryWith(keys), "keyturn.yaml", played.env);
    const parts: Parts = {
      inventory,
      credentials: readCredentials(withoutVariables(played.env, without)),
      sealing: createSealing(inventory.sealing, keys.privateKeys),
      runs: runsOf(client),
      // What the sandbox shows late, it shows as much earlier as its time is faster.
      secondLookMs: Math.max(50, 2_000 / timeScale),
    };
    const dependencies = plugTogether(parts);
    const activities = { ...createActivities(dependencies, plugEndings(parts)), ...breakActivities(dependencies) };
    const worker: Worker = await createWorker({
      connection,
      namespace: temporal.namespace,
      activities: beforeActivity === undefined ? activities : withMoments(activities, beforeActivity),
      workflows: await workflowBundle(),
    });
    const running = worker.run();
    return async () => {
      worker.shutdown();
      await running;
    };
  };
  let stopWorker = await startWorker(sealingKeys);
  const flows: Traffic[] = [];

  const account = `${played.env["CLOUDFLARE_API_BASE_URL"]}/accounts/${played.env["CLOUDFLARE_ACCOUNT_ID"]}`;
  const call = async (method: string, url: string, token: string | undefined, body: unknown): Promise<unknown> => {
    const response = await fetch(url, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        "user-agent": "somebody's hands",
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  };
  const control = async (path: string, body?: unknown): Promise<unknown> => {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const response = await fetch(`${played.control}${path}`, init);
    if (!response.ok) throw new Error(`the sandbox answered ${response.status} to ${path}: ${await response.text()}`);
    return response.json();
  };
  const start = async (
    input: Record<string, unknown> = {},
    workflowId?: string,
    workflowType = "normalRotation",
  ): Promise<WorkflowHandle> => {
    const full = { slot: "production/openai", ...input };
    return client.workflow.start(workflowType, {
      taskQueue,
      workflowId: workflowId ?? slotWorkflowId(full.slot),
      args: [full],
    });
  };
  return {
    client,
    env: played.env,
    control: played.control,
    inventoryText: inventoryWith(sealingKeys),
    storeId: played.seed["storeId"] ?? "",
    restartWorker: async (keys = sealingKeys) => {
      await stopWorker();
      stopWorker = await startWorker(keys);
    },
    cloudflare: (method, path, body) => call(method, `${account}${path}`, played.env["CLOUDFLARE_API_TOKEN"], body),
    openai: (method, path, body) =>
      call(method, `${played.env["OPENAI_BASE_URL"]}${path}`, played.env["OPENAI_ADMIN_KEY"], body),
    ask: control,
    options: async (options) => void (await control("/options", options)),
    record: async () => (await control("/record")) as SandboxRecord,
    values: async () =>
      ((await control("/values")) as { values: { value: string }[] }).values.map(({ value }) => value),
    servedKeys: async (provider = "openai", alias = "default") => {
      const slug = gatewaySlugs[provider];
      const { slots } = (await control("/slots")) as { slots: PlayedSlot[] };
      const ours = slots.filter(
        (slot) => slot.gateway === productionGateway && slot.provider === slug && slot.alias === alias,
      );
      return [...new Set(ours.flatMap((slot) => slot.edges.flatMap(({ isolates }) => Object.keys(isolates))))];
    },
    heldKey: async (provider, alias) => {
      const { slots } = (await control("/slots")) as { slots: PlayedSlot[] };
      const ours = slots.find(
        (slot) =>
          slot.gateway === productionGateway && slot.provider === gatewaySlugs[provider] && slot.alias === alias,
      );
      return ours?.keyId ?? "none";
    },
    secrets: async () => {
      const address = `${played.env["CLOUDFLARE_API_BASE_URL"]}/accounts/${played.env["CLOUDFLARE_ACCOUNT_ID"]}/secrets_store/stores/${played.seed["storeId"]}/secrets?per_page=100`;
      const response = await fetch(address, {
        headers: { authorization: `Bearer ${played.env["CLOUDFLARE_API_TOKEN"]}` },
      });
      return ((await response.json()) as { result: { id: string; name: string; comment: string | null }[] }).result;
    },
    later: (ms) => delay(ms / timeScale),
    until: async (condition) => {
      for (const deadline = Date.now() + 40_000; !(await condition().catch(() => false)); await delay(100)) {
        if (Date.now() > deadline) throw new Error("it did not come true within 40 s");
      }
    },
    faults: async (fault) => void (await control("/faults", fault)),
    clearFaults: async () => void (await fetch(`${played.control}/faults`, { method: "DELETE" })),
    start,
    rotate: async (input) => (await (await start(input)).result()) as RotationResult,
    traffic: (perSecond, provider = "openai", alias) => {
      const flow = startTraffic(played.env, perSecond, provider, alias);
      flows.push(flow);
      return flow;
    },
    stop: async () => {
      await Promise.all(flows.map((flow) => flow.stop()));
      await stopWorker();
      await connection.close();
      await clientConnection.close();
      await played.close();
    },
  };
}

/** An environment without these variables, and without whatever the machine itself could offer in their place. */
export function withoutVariables(env: Record<string, string>, names: string[]): Record<string, string> {
  const kept = Object.entries(env).filter(([name]) => !names.includes(name));
  return { ...Object.fromEntries(kept), METADATA_SERVER_DETECTION: "none" };
}

/** One new sealing key, for the inventory and for a worker. */
export async function newSealingKeys(kid: string): Promise<SealingKeys> {
  const { publicKey, privateKey } = await generateSealingKey(kid);
  return { publicKeys: [publicKey], privateKeys: [privateKey] };
}

/** The activities, each attempt of which waits for a moment of the test's first. */
function withMoments(
  activities: RotationActivities,
  before: NonNullable<WorldOptions["beforeActivity"]>,
): RotationActivities {
  return Object.fromEntries(
    Object.entries(activities).map(([name, activity]) => [
      name,
      async (order: Record<string, unknown>) => {
        await before(name, order);
        return (activity as (given: Record<string, unknown>) => Promise<unknown>)(order);
      },
    ]),
  ) as unknown as RotationActivities;
}
