import type { WorkflowHandle } from "@temporalio/client";

import type { Compromised, Inspection } from "../../../src/activities/contract.ts";
import type { RotationActivities } from "../../../src/activities/index.ts";
import { type RotationResult, slotWorkflowId } from "../../../src/domain/rotation.ts";
import { runsOf } from "../../../src/temporal/runs.ts";
import { play, type Played, type Skipping, slot, startOptions } from "../../support/time-skipping.ts";

export { failureOf, resultOf } from "../endings.ts";
export { documentedPolicy, failing, type Skipping, slot, startSkipping } from "../../support/time-skipping.ts";

export const minute = 60_000;
export const hour = 60 * minute;
export const otherSlot = "production/openai:batch";

type World = { [Name in keyof RotationActivities]?: RotationActivities[Name] } & { inspection?: Partial<Inspection> };

/** One end of a key, as it happened. */
export interface KeyEnd {
  keyId: string;
  by: string;
  /** When, in milliseconds since the epoch. */
  at: number;
  /** The slots that served it then. */
  heldBy: string[];
}

/** Slots and keys as they really are, whatever a run thinks of them. */
export interface Slots {
  /** Which key each slot serves. */
  holds: Record<string, string>;
  made: string[];
  ends: KeyEnd[];
  /** Calls that changed something or looked, in the order in which they came. */
  played: Played;
  endOf(keyId: string): KeyEnd | undefined;
}

/**
 * Plays several slots of one project: what is installed is held, what is ended is dead, and who is asked who holds a key
 * says so. `changes` makes parts of it go otherwise; each gets the way it would go right.
 */
export function playSlots(
  skipping: Skipping,
  holds: Record<string, string> = { [slot]: "key_old" },
  changes: (right: Required<Pick<World, Right>>, slots: Slots) => World = () => ({}),
): Slots {
  const now = (): Promise<number> => skipping.env.currentTimeMs();
  const slots = { holds: { ...holds }, made: [], ends: [] } as unknown as Slots;
  slots.endOf = (keyId) => slots.ends.find((end) => end.keyId === keyId);
  const holdersOf = (keyId: string): string[] => Object.keys(slots.holds).filter((name) => slots.holds[name] === keyId);
  const end = async (keyId: string, by: string): Promise<string> => {
    const at = await now();
    if (slots.endOf(keyId) === undefined) slots.ends.push({ keyId, by, at, heldBy: holdersOf(keyId) });
    return new Date(at).toISOString();
  };
  const seen = (id: string): Compromised => ({
    id,
    how: "id",
    state: slots.endOf(id) === undefined ? "alive" : "dead",
    through: holdersOf(id)[0] ?? slot,
    heldBy: holdersOf(id),
    unknown: [],
  });
  const good = play(now).activities;
  const right: Required<Pick<World, Right>> = {
    inspectSlot: async (order) => {
      const keyId = slots.holds[order.slot] ?? "none";
      return {
        ...(await good.inspectSlot(order)),
        held: { id: keyId, how: "mark" },
        sharedWith: holdersOf(keyId).filter((name) => name !== order.slot),
      };
    },
    issueKey: async () => {
      const id = `key_${slots.made.length + 1}`;
      slots.made.push(id);
      return { id, fingerprint: "0123456789abcdef", sealed: "sealed", leftBehind: [] };
    },
    installKey: async ({ slot: into, key }) => {
      slots.holds[into] = key.id;
      return { at: new Date(await now()).toISOString() };
    },
    revokeKey: async ({ keyId }) => ({ at: await end(keyId, "revokeKey"), seen: true, note: `${keyId} revoked` }),
    cutKey: async ({ keyId }) => ({ at: await end(keyId, "cutKey"), how: "revoked" }),
    endCompromisedKey: async ({ keyId }) => ({
      at: await end(keyId, "endCompromisedKey"),
      seen: true,
      note: `${keyId} revoked`,
    }),
    findCompromised: async ({ keyIds, slot: asked }) =>
      (keyIds.length === 0 ? [slots.holds[asked] ?? "none"] : keyIds).map(seen),
    lookAtHolders: async ({ keyIds }) => keyIds.map((keyId) => ({ keyId, yes: seen(keyId).heldBy, unknown: [] })),
    planEmergency: async (order) => {
      const plan = await good.planEmergency(order);
      return {
        ...plan,
        slot: order.slot,
        keys: plan.keys.map((key) => ({ ...key, id: slots.holds[order.slot] ?? "none" })),
      };
    },
    settleKeys: async ({ keys }) => ({
      keys: await Promise.all(
        keys.map(async ({ id, role, given }) => {
          const [by] = holdersOf(id);
          const ended = slots.endOf(id);
          if (ended !== undefined) {
            return { id, role, fate: { fate: "ended", at: new Date(ended.at).toISOString(), seen: true } };
          }
          if (by !== undefined) return { id, role, fate: { fate: "held", by } };
          if (role === "new" && !given)
            return { id, role, fate: { fate: "ended", at: await end(id, "settleKeys"), seen: true } };
          return { id, role, fate: { fate: "named", why: given ? "clients may still use it" : "look who uses it" } };
        }),
      ),
      warnings: [],
    }),
    findRun: ({ workflowId }) => runsOf(skipping.client).find(workflowId),
    updateRun: (order) => runsOf(skipping.client).update(order, `told-${Math.random()}`),
  };
  slots.played = play(now, { ...right, ...changes(right, slots) });
  return slots;
}

type Right =
  | "inspectSlot"
  | "issueKey"
  | "installKey"
  | "revokeKey"
  | "cutKey"
  | "endCompromisedKey"
  | "findCompromised"
  | "lookAtHolders"
  | "planEmergency"
  | "settleKeys"
  | "findRun"
  | "updateRun";

/** Starts a workflow of a slot under the slot's own id, or another. */
export function startIn(
  skipping: Skipping,
  workflowType: string,
  {
    slot: in_ = slot,
    workflowId = slotWorkflowId(in_),
    ...input
  }: Record<string, unknown> & { slot?: string; workflowId?: string } = {},
): Promise<WorkflowHandle> {
  return skipping.client.workflow.start(workflowType, { ...startOptions, workflowId, args: [{ slot: in_, ...input }] });
}

/** Lets time pass in steps until it is so; fails after so many minutes. */
export async function passUntil(
  skipping: Skipping,
  so: () => boolean | Promise<boolean>,
  { most = 300, step = 1 }: { most?: number; step?: number } = {},
): Promise<void> {
  for (let passed = 0; passed < most; passed += step) {
    if (await so()) return;
    await skipping.env.sleep(step * minute);
  }
  throw new Error(`it did not come to it in ${most} minutes`);
}

/** The result a run leaves, whether it ended well or failed. */
export async function endOf(handle: Pick<WorkflowHandle, "result">): Promise<RotationResult & { failed?: string }> {
  try {
    return (await handle.result()) as RotationResult;
  } catch (error) {
    const { cause } = error as { cause?: { type?: string; message: string; details?: unknown[] } };
    const result = cause?.details?.[0] as RotationResult | undefined;
    return { ...(result ?? ({} as RotationResult)), failed: cause?.type ?? String(error) };
  }
}

/** What a result says of a key. */
export function fateOf({ keys = [] }: Pick<RotationResult, "keys">, keyId: string): string | undefined {
  return keys.find(({ id }) => id === keyId)?.fate;
}
