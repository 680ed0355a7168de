/** `keyturn emergency [slot]`: gets compromised keys out by the clock, and reports what they were used for. */
import { isGrpcServiceError, WorkflowUpdateRPCTimeoutOrCancelledError } from "@temporalio/client";
import { Command, Option } from "commander";

import type { EmergencyPlan } from "../activities/contract.ts";
import { type Environment, type Inventory, type InventorySlot, loadInventory, readEnvironment } from "../config.ts";
import { defined } from "../domain/defined.ts";
import { inMs, isDuration } from "../domain/duration.ts";
import type { EscalationAnswer } from "../domain/escalation.ts";
import { RotationFailure } from "../domain/failure.ts";
import { type Progress, slotWorkflowId } from "../domain/rotation.ts";
import type { Redacted } from "../redacted.ts";
import { createSealer } from "../sealing.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import { type EmergencyRotationStart, escalateUpdate, progressQuery } from "../workflows/messages.ts";
import { confirm, requireTerminal } from "./confirm.ts";
import { describeKey } from "./describe-keys.ts";
import { commandsFor, describePlan, describeUnseen, whatJoiningDoes } from "./describe-plan.ts";
import { type Candidate, describeFailure, exitCodes } from "./failures.ts";
import { emergencyOfValue } from "./leaked.ts";
import { createOutput, type Output } from "./output.ts";
import { follow, leaveItRunning, refuseLongWords, refuseOddKeyId, startRotation } from "./rotate.ts";
import { formerRun, runningRotation } from "./running-rotation.ts";
import { readSecret } from "./secret-input.ts";
import { readSlot } from "./slot-argument.ts";
import { nobodyWorks } from "./watch.ts";
import { type Look, planOf } from "./which-key.ts";
import { whoTypes } from "./who.ts";

interface Flags {
  strategy?: "swap-first" | "cut-first";
  key?: string[];
  heldKey?: string;
  leakedKeyFile?: string;
  since?: string;
  why?: string;
  yes?: true;
  detach?: true;
  env?: string;
  json?: true;
}

const answerWithinMs = 60_000;

export function emergencyCommand(): Command {
  return new Command("emergency")
    .description("replace and cut a compromised key by the clock, and report what it was used for")
    .argument(
      "[slot]",
      "environment/provider[:alias], or provider[:alias] (see --env); not needed with --leaked-key-file",
    )
    .addOption(
      new Option("--strategy <which>", "swap-first: no request fails; cut-first: the key is dead at once").choices([
        "swap-first",
        "cut-first",
      ]),
    )
    .addOption(
      new Option(
        "--key <id>",
        "the id of a compromised key; may be repeated (default: the one the slot holds, where that is no guess)",
      ).argParser((id: string, ids: string[] | undefined) => [...(ids ?? []), id]),
    )
    .option("--held-key <id>", "the id of the key the slot holds now, where keyturn cannot tell")
    .option(
      "--leaked-key-file <file>",
      "find the key by its leaked value, in this file (- is standard input); without a slot over all of them",
    )
    .option("--since <when>", "since when it may be known to others: RFC 3339, or a length of time such as 48h")
    .option("--why <words>", "what happened, for the record")
    .option("--yes", "do not ask; for scripts. It does not choose between keys")
    .option("--detach", "start it and return at once")
    .option("--env <environment>", "environment of a slot given without one (default: NODE_ENV, then the inventory's)")
    .option("--json", "print the result as one JSON document")
    .action(emergency);
}

/** What was typed, and what it is asked of. */
interface Told {
  slot: InventorySlot;
  start: EmergencyRotationStart;
  flags: Flags;
  output: Output;
  env: Environment;
  inventory: Inventory;
  /** The leaked value, where one was given. */
  leaked?: Redacted;
}

