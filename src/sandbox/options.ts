/**
 * What a sandbox can be told. All times are those of real life in milliseconds; the sandbox divides
 * them by `timeScale` itself. The defaults are this project's guesses unless a source is named.
 */
import type { ExchangeHook } from "./exchange.ts";

/** One place where the gateway runs. */
export interface EdgeOptions {
  name: string;
  /** From a write in the control plane until this edge's own copy of the store has it. */
  propagationMs: number;
  /** How long one isolate goes on using a value that it has read. */
  cacheTtlMs: number;
  /** How many isolates share the edge's traffic; their caches run out evenly staggered over the TTL. */
  isolates: number;
}

/** A usage row turns up between `minMs` and `minMs + jitterMs` plus one and a half buckets after its bucket's end. */
export interface UsageLag {
  minMs: number;
  jitterMs: number;
}

export interface Settings {
  /** Divides every delay, lag, TTL and the width of the usage bucket called `1m`. Not: lives of keys, fault delays, model latency. */
  timeScale: number;
  host: string;
  /** Fixed ports by service; 0 or absent takes a free one. */
  ports: Partial<Record<string, number>>;
  /** Seeds what is left to chance (lags, refusals). Ids and key values are random regardless. */
  seed: number;
  edges: readonly EdgeOptions[];
  usageLag: Record<string, UsageLag>;
  /** Lets neighbouring usage buckets swap their arrival, and some arrive in two parts. */
  usageDisorder: boolean;
  /** How late a provider's `last_used_at` is. */
  lastUsedLagMs: number;
  /** A new OpenAI key may be refused for so long. */
  settleMs: number;
  /** A revoked OpenAI key works for half of this, and now and then for the rest ("a few seconds", OpenAI). */
  deathMs: number;
  /** How late lists are, at Cloudflare and at providers. Reading one object by id is not late. */
  listLagMs: number;
  /** A new Anthropic key may be refused for so long. */
  anthropicSettleMs: number;
  /** An Anthropic key made inactive or archived works for half of this, and now and then for the rest. */
  anthropicDeathMs: number;
  /** From making an Anthropic key active again, or undeleting one of Google's, until it works. */
  reviveMs: number;
  /** Active keys that Anthropic allows the organisation and each workspace; 0 for no limit. Making one active past it is refused. */
  anthropicKeyLimit: { organization: number; workspace: number };
  /** A new key of Google's is surely refused for the first quarter of this, and now and then for the rest. */
  googleSettleMs: number;
  /** A deleted auth key (`AQ.`) works for half of this, and now and then for the rest. */
  googleDeathMs: number;
  /** A deleted standard key (`AIza`) works erratically for a time between these (8 to 23 minutes, Aikido 2026-05-21). */
  googleStandardDeathMs: { minMs: number; maxMs: number };
  /** How long an operation of the API Keys API takes. */
  operationMs: number;
  /** Calls a minute for a Google project. */
  googleQuota: { reads: number; writes: number };
  /** Whether an OpenAI key that is listed with `owner_project_access: inactive` works (unknown of the real service; seen to). */
  inactiveKeysWork: boolean;
  /** How usage reports of OpenAI and Anthropic tell the count of requests: `null`, not at all, or as `num_requests`. */
  usageRequests: "told" | "null" | "absent" | "renamed";
  /** Whether Monitoring names the service account of an auth key, not the key (unknown of the real service). */
  monitoringNamesServiceAccount: boolean;
  /** `guide`: the gateway's logs come one row a line, under the guide's names. Its other calls always answer. */
  dialect: "secrets-store" | "guide";
  /** From a purge (dialect `guide`) until the isolates have dropped what they cached. */
  purgeMs: number;
  /** From a write until a secret's status turns `active`. */
  activationMs: number;
  /** How late rows of the gateway's logs are. */
  logLagMs: number;
  auditLagMs: number;
  secretQuota: number;
  gatewayQuota: number;
  /** The organisation's longest life of an OpenAI key; 0 for no such policy. */
  maxKeyLifeSeconds: number;
  /** Whether PATCH of a secret refreshes its provider config's preview (unknown of the real service). */
  patchRefreshesPreview: boolean;
  /** Whether the gateway needs a provider config besides the secret (disputed of the real service). */
  configNeeded: boolean;
  /** Whether `compat` looks at `cf-aig-byok-alias` (its pages disagree). */
  compatHonoursAlias: boolean;
  /** Whether Cloudflare pays for calls without a key of ours (Unified Billing with credits). */
  unifiedBilling: boolean;
  /** Control-plane calls allowed per window, for the whole account. */
  rateLimit: { calls: number; windowMs: number };
  /** How long a model takes. Not scaled. */
  modelLatencyMs: number;
  /** Switches off the rows of `failures` and `probes` and the per-edge counters; the totals stay. */
  trafficLog: boolean;
  hooks: ExchangeHook | undefined;
}

export type SandboxOptions = { [Name in keyof Settings]?: Settings[Name] | undefined };

const seconds = 1_000;
const minutes = 60 * seconds;

export const defaultSettings: Settings = {
  timeScale: 1,
  host: "127.0.0.1",
  ports: {},
  seed: 1,
  edges: [
    { name: "lhr", propagationMs: 2 * seconds, cacheTtlMs: 1 * minutes, isolates: 8 },
    { name: "iad", propagationMs: 8 * seconds, cacheTtlMs: 5 * minutes, isolates: 8 },
    { name: "sin", propagationMs: 20 * seconds, cacheTtlMs: 10 * minutes, isolates: 8 },
    { name: "gru", propagationMs: 45 * seconds, cacheTtlMs: 20 * minutes, isolates: 8 },
  ],
  usageLag: {
    openai: { minMs: 6 * minutes, jitterMs: 1 * minutes },
    anthropic: { minMs: 3 * minutes, jitterMs: 1 * minutes },
    google: { minMs: 20 * minutes, jitterMs: 8 * minutes },
  },
  usageDisorder: true,
  lastUsedLagMs: 3 * minutes,
  settleMs: 4 * seconds,
  deathMs: 6 * seconds,
  listLagMs: 3 * seconds,
  anthropicSettleMs: 2 * seconds,
  anthropicDeathMs: 5 * seconds,
  reviveMs: 10 * seconds,
  anthropicKeyLimit: { organization: 0, workspace: 0 },
  googleSettleMs: 2 * minutes,
  googleDeathMs: 1 * minutes,
  googleStandardDeathMs: { minMs: 8 * minutes, maxMs: 23 * minutes },
  operationMs: 2 * seconds,
  googleQuota: { reads: 240, writes: 120 },
  inactiveKeysWork: true,
  usageRequests: "told",
  monitoringNamesServiceAccount: false,
  dialect: "secrets-store",
  purgeMs: 2 * seconds,
  activationMs: 3 * seconds,
  logLagMs: 1 * seconds,
  auditLagMs: 1 * minutes,
  secretQuota: 100,
  gatewayQuota: 20,
  maxKeyLifeSeconds: 0,
  patchRefreshesPreview: true,
  configNeeded: true,
  compatHonoursAlias: false,
  unifiedBilling: true,
  rateLimit: { calls: 1_200, windowMs: 5 * minutes },
  modelLatencyMs: 0,
  trafficLog: true,
  hooks: undefined,
};

/** Fills in the defaults; an absent or undefined option takes its own. */
export function settingsOf(options: SandboxOptions): Settings {
  const given = Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as Partial<Settings>;
  return {
    ...defaultSettings,
    ...given,
    usageLag: { ...defaultSettings.usageLag, ...options.usageLag },
  };
}
