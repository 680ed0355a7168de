import type { RotationKind } from "./rotation.ts";

/**
 * What the word "this key is compromised" does to a run of a slot, as a table: the first row that fits decides. The
 * handler only carries out what it says. docs/rotation.md shows the same rows.
 */

/** What is known when the word's turn comes. */
export interface EscalationFacts {
  kind: RotationKind;
  /** What the key is to this run: `held` is the one it replaces, `new` the one it made or was handed, `other` none of its. */
  key: "held" | "new" | "other";
  /** The key was called compromised before in this run. */
  told: boolean;
  /** The key is ended already. */
  ended: boolean;
  /** An abort came after the word, and before it was carried out. */
  calledOff: boolean;
  /** A write of the new key into the slot may have left. */
  installed: boolean;
  /** The revocation of the old key has begun: nothing is undone any more. */
  returnPassed: boolean;
  /** The run has stopped (failed, aborted, cancelled or done) and cleans up. */
  ending: boolean;
  /** Whether another slot holds the key. Looked at for `other` keys only. */
  heldElsewhere: "yes" | "no" | "unknown";
  /** No admin credential: only people can end keys. */
  byHand: boolean;
}

export type Does = "hurries" | "revokes-new" | "hands-over" | "moves-first" | "cuts" | "already";

/** By which deadline and policy a slot goes that was told of a compromised key. */
export interface FirstTold {
  /** RFC 3339, as `at`. */
  revokeBy: string;
  atDeadline: "revoke" | "hold";
  /** When that slot was told. */
  at?: string | undefined;
}

/** What the update `escalate` answers. */
export interface EscalationAnswer {
  does: Does;
  keyId: string;
  /** The revoke deadline, RFC 3339, where one runs. */
  by?: string;
  /** The deadline and policy by which this run goes, and since when it was told: the slot that was told first decides. */
  first?: FirstTold;
  says: string;
}

/** What a row's sentence is made of. */
export interface EscalationWords {
  keyId: string;
  slot: string;
  /** The revoke deadline, RFC 3339; undefined while the policy could not be read. */
  by: string | undefined;
  atDeadline: "revoke" | "hold";
  holders: string[];
  /** Who called it off, where somebody did. */
  calledOff?: string;
}

export interface EscalationRow {
  name: string;
  when(facts: EscalationFacts): boolean;
  does: Does;
  says(words: EscalationWords): string;
}

const atDeadline = ({ by, atDeadline: what }: EscalationWords): string => {
  const when = by === undefined ? "its revoke deadline" : by;
  return what === "revoke"
    ? `at ${when} at the latest`
    : `and past ${when} it stays alive without a new key (policy: hold)`;
};

export const escalationRows: readonly EscalationRow[] = [
  {
    name: "ended already",
    when: ({ ended }) => ended,
    does: "already",
    says: ({ keyId }) => `${keyId} is ended already`,
  },
  {
    name: "called off meanwhile",
    when: ({ calledOff }) => calledOff,
    does: "already",
    says: ({ keyId, calledOff = "an abort" }) =>
      `the emergency of ${keyId} was called off: ${calledOff}; start keyturn emergency again if it is compromised`,
  },
  {
    name: "told already",
    when: ({ told }) => told,
    does: "already",
    says: (words) => `${words.keyId} was called compromised before: it is cut ${atDeadline(words)}`,
  },
  {
    name: "held key, the run has stopped",
    when: ({ key, ending, kind }) => key === "held" && ending && kind === "normal",
    does: "cuts",
    says: (words) =>
      `the rotation of ${words.slot} has stopped and puts no new key in: it stays open until ${words.keyId} is cut, ${atDeadline(words)}; requests fail from then on if ${words.slot} still holds it`,
  },
  {
    name: "held key, by hand",
    when: ({ key, byHand, kind }) => key === "held" && byHand && kind === "normal",
    does: "hurries",
    says: ({ keyId, by }) =>
      `the rotation hurries; only a person can end ${keyId}: revoke it at the provider as soon as the new key serves${by === undefined ? "" : `, by ${by}`}`,
  },
  {
    name: "held key, its revocation has begun",
    when: ({ key, returnPassed, kind }) => key === "held" && returnPassed && kind === "normal",
    does: "hurries",
    says: (words) => `the new key serves and ${words.keyId} is being revoked: it is cut ${atDeadline(words)}`,
  },
  {
    name: "held key of a normal rotation",
    when: ({ key, kind }) => key === "held" && kind === "normal",
    does: "hurries",
    says: (words) => `the rotation hurries: ${words.keyId} is cut as soon as the new key serves, ${atDeadline(words)}`,
  },
  {
    name: "held key, an emergency of another key runs",
    when: ({ key }) => key === "held",
    does: "hands-over",
    says: (words) =>
      `the emergency that runs is about another key: one of ${words.keyId} follows at once, which replaces and then cuts it, ${atDeadline(words)}`,
  },
  {
    name: "new key, installed",
    when: ({ key, installed }) => key === "new" && installed,
    does: "hands-over",
    says: (words) =>
      `an emergency of ${words.keyId} follows at once: it is replaced and then cut, ${atDeadline(words)}; the keys of this run go with it`,
  },
  {
    name: "new key, not installed, the run has stopped",
    when: ({ key, ending }) => key === "new" && ending,
    does: "revokes-new",
    says: ({ keyId }) => `${keyId} was never in the slot, and is revoked while the run ends`,
  },
  {
    name: "new key of a normal rotation, not installed",
    when: ({ key, kind }) => key === "new" && kind === "normal",
    does: "revokes-new",
    says: ({ keyId, slot }) =>
      `${keyId} was not installed yet: it is revoked, the rotation ends as aborted, and the old key goes on serving ${slot}`,
  },
  {
    name: "new key of an emergency, not installed",
    when: ({ key }) => key === "new",
    does: "revokes-new",
    says: ({ keyId }) => `${keyId} was not installed yet: it is revoked, and the emergency goes on with another one`,
  },
  {
    name: "another key, held by another slot",
    when: ({ heldElsewhere }) => heldElsewhere === "yes",
    does: "moves-first",
    says: (words) =>
      `${words.keyId} is not a key of this run, and ${words.holders.join(", ")} holds it: moved off it first, then it is cut, ${atDeadline(words)}; this run goes on`,
  },
  {
    name: "another key, by hand",
    when: ({ byHand }) => byHand,
    does: "cuts",
    says: ({ keyId }) =>
      `${keyId} is not a key of this run, and only a person can end it: revoke it at the provider now`,
  },
  {
    name: "another key, its holders cannot be told",
    when: ({ heldElsewhere }) => heldElsewhere === "unknown",
    does: "cuts",
    says: (words) =>
      `${words.keyId} is not a key of this run, and whether a slot holds it cannot be told yet: it is cut when none does, ${atDeadline(words)}; this run goes on`,
  },
  {
    name: "another key, held by no slot",
    when: () => true,
    does: "cuts",
    says: ({ keyId }) => `${keyId} is not a key of this run and no slot holds it: it is cut now; this run goes on`,
  },
];

/** The row that fits. There always is one: the last fits everything. */
export function decideEscalation(facts: EscalationFacts): EscalationRow {
  const row = escalationRows.find(({ when }) => when(facts));
  if (row === undefined) throw new RangeError("no row of the escalation table fits");
  return row;
}
