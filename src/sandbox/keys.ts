/** Every provider key ever issued, with the moments of its life. Values never leave but by the control call for them. */
import type { Clock } from "./clock.ts";
import { rfc3339 } from "./clock.ts";

export type KeyState = "active" | "disabled" | "revoked" | "expired";

export interface Key {
  id: string;
  provider: string;
  name: string;
  value: string;
  createdAt: number;
  /** Undefined: never. */
  expiresAt: number | undefined;
  disabledAt: number | undefined;
  revokedAt: number | undefined;
  /** When it really stops working, known once it was revoked or disabled. */
  deadAt: number | undefined;
  /** When it works again, after its end was taken back. */
  revivesAt: number | undefined;
  /** By clients of the gateway. */
  lastUsedAt: number | undefined;
  /** By anybody, as the provider saw it. */
  uses: Use[];
  usesByEdge: Map<string, { at: number; count: number }>;
  /** What only the provider knows: project, owner, scopes. */
  detail: Record<string, unknown>;
}

/** Uses close together count as one, so the list stays short. */
interface Use {
  first: number;
  latest: number;
}

export interface Keys {
  add(key: Pick<Key, "id" | "provider" | "name" | "value" | "createdAt"> & Partial<Key>): Key;
  byId(id: string): Key | undefined;
  byValue(value: string): Key | undefined;
  all(): Key[];
  stateOf(key: Key): KeyState;
  /** Notes that the provider accepted a call with the key. */
  used(key: Key): void;
  /** The last use as the provider tells it, `lagMs` late. */
  lastUseSeen(key: Key, lagMs: number): number | undefined;
  describe(key: Key): Record<string, unknown>;
}

const sameUseWithinMs = 50;
const keptUses = 4_000;

export function createKeys(clock: Clock): Keys {
  const byId = new Map<string, Key>();
  const byValue = new Map<string, Key>();
  const stateOf = (key: Key): KeyState => {
    if (key.revokedAt !== undefined) return "revoked";
    if (key.expiresAt !== undefined && key.expiresAt <= clock.now()) return "expired";
    return key.disabledAt === undefined ? "active" : "disabled";
  };
  const time = (at: number | undefined): string | null => (at === undefined ? null : rfc3339(at));
  return {
    add(given) {
      const key: Key = {
        expiresAt: undefined,
        disabledAt: undefined,
        revokedAt: undefined,
        deadAt: undefined,
        revivesAt: undefined,
        lastUsedAt: undefined,
        uses: [],
        usesByEdge: new Map(),
        detail: {},
        ...given,
      };
      byId.set(key.id, key);
      byValue.set(key.value, key);
      return key;
    },
    byId: (id) => byId.get(id),
    byValue: (value) => byValue.get(value),
    all: () => [...byId.values()],
    stateOf,
    used(key) {
      const now = clock.now();
      const last = key.uses.at(-1);
      if (last !== undefined && now - last.first < sameUseWithinMs) {
        last.latest = now;
        return;
      }
      key.uses.push({ first: now, latest: now });
      if (key.uses.length > keptUses) key.uses.splice(0, keptUses / 2);
    },
    lastUseSeen(key, lagMs) {
      const horizon = clock.now() - lagMs;
      const use = key.uses.findLast(({ first }) => first <= horizon);
      return use === undefined ? undefined : Math.min(use.latest, horizon);
    },
    describe: (key) => ({
      id: key.id,
      provider: key.provider,
      name: key.name,
      state: stateOf(key),
      createdAt: rfc3339(key.createdAt),
      expiresAt: time(key.expiresAt),
      lastUsedAt: time(key.lastUsedAt),
      lastProviderUseAt: time(key.uses.at(-1)?.latest),
      disabledAt: time(key.disabledAt),
      revokedAt: time(key.revokedAt),
      deadAt: time(key.deadAt ?? (stateOf(key) === "expired" ? key.expiresAt : undefined)),
      ...key.detail,
    }),
  };
}
