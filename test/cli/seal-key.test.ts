import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";

import { createSealing, readSealingKeys } from "../../src/sealing.ts";
import { Redacted } from "../../src/redacted.ts";
import { keyturn, ownDirectory } from "./run.ts";

test("makes a pair whose halves fit, the private one in a file for its owner only", async () => {
  const directory = await ownDirectory();
  const ran = await keyturn(["seal-key"], {}, directory);
  expect(ran.code).toBe(0);
  expect(ran.stderr).toContain("KEYTURN_SEALING_KEY_FILE");

  const file = join(directory, ".keyturn/sealing-key.json");
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  const { sealing } = parse(ran.stdout) as { sealing: Parameters<typeof createSealing>[0] };
  const pair = createSealing(sealing, readSealingKeys({ KEYTURN_SEALING_KEY_FILE: file }));
  const purpose = { slot: "production/openai", rotationId: "one" };
  const sealed = await pair.seal(new Redacted("made-up"), purpose);
  expect((await pair.open(sealed, purpose)).reveal()).toBe("made-up");
  const secret = (JSON.parse(await readFile(file, "utf8")) as { keys: { d: string }[] }).keys[0]?.d ?? "";
  expect(secret).not.toBe("");
  expect(ran.stdout + ran.stderr).not.toContain(secret);
});

test("overwrites nothing, and adds a key when told", async () => {
  const directory = await ownDirectory();
  const type = async (...args: string[]) =>
    keyturn(["seal-key", "--out", "keys.json", "--json", ...args], {}, directory);
  expect((await type("--kid", "one")).code).toBe(0);
  const before = await readFile(join(directory, "keys.json"), "utf8");
  expect(await type("--kid", "two")).toMatchObject({ code: 2, stderr: expect.stringContaining("--add") });
  expect(await type("--kid", "one", "--add")).toMatchObject({ code: 2 });
  expect(await readFile(join(directory, "keys.json"), "utf8")).toBe(before);

  const added = await type("--kid", "two", "--add");
  expect(JSON.parse(added.stdout)).toMatchObject({ kid: "two", file: "keys.json", publicKey: { crv: "P-256" } });
  const set = readSealingKeys({ KEYTURN_SEALING_KEY_FILE: join(directory, "keys.json") });
  expect(set.map(({ kid }) => kid)).toEqual(["two", "one"]);
  expect((await stat(join(directory, "keys.json"))).mode & 0o777).toBe(0o600);
});
