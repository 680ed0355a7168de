import { setTimeout as pause } from "node:timers/promises";
import type { Info } from "@temporalio/activity";
import { ApplicationFailure } from "@temporalio/common";
import { MockActivityEnvironment } from "@temporalio/testing";
import { DefaultLogger } from "@temporalio/worker";
import { onTestFinished } from "vitest";

import type { NewKey, OfRotation } from "../../src/activities/contract.ts";
import type { Dependencies } from "../../src/activities/dependencies.ts";
import { failureInterceptor } from "../../src/activities/failures.ts";
import { fenceInterceptor } from "../../src/activities/fence.ts";
import { heartbeatInterceptor } from "../../src/activities/heartbeat.ts";
import { createActivities, type RotationActivities } from "../../src/activities/index.ts";
import { parseInventory, readCredentials } from "../../src/config.ts";
import { RotationFailure } from "../../src/domain/failure.ts";
import { Redacted } from "../../src/redacted.ts";
import { type Sandbox, type SandboxOptions, startSandbox } from "../../src/sandbox/index.ts";
import { createSealing, generateSealingKey } from "../../src/sealing.ts";
import type { Endings } from "../../src/providers/key-end.ts";
import { type Parts, plugEndings, plugTogether } from "../../src/worker.ts";

/** Single activities against the sandbox, with the real clients and without Temporal. */

export const prod = "production/openai";
export const staging = "staging/openai";
export const prodGateway = "github-ai-agent-prod";
export const stagingGateway = "github-ai-agent-staging";
const prodAccount = { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } };

type Order<Name extends keyof RotationActivities> = Parameters<RotationActivities[Name]>[0];
type Result<Name extends keyof RotationActivities> = Awaited<ReturnType<RotationActivities[Name]>>;

export interface StageOptions {
  policy?: Record<string, unknown>;
  slots?: Record<string, unknown>;
  /** More of the inventory. */
  inventory?: Record<string, unknown>;
  /** What the last rotation of a slot left in it, by its result. */
  lastInstalledKey?: (slot: string) => Promise<string | undefined>;
  /** The slot's newest closed run. */
  lastClosed?: Dependencies["runs"]["lastClosed"];
  /** The rotations that are open; fails where Temporal is away. */
  openRotations?: Dependencies["runs"]["openRotations"];
  sandbox?: SandboxOptions;
  env?: Record<string, string | undefined>;
}

export interface AttemptOptions {
  /** What Temporal tells the attempt of itself. */
  info?: Partial<Info>;
  /** The longest that one request can last. */
  requestMs?: number;
  /** Hands over the attempt that begins, to cancel it or to hear its heartbeats. */
  onAttempt?: (environment: MockActivityEnvironment) => void;
}

export interface KeyFacts {
  id: string;
  name: string;
  state: string;
  expiresAt: string | null;
}

