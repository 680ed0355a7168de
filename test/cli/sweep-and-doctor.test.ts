import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, Connection } from "@temporalio/client";
import { afterAll, beforeAll, expect, test } from "vitest";

import { type Child, startChild } from "../../src/cli/child.ts";
import type { Diagnosis } from "../../src/doctor/diagnose.ts";
import type { SweepResult } from "../../src/domain/sweep.ts";
import { keyturn, keyturnScript, type Ran } from "./run.ts";

/** `keyturn doctor` and `keyturn sweep` against `keyturn dev`, first without a worker, then with one. */

let directory: string;
let dev: Child;
let worker: Child | undefined;
let env: Record<string, string>;
let control: string;

const type = async (...args: string[]): Promise<Ran> => keyturn(args, env, directory);
const json = async <Document>(code: number, ...args: string[]): Promise<Document> => {
  const ran = await type(...args, "--json");
  expect({ code: ran.code, stderr: ran.stderr }).toMatchObject({ code });
  return JSON.parse(ran.stdout) as Document;
};
const sweep = (...args: string[]): Promise<SweepResult> => json(0, "sweep", ...args);
const record = async () =>
  (await (await fetch(`${control}/record`)).json()) as {
    writes: number;
    keys: { id: string; name: string; state: string }[];
  };
const alive = async (): Promise<string[]> =>
  (await record()).keys.flatMap(({ name, state }) => (name.startsWith("kt.dev.") && state === "active" ? [name] : []));
const aliases = async (): Promise<string[]> => {
  const { slots } = (await (await fetch(`${control}/slots`)).json()) as { slots: { alias: string }[] };
  return slots.flatMap(({ alias }) => (alias.startsWith("kt-") ? [alias] : []));
};

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "keyturn-cli-"));
  const own = { PATH: process.env["PATH"], HOME: process.env["HOME"], XDG_CACHE_HOME: process.env["XDG_CACHE_HOME"] };
  dev = startChild(
    [
      keyturnScript,
      "dev",
      "--json",
      "--no-worker",
      "--until-stdin-ends",
      "--time-scale",
      "600",
      "--directory",
      join(directory, "dev"),
    ],
    { env: own, cwd: directory, onErrorLine: () => undefined },
  );
  const ready = JSON.parse(await dev.firstLine()) as { control: string; env: Record<string, string> };
  control = ready.control;
  env = ready.env;
});

afterAll(async () => {
  await worker?.stop(10_000);
  await dev.stop(10_000);
  await rm(directory, { recursive: true, force: true });
});

test("wrong input is exit 2", async () => {
  const ran = [
    await type("sweep", "--cap", "0"),
    await type("sweep", "--minimum-age", "tomorrow"),
    await type("sweep", "--env", "prodution"),
    await type("doctor", "production/opnai"),
    await type("doctor", "--env", "nowhere"),
  ];
  expect(ran.map(({ code }) => code)).toEqual([2, 2, 2, 2, 2]);
  expect(ran.map(({ stderr }) => stderr).join()).toMatch(
    /did you mean production\?.*did you mean production\/openai\?/s,
  );
});

test("the doctor says what is missing, writes nothing, and goes on without Temporal", async () => {
  const before = (await record()).writes;
  const sick = await json<Diagnosis>(1, "doctor");
  const problems = sick.findings.filter(({ level }) => level === "problem");
  expect(problems.map(({ check, about }) => `${check} ${about.includes("/") ? about : ""}`.trim())).toEqual(["worker"]);

  const alone = await keyturn(["doctor", "openai", "--json"], { ...env, TEMPORAL_ADDRESS: "127.0.0.1:9" }, directory);
  expect(alone.code).toBe(1);
  const { findings } = JSON.parse(alone.stdout) as Diagnosis;
  expect(findings.find(({ check }) => check === "temporal")).toMatchObject({
    level: "problem",
    message: expect.stringContaining("127.0.0.1:9"),
  });
  expect(findings.find(({ check }) => check === "held-key")).toMatchObject({ about: "production/openai", level: "ok" });
  expect(findings.some(({ about }) => about === "staging/openai")).toBe(false);
  expect((await record()).writes).toBe(before);
});

