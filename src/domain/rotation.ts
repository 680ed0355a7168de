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
  /** Checks that could not be made. */
  unknown: string[];
  /** Live keys this rotation leaves behind, and why. */
  leftOver: { id: string; why: string }[];
  warnings: string[];
  /** When the slot should be rotated next. */
  nextDue?: string;
  /** Emergencies only. */
  clocks?: Clocks;
  /** `cut-first` only: from when until when requests could fail for want of a key; without `until` they still may. */
  outage?: { from: string; until?: string };
  /** Emergencies only: what the compromised key was used for. */
  incident?: Incident;
  steps: StepRecord[];
}

/** The clocks of an emergency: RFC 3339 deadlines, and when each was kept. */
export interface Clocks {
  installBy: string;
  installed?: string;
  revokeBy: string;
  revoked?: string;
}

/** What is known of a compromised key's use, from its provider and from the gateway. */
export interface Incident {
  compromisedKey: { id: string };
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

/** One wait of a running rotation: promise 10. */
export interface Wait {
  for: string;
  since: string;
  until: string;
  /** What happens then. */
  then: string;
  /** What a person can do about it, where there is something. */
  action?: string;
  /** What it takes from a person: with it the wait ends. */
  takes?: "approval" | "key";
  /** Whether the rotation cannot go on without a person. */
  person?: boolean;
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
  times: RotationTimes;
  clocks?: Clocks;
  outage?: NonNullable<RotationResult["outage"]>;
  steps: StepRecord[];
  /** Set on a start that follows the run of the slot's own id. */
  follows?: { workflowId: string; runId: string };
}

/** The workflow id under which a slot's one rotation runs. */
export function slotWorkflowId(slot: string): string {
  return `keyturn/${slot}`;
}

export const taskQueue = "keyturn";
