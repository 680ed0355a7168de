import { Context } from "@temporalio/activity";

import { RotationFailure } from "../domain/failure.ts";

/** Attempts at a look that can be repeated, before what it would tell is named as unknown. */
const patientAttempts = 3;

/** An answer, or why there is none. */
export type Answer<T> = { value: T; why?: undefined } | { why: string };

/**
 * The answer to a look whose failure may not fail the attempt: or why there is none, where it fails for good, or again
 * after a few attempts. Who is not patient is told of the failure as it is. Repeating is as safe as the look.
 */
export async function orWhy<T>(ask: () => Promise<T>, patient = true): Promise<Answer<T>> {
  try {
    return { value: await ask() };
  } catch (error) {
    if (!patient || !(error instanceof RotationFailure)) throw error;
    if (error.retried && Context.current().info.attempt < patientAttempts) throw error;
    return { why: error.message };
  }
}
