/** `keyturn rotate <slot>`: starts a normal rotation and watches it to its end. */
import { WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError, type WorkflowHandle } from "@temporalio/client";
import { Command } from "commander";

import { type InventorySlot, loadInventory, readCredentials, readEnvironment } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { containsKey } from "../domain/key-shape.ts";
import { type RotationKind, slotWorkflowId, taskQueue } from "../domain/rotation.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import { type EmergencyRotationStart, type NormalRotationStart, progressQuery } from "../workflows/messages.ts";
import { searchAttributes } from "../workflows/search-attributes.ts";
import { commandsFor } from "./describe-plan.ts";
import { describeResult } from "./describe-result.ts";
import { exitCodeOf, exitCodeOfResult, exitCodes } from "./failures.ts";
import { createOutput, type Output, printFailure } from "./output.ts";
import { readSlot } from "./slot-argument.ts";
import { needsPerson } from "./needs-person.ts";
import { formerRun } from "./running-rotation.ts";
import { onStdinEnd } from "./stdin-leash.ts";
import { nobodyWorks, watchRotation } from "./watch.ts";

interface Flags {
  reason?: string;
  heldKey?: string;
  onlyIfDue?: true;
  dryRun?: true;
  detach?: true;
  env?: string;
  json?: true;
  untilStdinEnds?: true;
}

export function rotateCommand(): Command {
  return new Command("rotate")
    .description("replace the key of a slot without a failed request, and watch it to the end")
    .argument("<slot>", "environment/provider[:alias], or provider[:alias] (see --env)")
    .option("--reason <words>", "why, for the record")
    .option("--held-key <id>", "the id of the key the slot holds now, where keyturn cannot tell")
    .option("--only-if-due", "do nothing when the key is younger than its period")
    .option("--dry-run", "look and say what would be done; changes nothing, needs no worker")
    .option("--detach", "start it and return at once")
    .option("--env <environment>", "environment of a slot given without one (default: NODE_ENV, then the inventory's)")
    .option("--json", "print the result as one JSON document")
    .addOption(onStdinEnd.option())
    .action(rotate);
}

async function rotate(text: string, flags: Flags): Promise<void> {
  const output = createOutput(flags);
  if (flags.untilStdinEnds === true) onStdinEnd.run(() => process.exit(exitCodes.interrupted));
  const env = readEnvironment();
  const inventory = loadInventory(env);
  const slot = readSlot(text, { inventory, env, chosen: flags.env });
  const credentials = readCredentials(env);
  const start: NormalRotationStart = {
    slot: slot.name,
    ...(flags.reason === undefined ? {} : { reason: flags.reason }),
    ...(flags.onlyIfDue === undefined ? {} : { onlyIfDue: true }),
    ...(flags.heldKey === undefined ? {} : { heldKeyId: flags.heldKey }),
  };
  refuseOddInput(start);
  if (flags.dryRun === true) {
    const { dryRun } = await import("./dry-run.ts"); // the worker's code, which takes a second to load
    await dryRun({ slot, inventory, credentials, start, env, output });
    return;
  }
  process.exitCode = await withTemporal(env, async (temporal) => {
    const former = await formerRun(temporal, slot.name);
    const handle = await startRotation(temporal, slot, "normal", { ...start, ...former });
    const run = { workflowId: handle.workflowId, runId: handle.firstExecutionRunId };
    output.say(`${slot.name}: rotation started (workflow ${run.workflowId}, run ${run.runId})`);
    const idle = await nobodyWorks(temporal);
    if (idle !== undefined) output.say(output.paint.yellow(idle));
    if (flags.detach === true) return leaveItRunning(temporal, handle, { slot: slot.name, ...run }, output);
    return follow(temporal, handle, slot.name, output);
  });
}

/** Watches a run to its end and prints how it ended; returns the exit code. */
export async function follow(
  temporal: Temporal,
  handle: WorkflowHandle,
  slot: string,
  output: Output,
): Promise<number> {
  const watched = await watchRotation(temporal, handle, output);
  switch (watched.kind) {
    case "left":
      output.say(`\nthe rotation goes on; look again with: keyturn status ${slot}`);
      return exitCodes.interrupted;
    case "failed": {
      const { result, candidates = [] } = watched.failure;
      for (const line of commandsFor(`keyturn emergency ${slot}`, candidates)) output.say(line);
      if (result !== undefined && !output.json) output.result(result, describeResult(result));
      printFailure(watched.failure, output.json);
      return exitCodeOf(watched.failure.type);
    }
    case "ended":
      output.result(watched.result, describeResult(watched.result));
      return exitCodeOfResult(watched.result);
  }
}

