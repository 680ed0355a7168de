import { setTimeout as delay } from "node:timers/promises";
import { Pool } from "undici";
import { describe, expect, test } from "vitest";

import { emergencyActivities } from "../../src/activities/emergency.ts";
import { prod, prodGateway, type Stage, startStage } from "../support/activities.ts";

/** Logs of a busy gateway: what lies beyond what can be read is unknown, never "none", and a client is never called a stranger. */

const sandbox = { logLagMs: 0 };

/** The activities with a bound of so many rows instead of the real one. */
function bounded(stage: Stage, atMost: number) {
  const access = stage.dependencies.slotAccess(prod);
  const readLogs: typeof access.readLogs = (span) => access.readLogs({ ...span, atMost });
  return emergencyActivities({ ...stage.dependencies, slotAccess: () => ({ ...access, readLogs }) });
}

const order = (stage: Stage, from: number, to = Date.now()) => ({
  ...stage.of,
  keyId: "key_prod_1",
  from: new Date(from).toISOString(),
  to: new Date(to).toISOString(),
});

async function clients(stage: Stage, requests: number): Promise<void> {
  const base = new URL(stage.env["CLOUDFLARE_GATEWAY_BASE_URL"] ?? "");
  const pool = new Pool(base.origin, { connections: 16 });
  const path = `${base.pathname}/${stage.env["CLOUDFLARE_ACCOUNT_ID"]}/${prodGateway}/openai/chat/completions`;
  const headers = {
    "content-type": "application/json",
    "cf-aig-authorization": `Bearer ${stage.env["CLOUDFLARE_GATEWAY_TOKEN"]}`,
  };
  const body = JSON.stringify({ model: "gpt-5-mini", messages: [{ role: "user", content: "hello" }] });
  let left = requests;
  const client = async (): Promise<void> => {
    while (left-- > 0) await (await pool.request({ method: "POST", path, headers, body })).body.dump();
  };
  await Promise.all(Array.from({ length: 16 }, client));
  await pool.close();
}

/** Somebody who has the key and does not come through the gateway. */
async function thief(stage: Stage): Promise<void> {
  const value = await stage.valueOf("key_prod_1");
  for (let times = 0; times < 5; times++) {
    const answer = await fetch(`${stage.env["OPENAI_BASE_URL"]}/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${value}`, "content-type": "application/json" },
      body: JSON.stringify({ model: "gpt-5", messages: [{ role: "user", content: "mine now" }] }),
    });
    await answer.text();
  }
}

/** Some buckets, so that the slack of the comparison takes no stranger for a client. */
const apart = 800;

const total = (strangers: { requests: number }[]): number => strangers.reduce((sum, { requests }) => sum + requests, 0);

describe("the evidence", () => {
  test("of a gateway that logged more than five thousand requests counts no client as a stranger", async () => {
    const stage = await startStage({ sandbox });
    const from = Date.now() - 1_000;
    await clients(stage, 5_100);
    await delay(300);
    const evidence = await stage.run("gatherEvidence", order(stage, from));
    expect(evidence).toMatchObject({
      providerRequests: 5_100,
      gatewayRequests: 5_100,
      strangers: [],
      strangeModels: [],
    });
    expect(evidence.notes.filter((note) => note.includes("more than can be read"))).toEqual([]);
  }, 60_000);

  test("beyond the bound is unknown: neither clients nor a thief are told of there, and nothing is called none", async () => {
    const stage = await startStage({ sandbox });
    const from = Date.now() - 1_000;
    await clients(stage, 150);
    await delay(apart);
    await clients(stage, 300);
    await delay(apart);
    await thief(stage);
    await delay(apart);
    const whole = await stage.run("gatherEvidence", order(stage, from));
    expect({ ...whole, strangers: total(whole.strangers) }).toMatchObject({ strangers: 5, strangeModels: ["gpt-5"] });
    const some = await bounded(stage, 200).gatherEvidence(order(stage, from));
    expect(some).toMatchObject({ providerRequests: 455, strangers: [], strangeModels: [] });
    expect(some).not.toHaveProperty("gatewayRequests");
    expect(some.notes).toContainEqual(
      expect.stringMatching(/more than can be read, which went as far as .*is unknown/),
    );
  }, 30_000);

  test("within the bound tells of a thief all the same", async () => {
    const stage = await startStage({ sandbox });
    const from = Date.now() - 1_000;
    await clients(stage, 20);
    await delay(apart);
    await thief(stage);
    await delay(apart);
    await clients(stage, 300);
    await delay(300);
    const some = await bounded(stage, 150).gatherEvidence(order(stage, from));
    expect(total(some.strangers)).toBe(5);
    expect(some).not.toHaveProperty("gatewayRequests");
  }, 30_000);
});

describe("refused clients", () => {
  const look = { installedKeyId: "key_prod_1" };
  const expired = async (stage: Stage): Promise<void> => {
    await stage.expire("key_prod_1");
    expect(await stage.chat()).toBe(401);
  };

  test("beyond the bound are unknown to the soak, not none", async () => {
    const stage = await startStage({ sandbox });
    const since = Date.now();
    await clients(stage, 120);
    await expired(stage);
    const of = { ...stage.of, ...look, since: new Date(since).toISOString() };
    expect(await stage.run("lookForErrors", of)).toMatchObject({ newErrors: 1 });
    const blind = await bounded(stage, 50).lookForErrors(of);
    expect(blind).not.toHaveProperty("newErrors");
    expect(blind.note).toMatch(/more than can be read, .* errors after that are unknown/);
  });

  test("within the bound are errors, whatever came later", async () => {
    const stage = await startStage({ sandbox });
    const since = Date.now();
    await expired(stage);
    await clients(stage, 120);
    const seen = await bounded(stage, 50).lookForErrors({ ...stage.of, ...look, since: new Date(since).toISOString() });
    expect(seen.newErrors).toBeGreaterThan(0);
  });

  test("are looked for from the newest on, so that the last one shows; where none does, the rest is unknown", async () => {
    const stage = await startStage({ sandbox });
    const from = new Date(Date.now() - 1_000).toISOString();
    await clients(stage, 120);
    expect(await stage.run("findLastRefusal", { from })).toEqual({});
    expect((await bounded(stage, 50).findLastRefusal({ ...stage.of, from })).note).toMatch(/before is unknown/);
    await expired(stage);
    const exact = await stage.run("findLastRefusal", { from });
    expect(await bounded(stage, 50).findLastRefusal({ ...stage.of, from })).toEqual(exact);
    expect(exact.lastRefused).toBeDefined();
    expect(await stage.aliases(prodGateway)).toContain("default");
  });
});
