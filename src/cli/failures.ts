import { isGrpcServiceError, WorkflowFailedError, WorkflowUpdateFailedError } from "@temporalio/client";
import {
  ActivityFailure,
  ApplicationFailure,
  CancelledFailure,
  TerminatedFailure,
  TimeoutFailure,
} from "@temporalio/common";

import type { SeenKey } from "../activities/contract.ts";
import { RotationFailure } from "../domain/failure.ts";
import type { RotationResult } from "../domain/rotation.ts";
import { maskSecrets } from "../redacted.ts";

/** What the command line says about a failure: its type, one sentence with the next move, the result so far. */
export interface CommandFailure {
  type: string;
  message: string;
  result?: RotationResult;
  /** The keys to choose from, where nobody guesses. */
  candidates?: Candidate[];
}

/** A key that may be the one that is meant: as much as was seen of it. */
export type Candidate = Pick<SeenKey, "id"> & Partial<SeenKey>;

export const exitCodes = { done: 0, failed: 1, wrongInput: 2, waitingForPerson: 3, refused: 4, interrupted: 130 };

/** The exit code of a failure, by its type. */
export function exitCodeOf(type: string): number {
  if (type === "InvalidInput") return exitCodes.wrongInput;
  if (type === "SlotBusy" || type === "KeyAmbiguous") return exitCodes.refused;
  return exitCodes.failed;
}

/**
 * The exit code of a rotation that ended: a slot that is left without a working key is no success, nor is a compromised
 * key that may be alive. Use by others does not change it.
 */
export function exitCodeOfResult({ outcome, outage, keys }: RotationResult): number {
  if (outcome === "aborted" || namesCompromised({ keys })) return exitCodes.failed;
  if (outcome !== "cut") return exitCodes.done;
  const serving = keys.some(({ fate }) => fate === "held") && (outage === undefined || outage.until !== undefined);
  return serving ? exitCodes.done : exitCodes.failed;
}

/** Whether a compromised key may be alive after the run. */
export function namesCompromised({ keys }: Pick<RotationResult, "keys">): boolean {
  return keys.some(({ role, fate }) => role === "compromised" && (fate === "named" || fate === "open"));
}

/** Any error as a sentence for people; never a stack, never a key. */
export function describeFailure(error: unknown): CommandFailure {
  const failure = rawFailure(error);
  const [firstLine = ""] = maskSecrets(failure.message).split("\n");
  return { ...failure, message: firstLine };
}

function rawFailure(error: unknown): CommandFailure {
  if (error instanceof RotationFailure) {
    return { type: error.type, message: error.message, ...readDetails(error.details) };
  }
  if (error instanceof WorkflowFailedError) return howItFailed(error);
  if (error instanceof WorkflowUpdateFailedError || error instanceof ActivityFailure) {
    return error.cause === undefined ? { type: "Unexpected", message: error.message } : rawFailure(error.cause);
  }
  if (error instanceof ApplicationFailure) {
    return { type: error.type ?? "Unexpected", message: error.message, ...readDetails(error.details ?? []) };
  }
  if (isGrpcServiceError(error)) {
    return { type: "Unavailable", message: `Temporal refused the call: ${error.details || error.message}` };
  }
  return { type: "Unexpected", message: error instanceof Error ? error.message : String(error) };
}

function howItFailed({ cause, message }: WorkflowFailedError): CommandFailure {
  if (cause instanceof CancelledFailure) {
    return { type: "Cancelled", message: "the rotation was cancelled before it did anything" };
  }
  if (cause instanceof TerminatedFailure) {
    return {
      type: "Terminated",
      message:
        "the run was terminated from outside and cleaned up nothing: keyturn keys <slot> shows what it left, which keyturn sweep ends; start it again, and an emergency at once: nobody cuts its key",
    };
  }
  if (cause instanceof TimeoutFailure) {
    return { type: "TimedOut", message: "the rotation ran into its execution timeout: start it again without one" };
  }
  return cause === undefined ? { type: "Unexpected", message } : rawFailure(cause);
}

/** What a failure carries beside its sentence: the result so far, the keys to choose from. */
function readDetails(details: readonly unknown[]): Pick<CommandFailure, "result" | "candidates"> {
  const result = details.find(isResult);
  const candidates = details.flatMap((one) => (hasCandidates(one) ? one.candidates : []));
  return { ...(result === undefined ? {} : { result }), ...(candidates.length === 0 ? {} : { candidates }) };
}

function hasCandidates(value: unknown): value is { candidates: Candidate[] } {
  return typeof value === "object" && value !== null && "candidates" in value && Array.isArray(value.candidates);
}

function isResult(value: unknown): value is RotationResult {
  return typeof value === "object" && value !== null && "outcome" in value && "steps" in value;
}
