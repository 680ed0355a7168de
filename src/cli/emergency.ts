/** `keyturn emergency <slot>`: gets a compromised key out of a slot by the clock, and reports what it was used for. */
import { isGrpcServiceError, WorkflowUpdateRPCTimeoutOrCancelledError } from "@temporalio/client";
import { Command, Option } from "commander";

import { type InventorySlot, loadInventory, readEnvironment } from "../config.ts";
import { inMs, isDuration } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import { type Progress, type RotationResult, slotWorkflowId, taskQueue } from "../domain/rotation.ts";
import type { ProviderName } from "../domain/slot.ts";
import { createSealer } from "../sealing.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import { type EmergencyRotationStart, escalateUpdate, progressQuery } from "../workflows/messages.ts";
import { confirm, requireTerminal } from "./confirm.ts";
import { describeFailure, exitCodes } from "./failures.ts";
import { createOutput, type Output } from "./output.ts";
import { follow, leaveItRunning, refuseLongWords, refuseOddKeyId, startRotation } from "./rotate.ts";
import { runningRotation } from "./running-rotation.ts";
import { readSecret } from "./secret-input.ts";
import { readSlot } from "./slot-argument.ts";
import { nobodyWorks } from "./watch.ts";
import { whoTypes } from "./who.ts";

interface Flags {
  strategy?: "swap-first" | "cut-first";
  key?: string;
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
    .argument("<slot>", "environment/provider[:alias], or provider[:alias] (see --env)")
    .addOption(
      new Option("--strategy <which>", "swap-first: no request fails; cut-first: the key is dead at once").choices([
        "swap-first",
        "cut-first",
      ]),
    )
    .option("--key <id>", "the id of the compromised key (default: the one the slot holds)")
    .option("--held-key <id>", "the id of the key the slot holds now, where keyturn cannot tell")
    .option("--leaked-key-file <file>", "find the key by its leaked value, in this file (- is standard input)")
    .option("--since <when>", "since when it may be known to others: RFC 3339, or a length of time such as 48h")
    .option("--why <words>", "what happened, for the record")
    .option("--yes", "do not ask; for scripts")
    .option("--detach", "start it and return at once")
    .option("--env <environment>", "environment of a slot given without one (default: NODE_ENV, then the inventory's)")
    .option("--json", "print the result as one JSON document")
    .action(emergency);
}

async function emergency(text: string, flags: Flags): Promise<void> {
  const output = createOutput(flags);
  const env = readEnvironment();
  const inventory = loadInventory(env);
  const slot = readSlot(text, { inventory, env, chosen: flags.env });
  const start = readStart(slot, flags);
  if (flags.yes !== true) requireTerminal();
  if (flags.leakedKeyFile !== undefined) {
    const value = await readSecret({ file: flags.leakedKeyFile, what: "the leaked key" });
    start.leaked = await createSealer(inventory.sealing).seal(value, { slot: slot.name, purpose: "leaked" });
  }
  process.exitCode = await withTemporal(env, async (temporal) => {
    const running = await whatRuns(temporal, slot.name);
    if (running !== undefined) return join(temporal, { slot, start, flags, output, running });
    for (const line of whatWillHappen(slot, start)) output.say(line);
    await confirm(flags);
    try {
      const handle = await startRotation(temporal, slot, "emergency", start);
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
      return join(temporal, { slot, start, flags, output, running: begun });
    }
  });
}

/** What was typed, as the workflow takes it. Fails with `InvalidInput`. */
function readStart(slot: InventorySlot, { strategy, key, heldKey, since, why = "", yes, leakedKeyFile }: Flags) {
  refuseLongWords("--why", why);
  if (key !== undefined) refuseOddKeyId("--key", key);
  if (heldKey !== undefined) refuseOddKeyId("--held-key", heldKey);
  if (leakedKeyFile === "-" && yes !== true) {
    throw new RotationFailure(
      "InvalidInput",
      "with --leaked-key-file - standard input is taken, and nothing can be asked: give --yes, or a file",
    );
  }
  const start: EmergencyRotationStart = {
    slot: slot.name,
    strategy: strategy ?? slot.policy.emergency.strategy,
    ...(key === undefined ? {} : { compromisedKeyId: key }),
    ...(heldKey === undefined ? {} : { heldKeyId: heldKey }),
    ...(since === undefined ? {} : { since: readSince(since) }),
    ...(why === "" ? {} : { reason: why }),
  };
  return start;
}

