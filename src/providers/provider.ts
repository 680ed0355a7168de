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
  /**
   * Something the provider shows of the key that may mean that it does not work, in words. A warning, never a verdict: a
   * key that answers a probe works whatever is flagged.
   */
  flag?: string;
  /** Google's older kind, bound to no service account: it goes on working erratically long after its end. */
  standard?: true;
}

/** One usage bucket of one key. Its width is the provider's: read it from the two ends. */
export interface UsageBucket {
  keyId: string;
  from: Date;
  to: Date;
  /** At least so many: 1 where the provider counts only tokens. */
  requests: number;
  /** 0 where the provider counts only requests. */
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
  /**
   * Set where the provider reported use under names that are not these keys', and none under theirs: then their use
   * is unknown, whatever the buckets say.
   */
  perKey?: false;
  /** Keys that were not shown just now, so that their use could not be asked for by the name it bears. */
  notShown?: string[];
}

export interface UsageQuery {
  keyIds: string[];
  from: Date;
  to: Date;
}

/**
 * One provider, seen from one slot: what a key's own value allows. Every call is one attempt; Temporal repeats. What
 * else a provider can do, with an admin credential or at all, is an interface of its own below.
 */
export interface Provider {
  readonly name: ProviderName;

  /** Set where keys can be switched off and on again: by whom, is key-end.ts's business. */
  readonly switchable?: true;

  /** Calls the provider directly, at no cost, with the key, and tells what it answered. */
  tryKey(value: Redacted): Promise<Answer>;

  /** Whether the value's shape is the one this provider's keys have today. A hint for people: never a reason to refuse. */
  looksLikeKey(value: Redacted): boolean;
}

/** A provider with an admin credential: it tells which keys are alive and used. Ending them is key-end.ts. */
export interface KeyManager {
  /** Succeeds when the admin credential works for this slot's keys; else fails with `AdminCredentialRejected`. */
  checkAdminCredential(): Promise<void>;

  /** All keys of the slot's account or project, dead ones included where the provider still lists them. */
  listKeys(): Promise<KeyRecord[]>;

  /** The key with this id, or nothing when the provider knows it no more. */
  findKey(keyId: string): Promise<KeyRecord | undefined>;

  /** The use of these keys by bucket, on every usage surface the provider has, all pages. */
  readUsage(query: UsageQuery): Promise<UsageReport>;
}

export type ManagedProvider = Provider & KeyManager;

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

/** Whose a key is, seen from the slot: the slot's own account's, bound to no account, or another account's. */
export type Standing = "own" | "unbound" | "foreign";

/** A provider that shows a key's value again, and binds keys to accounts. */
export interface KeyReader {
  /** The value of a live key; nothing when the key is gone, switched off, or our credential may not read it. */
  readValue(keyId: string): Promise<Redacted | undefined>;
  /** Whose the key is. One that is another account's is not the slot's to rotate. */
  standingOf(key: KeyRecord): Standing;
}

/** What a person who makes a key by hand is told. Each is a few words for a list. */
export interface HandInInstructions {
  /** The address of the page where keys are made. */
  where: string;
  /** The name to give the key: it is found again by it. */
  keyName: string;
  keyType: string;
  /** What the key must belong to: a project, a workspace. */
  belongsTo: string;
}

/** Why a handed-in key is not taken. */
export type HandInFault =
  /** No key of this provider that we can see has this value. */
  | "none"
  /** Several keys could be it: the provider shows too little of a value to tell. */
  | "several"
  /** Disabled, revoked or expired. */
  | "dead"
  /** It is older than the request for it. */
  | "made before"
  | "wrong project"
  | "wrong workspace"
  /** It belongs to no one workspace: each request would have to name one. */
  | "unscoped";

export type Identified =
  | { kind: "identified"; key: KeyRecord }
  /** `key` where just one key fits the value: it exists, whatever speaks against it. */
  | { kind: "refused"; fault: HandInFault; message: string; key?: KeyRecord }
  /** Nothing could be looked up, so nothing is known of the key but its value. */
  | { kind: "unknown"; message: string };

/** A provider that tells which key a person handed in. */
export interface HandIn {
  /** What to tell the person. `name` is the label the key should get. */
  handInInstructions(order: { name: string }): HandInInstructions;

  /**
   * The one live key of the slot's project or workspace that has this value and was made after the request for it was
   * opened, or why there is none. Only reads. A refused admin credential is "unknown", not a failure.
   */
  identifyKey(value: Redacted, order: { openedAt: Date }): Promise<Identified>;
}

/** A provider whose admin credential is not configured: people make its keys and revoke them. */
export interface ByHand extends Pick<HandIn, "handInInstructions"> {
  /** What is not configured, such as `OPENAI_ADMIN_KEY is not set`. */
  readonly missing: string;
}

/** How much older than its request a handed-in key may look: two clocks, and a person who was quick. */
export const handInToleranceMs = 5 * 60_000;

export function isByHand(provider: Provider): provider is Provider & ByHand {
  return "missing" in provider;
}

export function canReadValues<Some extends Provider>(provider: Some): provider is Some & KeyReader {
  return "readValue" in provider;
}

export function canHandIn<Some extends Provider>(provider: Some): provider is Some & HandIn {
  return "identifyKey" in provider;
}

/** Judges the keys whose masked value fits a handed-in one. `stranger` says why a key is not the slot's, where it isn't. */
export function judgeHandedIn(
  fitting: readonly KeyRecord[],
  { openedAt, stranger }: { openedAt: Date; stranger: (key: KeyRecord) => HandInFault | undefined },
): Identified {
  const faultOf = (key: KeyRecord): HandInFault | undefined => {
    const strange = stranger(key);
    if (strange !== undefined) return strange;
    if (key.state !== "active") return "dead";
    return key.createdAt.getTime() < openedAt.getTime() - handInToleranceMs ? "made before" : undefined;
  };
  const judged = fitting.map((key) => ({ key, fault: faultOf(key) }));
  const [match, ...others] = judged.filter(({ fault }) => fault === undefined);
  if (match !== undefined && others.length === 0) return { kind: "identified", key: match.key };
  const [only] = judged;
  const fault = match === undefined ? (only?.fault ?? "none") : "several";
  const named = judged.map(({ key }) => `${key.id} (${key.name})`).join(", ");
  return {
    kind: "refused",
    fault,
    message: `${handInSentences[fault]}${named === "" ? "" : `; it looks like ${named}`}`,
    ...(only === undefined || judged.length > 1 ? {} : { key: only.key }),
  };
}

const handInSentences: Record<HandInFault, string> = {
  none: "the provider shows no key with this value: make it where the instructions say, or wait a moment and hand it in again",
  several: "several keys look like this value, and which it is cannot be told: make another one and hand that in",
  dead: "this key is switched off, revoked or expired: make a new one",
  "made before": "this key is older than the request for it: make a new one",
  "wrong project": "this key belongs to another project: make one where the instructions say",
  "wrong workspace": "this key belongs to another workspace: make one where the instructions say",
  unscoped:
    "this key is scoped to no workspace, so every client would have to name one: make one scoped to the workspace",
};

export function canManage(provider: Provider): provider is ManagedProvider {
  return "listKeys" in provider;
}

export function canIssue<Some extends Provider>(provider: Some): provider is Some & KeyIssuer {
  return "issueKey" in provider;
}

/** Whether a key of the provider can be switched off and on again. */
export function canDisable({ switchable }: Provider): boolean {
  return switchable === true;
}
