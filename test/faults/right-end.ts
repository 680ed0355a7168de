import { expect } from "vitest";

import { failureTypes } from "../../src/domain/failure.ts";
import { parseMark } from "../../src/domain/mark.ts";
import { foundIn } from "../support/secrecy.ts";
import { type Ended, type Ground, until } from "./ground.ts";

/** What holds after a rotation that reached its end, of whatever kind and whatever happened on the way. */
export async function expectRotated(ground: Ground, { result, failure, history }: Ended, what: string): Promise<void> {
  expect(failure, what).toBeUndefined();
  expect(result?.outcome, `${what}: ${result?.reason}`).toBe("rotated");
  const newKey = result?.newKey?.id ?? "none";
  expect(result?.oldKey?.id, `${what}: the key that was replaced`).toBe(ground.heldBefore);
  expect(result?.leftOver, `${what}: keys left over`).toEqual([]);

  const keys = await ground.keys();
  const alive = keys.filter(({ state }) => state === "active" || state === "disabled");
  expect(
    alive.map(({ id }) => id),
    `${what}: live keys`,
  ).toEqual([newKey]);
  expect(keys.find(({ id }) => id === result?.oldKey?.id)?.state, `${what}: the old key`).toBe("revoked");

  await until(`${what}: all edges serve the new key`, async () => (await ground.served()).join() === newKey);
  const mark = parseMark((await ground.slotSecret()).comment ?? undefined);
  expect(mark, `${what}: the mark`).toMatchObject({ keyId: newKey, rotationId: result?.rotationId });
  await until(`${what}: the aliases are gone`, async () => !(await hasAliases(ground)));
  await expectNoValue(ground, history, what);
}

/**
 * What holds after any end: the slot serves one live key; every other live key is named in the result; nothing of the
 * rotation's own stays in the store; no key stands in the clear.
 */
export async function expectNothingHalfDone(ground: Ground, { result, history }: Ended, what: string): Promise<void> {
  const named = new Set(result?.leftOver.map(({ id }) => id));
  const alive = (await ground.keys()).filter(({ state }) => state === "active" || state === "disabled");
  const held = await ground.heldKey();
  expect(
    alive.map(({ id }) => id),
    `${what}: the slot's key is alive`,
  ).toContain(held);
  expect(
    alive.map(({ id }) => id).filter((id) => id !== held && !named.has(id)),
    `${what}: orphans`,
  ).toEqual([]);
  await until(`${what}: the aliases are gone`, async () => !(await hasAliases(ground)));
  await expectNoValue(ground, history, what);
}

/** The end a rotation comes to whatever it met; where something was refused for good it may stop instead. */
export async function expectRightEnd(
  ground: Ground,
  ended: Ended,
  { what, refusal }: { what: string; refusal: boolean },
): Promise<void> {
  if (refusal && ended.failure !== undefined) {
    expect(Object.keys(failureTypes), `${what}: ${ended.failure.message}`).toContain(ended.failure.type);
    expect(ended.result?.outcome, what).toBe("aborted");
    await expectNothingHalfDone(ground, ended, what);
    await ground.endOtherKeys();
  } else {
    await expectRotated(ground, ended, what);
  }
  await expectClientsServed(ground, what);
}

/**
 * What holds for clients: none sees anything. Where the key was cut first they are refused by their provider until the new
 * one is everywhere, and by nobody else, and served again.
 */
export async function expectClientsServed({ subject, traffic }: Ground, what: string): Promise<void> {
  if (subject.cutsFirst) {
    const { refusals } = subject.of;
    const others = traffic.failures.filter((failure) => !refusals.some((status) => failure.startsWith(`${status} `)));
    expect(others, `${what}: requests of clients that failed for another reason`).toEqual([]);
    const { failed, served } = traffic;
    await until(`${what}: clients are served again`, async () => traffic.served > served + 10);
    expect(traffic.failed, `${what}: requests that failed after the end`).toBe(failed);
    traffic.failures.length = 0;
  }
  expect(traffic.failures, `${what}: requests of clients`).toEqual([]);
}

export async function expectNoValue(ground: Ground, history: string, what: string): Promise<void> {
  const values = await ground.values();
  expect(foundIn(history, values), `${what}: keys in the history`).toEqual([]);
  expect(foundIn(ground.said, values), `${what}: keys in the worker's output`).toEqual([]);
}

async function hasAliases(ground: Ground): Promise<boolean> {
  return (await ground.secrets()).some(({ name }) => name.includes("kt-"));
}
