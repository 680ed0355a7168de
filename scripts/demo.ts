/**
 * `npm run demo`: Temporal, the sandbox, a worker and live traffic on this machine, and one rotation watched to its end.
 * Ends with what the sandbox recorded; exit code 0 only if no request failed and nothing was left behind.
 */
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { type Child, keyturnScript, sandboxedEnvironment, startChild } from "../src/cli/child.ts";
import { coloursFor, table } from "../src/cli/output.ts";
import { readableMs } from "../src/domain/duration.ts";
import type { RotationResult } from "../src/domain/rotation.ts";

const flags = readFlags();

function readFlags() {
  try {
    return parseArgs({
      options: {
        json: { type: "boolean", default: false },
        keep: { type: "boolean", default: false },
        "time-scale": { type: "string", default: "60" },
        rate: { type: "string", default: "170" },
      },
    }).values;
  } catch (error) {
    const [sentence = ""] = (error as Error).message.split(". ");
    process.stderr.write(`${sentence}: the demo takes --keep, --json, --time-scale <n> and --rate <n>\n`);
    return process.exit(2);
  }
}

const slot = "production/openai";
const project = "proj_abc";
const namesOfOurKeys = "kt.dev.";
const trafficBeforeMs = 4_000;
const trafficAfterMs = 8_000;

const paint = coloursFor(flags.json ? process.stderr : process.stdout);
/** With `--json`, standard output is for the JSON line alone. */
const say = flags.json ? console.error : console.log;
const heading = (line: string): void => say(`\n${paint.bold(line)}`);

interface Ready {
  control: string;
  env: Record<string, string>;
  temporal: { address: string; ui: string };
}

interface SandboxRecord {
  keys: {
    id: string;
    name: string;
    projectId: string;
    state: string;
    lastUsedAt: string | null;
    revokedAt: string | null;
    deadAt: string | null;
  }[];
  traffic: {
    served: number;
    failed: number;
    byEdge: Record<string, { served: number; failed: number }>;
    failures: { at: string; edge: string; status: number; keyId: string; body: string }[];
  };
}

interface Counts {
  served: number;
  failed: number;
  failures: { at: string; edge: string; status: number | null; why: string }[];
}

/** What the demo ends with; the shape of `--json` is fixed. */
interface Summary {
  requests: number;
  failed: number;
  orphans: number;
  liveKeys: number;
  oldKey: { id: string; lastUsedAt: string | null; revokedAt: string | null; confirmedDeadAt: string | null } | null;
  newKey: { id: string } | null;
  result: RotationResult | null;
  ui: string;
}

/** Rejects when somebody wants the demo to end; every wait races it. */
class Interrupted extends Error {}
let interrupt: (error: Interrupted) => void;
const interrupted = new Promise<never>((_, reject) => (interrupt = reject));
interrupted.catch(() => undefined);
let signals = 0;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    if (++signals > 1) process.exit(130); // the children end with us
    interrupt(new Interrupted("stopped"));
  });
}
const unlessStopped = <Result>(work: Promise<Result>): Promise<Result> => Promise.race([work, interrupted]);

let ending = false;
const stopping = (): boolean => ending || signals > 0;
const lastLine = { line: "" };
const children: { child: Child; withinMs: number }[] = [];
const begin = Date.now();
try {
  process.exitCode = await demo();
} catch (error) {
  process.exitCode = error instanceof Interrupted ? 130 : 1;
  say(`\n${paint.red("demo:")} ${error instanceof Error ? error.message : String(error)}`);
} finally {
  ending = true;
  for (const { child, withinMs } of children.toReversed()) await child.stop(withinMs);
}

