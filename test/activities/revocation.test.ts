import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, test } from "vitest";

import type { CustodyEntry } from "../../src/domain/custody.ts";
import { purposes, revocationActivities } from "../../src/activities/revocation.ts";
import {
  prod,
  prodGateway,
  type Stage,
  type StageOptions,
  staging,
  stagingGateway,
  startStage,
} from "../support/activities.ts";

/** The one door through which keys are ended (promises 3, 6, 12). */

const old = "key_prod_1";
const batch = "production/openai:batch";
const prodAccount = { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } };
const madeUpValue = "sk-svcacct-made-up-0123456789abcdef";

const deletions = async (stage: Stage): Promise<string[]> =>
  (await stage.requests()).filter((line) => line.startsWith("DELETE ") && line.includes("/api_keys/"));
/** A key under the name that an attempt of this rotation gives. */
const madeKey = (stage: Stage, suffix: string): Promise<{ id: string; value: string }> =>
  stage.keyByHand(`kt.acme.production.openai.default.${stage.of.rotationId.slice(0, 8)}.${suffix}`);
const entry = (id: string, role: CustodyEntry["role"], given = false) => ({ id, role, given });
/** A rotation whose new key is in, and what lists and reads show agrees. */
const installed = async (options?: StageOptions) => {
  const stage = await startStage(options);
  const { key } = await stage.installed();
  return { stage, key };
};

