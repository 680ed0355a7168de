/** Chance that can be repeated, and ids and key values that cannot. */
import { randomBytes } from "node:crypto";

/** A number in [0, 1). */
export type Chance = () => number;

/** Mulberry32: the same seed gives the same numbers. */
export function chance(seed: number): Chance {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export const hexId = (length = 32): string =>
  randomBytes(Math.ceil(length / 2))
    .toString("hex")
    .slice(0, length);

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/** Letters and digits only, so that it is one word everywhere. */
export function wordId(length: number): string {
  let word = "";
  for (const byte of randomBytes(length)) word += letters[byte % letters.length];
  return word;
}
