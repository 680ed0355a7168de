import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseEnv } from "node:util";
import { parseDocument } from "yaml";
import { z } from "zod";

import { type Duration, inMs, isDuration } from "./domain/duration.ts";
import { RotationFailure } from "./domain/failure.ts";
import { type Policy, inventoryNames, parseRowRule, policyDefaults, type RowRule } from "./domain/policy.ts";
import { type ProviderName, type Slot, parseSlot, secretName, slotName } from "./domain/slot.ts";
import { maskSecrets, Redacted } from "./redacted.ts";

/** Environment variables by name, as `process.env` gives them. */
export type Environment = Readonly<Record<string, string | undefined>>;

// ---- the inventory, keyturn.yaml -------------------------------------------------------------------------------

const lengthOfTime = "a length of time with its unit, such as 30s, 15m, 24h or 90d";
const duration = z
  .string(lengthOfTime)
  .refine(isDuration, lengthOfTime)
  .transform((text) => text as Duration);
const answersOverTime = 'answers in a row and the time they span, such as "5 over 30s"';
const rowRule = z.string(answersOverTime).refine((text) => parseRowRule(text) !== undefined, answersOverTime);
const byProvider = <Value extends z.ZodType>(value: Value) =>
  z.strictObject({ openai: value.optional(), anthropic: value.optional(), google: value.optional() });
const oneOrByProvider = <Value extends z.ZodType>(value: Value) => z.union([value, byProvider(value)]);
const ceiling = z.enum(["revoke", "ask"]);

const policySchema = z.strictObject({
  every: duration.optional(),
  keyLife: duration.optional(),
  settleBudget: oneOrByProvider(duration).optional(),
  alive: oneOrByProvider(rowRule).optional(),
  propagationWait: duration.optional(),
  propagationBudget: duration.optional(),
  goodAnswers: z.int().min(1).max(100).optional(),
  probePath: z.enum(["native", "compat"]).optional(),
  cacheInvalidationWait: duration.optional(),
  quietPeriod: duration.optional(),
  usageLag: oneOrByProvider(duration).optional(),
  graceCeiling: z
    .strictObject({ after: duration.optional(), ifUnknown: ceiling.optional(), ifUsed: ceiling.optional() })
    .optional(),
  soak: duration.optional(),
  longestRequest: duration.optional(),
  personDeadline: duration.optional(),
  revokeAlertAfter: duration.optional(),
  dead: z
    .union([
      rowRule,
      z.strictObject({
        openai: rowRule.optional(),
        anthropic: rowRule.optional(),
        google: rowRule.optional(),
        "google-standard": rowRule.optional(),
      }),
    ])
    .optional(),
  aliases: z.enum(["auto", "always", "never"]).optional(),
  approval: z.enum(["never", "before-revoke", "before-install"]).optional(),
  emergency: z
    .strictObject({
      strategy: z.enum(["swap-first", "cut-first"]).optional(),
      installWithin: duration.optional(),
      revokeWithin: duration.optional(),
      atDeadline: z.enum(["revoke", "hold"]).optional(),
    })
    .optional(),
});
type PolicyInput = z.output<typeof policySchema>;

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/, "lower-case letters, digits and hyphens, at most 32");
const slotSchema = z
  .strictObject({
    openai: z.strictObject({ project: z.string().min(1), serviceAccount: z.string().min(1) }).optional(),
    google: z.strictObject({ project: z.string().min(1), serviceAccount: z.string().min(1) }).optional(),
    anthropic: z.strictObject({ workspace: z.string().min(1) }).optional(),
    secretId: z.string().min(1).optional(),
    probeModel: z.string().min(1).optional(),
    policy: policySchema.optional(),
  })
  .describe("slot");
