import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

/** The command line as a checkout runs it. */
export const keyturnScript = fileURLToPath(new URL("../../bin/keyturn.js", import.meta.url));

export interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Types `keyturn …` in an environment that holds nothing but PATH and what is given, `input` on standard input. */
export async function keyturn(
  args: string[],
  env: Record<string, string> = {},
  cwd = tmpdir(),
  input?: string,
): Promise<Ran> {
  const child = spawn(process.execPath, [keyturnScript, ...args], {
    cwd,
    env: { PATH: process.env["PATH"] ?? "", TEMPORAL_CONFIG_FILE: join(tmpdir(), "no-such.toml"), ...env },
    stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  child.stdin?.end(input);
  const ran = { stdout: "", stderr: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (ran.stdout += text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (ran.stderr += text));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, ...ran };
}

/** A directory for one test. */
export async function ownDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "keyturn-cli-"));
  onTestFinished(async () => rm(directory, { recursive: true, force: true }));
  return directory;
}