async function demo(): Promise<number> {
  heading("1. Temporal, the sandbox and a worker, on this machine");
  const ready = await startDev();
  const { control, env, temporal } = ready;
  say(`  Temporal UI ${paint.cyan(temporal.ui)}`);
  say(`  the sandbox plays Cloudflare and OpenAI, ${flags["time-scale"]} times as fast: ${control}`);

  heading(`2. Clients of the gateway, ${flags.rate} requests a second over all its edges`);
  const traffic = await startTraffic(ready, "600");
  await unlessStopped(delay(trafficBeforeMs));

  heading(`3. keyturn rotate ${slot}`);
  const rotated = await rotate(env);
  await unlessStopped(delay(trafficAfterMs));
  const counted = await countOf(traffic);

  const record = (await (await fetch(`${control}/record`)).json()) as SandboxRecord;
  const served = await servedKeys(control);
  const { summary, problems } = judge({ record, served, counted, result: rotated.result, ui: temporal.ui });
  if (rotated.failure !== undefined) problems.push(`the rotation failed: ${rotated.failure}`);
  show(summary, record, problems);
  if (flags.keep) await keepRunning(ready);
  if (flags.json) console.log(JSON.stringify(summary));
  return problems.length === 0 ? 0 : 1;
}

async function startDev(): Promise<Ready> {
  const lastWords: string[] = [];
  const child = startChild(
    [keyturnScript, "dev", "--json", "--until-stdin-ends", "--time-scale", flags["time-scale"]],
    {
      env: process.env,
      onErrorLine: (line) => {
        lastWords.push(line);
        if (lastWords.length > 20) lastWords.shift();
        if (line.startsWith("temporal dev server:")) say(`  ${line}`);
      },
    },
  );
  children.push({ child, withinMs: 15_000 });
  const line = await unlessStopped(child.firstLine()).catch(async (error: unknown) => {
    if (error instanceof Interrupted) throw error;
    throw new Error(`keyturn dev did not start: ${lastWords.join("\n")}`, { cause: error });
  });
  const ready = JSON.parse(line) as Ready | { error: { message: string } };
  if ("error" in ready) throw new Error(`keyturn dev did not start: ${ready.error.message}`);
  void child.ended.then(() => {
    if (!stopping()) interrupt(new Interrupted(`keyturn dev ended: ${lastWords.join("\n")}`));
  });
  return ready;
}

async function startTraffic({ control, env }: Ready, maxSeconds: string): Promise<Child> {
  const script = fileURLToPath(new URL("./traffic.js", import.meta.url));
  const child = startChild(
    [script, "--control", control, "--rate", flags.rate, "--max-seconds", maxSeconds, "--until-stdin-ends"],
    { env: sandboxedEnvironment(process.env, env), onLine: (line) => (lastLine.line = line) },
  );
  children.push({ child, withinMs: 5_000 });
  await unlessStopped(child.firstLine());
  return child;
}

async function countOf(traffic: Child): Promise<Counts> {
  await unlessStopped(traffic.stop(20_000));
  await traffic.ended;
  return JSON.parse(lastLine.line) as Counts;
}

interface Rotated {
  result: RotationResult | null;
  failure?: string;
}

async function rotate(env: Record<string, string>): Promise<Rotated> {
  let document = "";
  const child = startChild([keyturnScript, "rotate", slot, "--reason", "demo", "--json", "--until-stdin-ends"], {
    env: sandboxedEnvironment(process.env, env),
    onLine: (line) => (document = line),
  });
  children.push({ child, withinMs: 5_000 });
  await unlessStopped(child.ended);
  const printed = JSON.parse(document) as RotationResult | { error: { message: string }; result?: RotationResult };
  if (!("error" in printed)) return { result: printed };
  return { result: printed.result ?? null, failure: printed.error.message };
}

async function servedKeys(control: string): Promise<Set<string>> {
  const { slots } = (await (await fetch(`${control}/slots`)).json()) as { slots: { keyId: string | null }[] };
  return new Set(slots.flatMap(({ keyId }) => (keyId === null ? [] : [keyId])));
}

interface Evidence {
  record: SandboxRecord;
  served: Set<string>;
  counted: Counts;
  result: RotationResult | null;
  ui: string;
}

