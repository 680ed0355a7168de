import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Client } from "@temporalio/client";
import { DefaultLogger, NativeConnection, Runtime, Worker, type WorkerOptions } from "@temporalio/worker";

import type { Dependencies, Runs, SlotAccess } from "./activities/dependencies.ts";
import { failureInterceptor } from "./activities/failures.ts";
import { fenceInterceptor, mayWrite } from "./activities/fence.ts";
import { heartbeatInterceptor } from "./activities/heartbeat.ts";
import { createActivities, type RotationActivities } from "./activities/index.ts";
import { createAiGateway } from "./cloudflare/ai-gateway.ts";
import { createGatewayProbe } from "./cloudflare/data-plane.ts";
import { createGuideLogs, createGuideSecrets } from "./cloudflare/guide.ts";
import { createSecretsStore } from "./cloudflare/secrets-store.ts";
import { createSlotSecrets } from "./cloudflare/slot-secrets.ts";
import {
  type Credentials,
  type Environment,
  type Inventory,
  type InventorySlot,
  loadInventory,
  type ProviderSettings,
  readCredentials,
  readHttpTimeoutMs,
  slotOf,
} from "./config.ts";
import { taskQueue } from "./domain/rotation.ts";
import { createHttp, defaultHttpTimeoutMs, type Http } from "./http.ts";
import { createGoogleAuth, type GoogleAuth } from "./providers/google-auth.ts";
import { createByHand, createProvider } from "./providers/index.ts";
import type { Ending, Endings } from "./providers/key-end.ts";
import { createKeyEnd } from "./providers/key-ends.ts";
import type { Provider } from "./providers/provider.ts";
import { maskSecrets } from "./redacted.ts";
import { createSealing, readSealingKeys, type Sealing } from "./sealing.ts";
import { connectConfig } from "./temporal/client.ts";
import { runsOf } from "./temporal/runs.ts";
import { ensureSearchAttributes } from "./temporal/search-attributes.ts";
import { version } from "./version.ts";

/** The composition root: what is plugged into what. */

/** Runs a worker until it is told to stop (SIGINT, SIGTERM), then finishes what it is doing within 30 seconds. */
export async function runWorker(env: Environment, ready: () => void = () => undefined): Promise<void> {
  const inventory = loadInventory(env);
  const credentials = readCredentials(env);
  const sealing = createSealing(inventory.sealing, readSealingKeys(env));
  const { connectionOptions, namespace = "default" } = connectConfig(env);

  Runtime.install({
    logger: jsonLogger(),
    telemetryOptions: { logging: { forward: {}, filter: { core: "INFO", other: "WARN" } } },
  });
  const connection = await NativeConnection.connect(connectionOptions);
  try {
    await ensureSearchAttributes(connection, namespace);
    const runs = runsOf(new Client({ connection, namespace }));
    const parts: Parts = { inventory, credentials, sealing, runs, http: ourHttp(env), google: googleOf(credentials) };
    const activities = createActivities(plugTogether(parts), plugEndings(parts));
    const requestMs = readHttpTimeoutMs(env) ?? defaultHttpTimeoutMs;
    const worker = await createWorker({ connection, namespace, activities, requestMs });
    ready();
    await worker.run();
  } finally {
    await connection.close();
  }
}

/** A worker on the queue `keyturn` with all workflows and these activities. */
export async function createWorker({
  connection,
  namespace,
  activities,
  workflows = workflowCode(),
  requestMs = defaultHttpTimeoutMs,
}: {
  connection: NativeConnection;
  namespace: string;
  activities: RotationActivities;
  workflows?: WorkflowCode;
  /** The longest that one request to an outside service can last. */
  requestMs?: number;
}): Promise<Worker> {
  return Worker.create({
    connection,
    namespace,
    taskQueue,
    ...workflows,
    activities,
    interceptors: {
      activity: [
        (context) => ({ inbound: heartbeatInterceptor(context) }),
        (context) => ({ inbound: fenceInterceptor(context, requestMs) }),
        () => ({ inbound: failureInterceptor() }),
      ],
    },
    maxHeartbeatThrottleInterval: "2 seconds",
    shutdownGraceTime: "30 seconds",
    shutdownForceTime: "60 seconds",
  });
}

export interface Parts {
  inventory: Inventory;
  credentials: Credentials;
  sealing: Sealing;
  runs: Runs;
  http?: Http;
  /** One for all slots: it keeps its token until shortly before the end. */
  google?: GoogleAuth;
  /** Between two looks at what may only be a stale answer; for a sandbox whose time is faster. Milliseconds. */
  secondLookMs?: number;
}

/** Reads of the store were seen to lag by a second or two (2026). */
const secondLookMs = 2_000;

/** Builds the clients and hands them to the activities. */
export function plugTogether({
  inventory,
  credentials,
  sealing,
  runs,
  http = ourHttp(),
  google = googleOf(credentials),
  secondLookMs: lookMs = secondLookMs,
}: Parts): Dependencies {
  const slotAccess = (name: string): SlotAccess => ({
    ...accessTo(slotOf(inventory, name), { inventory, credentials, http, google }),
    secondLookMs: lookMs,
  });
  return {
    slotAccess,
    allSlots: () => Object.values(inventory.slots).map(({ name }) => slotAccess(name)),
    seal: sealing.seal,
    open: sealing.open,
    runs,
  };
}

/** What ends keys, slot by slot: for `createActivities`, and there for one file alone. */
export function plugEndings({
  inventory,
  credentials,
  http = ourHttp(),
  google = googleOf(credentials),
}: Pick<Parts, "inventory" | "credentials" | "http" | "google">): Endings {
  return (slot) => endingOf(slotOf(inventory, slot), credentials, { http, google });
}

