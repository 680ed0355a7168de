import type { WorkflowHandle } from "@temporalio/client";
import { WorkflowNotFoundError } from "@temporalio/client";
import { setTimeout as delay } from "node:timers/promises";

import { readableMs } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import {
  type Asks,
  type Clocks,
  type Progress,
  type RotationResult,
  type StepRecord,
  taskQueue,
  type Wait,
} from "../domain/rotation.ts";
import type { Temporal } from "../temporal/client.ts";
import { progressQuery } from "../workflows/messages.ts";
import { type CommandFailure, describeFailure } from "./failures.ts";
import type { Output } from "./output.ts";

/** How the watching of a rotation ended. */
export type Watched =
  | { kind: "ended"; result: RotationResult }
  | { kind: "failed"; failure: CommandFailure }
  /** Ctrl-C: the rotation goes on, the watching does not. */
  | { kind: "left" };

const pollMs = 500;
const answerWithinMs = 4_000;
/** Polls in a row without an answer before the operator hears of it. */
const missesTold = 2;

/**
 * Shows a rotation as it goes, to its end or until Ctrl-C. Goes on watching while Temporal or the worker is away, and
 * says so once. With `fromNow`, steps that ended before are not shown.
 */
export async function watchRotation(
  temporal: Temporal,
  handle: WorkflowHandle,
  output: Output,
  { fromNow = false }: { fromNow?: boolean } = {},
): Promise<Watched> {
  const left = new AbortController();
  const leave = (): void => left.abort();
  process.once("SIGINT", leave).once("SIGTERM", leave);
  const gone = new Promise<undefined>((resolve) =>
    left.signal.addEventListener("abort", () => resolve(undefined), { once: true }),
  );
  const picture = createPicture(output, fromNow ? Date.now() : 0);
  const silence = createSilence(temporal, output);
  try {
    while (!left.signal.aborted) {
      const seen = await Promise.race([look(temporal, handle), gone]);
      if (seen === undefined) break;
      if (seen.kind === "silent") {
        await silence.again(seen.who);
      } else {
        silence.over();
        if (seen.kind === "closed") {
          const end = await Promise.race([howItEnded(temporal, handle), gone]);
          if (end === undefined) break;
          if (end !== "silent") {
            picture.end(end);
            return end;
          }
        } else picture.progress(seen.progress);
      }
      await Promise.race([delay(pollMs), gone]);
    }
    return { kind: "left" };
  } finally {
    output.live(undefined);
    process.off("SIGINT", leave).off("SIGTERM", leave);
  }
}

type Seen =
  | { kind: "running"; progress: Progress }
  | { kind: "closed" }
  | { kind: "silent"; who: "Temporal" | "worker" };

async function look({ client }: Temporal, handle: WorkflowHandle): Promise<Seen> {
  const within = async <Result>(call: () => Promise<Result>): Promise<Result> =>
    client.connection.withDeadline(Date.now() + answerWithinMs, call);
  try {
    const { status } = await within(() => handle.describe());
    if (status.name !== "RUNNING") return { kind: "closed" };
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) {
      throw new RotationFailure(
        "SlotMissing",
        `Temporal knows no run of ${handle.workflowId} any more: was its data lost?`,
      );
    }
    return { kind: "silent", who: "Temporal" };
  }
  try {
    return { kind: "running", progress: await within(() => handle.query(progressQuery)) };
  } catch {
    return { kind: "silent", who: "worker" };
  }
}

async function howItEnded({ client }: Temporal, handle: WorkflowHandle): Promise<Watched | "silent"> {
  try {
    const result = await client.connection.withDeadline(Date.now() + answerWithinMs, () => handle.result());
    return { kind: "ended", result: result as RotationResult };
  } catch (error) {
    const failure = describeFailure(error);
    return failure.type === "Unavailable" ? "silent" : { kind: "failed", failure };
  }
}

/** Tells once that somebody does not answer, and once that they do again. */
function createSilence(temporal: Temporal, output: Output) {
  let misses = 0;
  let told: string | undefined;
  return {
    async again(who: "Temporal" | "worker") {
      misses++;
      if (misses < missesTold || told === who) return;
      told = who;
      output.live(undefined);
      output.say(
        output.paint.yellow(
          who === "Temporal"
            ? `Temporal does not answer at ${temporal.address}; the rotation goes on when it does, and I go on watching`
            : ((await nobodyWorks(temporal)) ??
                "no worker answers: look whether keyturn worker runs; it goes on when one does, and I go on watching"),
        ),
      );
    },
    over() {
      if (told !== undefined) output.say(`${told === "worker" ? "the worker" : told} answers again`);
      misses = 0;
      told = undefined;
    },
  };
}

/** A sentence when no worker polls the task queue; nothing when one does, or that could not be found out. */
export async function nobodyWorks({ client, namespace }: Temporal): Promise<string | undefined> {
  try {
    const { pollers } = await client.connection.withDeadline(Date.now() + answerWithinMs, () =>
      client.workflowService.describeTaskQueue({ namespace, taskQueue: { name: taskQueue }, taskQueueType: 1 }),
    );
    return pollers.length > 0
      ? undefined
      : `nobody works on task queue ${taskQueue}: start keyturn worker, and it goes on`;
  } catch {
    return undefined;
  }
}

// ---- the picture -------------------------------------------------------------------------------------------------

