import { WorkflowExecutionAlreadyStartedError } from "@temporalio/common";
import {
  ApplicationFailure,
  CancellationScope,
  ChildWorkflowFailure,
  ParentClosePolicy,
  setHandler,
  startChild,
  workflowInfo,
} from "@temporalio/workflow";

import { type Progress, type RotationResult, slotWorkflowId } from "../domain/rotation.ts";
import { parseSlot, slotName } from "../domain/slot.ts";
import { management } from "./groups.ts";
import {
  type AbortRequest,
  type Approval,
  abortSignal,
  approveSignal,
  approveUpdate,
  followedProgressSignal,
  progressQuery,
} from "./messages.ts";
import { failureMessage } from "./rotation.ts";

/**
 * Lets one rotation of a slot run at a time, however it was started: the work runs only under the slot's own workflow
 * id. A start under any other id becomes a thin follower of it: it starts that run, passes on what it is told, and ends
 * as it does. Fails with `SlotBusy` when the slot's id is taken.
 */
export async function oneRunPerSlot<Start extends { slot: string }>(
  workflowType: string,
  start: Start,
  work: (start: Start) => Promise<RotationResult>,
): Promise<RotationResult> {
  const slot = parseSlot(start.slot);
  const named = { ...start, slot: slot === undefined ? start.slot : slotName(slot) };
  const workflowId = slotWorkflowId(named.slot);
  return workflowInfo().workflowId === workflowId ? work(named) : follow(workflowType, workflowId, named);
}

async function follow(workflowType: string, workflowId: string, start: { slot: string }): Promise<RotationResult> {
  let told: Progress | undefined;
  setHandler(followedProgressSignal, (progress) => {
    told = progress;
  });
  const child = await startOnlyRun(workflowType, workflowId, start);
  const runId = child.firstExecutionRunId;

  setHandler(progressQuery, () => {
    if (told === undefined) throw new Error(`${workflowId} has told nothing yet: ask again, or ask it`);
    return { ...told, follows: { workflowId, runId } };
  });
  setHandler(abortSignal, (request: AbortRequest | undefined) => child.signal(abortSignal, request));
  setHandler(approveSignal, (approval: Approval | undefined) => child.signal(approveSignal, approval));
  setHandler(approveUpdate, (approval: Approval | undefined) =>
    management.updateRun({ workflowId, runId, update: approveUpdate.name, arg: approval ?? {} }),
  );

  try {
    return (await child.result()) as RotationResult;
  } catch (error) {
    const cause = error instanceof ChildWorkflowFailure ? error.cause : undefined;
    throw cause instanceof ApplicationFailure ? sameFailure(cause) : error;
  }
}

async function startOnlyRun(workflowType: string, workflowId: string, start: { slot: string }) {
  try {
    return await startChild(workflowType, {
      workflowId,
      args: [start],
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: `rotation of ${start.slot}`,
    });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    throw await CancellationScope.nonCancellable(() => busy(workflowId, start.slot));
  }
}

async function busy(workflowId: string, slot: string): Promise<ApplicationFailure> {
  const running = await management
    .findRun({ workflowId })
    .catch((error: unknown) => ({ workflowId, runId: `unknown: ${failureMessage(error)}` }));
  return ApplicationFailure.create({
    message: `a rotation of ${slot} is running: workflow ${workflowId}, run ${running.runId}`,
    type: "SlotBusy",
    nonRetryable: true,
    details: [running],
  });
}

function sameFailure(cause: ApplicationFailure): ApplicationFailure {
  return ApplicationFailure.create({
    message: cause.message,
    ...(cause.type == null ? {} : { type: cause.type }),
    nonRetryable: true,
    details: cause.details ?? [],
  });
}
