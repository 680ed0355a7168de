import type { Context } from "@temporalio/activity";
import type { ActivityInboundCallsInterceptor } from "@temporalio/worker";

/** How many signs of life fit into the time after which Temporal takes the worker for dead. */
const beatsPerTimeout = 5;

/**
 * Gives signs of life while an attempt lasts, so that Temporal starts the next attempt soon after its worker died, not
 * when the time of a whole attempt is over.
 */
export const heartbeatInterceptor = (context: Context): ActivityInboundCallsInterceptor => ({
  async execute(input, next) {
    const { heartbeatTimeoutMs } = context.info;
    if (heartbeatTimeoutMs === undefined) return next(input);
    const beats = setInterval(() => context.heartbeat(), heartbeatTimeoutMs / beatsPerTimeout);
    try {
      return await next(input);
    } finally {
      clearInterval(beats);
    }
  },
});
