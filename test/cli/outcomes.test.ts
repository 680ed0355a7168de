import { WorkflowFailedError } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { describe, expect, test } from "vitest";

import { whatAbortLeaves } from "../../src/cli/abort.ts";
import { describeLeaked, describeResult } from "../../src/cli/describe-result.ts";
import { describeFailure, exitCodeOf, exitCodeOfResult } from "../../src/cli/failures.ts";
import { exitCodeOfLeaked } from "../../src/cli/leaked.ts";
import type { KeyEntry } from "../../src/domain/custody.ts";
import type { FailureType } from "../../src/domain/failure.ts";
import type { RotationResult } from "../../src/domain/rotation.ts";

/** How a run ended, for scripts and for people. */

const slot = "production/openai";
const held: KeyEntry = { id: "key_new", role: "new", fate: "held", why: `${slot} holds it` };
const ended: KeyEntry = { id: "key_bad", role: "compromised", fate: "ended", at: "2026-11-27T02:40:00Z", seen: true };
const alive: KeyEntry = {
  id: "key_bad",
  role: "compromised",
  fate: "named",
  why: "the emergency was called off by ada",
};

const result = (changes: Partial<RotationResult> = {}): RotationResult => ({
  slot,
  kind: "emergency",
  outcome: "rotated",
  reason: "it leaked",
  rotationId: "r",
  oldKey: { id: "key_bad" },
  newKey: { id: "key_new" },
  times: { started: "2026-11-27T02:30:00Z" },
  keys: [held, ended],
  unknown: [],
  leftOver: [],
  warnings: [],
  steps: [],
  ...changes,
});

describe("exit codes", () => {
  test.each<[string, Partial<RotationResult>, number]>([
    ["rotated", {}, 0],
    ["kept", { outcome: "kept" }, 0],
    ["joined", { outcome: "joined" }, 0],
    ["aborted", { outcome: "aborted", keys: [held] }, 1],
    ["cut, while the slot holds a working key", { outcome: "cut", newKey: null }, 0],
    ["cut, and the slot holds no working key", { outcome: "cut", newKey: null, keys: [ended] }, 1],
    ["cut, and requests still fail", { outcome: "cut", outage: { from: "2026-11-27T02:40:00Z" } }, 1],
    ["rotated, and a compromised key may be alive", { keys: [held, alive] }, 1],
    ["joined, and a compromised key may be alive", { outcome: "joined", keys: [alive] }, 1],
    ["rotated, and another key was left over", { keys: [held, ended, { ...alive, role: "old" }] }, 0],
  ])("of a run that ended as %s", (_, changes, code) => {
    expect(exitCodeOfResult(result(changes))).toBe(code);
  });

  test.each<[FailureType, number]>([
    ["InvalidInput", 2],
    ["SlotBusy", 4],
    ["KeyAmbiguous", 4],
    ["KeyUnknown", 1],
    ["NobodyDecided", 1],
    ["SlotChanged", 1],
  ])("of a failure of type %s", (type, code) => {
    expect(exitCodeOf(type)).toBe(code);
  });

  test("of a leaked value is the worst of its slots", () => {
    expect(exitCodeOfLeaked({ results: [result(), result()], failed: [] })).toBe(0);
    expect(exitCodeOfLeaked({ results: [result(), result({ outcome: "aborted" })], failed: [] })).toBe(1);
    expect(exitCodeOfLeaked({ results: [result()], failed: [{ slot, type: "SlotBusy", message: "" }] })).toBe(4);
    const both = { results: [result({ outcome: "aborted" })], failed: [{ slot, type: "SlotBusy", message: "" }] };
    expect(exitCodeOfLeaked(both)).toBe(1);
  });
});

describe("a failure's details", () => {
  const failed = (details: unknown[]) =>
    describeFailure(
      new WorkflowFailedError(
        "failed",
        ApplicationFailure.create({ type: "KeyAmbiguous", message: "which key?", details }),
        "NON_RETRYABLE_FAILURE" as never,
      ),
    );

  test("hold the result so far, and the keys to choose from", () => {
    const candidates = [{ id: "key_a" }, { id: "key_b" }];
    expect(failed([{ candidates }])).toEqual({ type: "KeyAmbiguous", message: "which key?", candidates });
    expect(failed([result(), { candidates }])).toMatchObject({ result: { slot }, candidates });
  });
});

