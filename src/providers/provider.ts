import type { Answer } from "../domain/answer.ts";
import { RotationFailure } from "../domain/failure.ts";
import type { ProviderName } from "../domain/slot.ts";
import type { Redacted } from "../redacted.ts";

/** A provider's API key as its management API shows it: never with its value. */
export interface KeyRecord {
  id: string;
  /** The label it has there. */
  name: string;
  state: "active" | "disabled" | "revoked" | "expired";
  createdAt: Date;
  /** What the provider shows of the value, as it shows it (`sk-svc...9AbC`). */
  maskedValue?: string;
  expiresAt?: Date;
  /** Late, by a lag nobody publishes. */
  lastUsedAt?: Date;
  /** Whose key it is, where the provider tells: a service account is ours to rotate, a person's key is not. */
  owner?: { kind: "service account" | "user"; id: string };
}

/** One usage bucket of one key. Its width is the provider's: read it from the two ends. */
export interface UsageBucket {
  keyId: string;
  from: Date;
  to: Date;
  requests: number;
  tokens: number;
  model?: string;
}

/** What the provider reports of the use of some keys. Late data: no rows is not no use. */
export interface UsageReport {
  buckets: UsageBucket[];
  /** The width of one bucket in milliseconds, as the answer showed it. */
  bucketMs: number;
  /** Until when the provider itself says its data is complete, where it says so. */
  refreshedAt?: Date;
  /** Surfaces the provider has but cannot report by key. */
  unknownSurfaces: string[];
}

export interface UsageQuery {
  keyIds: string[];
  from: Date;
  to: Date;
}

/**
 * One provider, seen from one slot: who issues keys, tells which are alive and used, and ends them.
 * Every call is one attempt; Temporal repeats.
 */
export interface Provider {
  readonly name: ProviderName;

  /** Succeeds when the admin credential works for this slot's keys; else fails with `AdminCredentialRejected`. */
  checkAdminCredential(): Promise<void>;

  /** All keys of the slot's account or project, dead ones included where the provider still lists them. */
  listKeys(): Promise<KeyRecord[]>;

  /** The key with this id, or nothing when the provider knows it no more. */
  findKey(keyId: string): Promise<KeyRecord | undefined>;

  /** Calls the provider directly, at no cost, with the key, and tells what it answered. */
  tryKey(value: Redacted): Promise<Answer>;

  /** Ends the key for good. Succeeds also when it is already gone. */
  revokeKey(keyId: string): Promise<void>;

  /** The use of these keys by bucket, on every usage surface the provider has, all pages. */
  readUsage(query: UsageQuery): Promise<UsageReport>;

  /** Whether the value's shape is the one this provider's keys have today. A hint for people: never a reason to refuse. */
  looksLikeKey(value: Redacted): boolean;
}

/** A key was to live longer than the provider's policy allows: ask again with half of it. */
export class KeyLifeTooLong extends RotationFailure {
  constructor(message: string) {
    super("RequestInvalid", message);
  }
}

/** A provider that makes keys on request. Both calls fail with `KeyLifeTooLong` where policy caps a key's life. */
export interface KeyIssuer {
  /** Makes a key under this name, to live that long (milliseconds). One attempt: a lost answer leaves a key that `listKeys` shows. */
  issueKey(order: { name: string; lifeMs: number }): Promise<{ key: KeyRecord; value: Redacted }>;

  /** Gives the key a life that long from now (milliseconds) and returns its end. Repeating moves the end, nothing else. */
  setKeyLife(keyId: string, lifeMs: number): Promise<Date | undefined>;
}

/** A provider that can switch a key off and on again. */
export interface KeySwitch {
  /** Succeeds also when the key is already off. */
  disableKey(keyId: string): Promise<void>;
  /** Succeeds also when the key is already on. */
  enableKey(keyId: string): Promise<void>;
}

export function canIssue(provider: Provider): provider is Provider & KeyIssuer {
  return "issueKey" in provider;
}

export function canDisable(provider: Provider): provider is Provider & KeySwitch {
  return "disableKey" in provider;
}
