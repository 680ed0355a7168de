import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";

import type { EmergencyPlan, LeakedFound, LeakedMatch, SeenKey } from "../../src/activities/contract.ts";
import { describeKey, describeSlotKeys } from "../../src/cli/describe-keys.ts";
import {
  commandsFor,
  describePlan,
  describeUnseen,
  whatJoiningDoes,
  whatWillHappen,
} from "../../src/cli/describe-plan.ts";
import { whatIsKnown } from "../../src/cli/leaked.ts";
import { type Asking, type Look, lookFor } from "../../src/cli/which-key.ts";
import { type InventorySlot, parseInventory } from "../../src/config.ts";
import { RotationFailure } from "../../src/domain/failure.ts";
import type { Progress } from "../../src/domain/rotation.ts";
import type { Temporal } from "../../src/temporal/client.ts";

/** What an operator reads before the yes. */

const inventory = parseInventory(
  JSON.stringify({
    installation: "acme",
    account: "0123456789abcdef0123456789abcdef",
    environments: { production: { gateway: "prod-gateway" } },
    slots: { "production/openai": { openai: { project: "proj_abc", serviceAccount: "svc_1" } } },
    sealing: [{ kid: "k", publicKey: { kty: "EC", crv: "P-256", x: "x", y: "y" } }],
  }),
  "keyturn.yaml",
  {},
);
const slot = inventory.slots["production/openai"] as InventorySlot;
const batch = "production/openai:batch";
const temporal = { address: "127.0.0.1:7233", namespace: "default" };

const key = (changes: Partial<SeenKey> = {}): SeenKey => ({
  id: "key_bad",
  ending: "9AbC",
  name: "kt.acme.production.openai.default.1a2b3c4d.1-1",
  createdAt: new Date(Date.now() - 35_000).toISOString(),
  madeBy: "keyturn, rotation 1a2b3c4d",
  state: "alive",
  what: "held",
  heldBy: [slot.name],
  heldUnknown: [],
  through: slot.name,
  ...changes,
});
const plan = (...keys: SeenKey[]): EmergencyPlan => ({
  slot: slot.name,
  account: slot.account,
  gateway: slot.gateway,
  keys,
  unknown: [],
  warnings: [],
});
const start = { strategy: "swap-first" } as const;

describe("the prompt of an emergency", () => {
  test("names each key by id, ending, age and maker, the account, the gateway and the Temporal server", () => {
    const held = key({ id: "key_held" });
    const bad = key({ what: "left over", leftOver: "the run run-1 left it", heldBy: [] });
    const said = describePlan({ slot, start, plan: { ...plan(bad), held }, temporal, by: "worker" }).join("\n");
    expect(said).toContain("production/openai: EMERGENCY of key_bad");
    expect(said).toMatch(
      /key_bad: ends in 9AbC, 35s old, made by keyturn, rotation 1a2b3c4d, .*held by no slot, left over: the run run-1/,
    );
    expect(said).toContain("production/openai itself holds key_held");
    expect(said).toContain(
      "account 0123456789abcdef0123456789abcdef, gateway prod-gateway; Temporal 127.0.0.1:7233, namespace default",
    );
    expect(said).toContain("looked at by a worker");
  });

  test("says who looked, what could not be told, and what is doubted", () => {
    const doubtful = {
      ...plan(key()),
      unknown: ["what the last run left behind"],
      warnings: ["it is another project's"],
    };
    const said = describePlan({ slot, start, plan: doubtful, temporal, by: "here" }).join("\n");
    expect(said).toContain("from here, with the credentials of this machine: no worker answered");
    expect(said).toContain("unknown: what the last run left behind");
    expect(said).toContain("WARNING: it is another project's");
  });

  test("promises a new key and a cut by the clocks for the key the slot holds", () => {
    const said = whatWillHappen({ slot, start, plan: plan(key()) }).join("\n");
    expect(said).toMatch(/SWAP FIRST\. a new key is made and put in, within 5m/);
    expect(said).toMatch(/Then key_bad: revoked, which cannot be undone.*within 1h from now/);
    expect(said).toContain("At 1h it is cut whatever the state of the new key");
  });

  test.each(["swap-first", "cut-first"] as const)(
    "promises no new key for one that no slot holds: it is cut at once (%s)",
    (strategy) => {
      const stray = key({ what: "unknown", heldBy: [] });
      const said = whatWillHappen({ slot, start: { strategy }, plan: plan(stray) });
      expect(said).toEqual([
        "key_bad: no slot holds it, so it is revoked, which cannot be undone, AT ONCE; NO NEW KEY is made, and production/openai keeps its own.",
      ]);
    },
  );

  test("says of a second key that no slot holds only that it is cut at once", () => {
    const said = whatWillHappen({ slot, start, plan: plan(key({ id: "key_held" }), key({ heldBy: [] })) });
    expect(said.at(-1)).toBe("key_bad: no slot holds it, so it is revoked, which cannot be undone, AT ONCE.");
    expect(said.join("\n")).toContain("a new key is made and put in");
  });

  test("moves another slot first, and says so, where that one holds the key", () => {
    const said = whatWillHappen({ slot, start, plan: plan(key({ what: "unknown", heldBy: [batch] })) }).join("\n");
    expect(said).toMatch(/keeps its own and gets no new one; production\/openai:batch holds it.*moves off it first/);
  });

  test("names each slot that will fail where it is cut first", () => {
    const shared = key({ heldBy: [slot.name, batch] });
    const said = whatWillHappen({ slot, start: { strategy: "cut-first" }, plan: plan(shared) }).join("\n");
    expect(said).toContain(
      "REQUESTS FAIL in production/openai, production/openai:batch from then until a new key is in",
    );
    const elsewhere = key({ heldBy: [batch] });
    const other = whatWillHappen({ slot, start: { strategy: "cut-first" }, plan: plan(elsewhere) }).join("\n");
    expect(other).toContain("REQUESTS FAIL in production/openai:batch from then until a new key is in there");
  });

  test("takes a key of which it cannot be told for the slot's: it is replaced", () => {
    const said = whatWillHappen({ slot, start, plan: plan(key({ heldBy: [], heldUnknown: [slot.name] })) }).join("\n");
    expect(said).toContain("a new key is made and put in");
  });

  test("asks a person to make and end keys where no admin credential is configured, and promises no cut", () => {
    const byHand = { ...plan(key()), byHand: "OPENAI_ADMIN_KEY is not set" };
    const said = whatWillHappen({ slot, start, plan: byHand }).join("\n");
    expect(said).toMatch(/^ONLY A PERSON can make and end keys here: OPENAI_ADMIN_KEY is not set\..*NOBODY ELSE CUTS/);
    expect(said).toMatch(/YOU MAKE a new key.*\nThen key_bad: revoked at its provider BY YOU/);
    expect(said).not.toContain("whatever the state of the new key");
    expect(whatWillHappen({ slot, start, plan: byHand, by: "here" })[0]).toMatch(
      /^Seen from this machine only.*a worker that has/,
    );
  });

  test("says of a dead key that nothing is cut", () => {
    const dead = plan(key({ heldBy: [], state: "dead" }));
    expect(whatWillHappen({ slot, start, plan: dead })[0]).toContain(
      "dead already, and no slot holds it: nothing is cut",
    );
  });

  test("starts unseen only for keys that were named, and promises nothing", () => {
    const said = describeUnseen({ slot, start, temporal }, { keyIds: ["key_bad"], why: "no worker works" }).join("\n");
    expect(said).toMatch(/EMERGENCY of key_bad, UNSEEN: nobody could look at the key \(no worker works\)/);
    expect(said).not.toMatch(/no request fails/i);
  });
});