async function emergency(text: string | undefined, flags: Flags): Promise<void> {
  const output = createOutput(flags);
  const env = readEnvironment();
  const inventory = loadInventory(env);
  refuseOddInput(flags);
  if (flags.yes !== true) requireTerminal();
  if (text === undefined) {
    const { leakedKeyFile: file } = flags;
    if (file === undefined || flags.key !== undefined || flags.heldKey !== undefined) {
      throw new RotationFailure(
        "InvalidInput",
        "without a slot the key is known by its value alone: give --leaked-key-file, and neither --key nor --held-key; else say which slot",
      );
    }
    if (flags.env !== undefined) {
      throw new RotationFailure(
        "InvalidInput",
        `--env ${flags.env} narrows nothing here: the value is looked up over all slots of all environments; say which slot, or leave it out`,
      );
    }
    const { strategy, since, why } = flags;
    const value = await readSecret({ file, what: "the leaked key" });
    const start = {
      ...defined({ strategy, reason: why }),
      ...(since === undefined ? {} : { since: readSince(since) }),
    };
    process.exitCode = await emergencyOfValue({ value, start, flags, output, env, inventory });
    return;
  }
  const slot = readSlot(text, { inventory, env, chosen: flags.env });
  const told: Told = { slot, start: readStart(slot, flags), flags, output, env, inventory };
  if (flags.leakedKeyFile !== undefined) {
    const value = await readSecret({ file: flags.leakedKeyFile, what: "the leaked key" });
    told.leaked = value;
    told.start.leaked = await createSealer(inventory.sealing).seal(value, { slot: slot.name, purpose: "leaked" });
  }
  process.exitCode = await withTemporal(env, async (temporal) => {
    const running = await whatRuns(temporal, slot.name);
    if (running !== undefined) return join(temporal, told, running);
    const former = await formerRun(temporal, slot.name);
    const start = await whatIsMeant(temporal, told, former);
    await confirm(flags);
    try {
      const handle = await startRotation(temporal, slot, "emergency", { ...start, ...former });
      const run = { workflowId: handle.workflowId, runId: handle.firstExecutionRunId };
      output.say(`${slot.name}: emergency started (workflow ${run.workflowId}, run ${run.runId})`);
      const idle = await nobodyWorks(temporal);
      if (idle !== undefined) output.say(output.paint.red(idle));
      if (flags.detach === true) return await leaveItRunning(temporal, handle, { slot: slot.name, ...run }, output);
      return await follow(temporal, handle, slot.name, output);
    } catch (error) {
      if (!(error instanceof RotationFailure) || error.type !== "SlotBusy") throw error;
      // Somebody started a rotation while we asked.
      const begun = await whatRuns(temporal, slot.name);
      if (begun === undefined) throw error;
      return join(temporal, told, begun);
    }
  });
}

/**
 * Says which keys are meant and what will happen to them, and returns the start that does just that. Fails with
 * `KeyAmbiguous` where it would be a guess, and with `InvalidInput` where nobody could look and no id was given.
 */
async function whatIsMeant(
  temporal: Temporal,
  told: Told,
  former: { formerRunId?: string },
): Promise<EmergencyRotationStart> {
  const { slot, start, output } = told;
  const look = await lookAt(temporal, told, former);
  if (look.kind === "unseen") {
    const keyIds = start.compromisedKeyIds ?? [];
    if (keyIds.length === 0) {
      throw new RotationFailure(
        "InvalidInput",
        `which key is meant nobody could look up (${look.why}): name it with --key, and the emergency starts unseen`,
      );
    }
    for (const line of describeUnseen({ slot, start, temporal }, { keyIds, why: look.why })) {
      output.say(output.paint.red(line));
    }
    return start;
  }
  const { seen: plan, by } = look;
  refuseToGuess(told, plan.ambiguous);
  for (const line of describePlan({ slot, start, plan, temporal, by })) output.say(line);
  // Seen from here without an admin credential, a held key has another id than the workers know it by.
  const ids =
    by === "here" && plan.byHand !== undefined ? (start.compromisedKeyIds ?? []) : plan.keys.map(({ id }) => id);
  return ids.length === 0 ? start : { ...start, compromisedKeyIds: ids };
}

async function lookAt(
  temporal: Temporal,
  { slot, start, env, inventory, leaked }: Told,
  former: { formerRunId?: string } = {},
): Promise<Look<EmergencyPlan>> {
  const { compromisedKeyIds: keyIds, leaked: sealed, since, heldKeyId } = start;
  const order = { slot: slot.name, ...defined({ keyIds, leaked: sealed, since, heldKeyId }), ...former };
  return planOf(order, { env, inventory, temporal, leaked });
}

