import { describe, expect, test } from "vitest";

import type { Duration } from "../../src/domain/duration.ts";
import { formatMark } from "../../src/domain/mark.ts";
import { Redacted } from "../../src/redacted.ts";
import { prod, prodGateway, type Stage, startStage } from "../support/activities.ts";

/** With many slots the look at who holds a key costs a few calls, and finds the holder all the same (promise 3). */

const many = 50;
const aliases = Array.from({ length: many }, (_, index) => `a${index + 1}`);
const account = { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } };

async function withManySlots({ marked }: { marked: boolean }): Promise<Stage> {
  const slots = Object.fromEntries(aliases.map((alias) => [`${prod}:${alias}`, account]));
  const stage = await startStage({ slots, sandbox: { secretQuota: 200 } });
  for (const alias of aliases) {
    await stage.serve(prodGateway, alias, `sk-svcacct-madeUpMadeUpMadeUp${alias.padStart(4, "x")}`);
    if (marked) await mark(stage, alias, `key_${alias}`);
  }
  return stage;
}

/** What a rotation leaves in the secret of a slot. */
async function mark(stage: Stage, alias: string, keyId: string): Promise<void> {
  const { id } = await stage.secret(prodGateway, alias);
  const fingerprint = new Redacted(keyId).fingerprint();
  const comment = formatMark({ keyId, rotationId: "r", fingerprint, at: new Date() });
  await stage.cloudflare("PATCH", `/secrets_store/stores/${stage.seed["storeId"]}/secrets/${id}`, { comment });
}

/** Calls to Cloudflare that an attempt makes. */
async function callsOf(stage: Stage, attempt: () => Promise<unknown>): Promise<string[]> {
  const ofCloudflare = async () => (await stage.requests()).filter((line) => line.includes("/accounts/"));
  const before = (await ofCloudflare()).length;
  await attempt();
  return (await ofCloudflare()).slice(before);
}

describe(`an inventory of ${many + 2} slots`, () => {
  test("is looked at in a few calls by inspectSlot, by the revocation and by the sweep", async () => {
    const stage = await withManySlots({ marked: true });
    const inspected = await callsOf(stage, () => stage.run("inspectSlot", {}));
    const { key } = await stage.installed();
    const looked = await callsOf(stage, () =>
      stage.run("lookBeforeRevoking", { keyId: "key_prod_1", installedKeyId: key.id }),
    );
    const swept = await callsOf(stage, () =>
      stage.run("findOrphans", { select: { environment: "production" }, minimumAge: "24h" as Duration }),
    );
    for (const calls of [inspected, looked, swept]) expect(calls.length).toBeLessThanOrEqual(16);
  }, 60_000);

  test("is read one by one where no slot bears a mark, since a list alone rules none of them out", async () => {
    const stage = await withManySlots({ marked: false });
    const calls = await callsOf(stage, () => stage.run("lookAtHolders", { keyIds: ["key_prod_1"] }));
    expect(calls.length).toBeGreaterThan(many);
    expect(calls.length).toBeLessThanOrEqual(many + 16);
  }, 60_000);

  test("hides no holder: by preview, and by a mark in the list", async () => {
    const stage = await withManySlots({ marked: true });
    const { key } = await stage.installed();
    const look = () => stage.run("lookBeforeRevoking", { keyId: "key_prod_1", installedKeyId: key.id });
    await look();
    const { id } = await stage.secret(prodGateway, "a37");
    const path = `/secrets_store/stores/${stage.seed["storeId"]}/secrets/${id}`;
    await mark(stage, "a37", "key_prod_1");
    await expect(look()).rejects.toMatchObject({ message: expect.stringContaining(`${prod}:a37 holds key_prod_1`) });
    await stage.cloudflare("PATCH", path, { value: await stage.valueOf("key_prod_1"), comment: "by hand" });
    await expect(look()).rejects.toMatchObject({ message: expect.stringContaining(`${prod}:a37 holds key_prod_1`) });
  }, 60_000);
});
