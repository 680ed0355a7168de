import type { WorkflowHandle } from "@temporalio/client";

import type { Inspection } from "../../src/activities/contract.ts";
import type { RotationActivities } from "../../src/activities/index.ts";
import type { Orphans } from "../../src/activities/orphans.ts";
import { documentedPolicy, failing, play, type Played, type Skipping, slot, startOptions } from "./time-skipping.ts";

/**
 * Every path a workflow can take, played on a server that skips time. Their histories are in test/histories, a file for
 * each path, and are replayed on each run of the tests: see scripts/record-histories.ts.
 */
export interface Path {
  /** Also the name of its file. */
  name: string;
  /** The outside world it meets. */
  world?: (now: () => Promise<number>, skipping: Skipping) => World;
  /** Takes the path and returns the run whose history tells it. */
  take(stage: Stage): Promise<Taken>;
}

type World = { [Name in keyof RotationActivities]?: RotationActivities[Name] } & { inspection?: Partial<Inspection> };
export type Taken = Pick<WorkflowHandle, "workflowId"> & { runId?: string };

export interface Stage {
  skipping: Skipping;
  played: Played;
  /** Starts a workflow under the slot's own id, or another. */
  start(workflowType: string, input?: object, workflowId?: string): Promise<WorkflowHandle>;
  /** Lets so many minutes pass. */
  pass(minutes: number): Promise<void>;
}

/** Takes a path with a worker of its own. */
export async function takePath(skipping: Skipping, { world = () => ({}), take }: Path): Promise<Taken> {
  const now = (): Promise<number> => skipping.env.currentTimeMs();
  const played = play(now, world(now, skipping));
  return skipping.withWorker(played, async () =>
    take({
      skipping,
      played,
      start: (workflowType, input = {}, workflowId = startOptions.workflowId) =>
        skipping.client.workflow.start(workflowType, { ...startOptions, workflowId, args: [{ slot, ...input }] }),
      pass: (minutes) => skipping.env.sleep(minutes * 60_000),
    }),
  );
}

const hour = 60;
const day = 24 * hour;

/** A run that is left to itself. */
const run =
  (workflowType: string, input: object = {}): Path["take"] =>
  async ({ start }) =>
    ended(await start(workflowType, input));

/** A run that somebody does something to after so many minutes. */
const runAnd =
  (
    minutes: number,
    act: (handle: WorkflowHandle) => Promise<unknown>,
    workflowType = "normalRotation",
    input: object = {},
  ): Path["take"] =>
  async ({ start, pass }) => {
    const handle = await start(workflowType, input);
    await pass(minutes);
    await act(handle);
    return ended(handle);
  };

/** Waits for the end, whichever it is; the first run is the one whose history tells the path. */
async function ended(handle: WorkflowHandle & { firstExecutionRunId?: string }): Promise<Taken> {
  await handle.result().catch(() => undefined);
  return {
    workflowId: handle.workflowId,
    ...(handle.firstExecutionRunId === undefined ? {} : { runId: handle.firstExecutionRunId }),
  };
}

const rotation = run("normalRotation");
const emergency = run("emergencyRotation");
const approve = (handle: WorkflowHandle): Promise<void> => handle.signal("approveSignal", { by: "ada", why: "seen" });
const abort = (handle: WorkflowHandle): Promise<void> => handle.signal("abortSignal", { by: "ada", why: "wrong day" });

const fails = (type: string, options?: { retried?: boolean }) => (): Promise<never> =>
  Promise.reject(failing(type, options));

/** Fails so many times, then does as it should. */
function failingFirst<Result>(times: number, type: string, right: () => Promise<Result>): () => Promise<Result> {
  let failures = 0;
  return async () => {
    if (failures++ < times) throw failing(type);
    return right();
  };
}

