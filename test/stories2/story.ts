import fc from "fast-check";

/**
 * One story: a run of a slot as its activities live it, and what goes wrong beside it. Plain data, so that it can be
 * printed, repeated and shrunk.
 */
export interface Story {
  provider: "openai" | "anthropic" | "gemini";
  kind: "normal" | "swap-first" | "cut-first" | "ghost";
  /** Before which step the run is stopped; past the last one it is not. */
  stopAt: number;
  /** Whether the slot's value is put back although it answers, or a second key is put in. */
  remedy: "none" | "another key" | "store again" | "restore";
  /** Whether a compromised key is ended although another slot may hold it, as at a deadline. */
  atDeadline: boolean;
  world: Setting;
  /** One for each step, in their order; a run with more steps begins again. */
  scenes: Scene[];
}

export interface Setting {
  listLagMs: number;
  /** Whether the gateway needs a provider config beside the secret. */
  configNeeded: boolean;
  /** Whether a new value refreshes its preview. */
  freshPreviews: boolean;
  /** A second slot of the same project: it has a key of its own, or shares the slot's. */
  neighbour: "none" | "own" | "shares" | "shares without config";
  /** OpenAI lists the slot's keys as inactive, though they work. */
  inactive: boolean;
  /** How many more secrets fit into the store. */
  room: "plenty" | "one" | "none";
  /** An earlier run of the slot left a key alive. */
  earlier: boolean;
  /** Clients go on with the old key after the new one is in, and how the provider tells it. */
  use: "none" | "told" | "null" | "absent" | "renamed";
}

/** What goes on around one step. */
export interface Scene {
  /** What happens to its attempts. */
  attempts: "plain" | "result lost" | "two at once" | "cancelled" | "given up";
  /** When the second attempt begins, or the cancellation comes. */
  afterMs: number;
  /** How an attempt comes to be given up on. */
  givenUp: GivenUp;
  faults: FaultSpec[];
  lies: LieSpec[];
  /** What people do before it. */
  deeds: Deed[];
}

/** An attempt that Temporal gives up on while a request of it is under way; that one lands after the next attempt began. */
export interface GivenUp {
  /** Which request that is: the first look or write, the second, and so on. An attempt without it is left alone. */
  during: "look" | "write";
  skip: number;
  delayMs: number;
  /** Whether it hears of it, as a cancellation. If not, its own clock tells it: its time was over. */
  hears: boolean;
  /** What people do while the next attempt waits for that request. */
  meanwhile: Deed[];
}

export interface FaultSpec {
  at: "cloudflare" | "provider";
  method: "GET" | "POST" | "PATCH" | "DELETE";
  mode: "lost-request" | "lost-answer" | "slow" | "slow-answer" | "late" | "status" | "malformed" | "half";
  delayMs: number;
  skip: number;
}

export interface LieSpec {
  about: "secrets" | "provider-configs" | "keys";
  mode: "missing" | "not-found" | "stale";
  /** Of whom: all rows, or those of one slot. */
  which: "all" | "slot" | "neighbour";
  agoMs: number;
  skip: number;
}

export type Deed =
  | "edits the value"
  | "edits value and comment"
  | "edits the comment"
  | "puts the old key into the neighbour"
  | "puts the new key into the neighbour"
  | "ends the new key"
  | "switches the old key off"
  | "makes keys of like names"
  | "fills the store";

/** The longest that one request of a story's worker lasts. What lands late lands before that. */
export const requestMs = 500;

const delayMs = fc.integer({ min: 30, max: requestMs - 120 });

const fault: fc.Arbitrary<FaultSpec> = fc.record({
  at: fc.constantFrom("cloudflare", "provider"),
  method: fc.constantFrom("GET", "POST", "PATCH", "DELETE"),
  mode: fc.constantFrom("lost-request", "lost-answer", "slow", "slow-answer", "late", "status", "malformed", "half"),
  delayMs,
  skip: fc.integer({ min: 0, max: 3 }),
});

const lie: fc.Arbitrary<LieSpec> = fc.record({
  about: fc.constantFrom("secrets", "provider-configs", "keys"),
  mode: fc.constantFrom("missing", "not-found", "stale"),
  which: fc.constantFrom("all", "slot", "neighbour"),
  agoMs: fc.constantFrom(150, 1_000, 5_000),
  skip: fc.integer({ min: 0, max: 3 }),
});

