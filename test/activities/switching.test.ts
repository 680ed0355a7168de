import type { MockActivityEnvironment } from "@temporalio/testing";
import { describe, expect, test } from "vitest";

import { mayWrite } from "../../src/activities/fence.ts";
import { revocationActivities } from "../../src/activities/revocation.ts";
import { defined } from "../../src/domain/defined.ts";
import { RotationFailure } from "../../src/domain/failure.ts";
import type { KeyRecord } from "../../src/providers/provider.ts";
import { prod, runHere, type Stage, stagingGateway, startStage } from "../support/activities.ts";

/** Keys that can be switched off and on again. Promise 3: never the key that a slot holds, without revoking it either. */

const old = "key_prod_1";

/** A slot whose provider could switch keys off, which OpenAI cannot: what is switched is noted, and shows. */
async function switchable() {
  const stage = await startStage();
  const { key } = await stage.installed();
  const access = stage.dependencies.slotAccess(prod);
  const switched: string[] = [];
  const off = new Set<string>();
  const refusals: RotationFailure[] = [];
  const offRefusals: RotationFailure[] = [];
  /** Off as a deletion that can be undone: then its value is shown no more either. */
  const deleted = new Set<string>();
  const shown = ({ maskedValue, ...record }: KeyRecord): KeyRecord => {
    if (deleted.has(record.id)) return { ...record, state: "revoked" };
    return { ...record, ...defined({ maskedValue }), ...(off.has(record.id) ? { state: "disabled" } : {}) };
  };
  const provider = Object.assign({}, access.provider, {
    switchable: true as const,
    findKey: async (id: string) => {
      const found = await (
        access.provider as unknown as { findKey(id: string): Promise<KeyRecord | undefined> }
      ).findKey(id);
      return found === undefined ? undefined : shown(found);
    },
  });
  const door = revocationActivities(
    {
      ...stage.dependencies,
      slotAccess: (name) => (name === prod ? { ...access, provider } : stage.dependencies.slotAccess(name)),
    },
    () => ({
      revokeKey: async (id) => void switched.push(`ended ${id}`),
      disableKey: async (id) => {
        await mayWrite();
        const refusal = offRefusals.shift();
        if (refusal !== undefined) throw refusal;
        off.add(id);
        switched.push(`off ${id}`);
      },
      enableKey: async (id) => {
        const refusal = refusals.shift();
        if (refusal !== undefined) throw refusal;
        off.delete(id);
        switched.push(`on ${id}`);
      },
    }),
  );
  const order = { ...stage.of, keyId: old, installedKeyId: key.id };
  return { stage, key, switched, off, deleted, refusals, offRefusals, order, door };
}
const holdInStaging = async (stage: Stage): Promise<void> =>
  stage.edit(stagingGateway, { value: await stage.valueOf(old) });

describe("disableKey (promise 3)", () => {
  test("switches the old key off once the slot holds the new one, and enableKey on again", async () => {
    const { switched, order, door } = await switchable();
    expect(await runHere(() => door.disableKey(order))).toMatchObject({ wasOff: false });
    await runHere(() => door.enableKey(order));
    expect(switched).toEqual([`off ${old}`, `on ${old}`]);
  });

  test("switches nothing off that a slot holds, its own or another", async () => {
    const { stage, key, switched, order, door } = await switchable();
    const refused = runHere(() => door.disableKey({ ...order, keyId: key.id }));
    await expect(refused).rejects.toMatchObject({ type: "SlotChanged" });
    await holdInStaging(stage);
    await expect(runHere(() => door.disableKey(order))).rejects.toMatchObject({
      type: "SlotChanged",
      details: [{ mayBeOff: false }],
    });
    expect(switched).toEqual([]);
  });

  test("is the end of it where off is deleted: that a slot cannot be told from then on holds nothing up", async () => {
    const { switched, deleted, order, door } = await switchable();
    await runHere(() => door.disableKey(order));
    deleted.add(old);
    // Staging's slot bears no mark, and its preview says nothing of a key whose value is not shown.
    expect(await runHere(() => door.revokeKey(order))).toMatchObject({ seen: true });
    expect(switched).toEqual([`off ${old}`]);
  });

  test("says of a key that somebody switched off before that it was off: that is not ours to undo", async () => {
    const { switched, off, order, door } = await switchable();
    off.add(old);
    expect(await runHere(() => door.disableKey(order))).toMatchObject({ wasOff: true });
    expect(switched).toEqual([]);
  });

  test("knows its own hand again after an answer that was lost", async () => {
    const { off, order, door } = await switchable();
    // The attempt before was about to switch it off, and ended by itself.
    off.add(old);
    const told = { facts: { "switches off": old }, ended: 1 };
    const again = runHere(() => door.disableKey(order), {
      attempt: 2,
      heartbeatTimeoutMs: 10_000,
      heartbeatDetails: told,
    });
    expect(await again).toMatchObject({ wasOff: false });
    // It was given up on: it may have come as far.
    const cutOff = runHere(() => door.disableKey(order), { attempt: 2, heartbeatTimeoutMs: 10_000 });
    expect(await cutOff).toMatchObject({ wasOff: false });
    // It ended by itself before it had come as far: then it was somebody else.
    const ended = { attempt: 2, heartbeatTimeoutMs: 10_000, heartbeatDetails: { facts: {}, ended: 1 } };
    expect(await runHere(() => door.disableKey(order), ended)).toMatchObject({ wasOff: true });
  });

  test("lets the next attempt know before it asks its provider", async () => {
    const { order, door, switched } = await switchable();
    const beats: unknown[] = [];
    const onAttempt = (environment: MockActivityEnvironment): void =>
      void environment.on("heartbeat", (details) => beats.push([structuredClone(details), switched.length]));
    await runHere(() => door.disableKey(order), { heartbeatTimeoutMs: 10_000 }, onAttempt);
    expect(beats).toEqual([[{ facts: { "switches off": old } }, 0]]);
  });

  test("says of a failure whether there is something to undo", async () => {
    const { order, door, offRefusals } = await switchable();
    offRefusals.push(new RotationFailure("Unavailable", "no answer"));
    await expect(runHere(() => door.disableKey(order))).rejects.toMatchObject({ details: [{ mayBeOff: true }] });
    const cancelled = runHere(
      () => door.disableKey(order),
      {},
      (environment) => environment.cancel(),
    );
    await expect(cancelled).rejects.toMatchObject({ name: "CancelledFailure", details: [{ mayBeOff: false }] });
  });

  test("is refused where the provider cannot undo it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await expect(stage.run("disableKey", { keyId: old, installedKeyId: key.id })).rejects.toMatchObject({
      type: "InvalidInput",
    });
    expect(await stage.alive()).toContain(old);
  });
});

