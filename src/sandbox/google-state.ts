/** What a Google organisation holds: projects, service accounts, API keys' names, running operations. */
import type { Key } from "./keys.ts";
import { wordId } from "./random.ts";
import { Versions } from "./versions.ts";

export type GooglePermission = "apikeys read" | "apikeys write" | "monitoring read";

export interface GoogleProject {
  id: string;
  /** What replies show in place of the id. */
  number: string;
}

export interface GoogleServiceAccount {
  email: string;
  projectId: string;
  uniqueId: string;
  disabledAt: number | undefined;
}

/** What lists show of a key, late. */
export interface ListedGoogleKey {
  /** In the register of all keys. */
  id: string;
  deletedAt: number | undefined;
}

/** An operation; `error` or `response` is told once it is ready. */
export interface GoogleOperation {
  name: string;
  readyAt: number;
  outcome: () => Record<string, unknown>;
}

/** Kept with a key under `detail`. */
export interface GoogleKeyDetail extends Record<string, unknown> {
  projectId: string;
  keyId: string;
  /** `projects/{number}/locations/global/keys/{keyId}`. */
  resource: string;
  uid: string;
  /** Set for an auth key. */
  serviceAccountEmail: string | undefined;
  annotations: Record<string, string>;
  restrictions: Record<string, unknown>;
  updatedAt: number;
  /** Goes up with every change. */
  version: number;
  leaked?: boolean;
}

export interface GoogleState {
  projects: GoogleProject[];
  serviceAccounts: Map<string, GoogleServiceAccount>;
  /** By value. */
  tokens: Map<string, ReadonlySet<GooglePermission>>;
  /** By resource name, from the moment a key is there. */
  listed: Versions<ListedGoogleKey>;
  /** Resource names whose creation is under way. */
  pending: Set<string>;
  operations: Map<string, GoogleOperation>;
}

export const createGoogleState = (): GoogleState => ({
  projects: [],
  serviceAccounts: new Map(),
  tokens: new Map(),
  listed: new Versions(),
  pending: new Set(),
  operations: new Map(),
});

export const googleDetail = (key: Key): GoogleKeyDetail => key.detail as GoogleKeyDetail;

export const isAuthKey = (value: string): boolean => value.startsWith("AQ.");

/** Auth keys are bound to a service account, standard keys to nobody. */
export const newGoogleValue = (auth: boolean): string => (auth ? `AQ.Ab8${wordId(47)}` : `AIza${wordId(35)}`);

export const newAccessToken = (): string => `ya29.${wordId(120)}`;

export const keyResource = (project: GoogleProject, keyId: string): string =>
  `projects/${project.number}/locations/global/keys/${keyId}`;

/** A project by its id or its number. */
export const projectOf = (state: GoogleState, named: string): GoogleProject | undefined =>
  state.projects.find(({ id, number }) => id === named || number === named);
