import type { Compromised } from "../../activities/contract.ts";
import type { FirstTold } from "../../domain/escalation.ts";

/** A value that leaked, sealed, whose key is not known yet; and what is to be said of that key once it is. */
export interface Leak {
  value: string;
  /** When it was told. RFC 3339, as `since`. */
  at: string;
  by: string;
  since?: string;
}

/** What a run knows of the keys that are called compromised, and what is under way with each. By key id, where not said. */
export class KnownCompromised {
  /** A leaked value whose key is not known yet. */
  leak: Leak | undefined;
  /** What was seen of them: only a key that was seen is cut. */
  readonly seen = new Map<string, Compromised>();
  /** Those of which all slots were looked at, not their provider alone. */
  readonly lookedAt = new Set<string>();
  /** Those that were cut before their slots had moved. */
  readonly cut = new Set<string>();
  /** Those of which a cut was stopped under way, or not answered: it may have been made. */
  readonly cutUnsure = new Set<string>();
  /** Those that another slot was told of first: its deadline and policy are theirs. */
  readonly first = new Map<string, FirstTold>();
  /** Slots that were asked to move off one. */
  readonly started = new Set<string>();
  /** Those of which an end is under way: whoever comes second waits for the first. */
  readonly ends = new Map<string, Promise<void>>();
  /** Those that other slots are being moved off: whoever comes second waits for the first. */
  readonly moves = new Map<string, Promise<void>>();
}

/** What a run knows of the swap in its own slot. */
export class KnownSwap {
  /** Keys that this run put into the slot, and those of the run before: its edges may send each of them for a while. */
  readonly given = new Set<string>();
  /** When it was seen which key the slot holds, in milliseconds since the epoch; undefined until then. */
  heldSeenAt: number | undefined;
  /** Those of which a write was not answered: it may land yet. */
  readonly unanswered = new Set<string>();
  /** Those that the slot was seen not to hold at the end. */
  readonly notHeld = new Set<string>();
  /** Set once aliases may have been made: lists show them late, so a clean-up looks twice. */
  stageStarted = false;
  /** Set where a key may have been made whose id nobody knows: the clean-up looks twice for it. */
  issueUnsure = false;
  /** Why the run goes on without aliases of its own, where it began with them. */
  inPlace: string | undefined;
  /** Whether the copy of the old key on `prev` was seen to answer: only then can its death be seen there. */
  prevAnswered = false;
  /** Our own requests with the new key since it was installed. */
  probes = 0;
  /** Our own requests with the old key, through its copy. */
  oldKeyProbes = 0;
  /** When the caches had time enough to drop the old key. Milliseconds since the epoch; 0 until then. */
  cachesOverAt = 0;
  /** Set once the new key was tried again after a cut. */
  triedAfterCut = false;
}