export interface Stage {
  of: OfRotation;
  env: Record<string, string>;
  seed: Record<string, string>;
  /** Address of the sandbox's control calls. */
  control: string;
  dependencies: Dependencies;
  endings: Endings;
  /** One attempt of an activity of `of`, its failure as Temporal would keep it. */
  run<Name extends keyof RotationActivities>(
    name: Name,
    order: Omit<Order<Name>, keyof OfRotation> & Partial<OfRotation>,
    attempt?: number,
    options?: AttemptOptions,
  ): Promise<Result<Name>>;
  /** As many attempts as Temporal would make: retried until it succeeds or fails for good. */
  repeat<Name extends keyof RotationActivities>(
    name: Name,
    order: Omit<Order<Name>, keyof OfRotation> & Partial<OfRotation>,
  ): Promise<Result<Name>>;
  fault(fault: Record<string, unknown>): Promise<void>;
  /** What lists leave out and reads by id do not find from now on: sandbox/lies.ts. */
  lie(lie: Record<string, unknown>): Promise<void>;
  /** The role of an OpenAI service account: with `none` its keys are flagged. */
  role(account: string, role: "member" | "none"): Promise<void>;
  options(options: Record<string, unknown>): Promise<void>;
  /** Sets the quota so that so many more secrets fit. */
  leaveRoom(secrets: number): Promise<void>;
  /** Requests that change something, as the services got them. */
  writes(): Promise<string[]>;
  requests(): Promise<string[]>;
  /** OpenAI's keys, dead ones included. */
  keys(): Promise<KeyFacts[]>;
  alive(): Promise<string[]>;
  /** The key in the store under this alias, as the sandbox knows it. */
  held(gateway: string, alias?: string): Promise<string | undefined>;
  aliases(gateway: string): Promise<string[]>;
  valueOf(keyId: string): Promise<string>;
  cloudflare(method: string, path: string, body?: unknown): Promise<unknown>;
  openai(method: string, path: string, body?: unknown): Promise<unknown>;
  /** What somebody does by hand to the slot's secret. */
  edit(gateway: string, change: { value?: string; comment?: string }): Promise<void>;
  secret(gateway: string, alias?: string): Promise<{ id: string; comment: string | null; modified: string }>;
  /** A key somebody made in the provider's console. */
  keyByHand(name: string, project?: string, account?: string): Promise<{ id: string; value: string }>;
  /** Serves a key under one more alias, as somebody would in the dashboard. */
  serve(gateway: string, alias: string, value: string): Promise<void>;
  chat(gateway?: string, alias?: string): Promise<number>;
  /** Our own requests through the gateway, as it served them. */
  probes(): Promise<{ alias: string; keyId: string | null; status: number | null }[]>;
  /** Ends a key's life now. */
  expire(keyId: string): Promise<void>;
  newKey(ordinal?: number): Promise<NewKey>;
  /** A key that was made elsewhere, as if this rotation had issued it. */
  asNewKey(key: { id: string; value: string }): Promise<NewKey>;
  /** A rotation up to and including `installKey`. */
  installed(): Promise<{ key: NewKey; secretModified: string }>;
}

/** Everything at once and told at once, unless a test says otherwise. */
const prompt: SandboxOptions = {
  timeScale: 600,
  edges: [{ name: "near", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }],
  listLagMs: 0,
  settleMs: 0,
  deathMs: 0,
  activationMs: 0,
  lastUsedLagMs: 0,
  usageLag: { openai: { minMs: 0, jitterMs: 0 } },
  usageDisorder: false,
};

const hour = 3_600_000;

