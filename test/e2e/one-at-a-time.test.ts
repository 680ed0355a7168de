import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WorkflowFailedError, type WorkflowHandle } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { parseMark } from "../../src/domain/mark.ts";
import { type Progress, type RotationResult, slotWorkflowId, taskQueue } from "../../src/domain/rotation.ts";
import type { ExchangeEvent } from "../../src/sandbox/exchange.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { keyturn } from "../cli/run.ts";
import { moreSlots, secretOf, serveByHand, slotOf } from "../support/more-slots.ts";
import { keepingLogger } from "../support/secrecy.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";

/** Promise 7: one rotation of a slot at a time, however it was started. */

const aliases = ["p1", "p2", "p3", "p4", "p5"];

// They run side by side: on a busy machine each takes its time.
vi.setConfig({ testTimeout: 120_000 });

let temporal: DevServer;
let world: World;
let directory: string;
let env: Record<string, string>;
/** Writes into the slots' secrets, as the sandbox executed them, with the rotation that the mark beside the value names. */
const writes: { at: number; secretId: string; by: string | undefined }[] = [];

beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
  world = await startWorld({
    temporal,
    timeScale: quick.timeScale,
    // Long enough for the slowest second start to meet the first.
    policy: { ...quick.policy, cacheInvalidationWait: "4s" },
    slots: moreSlots(aliases),
    sandbox: { hooks: noteWrite },
  });
  for (const alias of aliases) await serveByHand(world, alias);
  directory = await mkdtemp(join(tmpdir(), "keyturn-one-"));
  const inventory = join(directory, "keyturn.yaml");
  await writeFile(inventory, world.inventoryText);
  env = { ...world.env, TEMPORAL_ADDRESS: temporal.address, KEYTURN_CONFIG: inventory };
});
afterAll(async () => {
  await world.stop();
  await temporal.stop();
  await rm(directory, { recursive: true, force: true });
});

async function noteWrite({ phase, service, method, path }: ExchangeEvent): Promise<void> {
  const secretId = /\/secrets\/([0-9a-f]+)$/.exec(path)?.[1];
  if (phase !== "executed" || service !== "cloudflare" || method === "GET" || secretId === undefined) return;
  const at = Date.now();
  const comment = await world
    .cloudflare("GET", `/secrets_store/stores/${world.storeId}/secrets/${secretId}`)
    .then((answer) => (answer as { result: { comment: string | null } }).result.comment)
    .catch(() => null);
  writes.push({ at, secretId, by: parseMark(comment ?? undefined)?.rotationId });
}

// ---- the ways to start a rotation --------------------------------------------------------------------------------

type Ending =
  | { kind: "ended"; outcome: string }
  /** Refused; `names` is what it says about the run that is in the way. */
  | { kind: "busy"; names: string };

/** Starts, and returns as soon as it is started; `ended` is how it went on. */
type Way = (alias: string) => Promise<{ ended: Promise<Ending> }>;

const ways = {
  "keyturn rotate": async (alias) => ({ ended: byCommand(alias) }),
  "temporal with its own id": (alias) => byTemporal(alias, `by-hand-${crypto.randomUUID()}`),
  "temporal with the slot's id": (alias) => byTemporal(alias, slotWorkflowId(slotOf(alias))),
  "a schedule": bySchedule,
  "cancel and start again": cancelAndStartAgain,
} satisfies Record<string, Way>;

async function byCommand(alias: string): Promise<Ending> {
  const { code, stdout } = await keyturn(["rotate", slotOf(alias), "--json"], env, directory);
  const answer = JSON.parse(stdout) as { outcome?: string; error?: { type: string; message: string } };
  if (answer.error?.type === "SlotBusy") {
    expect(code).toBe(4);
    return { kind: "busy", names: answer.error.message };
  }
  expect(code).toBe(answer.outcome === "rotated" ? 0 : 1);
  return { kind: "ended", outcome: answer.outcome ?? JSON.stringify(answer.error) };
}