describe("revokeKey, when a proven key has replaced it", () => {
  test("ends the old key, sees it gone by its id and in the list, and says of a repetition that it was gone", async () => {
    const { stage, key } = await installed();
    const order = { keyId: old, installedKeyId: key.id };
    expect(await stage.run("revokeKey", order)).toMatchObject({
      seen: true,
      note: "key_prod_1 revoked; openai shows it no more as alive",
    });
    expect(await stage.alive()).not.toContain(old);
    const again = await stage.run("revokeKey", order);
    expect(again).toMatchObject({ seen: true, note: expect.stringContaining("was gone already") as string });
  });

  test("says that its provider took it, and not that it was seen, while a list still shows it", async () => {
    const { stage, key } = await installed({ sandbox: { listLagMs: 600_000 } });
    const done = await stage.run("revokeKey", { keyId: old, installedKeyId: key.id });
    expect(done).toMatchObject({ seen: false, note: expect.stringContaining("still shows the key") as string });
    expect(await stage.alive()).not.toContain(old);
  });

  test("says that its provider took it, and not that it was seen, where looking back fails", async () => {
    const { stage, key } = await installed();
    // Its look before and the look at the new key pass.
    await stage.fault({ service: "openai", method: "GET", path: "/api_keys\\?", mode: "status", status: 503 });
    const done = await stage.run("revokeKey", { keyId: old, installedKeyId: key.id });
    expect(done).toMatchObject({ seen: false, note: expect.stringContaining("cannot be told") as string });
    expect(await stage.alive()).not.toContain(old);
  });

  test("ends no key while lists and reads of a slot tell different things: a secret was made anew, or times run apart", async () => {
    const { stage, key } = await installed({
      slots: { "production/openai:batch": { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } } },
    });
    const order = { keyId: old, installedKeyId: key.id };
    await stage.serve(prodGateway, "batch", await stage.valueOf(key.id));
    await pause(1_200);
    const { id } = await stage.secret(prodGateway, "batch");
    // So late that the former secret is all that lists show, at both looks.
    await stage.options({ listLagMs: 600 * 1_000 });
    const secrets = `/secrets_store/stores/${stage.seed["storeId"]}/secrets`;
    const value = await stage.valueOf(old);
    await stage.cloudflare("DELETE", `${secrets}/${id}`);
    await stage.cloudflare("POST", secrets, [{ name: `${prodGateway}_openai_batch`, value, scopes: ["ai_gateway"] }]);
    await expect(stage.run("revokeKey", order)).rejects.toMatchObject({ type: "NotYetPropagated" });
    expect(await deletions(stage)).toEqual([]);

    const apart = await installed();
    const row = { ...(await apart.stage.secret(prodGateway)), modified: new Date(Date.now() + 5_000).toISOString() };
    await apart.stage.edit(prodGateway, { value: await apart.stage.valueOf(old), comment: "by alice" });
    const body = { success: true, errors: [], messages: [], result: [row] };
    const list = { service: "cloudflare", method: "GET", path: "/secrets\\?", mode: "status", status: 200, body };
    await apart.stage.fault(list);
    await expect(apart.stage.run("revokeKey", { keyId: old, installedKeyId: apart.key.id })).rejects.toMatchObject({
      type: expect.stringMatching(/^(?:NotYetPropagated|SlotChanged)$/),
    });
    expect(await deletions(apart.stage)).toEqual([]);
  });

  test("ends no key that another slot holds", async () => {
    const { stage, key } = await installed();
    await stage.edit(stagingGateway, { value: await stage.valueOf(old) });
    await expect(stage.run("revokeKey", { keyId: old, installedKeyId: key.id })).rejects.toMatchObject({
      type: "SlotChanged",
      message: expect.stringContaining(`${staging} holds ${old}`) as string,
    });
    expect(await deletions(stage)).toEqual([]);
  });

  test("leaves a key alone while it cannot be told whether a slot holds it, and names the slot: a secret without a provider config", async () => {
    const { stage, key } = await installed({ slots: { [batch]: prodAccount }, sandbox: { configNeeded: false } });
    await stage.cloudflare("POST", `/secrets_store/stores/${stage.seed["storeId"]}/secrets`, [
      { name: `${prodGateway}_openai_batch`, value: await stage.valueOf(old), scopes: ["ai_gateway"] },
    ]);
    expect(await stage.chat(prodGateway, "batch")).toBe(200);
    const refused = stage.run("revokeKey", { keyId: old, installedKeyId: key.id });
    await expect(refused).rejects.toMatchObject({
      type: "NotYetPropagated",
      // The workflow waits for it, where people see it.
      nonRetryable: true,
      message: expect.stringContaining(batch) as string,
    });
    expect(await deletions(stage)).toEqual([]);
    expect(await stage.chat(prodGateway, "batch")).toBe(200);
  });

  test("takes a flag of the provider's on the new key for no death", async () => {
    const { stage, key } = await installed();
    await stage.role("svc_acct_1", "none");
    await stage.run("revokeKey", { keyId: old, installedKeyId: key.id });
    expect(await stage.alive()).not.toContain(old);
    expect(await stage.chat()).toBe(200);
  });

  test("leaves the old key alone where the new one is dead, and asks twice before it says so", async () => {
    const { stage, key } = await installed();
    const order = { keyId: old, installedKeyId: key.id };
    await stage.lie({ about: "openai-keys", mode: "not-found", which: key.id, times: 1 });
    await stage.run("lookBeforeRevoking", order);
    await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${key.id}`);
    await expect(stage.run("revokeKey", order)).rejects.toMatchObject({
      type: "SlotChanged",
      message: expect.stringContaining("put a key that works into the slot") as string,
    });
    expect(await stage.alive()).toContain(old);
  });

  test("never ends the key that was put in, nor one of another project, and says whose it is", async () => {
    const { stage, key } = await installed();
    await expect(stage.run("revokeKey", { keyId: key.id, installedKeyId: key.id })).rejects.toMatchObject({
      type: "SlotChanged",
    });
    const order = { keyId: "key_stg_1", installedKeyId: key.id };
    await expect(stage.run("revokeKey", order)).rejects.toMatchObject({
      type: "KeyUnknown",
      message: expect.stringContaining(staging) as string,
    });
    expect(await deletions(stage)).toEqual([]);
  });

  test("ends it although a read by its id is stale once", async () => {
    const { stage, key } = await installed();
    await stage.lie({ about: "openai-keys", mode: "not-found", which: old, times: 1 });
    expect(await stage.run("revokeKey", { keyId: old, installedKeyId: key.id })).toMatchObject({
      note: expect.stringContaining("key_prod_1 revoked") as string,
    });
    expect(await stage.alive()).not.toContain(old);
  });
});

describe("a compromised key", () => {
  const told = { keyId: old, through: prod };

  test("is ended whoever uses it, also through another slot's project, where it was seen", async () => {
    const stage = await startStage();
    expect(await stage.run("endCompromisedKey", told)).toMatchObject({ seen: true });
    expect(await stage.run("cutKey", { keyId: "key_stg_1", through: staging })).toMatchObject({ how: "revoked" });
    expect(await stage.alive()).toEqual([]);
  });

  test("that no slot held is not ended by an attempt that comes late, where a slot holds it by then and it is not due", async () => {
    const stage = await startStage();
    const within = (unheldUntil: string, agoMs: number) =>
      stage.run("endCompromisedKey", { ...told, unheldUntil }, 3, {
        info: { scheduledTimestampMs: Date.now() - agoMs },
      });
    const later = new Date(Date.now() + 3_600_000).toISOString();
    await expect(within(later, 60_000)).rejects.toMatchObject({ type: "SlotChanged", nonRetryable: true });
    expect(await stage.alive()).toContain(old);
    // Past its time it is ended whoever holds it.
    expect(await within(new Date(Date.now() - 1).toISOString(), 60_000)).toMatchObject({ seen: true });
    expect(await within(later, 60_000)).toMatchObject({ note: expect.stringContaining("was gone already") as string });
  });

  test("is ended without another look right after one", async () => {
    const stage = await startStage();
    const order = { ...told, unheldUntil: "9999-12-31T23:59:59Z" };
    const info = { scheduledTimestampMs: Date.now() };
    expect(await stage.run("endCompromisedKey", order, 1, { info })).toMatchObject({ seen: true });
  });

  test("is never said to be revoked twice: gone is gone", async () => {
    const stage = await startStage();
    await stage.run("endCompromisedKey", told);
    expect((await stage.run("endCompromisedKey", told)).note).toContain("was gone already");
    expect(await stage.run("cutKey", told)).toMatchObject({ how: "dead already" });
  });

  test.each(["endCompromisedKey", "cutKey"] as const)(
    "of another project is not said to be cut by %s: whose it is is said, and it lives",
    async (verb) => {
      const stage = await startStage();
      await expect(stage.run(verb, { keyId: "key_stg_1", through: prod })).rejects.toMatchObject({
        type: "KeyUnknown",
        nonRetryable: true,
        message: expect.stringContaining(`in that of ${staging}: nothing was ended`) as string,
      });
      expect(await stage.alive()).toContain("key_stg_1");
    },
  );

  test.each(["endCompromisedKey", "cutKey"] as const)(
    "is refused by %s where its value stands in place of its id, which then goes nowhere",
    async (verb) => {
      const stage = await startStage();
      const before = await stage.requests();
      const failure = await stage.run(verb, { keyId: madeUpValue, through: prod }).catch((error: unknown) => error);
      expect(failure).toMatchObject({ type: "InvalidInput", nonRetryable: true });
      expect(String(failure)).toContain("it is the value of a key, not its id");
      expect(String(failure)).not.toContain("made-up");
      expect(await stage.requests()).toEqual(before);
    },
  );

  test.each(["endCompromisedKey", "cutKey"] as const)(
    "is ended by %s although a read by its id is stale",
    async (verb) => {
      const stage = await startStage();
      await stage.lie({ about: "openai-keys", mode: "not-found", which: old });
      await stage.run(verb, told);
      expect(await stage.alive()).not.toContain(old);
    },
  );

  test.each(["by-hand-0123456789abcdef", "ends-in-9AbC"])("is not said to be cut by a name of ours: %s", async (id) => {
    const stage = await startStage();
    await expect(stage.run("cutKey", { keyId: id, through: prod })).rejects.toMatchObject({ type: "KeyUnknown" });
    expect(await deletions(stage)).toEqual([]);
  });

  test("is told how to be revoked by hand where no credential can", async () => {
    const stage = await startStage({ env: { OPENAI_ADMIN_KEY: "" } });
    await expect(stage.run("cutKey", told)).rejects.toMatchObject({
      type: "InvalidInput",
      message: expect.stringContaining("revoke it by hand at https://platform.openai.com/api-keys") as string,
    });
  });
});

describe("settleKeys, at a run's end", () => {
  /** Of keys that it finds it is asked as a run would ask. */
  const fatesOf = async (stage: Stage, order: Parameters<typeof stage.run<"settleKeys">>[1]) => {
    const first = await stage.run("settleKeys", order);
    const found = (first.found ?? []).map((id) => entry(id, "new"));
    const { keys } =
      found.length === 0 ? first : await stage.run("settleKeys", { ...order, keys: [...order.keys, ...found] });
    return Object.fromEntries(keys.map(({ id, fate }) => [id, fate]));
  };

  test("names a live key that nobody holds by its role, and ends none but what the run made and gave nobody", async () => {
    const { stage, key } = await installed();
    const [made, handed, earlier, told] = await Promise.all(
      ["made", "handed in", "earlier", "compromised"].map((name) => stage.keyByHand(name)),
    );
    const ids = [made, handed, earlier, told].map((one) => one?.id ?? "");
    const [madeId = "", handedId = "", earlierId = "", toldId = ""] = ids;
    const { keys, warnings } = await stage.run("settleKeys", {
      keys: [
        entry(old, "old", true),
        entry(key.id, "new", true),
        entry(madeId, "new"),
        entry(handedId, "handed-in"),
        entry(earlierId, "earlier"),
        entry(toldId, "compromised"),
      ],
      ordinals: [],
    });
    const why = (text: string) => ({ fate: "named", why: expect.stringContaining(text) as string });
    expect(keys).toEqual([
      { id: old, role: "old", fate: why("clients may still use it") },
      { id: key.id, role: "new", fate: { fate: "held", by: prod } },
      { id: madeId, role: "new", fate: { fate: "ended", at: expect.any(String) as string, seen: true } },
      { id: handedId, role: "handed-in", fate: why("whoever made it should revoke it") },
      { id: earlierId, role: "earlier", fate: why("an earlier run of production/openai left it alive") },
      { id: toldId, role: "compromised", fate: why("it is compromised and alive") },
    ]);
    expect(warnings).toEqual([]);
    expect((await deletions(stage)).map((line) => line.split("/").at(-1))).toEqual([madeId]);
  });

  test("says held of the old key where nothing was put in, and dead of what is dead", async () => {
    const stage = await startStage();
    const { id } = await stage.keyByHand("gone");
    await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${id}`);
    expect(await fatesOf(stage, { keys: [entry(old, "old", true), entry(id, "handed-in")], ordinals: [] })).toEqual({
      [old]: { fate: "held", by: prod },
      [id]: { fate: "ended", at: expect.any(String) as string, seen: true },
    });
  });

  test("finds by its exact name what an attempt made whose answer was lost, and nothing that only begins alike", async () => {
    const stage = await startStage();
    const lost = await madeKey(stage, "2-3");
    const spared = await Promise.all(["2-3 copy", "3-1", "2", "2-3.1"].map((suffix) => madeKey(stage, suffix)));
    expect(await fatesOf(stage, { keys: [], ordinals: [1, 2] })).toEqual({
      [lost.id]: { fate: "ended", at: expect.any(String) as string, seen: true },
    });
    expect(await stage.alive()).toEqual(expect.arrayContaining(spared.map(({ id }) => id)));
    expect(await stage.alive()).not.toContain(lost.id);
  });

  test("ends nothing while it finds what its run did not know: an answer that is lost would lose it for good", async () => {
    const stage = await startStage();
    const [known, lost] = [await madeKey(stage, "1-1"), await madeKey(stage, "1-2")];
    const order = { keys: [entry(known.id, "new")], ordinals: [1] };
    expect(await stage.repeat("settleKeys", order)).toEqual({ keys: [], found: [lost.id], warnings: [] });
    expect(await deletions(stage)).toEqual([]);
  });

  test("says that the slot does not hold a key that was given, where what lies there shows it", async () => {
    const { stage, key } = await installed();
    const order = { keys: [entry(key.id, "new", true)], ordinals: [] };
    expect((await stage.run("settleKeys", order)).notHeld).toBeUndefined();
    // What an earlier attempt of the same rotation sent lands late.
    const other = await stage.keyByHand("another of the rotation");
    const mark = `keyturn/1 key=${other.id} rot=${stage.of.rotationId} fp=0123456789abcdef at=${new Date().toISOString()}`;
    await stage.edit(prodGateway, { value: other.value, comment: mark });
    expect((await stage.run("settleKeys", order)).notHeld).toEqual([key.id]);
    // Another's edit: whether the rotation's own write may still arrive cannot be told.
    await stage.edit(prodGateway, { value: other.value, comment: "by hand" });
    expect((await stage.run("settleKeys", order)).notHeld).toBeUndefined();
  });

  test("leaves alone what its run knows by id and does not ask about, whatever its name: it may be anywhere", async () => {
    const stage = await startStage();
    const known = await madeKey(stage, "1-1");
    const lost = await madeKey(stage, "1-2");
    const fates = await fatesOf(stage, { keys: [], ordinals: [1], known: [known.id] });
    expect(Object.keys(fates)).toEqual([lost.id]);
    expect(await stage.alive()).toContain(known.id);
  });

  test("finds a key that the list shows only at the second look", async () => {
    const stage = await startStage();
    const lost = await madeKey(stage, "1-1");
    await stage.lie({ about: "openai-keys", mode: "missing", which: lost.id, times: 1 });
    expect(await fatesOf(stage, { keys: [], ordinals: [1] })).toMatchObject({ [lost.id]: { fate: "ended" } });
  });

  test("never ends a key that clients were given, though another one is in by now", async () => {
    const { stage, key } = await installed();
    const second = await stage.newKey(2);
    const { modified } = await stage.secret(prodGateway);
    await stage.repeat("installKey", { key: second, secretModified: modified });
    expect(
      await fatesOf(stage, { keys: [entry(key.id, "new", true), entry(second.id, "new", true)], ordinals: [] }),
    ).toEqual({
      [key.id]: { fate: "named", why: "clients were given it: revoke it when it is idle" },
      [second.id]: { fate: "held", by: prod },
    });
    expect(await deletions(stage)).toEqual([]);
  });

  test("names a key whose installation was begun and does not show", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    expect(await fatesOf(stage, { keys: [entry(key.id, "new", true)], ordinals: [] })).toEqual({
      [key.id]: { fate: "named", why: expect.stringContaining("it may still arrive") as string },
    });
    expect(await stage.alive()).toContain(key.id);
  });

  test.each([
    ["provider-configs", "missing"],
    ["secrets", "missing"],
    ["secrets", "not-found"],
  ])("never takes a slot of which %s are %s for one that does not hold the key", async (about, mode) => {
    const { stage, key } = await installed();
    await stage.lie({ about, mode, which: mode === "not-found" ? undefined : prodGateway, times: 2 });
    // As if nobody had been given it: only the look at the slots spares it.
    const { [key.id]: fate } = await fatesOf(stage, { keys: [entry(key.id, "new")], ordinals: [] });
    expect(fate?.fate).toMatch(/^(?:held|named)$/);
    expect(await deletions(stage)).toEqual([]);
    expect(await stage.chat()).toBe(200);
  });

  test("names a key of which it cannot be told whether a slot holds it, and why", async () => {
    const { stage } = await installed({ slots: { [batch]: prodAccount }, sandbox: { configNeeded: false } });
    const { id, value } = await stage.keyByHand("made");
    await stage.cloudflare("POST", `/secrets_store/stores/${stage.seed["storeId"]}/secrets`, [
      { name: `${prodGateway}_openai_batch`, value, scopes: ["ai_gateway"] },
    ]);
    expect(await fatesOf(stage, { keys: [entry(id, "new")], ordinals: [] })).toEqual({
      [id]: { fate: "named", why: expect.stringContaining(`cannot be told: ${batch} (`) as string },
    });
    expect(await stage.alive()).toContain(id);
  });

  test("names a key that a neighbour rotated by hand may hold, where its preview does not tell", async () => {
    const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
    const { id, value } = await stage.keyByHand("made");
    const comment = `keyturn/1 key=by-hand-0123456789abcdef rot=x fp=0123456789abcdef at=${new Date().toISOString()}`;
    await stage.edit(stagingGateway, { value, comment });
    expect(await fatesOf(stage, { keys: [entry(id, "new")], ordinals: [] })).toEqual({
      [id]: { fate: "named", why: expect.stringContaining(`cannot be told: ${staging} (`) as string },
    });
    expect(await stage.alive()).toContain(id);
  });

  test("asks for the end of a key of its own that nothing shows: a write goes by no old list", async () => {
    const stage = await startStage();
    const key = await stage.newKey();
    await stage.lie({ about: "openai-keys", mode: "missing", which: key.id, times: 2 });
    await stage.lie({ about: "openai-keys", mode: "not-found", which: key.id, times: 1 });
    expect(await fatesOf(stage, { keys: [entry(key.id, "new")], ordinals: [] })).toMatchObject({
      [key.id]: { fate: "ended" },
    });
    expect(await stage.alive()).not.toContain(key.id);
  });

  test("names what is more than it may end at a time", async () => {
    const stage = await startStage();
    for (let attempt = 1; attempt <= 11; attempt++) await madeKey(stage, `1-${attempt}`);
    const fates = Object.values(await fatesOf(stage, { keys: [], ordinals: [1] }));
    expect(fates.filter(({ fate }) => fate === "ended")).toHaveLength(10);
    expect(fates.filter(({ fate }) => fate === "named")).toEqual([
      { fate: "named", why: expect.stringContaining("10 keys were ended and no more") as string },
    ]);
    expect(await deletions(stage)).toHaveLength(10);
  });

  test("fails, to be tried again, on a worker without the credential with which keys were made", async () => {
    const stage = await startStage({ env: { OPENAI_ADMIN_KEY: "" } });
    for (const order of [
      { keys: [], ordinals: [1] },
      { keys: [entry("key_1", "new")], ordinals: [] },
    ]) {
      await expect(stage.run("settleKeys", order)).rejects.toMatchObject({
        type: "AdminCredentialRejected",
        nonRetryable: false,
        message: expect.stringContaining("OPENAI_ADMIN_KEY is not set on this worker") as string,
      });
    }
  });

  test("names, by hand, what people made, and sees what the slot holds", async () => {
    const stage = await startStage({ env: { OPENAI_ADMIN_KEY: "" } });
    const ending = `ends-in-${(await stage.valueOf(old)).slice(-4)}`;
    const fates = await fatesOf(stage, {
      keys: [entry(ending, "old", true), entry("key_a", "handed-in")],
      ordinals: [],
    });
    expect(fates[ending]).toEqual({ fate: "held", by: prod });
    expect(fates["key_a"]).toEqual({ fate: "named", why: expect.stringContaining("handed in") as string });
  });

  test("tries again what may work in a moment, and names what is refused for good, with the refusal's own sentence", async () => {
    const stage = await startStage();
    const { id } = await madeKey(stage, "1-1");
    await stage.fault({ service: "openai", method: "DELETE", path: "", mode: "status", status: 503, times: 1 });
    const order = { keys: [entry(id, "new")], ordinals: [] };
    await expect(stage.run("settleKeys", order)).rejects.toMatchObject({ type: "Unavailable", nonRetryable: false });
    await stage.fault({ service: "openai", method: "DELETE", path: "", mode: "status", status: 403, times: 1 });
    expect(await fatesOf(stage, order)).toEqual({
      [id]: { fate: "named", why: expect.stringContaining("renew OPENAI_ADMIN_KEY") as string },
    });
    await stage.repeat("settleKeys", order);
    expect(await stage.alive()).not.toContain(id);
  });

  test("sees what the slot holds though its provider cannot be asked", async () => {
    const stage = await startStage({ env: { OPENAI_ADMIN_KEY: "made-up-credential-0123456789" } });
    const { key } = await markedByHand(stage);
    expect(await fatesOf(stage, { keys: [entry(key, "old", true)], ordinals: [] })).toEqual({
      [key]: { fate: "held", by: prod },
    });
  });

  test("says what is flagged, and takes it for alive", async () => {
    const { stage, key } = await installed();
    await stage.role("svc_acct_1", "none");
    const { keys, warnings } = await stage.run("settleKeys", { keys: [entry(key.id, "new", true)], ordinals: [] });
    expect(keys).toMatchObject([{ id: key.id, fate: { fate: "held" } }]);
    expect(warnings).toEqual([expect.stringContaining("owner_project_access: inactive")]);
  });
});

