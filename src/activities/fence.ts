import { AsyncLocalStorage } from "node:async_hooks";
import { Context } from "@temporalio/activity";
import type { ActivityInboundCallsInterceptor } from "@temporalio/worker";

import { RotationFailure } from "../domain/failure.ts";

/**
 * An attempt that Temporal gave up on writes nothing more, so that two attempts of one activity never change things at
 * the same time:
 *
 * - cancelled, or past its time by its own monotonic clock: its writes are refused. Both are known here.
 * - given up on for want of heartbeats: that is not known here, since whoever is cut off from Temporal hears nothing. So
 *   the next attempt begins its writes no sooner than one request can last after it started: what the former one had
 *   under way has landed by then, or never will.
 *
 * Whether the former attempt was given up on is not told by Temporal either. So an attempt that ends by itself says so
 * with its last heartbeat, which the next attempt is given: only where that word is missing is it waited for. A retry
 * after an ordinary failure costs nothing.
 */

/** Last words of an attempt that ended by itself. */
interface Ended {
  ended: number;
}

interface Attempt {
  context: Context;
  beganAt: number;
  /** Until when writes wait, by the monotonic clock. */
  writesFrom: number;
}

const attempts = new AsyncLocalStorage<Attempt>();

/** Bounds the writes of each attempt. `requestMs` is the longest that one request can last. */
export const fenceInterceptor = (context: Context, requestMs: number): ActivityInboundCallsInterceptor => ({
  async execute(input, next) {
    const { attempt, heartbeatTimeoutMs, heartbeatDetails } = context.info;
    const beganAt = performance.now();
    // Without heartbeats nothing but its own clock ends an attempt, and that is heeded.
    const abandoned = heartbeatTimeoutMs !== undefined && attempt > 1 && !hasEnded(heartbeatDetails, attempt - 1);
    try {
      return await attempts.run({ context, beganAt, writesFrom: abandoned ? beganAt + requestMs : beganAt }, () =>
        next(input),
      );
    } catch (error) {
      if (heartbeatTimeoutMs !== undefined) context.heartbeat({ ended: attempt } satisfies Ended);
      throw error;
    }
  },
});

/** Lets a write of the present attempt go, or waits for its time, or refuses it. Outside of activities nothing is fenced. */
export async function mayWrite(): Promise<void> {
  const attempt = attempts.getStore();
  if (attempt === undefined) return;
  requireCurrent(attempt);
  const waitMs = attempt.writesFrom - performance.now();
  if (waitMs <= 0) return;
  await attempt.context.sleep(waitMs);
  requireCurrent(attempt);
}

function requireCurrent({ context, beganAt }: Attempt): void {
  context.cancellationSignal.throwIfAborted();
  if (performance.now() - beganAt < context.info.startToCloseTimeoutMs) return;
  throw new RotationFailure(
    "Unavailable",
    `this attempt of ${context.info.activityType} is past its time, so it writes nothing more: the next one goes on`,
  );
}

function hasEnded(details: unknown, attempt: number): boolean {
  return typeof details === "object" && details !== null && (details as Partial<Ended>).ended === attempt;
}
