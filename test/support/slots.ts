import type { Compromised, Inspection } from "../../src/activities/contract.ts";
import type { RotationActivities } from "../../src/activities/index.ts";
import { runsOf } from "../../src/temporal/runs.ts";
import { play, type Played, type Skipping, slot } from "./time-skipping.ts";

/** Another slot of the same project. */
export const otherSlot = "production/openai:batch";

/** What goes otherwise than it would. */
export type World = { [Name in keyof RotationActivities]?: RotationActivities[Name] } & {
  inspection?: Partial<Inspection>;
};

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
  changes: (right: Right, slots: Slots) => World = () => ({}),
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
  const right: Right = {
    inspectSlot: async (order) => {
      const keyId = slots.holds[order.slot] ?? "none";
      return {
        ...(await good.inspectSlot(order)),
        held: { id: keyId, how: "mark" },
        sharedWith: holdersOf(keyId).filter((name) => name !== order.slot),
        ...changed.inspection,
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
  const changed = changes(right, slots);
  slots.played = play(now, { ...right, ...changed });
  return slots;
}

/** The activities that know of slots and keys. */
export type Right = Pick<
  RotationActivities,
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
  | "updateRun"
>;
