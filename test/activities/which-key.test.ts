import { describe, expect, test } from "vitest";

import type { ClosedRun } from "../../src/activities/dependencies.ts";
import { whichKeyActivities } from "../../src/activities/which-key.ts";
import type { KeyEntry } from "../../src/domain/custody.ts";
import { RotationFailure } from "../../src/domain/failure.ts";
import { keyName } from "../../src/domain/key-name.ts";
import { parseSlot } from "../../src/domain/slot.ts";
import { Redacted } from "../../src/redacted.ts";
import type { Sealing } from "../../src/sealing.ts";
import { prod, prodGateway, type Stage, staging, stagingGateway, startStage } from "../support/activities.ts";

/** Which key is meant, before anything is done to it. */

const old = "key_prod_1";
const ago = (ms: number): string => new Date(Date.now() - ms).toISOString();
const hour = 3_600_000;

/** A closed run of the slot that said this of its keys. */
const closed = (keys: KeyEntry[], changes: Partial<ClosedRun> = {}): ClosedRun => ({
  runId: "run-1",
  status: "COMPLETED",
  result: {
    slot: staging,
    kind: "normal",
    outcome: "aborted",
    reason: "aborted by ada",
    rotationId: "1a2b3c4d-0000-4000-8000-000000000000",
    oldKey: null,
    newKey: null,
    times: { started: ago(hour) },
    keys,
    unknown: [],
    leftOver: [],
    warnings: [],
    steps: [],
  },
  ...changes,
});

const named = (id: string): KeyEntry => ({ id, role: "old", fate: "named", why: "clients may still use it" });