/** Holds what the rotation says of itself against what the sandbox saw. */
function judge({ record, served, counted, result, ui }: Evidence): { summary: Summary; problems: string[] } {
  const { traffic } = record;
  const live = record.keys.filter(({ state }) => state === "active");
  const liveKeys = live.filter(({ projectId }) => projectId === project);
  const orphans = live.filter(({ id, name }) => name.startsWith(namesOfOurKeys) && !served.has(id));
  const old = record.keys.find(({ id }) => id === result?.oldKey?.id);
  const times = result?.times;
  const summary: Summary = {
    requests: traffic.served + traffic.failed,
    failed: traffic.failed,
    orphans: orphans.length,
    liveKeys: liveKeys.length,
    oldKey:
      old === undefined
        ? null
        : {
            id: old.id,
            lastUsedAt: old.lastUsedAt,
            revokedAt: times?.revoked ?? null,
            confirmedDeadAt: times?.confirmedDead ?? null,
          },
    newKey: result?.newKey ?? null,
    result,
    ui,
  };
  const problems: string[] = [];
  const must = (holds: boolean, problem: string): void => void (holds || problems.push(problem));
  must(result?.outcome === "rotated", `the rotation ended as ${result?.outcome ?? "failed"}`);
  must(traffic.failed === 0 && counted.failed === 0, `${Math.max(traffic.failed, counted.failed)} requests failed`);
  must(
    traffic.served === counted.served && traffic.failed === counted.failed,
    `the clients counted ${counted.served} served and ${counted.failed} failed, the sandbox ${traffic.served} and ${traffic.failed}`,
  );
  must(orphans.length === 0, `orphans: ${orphans.map(({ id }) => id).join(", ")}`);
  must(liveKeys.length === 1, `${liveKeys.length} live keys in ${project}, and there should be one`);
  must(
    liveKeys.some(({ id }) => id === result?.newKey?.id),
    "the new key is not the live one",
  );
  const order = [old?.lastUsedAt, times?.revoked, times?.confirmedDead].map((at) => Date.parse(at ?? ""));
  must(
    order.every((at, index) => index === 0 || at >= (order[index - 1] ?? Number.NaN)),
    `the old key was last used ${old?.lastUsedAt}, revoked ${times?.revoked}, confirmed dead ${times?.confirmedDead}: not in this order`,
  );
  for (const { at, edge, status, why } of counted.failures.slice(0, 5)) {
    problems.push(`failed at ${at}, edge ${edge}, status ${status ?? "none"}: ${why}`);
  }
  return { summary, problems };
}

function show(summary: Summary, { traffic }: SandboxRecord, problems: string[]): void {
  heading("4. What the sandbox saw");
  const { oldKey } = summary;
  const edges = Object.entries(traffic.byEdge).map(([edge, { served, failed }]) => `${edge} ${served}/${failed}`);
  const lines: [string, string | undefined][] = [
    ["requests served", `${traffic.served}`],
    ["requests failed", `${traffic.failed}`],
    ["by edge (served/failed)", edges.join(", ")],
    ["old key", oldKey?.id],
    ["  last used by clients", oldKey?.lastUsedAt ?? undefined],
    ["  revoked", oldKey?.revokedAt ?? undefined],
    ["  confirmed dead", oldKey?.confirmedDeadAt ?? undefined],
    ["new key", summary.newKey?.id],
    ["live keys at the provider", `${summary.liveKeys}`],
    ["orphans", `${summary.orphans}`],
    ["Temporal UI", `${summary.ui}${flags.keep ? "" : " (gone with the demo; --keep leaves it running)"}`],
    ["took", readableMs(Date.now() - begin)],
  ];
  say(table(lines));
  if (problems.length === 0) {
    say(`\n${paint.green("✓")} the key was rotated and no request failed`);
  } else for (const problem of problems) say(`\n${paint.red("✗")} ${problem}`);
}

async function keepRunning(ready: Ready): Promise<void> {
  await startTraffic(ready, "36000");
  heading("5. Left running, with traffic, until Ctrl-C");
  say(`  look at ${paint.cyan(ready.temporal.ui)}, or in another terminal, here:`);
  say(`    set -a; . ${ready.env["KEYTURN_CONFIG"]?.replace(/keyturn\.yaml$/, "env")}; set +a`);
  say("    npx keyturn status");
  say(`    npx keyturn rotate ${slot}`);
  await interrupted.catch(() => undefined);
}
