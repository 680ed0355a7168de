import { CompleteAsyncError } from "@temporalio/activity";
import { ApplicationFailure, CancelledFailure } from "@temporalio/common";
import { describe, expect, test } from "vitest";

import { asTemporalFailure } from "../../src/activities/failures.ts";
import { RotationFailure } from "../../src/domain/failure.ts";
import { startStage } from "../support/activities.ts";

const key = "sk-svcacct-MadeUpMadeUpMadeUpMadeUp1234";

describe("what Temporal keeps of a failure (promise 4)", () => {
  test("is the type, whether and when to repeat, and the sentence", () => {
    const failure = asTemporalFailure(new RotationFailure("RateLimited", "slow down", { retryAfterMs: 7_000 }));
    expect(failure).toMatchObject({
      type: "RateLimited",
      message: "slow down",
      nonRetryable: false,
      nextRetryDelay: 7_000,
    });
    expect(asTemporalFailure(new RotationFailure("KeyRejected", "no"))).toMatchObject({ nonRetryable: true });
  });

  test.each([
    ["ours", new RotationFailure("RequestInvalid", `refused ${key}`)],
    ["a bug's", new TypeError(`cannot read ${key}`)],
    ["a library's", new Error(`request with ${key} failed`, { cause: new Error(key) })],
    ["no error", `just ${key}`],
  ])("never holds a key, where it is %s: not in message, stack or cause", (_, error) => {
    const failure = asTemporalFailure(error);
    expect(failure).toBeInstanceOf(ApplicationFailure);
    const { message, stack, cause, details } = failure as ApplicationFailure;
    expect(message).toContain("[redacted]");
    expect([message, stack, String(cause), JSON.stringify(details)].join()).not.toContain("MadeUp");
  });

  test("is what a workflow reads of it too, with each text in it masked alike", () => {
    const details = [{ keyIds: ["key_1", key], sent: false, count: 2, nothing: null }, `just ${key}`];
    const failure = asTemporalFailure(new RotationFailure("KeyUnknown", "no such key", { details }));
    expect((failure as ApplicationFailure).details).toEqual([
      { keyIds: ["key_1", "[redacted]"], sent: false, count: 2, nothing: null },
      "just [redacted]",
    ]);
    expect((asTemporalFailure(new RotationFailure("KeyUnknown", "no")) as ApplicationFailure).details ?? []).toEqual(
      [],
    );
  });

  test("repeats what a library threw, and not a bug of ours", () => {
    expect(asTemporalFailure(new Error("odd"))).toMatchObject({ nonRetryable: false, type: "Error" });
    expect(asTemporalFailure(new TypeError("odd"))).toMatchObject({ nonRetryable: true, type: "RequestInvalid" });
  });

  test("leaves Temporal's own failures and cancellations alone", () => {
    const abort = new DOMException("stopped", "AbortError");
    for (const own of [
      new CancelledFailure("x"),
      ApplicationFailure.nonRetryable("x"),
      new CompleteAsyncError(),
      abort,
    ]) {
      expect(asTemporalFailure(own)).toBe(own);
    }
  });
});

test("runs are found and updated on the server the worker is connected to", async () => {
  const stage = await startStage();
  await expect(stage.run("findRun", { workflowId: "keyturn/none" })).rejects.toMatchObject({ type: "SlotMissing" });
  const order = { workflowId: "keyturn/x", runId: "r", update: "approve", arg: {} };
  expect(await stage.run("updateRun", order)).toBe("approve");
});