function readSince(text: string): string {
  const at = isDuration(text)
    ? Date.now() - inMs(text)
    : /^\d{4}-\d\d-\d\dT.*(?:Z|[+-]\d\d:\d\d)$/.test(text)
      ? Date.parse(text)
      : NaN;
  if (Number.isNaN(at)) {
    throw new RotationFailure(
      "InvalidInput",
      `--since ${text}: give a time such as 2026-11-23T02:40:00Z, or a length of time such as 48h`,
    );
  }
  if (at > Date.now()) throw new RotationFailure("InvalidInput", `--since ${text} is in the future`);
  return new Date(at).toISOString();
}

/** How a key is cut at each provider, and who makes the new one: docs/providers.md. */
const providerWords: Record<ProviderName, { cut: string; made: string }> = {
  openai: { cut: "revoked, which cannot be undone", made: "a new key is made" },
  gemini: { cut: "deleted, which can be undone for 30 days", made: "a new key is made" },
  anthropic: {
    cut: "switched off, then archived",
    made: "YOU MAKE a new key (no API does): keyturn status says where, keyturn submit-key hands it in; then it is proven",
  },
};

/** What is cut when, whether requests may fail, and the clocks, before anything is done. */
export function whatWillHappen(
  { name, slot, policy: { emergency: policy, cacheInvalidationWait } }: InventorySlot,
  { strategy, compromisedKeyId, leaked, since }: EmergencyRotationStart,
): string[] {
  const key =
    compromisedKeyId ?? (leaked === undefined ? `the key that ${name} holds` : "the key with the leaked value");
  const { cut, made } = providerWords[slot.provider];
  const evidence = `Then what the key was used for since ${since ?? "a day ago"} is gathered; use that the gateway did not send is reported.`;
  const others = "Another slot that holds the same key is moved off it too.";
  if (strategy === "cut-first") {
    return [
      `${name}: CUT FIRST. ${key} is ${cut}, at once.`,
      `REQUESTS FAIL from then until a new key is in: ${made}, and put in, within ${policy.installWithin} if all goes well.`,
      others,
      evidence,
    ];
  }
  return [
    `${name}: SWAP FIRST. ${made} and put in, within ${policy.installWithin}.`,
    `Then ${key} is ${cut}: as soon as the caches have dropped it, within ${policy.revokeWithin} from now. Until then whoever has it can use it.`,
    policy.atDeadline === "revoke"
      ? `At ${policy.revokeWithin} it is cut whatever the state of the new key; without a new one, requests fail from then on.`
      : `Without a new key it is not cut, even past ${policy.revokeWithin} (policy: atDeadline hold).`,
    `No request fails, unless something goes on using the old key for longer than the cache wait of ${cacheInvalidationWait}.`,
    "No wait for the old key to be idle, no soak, no approval.",
    others,
    evidence,
  ];
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

interface Joining {
  slot: InventorySlot;
  start: EmergencyRotationStart;
  flags: Flags;
  output: Output;
  running: Progress;
}

/** A rotation of the slot is running: it is told which key is compromised, and is watched to its end. */
async function join(temporal: Temporal, { slot, start, flags, output, running }: Joining): Promise<number> {
  const { oldKey, newKey, phase, kind } = running;
  output.say(`${slot.name}: ${kind === "emergency" ? "an emergency" : "a rotation"} is running, at ${phase}`);
  if (flags.strategy === "cut-first") {
    output.say(
      `CUT FIRST IS NOT DONE: what runs is told, and hurries. To cut at once: keyturn abort ${slot.name}, then the same command again.`,
    );
  }
  if (start.leaked !== undefined && start.compromisedKeyId === undefined) {
    return joinByValue(temporal, { slot, start, flags, output, running });
  }
  const compromisedKeyId = whichKey(slot.name, start, running);
  for (const line of whatJoiningDoes(compromisedKeyId, running)) output.say(line);
  await confirm(flags);
  // Without a run id: a rotation that hands over to an emergency goes on under the same workflow id.
  const handle = temporal.client.workflow.getHandle(slotWorkflowId(slot.name));
  const { runId } = await handle.describe();
  const escalation = {
    compromisedKeyId,
    by: whoTypes(),
    ...(start.reason === undefined ? {} : { why: start.reason }),
    ...(start.since === undefined ? {} : { since: start.since }),
  };
  let said: string;
  try {
    said = await temporal.client.connection.withDeadline(Date.now() + answerWithinMs, () =>
      handle.executeUpdate(escalateUpdate, { args: [escalation] }),
    );
  } catch (error) {
    if (!isTimeout(error)) throw error;
    said = `no answer yet to the word that ${compromisedKeyId} is compromised (${describeFailure(error).message}); look whether it shows below`;
  }
  output.say(`${slot.name}: ${said}`);
  if (flags.detach === true) {
    output.result(
      { slot: slot.name, workflowId: handle.workflowId, runId, joined: true, said, oldKey, newKey },
      `look at it with: keyturn status ${slot.name}`,
    );
    return exitCodes.done;
  }
  return follow(temporal, handle, slot.name, output);
}

/**
 * Only the leaked value is known, and only workers can open it: they find the key and tell the rotation that runs. Which
 * of its keys it is decides what that does.
 */
async function joinByValue(temporal: Temporal, { slot, start, flags, output }: Joining): Promise<number> {
  output.say("The workers find the key with the leaked value and tell that rotation: its old key makes it hurry,");
  output.say("its new key ends it (an emergency follows where that is in the slot), any other key is cut at once.");
  await confirm(flags);
  const workflowId = `${slotWorkflowId(slot.name)}/leaked-${Date.now()}`;
  const told = await temporal.client.workflow.start("emergencyRotation", { taskQueue, workflowId, args: [start] });
  output.say(`${slot.name}: ${((await told.result()) as RotationResult).reason}`);
  const handle = temporal.client.workflow.getHandle(slotWorkflowId(slot.name));
  if (flags.detach === true) {
    const { runId } = await handle.describe();
    return leaveItRunning(temporal, handle, { slot: slot.name, workflowId: handle.workflowId, runId }, output);
  }
  return follow(temporal, handle, slot.name, output);
}

/** The key that is compromised: as typed, else the one that is being replaced. Fails with `InvalidInput` where that would be a guess. */
function whichKey(name: string, { compromisedKeyId }: EmergencyRotationStart, running: Progress): string {
  if (compromisedKeyId !== undefined) return compromisedKeyId;
  if (running.oldKey !== null) return running.oldKey.id;
  throw new RotationFailure(
    "InvalidInput",
    `a rotation of ${name} is running and its keys are not known yet: say with --key which key is compromised, or wait a moment`,
  );
}

function whatJoiningDoes(keyId: string, { kind, oldKey, newKey, times }: Progress): string[] {
  if (keyId === oldKey?.id) {
    return kind === "emergency"
      ? [`${keyId} is the key it is about already; it is watched from here.`]
      : [
          `${keyId} is its old key: it hurries, without waiting for idleness, approval or soak, and cuts it by the emergency's clocks.`,
        ];
  }
  if (oldKey === null)
    return [`It still looks which key the slot holds: if that is ${keyId} it hurries, else ${keyId} is cut at once.`];
  if (keyId !== newKey?.id)
    return [`${keyId} is neither its old nor its new key: it is cut at once, the rotation goes on.`];
  return times.installed === undefined
    ? [
        `${keyId} is its new key, not installed yet: it is revoked, and the rotation ends as aborted, the old key serving.`,
      ]
    : [
        `${keyId} is its new key and in the slot: the rotation ends, and an emergency of ${keyId} follows that cuts both keys.`,
      ];
}

function isTimeout(error: unknown): boolean {
  return error instanceof WorkflowUpdateRPCTimeoutOrCancelledError || (isGrpcServiceError(error) && error.code === 4);
}
