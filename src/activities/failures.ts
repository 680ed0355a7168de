import { CompleteAsyncError } from "@temporalio/activity";
import { ApplicationFailure, TemporalFailure } from "@temporalio/common";
import type { ActivityInboundCallsInterceptor } from "@temporalio/worker";

import { RotationFailure } from "../domain/failure.ts";
import { maskSecrets } from "../redacted.ts";

/** Turns our failures into Temporal's, in one place: the type, whether to repeat, and when. */
export const failureInterceptor = (): ActivityInboundCallsInterceptor => ({
  async execute(input, next) {
    try {
      return await next(input);
    } catch (error) {
      throw asTemporalFailure(error);
    }
  },
});

/**
 * The failure as Temporal keeps it. What is not ours is passed on with anything that looks like a key masked; its
 * stack is dropped, since a library may have put what it sent into it.
 */
export function asTemporalFailure(error: unknown): unknown {
  if (error instanceof RotationFailure) {
    return ApplicationFailure.create({
      type: error.type,
      message: maskSecrets(error.message),
      nonRetryable: !error.retried,
      ...(error.retryAfterMs === undefined ? {} : { nextRetryDelay: error.retryAfterMs }),
      ...(error.details.length === 0 ? {} : { details: error.details.map(masked) }),
    });
  }
  if (error instanceof TypeError || error instanceof RangeError) {
    return ApplicationFailure.nonRetryable(`a bug of ours: ${maskSecrets(error.message)}`, "RequestInvalid");
  }
  // Temporal's own, cancellations among them.
  if (error instanceof TemporalFailure || error instanceof CompleteAsyncError) return error;
  if (error instanceof Error && error.name === "AbortError") return error;
  return ApplicationFailure.retryable(
    maskSecrets(error instanceof Error ? error.message : String(error)),
    error instanceof Error ? error.name : "Unexpected",
  );
}

/** Details stand in the history like the sentence they belong to: each text in them is masked alike. */
function masked(value: unknown): unknown {
  if (typeof value === "string") return maskSecrets(value);
  if (Array.isArray(value)) return value.map(masked);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, masked(inner)]));
}