function googleOf({ googleAccessToken }: Credentials): GoogleAuth {
  return createGoogleAuth({ accessToken: googleAccessToken });
}

function accessTo(
  slot: InventorySlot,
  { inventory, credentials, http, google }: Pick<Parts, "inventory" | "credentials"> & Shared,
): Omit<SlotAccess, "secondLookMs"> {
  const { baseUrls, cloudflareToken, gatewayToken } = credentials;
  const place = { gateway: slot.gateway, provider: slot.slot.provider, alias: slot.slot.alias };
  const account = { http, baseUrl: baseUrls.cloudflareApi, accountId: slot.account, token: cloudflareToken };
  return {
    name: slot.name,
    slot: slot.slot,
    installation: inventory.installation,
    policy: slot.policy,
    probeModel: slot.probeModel,
    account: slot.account,
    place,
    provider: providerOf(slot, credentials, { http, google }),
    keyring: keyringOf(slot.settings),
    secrets:
      slot.secretId === undefined
        ? createSlotSecrets({ store: createSecretsStore(account), gateways: createAiGateway(account) })
        : createGuideSecrets({ ...account, place, secretId: slot.secretId }),
    probe: createGatewayProbe({
      http,
      gatewayBaseUrl: baseUrls.cloudflareGateway,
      accountId: slot.account,
      token: gatewayToken,
    }),
    readLogs: (span) =>
      slot.secretId === undefined
        ? createAiGateway(account).readLogs(place.gateway, span)
        : createGuideLogs(account)(place.gateway, span),
  };
}

/** Keys belong to a project or workspace, whichever of its service accounts makes them. */
function keyringOf(settings: ProviderSettings): string {
  return settings.provider === "anthropic" ? settings.workspace : settings.project;
}

interface Shared {
  http: Http;
  google: GoogleAuth;
}

/** The slot's provider; where its admin credential is not configured, one whose keys people make and revoke. */
function providerOf(
  { settings }: InventorySlot,
  { openaiAdminKey, anthropicAdminKey, googleConfigured, baseUrls }: Credentials,
  { http, google }: Shared,
): Provider {
  switch (settings.provider) {
    case "openai": {
      const options = { http, baseUrl: baseUrls.openai, ...settings };
      return openaiAdminKey === undefined
        ? createByHand("openai", { ...options, missing: "OPENAI_ADMIN_KEY is not set" })
        : createProvider("openai", { ...options, adminKey: openaiAdminKey });
    }
    case "anthropic": {
      const options = { http, baseUrl: baseUrls.anthropic, ...settings };
      return anthropicAdminKey === undefined
        ? createByHand("anthropic", { ...options, missing: "ANTHROPIC_ADMIN_KEY is not set" })
        : createProvider("anthropic", { ...options, adminKey: anthropicAdminKey });
    }
    case "gemini": {
      const options = { http, ...googleAddresses(baseUrls), ...settings };
      return googleConfigured
        ? createProvider("gemini", { ...options, auth: google })
        : createByHand("gemini", {
            ...options,
            missing:
              "neither GOOGLE_APPLICATION_CREDENTIALS nor GOOGLE_OAUTH_ACCESS_TOKEN is set, and there are no other credentials of google",
          });
    }
  }
}

/** What ends the keys of the slot's project; undefined where its admin credential is not configured. */
function endingOf(
  { settings }: InventorySlot,
  { openaiAdminKey, anthropicAdminKey, googleConfigured, baseUrls }: Credentials,
  { http, google }: Shared,
): Ending | undefined {
  switch (settings.provider) {
    case "openai":
      return openaiAdminKey === undefined
        ? undefined
        : createKeyEnd("openai", { http, baseUrl: baseUrls.openai, ...settings, adminKey: openaiAdminKey });
    case "anthropic":
      return anthropicAdminKey === undefined
        ? undefined
        : createKeyEnd("anthropic", { http, baseUrl: baseUrls.anthropic, ...settings, adminKey: anthropicAdminKey });
    case "gemini":
      return googleConfigured
        ? createKeyEnd("gemini", { http, ...googleAddresses(baseUrls), ...settings, auth: google })
        : undefined;
  }
}

function googleAddresses(baseUrls: Credentials["baseUrls"]) {
  return {
    apiKeysBaseUrl: baseUrls.googleApiKeys,
    monitoringBaseUrl: baseUrls.googleMonitoring,
    geminiBaseUrl: baseUrls.gemini,
  };
}

function ourHttp(env: Environment = {}): Http {
  const timeoutMs = readHttpTimeoutMs(env);
  return createHttp({ userAgent: `keyturn/${version}`, mayWrite, ...(timeoutMs === undefined ? {} : { timeoutMs }) });
}

/** Where a worker takes its workflows from. */
export type WorkflowCode = Pick<WorkerOptions, "workflowBundle" | "workflowsPath">;

/** The bundle made at build time, where there is one; else the sources, bundled at start. */
function workflowCode(): WorkflowCode {
  const built = fileURLToPath(new URL("../workflow-bundle.js", import.meta.url));
  if (existsSync(built)) return { workflowBundle: { codePath: built } };
  return { workflowsPath: fileURLToPath(new URL("./workflows/index.ts", import.meta.url)) };
}

/** One JSON line per message on standard error, with whatever looks like a key masked. */
function jsonLogger(): DefaultLogger {
  return new DefaultLogger("INFO", ({ level, message, meta, timestampNanos }) => {
    const at = new Date(Number(timestampNanos / 1_000_000n)).toISOString();
    const { taskQueue: _, ...fields } = { taskQueue: undefined, ...meta };
    process.stderr.write(`${maskSecrets(JSON.stringify({ at, level, message, ...fields }, printable))}\n`);
  });
}

function printable(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  return value instanceof Error ? `${value.name}: ${value.message}` : value;
}