/** Prints each step when it begins and ends, each wait once, and in a terminal a line that counts the seconds. */
function createPicture(output: Output, sinceMs: number) {
  const begun = new Set<number>();
  const ended = new Set<number>();
  let lastWait = "";
  let lastClocks = "";
  let shown: string | undefined;

  /**
   * A rotation that is followed by an emergency goes on under the same ids, with a record of its own: its steps begin
   * anew.
   */
  const of = ([first]: StepRecord[]): void => {
    if (first === undefined) return;
    if (shown !== undefined && shown !== first.started) {
      begun.clear();
      ended.clear();
      lastWait = lastClocks = "";
      output.say("goes on as the emergency that follows");
    }
    shown = first.started;
  };
  const clocks = (running: Clocks | undefined): void => {
    if (running === undefined || JSON.stringify(running) === lastClocks) return;
    lastClocks = JSON.stringify(running);
    output.say(`    ${output.paint.yellow(describeClocks(running))}`);
  };

  const steps = (records: StepRecord[]): void => {
    for (const [index, record] of records.entries()) {
      if (ended.has(index)) continue;
      if (record.outcome !== "running") {
        ended.add(index);
        if (record.ended !== undefined && Date.parse(record.ended) < sinceMs) continue;
        output.say(describeStep(record, output));
      } else if (!begun.has(index)) {
        begun.add(index);
        output.say(`${output.paint.cyan("→")} ${record.step}`);
      }
    }
  };
  return {
    end(end: Watched) {
      const result = end.kind === "ended" ? end.result : end.kind === "failed" ? end.failure.result : undefined;
      if (result === undefined) return;
      of(result.steps);
      steps(result.steps);
      clocks(result.clocks);
    },
    progress(progress: Progress) {
      of(progress.steps);
      steps(progress.steps);
      clocks(progress.clocks);
      const { waiting } = progress;
      if (waiting !== null && `${waiting.for} ${waiting.until}` !== lastWait) {
        lastWait = `${waiting.for} ${waiting.until}`;
        output.say(`    ${describeWait(waiting)}`);
      }
      const running = progress.steps.findLast(({ outcome }) => outcome === "running");
      output.live(running === undefined ? undefined : liveLine(running, progress));
    },
  };
}

function describeStep({ step, started, ended, outcome, note }: StepRecord, { paint }: Output): string {
  const tail = note === undefined ? "" : `: ${note}`;
  const took = ended === undefined ? "" : ` ${paint.dim(`(${readableMs(Date.parse(ended) - Date.parse(started))})`)}`;
  if (outcome === "skipped") return `${paint.dim("-")} ${step}${paint.dim(` skipped${tail}`)}`;
  if (outcome === "failed") return `${paint.red("✗")} ${step}${took}${tail}`;
  return `${paint.green("✓")} ${step}${took}${tail}`;
}

/** A wait in one sentence: what for, until when, what then, what a person can do. */
export function describeWait(wait: Wait): string {
  return `waits for ${describeBounds(wait)}${wait.action === undefined ? "" : `; to do: ${wait.action}`}`;
}

/** What is waited for, until when, and what happens then. */
export function describeBounds({ for: what, until, then }: Pick<Wait, "for" | "until" | "then">): string {
  const left = Date.parse(until) - Date.now();
  const when = `until ${clock(until)}${left > 0 ? ` (${readableMs(left)})` : ""}`;
  return `${what}, ${when}; then ${then}`;
}

/** What a wait asks a person for, each thing on a line of its own so that it can be copied. */
export function describeAsks(asks: Asks): string[] {
  switch (asks.kind) {
    case "approval":
      return [];
    case "key":
      return [
        `  Open:       ${asks.where}`,
        `  Make:       ${asks.keyType}`,
        `  Name:       ${asks.name}`,
        `  Belongs to: ${asks.belongsTo}`,
        `  Lives:      at least ${asks.livesAtLeast}`,
      ];
    case "revocation":
      return [`  Open:   ${asks.where}`, `  Revoke: ${asks.which}`];
  }
}

/**
 * The clocks of an emergency that runs, or of one that has `finished`. Without `swaps` no new key was ever meant to go in:
 * the slot did not hold the compromised one.
 */
export function describeClocks(
  { installBy, installed, revokeBy, revoked }: Clocks,
  { finished, swaps = true }: { finished?: string | undefined; swaps?: boolean } = {},
): string {
  if (finished !== undefined && installed === undefined && revoked === undefined)
    return "clocks: it ended before either";
  const key = `new key ${finished !== undefined && installed === undefined ? "never in" : `in ${dueOrDone(installBy, installed)}`}`;
  const cut = `compromised key ${finished !== undefined && revoked === undefined ? "not cut" : `cut ${dueOrDone(revokeBy, revoked)}`}`;
  return `clocks: ${swaps || installed !== undefined ? `${key}; ` : ""}${cut}`;
}

function dueOrDone(by: string, at: string | undefined): string {
  const overMs = (at === undefined ? Date.now() : Date.parse(at)) - Date.parse(by);
  const late = `${readableMs(Math.abs(overMs))} ${overMs > 0 ? "late" : "left"}`;
  return at === undefined ? `by ${clock(by)} (${late})` : `at ${clock(at)} (${overMs > 0 ? late : "in time"})`;
}

function liveLine({ step, started }: StepRecord, { waiting, clocks }: Progress): string {
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(started)) / 1_000));
  const since = seconds === 0 ? "" : ` ${readableMs(seconds * 1_000)}`;
  const cut =
    clocks === undefined || clocks.revoked !== undefined ? "" : ` [cut ${dueOrDone(clocks.revokeBy, undefined)}]`;
  return `… ${step}${since}${cut}${waiting === null ? "" : `, waits for ${waiting.for}`}`;
}

/** Time of day here, with the date where that is not today. */
export function clock(at: string): string {
  const time = new Date(at);
  const pad = (value: number): string => String(value).padStart(2, "0");
  const day = `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
  const hour = `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`;
  return time.toDateString() === new Date().toDateString() ? hour : `${day} ${hour}`;
}
