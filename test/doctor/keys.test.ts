import { describe, expect, test } from "vitest";

import type { SlotGround } from "../../src/doctor/ground.ts";
import { heldKeyAlive } from "../../src/doctor/keys.ts";
import { formatMark, parseMark } from "../../src/domain/mark.ts";
import type { KeyRecord } from "../../src/providers/provider.ts";
import { prod, prodGateway, type Stage, staging, stagingGateway, startStage } from "../support/activities.ts";
import { visit } from "../support/doctor.ts";

const keyPath = (id: string): string => `/organization/projects/proj_abc/api_keys/${id}`;
/** A slot that a rotation has been through: its key bears a mark. */
async function rotated(options: Parameters<typeof startStage>[0] = {}): Promise<{ stage: Stage; id: string }> {
  const stage = await startStage(options);
  const { key } = await stage.installed();
  await stage.run("removeAliases", {});
  return { stage, id: key.id };
}

describe("the admin credential", () => {
  test("reads keys and usage; whether it may write is unknown", async () => {
    const { said } = await visit(await startStage(), { only: [prod] });
    expect(said("admin-keys").join()).toMatch(/^ok: .*1 there/);
    expect(said("admin-usage").join()).toMatch(/^ok/);
    expect(said("admin-write").join()).toMatch(/^unknown/);
  });

  test.each([
    ["is refused is a problem", "made-up", "problem: openai refused the admin credential"],
    ["is not set is a warning", "", "warning: OPENAI_ADMIN_KEY is not set"],
  ])("that %s, and no usage is claimed", async (_, OPENAI_ADMIN_KEY, words) => {
    const { said } = await visit(await startStage(), { only: [prod], env: { OPENAI_ADMIN_KEY } });
    expect(said("admin-keys").join()).toContain(words);
    expect(said("admin-usage").join()).toMatch(/^unknown/);
  });

  test("of google is missing where none of its places has one, and the message names them", async () => {
    const { said } = await visit(await startStage(), {
      slots: {
        "production/gemini": {
          google: { project: "my-project", serviceAccount: "gw@my-project.iam.gserviceaccount.com" },
        },
      },
      env: { GOOGLE_OAUTH_ACCESS_TOKEN: "", HOME: "/nowhere", METADATA_SERVER_DETECTION: "none" },
    });
    expect(said("admin-keys").join()).toContain(
      "warning: neither GOOGLE_APPLICATION_CREDENTIALS nor GOOGLE_OAUTH_ACCESS_TOKEN is set, and there are no other credentials of google: a person makes each key of production/gemini",
    );
  });

  test("that may not read usage is a problem", async () => {
    const stage = await startStage();
    await stage.fault({ service: "openai", method: "GET", path: "/organization/usage/", mode: "status", status: 403 });
    const { said } = await visit(stage, { only: [prod] });
    expect(said("admin-keys").join()).toMatch(/^ok/);
    expect(said("admin-usage").join()).toMatch(/^problem/);
  });

  test("of each provider is asked", async () => {
    const { of } = await visit(await startStage(), {
      slots: {
        "production/anthropic": { anthropic: { workspace: "wrkspc_1" } },
        "production/gemini": {
          google: { project: "my-project", serviceAccount: "gw@my-project.iam.gserviceaccount.com" },
        },
      },
    });
    for (const check of ["admin-keys", "admin-usage"]) {
      expect(of(check).map(({ level }) => level)).toEqual(["ok", "ok", "ok", "ok"]);
    }
  });
});

