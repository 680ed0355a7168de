import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { stringify } from "yaml";

import { RotationFailure } from "../domain/failure.ts";
import { generateSealingKey, readSealingKeys } from "../sealing.ts";
import { devInventory } from "./dev-inventory.ts";

/** The files of one `keyturn dev`: its inventory, which ends with it, and the sealing key, which stays. */
export interface DevDirectory {
  path: string;
  inventory: string;
  sealingKey: string;
  /** An empty profile in place of the user's own Temporal profiles, which are about other servers. */
  temporalConfig: string;
  /** Keeps the environment in a file that a shell can read. */
  writeEnvironment(env: Record<string, string>): void;
  remove(): void;
}

export async function createDevDirectory(directory: string, timeScale: number): Promise<DevDirectory> {
  const path = resolve(directory);
  try {
    mkdirSync(path, { recursive: true });
    removeLeftovers(path);
    const sealingKey = join(path, "sealing-key.json");
    const { kid, kty, crv, x, y } = await keptKey(sealingKey);
    const run = join(path, `run-${process.pid}`);
    mkdirSync(run, { recursive: true });
    const inventory = join(run, "keyturn.yaml");
    writeFileSync(inventory, stringify(devInventory([{ kid, publicKey: { kty, crv, x, y } }], timeScale)));
    const temporalConfig = join(run, "temporal.toml");
    writeFileSync(temporalConfig, "[profile.default]\n");
    const remove = (): void => rmSync(run, { recursive: true, force: true });
    const writeEnvironment = (env: Record<string, string>): void => {
      const lines = Object.entries(env).map(([name, value]) => `${name}=${JSON.stringify(value)}\n`);
      writeFileSync(join(run, "env"), lines.join(""), { mode: 0o600 });
    };
    return { path: run, inventory, sealingKey, temporalConfig, writeEnvironment, remove };
  } catch (error) {
    if (error instanceof RotationFailure) throw error;
    throw new RotationFailure(
      "InvalidInput",
      `cannot write into ${path}: ${(error as Error).message}: give another --directory`,
    );
  }
}

/** The key that is there, so that what an earlier run sealed into `--temporal-db` can still be opened; else a new one. */
async function keptKey(file: string) {
  const { privateKey } = await generateSealingKey("dev");
  try {
    writeFileSync(file, `${JSON.stringify({ keys: [privateKey] })}\n`, { mode: 0o600, flag: "wx" });
    return privateKey;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  return readSealingKeys({ KEYTURN_SEALING_KEY: readFileSync(file, "utf8") })[0] ?? privateKey;
}

/** What a killed run left. */
function removeLeftovers(path: string): void {
  for (const name of readdirSync(path)) {
    const pid = Number(/^run-(\d+)$/.exec(name)?.[1]);
    if (pid > 0 && !isAlive(pid)) rmSync(join(path, name), { recursive: true, force: true });
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
