import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse, stringify } from "yaml";

import { keyturn, keyturnScript, type Ran } from "./run.ts";

/** The command line against `keyturn dev`, as a newcomer meets it. The inventory has a place that cannot be rotated, too. */

interface Ready {
  control: string;
  env: Record<string, string>;
  temporal: { address: string; ui: string };
}

let directory: string;
let dev: Running;
let worker: Running | undefined;
let env: Record<string, string>;
let control: string;
const type = async (...args: string[]): Promise<Ran> => keyturn(args, env, directory);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "keyturn-cli-"));
  dev = start(["dev", "--json", "--no-worker", "--until-stdin-ends"], {});
  const ready = JSON.parse(await dev.firstLine) as Ready;
  control = ready.control;
  const inventory = parse(await readFile(ready.env["KEYTURN_CONFIG"] ?? "", "utf8")) as {
    environments: Record<string, unknown>;
    slots: Record<string, Record<string, unknown>>;
  };
  const slot = inventory.slots["staging/openai"] ?? {};
  inventory.environments["storeless"] = { gateway: "storeless" };
  inventory.slots["storeless/openai"] = slot;
  inventory.slots["staging/openai"] = { ...slot, policy: { aliases: "always" } };
  const file = join(directory, "keyturn.yaml");
  await writeFile(file, stringify(inventory));
  env = { ...ready.env, KEYTURN_CONFIG: file };
  await makeGateway("storeless");
});

afterAll(async () => {
  await worker?.end("SIGTERM");
  await dev.end("SIGTERM");
  await rm(directory, { recursive: true, force: true });
});

test("input that is refused writes nothing outside", async () => {
  const before = await writes();
  const without = { ...env, CLOUDFLARE_API_TOKEN: "" };
  const broken = join(directory, "broken.yaml");
  await writeFile(broken, "slots: [");
  const unknown = join(directory, "unknown.yaml");
  await writeFile(
    unknown,
    (await readFile(env["KEYTURN_CONFIG"] ?? "", "utf8")).replace("quietPeriod", "quietPeriode"),
  );
  const ran = [
    await type("rotate", "production/nope"),
    await keyturn(["rotate", "openai"], without, directory),
    await keyturn(["rotate", "openai"], { ...env, KEYTURN_CONFIG: broken }, directory),
    await keyturn(["rotate", "openai"], { ...env, KEYTURN_CONFIG: unknown }, directory),
  ];
  expect(ran.map(({ code }) => code)).toEqual([2, 2, 2, 2]);
  expect(await writes()).toBe(before);
});

test("a dry run needs no worker, says what would be done, and writes nothing", async () => {
  const before = await writes();
  const ran = await type("rotate", "openai", "--dry-run", "--json");
  expect(ran.code).toBe(0);
  expect(JSON.parse(ran.stdout)).toMatchObject({
    slot: "production/openai",
    dryRun: true,
    held: { id: "key_prod_1", how: "preview" },
    staged: true,
    waits: expect.arrayContaining([expect.objectContaining({ for: "the old key to be idle", takes: "15s" })]),
  });
  const storeless = await type("rotate", "openai", "--env", "storeless", "--dry-run", "--json");
  expect(storeless.code).toBe(1);
  expect(JSON.parse(storeless.stdout)).toMatchObject({ error: { type: "SlotMissing" } });
  expect(await writes()).toBe(before);
});

test("says early that nobody works; a slot that cannot be rotated ends as exit 1, and nothing was changed", async () => {
  const before = await writes();
  const watched = start(["rotate", "storeless/openai", "--json"], env);
  await watched.says("nobody works on task queue keyturn: start keyturn worker");
  worker = start(["worker", "--json"], env);
  expect(JSON.parse(await worker.firstLine)).toMatchObject({ ready: true, taskQueue: "keyturn" });
  expect(await watched.ended).toBe(1);
  expect(JSON.parse(watched.stdout())).toMatchObject({
    error: { type: "SlotMissing", message: expect.stringContaining("storeless") },
    result: { outcome: "aborted", newKey: null },
  });

  await post("/options", { secretQuota: 2 });
  const full = await type("rotate", "staging/openai", "--json");
  await post("/options", { secretQuota: 100 });
  expect(full.code).toBe(1);
  expect(JSON.parse(full.stdout)).toMatchObject({ error: { type: "KeyLimitReached" } });
  expect(await writes()).toBe(before);
}, 60_000);

test("one rotation at a time, looked at, approved by nobody, left, and aborted", async () => {
  expect(await type("abort", "openai")).toMatchObject({ code: 2, stderr: expect.stringContaining("no rotation of") });

  const left = start(["rotate", "openai"], env);
  await left.says("✓ issueKey");
  left.child.kill("SIGINT");
  expect(await left.ended).toBe(130);
  expect(left.stderr()).toContain("look again with: keyturn status production/openai");

  const busy = await type("rotate", "production/openai", "--json");
  expect(busy.code).toBe(4);
  expect(JSON.parse(busy.stdout)).toMatchObject({
    error: {
      type: "SlotBusy",
      message: expect.stringMatching(/workflow keyturn\/production\/openai, run [0-9a-f-]{36}/),
    },
  });
  const status = await type("status", "openai", "--json");
  expect(status.code).toBe(0);
  expect(JSON.parse(status.stdout)).toMatchObject({ slot: "production/openai", state: "running" });
  expect((await type("keys", "openai")).stderr).toContain("a rotation of production/openai is running: keyturn status");
  expect(await type("approve", "openai")).toMatchObject({ code: 2, stderr: expect.stringContaining("no approval") });

  const aborted = await type("abort", "openai", "--why", "a test", "--json");
  expect(aborted.code).toBe(0);
  expect(JSON.parse(aborted.stdout)).toMatchObject({ outcome: "aborted", reason: expect.stringMatching(/: a test$/) });
  const all = JSON.parse((await type("status", "--json")).stdout) as { slot: string }[];
  const openai = all.filter(({ slot }) => slot.endsWith("/openai"));
  expect(all).toHaveLength(7);
  expect(openai.map(({ slot }) => slot)).toEqual(["production/openai", "staging/openai", "storeless/openai"]);
  expect(openai).toMatchObject([
    { state: "ended", result: { outcome: "aborted" } },
    { state: "ended", error: { type: "KeyLimitReached" } },
    { state: "ended", error: { type: "SlotMissing" } },
  ]);
}, 60_000);