describe("the words for a result", () => {
  test("name each key with where it is, and how that is known", () => {
    const accepted: KeyEntry = {
      id: "key_c",
      role: "handed-in",
      fate: "ended",
      at: "2026-11-27T02:41:00Z",
      seen: false,
    };
    const named: KeyEntry = { id: "key_d", role: "earlier", fate: "named", why: "clients may still use it" };
    const said = describeResult(result({ keys: [held, ended, accepted, named] }));
    expect(said).toMatch(/held +key_new \(new key\): production\/openai holds it/);
    expect(said).toMatch(/ended +key_bad \(COMPROMISED\) at .*: seen dead/);
    expect(said).toMatch(/ended +key_c \(handed-in key\) at .*accepted it; that it is dead was not seen/);
    expect(said).toMatch(/left over +key_d \(earlier key\): clients may still use it/);
  });

  test("say aloud that a compromised key may be alive, and what to do about it", () => {
    const said = describeResult(result({ outcome: "aborted", keys: [alive] }));
    expect(said).toMatch(/left over +key_bad \(COMPROMISED, AND MAY BE ALIVE\): the emergency was called off by ada/);
    expect(said).toMatch(
      /to do +keyturn emergency production\/openai --key key_bad; keyturn keys production\/openai says/,
    );
  });

  test("of a cut say which key the slot keeps, or that it has none", () => {
    const cut = { outcome: "cut", newKey: null } as const;
    expect(describeResult(result(cut))).toContain("is cut; the slot keeps key_new");
    const elsewhere: KeyEntry = { ...held, why: "production/openai:batch holds it" };
    expect(describeResult(result({ ...cut, keys: [elsewhere, ended] }))).toContain("is cut; the slot got no new key");
  });

  test("of a cut alone do not miss a new key that was never meant to go in", () => {
    const at = (minute: string): string => `2026-11-27T02:${minute}:00Z`;
    const clocks = { told: at("30"), installBy: at("35"), revokeBy: at("59"), revoked: at("31") };
    const times = { started: at("30"), finished: at("40") };
    const alone = { outcome: "cut", newKey: null, clocks, times } as const;
    expect(describeResult(result(alone))).toMatch(/clocks +compromised key cut at .* \(in time\)/);
    const tried = [{ step: "issueKey", started: "", outcome: "failed" as const }];
    expect(describeResult(result({ ...alone, steps: tried }))).toContain("new key never in");
  });

  test("say what was asked and what was looked at, and where that is less", () => {
    const incident = {
      compromisedKey: { id: "key_bad" },
      from: "2026-11-27T02:29:25Z",
      to: "2026-11-27T03:30:00Z",
      providerRequests: 0,
      providerTokens: 0,
      strangers: [],
      strangeModels: [],
      notes: [],
    };
    const asked = "2026-11-25T02:30:00Z";
    const less = describeResult(result({ incident: { ...incident, asked } }));
    expect(less).toMatch(/asked about +key_bad since 2026-11-25/);
    expect(less).toMatch(/looked at +key_bad, .*: LESS THAN WAS ASKED/);
    expect(describeResult(result({ incident: { ...incident, asked, from: asked } }))).not.toContain("LESS");
    expect(describeResult(result({ incident }))).not.toContain("asked about");
  });

  test("of a leaked value have one result for each slot, and the failures", () => {
    const said = describeLeaked({
      keyIds: ["key_bad"],
      results: [result()],
      failed: [{ slot: "staging/openai", type: "SlotChanged", message: "somebody changed it" }],
      unknown: [],
    });
    expect(said).toMatch(
      /that of key_bad[\s\S]*production\/openai: rotated[\s\S]*staging\/openai: SlotChanged: somebody/,
    );
  });
});

describe("an abort", () => {
  const clocks = { told: "", installBy: "", revokeBy: "2026-11-27T03:30:00Z" };

  test("says of a compromised key that it is alive, and that nobody will cut it", () => {
    const said = whatAbortLeaves(slot, { kind: "emergency", keys: [held, { ...alive, fate: "open" }], clocks }).join(
      "\n",
    );
    expect(said).toMatch(/key_bad is COMPROMISED AND ALIVE.*NOBODY WILL CUT IT, not at .* either/);
    expect(said).toContain(`keyturn emergency ${slot} --key key_bad`);
  });

  test("of a run without one asks nothing", () => {
    expect(whatAbortLeaves(slot, { kind: "normal", keys: [held, { ...alive, role: "old" }] })).toEqual([]);
    expect(whatAbortLeaves(slot, { kind: "emergency", keys: [held, ended] })).toEqual([]);
  });
});