const dialect = z.enum(["secrets-store", "guide"]);
const publicKeySchema = z.strictObject({
  kty: z.literal("EC"),
  crv: z.literal("P-256"),
  x: z.string().min(1),
  y: z.string().min(1),
});
const inventorySchema = z.strictObject({
  installation: name,
  account: z.string().min(1).optional(),
  defaultEnvironment: name.optional(),
  dialect: dialect.optional(),
  environments: z.record(
    name,
    z.strictObject({
      gateway: z.string().min(1),
      account: z.string().min(1).optional(),
      dialect: dialect.optional(),
    }),
  ),
  slots: z.record(z.string(), slotSchema),
  sealing: z.array(z.strictObject({ kid: z.string().min(1), publicKey: publicKeySchema })).min(1),
  policy: policySchema.optional(),
});

/** The part of a slot that only its provider knows how to read. */
export type ProviderSettings =
  | { provider: "openai"; project: string; serviceAccount: string }
  | { provider: "gemini"; project: string; serviceAccount: string }
  | { provider: "anthropic"; workspace: string };

/** One slot of the inventory with everything that is settled about it. */
export interface InventorySlot {
  name: string;
  slot: Slot;
  account: string;
  gateway: string;
  /** Set where Cloudflare is spoken to in the dialect `guide`: the id of the slot's secret there. */
  secretId?: string;
  settings: ProviderSettings;
  probeModel: string;
  policy: Policy;
}

export interface SealingPublicKey {
  kid: string;
  publicKey: z.output<typeof publicKeySchema>;
}

export interface Inventory {
  /** The file it was read from. */
  path: string;
  installation: string;
  defaultEnvironment?: string;
  environments: Record<string, { gateway: string; account: string }>;
  slots: Record<string, InventorySlot>;
  /** The first one seals. */
  sealing: SealingPublicKey[];
}

/** Cheap models of each provider, asked for one word by a probe. Vendors' model pages, 2026-11. */
const probeModels: Record<ProviderName, string> = {
  openai: "gpt-5-mini",
  gemini: "gemini-2.5-flash",
  anthropic: "claude-haiku-4-5",
};

/** Reads the environment with `.dev.vars` of the working directory under it: a variable that is set wins over the file. */
export function readEnvironment(env: Environment = process.env, directory = process.cwd()): Environment {
  const text = readOptional(resolve(directory, ".dev.vars"));
  return text === undefined ? env : { ...parseEnv(text), ...withoutEmpty(env) };
}

/**
 * Reads and checks the inventory: the file `KEYTURN_CONFIG` names, else `keyturn.yaml` here. Fails with `InvalidInput`
 * whose message names the field and what is allowed.
 */
export function loadInventory(env: Environment): Inventory {
  const path = inventoryPath(env);
  const text = readOptional(path);
  if (text === undefined) throw noInventory(path);
  return parseInventory(text, path, env);
}

function inventoryPath(env: Environment): string {
  return resolve(env["KEYTURN_CONFIG"] || "keyturn.yaml");
}

function noInventory(path: string): RotationFailure {
  return invalid(`no inventory at ${path}: copy keyturn.example.yaml there, or name yours in KEYTURN_CONFIG`);
}

/**
 * What the inventory and the credentials need from the environment and do not find there. For whoever wants to hear of
 * all of it: everybody else stops at the first. Fails with `InvalidInput` where there is no inventory to read.
 */
export function missingVariables(env: Environment): string[] {
  const path = inventoryPath(env);
  const text = readOptional(path);
  if (text === undefined) throw noInventory(path);
  const named = new Set<string>();
  const collect = (value: unknown): void => {
    if (typeof value === "string") for (const [, name = ""] of value.matchAll(variableInText)) named.add(name);
    else if (Array.isArray(value)) value.forEach(collect);
    else if (isPlain(value)) Object.values(value).forEach(collect);
  };
  collect(plainOf(parseDocument(text), path));
  const missing = [...named].filter((name) => !env[name]);
  const token = env["CLOUDFLARE_API_TOKEN"]?.trim() || env["CF_API_TOKEN"]?.trim();
  return token ? missing : [...new Set([...missing, "CLOUDFLARE_API_TOKEN"])];
}

