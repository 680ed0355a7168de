import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";

import { loadInventory, parseInventory } from "../../src/config.ts";
import { policyDefaults } from "../../src/domain/policy.ts";
import { readSlot } from "../../src/cli/slot-argument.ts";
import { keyturn, ownDirectory } from "./run.ts";

const example = fileURLToPath(new URL("../../keyturn.example.yaml", import.meta.url));
const account = { CLOUDFLARE_ACCOUNT_ID: "0123456789abcdef0123456789abcdef" };
const env = { ...account, KEYTURN_CONFIG: example };
/** Nobody listens there: whoever asks Temporal first fails with exit code 1, not 2. */
const nowhere = { TEMPORAL_ADDRESS: "127.0.0.1:9" };

describe("wrong usage is exit 2, one sentence, and a document with --json", () => {
  test.each([
    [["rotat"], "Did you mean rotate?"],
    [["rotat"], "(see keyturn --help)"],
    [["rotate"], "missing required argument 'slot' (see keyturn rotate --help)"],
    [["rotate", "a", "b"], "too many arguments"],
    [["rotate", "openai", "--dryrun"], "(Did you mean --dry-run?) (see keyturn rotate --help)"],
    [["--json", "status"], "(see keyturn status --help)"],
    [["dev", "--time-scale", "0"], "number above 0"],
    [[], "say what to do"],
  ])("keyturn %j", async (args, said) => {
    const ran = await keyturn(args);
    expect(ran.code).toBe(2);
    expect(ran.stderr).toContain("keyturn: ");
    expect(ran.stderr).toContain(said);
    expect(ran.stderr).not.toMatch(/^\s+at /m);
  });

  test("with --json the failure is the one document on standard output", async () => {
    const ran = await keyturn(["rotate", "--json"]);
    expect(ran.code).toBe(2);
    expect(JSON.parse(ran.stdout)).toEqual({
      error: { type: "InvalidInput", message: expect.stringContaining("missing required argument") },
    });
  });

  test("help and version are exit 0, on standard output", async () => {
    const help = await keyturn(["rotate", "--help"]);
    expect(help).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toContain("--held-key <id>");
    expect((await keyturn(["--version"])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe("a key's value among the arguments is exit 2, and is never repeated", () => {
  const value = "sk-ant-api03-MadeUpMadeUpMadeUpMadeUp";
  test.each([
    [["submit-key", "production/anthropic", value]],
    [["emergency", "openai", "--leaked-key", value]],
    [["emergency", "openai", `--key=${value}`]],
    [["emergency", "openai", "--why", `${value} is in a gist`]],
    [["sandbox", "--admin", "sk-admin-MadeUpMadeUpMadeUp"]],
    [[value]],
    [["help", value]],
  ])("keyturn %j", async (args) => {
    for (const more of [[], ["--json"]]) {
      const ran = await keyturn([...args, ...more]);
      expect(ran.code).toBe(2);
      expect(ran.stderr).toMatch(
        /^keyturn: an argument is the value of a key: .*history now.* leaked.*--leaked-key-file/,
      );
      expect(ran.stderr.trim().split("\n")).toHaveLength(1);
      expect(ran.stdout + ran.stderr).not.toContain("MadeUp");
      if (more.length > 0) expect(JSON.parse(ran.stdout)).toMatchObject({ error: { type: "InvalidInput" } });
    }
  });
});

describe("wrong input is exit 2 before Temporal is asked", () => {
  const token = { CLOUDFLARE_API_TOKEN: "made-up" };
  test.each<[string, string[], Record<string, string>, string]>([
    ["an unknown slot", ["rotate", "production/nope"], token, "no slot production/nope"],
    [
      "an empty slot",
      ["rotate", ""],
      token,
      "a slot is written environment/provider or environment/provider:alias (slots: production/openai,",
    ],
    [
      "an environment for a slot",
      ["status", "production"],
      {},
      "production is an environment, not a slot: a slot is written environment/provider or environment/provider:alias (slots of production: production/openai,",
    ],
    ["no provider's slot", ["status", "staging/nope/openai"], {}, "a slot is written environment/provider"],
    ["a misspelt slot", ["rotate", "production/opnai"], token, "did you mean production/openai?"],
    ["an unknown environment", ["rotate", "openai", "--env", "prodution"], token, "did you mean production?"],
    ["two environments", ["rotate", "staging/openai", "--env", "production"], token, "--env says production"],
    ["no Cloudflare token", ["rotate", "openai"], {}, "CLOUDFLARE_API_TOKEN is not set"],
    ["no inventory", ["status"], { KEYTURN_CONFIG: "/nowhere/keyturn.yaml" }, "copy keyturn.example.yaml"],
    ["no account", ["status"], { CLOUDFLARE_ACCOUNT_ID: "" }, "${CLOUDFLARE_ACCOUNT_ID}"],
    ["a key's value for its id", ["rotate", "openai", "--held-key", "sk-made-up"], token, "looks like a key's value"],
    ["an unknown slot of keys", ["keys", "production/nope"], {}, "no slot production/nope"],
    ["an emergency of nothing", ["emergency", "--yes"], {}, "give --leaked-key-file, and neither --key nor --held-key"],
    [
      "a key beside a value without a slot",
      ["emergency", "--yes", "--leaked-key-file", "f", "--key", "key_1"],
      {},
      "without a slot the key is known by its value alone",
    ],
    [
      "a key's value for one of several ids",
      ["emergency", "openai", "--yes", "--key", "key_1", "--key", "AIzaMadeUp"],
      {},
      "--key looks like a key's value",
    ],
    [
      "a time that is none",
      ["emergency", "openai", "--yes", "--since", "yesterday"],
      {},
      "--since yesterday: give a time",
    ],
    ["a worker without its sealing key", ["worker"], token, "no sealing key"],
  ])("%s", async (_, args, more, said) => {
    const ran = await keyturn([...args, "--json"], { ...env, ...nowhere, ...more });
    expect(ran.stderr).toContain(said);
    expect(ran.code).toBe(2);
    expect(JSON.parse(ran.stdout)).toMatchObject({ error: { type: "InvalidInput" } });
  });

  test.each([
    ["broken YAML", "slots: [", "is not YAML"],
    ["an empty inventory", "# to be written\n", "is empty: copy keyturn.example.yaml over it"],
    [
      "an unknown field",
      readFileSync(example, "utf8").replace("quietPeriod: 15m", "quietPeriode: 15m"),
      "did you mean quietPeriod?",
    ],
  ])("%s", async (_, text, said) => {
    const directory = await ownDirectory();
    await writeFile(join(directory, "keyturn.yaml"), text);
    const ran = await keyturn(["rotate", "openai"], { ...account, ...nowhere, ...token }, directory);
    expect(ran.stderr).toContain(said);
    expect(ran.code).toBe(2);
  });

  test("variables may stand in .dev.vars", async () => {
    const directory = await ownDirectory();
    await writeFile(
      join(directory, ".dev.vars"),
      `CLOUDFLARE_ACCOUNT_ID=abc\nKEYTURN_CONFIG=${example}\nCF_API_TOKEN=made-up\n`,
    );
    const ran = await keyturn(["rotate", "openai"], nowhere, directory);
    expect(ran.stderr).toContain("no Temporal server answers at 127.0.0.1:9");
  });
});

test("an unreachable Temporal is exit 1, one sentence that names the address, within seconds", async () => {
  const began = Date.now();
  for (const args of [["status"], ["abort", "openai"], ["rotate", "openai"]]) {
    const ran = await keyturn([...args, "--json"], { ...env, ...nowhere, CLOUDFLARE_API_TOKEN: "made-up" });
    expect(ran.code).toBe(1);
    expect(JSON.parse(ran.stdout)).toEqual({
      error: { type: "Unavailable", message: expect.stringMatching(/127\.0\.0\.1:9.*set TEMPORAL_ADDRESS/) },
    });
  }
  expect(Date.now() - began).toBeLessThan(25_000);
});

describe("a slot without environment", () => {
  const inventory = loadInventory(env);
  const bare = parseInventory(
    readFileSync(example, "utf8").replace(/^defaultEnvironment.*$/m, ""),
    "keyturn.yaml",
    account,
  );
  const name = (text: string, variables: Record<string, string>, chosen?: string, of = inventory): string =>
    readSlot(text, { inventory: of, env: variables, chosen }).name;

  test("takes --env, else NODE_ENV where it is one of the inventory's, else the default", () => {
    expect(name("openai", { NODE_ENV: "staging" }, "production")).toBe("production/openai");
    expect(name("openai", { NODE_ENV: "staging" })).toBe("staging/openai");
    expect(name("openai", { NODE_ENV: "test" })).toBe("production/openai");
    expect(name("openai:default", {})).toBe("production/openai");
    expect(name("staging/openai", { NODE_ENV: "production" })).toBe("staging/openai");
  });

  test("is refused where nothing says which", () => {
    expect(() => name("openai", {}, undefined, bare)).toThrow("production/openai, staging/openai");
  });
});

test("the example inventory loads, and states every default", () => {
  const { slots } = loadInventory(env);
  expect(Object.keys(slots)).toContain("production/openai");
  const { policy } = parse(readFileSync(example, "utf8")) as { policy: unknown };
  expect(policy).toEqual(policyDefaults);
});
