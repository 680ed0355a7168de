import { CancellationScope, CancelledFailure, isCancellation } from "@temporalio/workflow";

import { failureMessage } from "./failures.ts";
import type { Wait } from "../../domain/rotation.ts";
import type { StepName } from "./record.ts";
import type { Rotation } from "./rotation.ts";

/** `unless` names why the step is skipped; `says` what the record shows of its result, where that is no note itself. */
export interface StepOptions<Result> {
  unless?: string | undefined;
  says?: (result: Result) => string;
}

/** Runs one step and keeps its record. */
export async function runStep<Result>(
  rotation: Rotation,
  name: StepName,
  body: () => Promise<Result>,
  { unless, says }: StepOptions<Result>,
): Promise<Result> {
  if (unless !== undefined) {
    rotation.record.note(name, "skipped", unless);
    return undefined as Result;
  }
  // A step that would begin when the run is already stopped never began.
  if (CancellationScope.current().consideredCancelled) throw new CancelledFailure(`${name} did not begin`);
  const record = rotation.record.begin(name);
  rotation.show();
  try {
    const result = await body();
    record.outcome = "done";
    const note = says?.(result) ?? result;
    if (typeof note === "string") record.note = note;
    return result;
  } catch (error) {
    record.outcome = "failed";
    record.note = isCancellation(error) ? rotation.stopReason : failureMessage(error);
    throw error;
  } finally {
    record.ended = rotation.record.now();
    rotation.show();
  }
}

/** Shows a wait while `body` lasts. */
export async function showWait<Result>(
  rotation: Rotation,
  plan: Omit<Wait, "since" | "id">,
  body: (wait: Wait) => Promise<Result>,
): Promise<Result> {
  const wait = rotation.record.open(plan);
  rotation.show();
  try {
    return await body(wait);
  } finally {
    rotation.record.close(wait);
    rotation.show();
  }
}
