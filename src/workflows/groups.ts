import { ActivityCancellationType, type ActivityOptions, proxyActivities } from "@temporalio/workflow";

import type { RotationActivities } from "../activities/index.ts";
import { withSummaries } from "./summaries.ts";

/**
 * How patiently each kind of step is repeated. Whether a failure is repeated at all is decided where it is made
 * (`domain/failure.ts`); these say how often and how long.
 */

/** When a worker that gives no sign of life is taken for dead, and its attempt is made again elsewhere. */
const deadWorkerAfter = "10 seconds";

/** Calls of management APIs: patient enough to outlast Cloudflare's five-minute block. */
export const management = group({
  startToCloseTimeout: "2 minutes",
  scheduleToCloseTimeout: "45 minutes",
  retry: { initialInterval: "1 second", backoffCoefficient: 2, maximumInterval: "30 seconds" },
});

/** Waiting for something to arrive: short and even, ended by the deadline in the order itself. */
export const propagation = group({
  startToCloseTimeout: "30 minutes",
  scheduleToCloseTimeout: "1 hour",
  retry: { initialInterval: "500 milliseconds", backoffCoefficient: 1.3, maximumInterval: "10 seconds" },
});

/** One batch of attempts to revoke; the workflow repeats batches for ever, and says why. */
export const revocation = group({
  startToCloseTimeout: "2 minutes",
  retry: { initialInterval: "1 second", backoffCoefficient: 2, maximumInterval: "1 minute", maximumAttempts: 6 },
});

/** Long watching. */
export const watching = group({
  startToCloseTimeout: "6 hours",
  retry: { initialInterval: "1 second", backoffCoefficient: 2, maximumInterval: "1 minute" },
});

/** Cleaning up: long patience, since giving up leaves something behind. */
export const cleanup = group({
  startToCloseTimeout: "2 minutes",
  scheduleToCloseTimeout: "24 hours",
  retry: { initialInterval: "1 second", backoffCoefficient: 2, maximumInterval: "5 minutes" },
});

/** A look that somebody waits for at a prompt: one that cannot be made soon is not made. */
export const promptly = group({
  startToCloseTimeout: "10 seconds",
  scheduleToCloseTimeout: "10 seconds",
  retry: { initialInterval: "1 second", maximumAttempts: 2 },
});

/** A cancellation waits for the attempt that is under way, since only its end tells what there is to clean up. */
function group(options: ActivityOptions) {
  return withSummaries(
    proxyActivities<RotationActivities>({
      heartbeatTimeout: deadWorkerAfter,
      cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
      ...options,
    }),
  );
}