async function byTemporal(alias: string, workflowId: string): Promise<{ ended: Promise<Ending> }> {
  const running = await runningRun(alias);
  const { stdout } = await startByTemporal(alias, workflowId);
  const { runId } = JSON.parse(stdout) as { runId: string };
  // Without --fail-existing it starts nothing under a taken id, and answers with the run that has it.
  if (runId === running) return { ended: Promise.resolve({ kind: "busy", names: stdout }) };
  return { ended: endingOf(world.client.workflow.getHandle(workflowId, runId)) };
}

async function bySchedule(alias: string): Promise<{ ended: Promise<Ending> }> {
  const schedule = await world.client.schedule.create({
    scheduleId: `quarterly-${crypto.randomUUID()}`,
    spec: {},
    action: {
      type: "startWorkflow",
      workflowType: "normalRotation",
      taskQueue,
      // Schedules add a timestamp, so this is never the slot's own id.
      workflowId: `${slotWorkflowId(slotOf(alias))}-quarterly-${crypto.randomUUID()}`,
      args: [{ slot: slotOf(alias) }],
    },
  });
  await schedule.trigger();
  let started: { workflowId: string; firstExecutionRunId: string } | undefined;
  await world.until(async () => {
    started = (await schedule.describe()).info.recentActions[0]?.action.workflow;
    return started !== undefined;
  });
  await schedule.delete();
  const { workflowId = "", firstExecutionRunId } = started ?? {};
  return { ended: endingOf(world.client.workflow.getHandle(workflowId, firstExecutionRunId)) };
}

/** Cancels what runs, as a person who wants another one at once: starts again and again until it is taken. */
async function cancelAndStartAgain(alias: string): Promise<{ ended: Promise<Ending> }> {
  const workflowId = slotWorkflowId(slotOf(alias));
  if ((await runningRun(alias)) === undefined) {
    await startByTemporal(alias, workflowId);
    await hasWritten(alias);
  }
  await world.client.workflow.getHandle(workflowId).cancel();
  for (;;) {
    const { code, stdout } = await startByTemporal(alias, workflowId, "--fail-existing");
    if (code !== 0) continue;
    const { runId } = JSON.parse(stdout) as { runId: string };
    return { ended: endingOf(world.client.workflow.getHandle(workflowId, runId)) };
  }
}

async function endingOf(handle: WorkflowHandle): Promise<Ending> {
  try {
    return { kind: "ended", outcome: ((await handle.result()) as RotationResult).outcome };
  } catch (error) {
    const cause = error instanceof WorkflowFailedError ? error.cause : error;
    if (!(cause instanceof ApplicationFailure) || cause.type !== "SlotBusy") throw error;
    return { kind: "busy", names: cause.message };
  }
}

async function startByTemporal(
  alias: string,
  workflowId: string,
  ...more: string[]
): Promise<{ code: number; stdout: string }> {
  const args = ["workflow", "start", "--type", "normalRotation", "--task-queue", taskQueue].concat(
    ["--workflow-id", workflowId, "--input", JSON.stringify({ slot: slotOf(alias) })],
    ["--address", temporal.address, "--output", "json"],
    more,
  );
  const child = spawn(temporal.binary.path, args, {
    env: { PATH: process.env["PATH"], HOME: directory },
    stdio: ["ignore", "pipe", "ignore"],
  });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  const [code] = (await once(child, "close")) as [number];
  return { code, stdout };
}

// ---- what is looked at -------------------------------------------------------------------------------------------

function runOf(alias: string): WorkflowHandle {
  return world.client.workflow.getHandle(slotWorkflowId(slotOf(alias)));
}

/** The id of the slot's running run, if there is one. */
async function runningRun(alias: string): Promise<string | undefined> {
  return runOf(alias)
    .describe()
    .then(
      ({ status, runId }) => (status.name === "RUNNING" ? runId : undefined),
      () => undefined,
    );
}

