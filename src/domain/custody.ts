/**
 * The ledger of keys a run answers for. A key is taken as soon as it can exist, and settled with its fate; whatever is
 * still open when the run ends is looked up, ended by the rules of its role, or named. Pure: workflows keep one, carry it
 * through continue-as-new, and derive `keys` and `leftOver` of the result from it.
 */

/** What a key is to the run. `compromised` wins over `handed-in`, that over the rest; among the rest the first stays. */
export const keyRoles = ["old", "new", "handed-in", "compromised", "earlier"] as const;
export type KeyRole = (typeof keyRoles)[number];

/** Where a key is now. Times are RFC 3339. */
export type Fate =
  /** A slot serves it. */
  | { fate: "held"; by: string }
  /** Its provider took the end of it; `seen` says whether it was also seen not to work, or to be gone. */
  | { fate: "ended"; at: string; seen: boolean }
  /** It stays, or may stay, alive: why, and what to do, in one sentence. */
  | { fate: "named"; why: string };

/** One key of the ledger, as it is carried from run to run. */
export interface CustodyEntry {
  id: string;
  role: KeyRole;
  /** Whether clients may have been given it: then it leaves by idleness or by name, never by a clean-up. */
  given: boolean;
  /** Left out while it is open. */
  fate?: Fate;
}

/** One key of `keys` in progress and result. */
export interface KeyEntry {
  id: string;
  role: KeyRole;
  fate: "open" | "held" | "ended" | "named";
  at?: string;
  seen?: boolean;
  why?: string;
}

/** What a continue-as-new carries. */
export interface CarriedCustody {
  entries: CustodyEntry[];
  /** Ordinals of keys that may have been made under a name of ours. */
  ordinals: number[];
  issued: number;
}

const rank: Record<KeyRole, number> = { compromised: 2, "handed-in": 1, old: 0, new: 0, earlier: 0 };

export class Custody {
  readonly #entries = new Map<string, CustodyEntry>();
  readonly #ordinals = new Set<number>();
  #issued = 0;

  constructor(carried?: CarriedCustody) {
    for (const entry of carried?.entries ?? []) this.#entries.set(entry.id, { ...entry });
    for (const ordinal of carried?.ordinals ?? []) this.#ordinals.add(ordinal);
    this.#issued = carried?.issued ?? 0;
  }

  /** Takes the key, or strengthens its role. Repeating changes nothing. A key that was given stays given. */
  take(id: string, role: KeyRole, { given = false }: { given?: boolean } = {}): void {
    const known = this.#entries.get(id);
    if (known === undefined) {
      this.#entries.set(id, { id, role, given });
      return;
    }
    if (rank[role] > rank[known.role]) known.role = role;
    known.given ||= given;
  }

  /** The ordinal of the next key that will be made: from now on a key under that name may exist. */
  expect(): number {
    this.#issued += 1;
    this.#ordinals.add(this.#issued);
    return this.#issued;
  }

  /** Every key that may exist under these ordinals is in the ledger by its id, or does not exist. */
  accountFor(ordinals: readonly number[]): void {
    for (const ordinal of ordinals) this.#ordinals.delete(ordinal);
  }

  /** Ordinals under which keys may exist that the ledger does not know by id. */
  get ordinals(): number[] {
    return [...this.#ordinals];
  }

  /** Clients may have been given the key from now on. */
  give(id: string): void {
    const entry = this.#entries.get(id);
    if (entry !== undefined) entry.given = true;
  }

  /** Takes back that clients may have been given it: the write is known never to have left. */
  neverGiven(id: string): void {
    const entry = this.#entries.get(id);
    if (entry !== undefined) entry.given = false;
  }

  /**
   * Says where the key is. An end stays an end: only the news that it was seen is added. Anything else is replaced by
   * what is known later. A key that was never taken is nobody's to settle: ignored.
   */
  settle(id: string, fate: Fate): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (entry.fate?.fate === "ended") {
      if (fate.fate === "ended" && fate.seen) entry.fate = { ...entry.fate, seen: true };
      return;
    }
    entry.fate = fate;
  }

  /** Forgets where the key is, unless it was ended: it has to be looked at again. */
  reopen(id: string): void {
    const entry = this.#entries.get(id);
    if (entry?.fate !== undefined && entry.fate.fate !== "ended") delete entry.fate;
  }

  /** Forgets a key that turned out not to exist: nobody knows it, so there is nothing to answer for. */
  drop(id: string): void {
    this.#entries.delete(id);
  }

  has(id: string): boolean {
    return this.#entries.has(id);
  }

  find(id: string): CustodyEntry | undefined {
    const entry = this.#entries.get(id);
    return entry === undefined ? undefined : { ...entry };
  }

  isEnded(id: string): boolean {
    return this.#entries.get(id)?.fate?.fate === "ended";
  }

  /** The keys whose fate is not known, in the order in which they were taken. */
  open(): CustodyEntry[] {
    return this.all().filter(({ fate }) => fate === undefined);
  }

  all(): CustodyEntry[] {
    return [...this.#entries.values()].map((entry) => ({ ...entry }));
  }

  /** `keys` of progress and result. */
  keys(): KeyEntry[] {
    return this.all().map(({ id, role, fate }) => ({
      id,
      role,
      ...(fate === undefined ? { fate: "open" } : shown(fate)),
    }));
  }

  /** Live keys that stay behind, and why: those that are named. */
  leftOver(): { id: string; why: string }[] {
    return this.all().flatMap(({ id, fate }) => (fate?.fate === "named" ? [{ id, why: fate.why }] : []));
  }

  /** What was looked up once is looked up again by the run that goes on: a request may land late. */
  carry(): CarriedCustody {
    const ordinals = Array.from({ length: this.#issued }, (_, index) => index + 1);
    return { entries: this.all(), ordinals, issued: this.#issued };
  }
}

function shown(fate: Fate): Omit<KeyEntry, "id" | "role"> {
  switch (fate.fate) {
    case "held":
      return { fate: "held", why: `${fate.by} holds it` };
    case "ended":
      return { fate: "ended", at: fate.at, seen: fate.seen };
    case "named":
      return { fate: "named", why: fate.why };
  }
}
