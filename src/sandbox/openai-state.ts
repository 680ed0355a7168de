/** What an OpenAI organisation holds. Keys themselves are in the register of all keys. */
import type { Key } from "./keys.ts";
import { Versions } from "./versions.ts";

export interface Project {
  id: string;
  name: string;
  createdAt: number;
  archivedAt: number | undefined;
}

export interface ServiceAccount {
  id: string;
  projectId: string;
  name: string;
  role: "owner" | "member" | "none";
  createdAt: number;
}

export interface AdminKey {
  id: string;
  name: string;
  value: string;
  /** `read`, `write`. */
  scopes: readonly string[];
  createdAt: number;
  expiresAt: number | undefined;
  lastUsedAt: number | undefined;
}

export interface AuditEvent {
  id: string;
  type: string;
  at: number;
  projectId: string | undefined;
  actorKeyId: string;
  payload: Record<string, unknown>;
}

/** Kept with a key under `detail`. */
export interface KeyDetail extends Record<string, unknown> {
  projectId: string;
  serviceAccountId: string;
  /** Empty: no restriction. */
  scopes: readonly string[];
}

export interface OpenAiState {
  projects: Versions<Project>;
  serviceAccounts: Versions<ServiceAccount>;
  /** Ids of keys that exist. */
  keyIds: Versions<string>;
  /** When each key expires, with its past; null: never. */
  lives: Versions<number | null>;
  /** By value. */
  adminKeys: Map<string, AdminKey>;
  audit: AuditEvent[];
}

export const createOpenAiState = (): OpenAiState => ({
  projects: new Versions(),
  serviceAccounts: new Versions(),
  keyIds: new Versions(),
  lives: new Versions(),
  adminKeys: new Map(),
  audit: [],
});

export const detailOf = (key: Key): KeyDetail => key.detail as KeyDetail;
