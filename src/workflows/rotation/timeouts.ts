import { ApplicationFailure, workflowInfo } from "@temporalio/workflow";

import type { Inspection } from "../../activities/contract.ts";
import { readableMs } from "../../domain/duration.ts";
import { longestRotationMs } from "../../domain/policy.ts";

/** A run that would be killed before its waits can be over is refused while nothing is changed. */
export function refuseShortTimeout({ policy, canIssue, byHand }: Inspection): void {
  // A start by `temporal` says 0 for no timeout.
  const { executionTimeoutMs = 0, runTimeoutMs = 0 } = workflowInfo();
  const longestMs = longestRotationMs(policy, { byPerson: !canIssue, revokedByPerson: byHand !== undefined });
  for (const [name, ms] of [
    ["execution", executionTimeoutMs],
    ["run", runTimeoutMs],
  ] as const) {
    if (ms === 0 || ms >= longestMs) continue;
    throw ApplicationFailure.nonRetryable(
      `the ${name} timeout of ${readableMs(ms)} is shorter than the waits of this rotation can be: start it with ${readableMs(longestMs)} or more, or without one`,
      "InvalidInput",
    );
  }
}
