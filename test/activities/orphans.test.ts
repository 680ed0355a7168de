import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, test } from "vitest";

import type { Duration } from "../../src/domain/duration.ts";
import { RotationFailure } from "../../src/domain/failure.ts";
import { formatAliasComment } from "../../src/domain/mark.ts";
import type { RotationResult } from "../../src/domain/rotation.ts";
import { Redacted } from "../../src/redacted.ts";
import { prod, prodGateway, type Stage, type StageOptions, staging, startStage } from "../support/activities.ts";

/** Promise 6: what a rotation left is found again; promise 3: nothing is revoked that anybody may need. */

const prefix = "kt.acme.production.openai.default.";
const lostName = `${prefix}0badcafe.1-1`;
const atOnce = "1ms" as Duration;
const find = async (stage: Stage, minimumAge = atOnce) => stage.repeat("findOrphans", { select: {}, minimumAge });
const revoke = async (stage: Stage, id: string, minimumAge = atOnce) =>
  stage.repeat("revokeOrphan", { slot: prod, id, minimumAge });
const refusing = (type: "Unavailable" | "AdminCredentialRejected") => () =>
  Promise.reject(new RotationFailure(type, "nobody answers"));

async function withOrphan(options: StageOptions = {}): Promise<{ stage: Stage; id: string; value: string }> {
  const stage = await startStage(options);
  const { id, value } = await stage.keyByHand(lostName);
  return { stage, id, value };
}

/** Why the key is spared, both where it is found and where it was to be revoked; that it lives on. */
async function sparedFor(stage: Stage, id: string, minimumAge = atOnce): Promise<string> {
  const { orphans, spared } = await find(stage, minimumAge);
  expect(orphans).toEqual([]);
  expect(await revoke(stage, id, minimumAge)).toMatchObject({ kind: "spared" });
  expect(await stage.alive()).toContain(id);
  return spared.find((item) => item.id === id)?.why ?? "";
}

test("finds the live key of ours that no slot holds, and nobody else's", async () => {
  const { stage, id } = await withOrphan();
  await stage.keyByHand("somebody's own key");
  await stage.keyByHand("kt.acme2.production.openai.default.0badcafe.1-1");
  const before = await stage.writes();
  const { orphans, spared, blocked, unknown } = await find(stage);
  expect(orphans).toMatchObject([
    { kind: "key", id, slot: prod, name: lostName, why: expect.stringContaining("no slot") },
  ]);
  expect({ spared, blocked, unknown }).toEqual({ spared: [], blocked: [], unknown: [] });
  expect(await stage.writes()).toEqual(before);
});

test("revokes it, and again is success", async () => {
  const { stage, id } = await withOrphan();
  for (let times = 0; times < 2; times++) expect(await revoke(stage, id)).toMatchObject({ kind: "ended" });
  expect(await stage.alive()).not.toContain(id);
  expect(await find(stage)).toMatchObject({ orphans: [] });
});

test.each(["lost-answer", "lost-request"])("revokes it after a %s", async (mode) => {
  const { stage, id } = await withOrphan();
  await stage.fault({ service: "openai", method: "DELETE", path: "", mode, times: 1 });
  expect(await revoke(stage, id)).toMatchObject({ kind: "ended" });
  expect(await stage.alive()).not.toContain(id);
});

test("touches no key that is not ours, whatever it is told", async () => {
  const { stage } = await withOrphan();
  const { id } = await stage.keyByHand("somebody's own key");
  expect(await revoke(stage, id)).toMatchObject({ kind: "spared", why: "its name is not one of ours" });
  expect(await stage.alive()).toContain(id);
});

