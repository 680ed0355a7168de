import { WorkflowFailedError, type WorkflowHandle } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { expect } from "vitest";

import type { RotationResult } from "../../src/domain/rotation.ts";

/** The result of a run that is to end well: one that fails fails the test, in the words of its failure. */
export async function resultOf(handle: Pick<WorkflowHandle, "result">): Promise<RotationResult> {
  try {
    return (await handle.result()) as RotationResult;
  } catch (error) {
    return expect.fail(`the rotation failed: ${String(causeOf(error))}`);
  }
}

/** The failure of a run that is to end with one, and the result it carries. */
export async function failureOf(
  ending: Promise<unknown>,
): Promise<{ type: string; message: string; result: RotationResult }> {
  const cause = await ending.then(() => "it did not fail", causeOf);
  if (!(cause instanceof ApplicationFailure))
    return expect.fail(`the rotation was to fail by itself: ${String(cause)}`);
  return { type: cause.type ?? "", message: cause.message, result: cause.details?.[0] as RotationResult };
}

function causeOf(error: unknown): unknown {
  return error instanceof WorkflowFailedError ? error.cause : error;
}
