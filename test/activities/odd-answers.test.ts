import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, test } from "vitest";

import type { ClosedRun, SlotAccess } from "../../src/activities/dependencies.ts";
import { managed } from "../../src/activities/managed.ts";
import { revocationActivities } from "../../src/activities/revocation.ts";
import { findByValue } from "../../src/activities/seen-keys.ts";
import { usageActivities } from "../../src/activities/usage.ts";
import { whatWillHappen } from "../../src/cli/describe-plan.ts";
import { whatIsKnown } from "../../src/cli/leaked.ts";
import { type InventorySlot, parseInventory } from "../../src/config.ts";
import type { KeyEntry } from "../../src/domain/custody.ts";
import { judgeHeld } from "../../src/domain/held.ts";
import { formatMark } from "../../src/domain/mark.ts";
import type { KeyRecord } from "../../src/providers/provider.ts";
import { Redacted } from "../../src/redacted.ts";
import type { Sealing } from "../../src/sealing.ts";
import {
  inFuture,
  once,
  prod,
  prodGateway,
  runHere,
  type Stage,
  stagingGateway,
  startStage,
} from "../support/activities.ts";

/** A look that failed, was old, or was made in the wrong project is no answer: neither "dead" nor "idle" nor "held by none". */

const old = "key_prod_1";
const inventory = parseInventory(
  JSON.stringify({
    installation: "acme",
    account: "0123456789abcdef0123456789abcdef",
    environments: { production: { gateway: "prod-gateway" } },
    slots: { [prod]: { openai: { project: "proj_abc", serviceAccount: "svc_1" } } },
    sealing: [{ kid: "k", publicKey: { kty: "EC", crv: "P-256", x: "x", y: "y" } }],
  }),
  "keyturn.yaml",
  {},
);
const slot = inventory.slots[prod] as InventorySlot;
const start = { strategy: "swap-first" } as const;
const madeUp = "sk-svcacct-MadeUpMadeUpMadeUpMadeUp1234";
const fingerprintOf = (value: string): string => new Redacted(value).fingerprint();
const markFor = (keyId: string, value: string): string =>
  formatMark({ keyId, rotationId: "earlier", fingerprint: fingerprintOf(value), at: new Date() });
const sealed = (stage: Stage, value: string, of?: string): Promise<string> => {
  const { seal }: Pick<Sealing, "seal"> = stage.dependencies;
  return seal(new Redacted(value), { ...(of === undefined ? {} : { slot: of }), purpose: "leaked" });
};
const closedWith = (keys: KeyEntry[]): ClosedRun => ({
  runId: "run-1",
  status: "COMPLETED",
  result: {
    slot: prod,
    kind: "emergency",
    outcome: "aborted",
    reason: "aborted by ada",
    rotationId: "1a2b3c4d-0000-4000-8000-000000000000",
    oldKey: null,
    newKey: null,
    times: { started: new Date().toISOString() },
    keys,
    unknown: [],
    leftOver: keys.map(({ id, why = "" }) => ({ id, why })),
    warnings: [],
    steps: [],
  },
});

describe("an attempt that was given up on while it read", () => {
  const slowReads = { service: "cloudflare", method: "GET", path: ".", mode: "slow", delayMs: 150 };

  test("does not put the old value back, where it was cancelled", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.fault(slowReads);
    const before = (await stage.writes()).length;
    let cancel = (): void => undefined;
    const order = { installedKeyId: key.id, oldKeyId: old };
    const run = stage.run("restoreOldValue", order, 1, { onAttempt: (attempt) => (cancel = () => attempt.cancel()) });
    const ended = run.catch(() => undefined);
    await pause(1_400);
    expect(await stage.writes()).toHaveLength(before);
    cancel();
    await ended;
    expect(await stage.writes()).toHaveLength(before);
    expect(await stage.held(prodGateway)).toBe(key.id);
  });

  test("does not empty the slot, where it is past its time", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.fault(slowReads);
    const order = { installedKeyId: key.id, oldKeyId: old };
    await stage.run("restoreOldValue", order, 1, { info: { startToCloseTimeoutMs: 1_400 } }).catch(() => undefined);
    expect(await stage.held(prodGateway)).toBe(key.id);
  });
});