/** What the workflow would refuse, refused before Temporal is asked. */
function refuseOddInput({ reason = "", heldKeyId }: NormalRotationStart): void {
  refuseLongWords("--reason", reason);
  if (heldKeyId !== undefined) refuseOddKeyId("--held-key", heldKeyId);
}

/** Fails with `InvalidInput` where the words are more than a workflow takes. */
export function refuseLongWords(option: string, words: string): void {
  if (words.length > 500)
    throw new RotationFailure("InvalidInput", `${option} is longer than 500 characters: shorten it`);
}

/** Fails with `InvalidInput` where what should be the id of a key cannot be one, or looks like its value. */
export function refuseOddKeyId(option: string, keyId: string): void {
  if (/^(?:sk-|AIza|AQ\.)/.test(keyId) || containsKey(keyId)) {
    throw new RotationFailure(
      "InvalidInput",
      `${option} looks like a key's value: give its id, and rotate that key, since it now stands in your shell's history`,
    );
  }
  if (!/^[\w.:/-]{1,200}$/.test(keyId)) {
    throw new RotationFailure(
      "InvalidInput",
      `${option} is not the id of a key: give the id the provider lists it under, never its value`,
    );
  }
}

/** Starts a rotation under the slot's own workflow id. Fails with `SlotBusy` where one is running. */
export async function startRotation(
  temporal: Temporal,
  { name, slot }: InventorySlot,
  kind: RotationKind,
  start: NormalRotationStart | EmergencyRotationStart,
) {
  const workflowId = slotWorkflowId(name);
  const launch = async (withAttributes: boolean) =>
    temporal.client.workflow.start(`${kind}Rotation`, {
      taskQueue,
      workflowId,
      args: [start],
      workflowIdConflictPolicy: "FAIL",
      workflowIdReusePolicy: "ALLOW_DUPLICATE",
      staticSummary: `${kind === "emergency" ? "emergency " : ""}rotation of ${name}`,
      staticDetails: start.reason ?? `started by keyturn ${kind === "emergency" ? "emergency" : "rotate"}`,
      ...(withAttributes
        ? {
            typedSearchAttributes: [
              { key: searchAttributes.slot, value: name },
              { key: searchAttributes.provider, value: slot.provider },
              { key: searchAttributes.kind, value: kind },
            ],
          }
        : {}),
    });
  try {
    // A server no worker ever ran on does not know our search attributes; the worker adds them, and the run sets them.
    return await launch(true).catch((error: unknown) => {
      if (!isUnknownAttribute(error)) throw error;
      return launch(false);
    });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    const runId = await runningRun(temporal, workflowId);
    throw new RotationFailure(
      "SlotBusy",
      `a rotation of ${name} is running: workflow ${workflowId}, run ${runId}; look at it with keyturn status ${name}`,
    );
  }
}

async function runningRun({ client }: Temporal, workflowId: string): Promise<string> {
  try {
    return (await client.workflow.getHandle(workflowId).describe()).runId;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return "just ended";
    throw error;
  }
}

function isUnknownAttribute(error: unknown): boolean {
  const said = (value: unknown): string => (value instanceof Error ? `${value.message} ${said(value.cause)}` : "");
  return /search attribute/i.test(said(error));
}

/** `--detach`: returns at once; exit code 3 where it already waits for a person. */
export async function leaveItRunning(
  { client }: Temporal,
  handle: WorkflowHandle,
  run: { slot: string; workflowId: string; runId: string },
  output: Output,
): Promise<number> {
  const progress = await client.connection
    .withDeadline(Date.now() + 2_000, () => handle.query(progressQuery))
    .catch(() => undefined);
  const waiting = progress?.waiting ?? null;
  output.result({ ...run, waiting }, `look at it with: keyturn status ${run.slot}`);
  return needsPerson(waiting) ? exitCodes.waitingForPerson : exitCodes.done;
}
