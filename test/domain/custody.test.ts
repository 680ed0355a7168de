import { describe, expect, test } from "vitest";

import { Custody, type CustodyEntry, type Fate, type KeyRole, keyRoles } from "../../src/domain/custody.ts";

const ended: Fate = { fate: "ended", at: "2026-11-27T10:00:00.000Z", seen: false };
const named: Fate = { fate: "named", why: "clients may still use it" };
const held: Fate = { fate: "held", by: "production/openai" };

/** A ledger with these keys. */
const ledger = (...keys: [id: string, role: KeyRole, fate?: Fate][]): Custody => {
  const custody = new Custody();
  for (const [id, role, fate] of keys) {
    custody.take(id, role);
    if (fate !== undefined) custody.settle(id, fate);
  }
  return custody;
};
const entry = (custody: Custody, id: string): CustodyEntry | undefined => custody.find(id);

describe("what a key is to the run", () => {
  const wins: Record<KeyRole, KeyRole[]> = {
    compromised: ["compromised"],
    "handed-in": ["compromised", "handed-in"],
    old: ["compromised", "handed-in", "old"],
    new: ["compromised", "handed-in", "new"],
    earlier: ["compromised", "handed-in", "earlier"],
  };
  for (const first of keyRoles) {
    for (const then of keyRoles) {
      const stays = !wins[first].includes(then) || first === then;
      test(`${first}, then taken as ${then}: ${stays ? first : then}`, () => {
        const custody = ledger(["key_a", first]);
        custody.take("key_a", then);
        expect(entry(custody, "key_a")?.role).toBe(stays ? first : then);
        expect(custody.all()).toHaveLength(1);
      });
    }
  }
});

describe("a key that clients were given", () => {
  test("stays given, however often it is taken again", () => {
    const custody = new Custody();
    custody.take("key_a", "old", { given: true });
    custody.take("key_a", "compromised");
    expect(entry(custody, "key_a")?.given).toBe(true);
  });

  test("was never given where the write is known not to have left", () => {
    const custody = ledger(["key_a", "new"]);
    custody.give("key_a");
    expect(entry(custody, "key_a")?.given).toBe(true);
    custody.neverGiven("key_a");
    expect(entry(custody, "key_a")?.given).toBe(false);
  });

  test("is none of the run's where it was never taken", () => {
    const custody = new Custody();
    custody.give("key_a");
    custody.neverGiven("key_a");
    custody.settle("key_a", named);
    custody.reopen("key_a");
    expect(custody.has("key_a")).toBe(false);
    expect(custody.keys()).toEqual([]);
  });
});

describe("where a key is", () => {
  const after: [name: string, first: Fate, then: Fate, is: Fate][] = [
    ["held, then named", held, named, named],
    ["held, then ended", held, ended, ended],
    ["named, then held", named, held, held],
    ["named, then ended", named, ended, ended],
    ["ended, then named", ended, named, ended],
    ["ended, then held", ended, held, ended],
    [
      "ended, then ended later and seen",
      ended,
      { ...ended, at: "2026-11-27T11:00:00.000Z", seen: true },
      { ...ended, seen: true },
    ],
    ["ended and seen, then ended", { ...ended, seen: true }, ended, { ...ended, seen: true }],
  ];
  test.each(after)("%s", (_, first, then, is) => {
    const custody = ledger(["key_a", "old", first]);
    custody.settle("key_a", then);
    expect(entry(custody, "key_a")?.fate).toEqual(is);
  });

  test("has to be looked at again once it is reopened, unless it was ended", () => {
    const custody = ledger(["key_a", "old", held], ["key_b", "new", named], ["key_c", "compromised", ended]);
    for (const id of ["key_a", "key_b", "key_c"]) custody.reopen(id);
    expect(custody.open().map(({ id }) => id)).toEqual(["key_a", "key_b"]);
    expect(custody.isEnded("key_c")).toBe(true);
  });

  test("is nobody's question where the key turned out not to exist", () => {
    const custody = ledger(["key_typo", "compromised"]);
    custody.drop("key_typo");
    expect(custody.open()).toEqual([]);
  });
});

describe("keys that may exist under a name of ours", () => {
  test("are expected before they are made, by ordinals from 1", () => {
    const custody = new Custody();
    expect([custody.expect(), custody.expect(), custody.expect()]).toEqual([1, 2, 3]);
    expect(custody.ordinals).toEqual([1, 2, 3]);
    custody.accountFor([1, 3]);
    expect(custody.ordinals).toEqual([2]);
    expect(custody.expect()).toBe(4);
  });
});

describe("what is told", () => {
  const custody = ledger(
    ["key_old", "old", named],
    ["key_new", "new", held],
    ["key_leaked", "compromised", { ...ended, seen: true }],
    ["key_open", "handed-in"],
  );

  test("of each key is its role and its fate, in the order in which they were taken", () => {
    expect(custody.keys()).toEqual([
      { id: "key_old", role: "old", fate: "named", why: named.why },
      { id: "key_new", role: "new", fate: "held", why: "production/openai holds it" },
      { id: "key_leaked", role: "compromised", fate: "ended", at: ended.at, seen: true },
      { id: "key_open", role: "handed-in", fate: "open" },
    ]);
  });

  test("of what stays behind is what is named, and nothing else", () => {
    expect(custody.leftOver()).toEqual([{ id: "key_old", why: named.why }]);
  });

  test("cannot be changed from outside", () => {
    for (const key of custody.all()) key.role = "earlier";
    const found = custody.find("key_new");
    if (found !== undefined) found.given = true;
    expect(custody.find("key_new")).toMatchObject({ role: "new", given: false });
  });
});

describe("a hand-over", () => {
  test("carries every key, every ordinal, looked up or not, and the count, through JSON", () => {
    const custody = ledger(["key_old", "old", named], ["key_new", "new"]);
    custody.expect();
    custody.expect();
    custody.accountFor([1]);
    const carried = new Custody(JSON.parse(JSON.stringify(custody.carry())));
    expect(carried.all()).toEqual(custody.all());
    expect(carried.ordinals).toEqual([1, 2]);
    expect(carried.expect()).toBe(3);
  });

  test("shares nothing with the run before", () => {
    const custody = ledger(["key_old", "old"]);
    const carried = new Custody(custody.carry());
    carried.settle("key_old", ended);
    expect(custody.open()).toHaveLength(1);
  });
});
