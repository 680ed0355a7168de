import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { readSlot } from "../../src/cli/slot-argument.ts";
import { type Environment, type Inventory, parseInventory } from "../../src/config.ts";
import { type Body, items, startWorld, text, type World } from "../sandbox/world.ts";
import { codeBlocks, readPage } from "../support/markdown.ts";
import { ask, connect } from "./application.ts";

/** docs/environments.md: its inventory, and its application, run against the sandbox. */

const blocks = codeBlocks(readPage("docs/environments.md"));
const blockOf = (language: string): string => blocks.find((block) => block.language === language)?.code ?? "";

test("its application is the one that is run here", () => {
  expect(`${blockOf("ts")}\n`).toBe(readPage("test/docs/application.ts"));
});

const rest = `
installation: acme
sealing: [{ kid: k, publicKey: { kty: EC, crv: P-256, x: a, y: b } }]
`;
const inventoryOf = (yaml: string): Inventory =>
  parseInventory(`${yaml}\n${rest}`, "keyturn.yaml", { CLOUDFLARE_ACCOUNT_ID: "acc_1" });
const inventory = inventoryOf(blockOf("yaml"));

test("its inventory is one, with an account for each environment", () => {
  expect(Object.values(inventory.slots).map(({ name, account }) => [name, account])).toEqual([
    ["production/openai", "acc_1"],
    ["staging/openai", "0123456789abcdef0123456789abcdef"],
    ["staging/anthropic", "0123456789abcdef0123456789abcdef"],
  ]);
  expect(inventory.defaultEnvironment).toBe("staging");
});

describe("which environment a command means", () => {
  const withoutDefault = inventoryOf(blockOf("yaml").replace(/^defaultEnvironment.*$/m, ""));
  const meant = (typed: string, more: { env?: Environment; chosen?: string; of?: Inventory } = {}): string => {
    const { env = {}, chosen, of = inventory } = more;
    return readSlot(typed, { inventory: of, env, chosen }).name;
  };

  test("says the slot, else --env, else NODE_ENV where it is one, else the default", () => {
    const production = { NODE_ENV: "production" };
    expect(meant("staging/openai", { env: production })).toBe("staging/openai");
    expect(meant("openai", { env: production, chosen: "staging" })).toBe("staging/openai");
    expect(meant("openai", { env: production })).toBe("production/openai");
    expect(meant("openai", { env: { NODE_ENV: "test" } })).toBe("staging/openai");
    expect(meant("openai")).toBe("staging/openai");
  });

  test.each([
    ["nothing says it", "openai", {}, "Write one of production/openai, staging/openai"],
    [
      "NODE_ENV is none of them",
      "openai",
      { env: { NODE_ENV: "test" } },
      "Write one of production/openai, staging/openai",
    ],
    ["--env and the slot disagree", "staging/openai", { chosen: "production" }, "--env says production"],
    ["--env is none of them", "openai", { chosen: "prodution" }, "did you mean production?"],
    [
      "the environment has no such slot",
      "anthropic",
      { env: { NODE_ENV: "production" } },
      "no slot production/anthropic",
    ],
  ])("is refused where %s", (_, typed, more, words) => {
    expect(() => meant(typed, { ...more, of: withoutDefault })).toThrow(
      expect.objectContaining({ type: "InvalidInput", message: expect.stringContaining(words) }),
    );
  });
});

describe("its application", () => {
  let world: World;
  beforeAll(async () => {
    const edges = [{ name: "one", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }];
    world = await startWorld({ deathMs: 0, edges });
  });
  afterAll(() => world.close());

  const inEnvironment = (NODE_ENV: string): Environment => ({ ...world.env, NODE_ENV });
  const ping = { model: "gpt-5-mini", messages: [{ role: "user" as const, content: "ping" }] };
  /** Keys that clients used so far. */
  const used = async (): Promise<string[]> =>
    items((await world.record())["keys"])
      .filter((key: Body) => text(key["lastUsedAt"]) !== null)
      .map(({ id }) => text(id));

  test("asks the gateway of its environment, which serves that environment's key", async () => {
    await connect("openai", inEnvironment("staging")).chat.completions.create(ping);
    expect(await used()).toEqual(["key_stg_1"]);
    await connect("openai", inEnvironment("production")).chat.completions.create(ping);
    expect((await used()).toSorted()).toEqual(["key_prod_1", "key_stg_1"]);
  });

  test.each(["test", ""])("does not guess a gateway for NODE_ENV=%s", (name) => {
    expect(() => connect("openai", inEnvironment(name))).toThrow("production, staging");
  });

  test("would be refused with the key that its SDK sends by itself", async () => {
    const { baseURL } = connect("openai", inEnvironment("production"));
    const defaultHeaders = { "cf-aig-authorization": `Bearer ${world.env["CLOUDFLARE_GATEWAY_TOKEN"]}` };
    const naive = new OpenAI({ baseURL, apiKey: "the SDK wants one", defaultHeaders, maxRetries: 0 });
    await expect(naive.chat.completions.create(ping)).rejects.toMatchObject({ status: 401, code: "invalid_api_key" });
  });

  test("falls back to another provider by itself, where the gateway does not", async () => {
    expect(await ask("ping", inEnvironment("production"))).not.toBe("");
    expect((await used()).filter((id) => id === "apikey_prod_1")).toEqual([]);
    await world.openai("DELETE", "/organization/projects/proj_abc/api_keys/key_prod_1");
    const client = connect("compat", inEnvironment("production"));
    const direct = client.chat.completions.create({ ...ping, model: "openai/gpt-5-mini" });
    await expect(direct).rejects.toMatchObject({ status: 401 });
    expect(await ask("ping", inEnvironment("production"))).not.toBe("");
    expect(await used()).toContain("apikey_prod_1");
  });
});