describe("planEmergency", () => {
  test("means the key the slot holds, and says what it looks like, who made it and where it is held", async () => {
    const stage = await startStage();
    const plan = await stage.run("planEmergency", {});
    expect(plan).toMatchObject({
      slot: prod,
      account: stage.env["CLOUDFLARE_ACCOUNT_ID"],
      gateway: prodGateway,
      keys: [
        {
          id: old,
          ending: (await stage.valueOf(old)).slice(-4),
          state: "alive",
          what: "held",
          heldBy: [prod],
          heldUnknown: [],
          through: prod,
          madeBy: expect.stringMatching(/^not keyturn/),
          createdAt: expect.any(String),
        },
      ],
      unknown: [],
      warnings: [],
    });
    expect(plan.held).toEqual(plan.keys[0]);
    expect(plan.ambiguous).toBeUndefined();
  });

  test("does not guess where the key that was there is alive beside the one a stopped rotation installed", async () => {
    // rotate, abort after the install, then an emergency "since 48 hours": it cut the key that was 35 seconds old.
    const run: { last?: ClosedRun } = {};
    const stage = await startStage({ lastClosed: () => Promise.resolve(run.last) });
    const { key } = await stage.installed();
    run.last = closed([named(old), { id: key.id, role: "new", fate: "held", why: `${prod} holds it` }]);
    const plan = await stage.run("planEmergency", { since: ago(48 * hour) });
    expect(plan.keys).toEqual([]);
    expect(plan.ambiguous?.why).toMatch(
      new RegExp(`${key.id}.*younger than.*; ${old}, a former key of the slot, may be alive`),
    );
    expect(plan.ambiguous?.candidates).toMatchObject([
      { id: key.id, what: "held", madeBy: expect.stringMatching(/^keyturn, rotation/) },
      { id: old, what: "left over", leftOver: expect.stringMatching(/run-1.*clients may still use it/) },
    ]);
    const one = await stage.run("planEmergency", { since: ago(48 * hour), keyIds: [old] });
    expect(one).toMatchObject({ keys: [{ id: old, what: "left over" }], held: { id: key.id } });
    expect(one.ambiguous).toBeUndefined();
    expect((await stage.run("planEmergency", { keyIds: [old, key.id] })).keys.map(({ id }) => id)).toEqual([
      old,
      key.id,
    ]);
  });

  test("does not guess where the held key is younger than the time since when it may be known", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${old}`);
    const { ambiguous } = await stage.run("planEmergency", { since: ago(hour) });
    expect(ambiguous).toMatchObject({ why: expect.stringContaining("younger than"), candidates: [{ id: key.id }] });
    expect((await stage.run("planEmergency", { since: ago(1) })).keys).toMatchObject([{ id: key.id }]);
  });

  test("does not guess where a key of our exact name for the slot lives that the slot does not hold", async () => {
    const stage = await startStage();
    const slot = parseSlot(prod);
    if (slot === undefined) throw new Error("no slot");
    const stray = await stage.keyByHand(keyName("acme", slot, "feedbeef-0000", "2-1"));
    await stage.keyByHand("kt.acme.production.openai.default.notes");
    await stage.keyByHand(keyName("other", slot, "feedbeef-0000", "2-1"));
    const { ambiguous } = await stage.run("planEmergency", {});
    expect(ambiguous?.candidates.map(({ id }) => id).toSorted()).toEqual([stray.id, old].toSorted());
  });

  test("goes by no left-over key that is seen dead", async () => {
    const stage = await startStage({ lastClosed: () => Promise.resolve(closed([named("key_long_gone")])) });
    expect((await stage.run("planEmergency", {})).keys).toMatchObject([{ id: old }]);
  });

  test("calls no key dead that one list or one read misses: held, former, or named", async () => {
    const stage = await startStage({ lastClosed: () => Promise.resolve(closed([named(old)])) });
    const { key } = await stage.installed();
    const missing = { about: "openai-keys", mode: "missing", times: 1 };
    const unseen = { about: "openai-keys", mode: "not-found", times: 1 };
    await stage.lie({ ...missing, which: key.id });
    expect((await stage.run("planEmergency", { keyIds: [old] })).held).toMatchObject({ id: key.id, state: "alive" });
    await stage.lie({ ...missing, which: key.id });
    expect((await stage.run("listSlotKeys", {})).keys.find(({ id }) => id === key.id)).toMatchObject({
      state: "alive",
    });
    // A former key that lives is asked about, whatever one look says.
    await stage.lie({ ...missing, which: old });
    await stage.lie({ ...unseen, which: old });
    expect((await stage.run("planEmergency", {})).ambiguous?.candidates.map(({ id }) => id)).toContain(old);
    await stage.lie({ ...unseen, which: old });
    expect((await stage.run("planEmergency", { keyIds: [old] })).keys).toMatchObject([{ id: old, state: "alive" }]);
  });

  test("does not ask which key the slot holds because one list misses it", async () => {
    const stage = await startStage();
    await stage.lie({ about: "openai-keys", mode: "missing", which: old, times: 1 });
    expect((await stage.run("planEmergency", {})).keys).toMatchObject([{ id: old, state: "alive" }]);
  });

  test("asks for the key where nothing tells which one the slot holds", async () => {
    const stage = await startStage();
    await stage.edit(prodGateway, { value: "sk-svcacct-MadeUpMadeUpMadeUpMadeUp1234" });
    const { ambiguous, keys } = await stage.run("planEmergency", {});
    expect(keys).toEqual([]);
    expect(ambiguous).toMatchObject({ why: expect.stringContaining("unknown"), candidates: [{ id: old }] });
  });

  test("refuses an id that nobody knows", async () => {
    const stage = await startStage();
    await expect(stage.run("planEmergency", { keyIds: ["key_prod_l"] })).rejects.toMatchObject({ type: "KeyUnknown" });
  });

  test("doubts aloud another project's key, and says who else holds it and would hold on to it", async () => {
    const stage = await startStage();
    const plan = await stage.run("planEmergency", { slot: staging, keyIds: [old] });
    expect(plan).toMatchObject({ keys: [{ id: old, through: prod, heldBy: [prod], what: "unknown" }] });
    expect(plan.warnings.join()).toContain(`${old} is a key of the project of ${prod}, not of ${staging}'s`);
    expect(plan.held).toMatchObject({ id: "key_stg_1" });
  });

  test("says that only people can end keys where no admin credential is configured", async () => {
    const stage = await startStage({ env: { OPENAI_ADMIN_KEY: "" } });
    const plan = await stage.run("planEmergency", {});
    expect(plan).toMatchObject({
      byHand: "OPENAI_ADMIN_KEY is not set",
      keys: [{ id: expect.stringMatching(/^ends-in-/), what: "held", state: "unknown" }],
    });
  });

  test("of a key that was named needs no word of the last run, and says that it has none", async () => {
    const away = () => Promise.reject(new RotationFailure("Unavailable", "Temporal does not answer"));
    const stage = await startStage({ lastClosed: away });
    const plan = await stage.run("planEmergency", { keyIds: [old] });
    expect(plan.keys).toMatchObject([{ id: old }]);
    expect(plan.unknown.join()).toContain("Temporal does not answer");
    await expect(stage.run("planEmergency", {})).rejects.toMatchObject({ type: "Unavailable" });
  });

  test("changes nothing", async () => {
    const stage = await startStage();
    await stage.run("planEmergency", {});
    await stage.run("listSlotKeys", {});
    expect(await stage.writes()).toEqual([]);
  });
});

