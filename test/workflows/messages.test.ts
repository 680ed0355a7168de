import { ApplicationFailure } from "@temporalio/common";
import { describe, expect, test } from "vitest";

import {
  abortInput,
  approvalInput,
  emergencyRotationInput,
  escalationInput,
  normalRotationInput,
  parseInput,
  submissionInput,
} from "../../src/workflows/messages.ts";

/** What is taken stands in the history; an update that is refused leaves no trace (promise 7). */

const value = `sk-svcacct-${"made-up".repeat(12)}`;
const slot = "production/openai";

describe("a key's value", () => {
  test.each([
    ["a start's held key", normalRotationInput, { slot, heldKeyId: value }],
    ["a start's compromised key", emergencyRotationInput, { slot, compromisedKeyId: value }],
    ["one of several", emergencyRotationInput, { slot, compromisedKeyIds: ["key_1", value] }],
    ["an escalation", escalationInput, { compromisedKeyId: value }],
    ["a submission", submissionInput, { sealed: "sealed", keyId: value }],
    ["a submission that nobody sealed", submissionInput, { sealed: value }],
    ["the reason of an approval", approvalInput, { why: `it is ${value}` }],
    ["the reason of an abort", abortInput, { why: `leaked: ${value}` }],
  ])("in place of an id or among words is refused, and not repeated: %s", (_, schema, input) => {
    let failure: unknown;
    try {
      parseInput(schema, input, "escalate");
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(ApplicationFailure);
    expect(failure).toMatchObject({
      type: "InvalidInput",
      message: expect.stringContaining("value of a key") as string,
    });
    expect(String((failure as Error).message)).not.toContain(value);
  });

  test("ids as providers give them are taken", () => {
    const ids = ["key_abc", "apikey_01AbC", "12345678-9abc-def0-1234-56789abcdef0", "by-hand-0123456789abcdef"];
    expect(parseInput(emergencyRotationInput, { slot, compromisedKeyIds: ids }, "emergencyRotation")).toMatchObject({
      compromisedKeyIds: ids,
    });
  });
});
