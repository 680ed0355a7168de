import fc from "fast-check";

import type { Policy } from "../../src/domain/policy.ts";

/**
 * A story as data: how the world begins, what starts, what goes wrong, and what people do meanwhile. Drawn by fast-check, so
 * that it can be drawn again from its seed and shrunk.
 */

export const faultKinds = [
  "unavailable",
  "limited",
  "refused",
  "killed-before",
  "killed-after",
  "lost-answer",
  "late",
  "twice",
  "slow",
  "missing-rows",
  "stale",
] as const;

export interface Fault {
  activity: string;
  /** The first execution of the activity in the story that it meets, and how many it meets. */
  nth: number;
  calls: number;
  /** How many attempts of each it meets. */
  attempts: number;
  kind: (typeof faultKinds)[number];
  ms: number;
}

export type KeyRef = "held" | "new" | "of-batch" | "of-staging" | "stray" | "former" | "nobody";

export type Anchor = { at: number } | { activity: string; nth: number; edge: "scheduled" | "resolved"; plus: number };

export type Deed =
  | { do: "abort" | "cancel"; slot: SlotRef }
  | {
      do: "compromise";
      key: KeyRef;
      how: "escalate" | "signal" | "start" | "beside";
      slot: SlotRef;
      strategy: Strategy;
    }
  | { do: "approve"; wait: "right" | "old" | "none"; by: "update" | "signal" }
  | { do: "hand-in"; key: "good" | "garbage" | "held" | "dead" | "not-yet" | "foreign"; by: "update" | "signal" }
  | { do: "edit"; slot: SlotRef }
  | { do: "switch-off"; key: KeyRef; forGood: boolean }
  | { do: "rotate" | "emergency"; slot: SlotRef; strategy: Strategy }
  | { do: "kill"; ms: number };

export type SlotRef = "main" | "batch" | "staging";
export type Strategy = "swap-first" | "cut-first";
export type Flavour = "issue" | "issue-disable" | "hand-in" | "by-hand";

export interface Story {
  seed: number;
  flavour: Flavour;
  /** Which of the other slots serve the same key. */
  sharing: "none" | "batch" | "staging" | "both";
  start: {
    kind: "normal" | "emergency";
    keys: KeyRef[];
    strategy: Strategy | "policy";
    /** Started under an id of its own, so that it follows the slot's run. */
    follower: boolean;
    leaked: "no" | "for-slot" | "alone";
    onlyIfDue: boolean;
  };
  former: boolean;
  due: boolean;
  staged: boolean;
  canPurge: boolean;
  settlesMs: number;
  badKeys: number[];
  gatewayRefusesReal: number;
  soakErrors: number;
  unseenEnds: boolean;
  idle: {
    clientsLingerMs: number;
    unknown: boolean;
    newKeyNeverReported: boolean;
    clientsBefore: "yes" | "no" | "unknown";
    unknownSurfaces: boolean;
  };
  edits: { unreadable: boolean };
  people: { actAfterMs: number; handsIn: boolean; approves: boolean; revokes: boolean };
  taskLatencyMs: number;
  faults: Fault[];
  deeds: { when: Anchor; what: Deed }[];
  /** By the slot's name; made of `policies` when the story is played. */
  slots: Record<string, { policy: Policy }>;
  policies: Record<SlotRef, PolicyChoice>;
}

export interface PolicyChoice {
  atDeadline: "revoke" | "hold";
  approval: Policy["approval"];
  ceiling: "2h" | "24h";
  ifUnknown: "revoke" | "ask";
  ifUsed: "revoke" | "ask";
  personDeadline: "1d" | "7d";
}

const minute = 60_000;
const hour = 60 * minute;

const plainChoice: PolicyChoice = {
  atDeadline: "revoke",
  approval: "never",
  ceiling: "24h",
  ifUnknown: "revoke",
  ifUsed: "ask",
  personDeadline: "7d",
};

