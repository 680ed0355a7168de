import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";

import { type Sandbox, startSandbox } from "../../src/sandbox/index.ts";
import {
  durationMs,
  inFuture,
  once,
  prod,
  prodGateway,
  type Stage,
  staging,
  stagingGateway,
  startStage,
} from "../support/activities.ts";
import { visit } from "../support/doctor.ts";

/**
 * Two environments in two accounts. A sandbox has one account, so there are two of them, and a door before both that
 * lets each request in where it belongs: to Cloudflare by its account, to OpenAI by its project.
 */

interface Accounts {
  stage: Stage;
  other: Sandbox;
  /** What points keyturn at the door. */
  env: Record<string, string>;
  environments: Record<string, unknown>;
  /** Writes that one account's sandbox got. */
  writesOf(sandbox: { control: string }): Promise<string[]>;
  first: { control: string };
}

async function startAccounts(): Promise<Accounts> {
  const edges = [{ name: "near", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }];
  const other = await startSandbox({ listLagMs: 0, settleMs: 0, activationMs: 0, edges });
  onTestFinished(() => other.close());
  const otherAccount = other.env["CLOUDFLARE_ACCOUNT_ID"] ?? "";
  let first: Record<string, string> = {};

  const door = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const path = request.url ?? "/";
      const forOther = [`/${otherAccount}/`, "/projects/proj_stg/"].some((part) => path.includes(part));
      const body = Buffer.concat(chunks);
      const order = { method: request.method ?? "GET", path, headers: request.headers, body };
      void passOn(forOther ? other.env : first, first, order)
        // A model call names neither account nor project: the key tells.
        .then((answer) => (answer.status === 401 && !forOther ? passOn(other.env, first, order) : answer))
        .then(({ status, headers, text }) => response.writeHead(status, headers).end(text));
    });
  });
  await new Promise<void>((resolve) => door.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    door.closeAllConnections();
    door.close();
  });
  const url = `http://127.0.0.1:${(door.address() as AddressInfo).port}`;

  const env = {
    CLOUDFLARE_API_BASE_URL: `${url}/CLOUDFLARE_API_BASE_URL`,
    CLOUDFLARE_GATEWAY_BASE_URL: `${url}/CLOUDFLARE_GATEWAY_BASE_URL`,
    OPENAI_BASE_URL: `${url}/OPENAI_BASE_URL`,
  };
  const environments = {
    production: { gateway: prodGateway },
    staging: { gateway: stagingGateway, account: otherAccount },
  };
  const stage = await startStage({ env, inventory: { environments } });
  first = stage.env;
  return {
    stage,
    other,
    env,
    environments,
    first: { control: stage.control },
    async writesOf({ control }) {
      const answer = (await (await fetch(`${control}/record`)).json()) as {
        requests: { method: string; path: string }[];
      };
      return answer.requests.filter(({ method }) => method !== "GET").map(({ method, path }) => `${method} ${path}`);
    },
  };
}

/** Sends a request on to one of the two, with that one's credentials in place of the first's. */
async function passOn(
  to: Record<string, string>,
  first: Record<string, string>,
  order: { method: string; path: string; headers: IncomingHttpHeaders; body: Buffer },
) {
  const [, service = "", ...rest] = order.path.split("/");
  const names = ["CLOUDFLARE_API_TOKEN", "CLOUDFLARE_GATEWAY_TOKEN", "OPENAI_ADMIN_KEY"];
  const headers = Object.entries(order.headers).flatMap(([name, value]): [string, string][] => {
    if (/^(?:host|connection|content-length|transfer-encoding)$/.test(name) || typeof value !== "string") return [];
    const own = names.reduce((said, one) => said.replace(first[one] ?? one, to[one] ?? ""), value);
    return [[name, own]];
  });
  const body = order.body.length === 0 ? {} : { body: order.body };
  const answer = await fetch(`${to[service]}/${rest.join("/")}`, { method: order.method, headers, ...body });
  return {
    status: answer.status,
    headers: { "content-type": answer.headers.get("content-type") ?? "application/json" },
    text: await answer.text(),
  };
}

async function heldIn(sandbox: { control: string }, gateway: string): Promise<string | undefined> {
  const { slots } = (await (await fetch(`${sandbox.control}/slots`)).json()) as {
    slots: { gateway: string; provider: string; alias: string; keyId: string }[];
  };
  return slots.find((slot) => slot.gateway === gateway && slot.provider === "openai" && slot.alias === "default")
    ?.keyId;
}

