/** Whether a provider takes a key at a moment; close to its birth and its end that is a matter of luck. */
import type { Key } from "./keys.ts";
import type { Chance } from "./random.ts";

export interface Life {
  /** A new key may be refused for so long, in milliseconds of wall clock. */
  settleMs: number;
  /** Share of that time in which it is surely refused. */
  refusedFor: number;
  /** Share of the time from its end to its death in which it surely works. */
  worksFor: number;
}

/** Tells whether a call with the key would be accepted now. */
export function accepts(key: Key, now: number, chance: Chance, { settleMs, refusedFor, worksFor }: Life): boolean {
  if (key.expiresAt !== undefined && key.expiresAt <= now) return false;
  if (key.revivesAt !== undefined && now < key.revivesAt) return false;
  if (now < key.createdAt + settleMs) {
    return now >= key.createdAt + settleMs * refusedFor && chance() < 0.5;
  }
  const ended = key.revokedAt ?? key.disabledAt;
  if (ended === undefined || key.deadAt === undefined) return true;
  if (now >= key.deadAt) return false;
  return now < ended + (key.deadAt - ended) * worksFor || chance() < 0.5;
}

/** Takes back a key's end: at once where it still worked, else after `delayMs`. */
export function revive(key: Key, now: number, delayMs: number): void {
  const wasDead = key.deadAt !== undefined && key.deadAt <= now;
  key.revivesAt = wasDead ? now + delayMs : key.revivesAt;
  key.disabledAt = undefined;
  key.revokedAt = undefined;
  key.deadAt = undefined;
}