/** A rotation in which all goes well: each part at its plainest, to which a story that fails is shrunk. */
export const plainStory: Story = {
  seed: 1,
  flavour: "issue",
  sharing: "none",
  start: { kind: "normal", keys: [], strategy: "policy", follower: false, leaked: "no", onlyIfDue: false },
  former: false,
  due: true,
  staged: true,
  canPurge: false,
  settlesMs: 0,
  badKeys: [],
  gatewayRefusesReal: 0,
  soakErrors: 0,
  unseenEnds: false,
  idle: {
    clientsLingerMs: 0,
    unknown: false,
    newKeyNeverReported: false,
    clientsBefore: "yes",
    unknownSurfaces: false,
  },
  edits: { unreadable: false },
  people: { actAfterMs: minute, handsIn: true, approves: true, revokes: true },
  taskLatencyMs: 5,
  faults: [],
  deeds: [],
  slots: {},
  policies: { main: plainChoice, batch: plainChoice, staging: plainChoice },
};

const reads = [
  "readPolicy",
  "inspectSlot",
  "acceptKey",
  "verifyAtProvider",
  "seePrevAnswer",
  "verifyThroughGateway",
  "checkSaved",
  "awaitPropagation",
  "confirmRevoked",
  "checkIdle",
  "lookBeforeRevoking",
  "lookAtHolders",
  "findCompromised",
  "lookForErrors",
  "gatherEvidence",
  "planEmergency",
  "updateRun",
];
const writes = [
  "issueKey",
  "stageAliases",
  "installKey",
  "restoreOldValue",
  "revokeKey",
  "endCompromisedKey",
  "cutKey",
  "disableKey",
  "enableKey",
  "settleKeys",
  "removeAliases",
];
const listing = [
  "inspectSlot",
  "lookAtHolders",
  "findCompromised",
  "settleKeys",
  "issueKey",
  "revokeKey",
  "disableKey",
];
const marked = [
  "revokeKey",
  "disableKey",
  "verifyThroughGateway",
  "checkSaved",
  "restoreOldValue",
  "lookBeforeRevoking",
];

/** Each fault that means something for the activity. */
export const faultsOf: [activity: string, kind: Fault["kind"]][] = [
  ...[...reads, ...writes].flatMap((activity) =>
    (["unavailable", "refused", "killed-before", "slow"] as const).map((kind): [string, Fault["kind"]] => [
      activity,
      kind,
    ]),
  ),
  ...["issueKey", "installKey", "verifyThroughGateway", "gatherEvidence", "cutKey", "revokeKey", "lookAtHolders"].map(
    (activity): [string, Fault["kind"]] => [activity, "limited"],
  ),
  ...writes.flatMap((activity) =>
    (["lost-answer", "killed-after", "late", "twice"] as const).map((kind): [string, Fault["kind"]] => [
      activity,
      kind,
    ]),
  ),
  ...listing.map((activity): [string, Fault["kind"]] => [activity, "missing-rows"]),
  ...marked.map((activity): [string, Fault["kind"]] => [activity, "stale"]),
];

/**
 * How often faults of an activity are drawn: the seldomer one is met, since the run gets there in few stories, the oftener,
 * so that each is met about as often. Measured; 4 where it is left out.
 */
const weights: Record<string, number> = {
  restoreOldValue: 8,
  revokeKey: 8,
  enableKey: 7,
  lookBeforeRevoking: 7,
  lookForErrors: 7,
  checkSaved: 6,
  confirmRevoked: 6,
  disableKey: 6,
  endCompromisedKey: 6,
  awaitPropagation: 5,
  cutKey: 5,
  issueKey: 5,
  acceptKey: 3,
  removeAliases: 3,
  updateRun: 3,
};

/** A run calls them once, if at all. */
const calledOnce = new Set(["restoreOldValue", "enableKey", "disableKey", "lookBeforeRevoking", "planEmergency"]);

