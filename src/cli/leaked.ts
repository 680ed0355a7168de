/** `keyturn emergency --leaked-key-file …` without a slot: the value is all that is known. */
import { WorkflowNotFoundError } from "@temporalio/client";

import { type LeakedResult, leakedWorkflowId, taskQueue } from "../domain/rotation.ts";
import { type Environment, type Inventory, type InventorySlot, slotOf } from "../config.ts";
import type { Redacted } from "../redacted.ts";
import { createSealer } from "../sealing.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import type { EmergencyStart } from "../workflows/messages.ts";
import { confirm } from "./confirm.ts";
import { describeLeaked } from "./describe-result.ts";
import { describeFailure, exitCodeOf, exitCodeOfResult, exitCodes } from "./failures.ts";
import { type Output, printFailure } from "./output.ts";
import { nobodyWorks } from "./watch.ts";
import { leakedOf, type Look } from "./which-key.ts";
import type { LeakedFound } from "../activities/contract.ts";

export interface OfValue {
  value: Redacted;
  start: Pick<EmergencyStart, "strategy" | "since" | "reason">;
  flags: { yes?: true; detach?: true };
  output: Output;
  env: Environment;
  inventory: Inventory;
}

/** Looks the value up from here, says what will happen, starts it, and waits for every slot's end. */
export async function emergencyOfValue({ value, start, flags, output, env, inventory }: OfValue): Promise<number> {
  return withTemporal(env, async (temporal) => {
    const look = await leakedOf({ env, inventory, temporal, leaked: value });
    for (const line of whatIsKnown(look, { inventory, start })) output.say(line);
    output.say(`  inventory ${inventory.path}; Temporal ${temporal.address}, namespace ${temporal.namespace}`);
    const workflowId = leakedWorkflowId(value.fingerprint());
    const running = await runningOf(temporal, workflowId);
    if (running !== undefined) {
      output.say(
        output.paint.red(
          `an emergency of this value is on (run ${running}): nothing more is started, and what was chosen for that one counts, not what was typed now. The yes only joins it.`,
        ),
      );
    }
    await confirm(flags);
    const leaked = await createSealer(inventory.sealing).seal(value, { purpose: "leaked" });
    const handle = await temporal.client.workflow.start("emergencyRotation", {
      taskQueue,
      workflowId,
      args: [{ leaked, ...start }],
      // Told twice, it is the same emergency.
      workflowIdConflictPolicy: "USE_EXISTING",
      workflowIdReusePolicy: "ALLOW_DUPLICATE",
      staticSummary: "emergency of a leaked value",
      staticDetails: start.reason ?? "started by keyturn emergency --leaked-key-file",
    });
    output.say(
      running === undefined
        ? `emergency started (workflow ${workflowId}, run ${handle.firstExecutionRunId})`
        : `it goes on as it was started (workflow ${workflowId}, run ${handle.firstExecutionRunId})`,
    );
    const idle = await nobodyWorks(temporal);
    if (idle !== undefined) output.say(output.paint.red(idle));
    if (flags.detach === true) {
      output.result({ workflowId, runId: handle.firstExecutionRunId }, "look at its slots with: keyturn status");
      return exitCodes.done;
    }
    const ended = await untilInterrupted(handle.result());
    if (ended === "left") {
      output.say("\nthe emergency goes on; look again with: keyturn status");
      return exitCodes.interrupted;
    }
    if ("error" in ended) {
      const failure = describeFailure(ended.error);
      printFailure(failure, output.json);
      return exitCodeOf(failure.type);
    }
    output.result(ended.result, describeLeaked(ended.result));
    return exitCodeOfLeaked(ended.result);
  });
}

/** The open run of the workflow. */
async function runningOf({ client }: Temporal, workflowId: string): Promise<string | undefined> {
  try {
    const { runId, status } = await client.workflow.getHandle(workflowId).describe();
    return status.name === "RUNNING" ? runId : undefined;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    throw error;
  }
}

/** Which keys have the value, and what is done to each slot that holds one. */
export function whatIsKnown(
  look: Look<LeakedFound>,
  { inventory, start: { strategy } }: { inventory: Inventory; start: Pick<EmergencyStart, "strategy"> },
): string[] {
  if (look.kind === "unseen") {
    return [
      `which key has the leaked value could not be looked up from here (${look.why}): the workers look it up over all slots.`,
      "Each slot that holds it gets an emergency by its own policy; a key that no slot holds is cut at once; where nobody knows the value nothing is ended.",
    ];
  }
  const { matches, unknown } = look.seen;
  return [
    ...matches.map(({ keyId, how, slots, held, heldUnknown = [] }) => {
      const by = {
        id: "id",
        fingerprint: "the fingerprint in a mark",
        "masked value": "its masked value, which fits alone",
        value: "its provider's own look-up",
      }[how];
      const what = held
        ? `held by ${slots.join(", ")}: an emergency in ${slots.length === 1 ? "it" : "each"}`
        : heldUnknown.length > 0
          ? `a key of the project of ${slots.join(", ")}, and whether ${heldUnknown.join(", ")} holds it cannot be told: an emergency there looks again, moves what holds it to a new key, and cuts it by its deadline`
          : `held by no slot (a key of the project of ${slots.join(", ")}): it is cut AT ONCE, and NO NEW KEY is made`;
      return `the leaked value is that of ${keyId} (found by ${by}), ${what}.`;
    }),
    ...matches.flatMap(({ held, slots }) =>
      held ? slots.map((slot) => inSlot(slotOf(inventory, slot), strategy)) : [],
    ),
    ...unknown.map((one) => `unknown: ${one}`),
  ];
}

/** What an emergency does in a slot that holds the key, and when. */
function inSlot({ name, account, gateway, policy }: InventorySlot, chosen: EmergencyStart["strategy"]): string {
  const { strategy, installWithin, revokeWithin, atDeadline } = policy.emergency;
  const what =
    (chosen ?? strategy) === "cut-first"
      ? `CUT FIRST: the key is ended at once, and REQUESTS FAIL until a new one is in (within ${installWithin} if all goes well)`
      : `SWAP FIRST: a new key within ${installWithin}, then the cut, within ${revokeWithin}${atDeadline === "revoke" ? " whatever the state of the new key" : ", and not without a new key (policy: atDeadline hold)"}`;
  return `  ${name} (account ${account}, gateway ${gateway}): ${what}`;
}

/** The worst of what its slots ended with. */
export function exitCodeOfLeaked({ results, failed }: Pick<LeakedResult, "results" | "failed">): number {
  const codes = [...results.map(exitCodeOfResult), ...failed.map(({ type }) => exitCodeOf(type))];
  return codes.includes(exitCodes.failed) ? exitCodes.failed : Math.max(exitCodes.done, ...codes);
}

type Ended = { result: LeakedResult } | { error: unknown } | "left";

async function untilInterrupted(result: Promise<unknown>): Promise<Ended> {
  let leave = (): void => undefined;
  const left = new Promise<"left">((resolve) => (leave = () => resolve("left")));
  process.once("SIGINT", leave).once("SIGTERM", leave);
  try {
    const ended = result.then(
      (value): Ended => ({ result: value as LeakedResult }),
      (error: unknown): Ended => ({ error }),
    );
    return await Promise.race([ended, left]);
  } finally {
    process.off("SIGINT", leave).off("SIGTERM", leave);
  }
}