/** Fails with `KeyAmbiguous`, after the candidates and the exact command for each. `--yes` does not answer it. */
function refuseToGuess({ slot, flags, output }: Told, ambiguous: EmergencyPlan["ambiguous"]): void {
  if (ambiguous === undefined) return;
  const { why, candidates } = ambiguous;
  for (const line of commandsFor(commandOf(slot.name, flags), candidates)) output.say(line);
  throw new RotationFailure(
    "KeyAmbiguous",
    `${slot.name}: ${why}. Which key is compromised is not guessed: say so with --key, once for each. Nothing was started.`,
    { details: [{ candidates }] },
  );
}

/** What was typed, without the keys. */
function commandOf(slot: string, { strategy, heldKey, since, why }: Flags): string {
  const quoted = why === undefined ? undefined : `'${why.replaceAll("'", String.raw`'\''`)}'`;
  const options = Object.entries({ strategy, "held-key": heldKey, since, why: quoted });
  const typed = options.flatMap(([name, value]) => (value === undefined ? [] : [` --${name} ${value}`]));
  return `keyturn emergency ${slot}${typed.join("")}`;
}

/** Refused before Temporal is asked. Fails with `InvalidInput`. */
function refuseOddInput({ key = [], heldKey, why = "", yes, leakedKeyFile }: Flags): void {
  refuseLongWords("--why", why);
  for (const id of key) refuseOddKeyId("--key", id);
  if (heldKey !== undefined) refuseOddKeyId("--held-key", heldKey);
  if (leakedKeyFile === "-" && yes !== true) {
    throw new RotationFailure(
      "InvalidInput",
      "with --leaked-key-file - standard input is taken, and nothing can be asked: give --yes, or a file",
    );
  }
}

/** What was typed, as the workflow takes it. Fails with `InvalidInput`. */
function readStart(slot: InventorySlot, { strategy, key, heldKey, since, why = "" }: Flags): EmergencyRotationStart {
  return {
    slot: slot.name,
    strategy: strategy ?? slot.policy.emergency.strategy,
    ...(key === undefined ? {} : { compromisedKeyIds: [...new Set(key)] }),
    ...(heldKey === undefined ? {} : { heldKeyId: heldKey }),
    ...(since === undefined ? {} : { since: readSince(since) }),
    ...(why === "" ? {} : { reason: why }),
  };
}

function readSince(text: string): string {
  const at = isDuration(text)
    ? Date.now() - inMs(text)
    : /^\d{4}-\d\d-\d\dT.*(?:Z|[+-]\d\d:\d\d)$/.test(text)
      ? Date.parse(text)
      : NaN;
  // Before there were providers nothing leaked; so long ago a number is mistyped.
  if (Number.isNaN(at) || at < Date.UTC(2015)) {
    throw new RotationFailure(
      "InvalidInput",
      `--since ${text}: give a time such as 2026-11-23T02:40:00Z, or a length of time such as 48h`,
    );
  }
  if (at > Date.now()) throw new RotationFailure("InvalidInput", `--since ${text} is in the future`);
  return new Date(at).toISOString();
}

async function whatRuns(temporal: Temporal, slot: string): Promise<Progress | undefined> {
  const handle = await runningRotation(temporal, slot).catch((error: unknown) => {
    if (error instanceof RotationFailure && error.type === "InvalidInput") return undefined;
    throw error;
  });
  if (handle === undefined) return undefined;
  const idle = await nobodyWorks(temporal);
  if (idle !== undefined) throw new RotationFailure("Unavailable", `a rotation of ${slot} is open, and ${idle}`);
  return temporal.client.connection.withDeadline(Date.now() + 15_000, () => handle.query(progressQuery));
}