test("an emergency says which key it means, and neither guesses nor believes an id that nobody knows", async () => {
  const rotation = start(["rotate", "staging/openai"], env);
  await rotation.says("✓ installKey");
  expect((await type("abort", "staging/openai", "--why", "a test")).code).toBe(0);
  expect(await rotation.ended).toBe(1);
  const { result } = JSON.parse((await type("status", "staging/openai", "--json")).stdout) as {
    result: { newKey: { id: string }; keys: { id: string; fate: string }[] };
  };
  expect(result.keys).toContainEqual(expect.objectContaining({ id: "key_stg_1", role: "old", fate: "named" }));

  // The key that was there 48 hours ago is left over, and the one that the slot holds is some seconds old.
  const guess = await type("emergency", "staging/openai", "--since", "48h", "--yes", "--json");
  expect(guess.code).toBe(4);
  const { error, candidates } = JSON.parse(guess.stdout) as { error: object; candidates: { id: string }[] };
  expect(error).toMatchObject({ type: "KeyAmbiguous", message: expect.stringContaining("key_stg_1, a former key") });
  expect(candidates.map(({ id }) => id)).toEqual([result.newKey.id, "key_stg_1"]);
  expect(guess.stderr).toContain("keyturn emergency staging/openai --since 48h --key key_stg_1\n");

  const typo = await type(
    "emergency",
    "staging/openai",
    "--strategy",
    "cut-first",
    "--key",
    "key_stg_l",
    "--yes",
    "--json",
  );
  expect(typo.code).toBe(1);
  expect(JSON.parse(typo.stdout)).toMatchObject({ error: { type: "KeyUnknown" } });

  const listed = await type("keys", "staging/openai", "--json");
  expect(listed.code).toBe(0);
  const { keys } = JSON.parse(listed.stdout) as { keys: { id: string; what: string }[] };
  expect(new Map(keys.map(({ id, what }) => [id, what]))).toEqual(
    new Map([
      [result.newKey.id, "held"],
      ["key_stg_1", "left over"],
    ]),
  );
}, 90_000);

test("a dev environment that is killed takes all its parts along", async () => {
  const own = start(["dev", "--json", "--directory", join(directory, "other")], {});
  const ready = JSON.parse(await own.firstLine) as Ready & { worker: { pid: number } };
  own.child.kill("SIGKILL");
  await own.ended;
  await expect.poll(() => answers(ready.control), { timeout: 10_000 }).toBe(false);
  await expect.poll(() => answers(ready.temporal.ui), { timeout: 10_000 }).toBe(false);
  await expect.poll(() => isAlive(ready.worker.pid), { timeout: 10_000 }).toBe(false);
}, 60_000);

// ---- the world ---------------------------------------------------------------------------------------------------

interface Running {
  child: ChildProcess;
  firstLine: Promise<string>;
  ended: Promise<number | null>;
  stdout(): string;
  stderr(): string;
  says(text: string): Promise<void>;
  end(signal: NodeJS.Signals): Promise<void>;
}

function start(args: string[], more: Record<string, string>): Running {
  const child = spawn(process.execPath, [keyturnScript, ...args], {
    cwd: directory,
    env: {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      XDG_CACHE_HOME: process.env["XDG_CACHE_HOME"],
      ...more,
    },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = once(child, "close").then(([code]) => code as number | null);
  const line = new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    void ended.then(() => reject(new Error(`keyturn ${args.join(" ")} ended: ${stderr}`)));
  });
  line.catch(() => undefined);
  return {
    child,
    firstLine: line,
    ended,
    stdout: () => stdout,
    stderr: () => stderr,
    says: async (text) => expect.poll(() => stderr, { timeout: 20_000 }).toContain(text),
    end: async (signal) => {
      child.kill(signal);
      await ended;
    },
  };
}

async function writes(): Promise<number> {
  return ((await (await fetch(`${control}/record`)).json()) as { writes: number }).writes;
}

async function post(path: string, body: unknown): Promise<void> {
  const answer = await fetch(`${control}${path}`, { method: "POST", body: JSON.stringify(body) });
  expect(answer.ok).toBe(true);
}

async function makeGateway(id: string): Promise<void> {
  const answer = await fetch(
    `${env["CLOUDFLARE_API_BASE_URL"]}/accounts/${env["CLOUDFLARE_ACCOUNT_ID"]}/ai-gateway/gateways`,
    {
      method: "POST",
      headers: { authorization: `Bearer ${env["CLOUDFLARE_API_TOKEN"]}`, "content-type": "application/json" },
      body: JSON.stringify({
        id,
        authentication: true,
        cache_invalidate_on_update: false,
        cache_ttl: 0,
        collect_logs: true,
        rate_limiting_interval: 0,
        rate_limiting_limit: 0,
      }),
    },
  );
  expect(await answer.text()).toContain('"success":true');
}

async function answers(url: string): Promise<boolean> {
  return fetch(url).then(
    () => true,
    () => false,
  );
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