describe("the held key", () => {
  test("is known by its mark, or by the preview, and alive", async () => {
    const { stage, id } = await rotated();
    const { said } = await visit(stage);
    expect(said("held-key")).toEqual([
      `ok: the slot holds ${id}, known by its mark`,
      "ok: the slot holds key_stg_1, known by the gateway's preview",
    ]);
    expect(said("held-key-alive").join()).toMatch(/^ok.*ok/);
  });

  test("that nothing tells is a problem, and nothing is claimed about its life", async () => {
    const stage = await startStage();
    const { value } = await stage.keyByHand("elsewhere", "proj_stg", "svc_acct_2");
    await stage.edit(prodGateway, { value });
    const { said, of } = await visit(stage, { only: [prod] });
    expect(said("held-key").join()).toMatch(/^problem: which key production\/openai holds is unknown/);
    expect([...of("held-key-alive"), ...of("life-left")].map(({ level }) => level)).toEqual(["unknown", "unknown"]);
  });

  test.each([
    ["revoked", /^problem: .*knows .* no more/, (stage: Stage, id: string) => stage.openai("DELETE", keyPath(id))],
    ["expired", /^problem: .*is expired/, (stage: Stage, id: string) => stage.expire(id)],
  ])("that is %s, so that its provider lists it no more, is a problem", async (_, words, end) => {
    const { stage, id } = await rotated();
    await end(stage, id);
    expect((await visit(stage, { only: [prod] })).said("held-key-alive").join()).toMatch(words);
  });

  test("is alive though one list misses it", async () => {
    const { stage, id } = await rotated();
    await stage.lie({ about: "openai-keys", mode: "missing", which: id, times: 1 });
    expect((await visit(stage, { only: [prod] })).said("held-key-alive").join()).toMatch(/^ok/);
  });

  test.each(["disabled", "revoked", "expired"] as const)(
    "that its provider lists as %s is a problem",
    async (state) => {
      const key: KeyRecord = { id: "key_1", name: "", state, createdAt: new Date(0) };
      const held = { id: key.id, how: "mark", warnings: [] } as const;
      const access = { provider: {} };
      const slot = { name: prod, access, held: async () => held, keys: async () => [key] } as unknown as SlotGround;
      expect(await heldKeyAlive(slot)).toMatchObject({
        level: "problem",
        message: `the held key key_1 is ${state} at its provider`,
      });
    },
  );

  test.each([
    [12, "problem"],
    [24 * 40, "warning"],
    [24 * 60, "ok"],
  ])("that lives %d hours on, every 90 days, is: %s", async (hours, level) => {
    const { stage, id } = await rotated();
    await stage.openai("POST", keyPath(id), { expires_in_seconds: hours * 3_600 });
    const said = (await visit(stage, { only: [prod] })).said("life-left").join();
    expect(said).toMatch(new RegExp(`^${level}: the held key ${id} expires in`));
    expect(said.includes("a key of openai lives a year at most")).toBe(level === "problem");
  });

  test("without an end that is told is ok", async () => {
    expect((await visit(await startStage(), { only: [prod] })).said("life-left").join()).toMatch(/^ok: .* no end/);
  });
});

describe("keyLife", () => {
  test.each([
    ["180d", "ok"],
    ["179d", "problem"],
  ])("of %s where every is 90d: %s", async (keyLife, level) => {
    const { said, healthy } = await visit(await startStage(), { policy: { keyLife }, only: [prod] });
    expect(said("key-life").join()).toMatch(new RegExp(`^${level}: keyLife \\(${keyLife}\\)`));
    if (level === "problem") expect(healthy).toBe(false);
  });

  test("the organisation's limit is unknown until a key of ours shows it", async () => {
    expect((await visit(await startStage(), { only: [prod] })).said("key-life-limit").join()).toMatch(/^unknown/);
    const free = await rotated();
    expect((await visit(free.stage, { only: [prod] })).said("key-life-limit").join()).toMatch(/^ok/);
    const limited = await rotated({ sandbox: { maxKeyLifeSeconds: 200 * 86_400 } });
    expect((await visit(limited.stage, { only: [prod] })).said("key-life-limit").join()).toMatch(
      /^warning: .*182d.*allows no more/,
    );
  });

  test("longer than the provider allows is a warning", async () => {
    const { said } = await visit(await startStage(), { policy: { keyLife: "800d" }, only: [prod] });
    expect(said("key-life-limit").join()).toMatch(/^warning: keyLife \(800d\) is longer than openai allows/);
  });
});

describe("a key in two slots", () => {
  test("is a problem, whichever of them is asked for, also across projects", async () => {
    const stage = await startStage();
    await stage.edit(stagingGateway, { value: await stage.valueOf("key_prod_1") });
    for (const only of [[prod], [staging], [prod, staging]]) {
      const said = (await visit(stage, { only })).said("one-key-one-slot");
      expect(said).toContain(
        `problem: ${prod} and ${staging} hold one key, as far as marks and previews tell: key_prod_1`,
      );
    }
  });

  test("is a problem where only the fingerprints in the marks show it", async () => {
    const { stage, id } = await rotated({ sandbox: { patchRefreshesPreview: false } });
    const fingerprint = parseMark((await stage.secret(prodGateway)).comment ?? "")?.fingerprint ?? "";
    const mark = { keyId: "key_stg_1", rotationId: "by-hand", fingerprint, at: new Date() };
    await stage.edit(stagingGateway, { value: await stage.valueOf(id), comment: formatMark(mark) });
    expect((await visit(stage, { only: [staging] })).said("one-key-one-slot").join()).toMatch(
      /^problem: production\/openai and staging\/openai hold one key/,
    );
    // A mark from before somebody's edit says nothing of the value that is there now.
    const old = { ...mark, at: new Date(Date.now() - 3_600_000) };
    await stage.edit(stagingGateway, { value: await stage.valueOf("key_stg_1"), comment: formatMark(old) });
    expect((await visit(stage)).said("one-key-one-slot").join()).not.toContain("problem");
  });

  test("there is none", async () => {
    const { said } = await visit((await rotated()).stage);
    expect(said("one-key-one-slot")).toEqual(["ok: no key is in two slots, as far as marks and previews tell"]);
  });

  test("is unknown where a slot's key is", async () => {
    const stage = await startStage();
    const { value } = await stage.keyByHand("elsewhere", "proj_stg", "svc_acct_2");
    await stage.edit(prodGateway, { value });
    expect((await visit(stage)).said("one-key-one-slot").join()).toMatch(/^unknown: .*production\/openai/);
  });
});
