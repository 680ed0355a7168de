import { expect } from "vitest";

import type { KeyEntry } from "../../src/domain/custody.ts";
import { failureTypes } from "../../src/domain/failure.ts";
import { parseMark } from "../../src/domain/mark.ts";
import type { RotationResult } from "../../src/domain/rotation.ts";
import { foundIn } from "../support/secrecy.ts";
import type { Deed } from "./fault-list.ts";
import { type Ended, type Ground, type PlayedKey, until } from "./ground.ts";

/** What holds after a rotation that reached its end, of whatever kind and whatever happened on the way. */
export async function expectRotated(ground: Ground, ended: Ended, what: string): Promise<void> {
  const { result, failure, history } = ended;
  expect(failure, what).toBeUndefined();
  expect(result?.outcome, `${what}: ${result?.reason}`).toBe("rotated");
  const newKey = result?.newKey?.id ?? "none";
  expect(result?.oldKey?.id, `${what}: the key that was replaced`).toBe(ground.heldBefore);
  expect(result?.leftOver, `${what}: keys left over`).toEqual([]);
  await expectKeysTold(ground, ended, what);

  const others = (await ground.heldKeys()).filter((id) => id !== newKey);
  const keys = await ground.keys();
  expect(new Set(keys.filter(isAlive).map(({ id }) => id)), `${what}: live keys`).toEqual(new Set([newKey, ...others]));
  expect(others, `${what}: other slots moved off the old key`).not.toContain(ground.heldBefore);
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
export async function expectNothingHalfDone(ground: Ground, ended: Ended, what: string): Promise<void> {
  await expectKeysTold(ground, ended, what);
  const alive = (await ground.keys()).filter(isAlive);
  expect(
    alive.map(({ id }) => id),
    `${what}: the slot's key is alive`,
  ).toContain(await ground.heldKey());
  await until(`${what}: the aliases are gone`, async () => !(await hasAliases(ground)));
  await expectNoValue(ground, ended.history, what);
}

/**
 * What `keys` of the result says is so, and no key is missing there: each that the run replaced, made, was handed or was
 * told of is held, ended or named. What a person made and did not get handed in is theirs.
 */
async function expectKeysTold(ground: Ground, { result }: Ended, what: string): Promise<void> {
  const elsewhere = (await ground.endOfOthers()).flatMap((other) => other.result?.keys ?? []);
  const entries = result?.keys ?? [];
  const keys = await ground.keys();
  for (const entry of entries) expect(await contradiction(ground, entry, keys), `${what}: ${entry.id}`).toBeUndefined();
  expect(new Set(result?.leftOver.map(({ id }) => id)), `${what}: what is left over is what is named`).toEqual(
    new Set(entries.filter(({ fate }) => fate === "named").map(({ id }) => id)),
  );

  const byPeople = ground.subject.of.madeByHand;
  const held = await ground.heldKeys();
  const owed = keys
    .filter(
      ({ id, state }) => !ground.keysBefore.includes(id) && (!byPeople || held.includes(id) || state === "revoked"),
    )
    .map(({ id }) => id);
  // A run that ended before it learnt what the slot holds replaces nothing, as long as it made nothing.
  const replaced = result?.oldKey == null && owed.length === 0 ? [] : [ground.heldBefore];
  const told = new Set([...entries, ...elsewhere].map(({ id }) => id));
  expect(
    [...owed, ...replaced, ...ground.told].filter((id) => !told.has(id)),
    `${what}: keys that the result does not know (${result?.reason})`,
  ).toEqual([]);
}

async function contradiction(ground: Ground, entry: KeyEntry, keys: PlayedKey[]): Promise<string | undefined> {
  const { id, fate, why } = entry;
  const state = keys.find((key) => key.id === id)?.state ?? "not there";
  switch (fate) {
    case "held":
      return (await ground.heldKeys()).includes(id)
        ? undefined
        : `it is said to be held (${why}), and no slot holds it`;
    case "ended":
      return state === "revoked" || state === "expired" ? undefined : `it is said to be ended, and is ${state}`;
    case "named":
      return undefined;
    case "open":
      return "nothing was said of it";
  }
}

export interface Expectation {
  what: string;
  /** Something was refused for good: the rotation may stop. */
  refusal: boolean;
  /** What a person did meanwhile. */
  deed?: Deed | undefined;
}

/** The end a rotation comes to whatever it met; where it was refused for good, or stopped, it may stop instead. */
export async function expectRightEnd(ground: Ground, ended: Ended, expected: Expectation): Promise<void> {
  const { what, refusal, deed } = expected;
  const { result, failure } = ended;
  if (hadToCut(result)) return expectCut(ground, ended, what);
  if (refusal && failure !== undefined) {
    expect(Object.keys(failureTypes), `${what}: ${failure.message}`).toContain(failure.type);
    expect(result?.outcome, what).toBe("aborted");
    await expectNothingHalfDone(ground, ended, what);
    await ground.endOtherKeys();
  } else if (deed === "escalate new" && result?.oldKey?.id !== ground.heldBefore) {
    await expectFollowed(ground, ended, what);
  } else if (deed !== undefined && deed !== "escalate held" && result?.outcome === "aborted") {
    expect(failure, what).toBeUndefined();
    await expectNothingHalfDone(ground, ended, what);
    await expectToldDeadOrNamed(ground, ended, what);
    await ground.endOtherKeys();
  } else {
    await expectRotated(ground, ended, what);
    await expectToldDeadOrNamed(ground, ended, what);
  }
  await expectClientsServed(ground, what);
}

/** Whether the compromised key was cut before a new one served, as policy says past the deadline: then requests fail. */
function hadToCut(result: RotationResult | undefined): boolean {
  return result?.outage !== undefined;
}

/** A key that was cut at its deadline: that is said, with its outage, and the next rotation puts a key in. */
async function expectCut(ground: Ground, ended: Ended, what: string): Promise<void> {
  const { result, history } = ended;
  await expectKeysTold(ground, ended, what);
  await expectToldDeadOrNamed(ground, ended, what);
  expect(result?.warnings.join(), `${what}: that requests fail is said`).toMatch(/requests (?:fail|could fail) in/i);
  await expectNoValue(ground, history, what);
  await until(`${what}: the aliases are gone`, async () => !(await hasAliases(ground)));
  for (const again of await ground.rotateDeadSlots()) {
    expect(again.result?.outcome, `${what}: the next one, ${again.failure?.message}`).toBe("rotated");
  }
  await ground.endOtherKeys();
  await expectServedAgain(ground, what);
}

/** The emergency of the new key that followed: a third key serves, the one that was called compromised is dead. */
async function expectFollowed(ground: Ground, ended: Ended, what: string): Promise<void> {
  const { result, failure } = ended;
  expect(failure, what).toBeUndefined();
  expect(["rotated", "cut"], `${what}: ${result?.reason}`).toContain(result?.outcome);
  await expectNothingHalfDone(ground, ended, what);
  await expectToldDeadOrNamed(ground, ended, what);
  await ground.endOtherKeys();
}

async function expectToldDeadOrNamed(ground: Ground, { result }: Ended, what: string): Promise<void> {
  const keys = await ground.keys();
  for (const told of ground.told) {
    const entry = result?.keys?.find(({ id }) => id === told);
    const dead = keys.find(({ id }) => id === told)?.state === "revoked";
    expect(dead || entry?.fate === "named", `${what}: ${told} was called compromised, and is ${entry?.fate}`).toBe(
      true,
    );
    expect(entry?.role, `${what}: ${told}`).toBe("compromised");
  }
}

/**
 * What holds for clients: none sees anything. Where the key was cut first they are refused by their provider until the new
 * one is everywhere, and by nobody else, and served again.
 */
export async function expectClientsServed(ground: Ground, what: string): Promise<void> {
  if (ground.subject.cutsFirst) await expectServedAgain(ground, what);
  expect(ground.takeFailures(), `${what}: requests of clients`).toEqual([]);
}

async function expectServedAgain(ground: Ground, what: string): Promise<void> {
  const { refusals } = ground.subject.of;
  const { traffic } = ground;
  const isRefusal = (failure: string): boolean => refusals.some((status) => failure.startsWith(`${status} `));
  let failed = -1;
  let served = 0;
  await until(`${what}: clients are served again`, async () => {
    if (ground.failed !== failed) ({ failed, served } = { failed: ground.failed, served: traffic.served });
    return traffic.served > served + 10;
  });
  const others = ground.takeFailures().filter((failure) => !isRefusal(failure));
  expect(others, `${what}: requests of clients that failed for another reason`).toEqual([]);
}

export async function expectNoValue(ground: Ground, history: string, what: string): Promise<void> {
  const values = await ground.values();
  expect(foundIn(history, values), `${what}: keys in the history`).toEqual([]);
  expect(foundIn(ground.said, values), `${what}: keys in the worker's output`).toEqual([]);
}

function isAlive({ state }: PlayedKey): boolean {
  return state === "active" || state === "disabled";
}

async function hasAliases(ground: Ground): Promise<boolean> {
  return (await ground.secrets()).some(({ name }) => name.includes("kt-"));
}
