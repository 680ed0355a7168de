import type { Client, WorkflowHandle } from "@temporalio/client";
import { defaultPayloadConverter, type Payload } from "@temporalio/common";
import type { History } from "@temporalio/common/lib/proto-utils.js";

import type { Inspection } from "../../src/activities/contract.ts";
import type { Orphans } from "../../src/activities/orphans.ts";
import type { KeyEntry } from "../../src/domain/custody.ts";
import { leakedWorkflowId, type RotationResult } from "../../src/domain/rotation.ts";
import { otherSlot, playSlots, type Right, type Slots, type World } from "./slots.ts";
import { documentedPolicy, failing, type Skipping, slot, startOptions } from "./time-skipping.ts";

/**
 * Every path a workflow can take, played on a server that skips time. Their histories are in test/histories, a file for
 * each path, and are replayed on each run of the tests: see scripts/record-histories.ts.
 */
export interface Path {
  /** Also the name of its file. */
  name: string;
  /** How it ends, as `endingOf` says it: the outcome or the type of the failure, then where each key is. */
  ends: string;
  /** The slots there are, and what they hold; the usual one alone where it is left out. */
  holds?: Record<string, string>;
  /** The outside world it meets. */
  world?: (right: Right, now: () => Promise<number>, slots: Slots) => World;
  /** Takes the path and returns the run whose history tells it. */
  take(stage: Stage): Promise<Taken>;
}

export type Taken = Pick<WorkflowHandle, "workflowId"> & { runId?: string };

export interface Stage {
  client: Client;
  slots: Slots;
  /** Starts a workflow of a slot under the slot's own id, or another. */
  start(workflowType: string, input?: object, workflowId?: string): Promise<WorkflowHandle>;
  /** Lets so many minutes pass. */
  pass(minutes: number): Promise<void>;
  /** Lets time pass until the activity of this name was called. */
  passUntil(activity: string): Promise<void>;
}

/** Takes a path with a worker of its own. */
export async function takePath(skipping: Skipping, { holds, world, take }: Path): Promise<Taken> {
  const now = (): Promise<number> => skipping.env.currentTimeMs();
  const slots = playSlots(skipping, holds, (right, all) => world?.(right, now, all) ?? {});
  const pass = (minutes: number): Promise<void> => skipping.env.sleep(minutes * 60_000);
  return skipping.withWorker(slots.played, async () =>
    take({
      client: skipping.client,
      slots,
      start: (workflowType, input = {}, workflowId = startOptions.workflowId) =>
        skipping.client.workflow.start(workflowType, { ...startOptions, workflowId, args: [{ slot, ...input }] }),
      pass,
      passUntil: async (activity) => {
        for (let minutes = 0; minutes < 2 * day && !slots.played.names().includes(activity); minutes++) await pass(1);
      },
    }),
  );
}

/** What is read of a result. */
interface Ended {
  outcome?: RotationResult["outcome"];
  keys?: { id: string; fate?: KeyEntry["fate"] }[];
}