describe("listSlotKeys", () => {
  test("lists the live keys of the slot's project: held, ours, left over by which run, unknown", async () => {
    const run: { last?: ClosedRun } = {};
    const stage = await startStage({ lastClosed: () => Promise.resolve(run.last) });
    const { key } = await stage.installed();
    const script = await stage.keyByHand("of a script");
    const slot = parseSlot(prod);
    if (slot === undefined) throw new Error("no slot");
    const ours = await stage.keyByHand(keyName("acme", slot, "feedbeef-0000", "1-1"));
    run.last = closed([named(old)]);
    const { keys, unknown } = await stage.run("listSlotKeys", {});
    expect(unknown).toEqual([]);
    expect(new Map(keys.map(({ id, what }) => [id, what]))).toEqual(
      new Map([
        [key.id, "held"],
        [old, "left over"],
        [script.id, "unknown"],
        [ours.id, "ours"],
      ]),
    );
    expect(keys.find(({ id }) => id === old)?.leftOver).toContain("rotation 1a2b3c4d");
  });

  test("lists a left-over key until it is seen dead, also one whose provider lists it no more", async () => {
    const stage = await startStage({
      env: { OPENAI_ADMIN_KEY: "" },
      lastClosed: () => Promise.resolve(closed([named("key_left")])),
    });
    const { keys, unknown } = await stage.run("listSlotKeys", {});
    expect(keys).toContainEqual(expect.objectContaining({ id: "key_left", what: "left over", state: "unknown" }));
    expect(unknown.join()).toContain("OPENAI_ADMIN_KEY is not set");
  });

  test("lists no dead key", async () => {
    const stage = await startStage({ lastClosed: () => Promise.resolve(closed([named("key_long_gone")])) });
    expect((await stage.run("listSlotKeys", {})).keys.map(({ id }) => id)).toEqual([old]);
  });
});

describe("findLeaked", () => {
  const leak = async (stage: Stage, value: string): Promise<{ leaked: string }> => {
    const { seal }: Pick<Sealing, "seal"> = stage.dependencies;
    return { leaked: await seal(new Redacted(value), { purpose: "leaked" }) };
  };

  test("finds a leaked key by its value over all slots, and each slot that holds it", async () => {
    const stage = await startStage();
    const order = await leak(stage, await stage.valueOf("key_stg_1"));
    expect(await stage.run("findLeaked", order)).toEqual({
      matches: [{ keyId: "key_stg_1", how: "masked value", slots: [staging], held: true }],
      unknown: [],
    });
    const { key } = await stage.installed();
    await stage.edit(stagingGateway, { value: await stage.valueOf(key.id) });
    const { matches } = await stage.run("findLeaked", await leak(stage, await stage.valueOf(key.id)));
    expect(matches).toMatchObject([{ keyId: key.id, how: "fingerprint", held: true }]);
    expect(matches[0]?.slots.toSorted()).toEqual([prod, staging]);
  });

  test("finds a key that one list misses, of its provider or of the slots", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const order = await leak(stage, await stage.valueOf("key_stg_1"));
    await stage.lie({ about: "openai-keys", mode: "missing", which: "key_stg_1", times: 1 });
    expect((await stage.run("findLeaked", order)).matches).toMatchObject([{ keyId: "key_stg_1", slots: [staging] }]);
    const marked = await leak(stage, await stage.valueOf(key.id));
    await stage.lie({ about: "secrets", mode: "missing", which: prodGateway, times: 1 });
    await stage.lie({ about: "openai-keys", mode: "missing", which: key.id, times: 1 });
    expect((await stage.run("findLeaked", marked)).matches).toMatchObject([{ keyId: key.id, slots: [prod] }]);
  });

  test("names the slot through which its provider knows a key that no slot holds", async () => {
    const stage = await startStage();
    const { id, value } = await stage.keyByHand("of a script", "proj_stg", "svc_acct_2");
    expect((await stage.run("findLeaked", await leak(stage, value))).matches).toEqual([
      { keyId: id, how: "masked value", slots: [staging], held: false },
    ]);
  });

  test("says which keys could have a value that fits several, and ends nothing", async () => {
    const stage = await startStage();
    const access = stage.dependencies.slotAccess(prod);
    const record = { name: "n", state: "active", createdAt: new Date(), maskedValue: "sk-svc...1234" };
    const listKeys = () => Promise.resolve(["key_a", "key_b"].map((id) => ({ ...record, id })));
    const several = { ...access, provider: { ...access.provider, listKeys } };
    const { findLeaked } = whichKeyActivities({ ...stage.dependencies, allSlots: () => [several] });
    const order = await leak(stage, "sk-svcacct-MadeUpMadeUpMadeUpMadeUp1234");
    await expect(findLeaked(order)).rejects.toMatchObject({
      type: "KeyAmbiguous",
      details: [{ candidates: [{ id: "key_a" }, { id: "key_b" }] }],
    });
  });

  test("knows no key of a value that nobody shows, and is asked again where somebody could not be asked", async () => {
    const stage = await startStage();
    const order = await leak(stage, "sk-svcacct-MadeUpMadeUpMadeUpMadeUp1234");
    await expect(stage.run("findLeaked", order)).rejects.toMatchObject({ type: "KeyUnknown", nonRetryable: true });
    await stage.fault({ service: "openai", path: "proj_stg/api_keys", mode: "status", status: 503 });
    await expect(stage.run("findLeaked", order)).rejects.toMatchObject({ type: "Unavailable" });
  });
});
