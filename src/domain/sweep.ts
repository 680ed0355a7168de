/** What the sweep deals with: live keys of ours that no slot holds, and aliases that ended rotations left. */
export interface SweepItem {
  kind: "key" | "alias";
  /** The key's id, or the alias. */
  id: string;
  /** The label the key has at its provider, or the gateway the alias is in. */
  name: string;
  /** The slot it was made for, or the first one in its place. */
  slot: string;
  /** Why it is an orphan, or why it is spared. */
  why: string;
  created?: string;
  lastUsed?: string;
}

/** The result of `sweepOrphans`, and what `keyturn sweep --json` prints. */
export interface SweepResult {
  installation: string;
  /** Whether orphans were to be ended, or only found. */
  revoke: boolean;
  cap: number;
  minimumAge: string;
  /** Why everything was spared, where it was: something could not be read that may own or hold a key. */
  blocked: string[];
  /** The orphans, those that were ended included. */
  found: SweepItem[];
  /** What was ended. */
  revoked: { kind: SweepItem["kind"]; id: string; at: string }[];
  /** What stays, and why: what is held, owned, young or in use; orphans over the cap; those that could not be ended. */
  spared: SweepItem[];
  /** The orphans that could not be ended: also under `spared`. */
  failed: string[];
  /** Checks that could not be made. */
  unknown: string[];
}

export const sweepWorkflowId = "keyturn-sweep";

export const sweepDefaults = { cap: 10, minimumAge: "24h" } as const;
