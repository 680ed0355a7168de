import { describe, expect, test } from "vitest";

import {
  decideEscalation,
  type Does,
  type EscalationFacts,
  escalationRows,
  type EscalationWords,
} from "../../src/domain/escalation.ts";

/** A key of no slot and no run, told of for the first time while a normal rotation has not installed anything. */
const facts = (change: Partial<EscalationFacts>): EscalationFacts => ({
  kind: "normal",
  key: "other",
  told: false,
  ended: false,
  calledOff: false,
  installed: false,
  returnPassed: false,
  ending: false,
  heldElsewhere: "no",
  byHand: false,
  ...change,
});

const words = (change: Partial<EscalationWords> = {}): EscalationWords => ({
  keyId: "key_leaked",
  slot: "production/openai",
  by: "2026-11-27T11:00:00.000Z",
  atDeadline: "revoke",
  holders: ["production/openai:batch"],
  calledOff: "aborted by bob",
  ...change,
});

/** Each row, reached by facts written out: what it does, and what the operator reads. */
const reached: [row: string, facts: EscalationFacts, does: Does, says: RegExp][] = [
  ["ended already", facts({ ended: true, told: true, key: "held" }), "already", /^key_leaked is ended already$/],
  [
    "called off meanwhile",
    facts({ calledOff: true, told: true, key: "held" }),
    "already",
    /^the emergency of key_leaked was called off: aborted by bob; start keyturn emergency again/,
  ],
  [
    "told already",
    facts({ told: true, key: "held" }),
    "already",
    /called compromised before: it is cut at 2026-11-27T11:00:00.000Z at the latest$/,
  ],
  [
    "held key, the run has stopped",
    facts({ key: "held", ending: true }),
    "cuts",
    /has stopped and puts no new key in: it stays open until key_leaked is cut, at 2026.*requests fail from then on/,
  ],
  [
    "held key, by hand",
    facts({ key: "held", byHand: true }),
    "hurries",
    /only a person can end key_leaked: revoke it at the provider as soon as the new key serves, by 2026/,
  ],
  [
    "held key, its revocation has begun",
    facts({ key: "held", installed: true, returnPassed: true }),
    "hurries",
    /^the new key serves and key_leaked is being revoked: it is cut at 2026/,
  ],
  [
    "held key of a normal rotation",
    facts({ key: "held" }),
    "hurries",
    /^the rotation hurries: key_leaked is cut as soon as the new key serves, at 2026.*at the latest$/,
  ],
  [
    "held key, an emergency of another key runs",
    facts({ key: "held", kind: "emergency" }),
    "hands-over",
    /^the emergency that runs is about another key: one of key_leaked follows at once/,
  ],
  [
    "new key, installed",
    facts({ key: "new", installed: true }),
    "hands-over",
    /^an emergency of key_leaked follows at once: it is replaced and then cut/,
  ],
  [
    "new key, not installed, the run has stopped",
    facts({ key: "new", ending: true }),
    "revokes-new",
    /was never in the slot, and is revoked while the run ends$/,
  ],
  [
    "new key of a normal rotation, not installed",
    facts({ key: "new" }),
    "revokes-new",
    /the rotation ends as aborted, and the old key goes on serving production\/openai$/,
  ],
  [
    "new key of an emergency, not installed",
    facts({ key: "new", kind: "emergency" }),
    "revokes-new",
    /it is revoked, and the emergency goes on with another one$/,
  ],
  [
    "another key, held by another slot",
    facts({ heldElsewhere: "yes" }),
    "moves-first",
    /production\/openai:batch holds it: moved off it first, then it is cut, at 2026.*this run goes on$/,
  ],
  ["another key, by hand", facts({ byHand: true }), "cuts", /only a person can end it: revoke it at the provider now$/],
  [
    "another key, its holders cannot be told",
    facts({ heldElsewhere: "unknown" }),
    "cuts",
    /whether a slot holds it cannot be told yet: it is cut when none does, at 2026/,
  ],
  ["another key, held by no slot", facts({}), "cuts", /no slot holds it: it is cut now; this run goes on$/],
];

