import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import type { Environment } from "../config.ts";

/** A process of ours that ends when we do: it is tied to us by its standard input, and told to stop in order. */
export interface Child {
  pid: number;
  /** The first line of its standard output; rejects when it ends before. */
  firstLine(): Promise<string>;
  /** How it ended: an exit code or a signal. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Asks it to stop, makes it after the time given, returns when it is gone. Safe to call again. */
  stop(withinMs: number): Promise<void>;
}

export interface ChildOptions {
  env: NodeJS.ProcessEnv;
  cwd?: string;
  /** Gets each line of its standard output. */
  onLine?: (line: string) => void;
  onErrorLine?: (line: string) => void;
}

/** The command line itself, for starting it again as a child. */
export const keyturnScript = scriptPath();

/** Starts `node args…` in a process group of its own, so that Ctrl-C reaches us alone and we stop things in order. */
export function startChild(args: string[], { env, cwd, onLine, onErrorLine }: ChildOptions): Child {
  const child = spawn(process.execPath, args, {
    env,
    ...(cwd === undefined ? {} : { cwd }),
    stdio: ["pipe", "pipe", onErrorLine === undefined ? "inherit" : "pipe"],
    detached: true,
  });
  child.stdin?.on("error", () => undefined);
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once("error", () => resolve({ code: 127, signal: null }));
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
  const first = new Promise<string>((resolve, reject) => {
    let told = false;
    if (child.stdout !== null) {
      createInterface({ input: child.stdout }).on("line", (line) => {
        if (!told) resolve(line);
        told = true;
        onLine?.(line);
      });
    }
    void ended.then(({ code, signal }) => reject(new Error(`ended at its start (${signal ?? `exit code ${code}`})`)));
  });
  first.catch(() => undefined);
  if (child.stderr !== null && onErrorLine !== undefined) {
    createInterface({ input: child.stderr }).on("line", onErrorLine);
  }
  const kill = (): void => void child.kill("SIGKILL");
  process.on("exit", kill);
  void ended.then(() => process.off("exit", kill));
  return {
    pid: child.pid ?? 0,
    firstLine: async () => first,
    ended,
    async stop(withinMs) {
      if (hasEnded(child)) return;
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      const timer = setTimeout(kill, withinMs);
      await exited;
      clearTimeout(timer);
    },
  };
}

function hasEnded({ exitCode, signalCode, pid }: ChildProcess): boolean {
  return pid === undefined || exitCode !== null || signalCode !== null;
}

/** Three levels up in the build, two in the sources. */
function scriptPath(): string {
  const places = ["../../../bin/keyturn.js", "../../bin/keyturn.js"].map((place) =>
    fileURLToPath(new URL(place, import.meta.url)),
  );
  return places.find((place) => existsSync(place)) ?? "bin/keyturn.js";
}

/** Our own variables and the vendors', which a sandbox's child must take from the sandbox alone. */
const foreign = /^(?:KEYTURN_|TEMPORAL_|CLOUDFLARE_|CF_|OPENAI_|ANTHROPIC_|GOOGLE_|GEMINI_)/;

/** The environment of a child that works on the sandbox: ours without what may point elsewhere, and the sandbox's. */
export function sandboxedEnvironment(own: Environment, sandbox: Record<string, string>): NodeJS.ProcessEnv {
  const kept = Object.entries(own).filter(([name]) => !foreign.test(name) || name === "TEMPORAL_CLI_PATH");
  return { ...Object.fromEntries(kept), ...sandbox };
}
