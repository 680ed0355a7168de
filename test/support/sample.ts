/** Parts of a whole that is too long for each run of the tests: another part each day. */

/** KEYTURN_FAULTS: `all`, or how many of each thing are tried; empty in `npm test`. */
export const wanted = process.env["KEYTURN_FAULTS"] ?? "";

/** Whether everything is tried, or some of it, chosen by the seed. */
export const everything = wanted === "all";

/** Another part of the whole each day; set KEYTURN_FAULTS_SEED to have one again. */
export const seed = Number(process.env["KEYTURN_FAULTS_SEED"] ?? Math.floor(Date.now() / 86_400_000));

/** So many of them, chosen by a seed, spread over the whole list so that each part of a rotation has its turn. */
export function someOf<Item>(items: Item[], count: number, seed: number): Item[] {
  const stride = items.length / Math.min(count, items.length);
  const random = mulberry(seed);
  return Array.from({ length: Math.min(count, items.length) }, (_, index) => {
    const at = Math.floor(index * stride + random() * stride);
    return items[Math.min(at, items.length - 1)] as Item;
  });
}

/** Mulberry32, in the public domain: small, and the same everywhere. */
export function mulberry(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