test("with a worker the doctor is content, and groups by slot", async () => {
  worker = startChild([keyturnScript, "worker", "--json"], {
    env: { PATH: process.env["PATH"], ...env },
    cwd: directory,
    onErrorLine: () => undefined,
  });
  await worker.firstLine();
  const ran = await type("doctor", "openai");
  expect(ran.stdout).toMatch(/^0 problems, /m);
  expect(ran.code).toBe(0);
  const all = await type("doctor");
  expect(all.stdout).toMatch(/^production\/openai\n {2}✓ gateway: .*^staging\/openai\n {2}✓ gateway: /ms);
  expect(ran.stdout).not.toContain("\u001B[");
  const colourful = await keyturn(["doctor", "openai"], { ...env, FORCE_COLOR: "1" }, directory);
  expect(colourful.stdout).toContain("\u001B[32m✓");
  expect(await json<Diagnosis>(0, "doctor", "staging/openai")).toMatchObject({
    healthy: true,
    counts: { problem: 0 },
  });
});

test("what a terminated rotation left is spared while it runs, then found, and ended with --yes", async () => {
  // Its alias never answers, so it stays where its key and aliases are made and nothing is installed.
  const fault = {
    service: "gateway",
    method: "POST",
    path: "",
    mode: "status",
    status: 503,
    when: { "cf-aig-byok-alias": "^kt-.*-new$" },
  };
  await fetch(`${control}/faults`, { method: "POST", body: JSON.stringify(fault) });
  const { workflowId } = await json<{ workflowId: string }>(0, "rotate", "openai", "--detach");
  await expect.poll(aliases, { timeout: 20_000 }).toHaveLength(2);

  const owned = await sweep("--yes", "--minimum-age", "1ms");
  expect(owned).toMatchObject({ found: [], revoked: [], blocked: [] });
  expect(owned.spared.map(({ why }) => why)).toEqual([
    `the open rotation ${workflowId} may need it`,
    "its rotation is open",
    "its rotation is open",
  ]);

  const connection = await Connection.connect({ address: env["TEMPORAL_ADDRESS"] ?? "" });
  await new Client({ connection }).workflow.getHandle(workflowId).terminate("a test");
  await connection.close();
  // Younger than a day; and the key that the slot holds, since the run was ended before it could say so.
  const young = await sweep("--yes");
  expect(young).toMatchObject({ found: [], revoked: [], spared: [{}, {}, {}, {}] });
  expect(young.spared.map(({ why }) => why).join()).toContain("production/openai holds it; the last run of");

  // Its own proofs were its last use: that has to be past.
  await expect
    .poll(async () => (await sweep("--minimum-age", "1ms")).found.length, { timeout: 20_000, interval: 500 })
    .toBe(3);
  expect((await sweep("--env", "staging", "--minimum-age", "1ms")).found).toEqual([]);
  const before = (await record()).writes;
  const listed = await type("sweep", "--minimum-age", "1ms");
  expect(listed.code).toBe(0);
  expect(listed.stdout).toMatch(/^3 orphans found, 1 spared\n.*would end key .*nothing was changed: give --yes/s);
  expect((await record()).writes).toBe(before);

  const capped = await sweep("--yes", "--minimum-age", "1ms", "--cap", "1");
  expect(capped.revoked).toMatchObject([{ kind: "key" }]);
  const left = capped.spared.filter(({ id }) => id !== "key_prod_1");
  expect(left.map(({ why }) => why)).toEqual(Array(2).fill("the cap of 1 was reached: sweep again"));
  expect(await alive()).toEqual([]);
  const ended = await type("sweep", "--yes", "--minimum-age", "1ms");
  expect(ended.stdout).toMatch(/^2 orphans found, 2 ended, 1 spared\n {2}✓ ended alias kt-/);
  expect(await aliases()).toEqual([]);
  expect(await sweep("--yes", "--minimum-age", "1ms")).toMatchObject({
    found: [],
    revoked: [],
    spared: [{ id: "key_prod_1" }],
  });
}, 90_000);

test("a sweep that cannot look is exit 4, and says why", async () => {
  const fault = { service: "cloudflare", method: "GET", path: "/secrets_store/", mode: "status", status: 403 };
  await fetch(`${control}/faults`, { method: "POST", body: JSON.stringify(fault) });
  const result = await json<SweepResult>(4, "sweep", "--yes");
  expect(result.blocked.join()).toContain("production/openai cannot be read");
  const ran = await type("sweep");
  expect(ran.stdout).toMatch(/^everything is spared: production\/openai cannot be read/);
});

test("a sweep without Temporal is exit 1", async () => {
  const ran = await keyturn(["sweep", "--json"], { ...env, TEMPORAL_ADDRESS: "127.0.0.1:9" }, directory);
  expect(ran.code).toBe(1);
  expect(JSON.parse(ran.stdout)).toMatchObject({ error: { type: "Unavailable" } });
});