/** Checks an inventory's text. `path` is for messages; `${NAME}` in a value is taken from `env`. */
export function parseInventory(text: string, path: string, env: Environment): Inventory {
  const document = parseDocument(text);
  const broken = document.errors[0];
  if (broken !== undefined) {
    throw invalid(`${path} is not YAML: ${broken.message.split("\n")[0]?.replace(/:$/, "") ?? "unreadable"}`);
  }
  const plain = plainOf(document, path);
  if (plain === null || plain === undefined) {
    throw invalid(`${path} is empty: copy keyturn.example.yaml over it, and keep the environments and slots you have`);
  }
  const parsed = inventorySchema.safeParse(fillIn(plain, env, path));
  if (!parsed.success) throw invalid(`${path}: ${describeIssues(parsed.error, knownFields)}`);
  const { installation, account, defaultEnvironment, environments, slots, sealing, policy } = parsed.data;
  const defaultDialect = parsed.data.dialect;

  const accountOf = (environment: string): string => {
    const found = environments[environment]?.account ?? account;
    if (found !== undefined) return found;
    throw invalid(`${path}: no account for environment ${environment}: set account: \${CLOUDFLARE_ACCOUNT_ID}`);
  };
  const inventory: Inventory = {
    path,
    installation,
    ...(defaultEnvironment === undefined ? {} : { defaultEnvironment }),
    environments: Object.fromEntries(
      Object.entries(environments).map(([key, { gateway }]) => [key, { gateway, account: accountOf(key) }]),
    ),
    slots: {},
    sealing,
  };
  if (defaultEnvironment !== undefined && environments[defaultEnvironment] === undefined) {
    throw invalid(`${path}: defaultEnvironment ${defaultEnvironment} is none of ${list(Object.keys(environments))}`);
  }

  const targets = new Map<string, string>();
  for (const [key, entry] of Object.entries(slots)) {
    const slot = parseSlot(key);
    if (slot === undefined) {
      throw invalid(
        `${path}: slots: "${key}" is not a slot: write environment/provider or environment/provider:alias, the provider one of openai, gemini, anthropic`,
      );
    }
    const environment = inventory.environments[slot.environment];
    if (environment === undefined) {
      throw invalid(
        `${path}: slots: ${key}: environment ${slot.environment} is none of ${list(Object.keys(environments))}`,
      );
    }
    const named = slotName(slot);
    const spoken = environments[slot.environment]?.dialect ?? defaultDialect ?? "secrets-store";
    const slotPolicy = resolvePolicy(slot.provider, policy ?? {}, entry.policy ?? {});
    const secretId = readSecretId(spoken, entry.secretId, slotPolicy, `${path}: slots: ${key}`);
    const target = `${environment.account} ${secretId ?? secretName(environment.gateway, slot.provider, slot.alias)}`;
    const twin = targets.get(target);
    if (twin !== undefined)
      throw invalid(`${path}: slots ${twin} and ${named} are one physical secret: keep one of them`);
    targets.set(target, named);
    inventory.slots[named] = {
      name: named,
      slot,
      account: environment.account,
      gateway: environment.gateway,
      ...(secretId === undefined ? {} : { secretId }),
      settings: readSettings(slot.provider, entry, `${path}: slots: ${key}`),
      probeModel: entry.probeModel ?? probeModels[slot.provider],
      policy: slotPolicy,
    };
  }
  return inventory;
}

function plainOf(document: ReturnType<typeof parseDocument>, path: string): unknown {
  try {
    return document.toJS() as unknown;
  } catch (error) {
    throw invalid(`${path} is not YAML: ${error instanceof Error ? error.message : "unreadable"}`);
  }
}

/** For messages about what is not a slot. */
export const howSlotsAreWritten = "a slot is written environment/provider or environment/provider:alias";

/** The slot of the inventory with this name. Fails with `InvalidInput` that lists the slots there are. */
export function slotOf(inventory: Inventory, name: string): InventorySlot {
  const slot = parseSlot(name);
  const found = slot === undefined ? undefined : inventory.slots[slotName(slot)];
  if (found !== undefined) return found;
  const known = Object.keys(inventory.slots);
  const nearest = nearestName(name, known);
  const written = slot === undefined ? `${howSlotsAreWritten}; ` : "";
  throw invalid(
    `no slot ${name} in ${inventory.path}${nearest === undefined ? "" : `: did you mean ${nearest}?`} (${written}slots: ${list(known)})`,
  );
}

