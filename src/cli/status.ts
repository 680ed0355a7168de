/** `keyturn status [slot]`: what each slot's rotation does now, or how the last one ended. */
import { WorkflowNotFoundError } from "@temporalio/client";
import { Command } from "commander";

import { loadInventory, readEnvironment } from "../config.ts";
import type { KeyEntry } from "../domain/custody.ts";
import { readableMs } from "../domain/duration.ts";
import { type Progress, type RotationResult, slotWorkflowId, type Wait } from "../domain/rotation.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import { progressQuery } from "../workflows/messages.ts";
import { describeOutage, describeResult } from "./describe-result.ts";
import { type CommandFailure, describeFailure, exitCodes } from "./failures.ts";
import { needsPerson } from "./needs-person.ts";
import { createOutput, table } from "./output.ts";
import { readSlot } from "./slot-argument.ts";
import { clock, describeAsks, describeBounds, describeClocks, nobodyWorks } from "./watch.ts";

interface Flags {
  env?: string;
  json?: true;
}

export function statusCommand(): Command {
  return new Command("status")
    .description("show what a slot's rotation does and waits for, or how the last one ended")
    .argument("[slot]", "a slot; without one, all of the inventory")
    .option("--env <environment>", "environment of a slot given without one; without a slot, only its slots")
    .option("--json", "print one JSON document: an object for a slot, an array for all")
    .action(status);
}

async function status(text: string | undefined, flags: Flags): Promise<void> {
  const output = createOutput(flags);
  const env = readEnvironment();
  const inventory = loadInventory(env);
  const names =
    text === undefined
      ? Object.values(inventory.slots)
          .filter(({ slot }) => flags.env === undefined || slot.environment === flags.env)
          .map(({ name }) => name)
      : [readSlot(text, { inventory, env, chosen: flags.env }).name];
  await withTemporal(env, async (temporal) => {
    const states = await Promise.all(names.map((name) => stateOf(temporal, name)));
    output.result(text === undefined ? states : states[0], states.map(describeState).join("\n\n"));
    const unanswered = states.some((state) => state.state === "running" && state.progress === null);
    const idle = unanswered ? await nobodyWorks(temporal) : undefined;
    if (idle !== undefined) output.say(output.paint.yellow(idle));
    const person = states.some((state) => state.state === "running" && needsPerson(state.waiting));
    process.exitCode = person ? exitCodes.waitingForPerson : exitCodes.done;
  });
}

type SlotState =
  | { slot: string; state: "never rotated" }
  | {
      slot: string;
      state: "running";
      workflowId: string;
      runId: string;
      since: string;
      phase: string;
      waiting: Wait | null;
      action: string;
      /** Nothing where no worker answered. */
      progress: Progress | null;
    }
  | {
      slot: string;
      state: "ended";
      workflowId: string;
      runId: string;
      ended: string | null;
      result: RotationResult | null;
      error: Pick<CommandFailure, "type" | "message"> | null;
    };

async function stateOf({ client }: Temporal, slot: string): Promise<SlotState> {
  const workflowId = slotWorkflowId(slot);
  const handle = client.workflow.getHandle(workflowId);
  const found = await handle.describe().catch((error: unknown) => {
    if (error instanceof WorkflowNotFoundError) return undefined;
    throw error;
  });
  if (found === undefined) return { slot, state: "never rotated" };
  const run = { slot, workflowId, runId: found.runId };
  if (found.status.name === "RUNNING") {
    const progress = await client.connection
      .withDeadline(Date.now() + 5_000, () => client.workflow.getHandle(workflowId, found.runId).query(progressQuery))
      .catch(() => null);
    return {
      ...run,
      state: "running",
      since: found.startTime.toISOString(),
      phase: progress?.phase ?? "unknown: no worker answers",
      waiting: progress?.waiting ?? null,
      action: progress?.action ?? "look whether a worker runs: keyturn worker",
      progress,
    };
  }
  const ended = found.closeTime?.toISOString() ?? null;
  try {
    const result = (await client.workflow.getHandle(workflowId, found.runId).result()) as RotationResult;
    return { ...run, state: "ended", ended, result, error: null };
  } catch (error) {
    const { type, message, result = null } = describeFailure(error);
    return { ...run, state: "ended", ended, result, error: { type, message } };
  }
}

/** What runs; an emergency that only gathers evidence has done the rest. */
function runningHeadline(progress: Progress | null): string {
  if (progress?.kind !== "emergency") return "rotation running";
  return progress.phase === "gatherEvidence"
    ? "emergency: the key is cut, and evidence is being gathered of what it was used for; the slot is taken until then"
    : "emergency running";
}

function describeState(state: SlotState): string {
  switch (state.state) {
    case "never rotated":
      return `${state.slot}: no rotation on record`;
    case "running": {
      const { slot, since, phase, waiting, action, progress, workflowId, runId } = state;
      const rows: [string, string | undefined][] = [
        ["since", `${clock(since)} (${readableMs(Date.now() - Date.parse(since))})`],
        ["step", phase],
        ["waits for", waiting === null ? undefined : describeBounds(waiting)],
        ["waits since", waiting === null ? undefined : clock(waiting.since)],
        ["to do", action],
        [
          "clocks",
          progress?.clocks === undefined ? undefined : describeClocks(progress.clocks).replace(/^clocks: /, ""),
        ],
        ["requests could fail", progress?.outage === undefined ? undefined : describeOutage(progress.outage)],
        [isCompromised(progress) ? "compromised key" : "old key", progress?.oldKey?.id],
        ["new key", progress?.newKey?.id],
        ...leftOverRows(progress?.keys ?? []),
        ["workflow", `${workflowId}, run ${runId}`],
      ];
      const asks = waiting?.asks === undefined ? [] : describeAsks(waiting.asks).map((line) => `  ${line}`);
      return [`${slot}: ${runningHeadline(progress)}`, table(rows), ...asks].join("\n");
    }
    case "ended": {
      const { slot, result, error, ended } = state;
      const told =
        result === null ? `${slot}: the last rotation ended at ${ended ?? "an unknown time"}` : describeResult(result);
      const rows: [string, string | undefined][] = [
        ["failed", error === null ? undefined : `${error.type}: ${error.message}`],
      ];
      return [told, table(rows)].filter((part) => part !== "").join("\n");
    }
  }
}

function isCompromised(progress: Progress | null): boolean {
  return progress?.keys.some(({ id, role }) => id === progress.oldKey?.id && role === "compromised") === true;
}

/** Keys that a run answers for and names: they may be alive. */
function leftOverRows(keys: KeyEntry[]): [string, string][] {
  return keys.flatMap(({ id, fate, why = "" }) => (fate === "named" ? [["left over", `${id}: ${why}`]] : []));
}