const fault: fc.Arbitrary<Fault> = fc
  .record({
    which: fc.oneof(...faultsOf.map((pair) => ({ weight: weights[pair[0]] ?? 4, arbitrary: fc.constant(pair) }))),
    nth: fc.oneof({ weight: 6, arbitrary: fc.constant(1) }, { weight: 2, arbitrary: fc.integer({ min: 2, max: 4 }) }),
    calls: fc.oneof({ weight: 6, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.constantFrom(2, 5, 12) }),
    attempts: fc.oneof(
      { weight: 5, arbitrary: fc.integer({ min: 1, max: 3 }) },
      { weight: 2, arbitrary: fc.constantFrom(8, 30, 95) },
    ),
    ms: fc.integer({ min: 0, max: 120_000 }),
  })
  .map(({ which: [activity, kind], nth, ...rest }) => ({
    activity,
    kind,
    nth: calledOnce.has(activity) ? 1 : nth,
    ...rest,
  }));

const steps = [
  "readPolicy",
  "inspectSlot",
  "findCompromised",
  "issueKey",
  "verifyAtProvider",
  "stageAliases",
  "verifyThroughGateway",
  "installKey",
  "awaitPropagation",
  "checkIdle",
  "disableKey",
  "lookForErrors",
  "revokeKey",
  "cutKey",
  "endCompromisedKey",
  "confirmRevoked",
  "gatherEvidence",
  "settleKeys",
  "removeAliases",
  "acceptKey",
  "lookAtHolders",
];

const offset = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 400 }) },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 20_000 }) },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 15 * minute }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 3 * hour }) },
);

const anchor: fc.Arbitrary<Anchor> = fc.oneof(
  { weight: 2, arbitrary: offset.map((at) => ({ at })) },
  {
    weight: 5,
    arbitrary: fc.record({
      activity: fc.constantFrom(...steps),
      nth: fc.oneof({ weight: 5, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.integer({ min: 2, max: 4 }) }),
      edge: fc.constantFrom("scheduled" as const, "resolved" as const),
      plus: offset,
    }),
  },
);

const strategy = fc.constantFrom<Strategy>("swap-first", "cut-first");
const slotRef = fc.oneof(
  { weight: 3, arbitrary: fc.constant<SlotRef>("main") },
  { weight: 1, arbitrary: fc.constantFrom<SlotRef>("batch", "staging") },
);
const otherSlot = fc.constantFrom<SlotRef>("batch", "staging");
const keyRef = fc.oneof(
  { weight: 5, arbitrary: fc.constant<KeyRef>("held") },
  { weight: 5, arbitrary: fc.constant<KeyRef>("new") },
  { weight: 4, arbitrary: fc.constantFrom<KeyRef>("of-batch", "of-staging", "stray", "former") },
  { weight: 1, arbitrary: fc.constant<KeyRef>("nobody") },
);

const compromise: fc.Arbitrary<Deed> = fc.record({
  do: fc.constant("compromise" as const),
  key: keyRef,
  how: fc.oneof(
    { weight: 4, arbitrary: fc.constant("escalate" as const) },
    { weight: 2, arbitrary: fc.constantFrom("signal" as const, "start" as const, "beside" as const) },
  ),
  slot: fc.oneof({ weight: 5, arbitrary: fc.constant<SlotRef>("main") }, { weight: 1, arbitrary: otherSlot }),
  strategy,
});

const deed: fc.Arbitrary<Deed> = fc.oneof(
  { weight: 6, arbitrary: compromise },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("abort" as const), slot: slotRef }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("cancel" as const), slot: slotRef }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("approve" as const),
      wait: fc.constantFrom("right" as const, "old" as const, "none" as const),
      by: fc.constantFrom("update" as const, "signal" as const),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("hand-in" as const),
      key: fc.constantFrom(
        "good" as const,
        "garbage" as const,
        "held" as const,
        "dead" as const,
        "not-yet" as const,
        "foreign" as const,
      ),
      by: fc.constantFrom("update" as const, "signal" as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("edit" as const), slot: slotRef }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("switch-off" as const),
      key: fc.oneof(
        { weight: 1, arbitrary: keyRef },
        { weight: 2, arbitrary: fc.constantFrom<KeyRef>("new", "former") },
      ),
      forGood: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom("rotate" as const, "emergency" as const), slot: slotRef, strategy }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("kill" as const), ms: fc.integer({ min: 1_000, max: 2 * hour }) }),
  },
);