describe("the prompt of an emergency without a slot", () => {
  const match: LeakedMatch = { keyId: "key_bad", how: "masked value", slots: [slot.name], held: true };
  const look = (...matches: LeakedMatch[]): Look<LeakedFound> => ({
    kind: "seen",
    by: "here",
    seen: { matches, unknown: ["keys of a project"] },
  });

  test("says whose value it is, how that was found, and what happens in each slot that holds the key and when", () => {
    const said = whatIsKnown(look({ ...match }), { inventory, start: {} }).join("\n");
    expect(said).toContain("that of key_bad (found by its masked value, which fits alone), held by production/openai");
    expect(said).toMatch(
      /production\/openai \(account 0123.*, gateway prod-gateway\): SWAP FIRST: a new key within 5m, then the cut, within 1h/,
    );
    expect(said).toContain("unknown: keys of a project");
    const cut = whatIsKnown(look({ ...match }), { inventory, start: { strategy: "cut-first" } }).join("\n");
    expect(cut).toMatch(/CUT FIRST.*REQUESTS FAIL/);
  });

  test("promises no new key for one that no slot holds, and nothing where nobody could look", () => {
    const said = whatIsKnown(look({ ...match, held: false }), { inventory, start: {} }).join("\n");
    expect(said).toMatch(
      /held by no slot \(a key of the project of production\/openai\): it is cut AT ONCE, and NO NEW KEY is made/,
    );
    const unseen = whatIsKnown({ kind: "unseen", why: "no credentials" }, { inventory, start: {} }).join("\n");
    expect(unseen).toContain("could not be looked up from here (no credentials)");
  });
});

describe("the candidates, where nobody guesses", () => {
  test("come with the exact command for each, and for both", () => {
    const lines = commandsFor("keyturn emergency production/openai --since 48h", [
      key({ id: "key_a" }),
      key({ id: "key_b" }),
    ]);
    expect(lines).toContain("      keyturn emergency production/openai --since 48h --key key_a");
    expect(lines).toContain("      keyturn emergency production/openai --since 48h --key key_b");
    expect(lines).toContain("      keyturn emergency production/openai --since 48h --key key_a --key key_b");
  });

  test("are named though nothing but their id is known", () => {
    expect(describeKey({ id: "key_a" })).toBe("ending unknown, age unknown, made by somebody unknown");
  });
});