describe("a key that is not shown while its use is asked for", () => {
  test("is asked about again: Google knows use by what the key's row says", async () => {
    const stage = await startStage({ slots: gemini });
    const provider = managed(stage.dependencies.slotAccess(geminiProd));
    await keyOf(stage, "busy");
    await stage.lie({ about: "google-keys", mode: "not-found", which: "busy", times: 1 });
    const query = { keyIds: ["busy"], from: new Date(Date.now() - 60_000), to: new Date() };
    expect(await provider.readUsage(query)).toMatchObject({ notShown: ["busy"] });
    expect(await provider.readUsage(query)).not.toHaveProperty("notShown");
  });

  test.each([
    [1, "used"],
    [2, "Unavailable"],
  ])("is never idle for that (not shown %i times: %s)", async (times, said) => {
    const stage = await startStage();
    const access = stage.dependencies.slotAccess(prod);
    const now = Date.now();
    const bucket = { from: new Date(now - 200), to: new Date(now - 60), requests: 9, tokens: 1 };
    let asked = 0;
    const provider = {
      ...managed(access),
      findKey: (id: string): Promise<KeyRecord> =>
        Promise.resolve({ id, name: "", state: "active", createdAt: new Date(0) }),
      readUsage: ({ keyIds }: { keyIds: string[] }) => {
        const missed = keyIds.length > 1 && ++asked <= times;
        const buckets = missed ? [] : [{ ...bucket, keyId: "old" }];
        return Promise.resolve({
          buckets: [...buckets, { ...bucket, keyId: "new" }],
          bucketMs: 10,
          unknownSurfaces: [],
          ...(missed ? { notShown: ["old"] } : {}),
        });
      },
    };
    const { checkIdle } = usageActivities({ ...stage.dependencies, slotAccess: () => ({ ...access, provider }) });
    const order = {
      ...stage.of,
      oldKeyId: "old",
      newKeyId: "new",
      installedAt: inFuture(-20_000),
      since: inFuture(-10_000),
    };
    const answer = await runHere(() => checkIdle(order)).then(
      ({ kind }) => kind,
      (error: { type?: string }) => error.type,
    );
    expect(answer).toBe(said);
  });

  test("keeps what its row says of its last use, which one read missed", async () => {
    const stage = await startStage();
    const access = stage.dependencies.slotAccess(prod);
    const now = Date.now();
    let reads = 0;
    const record: KeyRecord = {
      id: "old",
      name: "",
      state: "active",
      createdAt: new Date(0),
      lastUsedAt: new Date(now - 100),
    };
    const provider = {
      ...managed(access),
      findKey: () => Promise.resolve(reads++ === 0 ? undefined : record),
      readUsage: () =>
        Promise.resolve({
          buckets: [{ keyId: "new", from: new Date(now - 200), to: new Date(now - 60), requests: 9, tokens: 1 }],
          bucketMs: 10,
          unknownSurfaces: ["vector_stores"],
        }),
    };
    const { checkIdle } = usageActivities({ ...stage.dependencies, slotAccess: () => ({ ...access, provider }) });
    const order = {
      ...stage.of,
      oldKeyId: "old",
      newKeyId: "new",
      installedAt: inFuture(-20_000),
      since: inFuture(-10_000),
    };
    const first = await runHere(() => checkIdle(order));
    const second = await runHere(() => checkIdle(order));
    expect(first.lastUsed).toBe(record.lastUsedAt?.toISOString());
    expect(first.kind).toBe(second.kind);
  });
});

describe("slots of one project, each with a service account of its own", () => {
  const two = { "production/openai:batch": { openai: { project: "proj_abc", serviceAccount: "svc_acct_9" } } };

  test("see one key once, by its value", async () => {
    const stage = await startStage({ slots: two });
    const leaked = await stage.valueOf(old);
    const found = await stage.run("findCompromised", { keyIds: [], leaked: await sealed(stage, leaked, prod) }, 3);
    expect(found.map(({ id }) => id)).toEqual([old]);
    const { matches } = await stage.run("findLeaked", { leaked: await sealed(stage, leaked) }, 3);
    expect(matches.map(({ keyId }) => keyId)).toEqual([old]);
  });

  test.each(["cutKey", "endCompromisedKey"] as const)(
    "%s looks twice at home before it looks elsewhere",
    async (name) => {
      const stage = await startStage({ slots: two });
      const { id } = await stage.keyByHand("leaked");
      await stage.lie({ about: "openai-keys", mode: "not-found", which: id, times: 1 });
      await stage.repeat(name, { keyId: id, through: prod });
      expect(await stage.alive()).not.toContain(id);
    },
  );

  test("see a key once that two workspaces list", async () => {
    const stage = await startStage();
    const access = stage.dependencies.slotAccess(prod);
    const [record] = (await managed(access).listKeys()).filter(({ id }) => id === old);
    const lists = (keyring: string): SlotAccess =>
      ({
        ...access,
        keyring,
        provider: { ...access.provider, listKeys: () => Promise.resolve([record]) },
      }) as SlotAccess;
    const value = new Redacted(await stage.valueOf(old));
    const { found, several } = await findByValue(value, [lists("one"), lists("two")], {
      marks: undefined,
      again: true,
    });
    expect([found.length, several.length]).toEqual([1, 0]);
  });
});