/** Waits until the slot's running rotation has issued its key: from then on it has something to lose. */
async function hasWritten(alias: string): Promise<void> {
  await world.until(
    async () =>
      (await runningRun(alias)) !== undefined && (await runOf(alias).query<Progress>("progress")).newKey !== null,
  );
}

/**
 * The shared assertion: each write into the slot's physical secret is made by the one rotation that was under way then,
 * from its first write (the key it issued) to its end.
 */
async function expectOneAtATime(alias: string, rotations: number): Promise<void> {
  const workflowId = slotWorkflowId(slotOf(alias));
  const spans: { rotationId: string; from: number; to: number }[] = [];
  const { keys } = await world.record();
  await world.until(async () => {
    spans.length = 0;
    for await (const { runId, status, closeTime } of world.client.workflow.list({
      query: `WorkflowId = "${workflowId}"`,
    })) {
      if (status.name === "RUNNING") return false;
      const { rotationId } = await resultOf(world.client.workflow.getHandle(workflowId, runId));
      const ours = keys.filter(({ name }) => name.includes(`.${alias}.${rotationId.slice(0, 8)}.`));
      const firsts = ours.map(({ createdAt }) => Date.parse(createdAt));
      if (firsts.length > 0) spans.push({ rotationId, from: Math.min(...firsts), to: closeTime?.getTime() ?? 0 });
    }
    return spans.length >= rotations;
  });
  spans.sort((one, other) => one.from - other.from);
  for (const [index, span] of spans.entries()) {
    expect(span.from, `${alias}: rotation ${span.rotationId} began`).toBeGreaterThan(spans[index - 1]?.to ?? 0);
  }
  const { id: secretId } = await secretOf(world, alias);
  const written = writes.filter((write) => write.secretId === secretId);
  expect(written.length).toBeGreaterThan(0);
  for (const { at, by } of written) {
    expect(
      spans.filter(({ from, to }) => from <= at && at <= to).map(({ rotationId }) => rotationId),
      `${alias}: who was under way at ${new Date(at).toISOString()}`,
    ).toEqual([by]);
  }
}

async function resultOf(handle: WorkflowHandle): Promise<RotationResult> {
  try {
    return (await handle.result()) as RotationResult;
  } catch (error) {
    const cause = error instanceof WorkflowFailedError ? error.cause : error;
    if (!(cause instanceof ApplicationFailure)) throw error;
    return cause.details?.[0] as RotationResult;
  }
}

/** How often each slot's key was rotated so far: what the shared assertion must at least find. */
const rotated = new Map<string, number>();

describe.for(Object.entries(ways))("while a rotation runs that was started by %s", ([, first]) => {
  const seconds = Object.entries(ways).map(([name, second], index) => [name, second, aliases[index] ?? ""] as const);

  // Side by side, each in a slot of its own.
  test.concurrent.for(seconds)("a second start by %s never writes beside it", async ([name, second, alias]) => {
    const { ended: firstEnded } = await first(alias);
    await world.until(async () => (await runningRun(alias)) !== undefined);
    const runId = (await runningRun(alias)) ?? "";
    const { ended: secondEnded } = await second(alias);
    const endings = { first: await firstEnded, second: await secondEnded };
    if (name === "cancel and start again") {
      expect(endings).toEqual({
        first: { kind: "ended", outcome: "aborted" },
        second: { kind: "ended", outcome: "rotated" },
      });
    } else {
      expect(endings).toMatchObject({
        first: { kind: "ended", outcome: "rotated" },
        second: { kind: "busy", names: expect.stringContaining(runId) },
      });
      expect(endings.second).toMatchObject({ names: expect.stringContaining(slotWorkflowId(slotOf(alias))) });
    }
    rotated.set(alias, (rotated.get(alias) ?? 0) + 1);
    await expectOneAtATime(alias, rotated.get(alias) ?? 0);
  });
});
