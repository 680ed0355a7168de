import type { Logs, LogSpan } from "../cloudflare/ai-gateway.ts";
import type { GatewayProbe } from "../cloudflare/data-plane.ts";
import type { Place, SlotSecrets } from "../cloudflare/slot-secrets.ts";
import type { Policy } from "../domain/policy.ts";
import type { RotationResult } from "../domain/rotation.ts";
import type { Slot } from "../domain/slot.ts";
import type { Provider } from "../providers/provider.ts";
import type { Redacted } from "../redacted.ts";
import type { SealPurpose } from "../sealing.ts";
import type { RunningRotation, UpdateOrder } from "./contract.ts";

/** One slot with everything an activity needs to act on it. */
export interface SlotAccess {
  name: string;
  slot: Slot;
  installation: string;
  policy: Policy;
  probeModel: string;
  /** Cloudflare's. */
  account: string;
  place: Place;
  provider: Provider;
  /** Which keys belong together at the provider: slots of one project see each other's keys. */
  keyring: string;
  secrets: SlotSecrets;
  probe: GatewayProbe;
  /** What the gateway logged. Evidence, never a condition: not every account can be asked, and a busy gateway's logs have no end. */
  readLogs(span: LogSpan): Promise<Logs>;
  /** Between two looks at what may only be a stale answer. Milliseconds. */
  secondLookMs: number;
}

/** What the activities are made of. The composition root fills it in; tests fill it with the sandbox. */
export interface Dependencies {
  /** Fails with `InvalidInput` when the inventory has no such slot. */
  slotAccess(name: string): SlotAccess;
  /** All slots of the inventory, for finding out who else holds a key. */
  allSlots(): SlotAccess[];
  seal(value: Redacted, purpose: { slot: string; rotationId: string }): Promise<string>;
  /** Fails with `SealUnreadable`. */
  open(sealed: string, purpose: SealPurpose): Promise<Redacted>;
  runs: Runs;
}

/** Other runs on the same Temporal server. */
export interface Runs {
  /** The open run of this workflow id. Fails with `SlotMissing` when there is none. */
  find(workflowId: string): Promise<RunningRotation>;
  /**
   * Runs an update and returns the answer it gave. Without a run id it goes to the open run of the workflow id, which
   * after a hand-over is another one. The same `updateId` again is the same update. Fails as the run refuses it:
   * `InvalidInput` where it says no other type; with `SlotMissing` where no run is open.
   */
  update(order: UpdateOrder, updateId: string): Promise<unknown>;
  /**
   * The slot's newest run that has closed; undefined where none is kept. One that ended before it had looked at the slot
   * has among its keys what the runs before it named. Fails with `Unavailable` when the server cannot
   * be asked: then nobody knows which keys stayed behind.
   */
  lastClosed(slot: string, which?: WhichRun): Promise<ClosedRun | undefined>;
  /**
   * The key that the slot's last rotation left in it, by its result; undefined where none is kept, or where the last run
   * ended so that it does not tell.
   */
  lastInstalledKey(slot: string, which?: WhichRun): Promise<string | undefined>;
  /**
   * The rotations of these slots that are open now, by what they tell themselves. Fails with `Unavailable` when the
   * server cannot be asked or one of them does not answer: then nobody knows which keys they own.
   */
  openRotations(slots: string[]): Promise<OpenRotation[]>;
}

/** Which closed run is asked for. */
export interface WhichRun {
  /**
   * The run that the starter saw before it started the one that asks. Without it the search index is asked while a run
   * is open, and that is late by a second or so.
   */
  hint?: string | undefined;
  /** The run that asks, where it is one of the slot's own. */
  except?: string | undefined;
}

/** A run of a slot that has closed, and what it said of its keys. */
export interface ClosedRun {
  runId: string;
  /** As Temporal names it: `COMPLETED`, `FAILED`, `TERMINATED`, `TIMED_OUT`, `CANCELLED`. */
  status: string;
  /**
   * Its result, or that of its failure's details. A run that was stopped from outside told none: then what its last
   * progress says, with each key that was open named. Undefined where no worker answers for it.
   */
  result?: RotationResult;
}

/** A rotation that runs, and the keys it answers for. */
export interface OpenRotation {
  slot: string;
  workflowId: string;
  rotationId: string;
  keyIds: string[];
}
