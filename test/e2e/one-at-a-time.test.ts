import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WorkflowFailedError, type WorkflowHandle } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { parseInventory } from "../../src/config.ts";
import { parseMark } from "../../src/domain/mark.ts";
import { defined } from "../../src/domain/defined.ts";
import { type Progress, type RotationResult, slotWorkflowId, taskQueue } from "../../src/domain/rotation.ts";
import { gatewaySlugs, type ProviderName } from "../../src/domain/slot.ts";
import type { ExchangeEvent } from "../../src/sandbox/exchange.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { keyturn } from "../cli/run.ts";
import { moreGateway, moreSlots, secretOf, serveByHand, slotOf } from "../support/more-slots.ts";
import { handInWhenAsked } from "../support/person.ts";
import { allSlots, makeAnthropicKey } from "../support/providers.ts";
import { everything, seed, someOf, wanted } from "../support/sample.ts";
import { keepingLogger } from "../support/secrecy.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";

/** Promise 7: one rotation of a slot at a time, of whatever kind and provider, however it was started. */

const aliases = ["p1", "p2", "p3", "p4", "p5"];

/** A slot in which starts meet. */
interface Place {
  slot: string;
  provider: ProviderName;
  alias: string;
}
const places: Place[] = aliases.map((alias) => ({ slot: slotOf(alias), provider: "openai", alias }));

type Kind = "normalRotation" | "emergencyRotation";
interface Start {
  kind: Kind;
  /** Says which key is compromised: what a start has to say that meets another. */
  compromised?: string;
}

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
    slots: { ...allSlots, ...moreSlots(aliases) },
    sandbox: { hooks: noteWrite },
  });
  for (const alias of aliases) await serveByHand(world, alias);
  directory = await mkdtemp(join(tmpdir(), "keyturn-one-"));
  const inventory = join(directory, "keyturn.yaml");
  await writeFile(inventory, world.inventoryText);
  env = { ...world.env, TEMPORAL_ADDRESS: temporal.address, KEYTURN_CONFIG: inventory };
  ada = attend("production/anthropic");
});
afterAll(async () => {
  home.abort();
  await ada;
  await world.stop();
  await temporal.stop();
  await rm(directory, { recursive: true, force: true });
});

/** Somebody who hands in a key whenever a rotation of the slot asks for one. */
const home = new AbortController();
let ada: Promise<void>;
async function attend(slot: string): Promise<void> {
  const [sealing] = parseInventory(world.inventoryText, "keyturn.yaml", world.env).sealing;
  if (sealing === undefined) throw new Error("the inventory has no sealing key");
  const make = (name: string) => makeAnthropicKey(world, { name, workspaceId: "wrkspc_1" });
  while (!home.signal.aborted) {
    await handInWhenAsked(world.client.workflow.getHandle(slotWorkflowId(slot)), {
      sealing,
      make,
      leave: home.signal,
    });
  }
}

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
  /** An emergency that found a rotation running, and told it. */
  | { kind: "joined" }
  /** Refused; `names` is what it says about the run that is in the way. */
  | { kind: "busy"; names: string }
  | { kind: "failed"; why: string };

/** Starts, and returns as soon as it is started; `ended` is how it went on. */
type Way = (place: Place, start: Start) => Promise<{ ended: Promise<Ending> }>;

const ways = {
  "the command": async (place, start) => ({ ended: byCommand(place, start) }),
  "temporal with its own id": (place, start) => byTemporal(place, start, `by-hand-${crypto.randomUUID()}`),
  "temporal with the slot's id": (place, start) => byTemporal(place, start, slotWorkflowId(place.slot)),
  "a schedule": bySchedule,
  "cancel and start again": cancelAndStartAgain,
} satisfies Record<string, Way>;