describe("an environment with an account of its own", () => {
  test("is rotated there, and the other account is not touched", async () => {
    const { stage, other, first, writesOf } = await startAccounts();
    const of = { slot: staging };
    const { held, secretModified } = await stage.repeat("inspectSlot", of);
    expect(held).toMatchObject({ id: "key_stg_1", how: "preview" });
    const key = await stage.repeat("issueKey", { ...of, ordinal: 1, unprovenLife: durationMs(7_200_000) });
    await stage.repeat("verifyAtProvider", { ...of, key, settleUntil: inFuture(5_000), rule: once });
    await stage.repeat("stageAliases", { ...of, key });
    const proof = { ...of, alias: "new" as const, goodAnswers: 1, until: inFuture(5_000) };
    await stage.repeat("verifyThroughGateway", proof);
    await stage.repeat("installKey", { ...of, key, secretModified });
    await stage.repeat("verifyThroughGateway", { ...proof, alias: "real", installedKeyId: key.id });
    await stage.repeat("revokeKey", { ...of, keyId: "key_stg_1", installedKeyId: key.id });
    expect(await heldIn(other, stagingGateway)).toBe(key.id);
    expect(await heldIn(first, stagingGateway)).toBe("key_stg_1");
    expect(await writesOf(first)).toEqual([]);

    const before = await writesOf(other);
    const found = await stage.repeat("inspectSlot", { slot: prod });
    const replacement = await stage.repeat("issueKey", { ordinal: 1, unprovenLife: durationMs(7_200_000) });
    await stage.repeat("installKey", { key: replacement, secretModified: found.secretModified });
    expect(await heldIn(first, prodGateway)).toBe(replacement.id);
    expect(await heldIn(other, prodGateway)).toBe("key_prod_1");
    expect(await writesOf(other)).toEqual(before);
  });

  test("is looked at when a key is to be revoked: one that both accounts hold is named, not revoked", async () => {
    const { stage, other, writesOf } = await startAccounts();
    const store = `${other.env["CLOUDFLARE_API_BASE_URL"]}/accounts/${other.env["CLOUDFLARE_ACCOUNT_ID"]}/secrets_store/stores/${other.seed["storeId"]}/secrets`;
    const headers = {
      authorization: `Bearer ${other.env["CLOUDFLARE_API_TOKEN"]}`,
      "content-type": "application/json",
    };
    const { result } = (await (await fetch(`${store}?per_page=100`, { headers })).json()) as {
      result: { id: string; name: string }[];
    };
    const secret = result.find(({ name }) => name === `${stagingGateway}_openai_default`);
    const value = await stage.valueOf("key_prod_1");
    await fetch(`${store}/${secret?.id}`, { method: "PATCH", headers, body: JSON.stringify({ value }) });

    const { sharedWith, warnings } = await stage.repeat("inspectSlot", { slot: prod });
    expect(sharedWith).toEqual([staging]);
    expect(warnings).toContainEqual(expect.stringContaining(`also held by ${staging}`));
    const { key } = await stage.installed();
    await expect(stage.run("revokeKey", { keyId: "key_prod_1", installedKeyId: key.id })).rejects.toMatchObject({
      type: "SlotChanged",
      message: expect.stringContaining(`${staging} holds key_prod_1`),
    });
    expect(await stage.alive()).toContain("key_prod_1");
    expect(await writesOf(other)).toHaveLength(1);
  });

  test("is looked at by the doctor, with what that account has", async () => {
    const { stage, other, env, environments } = await startAccounts();
    await fetch(`${other.control}/options`, { method: "POST", body: JSON.stringify({ secretQuota: 3 }) });
    const { of, said } = await visit(stage, { env, environments });
    expect(of("quota").map(({ about, level }) => [about, level])).toEqual([
      [`account ${stage.env["CLOUDFLARE_ACCOUNT_ID"]}`, "ok"],
      [`account ${other.env["CLOUDFLARE_ACCOUNT_ID"]}`, "warning"],
    ]);
    for (const check of ["gateway", "secret", "provider-config", "held-key"]) {
      expect(of(check).map(({ level }) => level)).toEqual(["ok", "ok"]);
    }
    expect(said("one-key-one-slot")).toEqual(["ok: no key is in two slots, as far as marks and previews tell"]);
  });
});
