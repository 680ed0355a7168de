import { describe, expect, test } from "vitest";

import { parseMark } from "../../src/domain/mark.ts";
import { prod, prodGateway, type Stage, startStage } from "../support/activities.ts";
import { visit } from "../support/doctor.ts";
import { readPage, section, table } from "../support/markdown.ts";

/** What the runbooks for work without keyturn say, row by row, done to the sandbox. A row that nothing here does fails. */

describe("by hand in the dashboard: what keyturn says afterwards", () => {
  const rows = table(section(readPage("docs/runbooks/by-hand-in-the-dashboard.md"), "Tell keyturn"));
  const keys = "/organization/projects/proj_abc/api_keys";

  /** A slot that a rotation has been through, an hour ago as far as its mark says. */
  async function rotated(options: Parameters<typeof startStage>[0] = {}): Promise<Stage> {
    const stage = await startStage(options);
    await stage.installed();
    await stage.run("removeAliases", {});
    return stage;
  }
  const heldKey = async (stage: Stage): Promise<string> =>
    (await visit(stage, { only: [prod] })).said("held-key").join("\n");

  const recipes: Record<string, () => Promise<void>> = {
    "the slot holds your key, known by the preview": async () => {
      const stage = await rotated();
      const { id, value } = await stage.keyByHand("by hand 2026-11-26");
      await stage.edit(prodGateway, { value, comment: "by hand, ada" });
      expect(await heldKey(stage)).toBe(`ok: the slot holds ${id}, known by the gateway's preview`);
      expect((await stage.repeat("inspectSlot", {})).held).toMatchObject({ id, how: "preview" });
    },
    '"the mark is not believed", and your key': async () => {
      const stage = await rotated();
      const { id, value } = await stage.keyByHand("by hand 2026-11-26");
      await stage.edit(prodGateway, { value });
      expect(await heldKey(stage)).toContain(
        `warning: the slot holds ${id}, known by the gateway's preview; the mark is not`,
      );
    },
    "which key the slot holds is unknown": async () => {
      const stage = await startStage({ sandbox: { patchRefreshesPreview: false } });
      const { id, value } = await stage.keyByHand("by hand 2026-11-26");
      await stage.openai("DELETE", `${keys}/key_prod_1`);
      await stage.edit(prodGateway, { value });
      expect(await heldKey(stage)).toMatch(/^problem: which key production\/openai holds is unknown/);
      expect((await stage.repeat("inspectSlot", { heldKeyId: id })).held).toMatchObject({ id, how: "operator" });
    },
    "the provider has no such key": async () => {
      const stage = await startStage();
      const { id, value } = await stage.keyByHand("by hand 2026-11-26", "proj_stg", "svc_acct_2");
      await stage.edit(prodGateway, { value });
      await expect(stage.repeat("inspectSlot", { heldKeyId: id })).rejects.toMatchObject({
        type: "InvalidInput",
        message: expect.stringContaining(`the provider has no key ${id}`),
      });
    },
    "the secret or the provider config is not there": async () => {
      const stage = await startStage();
      const { id } = await stage.secret(prodGateway);
      await stage.cloudflare("DELETE", `/secrets_store/stores/${stage.seed["storeId"]}/secrets/${id}`);
      const { said } = await visit(stage, { only: [prod] });
      expect(said("secret").join()).toMatch(/^problem: secret github-ai-agent-prod_openai_default is not in the store/);
    },
    "the slot still holds the old key": async () => {
      const stage = await rotated({ sandbox: { patchRefreshesPreview: false } });
      const old = parseMark((await stage.secret(prodGateway)).comment ?? "")?.keyId;
      const { value } = await stage.keyByHand("by hand 2026-11-26");
      await stage.edit(prodGateway, { value });
      expect(await heldKey(stage)).toBe(`ok: the slot holds ${old}, known by its mark`);
      await stage.edit(prodGateway, { comment: "" });
      expect(await heldKey(stage)).not.toContain("by its mark");
    },
    "the held key has no end": async () => {
      const stage = await startStage();
      const { value } = await stage.keyByHand("by hand 2026-11-26");
      await stage.edit(prodGateway, { value });
      expect((await visit(stage, { only: [prod] })).said("life-left").join()).toMatch(/^ok: .* no end/);
    },
  };

  test("has a recipe for each row", () => {
    expect(rows.map((row) => row["it says"])).toEqual(Object.keys(recipes));
  });
  test.each(Object.entries(recipes))("%s", (_, recipe) => recipe());
});

describe("in the middle of a rotation: what lies where", () => {
  const rows = table(section(readPage("docs/runbooks/in-the-middle-of-a-rotation.md"), "Where it was"));

  /** The three places that the page looks at, in its own words. */
  async function places(stage: Stage): Promise<{ comment: string; aliases: string; provider: string }> {
    const mark = parseMark((await stage.secret(prodGateway)).comment ?? "");
    const ours = mark?.rotationId === stage.of.rotationId;
    const alive = (await stage.keys()).filter(({ state, id }) => state === "active" && id !== "key_stg_1");
    const made = alive.find(({ name }) => name.startsWith("kt."));
    const lifeMs = Date.parse(made?.expiresAt ?? "") - Date.now();
    const life = lifeMs < 86_400_000 ? "an end in hours" : "its whole life";
    const old = alive.some(({ id }) => id === "key_prod_1");
    const both = old ? "both keys" : "the old key gone";
    return {
      comment: ours ? "the new key" : "the old key",
      aliases: (await stage.aliases(prodGateway)).some((alias) => alias.startsWith("kt-")) ? "there" : "none",
      provider: made === undefined ? "the old key" : ours ? both : `a new key with ${life}`,
    };
  }

  test("is what the page says, after each step of a rotation", async () => {
    const stage = await startStage();
    const seen: string[][] = [];
    const look = async (step: string): Promise<void> => {
      const found = await places(stage);
      seen.push([step, found.comment, found.aliases, found.provider]);
    };
    const { secretModified } = await stage.repeat("inspectSlot", {});
    await look("inspectSlot");
    const key = await stage.newKey();
    await look("issueKey");
    await stage.repeat("stageAliases", { key });
    await look("stageAliases");
    const lost = { service: "cloudflare", method: "PATCH", path: "/secrets/", mode: "lost-request", times: 1 };
    await stage.fault(lost);
    await expect(stage.run("installKey", { key, secretModified })).rejects.toMatchObject({ type: "Unavailable" });
    await look("installKey, the write");
    await stage.repeat("installKey", { key, secretModified });
    await look("installKey to");
    await stage.repeat("revokeKey", { keyId: "key_prod_1", installedKeyId: key.id });
    await look("revokeKey");
    await stage.repeat("removeAliases", {});
    await look("finish");

    const told = rows
      // OpenAI's keys cannot be switched off.
      .filter((row) => !row["it was in or after"]?.startsWith("disableKey"))
      .map((row) => [row["comment names"], row["aliases"], row["at the provider"]]);
    const short = (cell = ""): string => cell.replace(/, (?:or it has none|rot= this one)$/, "");
    expect(told.map((cells) => cells.map(short))).toEqual(seen.map(([, ...cells]) => cells));
    expect(rows.filter((row) => row["it was in or after"]?.startsWith("disableKey"))).toHaveLength(1);
    const steps = rows.map((row) => row["it was in or after"] ?? "").filter((step) => !step.startsWith("disableKey"));
    for (const [index, [step = ""]] of seen.entries()) expect(steps[index]).toContain(step);
  });
});
