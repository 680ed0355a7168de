import { WorkflowNotFoundError, type WorkflowHandle } from "@temporalio/client";

import { RotationFailure } from "../domain/failure.ts";
import { slotWorkflowId } from "../domain/rotation.ts";
import type { Temporal } from "../temporal/client.ts";

/** The rotation of a slot that runs now. Fails with `InvalidInput` when there is none. */
export async function runningRotation(temporal: Temporal, slot: string): Promise<WorkflowHandle> {
  const running = await findRunning(temporal, slot);
  if (running !== undefined) return running;
  throw new RotationFailure(
    "InvalidInput",
    `no rotation of ${slot} is running: keyturn status ${slot} says how the last one ended`,
  );
}

/** The rotation of a slot that runs now, if one does. */
export async function findRunning({ client }: Temporal, slot: string): Promise<WorkflowHandle | undefined> {
  const workflowId = slotWorkflowId(slot);
  const found = await client.workflow
    .getHandle(workflowId)
    .describe()
    .catch((error: unknown) => {
      if (error instanceof WorkflowNotFoundError) return undefined;
      throw error;
    });
  return found?.status.name === "RUNNING" ? client.workflow.getHandle(workflowId, found.runId) : undefined;
}

/** The slot's run before the one that is about to be started: which keys stayed behind stands in its result. */
export async function formerRun({ client }: Temporal, slot: string): Promise<{ formerRunId?: string }> {
  try {
    const { runId, status } = await client.workflow.getHandle(slotWorkflowId(slot)).describe();
    return status.name === "RUNNING" ? {} : { formerRunId: runId };
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return {};
    throw error;
  }
}