/** A slot whose mark names a key, as an earlier rotation left it. */
async function markedByHand(stage: Stage): Promise<{ key: string }> {
  const fp = "0123456789abcdef";
  const comment = `keyturn/1 key=${old} rot=earlier fp=${fp} at=${new Date().toISOString()}`;
  await stage.edit(prodGateway, { comment });
  return { key: old };
}

describe("the door", () => {
  test("asks the same questions before each purpose, in an order that can be read", () => {
    expect(purposes).toMatchInlineSnapshot(`
      {
        "compromised": [
          "what names the key is an id, not a value",
          "an admin credential that can end keys is configured",
          "the id is its provider's, not one that keyturn gave the key while it could not ask",
          "the key is one of the project that is asked to end it",
        ],
        "compromisedUnheld": [
          "what names the key is an id, not a value",
          "an admin credential that can end keys is configured",
          "the id is its provider's, not one that keyturn gave the key while it could not ask",
          "the key is one of the project that is asked to end it",
          "no slot holds the key",
        ],
        "leftover": [
          "what names the key is an id, not a value",
          "an admin credential that can end keys is configured",
          "no slot holds the key",
        ],
        "orphan": [
          "what names the key is an id, not a value",
          "an admin credential that can end keys is configured",
          "its whole name is one that this installation gives, or the last run of its slot named it",
          "no open rotation owns it, it is old enough, and nobody uses it",
          "no slot holds the key",
        ],
        "replaced": [
          "an admin credential that can end keys is configured",
          "the id is its provider's, not one that keyturn gave the key while it could not ask",
          "what names the key is an id, not a value",
          "it is not the key that was put in",
          "the key is one of the project that is asked to end it",
          "the slot holds the new key, by a mark that can be believed",
          "no slot holds the key",
          "the new key is alive at its provider; a flag of the provider's is no death",
        ],
      }
    `);
  });

  test("is the only way: no activity but its own is handed what ends keys", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const calls: string[] = [];
    const door = revocationActivities(stage.dependencies, (slot) => ({
      revokeKey: async (id) => void calls.push(`${slot} ${id}`),
    }));
    expect(Object.keys(door).toSorted()).toEqual([
      "cutKey",
      "disableKey",
      "enableKey",
      "endCompromisedKey",
      "lookBeforeRevoking",
      "revokeKey",
      "revokeOrphan",
      "settleKeys",
    ]);
    expect("revokeKey" in stage.dependencies.slotAccess(prod).provider).toBe(false);
    // An end that its provider took and that does not show is not seen.
    const done = await door.endCompromisedKey({ ...stage.of, keyId: key.id, through: prod });
    expect(done).toMatchObject({ seen: false });
    expect(calls).toEqual([`${prod} ${key.id}`]);
  });
});
