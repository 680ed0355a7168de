/** `keyturn sweep`: finds keys and aliases of ours that nobody holds, and with `--yes` ends them. */
import { WorkflowExecutionAlreadyStartedError, type WorkflowHandle } from "@temporalio/client";
import { Command, InvalidArgumentError } from "commander";

import { loadInventory, nearestName, readEnvironment } from "../config.ts";
import { isDuration } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import { taskQueue } from "../domain/rotation.ts";
import { sweepDefaults, type SweepItem, type SweepResult, sweepWorkflowId } from "../domain/sweep.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import type { SweepStart } from "../workflows/sweep-orphans.ts";
import { exitCodes } from "./failures.ts";
import { coloursFor, createOutput } from "./output.ts";
import { nobodyWorks } from "./watch.ts";

interface Flags {
  yes?: true;
  cap?: number;
  minimumAge?: string;
  env?: string;
  json?: true;
}

export function sweepCommand(): Command {
  return new Command("sweep")
    .description("find live keys of ours that no slot holds, and aliases that rotations left; with --yes end them")
    .option("--yes", "revoke what is found; without it nothing is changed")
    .option("--cap <n>", `end at most so many in one run (default: ${sweepDefaults.cap})`, readCap)
    .option("--minimum-age <time>", `spare what is younger (default: ${sweepDefaults.minimumAge})`, readAge)
    .option("--env <environment>", "only slots of this environment")
    .option("--json", "print the result as one JSON document")
    .action(sweep);
}

async function sweep(flags: Flags): Promise<void> {
  const output = createOutput(flags);
  const env = readEnvironment();
  const environments = Object.keys(loadInventory(env).environments);
  if (flags.env !== undefined && !environments.includes(flags.env)) {
    const nearest = nearestName(flags.env, environments);
    throw new RotationFailure(
      "InvalidInput",
      `no environment ${flags.env}${nearest === undefined ? "" : `: did you mean ${nearest}?`} (environments: ${environments.join(", ")})`,
    );
  }
  const start: SweepStart = {
    revoke: flags.yes === true,
    ...(flags.cap === undefined ? {} : { cap: flags.cap }),
    ...(flags.minimumAge === undefined ? {} : { minimumAge: flags.minimumAge }),
    ...(flags.env === undefined ? {} : { select: { environment: flags.env } }),
  };
  process.exitCode = await withTemporal(env, async (temporal) => {
    const handle = await startSweep(temporal, start);
    const idle = await nobodyWorks(temporal);
    if (idle !== undefined) output.say(output.paint.yellow(idle));
    const result = await resultOf(handle, () =>
      output.say(
        output.paint.yellow(
          "no worker has taken up the sweep: look whether keyturn worker runs; it begins when one does",
        ),
      ),
    );
    output.result(result, describeSweep(result));
    return exitCodeOfSweep(result);
  });
}

/** How long a sweep may lie unnoticed before the operator hears of it. */
const unnoticedMs = 5_000;

/** What a worker does first with a run makes the third event of its history. */
const untouched = 2;

/** The sweep's result; says once where after a few seconds no worker has begun. */
async function resultOf(handle: WorkflowHandle, nobodyBegan: () => void): Promise<SweepResult> {
  const look = setTimeout(() => {
    void handle.describe().then(
      ({ historyLength, status }) => {
        if (status.name === "RUNNING" && historyLength <= untouched) nobodyBegan();
      },
      () => undefined,
    );
  }, unnoticedMs);
  try {
    return (await handle.result()) as SweepResult;
  } finally {
    clearTimeout(look);
  }
}

async function startSweep({ client }: Temporal, start: SweepStart) {
  try {
    return await client.workflow.start("sweepOrphans", {
      taskQueue,
      workflowId: sweepWorkflowId,
      args: [start],
      workflowIdConflictPolicy: "FAIL",
      workflowIdReusePolicy: "ALLOW_DUPLICATE",
      staticSummary: start.revoke === true ? "find orphans and end them" : "find orphans",
    });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    throw new RotationFailure("SlotBusy", `a sweep is running (workflow ${sweepWorkflowId}): wait for its end`);
  }
}

/** Refused where nothing could be told safely, failed where something could not be ended. */
export function exitCodeOfSweep({ blocked, failed }: Pick<SweepResult, "blocked" | "failed">): number {
  if (blocked.length > 0) return exitCodes.refused;
  return failed.length > 0 ? exitCodes.failed : exitCodes.done;
}

/** What was found, what was done or would be done, and what stays. */
export function describeSweep(result: SweepResult): string {
  const { found, revoked, spared, blocked, unknown, cap, revoke } = result;
  const paint = coloursFor(process.stdout);
  const ended = (item: SweepItem): boolean => revoked.some(({ kind, id }) => kind === item.kind && id === item.id);
  const line = (sign: string, { kind, id, name, slot, why }: SweepItem): string =>
    `  ${sign} ${kind} ${id} (${kind === "key" ? name : `gateway ${name}`}, ${slot}): ${why}`;
  const orphans = revoke
    ? found.filter(ended).map((item) => line(paint.green("✓ ended"), item))
    : found.map((item, index) => line(paint.yellow(index < cap ? "would end" : "over the cap"), item));
  return [
    ...blocked.map((why) => `${paint.red("everything is spared:")} ${why}`),
    headline(result),
    ...orphans,
    ...spared.map((item) => line(paint.dim("spared"), item)),
    ...unknown.map((what) => `  ${paint.yellow("unknown")} ${what}`),
    ...(!revoke && found.length > 0 && blocked.length === 0
      ? ["nothing was changed: give --yes to end what is found"]
      : []),
  ].join("\n");
}

function headline({ found, revoked, spared, revoke }: SweepResult): string {
  const orphans = `${found.length} ${found.length === 1 ? "orphan" : "orphans"} found`;
  return `${orphans}, ${revoke ? `${revoked.length} ended, ` : ""}${spared.length} spared`;
}

function readCap(text: string): number {
  const cap = Number(text);
  if (Number.isInteger(cap) && cap >= 1 && cap <= 1_000) return cap;
  throw new InvalidArgumentError("a whole number from 1 to 1000");
}

function readAge(text: string): string {
  if (isDuration(text)) return text;
  throw new InvalidArgumentError("a length of time with its unit, such as 24h");
}
