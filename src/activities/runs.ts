import { Context } from "@temporalio/activity";

import type { RunningRotation, UpdateOrder } from "./contract.ts";
import type { Dependencies } from "./dependencies.ts";

export const runActivities = ({ runs }: Pick<Dependencies, "runs">) => ({
  /** The open run of a workflow id. Only reads. */
  async findRun({ workflowId }: { workflowId: string }): Promise<RunningRotation> {
    return runs.find(workflowId);
  },

  /**
   * Runs an update on another run, and returns the answer it gave: what a follower cannot do from inside a workflow. A
   * repetition bears the same id, so it is the same update. Fails as that run refuses it.
   */
  async updateRun(order: UpdateOrder): Promise<unknown> {
    const { activityId, workflowExecution } = Context.current().info;
    return runs.update(order, `${workflowExecution?.runId}/${activityId}`);
  },
});