const withPolicy = (changes: Parameters<typeof documentedPolicy>[0]): World => ({
  inspection: { policy: documentedPolicy(changes) },
});
const ceiling = (kind: "used" | "too early"): World => ({
  checkIdle: () =>
    Promise.resolve({
      kind,
      note: kind,
      newKeyRequests: 9,
      ...(kind === "used" ? { lastUsed: "2026-01-01T00:00:00.000Z" } : {}),
    }),
});
const noNewKeys: World = { issueKey: fails("KeyLimitReached") };
const slotFails: World = {
  verifyThroughGateway: ({ alias, goodAnswers }) =>
    alias === "real" ? fails("KeyRejected")() : Promise.resolve({ probes: goodAnswers, warnings: [] }),
};
const passOn = (skipping: Skipping): World => ({
  updateRun: ({ workflowId, update, arg }) =>
    skipping.client.workflow.getHandle(workflowId).executeUpdate<string, [unknown]>(update, { args: [arg] }),
});

/** What a slot looks like whose provider has no admin credential. */
const byHand: Partial<Inspection> = {
  canIssue: false,
  byHand: {
    missing: "OPENAI_ADMIN_KEY is not set",
    oldKey: "ends-in-9AbC",
    where: "the console",
    unknown: ["clients' use of the new key"],
  },
};

/** Somebody hands a key in after two hours, and says two days later that the old one is revoked. */
async function byPerson({ pass }: Stage, handle: WorkflowHandle): Promise<Taken> {
  await pass(2 * hour);
  await handle.signal("submitKeySignal", { sealed: "sealed" });
  await pass(2 * day);
  await approve(handle);
  return ended(handle);
}

/** A rotation that an emergency by hand joins while caches drop the old key. */
const joinedBy =
  (compromisedKeyId: string, told: "rotation" | "emergency" = "rotation"): Path["take"] =>
  async ({ start, pass }) => {
    const running = await start("normalRotation");
    await pass(3);
    const joining = await start("emergencyRotation", { compromisedKeyId }, "emergency-by-hand");
    const joined = await ended(joining);
    const rotated = await ended(running);
    return told === "rotation" ? rotated : joined;
  };

const orphans: Orphans = {
  installation: "acme",
  orphans: [
    { kind: "key", id: "key_a", name: "kt.acme.a", slot, why: "no slot holds it" },
    { kind: "key", id: "key_b", name: "kt.acme.b", slot, why: "no slot holds it" },
    { kind: "alias", id: "kt-0badcafe-new", name: "gw", slot, why: "its rotation has ended" },
  ],
  spared: [],
  blocked: [],
  unknown: [],
};