/** A rotation of the slot is running: it is told which keys are compromised, and is watched to its end. */
async function join(temporal: Temporal, told: Told, running: Progress): Promise<number> {
  const { slot, start, flags, output } = told;
  const { oldKey, newKey, phase, kind } = running;
  output.say(`${slot.name}: ${kind === "emergency" ? "an emergency" : "a rotation"} is running, at ${phase}`);
  output.say(
    `account ${slot.account}, gateway ${slot.gateway}; Temporal ${temporal.address}, namespace ${temporal.namespace}`,
  );
  if (flags.strategy === "cut-first") {
    output.say(
      `CUT FIRST IS NOT DONE: what runs is told, and hurries. To cut at once: keyturn abort ${slot.name}, then the same command again.`,
    );
  }
  const look = await lookAt(temporal, told);
  const plan = look.kind === "seen" ? look.seen : undefined;
  const keyIds = whichKeys(told, running, look);
  for (const id of keyIds) {
    const seen = [...(plan?.keys ?? []), ...(plan?.held === undefined ? [] : [plan.held])].find((key) => key.id === id);
    if (seen !== undefined) output.say(`${id}: ${describeKey(seen)}`);
    output.say(whatJoiningDoes(id, { slot, running, seen, byHand: plan?.byHand !== undefined }));
  }
  for (const warning of plan?.warnings ?? []) output.say(`WARNING: ${warning}`);
  await confirm(flags);
  // Without a run id: a rotation that hands over to an emergency goes on under the same workflow id.
  const handle = temporal.client.workflow.getHandle(slotWorkflowId(slot.name));
  const { runId } = await handle.describe();
  const answers: EscalationAnswer[] = [];
  for (const compromisedKeyId of keyIds) {
    const escalation = { compromisedKeyId, by: whoTypes(), ...defined({ why: start.reason, since: start.since }) };
    try {
      const answer = await temporal.client.connection.withDeadline(Date.now() + answerWithinMs, () =>
        handle.executeUpdate(escalateUpdate, { args: [escalation] }),
      );
      answers.push(answer);
      output.say(`${slot.name}: ${answer.says}`);
    } catch (error) {
      if (!isTimeout(error)) throw error;
      output.say(
        `${slot.name}: no answer yet to the word that ${compromisedKeyId} is compromised (${describeFailure(error).message}); look whether it shows below`,
      );
    }
  }
  if (flags.detach === true) {
    output.result(
      { slot: slot.name, workflowId: handle.workflowId, runId, joined: true, answers, oldKey, newKey },
      `look at it with: keyturn status ${slot.name}`,
    );
    return exitCodes.done;
  }
  return follow(temporal, handle, slot.name, output);
}

/**
 * The keys that are compromised: as typed, else the one that is being replaced while that is what the slot holds. Fails
 * with `KeyAmbiguous` where it would be a guess.
 */
function whichKeys(told: Told, running: Progress, look: Look<EmergencyPlan>): string[] {
  const { slot, start } = told;
  const { oldKey, newKey, keys, times } = running;
  const plan = look.kind === "seen" ? look.seen : undefined;
  if (start.compromisedKeyIds !== undefined && start.leaked === undefined) return start.compromisedKeyIds;
  if (start.leaked !== undefined) {
    if (plan !== undefined) return plan.keys.map(({ id }) => id);
    throw new RotationFailure(
      "InvalidInput",
      `a rotation of ${slot.name} is running, and which key has the leaked value nobody could look up (${look.kind === "unseen" ? look.why : ""}): name it with --key`,
    );
  }
  const known = keys.filter(({ role, fate }) => role === "compromised" && fate !== "ended").map(({ id }) => id);
  if (known.length > 0) return known;
  if (times.installed !== undefined && oldKey !== null && newKey !== null) {
    const seen = [...(plan?.ambiguous?.candidates ?? []), ...(plan?.keys ?? [])];
    const candidates = [oldKey, newKey].map(({ id }): Candidate => seen.find((key) => key.id === id) ?? { id });
    const why = `its rotation has put ${newKey.id} in, and ${oldKey.id}, which it replaces, may be alive`;
    refuseToGuess(told, { why, candidates: candidates as NonNullable<EmergencyPlan["ambiguous"]>["candidates"] });
  }
  refuseToGuess(told, plan?.ambiguous);
  const [held] = plan?.keys ?? [];
  if (oldKey !== null) return [oldKey.id];
  if (held !== undefined) return [held.id];
  throw new RotationFailure(
    "InvalidInput",
    `a rotation of ${slot.name} is running and its keys are not known yet: say with --key which key is compromised, or wait a moment`,
  );
}

function isTimeout(error: unknown): boolean {
  return error instanceof WorkflowUpdateRPCTimeoutOrCancelledError || (isGrpcServiceError(error) && error.code === 4);
}
