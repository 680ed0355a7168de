import { ApplicationFailure, workflowInfo } from "@temporalio/workflow";

import type { Inspection } from "../../activities/contract.ts";
import { readableMs } from "../../domain/duration.ts";
import { longestRotationMs } from "../../domain/policy.ts";
import type { Rotation } from "./rotation.ts";

/**
 * A run that would be killed before its waits can be over is refused while nothing is changed; of an emergency it is said.
 */
export function refuseShortTimeout({ record }: Rotation, found: Inspection): void {
  const why = shortTimeout(found);
  if (why === undefined) return;
  // Its clock runs: refused, it would be cut with no new key in.
  if (record.kind === "emergency") record.warn(why);
  else throw ApplicationFailure.nonRetryable(why, "InvalidInput");
}

/** Why the run would be killed before its waits can be over; undefined where it wouldn't. */
function shortTimeout({ policy, canIssue, byHand }: Inspection): string | undefined {
  // A start by `temporal` says 0 for no timeout.
  const { executionTimeoutMs = 0, runTimeoutMs = 0 } = workflowInfo();
  const longestMs = longestRotationMs(policy, { byPerson: !canIssue, revokedByPerson: byHand !== undefined });
  for (const [name, ms] of [
    ["execution", executionTimeoutMs],
    ["run", runTimeoutMs],
  ] as const) {
    if (ms === 0 || ms >= longestMs) continue;
    return `the ${name} timeout of ${readableMs(ms)} is shorter than the waits of this rotation can be: start it with ${readableMs(longestMs)} or more, or without one`;
  }
  return undefined;
}