describe("the prompt of an emergency that joins a rotation", () => {
  const running = (changes: Partial<Progress> = {}): Progress => ({
    slot: slot.name,
    kind: "normal",
    rotationId: "r",
    phase: "awaitIdle",
    waiting: null,
    action: "nothing",
    oldKey: { id: "key_old" },
    newKey: { id: "key_new" },
    keys: [],
    times: { started: "", installed: "2026-11-27T02:00:00Z" },
    steps: [],
    ...changes,
  });
  const of = (changes: Partial<Progress> = {}, seen?: SeenKey) => ({
    slot,
    running: running(changes),
    seen,
    byHand: false,
  });

  test("says what the escalation's own table says", () => {
    expect(whatJoiningDoes("key_old", of())).toContain(
      "the rotation hurries: key_old is cut as soon as the new key serves",
    );
    expect(whatJoiningDoes("key_new", of())).toContain("an emergency of key_new follows at once");
    expect(whatJoiningDoes("key_new", of({ times: { started: "" } }))).toContain(
      "key_new was not installed yet: it is revoked",
    );
    expect(whatJoiningDoes("key_x", of({}, key({ id: "key_x", heldBy: [batch] })))).toContain(
      `${batch} holds it: moved off it first`,
    );
    expect(whatJoiningDoes("key_x", of({}, key({ id: "key_x", heldBy: [] })))).toContain(
      "no slot holds it: it is cut now",
    );
    expect(whatJoiningDoes("key_x", of())).toContain("cannot be told yet");
    // In an emergency the old key is the compromised one: the slot may hold another.
    const ofAStranger = { kind: "emergency", oldKey: { id: "key_lost" }, newKey: null } as const;
    expect(whatJoiningDoes("key_x", of(ofAStranger, key({ id: "key_x", heldBy: [slot.name] })))).toContain(
      "one of key_x follows at once",
    );
  });
});

describe("keyturn keys", () => {
  test("lists what is held and left over before the rest", () => {
    const said = describeSlotKeys({
      slot: slot.name,
      keys: [
        key({ id: "key_script", what: "unknown", heldBy: [] }),
        key({ id: "key_left", what: "left over", heldBy: [], leftOver: "the run run-1 left it: clients may use it" }),
        key({ id: "key_held" }),
      ],
      unknown: ["which slots hold key_x"],
    });
    expect(said.split("\n").map((line) => line.trim().split(/ {2,}/)[0])).toEqual([
      "production/openai: 3 keys live, as far as is seen",
      "held",
      "left over",
      "not ours",
      "unknown",
    ]);
    expect(said).toContain("left over: the run run-1 left it: clients may use it");
  });
});

describe("who looks before the yes", () => {
  const polled = (pollers: number): Temporal =>
    ({
      ...temporal,
      client: {
        connection: { withDeadline: (_: number, call: () => Promise<unknown>) => call() },
        workflowService: { describeTaskQueue: () => Promise.resolve({ pollers: Array.from({ length: pollers }) }) },
      },
    }) as unknown as Temporal;
  const asking = (pollers: number, env = { CLOUDFLARE_API_TOKEN: "made-up" }): Asking => ({
    env,
    inventory,
    temporal: polled(pollers),
  });
  const never = (): Promise<never> => new Promise(() => undefined);
  const limits = { aloneMs: 50, atMostMs: 300 };
  const refused = (type: "KeyUnknown" | "Unavailable") => () =>
    Promise.reject(new RotationFailure(type, `${type}, made up`));

  test("is a worker, where one works", async () => {
    const here = (): never => expect.unreachable("nobody looks from here");
    const look = await lookFor(asking(1), { worker: () => Promise.resolve("plan"), here }, limits);
    expect(look).toEqual({ kind: "seen", seen: "plan", by: "worker" });
    await delay(100);
  });

  test("is this machine where no worker works, fails or takes its time", async () => {
    const here = () => Promise.resolve("plan");
    const seen = { kind: "seen", seen: "plan", by: "here" };
    expect(await lookFor(asking(0), { worker: never, here }, limits)).toEqual(seen);
    expect(await lookFor(asking(1), { worker: refused("Unavailable"), here }, limits)).toEqual(seen);
    expect(await lookFor(asking(1), { worker: never, here }, limits)).toEqual(seen);
  });

  test("is nobody after ten seconds at most, or without credentials, and why is said", async () => {
    expect(await lookFor(asking(1), { worker: never, here: never }, limits)).toEqual({
      kind: "unseen",
      why: "nobody could tell within 0.3 s",
    });
    const { kind, why } = (await lookFor(
      asking(0, { CLOUDFLARE_API_TOKEN: "" }),
      { worker: never, here: never },
      limits,
    )) as { kind: string; why: string };
    expect(kind).toBe("unseen");
    expect(why).toMatch(/no worker works; from here: CLOUDFLARE_API_TOKEN is not set/);
  });

  test("is heard when it says that nobody knows the key, also where somebody else is silent", async () => {
    const unknown = refused("KeyUnknown");
    await expect(lookFor(asking(1), { worker: unknown, here: never }, limits)).rejects.toMatchObject({
      type: "KeyUnknown",
    });
    await expect(lookFor(asking(1), { worker: never, here: unknown }, limits)).rejects.toMatchObject({
      type: "KeyUnknown",
    });
  });
});