describe("spares", () => {
  test("what the slot holds by its mark", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.run("removeAliases", {});
    expect(await sparedFor(stage, key.id)).toBe(`${prod} holds it`);
  });

  test("what another slot holds by its preview", async () => {
    const { stage, id, value } = await withOrphan();
    await stage.edit("github-ai-agent-staging", { value });
    expect(await sparedFor(stage, id)).toBe(`${staging} holds it`);
  });

  test("what a slot may hold whose key cannot be told", async () => {
    const { stage, id, value } = await withOrphan();
    await stage.options({ patchRefreshesPreview: false });
    await stage.edit(prodGateway, { value, comment: "pasted by hand" });
    expect(await sparedFor(stage, id)).toMatch(/holds it|is unknown, so it may be this one/);
  });

  test("the former key of a slot that was written less than the minimum age ago", async () => {
    const { stage, id } = await withOrphan();
    await pause(2_100);
    await stage.edit(prodGateway, { value: await stage.valueOf("key_prod_1") });
    expect(await sparedFor(stage, id, "2s" as Duration)).toContain("less than 2s, and caches may still send");
  });

  test("what is younger than the minimum age", async () => {
    const { stage, id } = await withOrphan();
    expect(await sparedFor(stage, id, "24h" as Duration)).toMatch(/^it is .* old, less than 24h$/);
  });

  const untold = { lastUsedLagMs: 86_400_000_000 };
  test.each([
    ["last use", { usageLag: { openai: { minMs: 86_400_000_000, jitterMs: 0 } } }],
    ["usage", untold],
  ])("what was used lately, by whomever, as its %s shows", async (_, sandbox) => {
    const { stage, id, value } = await withOrphan({ sandbox, policy: { quietPeriod: "3s" } });
    const used = await fetch(`${stage.env["OPENAI_BASE_URL"]}/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${value}`, "content-type": "application/json" },
      body: JSON.stringify({ model: "gpt-5-mini", messages: [{ role: "user", content: "hello" }] }),
    });
    expect(used.status).toBe(200);
    // Usage is told when its bucket is over.
    await expect.poll(async () => (await find(stage)).orphans, { timeout: 2_000, interval: 10 }).toEqual([]);
    expect(await sparedFor(stage, id)).toMatch(/^it was used .*: find out by whom/);
    // Once the window is past, nothing holds it back.
    await expect.poll(async () => (await find(stage)).orphans.map((item) => item.id), { timeout: 8_000 }).toEqual([id]);
  });

  test("what a slot outside this inventory was made for", async () => {
    const { stage } = await withOrphan();
    const { id } = await stage.keyByHand("kt.acme.production.openai.batch.0badcafe.1-1");
    const { orphans, spared } = await find(stage);
    expect(orphans).toHaveLength(1);
    expect(spared).toMatchObject([{ id, why: expect.stringContaining("not in this inventory") }]);
  });

  const open = { slot: staging, workflowId: `keyturn/${staging}`, rotationId: "ffffffff-0000", keyIds: [] as string[] };
  test.each([
    ["whose id is in its name", { ...open, rotationId: "0badcafe-1234-4234-8234-123456789012" }],
    ["of its slot", { ...open, slot: prod }],
  ])("what an open rotation owns %s", async (_, rotation) => {
    const { stage, id } = await withOrphan({ openRotations: () => Promise.resolve([rotation]) });
    expect(await sparedFor(stage, id)).toContain("the open rotation keyturn/");
  });

  test("what an open rotation says it replaces", async () => {
    let told: string[] = [];
    const { stage, id } = await withOrphan({ openRotations: () => Promise.resolve([{ ...open, keyIds: told }]) });
    told = [id];
    expect(await sparedFor(stage, id)).toContain("the open rotation keyturn/");
  });

  test("what a rotation took over since the sweep found it", async () => {
    let running = false;
    const { stage, id } = await withOrphan({
      openRotations: () => Promise.resolve(running ? [{ ...open, slot: prod }] : []),
    });
    expect((await find(stage)).orphans).toHaveLength(1);
    running = true;
    expect(await revoke(stage, id)).toMatchObject({ kind: "spared" });
    expect(await stage.alive()).toContain(id);
  });
});

describe("spares everything, and says so, when", () => {
  const allSpared = async (stage: Stage, id: string, said: string): Promise<void> => {
    const { orphans, spared, blocked } = await find(stage);
    expect(orphans).toEqual([]);
    expect(blocked.join()).toContain(said);
    expect(spared.find((item) => item.id === id)?.why).toContain("everything is spared");
    expect(await revoke(stage, id)).toMatchObject({ kind: "spared" });
    expect(await stage.alive()).toContain(id);
  };

  test("Temporal cannot be read", async () => {
    const { stage, id } = await withOrphan({ openRotations: refusing("Unavailable") });
    await allSpared(stage, id, "the open rotations cannot be read: nobody answers");
  });

  test("the store refuses to be read", async () => {
    const { stage, id } = await withOrphan();
    await stage.fault({ service: "cloudflare", method: "GET", path: "/secrets_store/", mode: "status", status: 403 });
    await allSpared(stage, id, `${prod} cannot be read`);
  });

  test("the store does not answer, also not after some attempts", async () => {
    const { stage, id } = await withOrphan();
    await stage.fault({ service: "cloudflare", method: "GET", path: "/secrets_store/", mode: "status", status: 500 });
    await allSpared(stage, id, `${prod} cannot be read`);
  });

  test("the secret of any slot is not there", async () => {
    const { stage, id } = await withOrphan({
      slots: { "production/openai:batch": { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } } },
    });
    await allSpared(stage, id, "production/openai:batch cannot be read");
  });
});

