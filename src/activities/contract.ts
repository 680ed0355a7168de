import type { CustodyEntry, Fate, KeyRole } from "../domain/custody.ts";
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
  /** The slot's run before this one, where the starter knows it: its result says which keys stayed behind. */
  formerRunId?: string;
  /** Keys this run has cut already: their provider may list them no more, and the slot may still hold one of them. */
  cutKeys?: { id: string; ending?: string }[];
}

/** A key that the slot's last closed run named, looked at again. */
export interface EarlierKey {
  id: string;
  /** What that run said of it. */
  why: string;
  /** `unknown` where its provider cannot be asked. */
  state: "alive" | "dead" | "unknown";
}

export interface Inspection {
  /** The slot's, with the rule of death of the kind of key it holds. */
  policy: Policy;
  due: { due: boolean; reason: string };
  /** The key the slot holds, and how that is known. */
  held: {
    id: string;
    how: "mark" | "preview" | "operator" | "last result" | "value";
    since?: string;
    /** 16 hex digits of the SHA-256 of its value, by its mark. */
    fingerprint?: string;
  };
  /** Other slots that hold the same key: then it is not revoked. */
  sharedWith: string[];
  /** What earlier runs of the slot left behind and named: named again, and ended by nobody but who is told to. */
  earlier: EarlierKey[];
  /** Checks that could not be made. */
  unknown: string[];
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

/** The key an attempt made, and those that earlier attempts of the same order left, whose values are lost. */
export interface Issued extends NewKey {
  leftBehind: string[];
}

/** Details of the failure with which `acceptKey` refuses a key: it exists, and is somebody's to end. */
export interface RefusedHandIn {
  handedIn: { id: string; heldBy: string[] };
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
  /**
   * Staged before by the run that handed over: both aliases are made anew, so `prev` becomes a copy of what the slot holds
   * now. Not for another key of the same swap: `new` is overwritten in any case, and `prev` has to stay the old key's.
   */
  again?: boolean;
}

export interface Staged {
  /** Set where the store had no room and policy allows to go on in place. */
  inPlace?: string;
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
  /** When the last of the answers came: a worker may be away before the run hears of it. RFC 3339. */
  at?: string;
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
  /** A comment of somebody else's that the mark replaced. */
  replacedComment?: string;
  /** What the provider says against the key, although it works. */
  warnings?: string[];
}

/** Details of the failure or cancellation of `installKey`: whether the write may have left. Without details it may. */
export interface InstallFailed {
  sent: boolean;
}

export interface RestoreOrder extends OfRotation {
  /** What the slot must still hold by this rotation's own mark. */
  installedKeyId: string;
  /** The key whose copy lies on `prev`, so that the slot bears its mark again; and its fingerprint, where it is known. */
  oldKeyId?: string;
  oldFingerprint?: string;
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
  /** Whether its provider was also seen to know it no more, or as dead. */
  seen: boolean;
  note: string;
}

export interface IdleOrder extends OfRotation {
  oldKeyId: string;
  newKeyId: string;
  installedAt: string;
  /** Begin of the wait. */
  since: string;
  /** Requests that the rotation itself sent with the old key before the install; 1 where it is left out. */
  oldKeyProbes?: number;
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
  /** Set where the provider reports use of other keys since the install and none of the new one. */
  newKeyNeverReported?: true;
  /** Whether clients used the old key in the day before the install; unknown where that cannot be read. */
  clientsBefore: "yes" | "no" | "unknown";
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

export interface HoldersOrder extends OfRotation {
  keyIds: string[];
  /** The key this rotation wrote into its slot: where no marks are kept, only it knows. */
  installedKeyId?: string;
}

/** Which slots hold a key, asked by reads at the moment of the question. A slot in neither list holds another key. */
export interface Holders {
  keyId: string;
  yes: string[];
  /** Slots of which it cannot be told, and why. */
  unknown: { slot: string; why: string }[];
  /**
   * Slots whose secret was written so short a while ago that their edges may still send what it held before, which may
   * have been this key: until when. RFC 3339.
   */
  left?: { slot: string; until: string }[];
}

export interface CompromisedOrder extends OfRotation {
  keyIds: string[];
  /** The leaked value, sealed for this slot and purpose `leaked`. */
  leaked?: string;
  /** Ask the providers only: a look at slots may not delay a cut. Then `heldBy` and `unknown` are empty. */
  providerOnly?: true;
}

export interface Compromised {
  id: string;
  how: "id" | "fingerprint" | "masked value" | "value";
  /** `unknown` where no admin credential may ask. */
  state: "alive" | "dead" | "unknown";
  /** The slot through which its provider knows it: another one's project may be the key's. */
  through: string;
  /** What its provider shows of it. */
  name?: string;
  ending?: string;
  createdAt?: string;
  /** The refusals in a row that show it dead, where its kind has a rule of its own. */
  dead?: RowRule;
  /** The slots that hold it, and those of which it cannot be told. */
  heldBy: string[];
  unknown: Holders["unknown"];
  left?: Holders["left"];
  /** The slot whose rotation made it, where its name is one that this installation gives. */
  madeFor?: string;
}

export interface CutOrder extends OfRotation {
  keyId: string;
  /** From `findCompromised`, which has seen the key: only then is it cut. */
  through: string;
}

/** An end for good of a compromised key. */
export interface EndOrder extends CutOrder {
  /**
   * Set where no slot held it at the look before: until then, RFC 3339, an attempt that comes long after that look asks
   * again. From then on, and without it, the key is ended whoever holds it.
   */
  unheldUntil?: string;
}

export interface Cut {
  at: string;
  how: "disabled" | "revoked" | "dead already";
}

/** Details of the failure or cancellation of `cutKey`. Without details one that was not answered may have cut it. */
export interface CutFailed {
  /** Whether an attempt may have cut it: refused is not cut, not answered may be. */
  mayBeCut: boolean;
}

export interface SwitchOff extends RevokeOrder {}

export interface SwitchedOff {
  at: string;
  /** Somebody else had switched it off: then it is not for this rotation to switch it on again. */
  wasOff: boolean;
}

/** Details of the failure or cancellation of `disableKey`. Without details the key may be off by our hand. */
export interface SwitchOffFailed {
  /** Whether an attempt may have switched it off: only then is there something to undo. */
  mayBeOff: boolean;
}

export interface SwitchOn extends OfRotation {
  keyId: string;
}

export interface EvidenceOrder extends OfRotation {
  keyId: string;
  from: string;
  to: string;
}

/** What the compromised key was used for: the provider's word against the gateway's. */
export type Evidence = Omit<Incident, "compromisedKey" | "asked">;

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
  /** When the last look was made. */
  lookedAt?: string;
  note: string;
}

export interface SavedOrder extends OfRotation {
  installedKeyId: string;
}

/** The keys of a run that have no fate yet, to be looked up at its end. */
export interface SettleOrder extends OfRotation {
  keys: Pick<CustodyEntry, "id" | "role" | "given">[];
  /** Ordinals under which a key of this rotation's name may exist that the run does not know by id. */
  ordinals: number[];
  /** Every key that the run knows by id: one that is not asked for is not touched, whatever its name. */
  known?: string[];
}

export interface Settled {
  /** A fate for each key that was asked for; none where keys were found. */
  keys: { id: string; role: KeyRole; fate: Fate }[];
  /** Live keys under the ordinals that the run did not know by id: it takes them, and asks again. */
  found?: string[];
  /** Keys that were given, and that the order's own slot does not hold: seen twice, not guessed. */
  notHeld?: string[];
  warnings: string[];
}

// ---- before an emergency, and between runs ----------------------------------------------------------------------

export interface PlanOrder {
  slot: string;
  keyIds?: string[];
  /** The leaked value, sealed for this slot and purpose `leaked`. */
  leaked?: string;
  /** RFC 3339: since when the key may be known to others. */
  since?: string;
  heldKeyId?: string;
  formerRunId?: string;
  /** The run that asks, where it is a run of the slot itself: not the former one. */
  ownRunId?: string;
}

/** A live key in words by which an operator knows it. */
export interface SeenKey {
  id: string;
  /** What its provider shows of its ending. */
  ending?: string;
  /** Its label at the provider. */
  name?: string;
  createdAt?: string;
  madeBy: string;
  state: "alive" | "dead" | "unknown";
  /** `held` by the slot; `ours` by its name; `left over` by an earlier run; `unknown` to keyturn. */
  what: "held" | "ours" | "left over" | "unknown";
  /** Which run left it behind, and why. */
  leftOver?: string;
  heldBy: string[];
  heldUnknown: string[];
  /** The slot through which its provider knows it. */
  through: string;
}

/** What an emergency would be about. The prompt and the start are made of this one object. */
export interface EmergencyPlan {
  slot: string;
  account: string;
  gateway: string;
  /** The keys that will be cut: those that were named, else the held one where that is no guess. */
  keys: SeenKey[];
  /** Why it would be a guess, and the keys to choose from: then `keys` is empty. */
  ambiguous?: { why: string; candidates: SeenKey[] };
  /** The key the slot holds, where that is known. */
  held?: SeenKey;
  /** Set where only people can end keys: what is not configured. */
  byHand?: string;
  /** Checks that could not be made. */
  unknown: string[];
  warnings: string[];
}

export interface SlotKeys {
  slot: string;
  keys: SeenKey[];
  unknown: string[];
}

export interface LeakedOrder {
  /** The leaked value, sealed for purpose `leaked` and no slot. */
  leaked: string;
}

/** One key that has, or can only have, the leaked value. */
export interface LeakedMatch {
  keyId: string;
  how: Compromised["how"];
  /** Each slot that holds it; where none does, the slot through which its provider knows it. */
  slots: string[];
  held: boolean;
  /** Slots of which it cannot be told whether they hold it. */
  heldUnknown?: string[];
}

export interface LeakedFound {
  matches: LeakedMatch[];
  unknown: string[];
}

export interface UpdateOrder {
  workflowId: string;
  /** Without it the open run of the id is told: after a hand-over that is not the first one. */
  runId?: string;
  update: string;
  arg: unknown;
}

export interface RunningRotation {
  workflowId: string;
  runId: string;
  progress?: Progress;
}