const deed: fc.Arbitrary<Deed> = fc.constantFrom(
  "edits the value",
  "edits value and comment",
  "edits the comment",
  "puts the old key into the neighbour",
  "puts the new key into the neighbour",
  "ends the new key",
  "switches the old key off",
  "makes keys of like names",
  "fills the store",
);

const givenUp: fc.Arbitrary<GivenUp> = fc.record({
  during: fc.oneof(
    { weight: 3, arbitrary: fc.constant("write" as const) },
    { weight: 1, arbitrary: fc.constant("look" as const) },
  ),
  skip: fc.constantFrom(0, 0, 0, 1, 2),
  delayMs,
  hears: fc.boolean(),
  meanwhile: fc.oneof(
    { weight: 2, arbitrary: fc.constant<Deed[]>([]) },
    { weight: 1, arbitrary: fc.array(deed, { minLength: 1, maxLength: 1 }) },
  ),
});

/** Mostly nothing, so that stories get far: the second thing that goes wrong is what breaks. */
const rarely = <Value>(some: fc.Arbitrary<Value>, quiet: number): fc.Arbitrary<Value[]> =>
  fc.oneof(
    { weight: quiet, arbitrary: fc.constant<Value[]>([]) },
    { weight: 2, arbitrary: fc.array(some, { minLength: 1, maxLength: 1 }) },
    { weight: 1, arbitrary: fc.array(some, { minLength: 2, maxLength: 2 }) },
  );

const scene: fc.Arbitrary<Scene> = fc.record({
  attempts: fc.oneof(
    { weight: 12, arbitrary: fc.constant("plain" as const) },
    { weight: 2, arbitrary: fc.constant("result lost" as const) },
    { weight: 2, arbitrary: fc.constant("two at once" as const) },
    { weight: 1, arbitrary: fc.constant("cancelled" as const) },
    { weight: 3, arbitrary: fc.constant("given up" as const) },
  ),
  afterMs: fc.integer({ min: 5, max: 250 }),
  givenUp,
  faults: rarely(fault, 8),
  lies: rarely(lie, 8),
  deeds: fc.oneof(
    { weight: 14, arbitrary: fc.constant<Deed[]>([]) },
    { weight: 1, arbitrary: fc.array(deed, { minLength: 1, maxLength: 1 }) },
  ),
});

export const stories: fc.Arbitrary<Story> = fc.record({
  provider: fc.oneof(
    { weight: 5, arbitrary: fc.constant("openai" as const) },
    { weight: 2, arbitrary: fc.constant("anthropic" as const) },
    { weight: 1, arbitrary: fc.constant("gemini" as const) },
  ),
  kind: fc.oneof(
    { weight: 6, arbitrary: fc.constant("normal" as const) },
    { weight: 3, arbitrary: fc.constant("swap-first" as const) },
    { weight: 2, arbitrary: fc.constant("cut-first" as const) },
    { weight: 1, arbitrary: fc.constant("ghost" as const) },
  ),
  stopAt: fc.oneof(
    { weight: 5, arbitrary: fc.constant(99) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 14 }) },
  ),
  remedy: fc.oneof(
    { weight: 4, arbitrary: fc.constant("none" as const) },
    { weight: 1, arbitrary: fc.constantFrom("another key" as const, "store again" as const, "restore" as const) },
  ),
  atDeadline: fc.boolean(),
  world: fc.record({
    listLagMs: fc.constantFrom(0, 0, 60),
    configNeeded: fc.boolean(),
    freshPreviews: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
    neighbour: fc.constantFrom("none", "own", "own", "shares", "shares without config"),
    inactive: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
    room: fc.oneof(
      { weight: 6, arbitrary: fc.constant("plenty" as const) },
      { weight: 1, arbitrary: fc.constantFrom("one" as const, "none" as const) },
    ),
    earlier: fc.boolean(),
    use: fc.oneof(
      { weight: 5, arbitrary: fc.constant("none" as const) },
      {
        weight: 2,
        arbitrary: fc.constantFrom("told" as const, "null" as const, "absent" as const, "renamed" as const),
      },
    ),
  }),
  scenes: fc.array(scene, { minLength: 16, maxLength: 16, size: "max" }),
});