async function byCommand(place: Place, { kind, compromised }: Start): Promise<Ending> {
  const { heldKeyId, since, compromisedKeyId } = await inputOf(place, { kind, ...defined({ compromised }) });
  const held = heldKeyId === undefined ? [] : ["--held-key", heldKeyId];
  const key = compromisedKeyId === undefined ? [] : ["--key", compromisedKeyId];
  const said =
    kind === "normalRotation"
      ? ["rotate", place.slot]
      : ["emergency", place.slot, "--yes", "--since", since ?? "", ...key];
  const { code, stdout, stderr } = await keyturn([...said, ...held, "--json"], env, directory);
  if (stdout === "") throw new Error(stderr);
  const answer = JSON.parse(stdout) as { outcome?: string; error?: { type: string; message: string } };
  if (answer.error?.type === "SlotBusy") {
    expect(code).toBe(4);
    return { kind: "busy", names: answer.error.message };
  }
  expect(code, stderr).toBe(answer.outcome === "rotated" ? 0 : 1);
  if (stderr.includes("is running, at")) return { kind: "joined" };
  return { kind: "ended", outcome: answer.outcome ?? JSON.stringify(answer.error) };
}

async function byTemporal(place: Place, start: Start, workflowId: string): Promise<{ ended: Promise<Ending> }> {
  const running = await runningRun(place);
  const { stdout } = await startByTemporal(place, start, workflowId);
  const { runId } = JSON.parse(stdout) as { runId: string };
  // Without --fail-existing it starts nothing under a taken id, and answers with the run that has it.
  if (runId === running) return { ended: Promise.resolve({ kind: "busy", names: stdout }) };
  return { ended: endingOf(world.client.workflow.getHandle(workflowId, runId)) };
}