test("spares the keys of a slot whose use cannot be read", async () => {
  const { stage, id } = await withOrphan();
  await stage.fault({ service: "openai", method: "GET", path: "/organization/usage/", mode: "status", status: 403 });
  expect(await sparedFor(stage, id)).toContain("its use cannot be read");
});

describe("aliases that ended rotations left", () => {
  const withAliases = async (options: StageOptions = {}) => {
    const stage = await startStage(options);
    const key = await stage.newKey();
    await stage.repeat("stageAliases", { key });
    const short = stage.of.rotationId.slice(0, 8);
    return { stage, ours: [`kt-${short}-new`, `kt-${short}-prev`] };
  };
  const aliasesFound = async (stage: Stage, minimumAge = atOnce) => {
    const { orphans, spared } = await find(stage, minimumAge);
    const ids = (items: typeof orphans) => items.flatMap(({ kind, id }) => (kind === "alias" ? [id] : [])).toSorted();
    return { orphans: ids(orphans), spared: ids(spared) };
  };

  test("are found and removed with secret and config, nothing else is; again is success", async () => {
    const { stage, ours } = await withAliases();
    await stage.serve(prodGateway, "kt-mine", await stage.valueOf("key_prod_1"));
    expect(await aliasesFound(stage)).toEqual({ orphans: ours, spared: [] });
    for (const id of [...ours, ...ours]) {
      expect(await stage.repeat("removeOrphanAlias", { slot: prod, id, minimumAge: atOnce })).toMatchObject({
        kind: "ended",
      });
    }
    expect((await stage.aliases(prodGateway)).toSorted()).toEqual(["default", "kt-mine"]);
    for (const id of ours) await expect(stage.secret(prodGateway, id)).rejects.toThrow("no secret");
  });

  test("are spared while they are young", async () => {
    const { stage, ours } = await withAliases();
    expect(await aliasesFound(stage, "24h" as Duration)).toEqual({ orphans: [], spared: ours });
  });

  test("are spared while their rotation is open, also at the last moment", async () => {
    let running: string[] = [];
    const { stage, ours } = await withAliases({
      openRotations: () =>
        Promise.resolve(running.map((rotationId) => ({ slot: staging, workflowId: "w", rotationId, keyIds: [] }))),
    });
    running = [stage.of.rotationId];
    expect(await aliasesFound(stage)).toEqual({ orphans: [], spared: ours });
    for (const id of ours) {
      expect(await stage.repeat("removeOrphanAlias", { slot: prod, id, minimumAge: atOnce })).toMatchObject({
        kind: "spared",
      });
    }
    expect(await stage.aliases(prodGateway)).toHaveLength(3);
  });

  test("of another installation are left alone, however old: its rotation may wait for a person for days", async () => {
    const stage = await startStage();
    const rotationId = "0a1b2c3d-1234-4234-8234-123456789012";
    const { secrets, place } = stage.dependencies.slotAccess(prod);
    const alias = "kt-0a1b2c3d-new";
    const made = async (comment: string): Promise<void> => {
      await secrets.make({ ...place, alias }, { value: new Redacted("sk-svcacct-madeUpMadeUpMadeUp"), comment });
    };
    await made(formatAliasComment({ installation: "other", rotationId }));
    expect(await aliasesFound(stage)).toEqual({ orphans: [], spared: [] });
    await stage.repeat("removeOrphanAlias", { slot: prod, id: alias, minimumAge: atOnce });
    expect(await stage.aliases(prodGateway)).toContain(alias);
    // A comment that does not say whose it is may be anybody's.
    for (const comment of [
      "keyturn copy for rotation 0a1b2c3d",
      formatAliasComment({ installation: "acme", rotationId: "ffffffff" }),
    ]) {
      await made(comment);
      expect(await aliasesFound(stage)).toEqual({ orphans: [], spared: [alias] });
      expect(await stage.repeat("removeOrphanAlias", { slot: prod, id: alias, minimumAge: atOnce })).toMatchObject({
        kind: "spared",
        why: expect.stringContaining("does not say which installation") as string,
      });
    }
    await made(formatAliasComment({ installation: "acme", rotationId }));
    expect(await aliasesFound(stage)).toEqual({ orphans: [alias], spared: [] });
  });

  test("no alias of another name is removed, whatever is said", async () => {
    const { stage } = await withAliases();
    expect(await stage.repeat("removeOrphanAlias", { slot: prod, id: "default", minimumAge: atOnce })).toMatchObject({
      kind: "spared",
    });
    expect(await stage.held(prodGateway)).toBe("key_prod_1");
  });
});

