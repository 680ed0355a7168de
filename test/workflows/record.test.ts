import { describe, expect, test, vi, afterEach, beforeEach } from "vitest";

import { RotationRecord } from "../../src/workflows/rotation/record.ts";

/** The one object that the query, the UI and the result show. Its clock is the workflow's; here it is held. */

const at = (time: string): string => `2026-11-27T${time}.000Z`;
const record = (carried?: ConstructorParameters<typeof RotationRecord>[0]["carried"]): RotationRecord =>
  new RotationRecord({ slot: "production/openai", kind: "normal", rotationId: "r-1", carried });
const plan = { for: "caches", until: at("12:00:00"), then: "it goes on" };

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse(at("10:00:00")), toFake: ["Date"] });
});
afterEach(() => {
  vi.useRealTimers();
});
const pass = (minutes: number): void => void vi.setSystemTime(Date.now() + minutes * 60_000);

describe("steps", () => {
  test("are told in their order, those that took no time with one time", () => {
    const told = record();
    const step = told.begin("inspectSlot");
    pass(1);
    step.outcome = "done";
    step.ended = at("10:01:00");
    told.note("disableKey", "skipped", "this provider cannot undo it");
    expect(told.progress().steps).toEqual([
      { step: "inspectSlot", started: at("10:00:00"), ended: at("10:01:00"), outcome: "done" },
      {
        step: "disableKey",
        started: at("10:01:00"),
        ended: at("10:01:00"),
        outcome: "skipped",
        note: "this provider cannot undo it",
      },
    ]);
  });

  test("show the one that runs, though another was over meanwhile", () => {
    const told = record();
    expect(told.progress().phase).toBe("starting");
    told.begin("awaitIdle");
    const remedy = told.begin("purgeCache");
    expect(told.progress().phase).toBe("purgeCache");
    remedy.outcome = "done";
    expect(told.progress().phase).toBe("awaitIdle");
  });

  test("cannot be changed through what was told of them", () => {
    const told = record();
    told.begin("inspectSlot");
    const [step] = told.progress().steps;
    if (step !== undefined) step.outcome = "failed";
    expect(told.progress().steps[0]?.outcome).toBe("running");
  });
});

describe("waits", () => {
  test("bear ids that are never used again", () => {
    const told = record();
    const first = told.open(plan);
    told.close(first);
    const second = told.open(plan);
    expect(second.id).not.toBe(first.id);
    expect(told.waiting).toEqual({ ...plan, id: second.id, since: at("10:00:00") });
  });

  test("show the one for a person first, then the one that began last", () => {
    const told = record();
    expect(told.waiting).toBeNull();
    told.open({ ...plan, for: "first" });
    const person = told.open({ ...plan, for: "a person", person: true });
    told.open({ ...plan, for: "last" });
    expect(told.waiting?.for).toBe("a person");
    expect(told.phase).toBe("waiting-for-a-person");
    told.close(person);
    expect(told.waiting?.for).toBe("last");
    expect(told.phase).toBe("preparing");
  });

  test("are found by what they take of a person", () => {
    const told = record();
    const key = told.open({
      ...plan,
      asks: { kind: "key", name: "n", keyType: "t", belongsTo: "b", where: "w", livesAtLeast: "90d" },
    });
    expect(told.waitFor("approval")).toBeUndefined();
    expect(told.waitFor("key")).toEqual(key);
    const revocation = told.open({ ...plan, asks: { kind: "revocation", keyId: "key_old", which: "w", where: "w" } });
    expect(told.waitFor("approval")).toEqual(revocation);
    const use = told.open({ ...plan, asks: { kind: "approval", of: "use", accepts: at("09:00:00") } });
    expect(told.waitFor("approval")).toEqual(use);
  });

  test("that were closed before are closed once", () => {
    const told = record();
    const first = told.open(plan);
    const second = told.open(plan);
    told.close(first);
    told.close(first);
    expect(told.waiting?.id).toBe(second.id);
  });
});

describe("times", () => {
  test("of the installation stand beside the clocks too", () => {
    const told = record();
    told.clocks = { told: at("10:00:00"), installBy: at("10:05:00"), revokeBy: at("11:00:00") };
    told.reached("installed", at("10:02:00"));
    expect(told.times).toMatchObject({ installed: at("10:02:00") });
    expect(told.clocks).toMatchObject({ installed: at("10:02:00") });
  });

  test("of an answer that came before the cut end an outage where it began", () => {
    const told = record();
    told.outages.open(undefined, at("10:10:00"));
    told.verified(at("10:09:00"));
    expect(told.times).toMatchObject({ verified: at("10:09:00") });
    expect(told.outages.shown).toEqual({ from: at("10:10:00"), until: at("10:10:00") });
  });

  test("are now where nobody says when", () => {
    const told = record();
    pass(5);
    told.reached("verified");
    expect(told.times).toEqual({ started: at("10:00:00"), verified: at("10:05:00") });
  });
});

describe("the result", () => {
  test("names each key, what stays behind, each warning and each unknown check once", () => {
    const told = record();
    told.custody.take("key_old", "old", { given: true });
    told.custody.settle("key_old", { fate: "named", why: "clients may still use it" });
    told.warn("odd", "odd");
    told.unknown("confirmedDead", "confirmedDead");
    pass(60);
    expect(told.result("rotated", "quarterly")).toMatchObject({
      slot: "production/openai",
      kind: "normal",
      rotationId: "r-1",
      outcome: "rotated",
      reason: "quarterly",
      keys: [{ id: "key_old", role: "old", fate: "named", why: "clients may still use it" }],
      leftOver: [{ id: "key_old", why: "clients may still use it" }],
      warnings: ["odd"],
      unknown: ["confirmedDead"],
      times: { started: at("10:00:00"), finished: at("11:00:00") },
    });
  });

  test("leaves out what there was not", () => {
    const result = record().result("kept", "not due");
    for (const field of ["clocks", "outage", "incident", "nextDue"]) expect(result).not.toHaveProperty(field);
  });

  test("says in capitals that requests fail, as long as no new key was seen to serve", () => {
    const told = record();
    told.outages.open(["production/openai:batch"], at("10:10:00"));
    expect(told.result("cut", "leaked").warnings).toEqual([
      expect.stringMatching(/^REQUESTS FAIL in production\/openai:batch since 2026-11-27T10:10:00.000Z/),
    ]);
    told.outages.close(["production/openai:batch"], at("10:12:00"));
    expect(told.result("rotated", "leaked").warnings).toEqual([
      expect.stringMatching(/^requests could fail .* from .*10:10:00.000Z until .*10:12:00.000Z/),
    ]);
  });
});

describe("a hand-over", () => {
  test("goes on with keys, warnings, unknown checks and the rotation's id, and says what was before", () => {
    const before = record();
    before.custody.take("key_old", "old", { given: true });
    before.warn("the scopes are odd");
    before.unknown("the quota");
    const clock = [{ keyId: "key_new", at: at("10:00:00"), by: "ada" }];
    const carried = before.carry("the rotation was stopped", clock);
    expect(carried).toMatchObject({ rotationId: "r-1", clock });
    const after = record(JSON.parse(JSON.stringify(carried)) as typeof carried);
    const result = after.result("rotated", "leaked");
    expect(result.keys).toEqual([{ id: "key_old", role: "old", fate: "open" }]);
    expect(result.warnings).toEqual(["the scopes are odd", "the rotation was stopped"]);
    expect(result.unknown).toEqual(["the quota"]);
  });
});
