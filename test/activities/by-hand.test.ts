import { describe, expect, test } from "vitest";

import type { Duration } from "../../src/domain/duration.ts";
import { formatMark } from "../../src/domain/mark.ts";
import { Redacted } from "../../src/redacted.ts";
import { inFuture, prod, prodGateway, type Stage, staging, stagingGateway, startStage } from "../support/activities.ts";
import { visit } from "../support/doctor.ts";

/** Without an admin credential nothing is claimed that only its calls could show (promise 12), and in doubt a slot holds a key (promise 3). */

const without = { env: { OPENAI_ADMIN_KEY: undefined } };
const endOf = (value: string): string => `ends-in-${value.slice(-4)}`;
const idOf = (value: string): string => `by-hand-${new Redacted(value).fingerprint()}`;

/** A stage whose slot holds a key that was handed in, as `installKey` leaves it. */
async function handedIn(options = {}): Promise<{ stage: Stage; id: string; value: string; secretModified: string }> {
  const stage = await startStage({ ...without, ...options });
  const { value } = await stage.keyByHand("by hand");
  const key = { ...(await stage.asNewKey({ id: idOf(value), value })) };
  const { modified: secretModified } = await stage.secret(prodGateway);
  await stage.repeat("stageAliases", { key });
  await stage.repeat("installKey", { key, secretModified: new Date(secretModified).toISOString() });
  return { stage, id: key.id, value, secretModified };
}

/** The same as a worker sees it that has the credential by now. */
async function handedInBefore(options = {}): Promise<{ stage: Stage; id: string; value: string }> {
  const stage = await startStage(options);
  const { id, value } = await stage.keyByHand("by hand");
  const fingerprint = new Redacted(value).fingerprint();
  const comment = formatMark({ keyId: idOf(value), rotationId: "earlier", fingerprint, at: new Date() });
  await stage.edit(prodGateway, { value, comment });
  return { stage, id, value };
}