async function bySchedule(place: Place, start: Start): Promise<{ ended: Promise<Ending> }> {
  const schedule = await world.client.schedule.create({
    scheduleId: `quarterly-${crypto.randomUUID()}`,
    spec: {},
    action: {
      type: "startWorkflow",
      workflowType: start.kind,
      taskQueue,
      // Schedules add a timestamp, so this is never the slot's own id.
      workflowId: `${slotWorkflowId(place.slot)}-quarterly-${crypto.randomUUID()}`,
      args: [await inputOf(place, start)],
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
async function cancelAndStartAgain(place: Place, { kind }: Start): Promise<{ ended: Promise<Ending> }> {
  const workflowId = slotWorkflowId(place.slot);
  if ((await runningRun(place)) === undefined) {
    await startByTemporal(place, { kind }, workflowId);
    await hasWritten(place);
  }
  const handle = world.client.workflow.getHandle(workflowId);
  // A cancellation stops no clock: who wants an emergency out of the way calls it off.
  const { kind: running } = await handle.query<Progress>("progress");
  await (running === "emergency" ? handle.signal("abortSignal", { by: "ada" }) : handle.cancel());
  for (;;) {
    const { code, stdout } = await startByTemporal(place, { kind }, workflowId, "--fail-existing");
    if (code !== 0) continue;
    const { runId } = JSON.parse(stdout) as { runId: string };
    return { ended: endingOf(world.client.workflow.getHandle(workflowId, runId)) };
  }
}

async function endingOf(handle: WorkflowHandle): Promise<Ending> {
  try {
    const { outcome } = (await handle.result()) as RotationResult;
    return outcome === "joined" ? { kind: "joined" } : { kind: "ended", outcome };
  } catch (error) {
    const cause = error instanceof WorkflowFailedError ? error.cause : error;
    if (!(cause instanceof ApplicationFailure)) throw error;
    return cause.type === "SlotBusy"
      ? { kind: "busy", names: cause.message }
      : { kind: "failed", why: `${cause.type}: ${cause.message}` };
  }
}

async function startByTemporal(
  place: Place,
  start: Start,
  workflowId: string,
  ...more: string[]
): Promise<{ code: number; stdout: string }> {
  const args = ["workflow", "start", "--type", start.kind, "--task-queue", taskQueue].concat(
    ["--workflow-id", workflowId, "--input", JSON.stringify(await inputOf(place, start))],
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

interface Input {
  slot: string;
  heldKeyId?: string;
  since?: string;
  compromisedKeyId?: string;
}

async function inputOf({ slot, provider, alias }: Place, { kind, compromised }: Start): Promise<Input> {
  const secret = await secretOf(world, alias, moreGateway, gatewaySlugs[provider]);
  // Google shows nothing of a value: where no mark says which key it is, the operator does.
  const unmarked = provider === "gemini" && parseMark(secret.comment ?? undefined) === undefined;
  return {
    slot,
    ...(unmarked ? { heldKeyId: await world.heldKey(provider, alias) } : {}),
    // A day in buckets of the sandbox's is a million of them.
    ...(kind === "emergencyRotation" ? { since: new Date(Date.now() - 1_000).toISOString() } : {}),
    // Said by its id: where an earlier run left a key alive, none is guessed.
    ...(kind === "emergencyRotation"
      ? { compromisedKeyId: compromised ?? (await world.heldKey(provider, alias)) }
      : {}),
  };
}

// ---- what is looked at -------------------------------------------------------------------------------------------

function runOf({ slot }: Place): WorkflowHandle {
  return world.client.workflow.getHandle(slotWorkflowId(slot));
}

/** The id of the slot's running run, if there is one. */
async function runningRun(place: Place): Promise<string | undefined> {
  return runOf(place)
    .describe()
    .then(
      ({ status, runId }) => (status.name === "RUNNING" ? runId : undefined),
      () => undefined,
    );
}

/** Waits until the slot's running rotation has issued its key: from then on it has something to lose. */
async function hasWritten(place: Place): Promise<void> {
  await world.until(
    async () =>
      (await runningRun(place)) !== undefined && (await runOf(place).query<Progress>("progress")).newKey !== null,
  );
}

/** The key that the slot's running rotation replaces, told once it has issued another. */
async function replacedKey(place: Place): Promise<string> {
  await hasWritten(place);
  return (await runOf(place).query<Progress>("progress")).oldKey?.id ?? "";
}

/**
 * The shared assertion: each write into the slot's physical secret is made by the one rotation that was under way then,
 * from its first write (the key it issued) to its end.
 */
async function expectOneAtATime({ slot, provider, alias }: Place, rotations: number): Promise<void> {
  const workflowId = slotWorkflowId(slot);
  const spans: { rotationId: string; from: number; to: number }[] = [];
  const { keys } = await world.record();
  await world.until(async () => {
    spans.length = 0;
    for await (const { runId, status, closeTime } of world.client.workflow.list({
      query: `WorkflowId = "${workflowId}"`,
    })) {
      if (status.name === "RUNNING") return false;
      const { rotationId } = await resultOf(world.client.workflow.getHandle(workflowId, runId));
      const ours = keys.filter(({ name }) => name.includes(`.${provider}.${alias}.${rotationId.slice(0, 8)}.`));
      const firsts = ours.map(({ createdAt }) => Date.parse(createdAt));
      if (firsts.length > 0) spans.push({ rotationId, from: Math.min(...firsts), to: closeTime?.getTime() ?? 0 });
    }
    return spans.length >= rotations;
  });
  spans.sort((one, other) => one.from - other.from);
  for (const [index, span] of spans.entries()) {
    expect(span.from, `${slot}: rotation ${span.rotationId} began`).toBeGreaterThan(spans[index - 1]?.to ?? 0);
  }
  const { id: secretId } = await secretOf(world, alias, moreGateway, gatewaySlugs[provider]);
  const written = writes.filter((write) => write.secretId === secretId);
  expect(written.length).toBeGreaterThan(0);
  for (const { at, by } of written) {
    expect(
      spans.filter(({ from, to }) => from <= at && at <= to).map(({ rotationId }) => rotationId),
      `${slot}: who was under way at ${new Date(at).toISOString()}`,
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

interface Pair {
  first: { name: keyof typeof ways; kind: Kind };
  second: { name: keyof typeof ways; kind: Kind };
}

async function meet(place: Place, { first, second }: Pair): Promise<void> {
  const { ended: firstEnded } = await ways[first.name](place, { kind: first.kind });
  const early = firstEnded.then((ending) =>
    Promise.reject(new Error(`the first ended early: ${JSON.stringify(ending)}`)),
  );
  await Promise.race([world.until(async () => (await runningRun(place)) !== undefined), early]);
  early.catch(() => undefined);
  const runId = (await runningRun(place)) ?? "";
  const { ended: secondEnded } = await ways[second.name](place, {
    kind: second.kind,
    ...(second.kind === "emergencyRotation" ? { compromised: await replacedKey(place) } : {}),
  });
  const endings = { first: await firstEnded, second: await secondEnded };
  if (second.name === "cancel and start again") {
    expect(endings).toEqual({
      first: { kind: "ended", outcome: "aborted" },
      second: { kind: "ended", outcome: "rotated" },
    });
  } else if (second.kind === "emergencyRotation" && second.name !== "temporal with the slot's id") {
    expect(endings).toEqual({ first: { kind: "ended", outcome: "rotated" }, second: { kind: "joined" } });
  } else {
    expect(endings).toMatchObject({
      first: { kind: "ended", outcome: "rotated" },
      second: { kind: "busy", names: expect.stringContaining(runId) },
    });
    expect(endings.second).toMatchObject({ names: expect.stringContaining(slotWorkflowId(place.slot)) });
  }
  rotated.set(place.slot, (rotated.get(place.slot) ?? 0) + 1);
  await expectOneAtATime(place, rotated.get(place.slot) ?? 0);
}

const names = Object.keys(ways) as (keyof typeof ways)[];
const pairsOf = (one: Kind, other: Kind): Pair[] =>
  names.flatMap((first) =>
    names.map((second) => ({ first: { name: first, kind: one }, second: { name: second, kind: other } })),
  );

describe.for(names)("while a rotation runs that was started by %s", (first) => {
  const seconds = names.map((name, index) => ({ name, place: places[index] as Place }));

  // Side by side, each in a slot of its own.
  test.concurrent.for(seconds)("a second start by $name never writes beside it", async ({ name, place }) =>
    meet(place, { first: { name: first, kind: "normalRotation" }, second: { name, kind: "normalRotation" } }),
  );
});

/** Of the pairs with an emergency in them, and of those of the other providers, a few each day. */
const emergencies = [
  ...pairsOf("normalRotation", "emergencyRotation"),
  ...pairsOf("emergencyRotation", "normalRotation"),
  ...pairsOf("emergencyRotation", "emergencyRotation"),
];
const others: { slot: string; provider: ProviderName; pairs: Pair[] }[] = [
  { slot: "production/openai", provider: "openai", pairs: emergencies },
  {
    slot: "production/gemini",
    provider: "gemini",
    pairs: [...pairsOf("normalRotation", "normalRotation"), ...emergencies],
  },
  {
    slot: "production/anthropic",
    provider: "anthropic",
    pairs: [...pairsOf("normalRotation", "normalRotation"), ...emergencies],
  },
];
const pairsADay = 3;

describe("of two starts of either kind, one writes", () => {
  const timeout = everything ? 2 * 3_600_000 : 240_000;

  test.concurrent.for(others)("in $slot", { timeout }, async ({ slot, provider, pairs }) => {
    const tried = everything ? pairs : someOf(pairs, Number(wanted) || pairsADay, seed);
    for (const pair of tried) {
      const { first, second } = pair;
      const what = `${slot}: ${first.kind} by ${first.name}, then ${second.kind} by ${second.name} (seed ${seed})`;
      await meet({ slot, provider, alias: "default" }, pair).catch((error: unknown) => {
        throw new Error(`${what}: ${String(error)}`, { cause: error });
      });
    }
  });
});
