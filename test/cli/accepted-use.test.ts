import { describe, expect, test } from "vitest";

import { acceptedUse } from "../../src/cli/accepted-use.ts";
import type { Duration } from "../../src/domain/duration.ts";
import type { Asks, Wait } from "../../src/domain/rotation.ts";

const policy = { quietPeriod: "15m" as Duration, usageLag: "15m" as Duration };
const now = Date.parse("2026-11-23T12:00:00Z");
const waiting = (asks: Asks): Wait => ({
  id: "w3",
  for: "the old key to be idle",
  since: "",
  until: "",
  then: "",
  asks,
});
const idle = (accepts?: string) => ({
  oldKey: { id: "key_1" },
  waiting: waiting({ kind: "approval", of: "use", ...(accepts === undefined ? {} : { accepts }) }),
});

describe("the use that an approval accepts in the wait for idleness", () => {
  test.each([
    ["seconds ago", "2026-11-23T11:59:40Z", true, /key_1 was last used 20s ago.*REQUESTS WILL FAIL/],
    ["within quiet period and lag", "2026-11-23T11:31:00Z", true, /29m ago.*REQUESTS WILL FAIL/],
    ["longer ago", "2026-11-23T11:20:00Z", false, /^key_1 was last used 40m ago, as far as the provider's data goes$/],
    ["never, by the provider's data", undefined, false, /shows no use of key_1 so far, and its data comes late/],
    [
      "said in words, since no time is known",
      "use that cannot be told",
      true,
      /accepts of key_1: use that cannot be told/,
    ],
  ])("%s", (_, accepts, recent, words) => {
    expect(acceptedUse(idle(accepts), policy, now)).toEqual({ recent, words: expect.stringMatching(words) });
  });

  test("is none in any other wait", () => {
    const before: Asks = { kind: "approval", of: "before-revoke", accepts: "2026-11-23T11:59:40Z" };
    expect(acceptedUse({ ...idle(), waiting: waiting(before) }, policy, now)).toBeUndefined();
    expect(acceptedUse({ ...idle(), waiting: null }, policy, now)).toBeUndefined();
  });
});