/** The id a slot's secret has in the dialect `guide`, which finds secrets by nothing else. */
function readSecretId(
  spoken: z.output<typeof dialect>,
  secretId: string | undefined,
  { aliases }: Policy,
  where: string,
): string | undefined {
  if (spoken === "secrets-store") {
    if (secretId === undefined) return undefined;
    throw invalid(
      `${where}: secretId is only for dialect: guide; without it the secret is found by its name: remove it`,
    );
  }
  if (secretId === undefined) {
    throw invalid(`${where}: secretId is missing: in dialect: guide it says which secret the slot reads`);
  }
  if (aliases === "always") {
    throw invalid(`${where}: policy.aliases: always needs aliases, and dialect: guide has none: set auto or never`);
  }
  return secretId;
}

function readSettings(provider: ProviderName, entry: z.output<typeof slotSchema>, where: string): ProviderSettings {
  const word = inventoryNames[provider];
  const others = (["openai", "google", "anthropic"] as const).filter((key) => key !== word && entry[key] !== undefined);
  if (others[0] !== undefined)
    throw invalid(`${where}: has ${others[0]}: for a slot of ${provider}, give only ${word}`);
  if (provider === "openai" && entry.openai !== undefined) return { provider, ...entry.openai };
  if (provider === "gemini" && entry.google !== undefined) return { provider, ...entry.google };
  if (provider === "anthropic" && entry.anthropic !== undefined) return { provider, ...entry.anthropic };
  throw invalid(`${where}: ${word} is missing: it says where this slot's keys are made (see keyturn.example.yaml)`);
}

/** The defaults, with the inventory's policy over them, with the slot's over that. */
function resolvePolicy(provider: ProviderName, ...layers: PolicyInput[]): Policy {
  const settled = [policyDefaults, ...layers].map((layer) => settleFor(inventoryNames[provider], layer));
  const { alive, dead, deadStandard, ...merged } = mergeLayers(...settled) as Omit<Policy, RowRules> &
    Record<RowRules, string>;
  return {
    ...merged,
    alive: readRow(alive),
    dead: readRow(dead),
    ...(provider === "gemini" ? { deadStandard: readRow(deadStandard) } : {}),
  };
}

type RowRules = "alive" | "dead" | "deadStandard";

function readRow(text: string): RowRule {
  const rule = parseRowRule(text);
  if (rule === undefined) throw new TypeError(`the default rule ${text} is unreadable`);
  return rule;
}

/** One layer with the values that are given by provider reduced to this provider's, or left out where it has none. */
function settleFor(word: string, layer: Record<string, unknown>): Record<string, unknown> {
  const { dead } = layer;
  const settled: Record<string, unknown> = { ...layer, deadStandard: isPlain(dead) ? dead["google-standard"] : dead };
  for (const field of ["settleBudget", "alive", "usageLag", "dead", "deadStandard"]) {
    const value = settled[field];
    if (isPlain(value)) settled[field] = value[word];
    if (settled[field] === undefined) delete settled[field];
  }
  return settled;
}

function mergeLayers(...layers: unknown[]): unknown {
  return layers.reduce((below, above) => {
    if (above === undefined) return below;
    if (!isPlain(below) || !isPlain(above)) return above;
    const merged: Record<string, unknown> = { ...below };
    for (const [key, value] of Object.entries(above)) merged[key] = mergeLayers(merged[key], value);
    return merged;
  });
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value that is taken from the environment. */
const variableInText = /\$\{(\w+)\}/g;

function fillIn(value: unknown, env: Environment, path: string): unknown {
  if (typeof value === "string") {
    return value.replaceAll(variableInText, (_, variable: string) => {
      const found = env[variable];
      if (found !== undefined && found !== "") return found;
      throw invalid(`${path} takes \${${variable}} from the environment, and it is not set`);
    });
  }
  if (Array.isArray(value)) return value.map((item) => fillIn(item, env, path));
  if (!isPlain(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fillIn(item, env, path)]));
}