describe("inspectSlot", () => {
  test("finds the held key by its ending, and names what cannot be checked; nothing is written", async () => {
    const stage = await startStage(without);
    const found = await stage.run("inspectSlot", {});
    expect(found).toMatchObject({
      held: { id: endOf(await stage.valueOf("key_prod_1")), how: "preview" },
      canIssue: false,
      canDisable: false,
      byHand: { missing: "OPENAI_ADMIN_KEY is not set", where: "https://platform.openai.com/api-keys" },
      handIn: { keyName: expect.stringMatching(/^kt\.acme\.production\.openai\.default\..{8}\.1$/) },
    });
    expect(found.byHand?.unknown).toHaveLength(3);
    expect(found.held).not.toHaveProperty("since");
    expect(await stage.writes()).toEqual([]);
    expect(await stage.requests()).toEqual(expect.not.arrayContaining([expect.stringContaining("/organization/")]));
  });

  test("by the mark after a hand-in, with the name to look for", async () => {
    const { stage, id } = await handedIn();
    const found = await stage.run("inspectSlot", {});
    expect(found.held).toMatchObject({ id, how: "mark" });
    expect(found.byHand?.oldKey).toContain("its name begins with kt.acme.production.openai.default.");
  });

  test("takes the operator's word for what it cannot see, and asks for it where nothing shows the key", async () => {
    const stage = await startStage({ ...without, sandbox: { patchRefreshesPreview: false } });
    expect((await stage.run("inspectSlot", { heldKeyId: "Ada's key" })).held).toEqual({
      id: "Ada's key",
      how: "operator",
    });
    await stage.edit(prodGateway, { value: "sk-svcacct-madeUpMadeUpMadeUp" });
    await expect(stage.run("inspectSlot", {})).rejects.toMatchObject({
      type: "InvalidInput",
      message: expect.stringMatching(/start with --held-key and the id or the name that the provider's console shows/),
    });
  });

  test("does not believe a mark that survived an edit", async () => {
    const { stage } = await handedIn();
    const { value } = await stage.keyByHand("another");
    const secret = await stage.secret(prodGateway);
    const old = secret.comment?.replace(/at=\S+/, "at=2026-01-01T00:00:00.000Z") ?? "";
    await stage.edit(prodGateway, { value, comment: old });
    const { held, warnings } = await stage.run("inspectSlot", {});
    expect(held).toMatchObject({ id: endOf(value), how: "preview" });
    expect(warnings).toContainEqual(expect.stringContaining("the mark is not believed"));
  });

  test("with a credential, a mark from before it names no id: the key is found in the list", async () => {
    const { stage, id } = await handedInBefore();
    expect((await stage.run("inspectSlot", {})).held).toMatchObject({ id, how: "preview" });
  });
});

test("checkIdle says that use is unknown, and asks nobody", async () => {
  const { stage, id } = await handedIn();
  const since = inFuture(-1_000);
  const answer = await stage.run("checkIdle", { oldKeyId: "key_prod_1", newKeyId: id, installedAt: since, since });
  expect(answer).toEqual({
    kind: "unknown",
    note: expect.stringContaining("OPENAI_ADMIN_KEY is not set"),
    newKeyRequests: 0,
    clientsBefore: "unknown",
  });
});

test("installKey does not install a key that died since it was handed in", async () => {
  const stage = await startStage(without);
  const { id, value } = await stage.keyByHand("by hand");
  const key = await stage.asNewKey({ id: idOf(value), value });
  const { modified } = await stage.secret(prodGateway);
  await stage.expire(id);
  await expect(
    stage.run("installKey", { key, secretModified: new Date(modified).toISOString() }),
  ).rejects.toMatchObject({ type: "KeyRejected", message: expect.stringContaining("it is not installed") });
  expect(await stage.held(prodGateway)).toBe("key_prod_1");
});

describe("before a person is asked to revoke a key", () => {
  const look = (stage: Stage, keyId: string, installedKeyId: string) =>
    stage.repeat("lookBeforeRevoking", { keyId, installedKeyId });

  test("the slot holds the new one, and none shows the old one", async () => {
    const { stage, id } = await handedIn();
    await look(stage, endOf(await stage.valueOf("key_prod_1")), id);
    await expect(look(stage, id, id)).rejects.toMatchObject({ type: "SlotChanged" });
  });

  test.each([
    ["ends like it", endOf],
    ["has its fingerprint in its mark", idOf],
  ])("another slot that %s keeps it alive", async (what, idBy) => {
    const { stage, id } = await handedIn();
    const old = await stage.valueOf("key_prod_1");
    const fingerprint = new Redacted(old).fingerprint();
    const comment = `keyturn/1 key=told-otherwise rot=r fp=${fingerprint} at=${new Date().toISOString()}`;
    await stage.edit(stagingGateway, { value: old, ...(what.includes("mark") ? { comment } : {}) });
    await expect(look(stage, idBy(old), id)).rejects.toMatchObject({
      type: "SlotChanged",
      message: expect.stringContaining(`${staging} holds ${idBy(old)}`),
    });
  });

  test("somebody's edit of the slot stops it", async () => {
    const { stage, id } = await handedIn();
    await stage.edit(prodGateway, { comment: "mine" });
    await expect(look(stage, "ends-in-none", id)).rejects.toMatchObject({ type: "SlotChanged" });
  });
});

describe("with a credential again, a slot that was handed its key", () => {
  /** What is told of one slot: the other keeps out of it. */
  const answerFor = async (stage: Stage, keyId: string): Promise<"yes" | "no" | "unknown"> => {
    const [held] = await stage.repeat("lookAtHolders", { keyIds: [keyId] });
    if (held?.yes.includes(prod) === true) return "yes";
    return held?.unknown.some(({ slot }) => slot === prod) === true ? "unknown" : "no";
  };

  test("holds the listed key that its preview shows, and no other", async () => {
    const { stage, id } = await handedInBefore();
    expect(await answerFor(stage, id)).toBe("yes");
    expect(await answerFor(stage, "key_prod_1")).toBe("no");
  });

  test("is not ruled out by its mark where no preview is current", async () => {
    const { stage } = await handedInBefore({ sandbox: { patchRefreshesPreview: false } });
    expect(await answerFor(stage, "key_prod_1")).not.toBe("no");
  });
});

test("what was handed in and is not in the slot is named, since nobody can revoke it", async () => {
  const { stage, id } = await handedIn();
  const unused = "by-hand-0000000000000000";
  const { keys } = await stage.repeat("settleKeys", {
    keys: [
      { id, role: "handed-in", given: true },
      { id: unused, role: "handed-in", given: false },
      { id: "key_prod_1", role: "old", given: true },
    ],
    ordinals: [],
  });
  expect(keys).toEqual([
    { id, role: "handed-in", fate: { fate: "held", by: prod } },
    { id: unused, role: "handed-in", fate: { fate: "named", why: expect.any(String) } },
    { id: "key_prod_1", role: "old", fate: { fate: "named", why: expect.any(String) } },
  ]);
});

test("the sweep ends nothing, and says what it could not list", async () => {
  const stage = await startStage(without);
  await stage.keyByHand("kt.acme.production.openai.default.0badcafe.1-1");
  const { orphans, unknown } = await stage.repeat("findOrphans", { select: {}, minimumAge: "0ms" as Duration });
  expect(orphans).toEqual([]);
  expect(unknown).toContainEqual(expect.stringContaining("OPENAI_ADMIN_KEY is not set"));
});

test("the doctor warns of what it costs, and finds no problem in it", async () => {
  const { said, findings } = await visit(await startStage(), { only: [prod], env: { OPENAI_ADMIN_KEY: "" } });
  expect(said("admin-keys").join()).toMatch(
    /^warning: OPENAI_ADMIN_KEY is not set: a person makes each key .* use is unknown/,
  );
  for (const check of ["admin-usage", "held-key-alive", "life-left"]) expect(said(check).join()).toMatch(/^unknown/);
  expect(said("held-key").join()).toMatch(/^ok: the slot holds ends-in-.{4}, known by the gateway's preview/);
  const problems = findings.filter(({ level, about }) => level === "problem" && about.includes("openai"));
  expect(problems).toEqual([]);
});
