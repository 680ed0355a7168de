import type { KeyEntry } from "./custody.ts";

/** The fourteen steps of a normal rotation, in their order. The same words in code, in the Temporal UI and in docs/rotation.md. */
export const rotationSteps = [
  "inspectSlot",
  "issueKey",
  "verifyAtProvider",
  "stageAliases",
  "verifyThroughGateway(new)",
  "installKey",
  "awaitPropagation",
  "verifyThroughGateway(real)",
  "awaitCacheInvalidation",
  "awaitIdle",
  "disableKey",
  "revokeKey",
  "confirmRevoked",
  "finish",
] as const;

export type RotationStep = (typeof rotationSteps)[number];

/** What a rotation does only where a step needs help. */
export type Remedy = "checkSaved" | "tryDirectly" | "storeAgain" | "purgeCache" | "restoreOldValue";

/** What an emergency does beside the steps of a rotation. */
export type EmergencyStep = "findCompromised" | "cutKey" | "measureOutage" | "gatherEvidence";

export type RotationKind = "normal" | "emergency";

export interface StepRecord {
  step: string;
  started: string;
  ended?: string;
  outcome: "running" | "done" | "skipped" | "failed";
  /** Why it ended as it did, in words. */
  note?: string;
}

/** RFC 3339 times; one that never came is left out. */
export interface RotationTimes {
  started: string;
  issued?: string;
  installed?: string;
  verified?: string;
  /** The last use of the old key that its provider reports. */
  lastUsed?: string;
  /** Emergencies: the compromised key was switched off or revoked, before anything else. */
  cut?: string;
  /** The provider accepted the revocation. */
  revoked?: string;
  /** The key was seen not to work. */
  confirmedDead?: string;
  finished?: string;
}

/** What happens to each key by itself; of the old one it is shown. */
export type KeyTimes = Pick<RotationTimes, "cut" | "revoked" | "confirmedDead">;

/** How a rotation ended: the workflow's result, and what `--json` prints. */
export interface RotationResult {
  slot: string;
  kind: RotationKind;
  outcome: "rotated" | "cut" | "kept" | "aborted" | "joined";
  reason: string;
  rotationId: string;
  oldKey: { id: string } | null;
  newKey: { id: string } | null;
  times: RotationTimes;
  /** Each key the run answered for, and where it is now. In a result none is `open`. */
  keys: KeyEntry[];
  /** Checks that could not be made. */
  unknown: string[];
  /** Live keys this rotation leaves behind, and why: the keys whose fate is `named`. */
  leftOver: { id: string; why: string }[];
  warnings: string[];
  /** When the slot should be rotated next. */
  nextDue?: string;
  /** Emergencies only. */
  clocks?: Clocks;
  /** Set where a key was cut that a slot served: from when until when requests could fail; without `until` they still may. */
  outage?: { from: string; until?: string; slots?: string[] };
  /** Emergencies only: what the compromised key was used for. */
  incident?: Incident;
  steps: StepRecord[];
}

/** How an emergency ended that was known by a leaked value alone: one result for each slot that held the key. */
export interface LeakedResult {
  keyIds: string[];
  results: RotationResult[];
  /** Slots whose emergency failed, and the sentence of the failure. */
  failed: { slot: string; type: string; message: string }[];
  unknown: string[];
}

/** The clocks of an emergency: RFC 3339 deadlines, and when each was kept. */
export interface Clocks {
  /** When the compromise was told: both deadlines count from here. */
  told: string;
  installBy: string;
  installed?: string;
  revokeBy: string;
  revoked?: string;
}

/** What is known of a compromised key's use, from its provider and from the gateway. */
export interface Incident {
  compromisedKey: { id: string };
  /** Since when the key may have been known to others, as it was told; `from` is since when its use was looked at. */
  asked?: string;
  from: string;
  to: string;
  /** Requests with the key, as its provider counts them. */
  providerRequests: number;
  providerTokens: number;
  /** Requests of the slot's provider through the slot's gateway; nothing where its logs cannot be read to their end. */
  gatewayRequests?: number;
  /** Minutes in which the provider saw more than the gateway sent: use by somebody else. */
  strangers: { from: string; to: string; requests: number; models: string[] }[];
  /** Models that the gateway never asked for. */
  strangeModels: string[];
  notes: string[];
}

/** What a wait asks a person for, as data; words are made of it where they are shown. */
export type Asks =
  /** A decision, by `approve`. `accepts` is the use of the old key that an approval accepts: none that came later. */
  | { kind: "approval"; accepts?: string; of: "use" | "before-install" | "before-revoke" | "cut-now" }
  /** A key, by `submitKey`: what to make and where. */
  | { kind: "key"; name: string; keyType: string; belongsTo: string; where: string; livesAtLeast: string }
  /** The end of a key at its provider, then `approve`. `which` says the key in words by which a person finds it. */
  | { kind: "revocation"; keyId: string; which: string; where: string };

/** One wait of a running rotation: promise 10. */
export interface Wait {
  /** Tells this wait from every other one of the run: what an approval is bound to. */
  id: string;
  for: string;
  since: string;
  until: string;
  /** What happens then. */
  then: string;
  /** What a person can do about it, in a sentence, where there is something. */
  action?: string;
  /** What it takes from a person: with it the wait ends. */
  asks?: Asks;
  /** Whether the rotation cannot go on without a person. */
  person?: boolean;
}

/** What the update `approve` answers. */
export interface Approved {
  by: string;
  /** The use of the old key that the approval accepts, where it accepts one: the last one shown, RFC 3339 or in words. */
  accepts?: string;
}

/** What the update `submitKey` answers. */
export interface Submitted {
  taken: { id: string };
}

/** What the query `progress` answers. */
export interface Progress {
  slot: string;
  kind: RotationKind;
  rotationId: string;
  phase: string;
  waiting: Wait | null;
  /** What the operator should do now; nothing is a good answer. */
  action: string;
  oldKey: { id: string } | null;
  newKey: { id: string } | null;
  /** Each key the run answers for, and where it is as far as is known. */
  keys: KeyEntry[];
  times: RotationTimes;
  clocks?: Clocks;
  outage?: NonNullable<RotationResult["outage"]>;
  steps: StepRecord[];
  /** Set on a start that follows the run of the slot's own id. */
  follows?: { workflowId: string; runId: string };
}

/** Coarse phases for the search attribute `KeyturnPhase`; a closed run has its outcome, or `failed`. */
export type Phase =
  | "preparing"
  | "installed"
  | "draining"
  | "revoking"
  | "waiting-for-a-person"
  | RotationResult["outcome"]
  | "failed";

/** The workflow id of an emergency that is known by a leaked value alone. */
export function leakedWorkflowId(fingerprint: string): string {
  return `keyturn/leaked/${fingerprint}`;
}

/** The workflow id under which a slot's one rotation runs. */
export function slotWorkflowId(slot: string): string {
  return `keyturn/${slot}`;
}

export const taskQueue = "keyturn";
