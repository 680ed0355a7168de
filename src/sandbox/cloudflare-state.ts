/** What Cloudflare's account holds; written by the control plane, read by the gateway's edges. */
import type { Binding } from "./edges.ts";
import { Versions } from "./versions.ts";

export type Permission = "secrets read" | "secrets write" | "gateway read" | "gateway write" | "gateway run";

export interface Token {
  name: string;
  value: string;
  permissions: ReadonlySet<Permission>;
}

export interface Store {
  id: string;
  name: string;
  createdAt: number;
}

export interface Secret {
  id: string;
  storeId: string;
  name: string;
  value: string;
  scopes: readonly string[];
  comment: string | null;
  createdAt: number;
  modifiedAt: number;
  /** When its status turns `active`. */
  activeAt: number;
}

export interface ProviderConfig {
  id: string;
  gatewayId: string;
  slug: string;
  alias: string;
  defaultConfig: boolean;
  secretId: string;
  preview: string;
  modifiedAt: number;
  rateLimit: number | undefined;
  rateLimitPeriod: number | undefined;
}

export interface Gateway {
  id: string;
  createdAt: number;
  modifiedAt: number;
  /** All settable fields, under the API's names. */
  fields: Record<string, unknown>;
}

export interface LogRow {
  id: string;
  at: number;
  provider: string;
  model: string;
  path: string;
  durationMs: number;
  status: number;
  cached: boolean;
  tokensIn: number;
  tokensOut: number;
  costUsd: number;
  metadata: string | undefined;
  userAgent: string | undefined;
  byok: boolean;
  wholesale: boolean;
  location: string;
  step: number;
}

export interface CloudflareState {
  accountId: string;
  tokens: Map<string, Token>;
  stores: Versions<Store>;
  secrets: Versions<Secret>;
  /** The same secrets by store and name: the gateway finds a key by name. */
  secretsByName: Versions<Secret>;
  configs: Versions<ProviderConfig>;
  configsByAlias: Versions<ProviderConfig>;
  gateways: Versions<Gateway>;
  /** Newest last. */
  logs: Map<string, LogRow[]>;
}

export function createCloudflareState(accountId: string): CloudflareState {
  return {
    accountId,
    tokens: new Map(),
    stores: new Versions(),
    secrets: new Versions(),
    secretsByName: new Versions(),
    configs: new Versions(),
    configsByAlias: new Versions(),
    gateways: new Versions(),
    logs: new Map(),
  };
}

export const secretKey = (storeId: string, name: string): string => `${storeId}|${name}`;

export const bindingName = (gatewayId: string, slug: string, alias: string): string => `${gatewayId}|${slug}|${alias}`;

/** `{gateway}_{slug}_{alias}`: https://developers.cloudflare.com/ai-gateway/configuration/bring-your-own-keys (2026-07-31). */
export const secretName = (gatewayId: string, slug: string, alias: string): string => `${gatewayId}_${slug}_${alias}`;

export function putSecret(state: CloudflareState, secret: Secret, at: number): void {
  state.secrets.set(secret.id, secret, at);
  state.secretsByName.set(secretKey(secret.storeId, secret.name), secret, at);
}

export function removeSecret(state: CloudflareState, secret: Secret, at: number): void {
  state.secrets.set(secret.id, undefined, at);
  state.secretsByName.set(secretKey(secret.storeId, secret.name), undefined, at);
}

export function putConfig(state: CloudflareState, config: ProviderConfig, at: number): void {
  state.configs.set(config.id, config, at);
  state.configsByAlias.set(bindingName(config.gatewayId, config.slug, config.alias), config, at);
}

export function removeConfig(state: CloudflareState, config: ProviderConfig, at: number): void {
  state.configs.set(config.id, undefined, at);
  state.configsByAlias.set(bindingName(config.gatewayId, config.slug, config.alias), undefined, at);
}

/** A masked hint: the last four characters. */
export const preview = (value: string): string => `****${value.slice(-4)}`;

/** The key that a gateway holds under an alias, as the store was at a moment. */
export function bindingAt(state: CloudflareState, configNeeded: boolean, name: string, moment: number): Binding {
  const [gatewayId = "", slug = "", alias = ""] = name.split("|");
  const storeId = state.gateways.get(gatewayId)?.fields["store_id"];
  if (typeof storeId !== "string") return { kind: "none" };
  const config = state.configsByAlias.at(name, moment);
  if (config === undefined && configNeeded) return { kind: "none" };
  const secret = state.secretsByName.at(secretKey(storeId, secretName(gatewayId, slug, alias)), moment);
  if (secret !== undefined && secret.scopes.includes("ai_gateway")) {
    return { kind: "key", value: secret.value };
  }
  return { kind: config === undefined ? "none" : "unavailable" };
}

/** Whether a token may do something; writing includes reading. */
export function allows(token: Token, permission: Permission): boolean {
  if (token.permissions.has(permission)) return true;
  if (permission === "secrets read") return token.permissions.has("secrets write");
  if (permission === "gateway read") return token.permissions.has("gateway write");
  return false;
}
