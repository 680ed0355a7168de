/** What an Anthropic organisation holds. Keys themselves are in the register of all keys. */
import type { Key } from "./keys.ts";
import { wordId } from "./random.ts";
import { Versions } from "./versions.ts";

export interface Workspace {
  id: string;
  name: string;
  createdAt: number;
  archivedAt: number | undefined;
}

export interface AnthropicAdminKey {
  value: string;
  /** `read`, `write`. */
  scopes: readonly string[];
}

/** What lists show of a key, late. */
export interface ListedKey {
  id: string;
  status: "active" | "inactive" | "archived";
  name: string;
}

/** Kept with a key under `detail`. */
export interface AnthropicKeyDetail extends Record<string, unknown> {
  /** Undefined for a key that is not scoped to one workspace. */
  workspaceId: string | undefined;
  serviceAccountId: string;
  createdBy: string;
}

export interface AnthropicState {
  organizationId: string;
  workspaces: Versions<Workspace>;
  listed: Versions<ListedKey>;
  /** By value. */
  adminKeys: Map<string, AnthropicAdminKey>;
}

export const createAnthropicState = (): AnthropicState => ({
  organizationId: "5a0d0c58-0000-4000-8000-000000000001",
  workspaces: new Versions(),
  listed: new Versions(),
  adminKeys: new Map(),
});

export const anthropicDetail = (key: Key): AnthropicKeyDetail => key.detail as AnthropicKeyDetail;

export const newAnthropicAdminKey = (scopes: readonly string[]): AnthropicAdminKey => ({
  value: `sk-ant-admin01-${wordId(86)}AA`,
  scopes,
});

export const newAnthropicValue = (): string => `sk-ant-api03-${wordId(93)}AA`;

/** A key's id as Anthropic forms it. */
export const newAnthropicId = (start: string): string => `${start}_01${wordId(22)}`;