const knownFields = [
  ...[inventorySchema, slotSchema, policySchema].flatMap(({ shape }) => Object.keys(shape)),
  "gateway",
  "account",
  "dialect",
  "project",
  "serviceAccount",
  "workspace",
  "kid",
  "publicKey",
  "after",
  "ifUnknown",
  "ifUsed",
  "installWithin",
  "revokeWithin",
  "atDeadline",
  "strategy",
];

// ---- messages about input --------------------------------------------------------------------------------------

/** The problems a schema found, in one line, each with its field; an unknown field with the nearest known name. */
export function describeIssues(error: z.ZodError, known: string[]): string {
  return error.issues
    .slice(0, 3)
    .map((issue) => {
      const field = issue.path.map(String).join(".");
      if (issue.code === "unrecognized_keys") {
        const [unknown = ""] = issue.keys;
        return `unknown field ${field === "" ? unknown : `${field}.${unknown}`}${hint(unknown, known)}`;
      }
      return `${field === "" ? "the whole" : field}: ${sentenceOf(issue)}`;
    })
    .join("; ");
}

function hint(unknown: string, known: string[]): string {
  if (known.includes(unknown)) return ": it belongs in another place";
  const nearest = nearestName(unknown, known);
  return nearest === undefined ? "" : `: did you mean ${nearest}?`;
}

/** Where a value may have several shapes, the first one is explained; where a name is refused, what names look like. */
function sentenceOf(issue: z.core.$ZodIssue): string {
  const inner =
    issue.code === "invalid_union" ? issue.errors[0]?.[0] : issue.code === "invalid_key" ? issue.issues[0] : undefined;
  if (inner !== undefined) return sentenceOf(inner);
  return issue.message
    .replace(/^Invalid (?:input|option): /, "")
    .replace(/^expected (.*), received undefined$/, "is missing (expected $1)");
}

/** The known name that is at most three edits away, if there is one. */
export function nearestName(name: string, known: string[]): string | undefined {
  const ranked = known
    .map((candidate) => ({ candidate, edits: editDistance(name.toLowerCase(), candidate.toLowerCase()) }))
    .toSorted((a, b) => a.edits - b.edits);
  const best = ranked[0];
  return best !== undefined && best.edits <= Math.max(1, Math.min(3, Math.floor(name.length / 2)))
    ? best.candidate
    : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, change));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

// ---- the environment -------------------------------------------------------------------------------------------

/** Where the outside services are: what each vendor's SDK takes as its base address. Vendors' SDKs, 2026-11. */
const baseUrls = {
  cloudflareApi: ["CLOUDFLARE_API_BASE_URL", "https://api.cloudflare.com/client/v4"],
  cloudflareGateway: ["CLOUDFLARE_GATEWAY_BASE_URL", "https://gateway.ai.cloudflare.com/v1"],
  openai: ["OPENAI_BASE_URL", "https://api.openai.com/v1"],
  anthropic: ["ANTHROPIC_BASE_URL", "https://api.anthropic.com"],
  googleApiKeys: ["GOOGLE_APIKEYS_BASE_URL", "https://apikeys.googleapis.com"],
  googleMonitoring: ["GOOGLE_MONITORING_BASE_URL", "https://monitoring.googleapis.com"],
  gemini: ["GEMINI_BASE_URL", "https://generativelanguage.googleapis.com"],
} as const satisfies Record<string, [string, string]>;

/** Credentials and addresses, from the environment. What only one provider needs is missing until it is asked for. */
export interface Credentials {
  cloudflareToken: Redacted;
  /** For the gateway's data plane; the API token where it has no token of its own. */
  gatewayToken: Redacted;
  openaiAdminKey?: Redacted;
  anthropicAdminKey?: Redacted;
  googleAccessToken?: Redacted;
  /** Whether Google's credentials are set in any of the places where its tools look. */
  googleConfigured: boolean;
  baseUrls: Record<keyof typeof baseUrls, string>;
}