describe("a key of another project than the slot's", () => {
  test("is alive, whichever slot's mark bears its fingerprint", async () => {
    const stage = await startStage();
    const value = await stage.valueOf(old);
    await stage.edit(stagingGateway, { value, comment: markFor(old, value) });
    const [found] = await stage.run("findCompromised", { keyIds: [], leaked: await sealed(stage, value, prod) });
    expect(found).toMatchObject({ id: old, state: "alive", through: prod });
  });

  test("is no dead one in the plan, where the slot's mark names it", async () => {
    const stage = await startStage();
    await stage.edit(prodGateway, { comment: markFor("key_stg_1", await stage.valueOf("key_stg_1")) });
    const plan = await stage.run("planEmergency", {}, 3);
    expect(plan.keys).toMatchObject([{ id: "key_stg_1", state: "alive" }]);
  });

  test("that the last run named as compromised is listed, and the emergency asks about it", async () => {
    const left: KeyEntry = { id: "key_stg_1", role: "compromised", fate: "named", why: "it is compromised and alive" };
    const lastClosed = (name: string): Promise<ClosedRun | undefined> =>
      Promise.resolve(name === prod ? closedWith([left]) : undefined);
    const stage = await startStage({ lastClosed });
    const { keys } = await stage.run("listSlotKeys", {});
    expect(keys.find(({ id }) => id === "key_stg_1")).toMatchObject({ state: "alive", what: "left over" });
    expect((await stage.run("planEmergency", {})).ambiguous?.why).toContain("key_stg_1");
  });

  test("is not seen dead by the slot's own project, nor by another key's value", async () => {
    const stage = await startStage();
    const other = await stage.keyByHand("other");
    await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${other.id}`);
    const order = { keyId: "key_stg_1", throughPrev: false, until: inFuture(600), rule: once };
    const leaked = await sealed(stage, other.value, prod);
    for (const asked of [order, { ...order, until: inFuture(1_200), leaked }]) {
      const { deadAt, note } = await stage.run("confirmRevoked", asked);
      expect(deadAt).toBeUndefined();
      expect(note).toContain("the provider still lists it as alive");
    }
  });

  test("is another one under the same id: the values tell whose a mark is", () => {
    const at = new Date();
    const mark = { keyId: "gateway", rotationId: "r", fingerprint: fingerprintOf("one value"), at };
    const seen = { kind: "secret", modified: at, config: "present", mark } as const;
    expect(judgeHeld(seen, { id: "gateway", fingerprint: fingerprintOf("another value") }).answer).toBe("no");
    expect(judgeHeld(seen, { id: "gateway", fingerprint: mark.fingerprint }).answer).toBe("yes");
    expect(judgeHeld(seen, { id: "gateway" }).answer).toBe("yes");
  });
});

test("a project that answers 404 to everything shows nobody dead", async () => {
  const stage = await startStage();
  const gone = { service: "openai", method: "GET", path: "/projects/proj_abc/", mode: "status", status: 404 };
  await stage.fault(gone);
  const keys = [{ id: old, role: "compromised" as const, given: true }];
  const settled = await stage.repeat("settleKeys", { keys, ordinals: [] });
  expect(settled.keys[0]?.fate).toMatchObject({
    fate: "named",
    why: expect.stringContaining("could not be looked at"),
  });
});

test("one read that does not find a key is no death", async () => {
  const stage = await startStage();
  await stage.lie({ about: "openai-keys", mode: "not-found", which: old, times: 1 });
  const order = { keyId: old, throughPrev: false, until: inFuture(600), rule: once };
  expect((await stage.run("confirmRevoked", order)).note).toContain("still lists it as alive");
});

test("a cut of a key that has expired sends nothing and says so", async () => {
  const stage = await startStage();
  const access = stage.dependencies.slotAccess(prod);
  const findKey = async (id: string) => ({ ...(await managed(access).findKey(id)), state: "expired" });
  const provider = { ...access.provider, findKey } as unknown as SlotAccess["provider"];
  const sent: string[] = [];
  const send = async (keyId: string): Promise<void> => void sent.push(keyId);
  const { cutKey } = revocationActivities(
    { ...stage.dependencies, slotAccess: () => ({ ...access, provider }) },
    () => ({ revokeKey: send, disableKey: send, enableKey: send }),
  );
  expect(await runHere(() => cutKey({ ...stage.of, keyId: old, through: prod }))).toMatchObject({
    how: "dead already",
  });
  expect(sent).toEqual([]);
});

describe("who holds a key, where Cloudflare fails for a moment", () => {
  test.each([old, "key_stg_1"])("is never 'no slot', whichever request it was (%s)", async (keyId) => {
    const stage = await startStage();
    const wrong: number[] = [];
    for (let skip = 0; skip < 20; skip++) {
      await stage.fault({
        service: "cloudflare",
        method: "GET",
        path: ".",
        mode: "status",
        status: 503,
        times: 1,
        skip,
      });
      const plan = await stage.run("planEmergency", { keyIds: [keyId] }).catch(() => undefined);
      const said = plan === undefined ? "" : whatWillHappen({ slot, start, plan }).join("\n");
      if (said.includes("no slot holds it")) wrong.push(skip);
      await fetch(`${stage.control}/faults`, { method: "DELETE" });
    }
    expect(wrong).toEqual([]);
  });

  test("is 'cannot be told' of each slot, where it lasts", async () => {
    const stage = await startStage();
    await stage.fault({ service: "cloudflare", method: "GET", path: ".", mode: "status", status: 503 });
    const plan = await stage.run("planEmergency", { keyIds: [old] }, 3);
    expect(plan.keys[0]).toMatchObject({ heldBy: [], heldUnknown: expect.arrayContaining([prod]) });
    expect(whatWillHappen({ slot, start, plan }).join("\n")).not.toContain("no slot holds it");
  });

  test("is not 'held by no slot' by a leaked value, where a slot cannot be told of", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const { value } = await stage.keyByHand("by ada");
    await stage.edit(prodGateway, { value, comment: "pasted by hand" });
    const seen = await stage.run("findLeaked", { leaked: await sealed(stage, value) }, 3);
    expect(seen.matches).toMatchObject([{ held: false, heldUnknown: [prod] }]);
    const said = whatIsKnown({ kind: "seen", by: "here", seen }, { inventory, start: {} }).join("\n");
    expect(said).not.toContain("held by no slot");
    expect(said).toContain("cannot be told");
  });
});

describe("ids of ours", () => {
  const at = new Date("2026-11-20T10:00:00Z");
  const fingerprint = fingerprintOf("sk-svcacct-abcdefghijklmnop9AbC");
  const seen = { kind: "secret", modified: at, config: "present" } as const;
  const ending = { keyId: "ends-in-9AbC", rotationId: "r", fingerprint: "0".repeat(16), at };

  test("of two kinds can be one key's", () => {
    const byHand = { ...ending, keyId: `by-hand-${fingerprint}`, fingerprint };
    expect(judgeHeld({ ...seen, mark: byHand }, { id: "ends-in-9AbC", maskedValue: "****9AbC" }).answer).toBe(
      "unknown",
    );
    expect(judgeHeld({ ...seen, mark: ending }, { id: `by-hand-${fingerprint}`, fingerprint }).answer).toBe("unknown");
  });

  test("of one kind are two keys'", () => {
    expect(judgeHeld({ ...seen, mark: ending }, { id: "ends-in-7XyZ", maskedValue: "****7XyZ" }).answer).toBe("no");
  });
});

describe("a value", () => {
  test("beside an id, which nobody knows, is said to be unknown", async () => {
    const stage = await startStage();
    const plan = await stage.run("planEmergency", { keyIds: ["key_stg_1"], leaked: await sealed(stage, madeUp, prod) });
    expect(plan.unknown.join()).toContain("which key has the leaked value");
  });

  test("with quotes around it is shown to no other provider", async () => {
    const stage = await startStage({ slots: gemini });
    const leaked = await sealed(stage, `"${await stage.valueOf(old)}"`);
    await stage.run("findLeaked", { leaked }, 3).catch(() => undefined);
    expect((await stage.requests()).filter((line) => line.includes("lookupKey"))).toEqual([]);
  });

  test("may be that of a key whose mask shows too little: it is named as not looked at", async () => {
    const stage = await startStage();
    const access = stage.dependencies.slotAccess(prod);
    const record = (id: string, maskedValue: string): KeyRecord => {
      return { id, name: "", state: "active", createdAt: new Date(0), maskedValue };
    };
    const records = [record("key_a", "sk-svc...9AbC"), record("key_hidden", "sk-...xyz")];
    const provider = { name: "openai", looksLikeKey: () => true, listKeys: () => Promise.resolve(records) };
    const one = { ...access, provider } as unknown as SlotAccess;
    const { found, unknown } = await findByValue(new Redacted(madeUp), [one], { marks: undefined, again: true });
    expect(found).toEqual([]);
    expect(unknown.join()).toContain("show too little of their value to tell: key_hidden");
  });

  test("in a mark's or a label's place is in no answer", async () => {
    const stage = await startStage();
    const comment = `keyturn/1 key=${madeUp} rot=r fp=${fingerprintOf(madeUp)} at=${new Date().toISOString()}`;
    await stage.edit(prodGateway, { comment });
    const { id } = await stage.keyByHand(madeUp);
    const answers = [
      await stage.repeat("inspectSlot", {}).catch((error: Error) => error.message),
      await stage.run("planEmergency", {}).catch((error: Error) => error.message),
      await stage.run("findCompromised", { keyIds: [id] }),
      await stage.run("planEmergency", { keyIds: [id] }),
    ];
    expect(JSON.stringify(answers)).not.toContain("MadeUp");
  });
});

test("a person's comment is quoted where it is replaced, whatever word it begins with", async () => {
  const stage = await startStage();
  const comment = "keyturn must not touch this before Monday, ask ada";
  await stage.edit(prodGateway, { comment });
  const { modified } = await stage.secret(prodGateway);
  const key = await stage.newKey();
  await stage.repeat("stageAliases", { key });
  const done = await stage.repeat("installKey", { key, secretModified: new Date(modified).toISOString() });
  expect(done.replacedComment).toBe(comment);
});

describe("the plan of the held key", () => {
  test("promises nothing of a dead one: requests fail already", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    for (const id of [key.id, old]) await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${id}`);
    const plan = await stage.run("planEmergency", {}, 3);
    const said = whatWillHappen({ slot, start, plan }).join("\n");
    expect(said).toContain("dead already, so nothing is cut, and REQUESTS FAIL");
    expect(said).not.toContain("No request fails");
  });

  test("says that its age is unknown, where somebody says since when a key may be known", async () => {
    const stage = await startStage({ env: { OPENAI_ADMIN_KEY: undefined } });
    const plan = await stage.run("planEmergency", { since: new Date(Date.now() - 1_000).toISOString() });
    expect(plan.unknown.join()).toContain("how old");
  });
});

const geminiProd = "production/gemini";
const gemini = {
  [geminiProd]: { google: { project: "my-project", serviceAccount: "gw@my-project.iam.gserviceaccount.com" } },
};

/** Makes a key by hand, as the console does, and waits until it shows. */
async function keyOf(stage: Stage, id: string): Promise<void> {
  const route = "/v2/projects/my-project/locations/global/keys";
  const call = (method: string, path: string, body?: unknown): Promise<Response> =>
    fetch(`${stage.env["GOOGLE_APIKEYS_BASE_URL"]}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${stage.env["GOOGLE_OAUTH_ACCESS_TOKEN"]}`,
        "content-type": "application/json",
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  await call("POST", `${route}?keyId=${id}`, {
    displayName: "made by hand",
    restrictions: { apiTargets: [{ service: "generativelanguage.googleapis.com" }] },
    serviceAccountEmail: "gw@my-project.iam.gserviceaccount.com",
  });
  await expect.poll(async () => (await call("GET", `${route}/${id}`)).status).toBe(200);
}