describe("the rows of the table", () => {
  test.each(reached)("%s", (name, given, does, says) => {
    const row = decideEscalation(given);
    expect(row).toMatchObject({ name, does });
    expect(row.says(words())).toMatch(says);
  });

  test("are all here, in their order, and bear names of their own", () => {
    expect(reached.map(([name]) => name)).toEqual(escalationRows.map(({ name }) => name));
    expect(new Set(escalationRows.map(({ name }) => name)).size).toBe(escalationRows.length);
  });

  test("are each reached by facts that no row before them takes, of all the facts there can be", () => {
    const decided = new Set(every().map((given) => decideEscalation(given).name));
    expect([...decided].toSorted()).toEqual(escalationRows.map(({ name }) => name).toSorted());
  });
});

describe("whatever the facts", () => {
  test("a key that is ended or was told of before starts nothing anew", () => {
    for (const given of every().filter(({ ended, told, calledOff }) => ended || (told && !calledOff))) {
      expect(decideEscalation(given).does).toBe("already");
    }
  });

  test("a word that was called off starts nothing", () => {
    for (const given of every().filter(({ ended, calledOff }) => calledOff && !ended)) {
      expect(decideEscalation(given).does).toBe("already");
    }
  });

  test("a key that the run gave to clients is never revoked as if nobody had it", () => {
    for (const given of every().filter(({ key, installed }) => key === "held" || (key === "new" && installed))) {
      expect(decideEscalation(given).does).not.toBe("revokes-new");
    }
  });

  test("a key that another slot holds, and this run does not, is not cut before that has moved", () => {
    const elsewhere = every().filter(({ key, heldElsewhere }) => key === "other" && heldElsewhere === "yes");
    for (const given of elsewhere.filter(({ ended, told, calledOff }) => !ended && !told && !calledOff)) {
      expect(decideEscalation(given).does).toBe("moves-first");
    }
  });

  test("nothing is handed over but what an emergency has to go on with", () => {
    for (const given of every().filter((one) => decideEscalation(one).does === "hands-over")) {
      expect(given.key).not.toBe("other");
      expect(given.key === "new" ? given.installed : given.kind === "emergency").toBe(true);
    }
  });
});

describe("what the operator reads", () => {
  test("says that the key stays alive past the deadline where policy says hold", () => {
    const row = decideEscalation(facts({ key: "held" }));
    expect(row.says(words({ atDeadline: "hold" }))).toMatch(
      /past 2026-11-27T11:00:00.000Z it stays alive without a new key \(policy: hold\)$/,
    );
  });

  test("names no time that is not known yet", () => {
    for (const { says } of escalationRows) {
      expect(says(words({ by: undefined }))).not.toMatch(/undefined|2026/);
    }
  });

  test("is one sentence that names the key", () => {
    for (const { says } of escalationRows) {
      const sentence = says(words());
      expect(sentence).toContain("key_leaked");
      expect(sentence).not.toMatch(/\. |\.$|\n/);
    }
  });
});

/** All the facts there can be. */
function every(): EscalationFacts[] {
  const bools = [false, true];
  const all: EscalationFacts[] = [];
  for (const kind of ["normal", "emergency"] as const)
    for (const key of ["held", "new", "other"] as const)
      for (const heldElsewhere of ["yes", "no", "unknown"] as const)
        for (const told of bools)
          for (const ended of bools)
            for (const calledOff of bools)
              for (const installed of bools)
                for (const returnPassed of bools)
                  for (const ending of bools)
                    for (const byHand of bools)
                      all.push({
                        kind,
                        key,
                        heldElsewhere,
                        told,
                        ended,
                        calledOff,
                        installed,
                        returnPassed,
                        ending,
                        byHand,
                      });
  return all;
}
