/**
 * `npm run stories -- [--form 2] [--count N] [--seed S] [--only S:INDEX] [--workers N] [--no-gate]`: plays stories against the
 * workflows as they are in the sources, judged by a toy world; see test/stories/judge.ts. Prints the seed, each failing
 * story with who did what when, the coverage, and `N passed, M failed` at last. Exit code 1 when a story failed, or, from
 * four thousand stories on, when something was met too seldom. `--only` plays one story again and tells it in full.
 * `--form 2` plays the real activities against the sandbox instead (test/stories2); it takes `--count` and `--seed` alone.
 */
import { fork } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { type Coverage, coverageLines, gaps, sum } from "../test/stories/coverage.ts";
import { workflowIsolate } from "../test/stories/ground.ts";
import { judge } from "../test/stories/judge.ts";
import { playStory } from "../test/stories/play.ts";
import { accountOf, storiesOf, tellStories, type Told } from "../test/stories/tell.ts";
import { workflowBundle } from "../test/support/workflow-bundle.ts";

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "1000" },
    seed: { type: "string" },
    only: { type: "string" },
    workers: { type: "string" },
    form: { type: "string", default: "1" },
    "no-gate": { type: "boolean", default: false },
    // What a worker of this script is told.
    bundle: { type: "string" },
    from: { type: "string", default: "0" },
  },
});

/** With fewer stories, what is met too seldom is left to chance. */
const gatedFrom = 4_000;

const count = whole("count", values.count);
const seed = values.seed === undefined ? Math.floor(Math.random() * 1e9) : whole("seed", values.seed);

function whole(name: string, text: string): number {
  const number = Number(text);
  if (Number.isInteger(number) && number >= 0) return number;
  console.error(`--${name} takes a whole number, not ${text}`);
  process.exit(2);
}

async function bundleCode(): Promise<string> {
  if (values.bundle !== undefined) return readFileSync(values.bundle, "utf8");
  const { workflowBundle: bundle } = await workflowBundle();
  return bundle.code;
}

async function playOne(only: string): Promise<void> {
  const [ofSeed = 0, index = 0] = only.split(":").map((part) => whole("only", part));
  const isolate = await workflowIsolate(await bundleCode());
  for (const { told } of storiesOf(ofSeed, index, index + 1)) {
    const played = await playStory(isolate, told, { replay: true });
    const violations = judge(played);
    console.log(accountOf(played, violations));
    console.log(violations.length === 0 ? "1 passed, 0 failed" : "0 passed, 1 failed");
    process.exitCode = violations.length === 0 ? 0 : 1;
  }
}

/** A worker plays its share and sends what it found. */
async function playShare(): Promise<void> {
  const isolate = await workflowIsolate(await bundleCode());
  const from = whole("from", values.from);
  const told = await tellStories(isolate, { seed, from, to: count, heard: (line) => console.log(line) });
  process.send?.(told, () => process.exit(0));
}

async function playAll(): Promise<void> {
  console.log(`seed ${seed}`);
  const begun = Date.now();
  const directory = mkdtempSync(join(tmpdir(), "stories-"));
  const bundle = join(directory, "workflows.js");
  try {
    writeFileSync(bundle, await bundleCode());
    const workers = Math.max(
      1,
      Math.min(whole("workers", values.workers ?? `${availableParallelism()}`), Math.ceil(count / 50)),
    );
    const share = Math.ceil(count / workers);
    const parts = await Promise.all(
      Array.from({ length: workers }, (_, i) => shareOf(bundle, i * share, Math.min(count, (i + 1) * share))),
    );
    close(parts, Date.now() - begun);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function shareOf(bundle: string, from: number, to: number): Promise<Told> {
  return new Promise((resolve, reject) => {
    const args = ["--bundle", bundle, "--seed", `${seed}`, "--from", `${from}`, "--count", `${to}`];
    const worker = fork(fileURLToPath(import.meta.url), args, { execArgv: ["--enable-source-maps"] });
    let told: Told | undefined;
    worker.on("message", (message) => (told = message as Told));
    worker.on("exit", (code) =>
      told === undefined ? reject(new Error(`a worker ended with code ${code}`)) : resolve(told),
    );
  });
}

function close(parts: Told[], tookMs: number): void {
  const failed = parts.flatMap((part) => part.failed);
  const passed = parts.reduce((all, part) => all + part.passed, 0);
  const coverage: Coverage = sum(parts.map((part) => part.coverage));
  for (const { path, account } of failed.slice(0, 5)) {
    console.log(`\n==== story ${path}; again: npm run stories -- --only ${path}\n${account}`);
  }
  const kinds = new Map<string, { times: number; first: string }>();
  for (const { path, violations } of failed) {
    for (const { rule, says } of violations) {
      const kind = `${rule}: ${says.replaceAll(/key_\d+|\d{4}-\d\d-\d\dT[\d:.]+Z|kt-\w+/g, "…").slice(0, 140)}`;
      const known = kinds.get(kind) ?? { times: 0, first: path };
      kinds.set(kind, { ...known, times: known.times + 1 });
    }
  }
  console.log("");
  for (const [kind, { times, first }] of [...kinds].toSorted(([, a], [, b]) => b.times - a.times)) {
    console.log(`${times} × ${kind} (first ${first})`);
  }
  for (const line of coverageLines(coverage)) console.log(line);
  const missing = count >= gatedFrom && !values["no-gate"] ? gaps(coverage) : [];
  for (const gap of missing) console.log(`too seldom: ${gap}`);
  const rate = ((passed + failed.length) * 1_000) / tookMs;
  console.log(`seed ${seed}, ${rate.toFixed(1)} stories a second`);
  process.exitCode = failed.length > 0 || missing.length > 0 ? 1 : 0;
  console.log(`\n${passed} passed, ${failed.length} failed`);
}

/** The second form: single activities, for real, with the sandbox. */
async function playActivities(): Promise<void> {
  const { playActivityStories } = await import("../test/stories2/activity-stories.ts");
  const { failed } = await playActivityStories({ count, seed, print: (line) => console.log(line) });
  process.exitCode = failed > 0 ? 1 : 0;
}

if (values.form === "2") await playActivities();
else if (values.only !== undefined) await playOne(values.only);
else if (values.bundle !== undefined && process.send !== undefined) await playShare();
else await playAll();
