import { type Client, WorkflowFailedError, WorkflowNotFoundError, WorkflowUpdateFailedError } from "@temporalio/client";
import { ApplicationFailure, TerminatedFailure } from "@temporalio/common";
import { describe, expect, test } from "vitest";

import type { KeyEntry } from "../../src/domain/custody.ts";
import { runsOf } from "../../src/temporal/runs.ts";

/** Other runs, on a server that is played: `describe` is up to date, the search index is not. */

const slot = "production/openai";
const workflowId = `keyturn/${slot}`;

interface PlayedRun {
  runId: string;
  status: string;
  result?: object;
  /** Thrown by `result()`. */
  failed?: Error;
  /** What the query answers; without it no worker does. */
  progress?: object;
}

const result = (changes: object = {}): object => ({
  slot,
  outcome: "rotated",
  oldKey: { id: "key_a" },
  newKey: { id: "key_b" },
  keys: [],
  leftOver: [],
  steps: [{ step: "inspectSlot", outcome: "done" }],
  ...changes,
});

/** `runs`: the newest last. `indexed`: those that the search index shows. */
function played(runs: PlayedRun[], { indexed = runs }: { indexed?: PlayedRun[] } = {}) {
  const asked: string[] = [];
  const updates: { runId: string | undefined; update: string }[] = [];
  let refusal: Error | undefined;
  const described = (run: PlayedRun) => {
    const { runId, status } = run;
    return { workflowId, runId, status: { name: status }, startTime: new Date(runs.indexOf(run)) };
  };
  const getHandle = (id: string, runId?: string) => {
    const run = runId === undefined ? runs.at(-1) : runs.find((one) => one.runId === runId);
    const there = (): PlayedRun => {
      if (run === undefined) throw new WorkflowNotFoundError("not found", id, runId);
      return run;
    };
    return {
      workflowId: id,
      describe: async () => described(there()),
      result: async () => {
        const { failed, result: told } = there();
        if (failed !== undefined) throw failed;
        return told;
      },
      query: async () => {
        const { progress } = there();
        asked.push(there().runId);
        if (progress === undefined) throw new Error("no worker answers");
        return progress;
      },
      executeUpdate: async (update: string) => {
        if (refusal !== undefined) throw refusal;
        updates.push({ runId, update });
        return { taken: { id: "key_c" } };
      },
    };
  };
  const client = {
    connection: { withDeadline: async (_: number, call: () => Promise<unknown>) => call() },
    workflow: {
      getHandle,
      async *list() {
        yield* indexed
          .filter(({ status }) => status !== "RUNNING")
          .toReversed()
          .map(described);
      },
    },
  } as unknown as Client;
  return { runs: runsOf(client), asked, updates, refuse: (error: Error) => (refusal = error) };
}

const failedWith = (cause: Error): Error => new WorkflowFailedError("failed", cause, "NON_RETRYABLE_FAILURE" as never);