const normal: Path[] = [
  { name: "rotated", take: rotation },
  {
    name: "kept",
    world: () => ({ inspection: { due: { due: false, reason: "the key is 3d old" } } }),
    take: run("normalRotation", { onlyIfDue: true }),
  },
  {
    name: "rotated-after-a-refused-key",
    world: () => ({
      verifyAtProvider: failingFirst(1, "KeyRejected", () => Promise.resolve({ probes: 0, warnings: ["odd"] })),
    }),
    take: rotation,
  },
  {
    name: "rotated-after-a-lost-seal",
    world: (now) => ({
      installKey: failingFirst(1, "SealUnreadable", async () => ({ at: new Date(await now()).toISOString() })),
    }),
    take: rotation,
  },
  {
    name: "value-stored-again",
    world: () => {
      let probes = 0;
      return {
        verifyThroughGateway: ({ alias, goodAnswers }) =>
          alias === "real" && ++probes === 1
            ? fails("KeyRejected")()
            : Promise.resolve({ probes: goodAnswers, warnings: [] }),
      };
    },
    take: rotation,
  },
  {
    name: "another-key-installed",
    world: () => {
      let probes = 0;
      return {
        verifyThroughGateway: ({ alias, goodAnswers }) =>
          alias === "real" && ++probes <= 2
            ? fails("KeyRejected")()
            : Promise.resolve({ probes: goodAnswers, warnings: [] }),
      };
    },
    take: rotation,
  },
  { name: "old-value-put-back", world: () => slotFails, take: rotation },
  {
    name: "prev-never-answered",
    world: () => ({ seePrevAnswer: () => Promise.resolve({ answered: false, note: "prev did not answer" }) }),
    take: rotation,
  },
  {
    name: "death-not-seen",
    world: () => ({ confirmRevoked: () => Promise.resolve({ note: "not seen dead" }) }),
    take: rotation,
  },
  { name: "ceiling-unknown-revoked", world: () => ceiling("too early"), take: rotation },
  { name: "ceiling-used-approved", world: () => ceiling("used"), take: runAnd(26 * hour, approve) },
  { name: "ceiling-used-nobody-approved", world: () => ceiling("used"), take: rotation },
  { name: "use-approved-before-the-ceiling", world: () => ceiling("used"), take: runAnd(30, approve) },
  {
    name: "approval-before-install",
    world: () => withPolicy({ approval: "before-install" }),
    take: runAnd(2 * hour, approve),
  },
  {
    name: "approval-before-revoke",
    world: () => withPolicy({ approval: "before-revoke" }),
    take: runAnd(5 * hour, approve),
  },
  {
    name: "approval-by-update",
    world: () => withPolicy({ approval: "before-revoke" }),
    take: runAnd(5 * hour, (handle) => handle.executeUpdate("approve", { args: [{ by: "ada" }] })),
  },
  { name: "aborted-before-install", world: () => withPolicy({ approval: "before-install" }), take: runAnd(5, abort) },
  { name: "aborted-after-install", take: runAnd(5, abort) },
  { name: "cancelled", take: runAnd(5, (handle) => handle.cancel()) },
  { name: "failed-at-inspect", world: () => ({ inspectSlot: fails("SlotMissing") }), take: rotation },
  { name: "failed-at-issue", world: () => noNewKeys, take: rotation },
  { name: "failed-at-stage", world: () => ({ stageAliases: fails("KeyLimitReached") }), take: rotation },
  { name: "failed-at-revoke-slot-changed", world: () => ({ revokeKey: fails("SlotChanged") }), take: rotation },
  {
    name: "failed-and-cleaning-up-failed",
    world: () => ({ stageAliases: fails("RequestInvalid"), releaseSlot: fails("AdminCredentialRejected") }),
    take: rotation,
  },
  {
    name: "revoking-failed-then-done",
    world: (now) => ({
      revokeKey: failingFirst(4, "AdminCredentialRejected", async () => ({
        at: new Date(await now()).toISOString(),
        note: "key_old revoked",
      })),
    }),
    take: rotation,
  },
  {
    name: "revoking-failed-and-aborted",
    world: () => ({ revokeKey: fails("AdminCredentialRejected") }),
    take: runAnd(4 * hour, abort),
  },
  { name: "shared-key", world: () => ({ inspection: { sharedWith: ["staging/openai"] } }), take: rotation },
  { name: "in-place", world: () => ({ inspection: { staged: false } }), take: rotation },
  { name: "purged", world: () => ({ inspection: { canPurge: true } }), take: rotation },
  { name: "disabled-and-soaked", world: () => ({ inspection: { canDisable: true } }), take: rotation },
  {
    name: "disabled-and-still-used",
    world: () => ({
      inspection: { canDisable: true },
      lookForErrors: () => Promise.resolve({ newErrors: 3, note: "3 refused requests since, 0 before" }),
    }),
    take: rotation,
  },
  { name: "aborted-during-the-soak", world: () => ({ inspection: { canDisable: true } }), take: runAnd(50, abort) },
  {
    name: "key-handed-in",
    world: () => ({ inspection: { canIssue: false } }),
    take: runAnd(2 * hour, (handle) => handle.signal("submitKeySignal", { sealed: "sealed" })),
  },
  {
    name: "key-handed-in-second-try",
    world: () => ({
      inspection: { canIssue: false },
      acceptKey: failingFirst(1, "InvalidInput", () =>
        Promise.resolve({ id: "key_by_hand", fingerprint: "0123456789abcdef", sealed: "sealed" }),
      ),
    }),
    take: runAnd(2 * hour, async (handle) => {
      const submit = (): Promise<unknown> => handle.executeUpdate("submitKey", { args: [{ sealed: "sealed" }] });
      await submit().catch(() => undefined);
      await submit();
    }),
  },
  { name: "nobody-handed-in-a-key", world: () => ({ inspection: { canIssue: false } }), take: rotation },
  {
    name: "revoked-by-hand",
    world: () => ({ inspection: byHand }),
    take: async (stage) => byPerson(stage, await stage.start("normalRotation")),
  },
  {
    name: "revoked-by-hand-and-not-seen-dead",
    world: () => ({
      inspection: byHand,
      confirmRevoked: () => Promise.resolve({ note: "not seen dead" }),
    }),
    take: async (stage) => byPerson(stage, await stage.start("normalRotation")),
  },
  {
    name: "cleaned-up-at-the-second-try",
    world: () => ({
      stageAliases: fails("RequestInvalid"),
      releaseSlot: failingFirst(1, "ResponseUnexpected", () => Promise.resolve({ leftOver: [], warnings: [] })),
    }),
    take: rotation,
  },
  {
    name: "purged-again-while-used",
    world: () => ({ ...ceiling("used"), inspection: { canPurge: true } }),
    take: runAnd(26 * hour, approve),
  },
  {
    name: "stored-key-refused-by-its-provider",
    world: () => {
      let tries = 0;
      return {
        ...slotFails,
        verifyAtProvider: () => (++tries === 2 ? fails("KeyRejected")() : Promise.resolve({ probes: 0, warnings: [] })),
      };
    },
    take: rotation,
  },
  { name: "input-refused", take: run("normalRotation", { heldKey: "x" }) },
  {
    name: "short-timeout-refused",
    take: async ({ skipping }) =>
      ended(
        await skipping.client.workflow.start("normalRotation", {
          ...startOptions,
          workflowExecutionTimeout: "12 hours",
        }),
      ),
  },
];

