import { describe, expect, test } from "vitest";

import { type FailureType, failureTypes, RotationFailure } from "../../src/domain/failure.ts";

/** The table of the design, once more: what waiting can mend is tried again, and nothing else (promise 11). */
const mendedByWaiting: FailureType[] = ["RateLimited", "Unavailable", "NotYetPropagated"];

describe("the table of failures", () => {
  test.each(Object.keys(failureTypes) as FailureType[])("decides about %s", (type) => {
    expect(new RotationFailure(type, "x").retried).toBe(mendedByWaiting.includes(type));
  });

  test("knows every type that a person or a workflow acts on", () => {
    expect(Object.keys(failureTypes).toSorted()).toEqual(
      [
        ...mendedByWaiting,
        "AdminCredentialRejected",
        "KeyRejected",
        "KeyLimitReached",
        "SlotMissing",
        "SlotChanged",
        "KeyStillUsed",
        "KeyAmbiguous",
        "KeyUnknown",
        "NobodyDecided",
        "InvalidInput",
        "SlotBusy",
        "SealUnreadable",
        "RequestInvalid",
        "ResponseUnexpected",
      ].toSorted(),
    );
  });

  test("lets a caller overrule it, and carries the wait a service asks for", () => {
    const settling = new RotationFailure("KeyRejected", "refused", { retried: true, retryAfterMs: 1_000 });
    expect(settling).toMatchObject({ type: "KeyRejected", retried: true, retryAfterMs: 1_000, message: "refused" });
    expect(new RotationFailure("Unavailable", "down", { retried: false }).retried).toBe(false);
  });

  test("carries what a workflow reads of it, where there is something", () => {
    expect(new RotationFailure("KeyUnknown", "no such key").details).toEqual([]);
    const details = [{ keyIds: ["key_prod_l"] }];
    expect(new RotationFailure("KeyUnknown", "no such key", { details }).details).toEqual(details);
  });
});
