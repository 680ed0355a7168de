import type { Duration } from "../domain/duration.ts";
import type { Policy, RowRule } from "../domain/policy.ts";
import type { Incident, Progress } from "../domain/rotation.ts";

/** What goes into and comes out of activities. All of it stands readable in the history: ids and times, no key values. */

export interface OfRotation {
  slot: string;
  rotationId: string;
}

/** A key on its way into the slot. */
export interface NewKey {
  id: string;
  fingerprint: string;
  /** The value, sealed to the workers. */
  sealed: string;
}

export interface InspectOrder extends OfRotation {
  heldKeyId?: string;
  onlyIfDue?: boolean;
}

export interface Inspection {
  /** The slot's, with the rule of death of the kind of key it holds. */
  policy: Policy;
  due: { due: boolean; reason: string };
  /** The key the slot holds, and how that is known. */
  held: { id: string; how: "mark" | "preview" | "operator" | "last result"; since?: string };
  /** Other slots that hold the same key: then it is not revoked. */
  sharedWith: string[];
  /** When the secret was last modified: what `installKey` expects to still be true. */
  secretModified: string;
  /** Whether the rotation gets two aliases of its own, or writes in place. */
  staged: boolean;
  /** Whether the provider makes keys on request. */
  canIssue: boolean;
  /** Whether the provider can switch a key off and on again. */
  canDisable: boolean;
  /** Whether the dialect has a call for dropping cached keys. */
  canPurge: boolean;
  /** Set where no admin credential of the provider is configured: people make keys and revoke them. */
  byHand?: {
    /** What is not configured. */
    missing: string;
    /** The old key in words by which a person finds it, and where. */
    oldKey: string;
    where: string;
    /** Checks that cannot be made. */
    unknown: string[];
  };
  /** What to tell the person who makes the next key, where no API makes it. */
  handIn?: { where: string; keyName: string; keyType: string; belongsTo: string };
  warnings: string[];
}

export interface IssueOrder extends OfRotation {
  /** Counts the keys this rotation tried, from 1. */
  ordinal: number;
  /** How long the key lives if nobody installs it. */
  unprovenLife: Duration;
}

export interface AcceptOrder extends OfRotation {
  /** The value, sealed where it was handed in. */
  sealed: string;
  /** When the request for a key was opened: older keys are not taken. */
  openedAt: string;
  /** The id the provider gave the key, where the person says it. */
  keyId?: string;
}

export interface VerifyAtProviderOrder extends OfRotation {
  key: NewKey;
  /** Until when a refusal may be the provider still settling. */
  settleUntil: string;
  /** The good answers in a row that are wanted. */
  rule: RowRule;
}

export interface StageOrder extends OfRotation {
  key: NewKey;
}

/** Which of the rotation's aliases a probe goes through; `real` is the slot's own. */
export type ProbeAlias = "new" | "prev" | "real";

export interface VerifyThroughGatewayOrder extends OfRotation {
  alias: ProbeAlias;
  goodAnswers: number;
  /** Until when a refusal may be propagation. */
  until: string;
  /** The key the slot must hold: checked before `real` is probed. */
  installedKeyId?: string;
}

export interface Verified {
  /** Probes sent, for telling our own use of a key from the clients'. */
  probes: number;
  warnings: string[];
}

export interface Saved {
  note: string;
}

export interface InstallOrder extends OfRotation {
  key: NewKey;
  /** What `inspectSlot` saw. */
  secretModified: string;
  /** Writes although the mark is already there: a remedy when the gateway doesn't serve it. */
  again?: boolean;
}

export interface Installed {
  at: string;
  expiresAt?: string;
}

export interface PrevAnswer {
  answered: boolean;
  note: string;
}

export interface Active {
  note: string;
}

export interface Revoked {
  at: string;
  note: string;
}

export interface Finished extends Released {
  nextDue: string;
}

export interface IdleOrder extends OfRotation {
  oldKeyId: string;
  newKeyId: string;
  installedAt: string;
  /** Begin of the wait. */
  since: string;
}

export interface IdleAnswer {
  kind: "idle" | "used" | "too early" | "unknown";
  note: string;
  lastUsed?: string;
  horizon?: string;
  /** When a probe and then the next question can settle it. */
  probeAt?: string;
  askAt?: string;
  /** Requests with the new key since the install, as the provider reports them. */
  newKeyRequests: number;
  /** Ways to use a key that the provider has and cannot report by key. */
  unknownSurfaces?: string[];
}

export interface RevokeOrder extends OfRotation {
  keyId: string;
  /** The key the slot must hold meanwhile. */
  installedKeyId: string;
}

export interface SoakOrder extends OfRotation {
  installedKeyId: string;
  /** When the old key was switched off. */
  since: string;
}

export interface SoakLook {
  /** Requests the provider refused since, beyond what was usual before; nothing where the logs cannot be read. */
  newErrors?: number;
  note: string;
}

export interface RefusalOrder extends OfRotation {
  from: string;
}

export interface LastRefusal {
  /** When the provider last refused a client's key; nothing where it never did. */
  lastRefused?: string;
  /** Set where the logs cannot tell. */
  note?: string;
}

export interface CompromisedOrder extends OfRotation {
  compromisedKeyId?: string;
  /** The leaked value, sealed for this slot. */
  leaked?: string;
  /** Set once the key is cut: then its provider may know it no more. */
  cut?: boolean;
}

export interface Compromised {
  id: string;
  how: "id" | "fingerprint" | "masked value";
  /** Nothing where no admin credential may ask. */
  alive?: boolean;
  /** Nothing where the provider knows it no more. */
  createdAt?: string;
  /** The refusals in a row that show it dead, where its kind has a rule of its own. */
  dead?: RowRule;
  /** The slots that hold it. */
  heldBy: string[];
}

export interface CutOrder extends OfRotation {
  keyId: string;
}

export interface Cut {
  at: string;
  how: "disabled" | "revoked";
}

export interface EvidenceOrder extends OfRotation {
  keyId: string;
  from: string;
  to: string;
}

/** What the compromised key was used for: the provider's word against the gateway's. */
export type Evidence = Omit<Incident, "compromisedKey">;

export interface ConfirmOrder extends OfRotation {
  keyId: string;
  /** Whether `prev` serves the key, so that its death can be seen. */
  throughPrev: boolean;
  /** The key's value, sealed for this slot, where it leaked: then its death is seen at the provider itself. */
  leaked?: string;
  until: string;
  /** The refusals in a row that are wanted. */
  rule: RowRule;
}

export interface Confirmation {
  /** When the key was first seen dead in the row of refusals that proved it. */
  deadAt?: string;
  note: string;
}

export interface FinishOrder extends OfRotation {
  installedKeyId: string;
  /** The keys people handed in: where the provider lists no keys, the only way to know of them. */
  handedIn?: string[];
}

export interface ReleaseOrder extends OfRotation {
  oldKeyId?: string;
  /** As in `FinishOrder`. */
  handedIn?: string[];
  /** Set once a write of the new key may have been sent. */
  installStarted: boolean;
  /** The key that was to be installed last. */
  newKeyId?: string;
}

export interface Released {
  /** Live keys that stay behind, and why. */
  leftOver: { id: string; why: string }[];
  warnings: string[];
}

export interface UpdateOrder {
  workflowId: string;
  runId: string;
  update: string;
  arg: unknown;
}

export interface RunningRotation {
  workflowId: string;
  runId: string;
  progress?: Progress;
}