describe("the newest closed run of a slot", () => {
  const first: PlayedRun = { runId: "run-1", status: "COMPLETED", result: result() };
  const second: PlayedRun = {
    runId: "run-2",
    status: "COMPLETED",
    result: result({ oldKey: { id: "key_b" }, newKey: { id: "key_c" } }),
  };
  const own: PlayedRun = { runId: "run-3", status: "RUNNING" };

  test("is the one that the server describes, though the search index does not show it yet", async () => {
    const { runs } = played([first, second], { indexed: [first] });
    expect(await runs.lastClosed(slot)).toMatchObject({ runId: "run-2", status: "COMPLETED" });
    expect(await runs.lastInstalledKey(slot)).toBe("key_c");
  });

  test("is the one its starter saw before it started, while the run that asks is open", async () => {
    const { runs } = played([first, second, own], { indexed: [first] });
    expect(await runs.lastInstalledKey(slot, { hint: "run-2", except: "run-3" })).toBe("key_c");
  });

  test("is what the search index shows where nobody saw the former one", async () => {
    const { runs } = played([first, second, own]);
    expect(await runs.lastClosed(slot, { except: "run-3" })).toMatchObject({ runId: "run-2" });
    expect(await played([first, second, own], { indexed: [] }).runs.lastClosed(slot)).toBeUndefined();
    expect(await played([]).runs.lastClosed(slot)).toBeUndefined();
  });

  test("has among its keys what runs before it named, where it ended before it had looked at the slot", async () => {
    const named = (id: string): KeyEntry => ({ id, role: "old", fate: "named", why: "clients may still use it" });
    const keys = [named("key_a"), { id: "key_b", role: "new", fate: "held" }];
    const looked = { ...first, result: result({ keys, leftOver: [{ id: "key_a", why: "clients may still use it" }] }) };
    const cancelled: PlayedRun = {
      runId: "run-2",
      status: "COMPLETED",
      result: result({ outcome: "aborted", newKey: null, keys: [named("key_x")], steps: [] }),
    };
    const failed: PlayedRun = { ...cancelled, runId: "run-3", result: result({ outcome: "aborted", steps: [] }) };
    const older: PlayedRun = { ...first, runId: "run-0", result: result({ keys: [named("key_0")] }) };
    const { runs } = played([older, looked, cancelled, failed]);
    const closed = await runs.lastClosed(slot);
    expect(closed).toMatchObject({ runId: "run-3", result: { outcome: "aborted", leftOver: [{ id: "key_a" }] } });
    expect(closed?.result?.keys).toEqual([named("key_x"), named("key_a")]);
    expect(await runs.lastInstalledKey(slot)).toBeUndefined();
    // One that cannot be asked any more is said to be so.
    const lost: PlayedRun = {
      runId: "run-1",
      status: "TERMINATED",
      failed: failedWith(new TerminatedFailure("ended")),
    };
    expect(await played([lost, failed]).runs.lastClosed(slot)).toEqual({ runId: "run-1", status: "TERMINATED" });
  });

  test("is never a run that went on as another one", async () => {
    const wentOn: PlayedRun = { runId: "run-2", status: "CONTINUED_AS_NEW" };
    const { runs } = played([first, wentOn, own]);
    expect(await runs.lastClosed(slot, { hint: "run-2", except: "run-3" })).toMatchObject({ runId: "run-1" });
  });

  test("tells its result also where it failed", async () => {
    const told = result({ outcome: "aborted", newKey: null });
    const failure = ApplicationFailure.create({ type: "KeyRejected", message: "refused", details: [told] });
    const { runs } = played([{ runId: "run-1", status: "FAILED", failed: failedWith(failure) }]);
    expect(await runs.lastClosed(slot)).toEqual({ runId: "run-1", status: "FAILED", result: told });
    expect(await runs.lastInstalledKey(slot)).toBeUndefined();
  });

  test("is asked for its progress where it was ended from outside, and names the keys it had not settled", async () => {
    const keys: KeyEntry[] = [
      { id: "key_a", role: "old", fate: "ended", at: "2026-11-27T00:00:00Z", seen: true },
      { id: "key_b", role: "new", fate: "open" },
    ];
    const progress = { slot, kind: "normal", rotationId: "r", oldKey: null, newKey: null, times: {}, steps: [], keys };
    const ended = { runId: "run-1", status: "TERMINATED", failed: failedWith(new TerminatedFailure("ended")) };
    const { runs } = played([{ ...ended, progress }]);
    const { result: told } = (await runs.lastClosed(slot)) ?? {};
    expect(told?.keys).toEqual([
      keys[0],
      { id: "key_b", role: "new", fate: "named", why: expect.stringMatching("terminated") },
    ]);
    expect(told?.leftOver.map(({ id }) => id)).toEqual(["key_b"]);
    expect(await played([ended]).runs.lastClosed(slot)).toEqual({ runId: "run-1", status: "TERMINATED" });
  });

  test("of a run that kept its key tells which one", async () => {
    const kept = result({ outcome: "kept", oldKey: { id: "key_c" }, newKey: null });
    const { runs } = played([first, { runId: "run-2", status: "COMPLETED", result: kept }]);
    expect(await runs.lastInstalledKey(slot)).toBe("key_c");
  });
});

describe("an update on another run", () => {
  const open: PlayedRun = { runId: "run-2", status: "RUNNING" };

  test("goes to the open run of the id, which after a hand-over is another one, and its answer comes back whole", async () => {
    const { runs, updates } = played([open]);
    expect(await runs.update({ workflowId, update: "submitKey", arg: {} }, "u")).toEqual({ taken: { id: "key_c" } });
    expect(updates).toEqual([{ runId: undefined, update: "submitKey" }]);
  });

  test("that is refused fails as the run refused it", async () => {
    const { runs, refuse } = played([open]);
    const order = { workflowId, update: "escalate", arg: {} };
    refuse(new WorkflowUpdateFailedError("failed", ApplicationFailure.nonRetryable("knows no such key", "KeyUnknown")));
    await expect(runs.update(order, "u")).rejects.toMatchObject({
      type: "KeyUnknown",
      message: "knows no such key",
      retried: false,
    });
    refuse(new WorkflowUpdateFailedError("failed", ApplicationFailure.nonRetryable("no", "SomethingElse")));
    await expect(runs.update(order, "u")).rejects.toMatchObject({ type: "InvalidInput" });
    refuse(new WorkflowNotFoundError("gone", workflowId, undefined));
    await expect(runs.update(order, "u")).rejects.toMatchObject({ type: "SlotMissing" });
  });
});

describe("an open rotation", () => {
  test("tells every key it answers for", async () => {
    const progress = {
      rotationId: "r",
      oldKey: { id: "key_a" },
      newKey: null,
      keys: [{ id: "key_a" }, { id: "key_x" }],
    };
    const { runs } = played([{ runId: "run-1", status: "RUNNING", progress }]);
    expect(await runs.openRotations([slot])).toEqual([
      { slot, workflowId, rotationId: "r", keyIds: ["key_a", "key_x"] },
    ]);
  });
});