const followers: Path[] = [
  { name: "follower", take: async ({ start }) => ended(await start("normalRotation", {}, "by-hand")) },
  {
    name: "followed",
    take: async ({ start }) => {
      await (await start("normalRotation", {}, "by-hand")).result();
      return { workflowId: startOptions.workflowId };
    },
  },
  {
    name: "follower-told-to-abort",
    take: async ({ start, pass }) => {
      const follower = await start("normalRotation", {}, "by-hand");
      await pass(5);
      await abort(follower);
      return ended(follower);
    },
  },
  {
    name: "follower-cancelled",
    take: async ({ start, pass }) => {
      const follower = await start("normalRotation", {}, "by-hand");
      await pass(5);
      await follower.cancel();
      return ended(follower);
    },
  },
  {
    name: "follower-of-a-failure",
    world: () => noNewKeys,
    take: async ({ start }) => ended(await start("normalRotation", {}, "by-hand")),
  },
  {
    name: "follower-slot-busy",
    take: async ({ start, pass }) => {
      const running = await start("normalRotation");
      await pass(5);
      const second = await ended(await start("normalRotation", {}, "by-hand"));
      await running.result();
      return second;
    },
  },
];

const emergencies: Path[] = [
  { name: "emergency-swap-first", take: emergency },
  {
    name: "emergency-cut-first",
    take: run("emergencyRotation", { strategy: "cut-first", compromisedKeyId: "key_old" }),
  },
  {
    name: "emergency-cut-first-logs-unreadable",
    world: () => ({ findLastRefusal: () => Promise.resolve({ note: "the logs cannot be read" }) }),
    take: run("emergencyRotation", { strategy: "cut-first", compromisedKeyId: "key_old" }),
  },
  {
    name: "emergency-cut-first-refused",
    world: () => ({ cutKey: fails("AdminCredentialRejected") }),
    take: run("emergencyRotation", { strategy: "cut-first", compromisedKeyId: "key_old" }),
  },
  { name: "emergency-cut-first-of-the-held-key", take: run("emergencyRotation", { strategy: "cut-first" }) },
  { name: "emergency-cut-at-the-deadline", world: () => noNewKeys, take: emergency },
  { name: "emergency-cut-when-approved", world: () => noNewKeys, take: runAnd(5, approve, "emergencyRotation") },
  {
    name: "emergency-held-at-the-deadline",
    world: () => ({
      ...noNewKeys,
      ...withPolicy({ emergency: { ...documentedPolicy().emergency, atDeadline: "hold" } }),
    }),
    take: emergency,
  },
  {
    name: "emergency-key-handed-in-past-the-deadline",
    world: () => ({ inspection: { canIssue: false } }),
    take: runAnd(2 * hour, (handle) => handle.signal("submitKeySignal", { sealed: "sealed" }), "emergencyRotation"),
  },
  { name: "emergency-of-a-key-elsewhere", take: run("emergencyRotation", { compromisedKeyId: "key_elsewhere" }) },
  {
    name: "emergency-aborted",
    world: () => ({ inspection: { canIssue: false } }),
    take: runAnd(5, abort, "emergencyRotation"),
  },
  {
    name: "emergency-of-a-key-in-two-slots",
    world: () => ({
      findCompromised: ({ compromisedKeyId = "key_old" }) =>
        Promise.resolve({ id: compromisedKeyId, how: "id", alive: true, heldBy: [slot, "staging/openai"] }),
    }),
    take: emergency,
  },
  {
    name: "emergency-revoked-by-hand",
    world: () => ({ inspection: byHand }),
    take: async (stage) => {
      const handle = await stage.start("emergencyRotation");
      await stage.pass(10);
      await handle.signal("submitKeySignal", { sealed: "sealed" });
      await stage.pass(2 * hour);
      await approve(handle);
      return ended(handle);
    },
  },
  {
    name: "emergency-gathering-aborted",
    take: runAnd(25, abort, "emergencyRotation"),
  },
  { name: "emergency-joined", world: (_, skipping) => passOn(skipping), take: joinedBy("key_old", "emergency") },
  { name: "hurried", world: (_, skipping) => passOn(skipping), take: joinedBy("key_old") },
  { name: "told-of-a-strange-key", world: (_, skipping) => passOn(skipping), take: joinedBy("key_elsewhere") },
  { name: "handed-over", world: (_, skipping) => passOn(skipping), take: joinedBy("key_1") },
  {
    name: "handed-over-emergency",
    world: (_, skipping) => passOn(skipping),
    take: async (stage) => {
      await joinedBy("key_1")(stage);
      return { workflowId: startOptions.workflowId };
    },
  },
  {
    name: "aborted-new-key-compromised",
    world: (_, skipping) => ({ ...passOn(skipping), ...withPolicy({ approval: "before-install" }) }),
    take: joinedBy("key_1"),
  },
  {
    name: "hurried-cut-at-the-deadline",
    world: () => ceiling("used"),
    take: runAnd(day, (handle) => handle.signal("escalateSignal", { compromisedKeyId: "key_old", by: "ada" })),
  },
];

const sweeps: Path[] = (
  [
    ["sweep-looked", {}],
    ["sweep-revoked", { revoke: true, cap: 2 }],
  ] as const
).map(([name, input]) => ({
  name,
  world: () => ({
    findOrphans: () => Promise.resolve(orphans),
    revokeOrphan: failingFirst(1, "AdminCredentialRejected", () =>
      Promise.resolve({ kind: "ended", at: "2026-01-01T00:00:00.000Z" }),
    ),
  }),
  take: async ({ skipping }) =>
    ended(
      await skipping.client.workflow.start("sweepOrphans", {
        ...startOptions,
        workflowId: "keyturn-sweep",
        args: [input],
      }),
    ),
}));

export const paths: Path[] = [...normal, ...followers, ...emergencies, ...sweeps];
