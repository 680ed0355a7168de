import {
  ActivityFailure,
  ApplicationFailure,
  CancelledFailure,
  ChildWorkflowFailure,
  TimeoutFailure,
} from "@temporalio/workflow";

/** The failure behind an error: an activity's or a child's own, where there is one. */
export function causeOf(error: unknown): unknown {
  return (error instanceof ActivityFailure || error instanceof ChildWorkflowFailure) && error.cause !== undefined
    ? error.cause
    : error;
}

/** The type of the failure behind an error, as the table of failures names it. An attempt out of time is an outage. */
export function failureType(error: unknown): string | undefined {
  const cause = causeOf(error);
  if (cause instanceof TimeoutFailure) return lastFailure(cause)?.type ?? "Unavailable";
  return cause instanceof ApplicationFailure ? (cause.type ?? undefined) : undefined;
}

/** The sentence of the failure behind an error. */
export function failureMessage(error: unknown): string {
  const cause = causeOf(error);
  if (cause instanceof TimeoutFailure) {
    return (
      lastFailure(cause)?.message ??
      "no worker answered in time: check that keyturn worker runs and reaches its services"
    );
  }
  return cause instanceof Error ? cause.message : String(cause);
}

/** What the failure carries beside its sentence, failures and cancellations alike. */
export function failureDetails(error: unknown): unknown {
  const cause = causeOf(error);
  return cause instanceof ApplicationFailure || cause instanceof CancelledFailure ? cause.details?.[0] : undefined;
}

/** What the attempts failed with until their time was over, where one did. */
function lastFailure({ cause }: TimeoutFailure): ApplicationFailure | undefined {
  return cause instanceof ApplicationFailure ? cause : undefined;
}

/** The failure behind an error as this workflow's own: an activity's bears its type and sentence deeper down. */
export function ownFailure(error: unknown): ApplicationFailure {
  const cause = causeOf(error);
  return ApplicationFailure.create({
    message: failureMessage(error),
    type: failureType(error) ?? "Unexpected",
    nonRetryable: true,
    details: cause instanceof ApplicationFailure ? (cause.details ?? []) : [],
  });
}