const told = (key: KeyRef): Extract<Deed, { do: "compromise" }> => ({
  do: "compromise",
  key,
  how: "escalate",
  slot: "main",
  strategy: "swap-first",
});
const soon = fc.integer({ min: 0, max: 400 });
const at = (activity: string, plus: number, nth = 1): Anchor => ({ activity, nth, edge: "scheduled", plus });
const once = (activity: string, kind: Fault["kind"], changes: Partial<Fault> = {}): Fault => ({
  activity,
  kind,
  nth: 1,
  calls: 1,
  attempts: 1,
  ms: 0,
  ...changes,
});
const abort: Deed = { do: "abort", slot: "main" };
const stop = fc.constantFrom(abort, { ...abort, do: "cancel" as const });

/** While a run cleans up that a person stopped before it had staged aliases, or after it. */
const stops = [
  { stopped: "verifyAtProvider", during: "settleKeys" },
  { stopped: "verifyThroughGateway", during: "settleKeys" },
  { stopped: "verifyThroughGateway", during: "removeAliases" },
];

/** Words that meet a run where it seldom stands, and what brings it there. */
const pointed: [weight: number, arbitrary: fc.Arbitrary<Partial<Story>>][] = [
  // The old key, where only a person can end it, or while it is being revoked.
  [
    3,
    fc
      .record({
        plus: soon,
        of: fc.constantFrom(
          { flavour: "by-hand" as const, during: "verifyAtProvider" },
          { flavour: "by-hand" as const, during: "checkIdle" },
          { flavour: "issue" as const, during: "revokeKey" },
          { flavour: "issue-disable" as const, during: "revokeKey" },
          { flavour: "hand-in" as const, during: "confirmRevoked" },
        ),
      })
      .map(({ plus, of: { flavour, during } }) => ({
        flavour,
        sharing: "none" as const,
        start: plainStory.start,
        badKeys: [],
        gatewayRefusesReal: 0,
        soakErrors: 0,
        deeds: [{ when: at(during, plus), what: told("held") }],
      })),
  ],
  [
    4,
    fc
      .record({ plus: soon, key: fc.constantFrom<KeyRef>("held", "new"), stop: fc.constantFrom(...stops) })
      .map(({ plus, key, stop: { stopped, during } }) => ({
        deeds: [
          { when: at(stopped, plus), what: abort },
          { when: at(during, plus), what: told(key) },
        ],
      })),
  ],
  [
    2,
    fc
      .record({
        plus: soon,
        key: fc.constantFrom<KeyRef>("of-batch", "of-staging", "stray"),
        during: fc.constantFrom(...steps),
      })
      .map(({ plus, key, during }) => ({ deeds: [{ when: at(during, plus), what: told(key) }] })),
  ],
  // The run stops while a key is looked at that was handed in.
  [
    1,
    fc
      .record({
        plus: fc.integer({ min: 0, max: 80_000 }),
        what: stop,
      })
      .map(({ plus, what }) => ({
        flavour: "hand-in" as const,
        faults: [once("acceptKey", "slow", { ms: 90_000 })],
        deeds: [{ when: at("acceptKey", plus), what }],
      })),
  ],
  // The run stops while its new key is refused, or while that key is settled before another one is made.
  [
    2,
    fc
      .record({
        plus: soon,
        during: fc.constantFrom("verifyAtProvider", "settleKeys"),
        what: stop,
      })
      .map(({ plus, during, what }) => ({
        flavour: "issue" as const,
        badKeys: [1],
        faults: [once(during, "slow", { ms: 10_000 })],
        deeds: [{ when: at(during, plus), what }],
      })),
  ],
  // The run stops while a step is under way, which then ends by itself, in whatever way.
  [
    2,
    fc
      .record({
        plus: fc.integer({ min: 0, max: 150 }),
        during: fc.constantFrom(...steps),
        kind: fc.constantFrom("refused" as const, "slow" as const, "unavailable" as const),
        what: stop,
      })
      .map(({ plus, during, kind, what }) => ({
        faults: [once(during, kind, { ms: 10_000 })],
        deeds: [{ when: at(during, plus), what }],
      })),
  ],
  // A run that hands over could not clean up for hours, and no other key can be made: only the clock cuts.
  [
    2,
    fc
      .record({
        plus: soon,
        flavour: fc.constantFrom<Flavour>("issue", "issue-disable"),
        during: fc.constantFrom("awaitPropagation", "checkIdle", "confirmRevoked"),
      })
      .map(({ plus, flavour, during }) => ({
        flavour,
        badKeys: [2, 3, 4, 5, 6],
        faults: [once("removeAliases", "unavailable", { attempts: 95 })],
        deeds: [{ when: at(during, plus), what: told("new") }],
      })),
  ],
  // The new key, before it is in the slot.
  [
    1,
    fc
      .record({ plus: soon, during: fc.constantFrom("verifyAtProvider", "stageAliases", "verifyThroughGateway") })
      .map(({ plus, during }) => ({ deeds: [{ when: at(during, plus), what: told("new") }] })),
  ],
  // A key of another slot, and no look tells who holds it.
  [
    2,
    fc
      .record({
        plus: soon,
        flavour: fc.constantFrom<Flavour>("by-hand", "issue", "hand-in"),
        kind: fc.constantFrom("missing-rows" as const, "unavailable" as const),
        during: fc.constantFrom("inspectSlot", "issueKey", "verifyAtProvider", "stageAliases", "checkIdle"),
      })
      .map(({ plus, flavour, kind, during }) => ({
        flavour,
        sharing: "none" as const,
        start: plainStory.start,
        faults: [once("findCompromised", kind, { attempts: 95 })],
        deeds: [{ when: at(during, plus), what: told("of-staging") }],
      })),
  ],
  // A person stops the emergency that was started in another slot which holds the key too.
  [
    1,
    fc.record({ plus: soon, during: fc.constantFrom("verifyAtProvider", "stageAliases") }).map(({ plus, during }) => ({
      flavour: "issue" as const,
      sharing: "batch" as const,
      start: { ...plainStory.start, kind: "emergency" as const, keys: ["held" as const] },
      badKeys: [],
      gatewayRefusesReal: 0,
      deeds: [{ when: at(during, plus, 2), what: { do: "abort" as const, slot: "batch" as const } }],
    })),
  ],
  // A person ends a key that was handed in, or one that an earlier run had named.
  [
    2,
    fc
      .record({
        plus: soon,
        of: fc.constantFrom(
          { key: "new" as const, changes: { flavour: "hand-in" as const } },
          { key: "former" as const, changes: { former: true } },
        ),
      })
      .map(({ plus, of: { key, changes } }) => ({
        ...changes,
        deeds: [
          {
            when: key === "new" ? at("verifyAtProvider", plus) : { at: plus },
            what: { do: "switch-off" as const, key, forGood: true },
          },
        ],
      })),
  ],
];