/** Reads credentials and base addresses. Fails with `InvalidInput` when the Cloudflare token is missing or an address is not one. */
export function readCredentials(env: Environment): Credentials {
  const secret = (variable: string): Redacted | undefined => {
    const value = env[variable]?.trim();
    return value === undefined || value === "" ? undefined : new Redacted(value);
  };
  const cloudflareToken = secret("CLOUDFLARE_API_TOKEN") ?? secret("CF_API_TOKEN");
  if (cloudflareToken === undefined) {
    throw invalid(
      "CLOUDFLARE_API_TOKEN is not set: put a token with Secrets Store Write and AI Gateway Write into the environment or .dev.vars",
    );
  }
  const openaiAdminKey = secret("OPENAI_ADMIN_KEY");
  const anthropicAdminKey = secret("ANTHROPIC_ADMIN_KEY");
  const googleAccessToken = secret("GOOGLE_OAUTH_ACCESS_TOKEN");
  return {
    cloudflareToken,
    gatewayToken: secret("CLOUDFLARE_GATEWAY_TOKEN") ?? cloudflareToken,
    ...(openaiAdminKey === undefined ? {} : { openaiAdminKey }),
    ...(anthropicAdminKey === undefined ? {} : { anthropicAdminKey }),
    ...(googleAccessToken === undefined ? {} : { googleAccessToken }),
    googleConfigured: googleAccessToken !== undefined || hasGoogleDefaults(env),
    baseUrls: Object.fromEntries(
      Object.entries(baseUrls).map(([key, [variable, standard]]) => [key, readUrl(env, variable, standard)]),
    ) as Credentials["baseUrls"],
  };
}

/**
 * Whether application default credentials are there: named by the environment, left by `gcloud auth application-default
 * login`, or the metadata server of a machine of Google's. cloud.google.com/docs/authentication, and the signs that npm
 * gcp-metadata 8 goes by, seen 2026-11.
 */
function hasGoogleDefaults(env: Environment): boolean {
  const named = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GCE_METADATA_HOST",
    "GCE_METADATA_IP",
    "K_SERVICE",
    "CLOUD_RUN_JOB",
  ];
  if (named.some((variable) => Boolean(env[variable]?.trim()))) return true;
  const home = env["CLOUDSDK_CONFIG"] || (env["APPDATA"] ? join(env["APPDATA"], "gcloud") : undefined);
  const gcloud = home ?? (env["HOME"] ? join(env["HOME"], ".config", "gcloud") : undefined);
  if (gcloud !== undefined && existsSync(join(gcloud, "application_default_credentials.json"))) return true;
  return env["METADATA_SERVER_DETECTION"] !== "none" && isGoogleMachine();
}

function isGoogleMachine(): boolean {
  try {
    return readFileSync("/sys/class/dmi/id/bios_vendor", "utf8").includes("Google");
  } catch {
    return false;
  }
}

/**
 * How long one request to an outside service may take (`KEYTURN_HTTP_TIMEOUT`, such as `20s`); nothing leaves it to the
 * client. Fails with `InvalidInput` when it is no length of time.
 */
export function readHttpTimeoutMs(env: Environment): number | undefined {
  const text = env["KEYTURN_HTTP_TIMEOUT"]?.trim();
  if (text === undefined || text === "") return undefined;
  if (!isDuration(text) || inMs(text) < 1) throw invalid(`KEYTURN_HTTP_TIMEOUT is "${text}": give ${lengthOfTime}`);
  return inMs(text);
}

function readUrl(env: Environment, variable: string, standard: string): string {
  const text = env[variable]?.trim() || standard;
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) {
    // Somebody may have put a key where its address belongs.
    throw invalid(`${variable} is not an address: "${maskSecrets(text)}" should look like ${standard}`);
  }
  return text.replace(/\/+$/, "");
}

function withoutEmpty(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw invalid(`cannot read ${path}: ${(error as Error).message}`);
  }
}

function list(names: string[]): string {
  return names.length === 0 ? "none" : names.join(", ");
}

function invalid(message: string): RotationFailure {
  return new RotationFailure("InvalidInput", message);
}