describe("cutKey (promise 12)", () => {
  test("says of a failure whether an attempt may have cut the key: not answered may be, refused is not", async () => {
    const { stage, door, offRefusals } = await switchable();
    const cut = { ...stage.of, keyId: old, through: prod };
    const fails = (told: object) => expect(runHere(() => door.cutKey(cut), { heartbeatTimeoutMs: 10_000, ...told }));
    offRefusals.push(new RotationFailure("AdminCredentialRejected", "no right to cut"));
    await fails({}).rejects.toMatchObject({ details: [{ mayBeCut: false }] });
    offRefusals.push(new RotationFailure("Unavailable", "no answer"));
    await fails({}).rejects.toMatchObject({ details: [{ mayBeCut: true }] });
    // Refused after one that was not answered.
    offRefusals.push(new RotationFailure("AdminCredentialRejected", "no right to cut"));
    const before = { attempt: 2, heartbeatDetails: { facts: { cuts: old }, ended: 1 } };
    await fails(before).rejects.toMatchObject({ details: [{ mayBeCut: true }] });
  });
});

describe("enableKey", () => {
  test("is tried again where what it lacks can be given, and says that the key is off", async () => {
    const { refusals, order, door, switched } = await switchable();
    for (const type of ["AdminCredentialRejected", "KeyLimitReached", "Unavailable"] as const) {
      refusals.push(new RotationFailure(type, "no right to undelete"));
      await expect(runHere(() => door.enableKey(order))).rejects.toMatchObject({
        type,
        nonRetryable: false,
        message: expect.stringMatching(
          /^KEY key_prod_1 OF production\/openai IS SWITCHED OFF.*no right to undelete/,
        ) as string,
      });
    }
    await runHere(() => door.enableKey(order));
    expect(switched).toEqual([`on ${old}`]);
  });

  test("fails for good, in a sentence of its own, where the key cannot come back", async () => {
    const { refusals, order, door } = await switchable();
    refusals.push(new RotationFailure("RequestInvalid", "the key is archived and cannot be switched on again"));
    await expect(runHere(() => door.enableKey(order))).rejects.toMatchObject({
      type: "RequestInvalid",
      nonRetryable: true,
      message: expect.stringContaining("CLIENTS WHO USE IT FAIL") as string,
    });
  });
});

describe("cutKey", () => {
  test("switches the compromised key off where that can be undone, whoever holds it", async () => {
    const { stage, switched, order, door } = await switchable();
    await holdInStaging(stage);
    const cut = { ...stage.of, keyId: order.keyId, through: prod };
    expect(await runHere(() => door.cutKey(cut))).toMatchObject({ how: "disabled" });
    expect(switched).toEqual([`off ${old}`]);
    expect(await stage.alive()).toContain(old);
  });

  test("revokes it where it cannot", async () => {
    const stage = await startStage();
    expect(await stage.run("cutKey", { keyId: old, through: prod })).toMatchObject({ how: "revoked" });
    expect(await stage.alive()).not.toContain(old);
  });
});