const policyChoice: fc.Arbitrary<PolicyChoice> = fc.record({
  atDeadline: fc.oneof(
    { weight: 4, arbitrary: fc.constant("revoke" as const) },
    { weight: 1, arbitrary: fc.constant("hold" as const) },
  ),
  approval: fc.oneof(
    { weight: 6, arbitrary: fc.constant("never" as const) },
    { weight: 1, arbitrary: fc.constantFrom("before-revoke" as const, "before-install" as const) },
  ),
  ceiling: fc.constantFrom("24h" as const, "2h" as const),
  ifUnknown: fc.constantFrom("revoke" as const, "ask" as const),
  ifUsed: fc.constantFrom("ask" as const, "revoke" as const),
  personDeadline: fc.constantFrom("1d" as const, "7d" as const),
});

/** True in one of so many. */
function seldom(times: number): fc.Arbitrary<boolean> {
  return fc.oneof({ weight: times - 1, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) });
}

export const story: fc.Arbitrary<Story> = fc
  .record({
    seed: fc.integer({ min: 1, max: 2 ** 30 }),
    flavour: fc.oneof(
      { weight: 4, arbitrary: fc.constant<Flavour>("issue") },
      { weight: 2, arbitrary: fc.constant<Flavour>("issue-disable") },
      { weight: 2, arbitrary: fc.constant<Flavour>("hand-in") },
      { weight: 1, arbitrary: fc.constant<Flavour>("by-hand") },
    ),
    sharing: fc.oneof(
      { weight: 3, arbitrary: fc.constant("none" as const) },
      { weight: 1, arbitrary: fc.constantFrom("batch" as const, "staging" as const, "both" as const) },
    ),
    start: fc.record({
      kind: fc.oneof(
        { weight: 5, arbitrary: fc.constant("normal" as const) },
        { weight: 3, arbitrary: fc.constant("emergency" as const) },
      ),
      keys: fc.oneof(
        { weight: 5, arbitrary: fc.constant<KeyRef[]>(["held"]) },
        { weight: 2, arbitrary: fc.constant<KeyRef[]>([]) },
        {
          weight: 3,
          arbitrary: fc.uniqueArray(fc.constantFrom<KeyRef>("held", "of-batch", "of-staging", "stray", "former"), {
            minLength: 1,
            maxLength: 3,
          }),
        },
        { weight: 1, arbitrary: fc.constant<KeyRef[]>(["nobody"]) },
      ),
      strategy: fc.constantFrom<Strategy | "policy">("policy", "swap-first", "cut-first"),
      follower: seldom(7),
      leaked: fc.oneof(
        { weight: 12, arbitrary: fc.constant("no" as const) },
        { weight: 1, arbitrary: fc.constantFrom("for-slot" as const, "alone" as const) },
      ),
      onlyIfDue: seldom(8),
    }),
    former: seldom(4),
    due: fc.boolean(),
    staged: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
    canPurge: seldom(6),
    settlesMs: fc.oneof(
      { weight: 4, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.integer({ min: 0, max: 20 * minute }) },
    ),
    badKeys: fc.oneof(
      { weight: 8, arbitrary: fc.constant<number[]>([]) },
      { weight: 1, arbitrary: fc.constantFrom<number[]>([1], [1, 2], [1, 2, 3]) },
    ),
    gatewayRefusesReal: fc.oneof(
      { weight: 8, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 4 }) },
    ),
    soakErrors: fc.oneof(
      { weight: 6, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 3 }) },
    ),
    unseenEnds: seldom(6),
    idle: fc.record({
      clientsLingerMs: fc.oneof(
        { weight: 5, arbitrary: fc.constant(0) },
        { weight: 2, arbitrary: fc.integer({ min: 0, max: 3 * hour }) },
        { weight: 1, arbitrary: fc.integer({ min: 20 * hour, max: 60 * hour }) },
      ),
      unknown: seldom(6),
      newKeyNeverReported: seldom(10),
      clientsBefore: fc.constantFrom("yes" as const, "no" as const, "unknown" as const),
      unknownSurfaces: seldom(6),
    }),
    edits: fc.record({ unreadable: seldom(3) }),
    people: fc.record({
      actAfterMs: fc.constantFrom(minute, 10 * minute, 2 * hour, 9 * hour),
      handsIn: fc.oneof({ weight: 9, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
      approves: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
      revokes: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
    }),
    taskLatencyMs: fc.constantFrom(5, 20, 400, 3_000),
    faults: fc.oneof(
      { weight: 2, arbitrary: fc.constant<Fault[]>([]) },
      { weight: 5, arbitrary: fc.array(fault, { minLength: 1, maxLength: 4 }) },
    ),
    deeds: fc.oneof(
      { weight: 1, arbitrary: fc.constant<Story["deeds"]>([]) },
      { weight: 4, arbitrary: fc.array(fc.record({ when: anchor, what: deed }), { minLength: 1, maxLength: 3 }) },
    ),
    policies: fc.record({ main: policyChoice, batch: policyChoice, staging: policyChoice }),
    point: fc.oneof(
      { weight: 5, arbitrary: fc.constant<Partial<Story>>({}) },
      { weight: 1, arbitrary: fc.oneof(...pointed.map(([weight, arbitrary]) => ({ weight, arbitrary }))) },
    ),
  })
  .map(({ point, ...drawn }) => ({ ...reachable({ ...drawn, slots: {} }), ...point }));