export async function startStage({
  policy = {},
  slots = {},
  inventory: more = {},
  lastInstalledKey = () => Promise.resolve(undefined),
  lastClosed = () => Promise.resolve(undefined),
  openRotations = () => Promise.resolve([]),
  sandbox = {},
  env = {},
}: StageOptions = {}): Promise<Stage> {
  const played: Sandbox = await startSandbox({ ...prompt, ...sandbox });
  onTestFinished(() => played.close());
  const { publicKey, privateKey } = await generateSealingKey("2026-11");
  const inventory = parseInventory(
    JSON.stringify({
      installation: "acme",
      account: played.env["CLOUDFLARE_ACCOUNT_ID"],
      environments: { production: { gateway: prodGateway }, staging: { gateway: stagingGateway } },
      slots: {
        [prod]: prodAccount,
        [staging]: { openai: { project: "proj_stg", serviceAccount: "svc_acct_2" } },
        ...slots,
      },
      sealing: [publicKey],
      policy: { dead: "3 over 60ms", quietPeriod: "300ms", usageLag: "50ms", ...policy },
      ...more,
    }),
    "keyturn.yaml",
    played.env,
  );
  const sealing = createSealing(inventory.sealing, [privateKey]);
  const parts: Parts = {
    inventory,
    credentials: readCredentials({ ...played.env, ...env }),
    sealing,
    runs: {
      find: ({ length }) => Promise.reject(new RotationFailure("SlotMissing", `no run of ${length} letters`)),
      update: ({ update }) => Promise.resolve(update),
      lastClosed,
      lastInstalledKey,
      openRotations,
    },
  };
  const dependencies = plugTogether(parts);
  const endings = plugEndings(parts);
  const activities = createActivities(dependencies, endings);
  const of: OfRotation = { slot: prod, rotationId: crypto.randomUUID() };

  const control = async (path: string, body?: unknown): Promise<unknown> => {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const response = await fetch(`${played.control}${path}`, init);
    if (!response.ok) throw new Error(`the sandbox answered ${response.status} to ${path}`);
    return response.json();
  };
  const call = async (method: string, url: string, token: string | undefined, body: unknown): Promise<unknown> => {
    const response = await fetch(url, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  };
  const account = `${played.env["CLOUDFLARE_API_BASE_URL"]}/accounts/${played.env["CLOUDFLARE_ACCOUNT_ID"]}`;
  const secrets = `/secrets_store/stores/${played.seed["storeId"]}/secrets`;

  const attemptOne = async (
    name: keyof RotationActivities,
    order: object,
    attempt = 1,
    { info = {}, requestMs = 20_000, onAttempt = () => undefined }: AttemptOptions = {},
  ): Promise<unknown> => {
    const environment = anAttempt({ attempt, activityType: name, ...info }, requestMs);
    onAttempt(environment);
    return environment.run(activities[name] as (order: object) => Promise<unknown>, { ...of, ...order });
  };
  const attemptAll = async (name: keyof RotationActivities, order: object): Promise<unknown> => {
    const deadline = performance.now() + 10_000;
    for (let attempt = 1; ; attempt++) {
      try {
        return await attemptOne(name, order, attempt);
      } catch (error) {
        const final = !(error instanceof ApplicationFailure) || error.nonRetryable === true;
        if (final || performance.now() > deadline) throw error;
        await pause(20);
      }
    }
  };

  const stage: Stage = {
    of,
    env: played.env,
    seed: played.seed,
    control: played.control,
    dependencies,
    endings,
    run: attemptOne as Stage["run"],
    repeat: attemptAll as Stage["repeat"],
    fault: async (fault) => void (await control("/faults", fault)),
    lie: async (lie) => void (await control("/lies", lie)),
    role: async (account, role) => void (await control(`/openai/service-accounts/${account}/role`, { role })),
    options: async (options) => void (await control("/options", options)),
    async leaveRoom(room) {
      const { result } = (await stage.cloudflare("GET", "/secrets_store/quota")) as {
        result: { secrets: { usage: number } };
      };
      await stage.options({ secretQuota: result.secrets.usage + room });
    },
    writes: async () => (await stage.requests()).filter((line) => !line.startsWith("GET ")),
    async requests() {
      const { requests } = (await control("/record")) as { requests: { method: string; path: string }[] };
      return requests.map(({ method, path }) => `${method} ${path}`);
    },
    keys: async () =>
      ((await control("/record")) as { keys: (KeyFacts & { provider: string })[] }).keys.filter(
        ({ provider }) => provider === "openai",
      ),
    alive: async () => (await stage.keys()).filter(({ state }) => state === "active").map(({ id }) => id),
    async held(gateway, alias = "default") {
      const { slots } = (await control("/slots")) as {
        slots: { gateway: string; provider: string; alias: string; keyId: string }[];
      };
      return slots.find((slot) => slot.gateway === gateway && slot.provider === "openai" && slot.alias === alias)
        ?.keyId;
    },
    async aliases(gateway) {
      const { slots } = (await control("/slots")) as { slots: { gateway: string; provider: string; alias: string }[] };
      return slots.filter((slot) => slot.gateway === gateway && slot.provider === "openai").map(({ alias }) => alias);
    },
    async valueOf(keyId) {
      const { values } = (await control("/values")) as { values: { id: string; value: string }[] };
      return values.find(({ id }) => id === keyId)?.value ?? "";
    },
    cloudflare: (method, path, body) => call(method, `${account}${path}`, played.env["CLOUDFLARE_API_TOKEN"], body),
    openai: (method, path, body) =>
      call(method, `${played.env["OPENAI_BASE_URL"]}${path}`, played.env["OPENAI_ADMIN_KEY"], body),
    async edit(gateway, change) {
      const { id } = await stage.secret(gateway);
      await stage.cloudflare("PATCH", `${secrets}/${id}`, change);
    },
    async secret(gateway, alias = "default") {
      const { result } = (await stage.cloudflare("GET", `${secrets}?per_page=100`)) as {
        result: { id: string; name: string; comment: string | null; modified: string }[];
      };
      const found = result.find(({ name }) => name === `${gateway}_openai_${alias}`);
      if (found === undefined) throw new Error(`no secret for ${gateway}, ${alias}`);
      return found;
    },
    async keyByHand(name, project = "proj_abc", serviceAccount = "svc_acct_1") {
      const path = `/organization/projects/${project}/service_accounts/${serviceAccount}/api_keys`;
      const { id, value } = (await stage.openai("POST", path, { name })) as { id: string; value: string };
      return { id, value };
    },
    async serve(gateway, alias, value) {
      await stage.cloudflare("POST", `/ai-gateway/gateways/${gateway}/provider_configs`, {
        alias,
        provider_slug: "openai",
        default_config: false,
        secret: value,
      });
    },
    async chat(gateway = prodGateway, alias) {
      const base = `${played.env["CLOUDFLARE_GATEWAY_BASE_URL"]}/${played.env["CLOUDFLARE_ACCOUNT_ID"]}`;
      const response = await fetch(`${base}/${gateway}/openai/chat/completions`, {
        method: "POST",
        headers: {
          "cf-aig-authorization": `Bearer ${played.env["CLOUDFLARE_GATEWAY_TOKEN"]}`,
          "content-type": "application/json",
          ...(alias === undefined ? {} : { "cf-aig-byok-alias": alias }),
        },
        body: JSON.stringify({ model: "gpt-5-mini", messages: [{ role: "user", content: "hello" }] }),
      });
      await response.text();
      // Logs are read up to the millisecond of the look and without it: what comes next looks in a later one.
      await pause(2);
      return response.status;
    },
    async probes() {
      const { probes } = (await control("/record")) as {
        probes: { rows: { alias: string; keyId: string | null; status: number | null }[] };
      };
      return probes.rows.map(({ alias, keyId, status }) => ({ alias, keyId, status }));
    },
    expire: async (keyId) => void (await control(`/keys/${keyId}/expire`, {})),
    newKey: (ordinal = 1) => stage.run("issueKey", { ordinal, unprovenLife: durationMs(2 * hour) }),
    async asNewKey({ id, value }) {
      const secret = new Redacted(value);
      return { id, fingerprint: secret.fingerprint(), sealed: await sealing.seal(secret, of) };
    },
    async installed() {
      const { modified } = await dependencies.slotAccess(prod).secrets.read(dependencies.slotAccess(prod).place);
      const key = await stage.newKey();
      const secretModified = modified.toISOString();
      await stage.repeat("stageAliases", { key });
      await stage.repeat("installKey", { key, secretModified });
      return { key, secretModified };
    },
  };
  return stage;
}

/** One attempt of anything, with what a worker puts around it: its failure is as Temporal would keep it. */
export async function runHere<Out>(
  work: () => Promise<Out>,
  info: Partial<Info> = {},
  onAttempt: (environment: MockActivityEnvironment) => void = () => undefined,
): Promise<Out> {
  const environment = anAttempt(info);
  onAttempt(environment);
  return (await environment.run(work)) as Out;
}

function anAttempt(info: Partial<Info>, requestMs = 20_000): MockActivityEnvironment {
  const environment = new MockActivityEnvironment(
    { startToCloseTimeoutMs: 120_000, ...info },
    {
      interceptors: [
        (context) => ({ inbound: heartbeatInterceptor(context) }),
        (context) => ({ inbound: fenceInterceptor(context, requestMs) }),
        () => ({ inbound: failureInterceptor() }),
      ],
      logger: new DefaultLogger("ERROR"),
    },
  );
  hurry(environment);
  return environment;
}

/** Pauses that are there for the replicas of real services; the sandbox is as late as a test says. */
function hurry({ context }: MockActivityEnvironment): void {
  const sleep = context.sleep.bind(context);
  const hurried: typeof sleep = (pause) => sleep(typeof pause === "number" && pause >= 1_000 ? 50 : pause);
  Object.assign(context, { sleep: hurried });
}

/** A duration as orders carry it. */
export const durationMs = (ms: number): Order<"issueKey">["unprovenLife"] =>
  `${ms}ms` as Order<"issueKey">["unprovenLife"];

/** One answer is row enough. */
export const once = { answers: 1, span: durationMs(0) };

/** A time so many milliseconds from now, as orders carry deadlines. */
export const inFuture = (ms: number): string => new Date(Date.now() + ms).toISOString();