describe("a key that the last run of a slot left behind", () => {
  const closedWith = (...keys: RotationResult["keys"]) =>
    Promise.resolve({ runId: "run-1", status: "COMPLETED", result: { keys } as unknown as RotationResult });
  const named = (id: string) => ({ id, role: "old" as const, fate: "named" as const, why: "clients may still use it" });

  async function withNamed(of: (id: string) => RotationResult["keys"][number]): Promise<{ stage: Stage; id: string }> {
    let told: RotationResult["keys"] = [];
    const stage = await startStage({ lastClosed: (slot) => (slot === prod ? closedWith(...told) : closedWith()) });
    const { id } = await stage.keyByHand("somebody's own key");
    expect((await find(stage)).orphans).toEqual([]);
    told = [of(id)];
    return { stage, id };
  }

  test("is listed with what that run said of it, whatever its name, and ended where that is asked for", async () => {
    const { stage, id } = await withNamed(named);
    const before = await stage.writes();
    const { orphans } = await find(stage);
    expect(orphans).toMatchObject([
      { id, slot: prod, why: expect.stringContaining(`the last run of ${prod} named it: clients may still use it`) },
    ]);
    expect(await stage.writes()).toEqual(before);
    for (let times = 0; times < 2; times++) expect(await revoke(stage, id)).toMatchObject({ kind: "ended" });
    expect(await stage.alive()).not.toContain(id);
    expect((await find(stage)).orphans).toEqual([]);
  });

  test("is listed until it is seen dead, also where its end was accepted", async () => {
    const { stage, id } = await withNamed((one) => ({ id: one, role: "old", fate: "ended", seen: false }));
    expect((await find(stage)).orphans).toMatchObject([{ id, why: expect.stringContaining("did not see it dead") }]);
    await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${id}`);
    expect((await find(stage)).orphans).toEqual([]);
  });

  test("is spared like any other while a slot holds it, and no key is listed that the run saw dead or left in a slot", async () => {
    const stage = await startStage({
      lastClosed: (slot) =>
        slot === prod ? closedWith(named("key_prod_1"), { id: "key_stg_1", role: "old", fate: "held" }) : closedWith(),
    });
    const { orphans, spared } = await find(stage);
    expect(orphans).toEqual([]);
    expect(spared).toMatchObject([
      { id: "key_prod_1", why: expect.stringContaining(`${prod} holds it; the last run`) },
    ]);
    expect(await revoke(stage, "key_prod_1")).toMatchObject({ kind: "spared" });
    expect(await stage.alive()).toEqual(expect.arrayContaining(["key_prod_1", "key_stg_1"]));
  });

  test("is unknown, and nothing else changes, where what that run said cannot be read", async () => {
    const { stage, id } = await withOrphan({ lastClosed: refusing("Unavailable") });
    const { orphans, unknown } = await find(stage);
    expect(orphans.map((item) => item.id)).toEqual([id]);
    expect(unknown).toContainEqual(expect.stringContaining(`what the last run of ${prod} left behind: nobody answers`));
  });
});

test("reads only what it is asked to: slots, provider, environment", async () => {
  const { stage } = await withOrphan();
  for (const select of [{ environment: "staging" }, { slots: [staging] }, { provider: "gemini" as const }]) {
    expect((await stage.repeat("findOrphans", { select, minimumAge: atOnce })).orphans).toEqual([]);
  }
  const chosen = await stage.repeat("findOrphans", { select: { environment: "production" }, minimumAge: atOnce });
  expect(chosen.orphans).toHaveLength(1);
});

describe("where no marks are kept", () => {
  const guide: StageOptions = {
    inventory: { dialect: "guide" },
    slots: {
      [prod]: {
        openai: { project: "proj_abc", serviceAccount: "svc_acct_1" },
        secretId: "github-ai-agent-prod_openai_default",
      },
      [staging]: {
        openai: { project: "proj_stg", serviceAccount: "svc_acct_2" },
        secretId: "github-ai-agent-staging_openai_default",
      },
    },
    sandbox: { dialect: "guide" },
  };

  test("spares all while a slot's last result does not tell its key", async () => {
    const { stage, id } = await withOrphan(guide);
    expect(await sparedFor(stage, id)).toContain("is unknown, so it may be this one");
  });

  test("goes by the last results, and spares the key they name", async () => {
    let held = "key_prod_1";
    const { stage, id } = await withOrphan({ ...guide, lastInstalledKey: () => Promise.resolve(held) });
    expect((await find(stage)).orphans.map((item) => item.id)).toEqual([id]);
    held = id;
    expect(await sparedFor(stage, id)).toBe(`${prod} holds it`);
  });
});