/** What each fault needs to be met at all is made so; where two need what cannot be together, the first wins. */
function reachable(drawn: Story): Story {
  return drawn.faults
    .toReversed()
    .reduce((made, fault) => ({ ...made, ...needs[fault.activity]?.(made, fault.kind) }), drawn);
}

type Needs = (drawn: Story, kind: Fault["kind"]) => Partial<Story>;

/** A normal rotation that gets as far as the old key's revocation. */
const toTheEnd: Needs = ({ start }) => ({
  start: { ...start, kind: "normal", onlyIfDue: false },
  sharing: "none",
  badKeys: [],
  gatewayRefusesReal: 0,
});
const toTheSoak: Needs = (drawn, kind) => ({
  ...toTheEnd(drawn, kind),
  flavour: canSwitchOff(drawn) ? drawn.flavour : "issue-disable",
});
const canSwitchOff = ({ flavour }: Story): boolean => flavour === "issue-disable" || flavour === "hand-in";
const anEmergency: Needs = ({ start }) => ({
  start: { ...start, kind: "emergency", keys: start.keys.includes("nobody") ? ["held"] : start.keys },
});
const notByHand: Needs = ({ flavour }) => ({ flavour: flavour === "by-hand" ? "issue" : flavour });
/** One more word about a key, as early as the run can hear of it. */
const meanwhile = ({ seed, deeds }: Story, what: Deed, within: number): Partial<Story> => ({
  deeds: [...deeds.slice(0, 1), { when: at("verifyAtProvider", seed % within), what }],
});

