import { AsyncLocalStorage } from "node:async_hooks";
import type { Context } from "@temporalio/activity";
import type { ActivityInboundCallsInterceptor } from "@temporalio/worker";

import { RotationFailure } from "../domain/failure.ts";
import { formerAttemptEnded, passDoubtOn } from "./heartbeat.ts";

/**
 * An attempt that Temporal gave up on writes nothing more, so that two attempts of one activity never change things at
 * the same time:
 *
 * - cancelled, or past its time by its own monotonic clock: its writes are refused. Both are known here.
 * - given up on for want of heartbeats: that is not known here, since whoever is cut off from Temporal hears nothing. So
 *   the next attempt begins its writes no sooner than one request can last after it started: what the former one had
 *   under way has landed by then, or never will.
 *
 * Temporal does not say how the former attempt ended. So one that ends by itself says so with its last heartbeat
 * (heartbeat.ts), and only where that word is missing is there a wait: a retry after an ordinary failure costs nothing.
 * One that fails inside of its wait keeps that word to itself.
 */

interface Attempt {
  context: Context;
  beganAt: number;
  /** Until when writes wait, by the monotonic clock. */
  writesFrom: number;
  /** What it looked at before its wait may be other by now: it begins again. */
  looksAgain: boolean;
}

interface Within {
  attempt: Attempt;
  /** Set inside of `asOne`: whether the first of its writes was let go. */
  one?: { begun: boolean };
}

const attempts = new AsyncLocalStorage<Within>();

/** Bounds the writes of each attempt, inside of `heartbeatInterceptor`. `requestMs` is the longest that one request can last. */
export const fenceInterceptor = (context: Context, requestMs: number): ActivityInboundCallsInterceptor => ({
  async execute(input, next) {
    const beganAt = performance.now();
    const writesFrom = formerAttemptEnded() ? beganAt : beganAt + requestMs;
    const attempt: Attempt = { context, beganAt, writesFrom, looksAgain: false };
    const work = (): Promise<unknown> => attempts.run({ attempt }, () => next(input));
    try {
      try {
        const done = await work();
        if (!attempt.looksAgain) return done;
      } catch (error) {
        if (!attempt.looksAgain) throw error;
      }
      return await work();
    } catch (error) {
      // It failed before its wait was over: the next one has to wait as well.
      if (performance.now() < writesFrom) passDoubtOn();
      throw error;
    }
  },
});

/**
 * Lets a write of the present attempt go, or refuses it. One that came too early waits for its time, and is refused then:
 * the attempt has changed nothing so far, and begins again with its looks. Outside of activities nothing is fenced.
 */
export async function mayWrite(): Promise<void> {
  const within = attempts.getStore();
  if (within === undefined || within.one?.begun === true) return;
  await mayBegin(within.attempt);
  if (within.one !== undefined) within.one.begun = true;
}

async function mayBegin(attempt: Attempt): Promise<void> {
  requireCurrent(attempt);
  const waitMs = attempt.writesFrom - performance.now();
  if (waitMs <= 0) return;
  await attempt.context.sleep(waitMs);
  requireCurrent(attempt);
  // A timer can be a moment early.
  if (attempt.looksAgain) return;
  attempt.looksAgain = true;
  throw new RotationFailure(
    "Unavailable",
    `this attempt of ${attempt.context.info.activityType} had to wait: it looks again`,
  );
}

/**
 * Writes that must not be parted, since what lies between them serves nobody: once the first was let go, the rest goes
 * too. A few seconds at most. The looks before the first write take their time, so it is asked for itself.
 */
export async function asOne<Out>(work: () => Promise<Out>): Promise<Out> {
  const within = attempts.getStore();
  return within === undefined ? work() : attempts.run({ ...within, one: { begun: false } }, work);
}

function requireCurrent({ context, beganAt }: Attempt): void {
  context.cancellationSignal.throwIfAborted();
  if (performance.now() - beganAt < context.info.startToCloseTimeoutMs) return;
  throw new RotationFailure(
    "Unavailable",
    `this attempt of ${context.info.activityType} is past its time, so it writes nothing more: the next one goes on`,
  );
}
