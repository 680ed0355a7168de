import { WorkflowExecutionAlreadyStartedError } from "@temporalio/common";
import {
  ApplicationFailure,
  defineUpdate,
  ParentClosePolicy,
  setHandler,
  startChild,
  workflowInfo,
} from "@temporalio/workflow";

import type { RunningRotation } from "../activities/contract.ts";
import { type Progress, type RotationResult, slotWorkflowId } from "../domain/rotation.ts";
import { parseSlot, slotName } from "../domain/slot.ts";
import { management } from "./groups.ts";
import { causeOf, failureType, ownFailure } from "./rotation/failures.ts";
import {
  abortSignal,
  approveSignal,
  approveUpdate,
  escalateSignal,
  escalateUpdate,
  followedProgressSignal,
  progressQuery,
  submitKeySignal,
  submitKeyUpdate,
} from "./messages.ts";

/** How often a start is made whose slot's run is gone when it is to be told. */
const mostStarts = 3;

/** What every start carries. `formerRunId` is the slot's run before, where the starter knows it. */
export interface SlotStart {
  slot: string;
  formerRunId?: string | undefined;
}

/** What a start does that finds the slot's id taken, instead of failing. `SlotMissing` says that the run is gone. */
export type WhenBusy<Start> = (start: Start, running: RunningRotation) => Promise<RotationResult>;

/**
 * Lets one rotation of a slot run at a time, however it was started: the work runs only under the slot's own workflow
 * id. A start under any other id becomes a thin follower of it: it starts that run, passes on what it is told, and ends
 * as it does. Fails with `SlotBusy` when the slot's id is taken.
 */
export async function oneRunPerSlot<Start extends SlotStart>(
  workflowType: string,
  start: Start,
  work: (start: Start) => Promise<RotationResult>,
  whenBusy?: WhenBusy<Start>,
): Promise<RotationResult> {
  const slot = parseSlot(start.slot);
  const named = { ...start, slot: slot === undefined ? start.slot : slotName(slot) };
  const workflowId = slotWorkflowId(named.slot);
  return workflowInfo().workflowId === workflowId ? work(named) : follow(workflowType, workflowId, named, { whenBusy });
}

async function follow<Start extends SlotStart>(
  workflowType: string,
  workflowId: string,
  start: Start,
  { whenBusy, tries = 1 }: { whenBusy: WhenBusy<Start> | undefined; tries?: number },
): Promise<RotationResult> {
  let told: Progress | undefined;
  setHandler(followedProgressSignal, (progress) => {
    told = progress;
  });
  const formerRunId = start.formerRunId ?? (await formerRunOf(workflowId));
  const known = formerRunId === undefined ? start : { ...start, formerRunId };
  const child = await startOnlyRun(workflowType, workflowId, known);
  if (child === "taken") {
    const running = await management.findRun({ workflowId });
    if (whenBusy === undefined) throw busy(start.slot, running);
    try {
      return await whenBusy(start, running);
    } catch (error) {
      if (!isRunGone(error) || tries === mostStarts) throw likewise(error);
      // It ended before it was told: it is the run before, and nothing is in the way of a start any more.
      const { runId: formerRunId } = running;
      return follow(workflowType, workflowId, { ...start, formerRunId }, { whenBusy, tries: tries + 1 });
    }
  }
  const runId = child.firstExecutionRunId;

  setHandler(progressQuery, () => {
    if (told === undefined) throw new Error(`${workflowId} has told nothing yet: ask again, or ask it`);
    return { ...told, follows: { workflowId, runId } };
  });
  for (const signal of [abortSignal, approveSignal, submitKeySignal, escalateSignal]) {
    // A run that has just ended takes no signal any more: this start ends as it did.
    setHandler(signal, async (said: unknown) => child.signal(signal.name, said).catch(() => undefined));
  }
  for (const { name } of [approveUpdate, submitKeyUpdate, escalateUpdate]) {
    setHandler(defineUpdate<unknown, [unknown]>(name), (said) =>
      // Without a run id: after a hand-over another run goes on under the workflow id.
      management.updateRun({ workflowId, update: name, arg: said ?? {} }),
    );
  }

  try {
    return (await child.result()) as RotationResult;
  } catch (error) {
    throw likewise(error);
  }
}

/** The slot's last run, as far as the server's own record of the workflow id tells; undefined if there was none. */
async function formerRunOf(workflowId: string): Promise<string | undefined> {
  try {
    return (await management.findRun({ workflowId })).runId;
  } catch (error) {
    if (isRunGone(error)) return undefined;
    throw error;
  }
}

/** Whether a run was asked or told something that is not there, or no more. */
export function isRunGone(error: unknown): boolean {
  return failureType(error) === "SlotMissing";
}

async function startOnlyRun(workflowType: string, workflowId: string, start: { slot: string }) {
  try {
    return await startChild(workflowType, {
      workflowId,
      args: [start],
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: `${workflowType === "emergencyRotation" ? "emergency " : ""}rotation of ${start.slot}`,
    });
  } catch (error) {
    if (error instanceof WorkflowExecutionAlreadyStartedError) return "taken" as const;
    throw error;
  }
}

function busy(slot: string, { workflowId, runId }: RunningRotation): ApplicationFailure {
  return ApplicationFailure.create({
    message: `a rotation of ${slot} is running: workflow ${workflowId}, run ${runId}`,
    type: "SlotBusy",
    nonRetryable: true,
    details: [{ workflowId, runId }],
  });
}

/** What a follower ends with: the failure of ours behind an error, where there is one. */
function likewise(error: unknown): unknown {
  return causeOf(error) instanceof ApplicationFailure ? ownFailure(error) : error;
}
