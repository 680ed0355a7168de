import type { RunningRotation, UpdateOrder } from "./contract.ts";
import type { Dependencies } from "./dependencies.ts";

export const runActivities = ({ runs }: Pick<Dependencies, "runs">) => ({
  /** The open run of a workflow id. Only reads. */
  async findRun({ workflowId }: { workflowId: string }): Promise<RunningRotation> {
    return runs.find(workflowId);
  },

  /** Runs an update on another run: what a follower cannot do from inside a workflow. A repetition is the same update. */
  async updateRun(order: UpdateOrder): Promise<string> {
    return runs.update(order);
  },
});
