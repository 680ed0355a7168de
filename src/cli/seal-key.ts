/** `keyturn seal-key`: makes the pair of keys that keeps key values unreadable on their way through Temporal. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { Command } from "commander";

import { RotationFailure } from "../domain/failure.ts";
import { generateSealingKey, readSealingKeys, type SealingPrivateKey } from "../sealing.ts";
import { createOutput } from "./output.ts";

interface Flags {
  out: string;
  kid: string;
  add?: true;
  json?: true;
}

export function sealKeyCommand(): Command {
  return new Command("seal-key")
    .description("make a sealing key: the public half for keyturn.yaml, the private half in a file for the workers")
    .option("--out <file>", "where the private half goes", ".keyturn/sealing-key.json")
    .option("--kid <name>", "name of the key", new Date().toISOString().slice(0, 7))
    .option("--add", "add the key to the set that is in the file")
    .option("--json", "print one JSON document")
    .action(makeKey);
}

async function makeKey({ out: file, kid, add, json }: Flags): Promise<void> {
  const output = createOutput({ json });
  if (!/^[\w.-]{1,64}$/.test(kid)) {
    throw new RotationFailure("InvalidInput", `--kid ${kid}: letters, digits, ".", "_" and "-" only, at most 64`);
  }
  const there = existsSync(file);
  if (there && add !== true) {
    throw new RotationFailure(
      "InvalidInput",
      `${file} is there already, and overwriting it would make what it seals unreadable: give --add, or another --out`,
    );
  }
  const keys = there ? readSealingKeys({ KEYTURN_SEALING_KEY: readFileSync(file, "utf8") }) : [];
  if (keys.some((key) => key.kid === kid)) {
    throw new RotationFailure("InvalidInput", `${file} has a key ${kid} already: give another --kid`);
  }

  const { publicKey, privateKey } = await generateSealingKey(kid);
  writePrivately(file, [privateKey, ...keys], there);
  const { kty, crv, x, y } = publicKey.publicKey;
  const line = `  - { kid: "${kid}", publicKey: { kty: ${kty}, crv: ${crv}, x: "${x}", y: "${y}" } }`;
  output.result({ ...publicKey, file, variable: "KEYTURN_SEALING_KEY_FILE" }, there ? line : `sealing:\n${line}`);
  output.say(
    there
      ? `the private key is added to ${file}; restart the workers with it, then put the line above first under sealing: in keyturn.yaml, and keep the old line until no rotation runs`
      : `the private key is in ${file} (mode 0600); put the lines above into keyturn.yaml and start workers with KEYTURN_SEALING_KEY_FILE=${file}`,
  );
}

/** Written beside and moved, so that a set that is in use is never half there. */
function writePrivately(file: string, keys: SealingPrivateKey[], there: boolean): void {
  const text = `${JSON.stringify({ keys }, undefined, 2)}\n`;
  try {
    mkdirSync(dirname(file), { recursive: true });
    if (!there) return writeFileSync(file, text, { mode: 0o600, flag: "wx" });
    const beside = `${file}.${process.pid}`;
    try {
      writeFileSync(beside, text, { mode: 0o600, flag: "wx" });
      renameSync(beside, file);
    } finally {
      rmSync(beside, { force: true });
    }
  } catch (error) {
    throw new RotationFailure("InvalidInput", `cannot write ${file}: ${(error as Error).message}`);
  }
}