const needs: Record<string, Needs> = {
  restoreOldValue: (drawn, kind) => ({ ...toTheEnd(drawn, kind), gatewayRefusesReal: 4, staged: true }),
  checkSaved: ({ gatewayRefusesReal }) => ({ gatewayRefusesReal: Math.max(1, gatewayRefusesReal) }),
  stageAliases: () => ({ staged: true }),
  seePrevAnswer: () => ({ staged: true }),
  confirmRevoked: () => ({ staged: true, badKeys: [], gatewayRefusesReal: 0 }),
  acceptKey: ({ flavour }) => ({ flavour: flavour === "by-hand" ? flavour : "hand-in" }),
  checkIdle: toTheEnd,
  disableKey: toTheSoak,
  lookForErrors: toTheSoak,
  enableKey: (drawn, kind) => ({ ...toTheSoak(drawn, kind), soakErrors: Math.max(1, drawn.soakErrors) }),
  revokeKey: (drawn, kind) => ({ ...toTheEnd(drawn, kind), ...notByHand(drawn, kind), soakErrors: 0 }),
  lookBeforeRevoking: (drawn, kind) => ({ ...toTheEnd(drawn, kind), flavour: "by-hand" }),
  planEmergency: ({ start }) => ({ start: { ...start, kind: "emergency", keys: [], leaked: "no" } }),
  readPolicy: anEmergency,
  gatherEvidence: anEmergency,
  cutKey: (drawn, kind) => ({
    ...notByHand(drawn, kind),
    start: { ...drawn.start, ...anEmergency(drawn, kind).start, strategy: "cut-first" },
  }),
  endCompromisedKey: (drawn, kind) => ({
    ...notByHand(drawn, kind),
    start: { ...drawn.start, ...anEmergency(drawn, kind).start, strategy: "swap-first" },
  }),
  lookAtHolders: (drawn, kind) => ({
    ...anEmergency(drawn, kind),
    sharing: drawn.sharing === "none" ? "batch" : drawn.sharing,
  }),
  findCompromised: (drawn, kind) =>
    drawn.seed % 2 === 0
      ? anEmergency(drawn, kind)
      : meanwhile(drawn, told(drawn.seed % 4 === 1 ? "of-staging" : "stray"), 400),
  updateRun: (drawn) => meanwhile(drawn, { ...told(drawn.seed % 2 === 0 ? "held" : "new"), how: "beside" }, 20_000),
};
