import { WorkflowExecutionAlreadyStartedError } from "@temporalio/common";
import { ApplicationFailure, isCancellation, ParentClosePolicy, startChild } from "@temporalio/workflow";

import { defined } from "../domain/defined.ts";
import { type LeakedResult, type RotationResult, slotWorkflowId } from "../domain/rotation.ts";
import { management } from "./groups.ts";
import type { EmergencyStart } from "./messages.ts";
import { failureMessage, failureType, ownFailure } from "./rotation/failures.ts";

/**
 * An emergency that is known by a leaked value alone: the key is looked up over all slots, and an emergency is started in
 * each that holds it, or the run that is on there is told. Fails with `KeyUnknown`, and nothing ended, where no key has
 * the value.
 */
export async function everySlotOfLeak({ leaked = "", strategy, since, reason }: EmergencyStart): Promise<LeakedResult> {
  const { matches, unknown } = await management.findLeaked({ leaked }).catch((error: unknown) => {
    throw isCancellation(error) ? error : ownFailure(error);
  });
  if (matches.length === 0) {
    const looked = unknown.length === 0 ? "" : ` (not looked at: ${unknown.join("; ")})`;
    throw ApplicationFailure.nonRetryable(
      `no key has the leaked value, in any slot or project of the inventory: nothing was ended; it may be dead already${looked}`,
      "KeyUnknown",
    );
  }
  const result: LeakedResult = {
    keyIds: [...new Set(matches.map(({ keyId }) => keyId))],
    results: [],
    failed: [],
    unknown,
  };
  const emergencies = [...new Set(matches.flatMap(({ slots }) => slots))].map(async (slot) => {
    const keyIds = matches.filter(({ slots }) => slots.includes(slot)).map(({ keyId }) => keyId);
    try {
      result.results.push(await emergencyOf(slot, keyIds, { ...defined({ strategy, since, reason }) }));
    } catch (error) {
      result.failed.push({ slot, type: failureType(error) ?? "Unexpected", message: failureMessage(error) });
    }
  });
  await Promise.all(emergencies);
  const [first, ...more] = result.failed;
  if (first === undefined) return result;
  throw ApplicationFailure.create({
    type: first.type,
    message: [first, ...more].map(({ slot, message }) => `${slot}: ${message}`).join("; "),
    nonRetryable: true,
    details: [result],
  });
}

/** Starts the emergency of one slot and waits for its end; where a run is on there, it is told, and goes on by itself. */
async function emergencyOf(
  slot: string,
  compromisedKeyIds: string[],
  how: Pick<EmergencyStart, "strategy" | "since" | "reason">,
): Promise<RotationResult> {
  const workflowId = slotWorkflowId(slot);
  try {
    const child = await startChild("emergencyRotation", {
      workflowId,
      args: [{ slot, compromisedKeyIds, ...how }],
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: `emergency rotation of ${slot}`,
    });
    return (await child.result()) as RotationResult;
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    // A start under another id joins the run that is on: it tells it, and says so.
    const joined = await startChild("emergencyRotation", {
      args: [{ slot, compromisedKeyIds, ...how }],
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: `says that a key of ${slot} is compromised`,
    });
    return (await joined.result()) as RotationResult;
  }
}