/** How a history ends: the outcome or the type of the failure, then where each key is that the run answered for. */
export function endingOf({ events }: History): string {
  const last = events?.at(-1);
  const failure = last?.workflowExecutionFailedEventAttributes?.failure?.applicationFailureInfo;
  const goesOn = last?.workflowExecutionContinuedAsNewEventAttributes;
  const [payload] =
    last?.workflowExecutionCompletedEventAttributes?.result?.payloads ?? failure?.details?.payloads ?? [];
  if (goesOn != null) return `goes on as ${goesOn.workflowType?.name}`;
  const result = payload == null ? {} : defaultPayloadConverter.fromPayload<Ended>(payload as Payload);
  const how =
    failure?.type ?? result.outcome ?? (last?.workflowExecutionCompletedEventAttributes == null ? "?" : "done");
  // Lists of keys that no run answers for say nothing of fates.
  const keys = (result.keys ?? []).flatMap(({ id, fate }) => (fate === undefined ? [] : [`${id} ${fate}`]));
  return keys.length === 0 ? how : `${how}: ${keys.toSorted().join(", ")}`;
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
const hold = withPolicy({ emergency: { ...documentedPolicy().emergency, atDeadline: "hold" } });
const ceiling = (kind: "used" | "too early"): World => ({
  checkIdle: () =>
    Promise.resolve({
      kind,
      note: kind,
      newKeyRequests: 9,
      clientsBefore: "yes",
      ...(kind === "used" ? { lastUsed: "2026-01-01T00:00:00.000Z" } : {}),
    }),
});
const noNewKeys: World = { issueKey: fails("KeyLimitReached") };
const notStaged: World = { stageAliases: fails("RequestInvalid") };
const goodAnswers: NonNullable<World["verifyThroughGateway"]> = ({ goodAnswers: probes }) =>
  Promise.resolve({ probes, warnings: [] });
/** The slot itself does not answer with a new key: for so many looks, or ever. */
const slotFails = (times = Infinity): World => {
  let probes = 0;
  return {
    verifyThroughGateway: (order) =>
      order.alias === "real" && ++probes <= times ? fails("KeyRejected")() : goodAnswers(order),
  };
};
/** Fails so long that only a deadline ends it, then does as it should. */
const lateBy = (minutes: number, now: () => Promise<number>): (() => Promise<void>) => {
  let firstMs = Infinity;
  return async () => {
    firstMs = Math.min(firstMs, await now());
    if ((await now()) < firstMs + minutes * 60_000) throw failing("Unavailable", { retried: true });
  };
};
const bothHold = { [slot]: "key_old", [otherSlot]: "key_old" };
const otherHolds = { [slot]: "key_old", [otherSlot]: "key_other" };
/** Makes no alias in the slot itself; another slot does. */
const notStagedHere: World = {
  stageAliases: ({ slot: into }) => (into === slot ? fails("RequestInvalid")() : Promise.resolve({})),
};

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

const escalate =
  (compromisedKeyId: string) =>
  (handle: WorkflowHandle): Promise<void> =>
    handle.signal("escalateSignal", { compromisedKeyId, by: "ada" });

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

const swapped = "rotated: key_1 held, key_old ended";

const normal: Path[] = [
  { name: "rotated", ends: swapped, take: rotation },
  {
    name: "kept",
    ends: "kept: key_old held",
    world: () => ({ inspection: { due: { due: false, reason: "the key is 3d old" } } }),
    take: run("normalRotation", { onlyIfDue: true }),
  },
  {
    name: "rotated-after-a-refused-key",
    ends: "rotated: key_1 ended, key_2 held, key_old ended",
    world: () => ({
      verifyAtProvider: failingFirst(1, "KeyRejected", () => Promise.resolve({ probes: 0, warnings: ["odd"] })),
    }),
    take: rotation,
  },
  {
    name: "rotated-after-a-lost-seal",
    ends: "rotated: key_1 ended, key_2 held, key_old ended",
    world: ({ installKey }) => {
      let lost = false;
      return {
        installKey: (order) => {
          if (lost) return installKey(order);
          lost = true;
          return Promise.reject(failing("SealUnreadable", { details: [{ sent: false }] }));
        },
      };
    },
    take: rotation,
  },
  { name: "value-stored-again", ends: swapped, world: () => slotFails(1), take: rotation },
  {
    name: "another-key-installed",
    ends: "rotated: key_1 named, key_2 held, key_old ended",
    world: () => slotFails(2),
    take: rotation,
  },
  {
    name: "old-value-put-back",
    ends: "KeyRejected: key_1 named, key_2 named, key_old held",
    world: (_right, _now, slots) => ({
      ...slotFails(),
      restoreOldValue: () => {
        slots.holds[slot] = "key_old";
        return Promise.resolve();
      },
    }),
    take: rotation,
  },
  {
    name: "prev-never-answered",
    ends: swapped,
    world: () => ({ seePrevAnswer: () => Promise.resolve({ answered: false, note: "prev did not answer" }) }),
    take: rotation,
  },
  {
    name: "death-not-seen",
    ends: swapped,
    world: () => ({ confirmRevoked: () => Promise.resolve({ note: "not seen dead" }) }),
    take: rotation,
  },
  { name: "ceiling-unknown-revoked", ends: swapped, world: () => ceiling("too early"), take: rotation },
  { name: "ceiling-used-approved", ends: swapped, world: () => ceiling("used"), take: runAnd(26 * hour, approve) },
  {
    name: "ceiling-used-nobody-approved",
    ends: "NobodyDecided: key_1 held, key_old named",
    world: () => ceiling("used"),
    take: rotation,
  },
  {
    name: "ceiling-new-key-never-reported",
    ends: "NobodyDecided: key_1 held, key_old named",
    world: () => ({
      checkIdle: () =>
        Promise.resolve({
          kind: "unknown",
          note: "others are reported",
          newKeyRequests: 0,
          newKeyNeverReported: true,
          clientsBefore: "yes",
        }),
    }),
    take: rotation,
  },
  {
    name: "idle-by-our-probe-alone",
    ends: swapped,
    world: () => ({
      checkIdle: () => Promise.resolve({ kind: "idle", note: "idle", newKeyRequests: 1, clientsBefore: "no" }),
    }),
    take: rotation,
  },
  { name: "use-approved-before-the-ceiling", ends: swapped, world: () => ceiling("used"), take: runAnd(30, approve) },
  {
    name: "used-again-after-the-approval",
    ends: swapped,
    world: (_right, now) => {
      let looks = 0;
      return {
        checkIdle: async () => ({
          kind: ++looks < 4 ? "used" : "idle",
          note: "used",
          lastUsed: looks === 1 ? "2026-01-01T00:00:00.000Z" : "2026-01-02T00:00:00.000Z",
          newKeyRequests: 9,
          clientsBefore: "yes",
          probeAt: new Date((await now()) + hour * 60_000).toISOString(),
          askAt: new Date((await now()) + hour * 60_000).toISOString(),
        }),
      };
    },
    take: runAnd(30, approve),
  },
  {
    name: "approval-before-install",
    ends: swapped,
    world: () => withPolicy({ approval: "before-install" }),
    take: runAnd(2 * hour, approve),
  },
  {
    name: "nobody-approved-before-install",
    ends: "NobodyDecided: key_1 ended, key_old held",
    world: () => withPolicy({ approval: "before-install" }),
    take: rotation,
  },
  {
    name: "approval-before-revoke",
    ends: swapped,
    world: () => withPolicy({ approval: "before-revoke" }),
    take: runAnd(5 * hour, approve),
  },
  {
    name: "approval-by-update",
    ends: swapped,
    world: () => withPolicy({ approval: "before-revoke" }),
    take: runAnd(5 * hour, (handle) => handle.executeUpdate("approve", { args: [{ by: "ada" }] })),
  },
  {
    name: "aborted-before-install",
    ends: "aborted: key_1 ended, key_old held",
    world: () => withPolicy({ approval: "before-install" }),
    take: runAnd(5, abort),
  },
  { name: "aborted-after-install", ends: "aborted: key_1 held, key_old named", take: runAnd(5, abort) },
  {
    name: "cancelled",
    ends: "aborted: key_1 held, key_old named",
    take: runAnd(5, (handle) => handle.cancel()),
  },
  {
    name: "failed-at-inspect",
    ends: "SlotMissing",
    world: () => ({ inspectSlot: fails("SlotMissing") }),
    take: rotation,
  },
  { name: "failed-at-issue", ends: "KeyLimitReached: key_old held", world: () => noNewKeys, take: rotation },
  {
    name: "failed-at-stage",
    ends: "RequestInvalid: key_1 ended, key_old held",
    world: () => notStaged,
    take: rotation,
  },
  {
    name: "failed-before-the-write-had-left",
    ends: "SlotChanged: key_1 ended, key_old held",
    world: () => ({ installKey: () => Promise.reject(failing("SlotChanged", { details: [{ sent: false }] })) }),
    take: rotation,
  },
  {
    name: "failed-when-the-write-may-have-left",
    ends: "SlotChanged: key_1 named, key_old held",
    world: () => ({ installKey: () => Promise.reject(failing("SlotChanged", { details: [{ sent: true }] })) }),
    take: rotation,
  },
  {
    name: "failed-at-revoke-slot-changed",
    ends: "SlotChanged: key_1 held, key_old named",
    world: () => ({ revokeKey: fails("SlotChanged") }),
    take: rotation,
  },
  {
    name: "failed-and-cleaning-up-failed",
    ends: "RequestInvalid: key_1 named, key_old named",
    world: () => ({
      ...notStaged,
      removeAliases: fails("AdminCredentialRejected"),
      settleKeys: fails("AdminCredentialRejected"),
    }),
    take: rotation,
  },
  {
    name: "cleaned-up-at-the-second-try",
    ends: "RequestInvalid: key_1 ended, key_old held",
    world: ({ settleKeys }) => {
      let tries = 0;
      return {
        ...notStaged,
        removeAliases: failingFirst(1, "ResponseUnexpected", () => Promise.resolve()),
        settleKeys: (order) => (++tries === 1 ? fails("ResponseUnexpected")() : settleKeys(order)),
      };
    },
    take: rotation,
  },
  {
    name: "revoking-failed-then-done",
    ends: swapped,
    world: ({ revokeKey }) => {
      let tries = 0;
      return { revokeKey: (order) => (++tries <= 4 ? fails("AdminCredentialRejected")() : revokeKey(order)) };
    },
    take: rotation,
  },
  {
    name: "revoking-failed-and-aborted",
    ends: "aborted: key_1 held, key_old named",
    world: () => ({ revokeKey: fails("AdminCredentialRejected") }),
    take: runAnd(4 * hour, abort),
  },
  { name: "shared-key", ends: "rotated: key_1 held, key_old held", holds: bothHold, take: rotation },
  {
    name: "earlier-key-named-again",
    ends: "rotated: key_1 held, key_dead ended, key_earlier named, key_old ended",
    world: () => ({
      inspection: {
        earlier: [
          { id: "key_earlier", why: "clients may still use it", state: "alive" },
          { id: "key_dead", why: "clients may still use it", state: "dead" },
        ],
      },
    }),
    take: rotation,
  },
  { name: "in-place", ends: swapped, world: () => ({ inspection: { staged: false } }), take: rotation },
  {
    name: "in-place-since-the-store-is-full",
    ends: swapped,
    world: () => ({ stageAliases: () => Promise.resolve({ inPlace: "in place: the store is full" }) }),
    take: rotation,
  },
  { name: "purged", ends: swapped, world: () => ({ inspection: { canPurge: true } }), take: rotation },
  { name: "disabled-and-soaked", ends: swapped, world: () => ({ inspection: { canDisable: true } }), take: rotation },
  {
    name: "disabled-and-still-used",
    ends: "KeyStillUsed: key_1 held, key_old named",
    world: () => ({
      inspection: { canDisable: true },
      lookForErrors: () => Promise.resolve({ newErrors: 3, note: "3 refused requests since, 0 before" }),
    }),
    take: rotation,
  },
  {
    name: "switched-off-by-somebody-else",
    ends: "KeyStillUsed: key_1 held, key_old named",
    world: (_right, now) => ({
      inspection: { canDisable: true },
      disableKey: async () => ({ at: new Date(await now()).toISOString(), wasOff: true }),
      lookForErrors: () => Promise.resolve({ newErrors: 3, note: "3 refused requests since, 0 before" }),
    }),
    take: rotation,
  },
  {
    name: "not-switched-on-again",
    ends: "KeyStillUsed: key_1 held, key_old named",
    world: () => ({
      inspection: { canDisable: true },
      lookForErrors: () => Promise.resolve({ newErrors: 3, note: "3 refused requests since, 0 before" }),
      enableKey: fails("AdminCredentialRejected"),
    }),
    take: rotation,
  },
  {
    name: "aborted-during-the-soak",
    ends: "aborted: key_1 held, key_old named",
    world: () => ({ inspection: { canDisable: true } }),
    take: async (stage) => {
      const handle = await stage.start("normalRotation");
      await stage.passUntil("disableKey");
      await stage.pass(2);
      await abort(handle);
      return ended(handle);
    },
  },
  {
    name: "key-handed-in",
    ends: "rotated: key_by_hand held, key_old ended",
    world: () => ({ inspection: { canIssue: false } }),
    take: runAnd(2 * hour, (handle) => handle.signal("submitKeySignal", { sealed: "sealed" })),
  },
  {
    name: "key-handed-in-second-try",
    ends: "rotated: key_by_hand held, key_old ended, key_refused named",
    world: () => {
      let tries = 0;
      return {
        inspection: { canIssue: false },
        acceptKey: ({ sealed }) =>
          ++tries === 1
            ? Promise.reject(failing("InvalidInput", { details: [{ handedIn: { id: "key_refused", heldBy: [] } }] }))
            : Promise.resolve({ id: "key_by_hand", fingerprint: "0123456789abcdef", sealed }),
      };
    },
    take: runAnd(2 * hour, async (handle) => {
      const submit = (): Promise<unknown> => handle.executeUpdate("submitKey", { args: [{ sealed: "sealed" }] });
      await submit().catch(() => undefined);
      await submit();
    }),
  },
  {
    name: "handed-in-key-refused-and-another-asked-for",
    ends: "NobodyDecided: key_by_hand named, key_old held",
    world: () => ({ inspection: { canIssue: false }, verifyAtProvider: fails("KeyRejected") }),
    take: runAnd(2 * hour, (handle) => handle.signal("submitKeySignal", { sealed: "sealed" })),
  },
  {
    name: "nobody-handed-in-a-key",
    ends: "NobodyDecided: key_old held",
    world: () => ({ inspection: { canIssue: false } }),
    take: rotation,
  },
  {
    name: "revoked-by-hand",
    ends: "rotated: key_by_hand held, key_old ended",
    world: () => ({ inspection: byHand }),
    take: async (stage) => byPerson(stage, await stage.start("normalRotation")),
  },
  {
    name: "revoked-by-hand-and-not-seen-dead",
    ends: "rotated: key_by_hand held, key_old named",
    world: () => ({
      inspection: byHand,
      confirmRevoked: () => Promise.resolve({ note: "not seen dead" }),
    }),
    take: async (stage) => byPerson(stage, await stage.start("normalRotation")),
  },
  {
    name: "nobody-revoked-by-hand",
    ends: "NobodyDecided: key_by_hand held, key_old named",
    world: () => ({ inspection: byHand }),
    take: runAnd(2 * hour, (handle) => handle.signal("submitKeySignal", { sealed: "sealed" })),
  },
  {
    name: "purged-again-while-used",
    ends: swapped,
    world: () => ({ ...ceiling("used"), inspection: { canPurge: true } }),
    take: runAnd(26 * hour, approve),
  },
  {
    name: "stored-key-refused-by-its-provider",
    ends: "KeyRejected: key_1 named, key_2 named, key_old held",
    world: (_right, _now, slots) => {
      let tries = 0;
      return {
        ...slotFails(),
        verifyAtProvider: () => (++tries === 2 ? fails("KeyRejected")() : Promise.resolve({ probes: 0, warnings: [] })),
        restoreOldValue: () => {
          slots.holds[slot] = "key_old";
          return Promise.resolve();
        },
      };
    },
    take: rotation,
  },
  { name: "input-refused", ends: "InvalidInput", take: run("normalRotation", { heldKey: "x" }) },
  {
    name: "short-timeout-refused",
    ends: "InvalidInput: key_old held",
    take: async ({ client }) =>
      ended(await client.workflow.start("normalRotation", { ...startOptions, workflowExecutionTimeout: "12 hours" })),
  },
];

const followers: Path[] = [
  { name: "follower", ends: swapped, take: async ({ start }) => ended(await start("normalRotation", {}, "by-hand")) },
  {
    name: "followed",
    ends: swapped,
    take: async ({ start }) => {
      await (await start("normalRotation", {}, "by-hand")).result();
      return { workflowId: startOptions.workflowId };
    },
  },
  {
    name: "follower-told-to-abort",
    ends: "aborted: key_1 held, key_old named",
    take: async ({ start, pass }) => {
      const follower = await start("normalRotation", {}, "by-hand");
      await pass(5);
      await abort(follower);
      return ended(follower);
    },
  },
  {
    name: "follower-passed-an-approval-on",
    ends: swapped,
    world: () => withPolicy({ approval: "before-install" }),
    take: async ({ start, pass }) => {
      const follower = await start("normalRotation", {}, "by-hand");
      await pass(5);
      await follower.executeUpdate("approve", { args: [{ by: "ada" }] });
      return ended(follower);
    },
  },
  {
    name: "follower-cancelled",
    ends: "aborted: key_1 held, key_old named",
    take: async ({ start, pass }) => {
      const follower = await start("normalRotation", {}, "by-hand");
      await pass(5);
      await follower.cancel();
      return ended(follower);
    },
  },
  {
    name: "follower-of-a-failure",
    ends: "KeyLimitReached: key_old held",
    world: () => noNewKeys,
    take: async ({ start }) => ended(await start("normalRotation", {}, "by-hand")),
  },
  {
    name: "follower-slot-busy",
    ends: "SlotBusy",
    take: async ({ start, pass }) => {
      const running = await start("normalRotation");
      await pass(5);
      const second = await ended(await start("normalRotation", {}, "by-hand"));
      await running.result();
      return second;
    },
  },
];

const cutFirst = (compromisedKeyId = "key_old"): object => ({ strategy: "cut-first", compromisedKeyId });

const emergencies: Path[] = [
  { name: "emergency-swap-first", ends: swapped, take: emergency },
  { name: "emergency-of-a-named-key", ends: swapped, take: run("emergencyRotation", { compromisedKeyId: "key_old" }) },
  { name: "emergency-of-a-leaked-value", ends: swapped, take: run("emergencyRotation", { leaked: "sealed" }) },
  { name: "emergency-cut-first", ends: swapped, take: run("emergencyRotation", cutFirst()) },
  {
    name: "emergency-cut-first-logs-unreadable",
    ends: swapped,
    world: () => ({ findLastRefusal: () => Promise.resolve({ note: "the logs cannot be read" }) }),
    take: run("emergencyRotation", cutFirst()),
  },
  {
    name: "emergency-cut-first-refused",
    ends: swapped,
    world: () => ({ cutKey: fails("AdminCredentialRejected") }),
    take: run("emergencyRotation", cutFirst()),
  },
  {
    name: "emergency-cut-first-of-the-held-key",
    ends: swapped,
    take: run("emergencyRotation", { strategy: "cut-first" }),
  },
  {
    name: "emergency-cut-first-of-a-key-in-two-slots",
    ends: swapped,
    holds: bothHold,
    take: async (stage) => {
      const taken = await ended(await stage.start("emergencyRotation", cutFirst()));
      await stage.client.workflow.getHandle(`keyturn/${otherSlot}`).result();
      return taken;
    },
  },
  {
    name: "emergency-cut-first-and-no-new-key",
    ends: "cut: key_old ended",
    world: () => noNewKeys,
    take: run("emergencyRotation", cutFirst()),
  },
  { name: "emergency-cut-at-the-deadline", ends: "cut: key_old ended", world: () => noNewKeys, take: emergency },
  {
    name: "emergency-cut-when-approved",
    ends: "cut: key_old ended",
    world: () => noNewKeys,
    take: runAnd(5, approve, "emergencyRotation"),
  },
  {
    name: "emergency-held-at-the-deadline",
    ends: "KeyLimitReached: key_old named",
    world: () => ({ ...noNewKeys, ...hold }),
    take: emergency,
  },
  {
    name: "emergency-unlooked-cut-at-the-deadline",
    ends: "cut: key_old ended",
    world: () => ({ inspectSlot: fails("SlotMissing") }),
    take: run("emergencyRotation", { compromisedKeyId: "key_old" }),
  },
  {
    name: "emergency-looked-again-after-an-outage",
    ends: swapped,
    world: ({ inspectSlot }) => {
      let looks = 0;
      return { inspectSlot: (order) => (++looks === 1 ? fails("Unavailable")() : inspectSlot(order)) };
    },
    take: emergency,
  },
  {
    name: "emergency-key-handed-in-past-the-deadline",
    ends: "rotated: key_by_hand held, key_old ended",
    world: () => ({ inspection: { canIssue: false } }),
    take: runAnd(2 * hour, (handle) => handle.signal("submitKeySignal", { sealed: "sealed" }), "emergencyRotation"),
  },
  {
    name: "emergency-of-a-key-elsewhere",
    ends: "cut: key_elsewhere ended, key_old held",
    take: run("emergencyRotation", { compromisedKeyId: "key_elsewhere" }),
  },
  {
    name: "emergency-of-two-keys",
    ends: "rotated: key_1 held, key_elsewhere ended, key_old ended",
    take: run("emergencyRotation", { compromisedKeyIds: ["key_old", "key_elsewhere"] }),
  },
  {
    name: "emergency-key-ambiguous",
    ends: "KeyAmbiguous",
    world: ({ planEmergency }) => ({
      planEmergency: async (order) => ({
        ...(await planEmergency(order)),
        keys: [],
        ambiguous: { why: "key_old is 3 minutes old", candidates: [] },
      }),
    }),
    take: emergency,
  },
  {
    name: "emergency-key-unknown",
    ends: "KeyUnknown: key_old held",
    world: () => ({ findCompromised: fails("KeyUnknown") }),
    take: run("emergencyRotation", { compromisedKeyId: "key_typo" }),
  },
  {
    name: "emergency-aborted",
    ends: "aborted: key_old named",
    world: () => ({ inspection: { canIssue: false } }),
    take: runAnd(5, abort, "emergencyRotation"),
  },
  {
    name: "emergency-cancelled",
    ends: swapped,
    take: runAnd(5, (handle) => handle.cancel(), "emergencyRotation"),
  },
  {
    name: "emergency-cancelled-before-install",
    ends: "cut: key_old ended",
    world: () => ({ inspection: { canIssue: false } }),
    take: runAnd(5, (handle) => handle.cancel(), "emergencyRotation"),
  },
  { name: "emergency-of-a-key-in-two-slots", ends: swapped, holds: bothHold, take: emergency },
  {
    name: "emergency-of-a-key-in-two-slots-moved-there-alone",
    ends: "cut: key_1 ended, key_old ended",
    holds: bothHold,
    world: () => notStagedHere,
    take: emergency,
  },
  {
    name: "emergency-that-only-moves",
    ends: "rotated: key_1 held, key_old named",
    take: run("emergencyRotation", { compromisedKeyId: "key_old", cutBy: otherSlot }),
  },
  {
    name: "emergency-that-only-moves-and-need-not",
    ends: "kept: key_old held, key_other named",
    take: run("emergencyRotation", { compromisedKeyId: "key_other", cutBy: otherSlot }),
  },
  {
    name: "emergency-of-a-key-that-another-slot-holds",
    ends: "cut: key_old held, key_other ended",
    holds: otherHolds,
    take: run("emergencyRotation", { compromisedKeyId: "key_other" }),
  },
  {
    name: "emergency-tells-the-rotation-of-another-slot",
    ends: "rotated: key_2 held, key_old ended",
    holds: bothHold,
    take: async ({ start, pass, client }) => {
      const there = await client.workflow.start("normalRotation", {
        ...startOptions,
        workflowId: `keyturn/${otherSlot}`,
        args: [{ slot: otherSlot }],
      });
      await pass(2);
      const taken = await ended(await start("emergencyRotation"));
      await there.result();
      return taken;
    },
  },
  {
    name: "emergency-holders-cannot-be-told",
    ends: swapped,
    world: ({ findCompromised, lookAtHolders }) => {
      let looks = 0;
      const unknown = [{ slot: otherSlot, why: "no provider config" }];
      return {
        findCompromised: async (order) => (await findCompromised(order)).map((key) => ({ ...key, unknown })),
        lookAtHolders: async (order) =>
          (await lookAtHolders(order)).map((key) => ({ ...key, unknown: ++looks < 3 ? unknown : [] })),
      };
    },
    take: emergency,
  },
  {
    name: "emergency-slot-does-not-answer",
    ends: "cut: key_1 named, key_2 held, key_old ended",
    world: () => slotFails(),
    take: emergency,
  },
  {
    name: "emergency-slot-answers-after-all",
    ends: swapped,
    world: (_right, _now, slots) => ({
      verifyThroughGateway: (order) =>
        order.alias === "real" && slots.endOf("key_old") === undefined ? fails("Unavailable")() : goodAnswers(order),
    }),
    take: emergency,
  },
  {
    name: "emergency-revoked-by-hand",
    ends: "rotated: key_by_hand held, key_old ended",
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
  { name: "emergency-gathering-aborted", ends: swapped, take: runAnd(25, abort, "emergencyRotation") },
  {
    name: "emergency-of-its-own-new-key",
    ends: "goes on as emergencyRotation",
    take: async ({ start, pass }) => {
      const handle = await start("emergencyRotation");
      await pass(5);
      await escalate("key_1")(handle);
      return ended(handle);
    },
  },
  {
    name: "emergency-new-key-compromised-before-install",
    ends: "rotated: key_1 ended, key_2 held, key_old ended",
    world: (_right, now) => {
      const late = lateBy(6, now);
      return {
        verifyAtProvider: async () => {
          await late();
          return { probes: 0, warnings: [] };
        },
      };
    },
    take: runAnd(5, escalate("key_1"), "emergencyRotation"),
  },
  { name: "emergency-joined", ends: "joined", take: joinedBy("key_old", "emergency") },
  {
    name: "emergency-joined-of-an-unknown-key",
    ends: "KeyUnknown",
    world: () => ({ findCompromised: fails("KeyUnknown") }),
    take: joinedBy("key_typo", "emergency"),
  },
  { name: "hurried", ends: swapped, take: joinedBy("key_old") },
  {
    name: "hurried-by-a-word-before-the-look",
    ends: swapped,
    take: async ({ start }) => {
      const handle = await start("normalRotation");
      await escalate("key_old")(handle);
      return ended(handle);
    },
  },
  {
    name: "hurried-and-called-off",
    ends: "aborted: key_1 held, key_old named",
    take: async ({ start, pass }) => {
      const handle = await start("normalRotation");
      await pass(3);
      await escalate("key_old")(handle);
      await pass(2);
      await abort(handle);
      return ended(handle);
    },
  },
  {
    name: "hurried-of-a-key-in-two-slots",
    ends: swapped,
    holds: bothHold,
    take: runAnd(3, escalate("key_old")),
  },
  {
    name: "hurried-and-failed",
    ends: "RequestInvalid: key_1 ended, key_old ended",
    world: (_right, now) => {
      const late = lateBy(6, now);
      return {
        ...notStaged,
        verifyAtProvider: async () => {
          await late();
          return { probes: 0, warnings: [] };
        },
      };
    },
    take: runAnd(3, escalate("key_old")),
  },
  {
    name: "hurried-during-the-soak",
    ends: swapped,
    world: () => ({ inspection: { canDisable: true } }),
    take: async (stage) => {
      const handle = await stage.start("normalRotation");
      await stage.passUntil("disableKey");
      await stage.pass(2);
      await escalate("key_old")(handle);
      return ended(handle);
    },
  },
  {
    name: "hurried-while-revoking",
    ends: swapped,
    world: () => ({ revokeKey: fails("AdminCredentialRejected") }),
    take: async (stage) => {
      const handle = await stage.start("normalRotation");
      await stage.passUntil("revokeKey");
      await stage.pass(10);
      await escalate("key_old")(handle);
      return ended(handle);
    },
  },
  {
    name: "told-while-cleaning-up",
    ends: "RequestInvalid: key_1 ended, key_old ended",
    world: (_right, now) => ({ ...notStaged, removeAliases: lateBy(10, now) }),
    take: runAnd(5, escalate("key_old")),
  },
  {
    name: "told-of-a-strange-key",
    ends: "rotated: key_1 held, key_elsewhere ended, key_old ended",
    take: joinedBy("key_elsewhere"),
  },
  {
    name: "told-of-a-key-that-another-slot-holds",
    ends: "rotated: key_1 held, key_old ended, key_other ended",
    holds: otherHolds,
    take: runAnd(3, escalate("key_other")),
  },
  {
    name: "told-of-a-key-that-nobody-knows",
    ends: swapped,
    world: () => ({ findCompromised: fails("KeyUnknown") }),
    take: runAnd(3, escalate("key_typo")),
  },
  {
    name: "handed-over",
    ends: "goes on as emergencyRotation",
    take: async ({ start, pass }) => {
      const handle = await start("normalRotation");
      await pass(3);
      await escalate("key_1")(handle);
      return ended(handle);
    },
  },
  {
    name: "handed-over-emergency",
    ends: "rotated: key_1 ended, key_2 held, key_old named",
    take: async (stage) => {
      await joinedBy("key_1")(stage);
      return { workflowId: startOptions.workflowId };
    },
  },
  {
    name: "handed-over-past-the-return",
    ends: "goes on as emergencyRotation",
    world: (_right, now) => {
      const late = lateBy(30, now);
      return {
        confirmRevoked: async () => {
          await late();
          return { note: "not seen dead" };
        },
      };
    },
    take: async (stage) => {
      const handle = await stage.start("normalRotation");
      await stage.passUntil("confirmRevoked");
      await escalate("key_1")(handle);
      return ended(handle);
    },
  },
  {
    name: "aborted-new-key-compromised",
    ends: "aborted: key_1 ended, key_old held",
    world: () => withPolicy({ approval: "before-install" }),
    take: joinedBy("key_1"),
  },
  {
    name: "hurried-cut-at-the-deadline",
    ends: swapped,
    world: ({ lookAtHolders, findCompromised }) => {
      const unknown = [{ slot: otherSlot, why: "no provider config" }];
      return {
        findCompromised: async (order) => (await findCompromised(order)).map((key) => ({ ...key, unknown })),
        lookAtHolders: async (order) => (await lookAtHolders(order)).map((key) => ({ ...key, unknown })),
      };
    },
    take: runAnd(3, escalate("key_old")),
  },
];

const leakedId = leakedWorkflowId("0123456789abcdef");
const leak: Path["take"] = async ({ client }) =>
  ended(
    await client.workflow.start("emergencyRotation", {
      ...startOptions,
      workflowId: leakedId,
      args: [{ leaked: "sealed" }],
    }),
  );
const leaked: Path[] = [
  {
    name: "leaked-without-a-slot",
    ends: "done",
    holds: bothHold,
    world: () => ({
      findLeaked: () =>
        Promise.resolve({
          matches: [{ keyId: "key_old", how: "fingerprint", slots: [slot, otherSlot], held: true }],
          unknown: [],
        }),
    }),
    take: leak,
  },
  {
    name: "leaked-where-a-rotation-runs",
    ends: "done",
    take: async (stage) => {
      const running = await stage.start("normalRotation");
      await stage.pass(3);
      const taken = await leak(stage);
      await running.result();
      return taken;
    },
  },
  {
    name: "leaked-of-nobody",
    ends: "KeyUnknown",
    world: () => ({ findLeaked: () => Promise.resolve({ matches: [], unknown: [] }) }),
    take: leak,
  },
  {
    name: "leaked-and-an-emergency-failed",
    ends: "KeyLimitReached",
    world: () => ({ ...noNewKeys, ...hold }),
    take: leak,
  },
];

const looks: Path[] = (["planEmergency", "listSlotKeys"] as const).map((name) => ({
  name: name === "planEmergency" ? "planned" : "keys-listed",
  ends: "done",
  take: async ({ start }) => ended(await start(name, {}, `keyturn/plan/${slot}/1`)),
}));

const sweeps: Path[] = (
  [
    ["sweep-looked", {}],
    ["sweep-revoked", { revoke: true, cap: 2 }],
  ] as const
).map(([name, input]) => ({
  name,
  ends: "done",
  world: () => ({
    findOrphans: () => Promise.resolve(orphans),
    revokeOrphan: failingFirst(1, "AdminCredentialRejected", () =>
      Promise.resolve({ kind: "ended", at: "2026-01-01T00:00:00.000Z" }),
    ),
  }),
  take: async ({ client }) =>
    ended(await client.workflow.start("sweepOrphans", { ...startOptions, workflowId: "keyturn-sweep", args: [input] })),
}));

export const paths: Path[] = [...normal, ...followers, ...emergencies, ...leaked, ...looks, ...sweeps];
