import { defineQuery, defineSignal, defineUpdate } from "@temporalio/workflow";
import { ApplicationFailure } from "@temporalio/common";
import { z } from "zod";

import type { Progress } from "../domain/rotation.ts";
import { parseSlot } from "../domain/slot.ts";

/** What a start, a signal or an update may carry. One plain JSON object each, never a secret. */

const slot = z
  .string()
  .refine(
    (text) => parseSlot(text) !== undefined,
    "a slot, written environment/provider or environment/provider:alias",
  );
const words = z.string().max(500);

export const normalRotationInput = z.strictObject({
  slot,
  reason: words.optional(),
  onlyIfDue: z.boolean().optional(),
  heldKeyId: z.string().min(1).max(200).optional(),
});
export type NormalRotationStart = z.output<typeof normalRotationInput>;

export const emergencyRotationInput = z.strictObject({
  slot,
  reason: words.optional(),
  strategy: z.enum(["swap-first", "cut-first"]).optional(),
  compromisedKeyId: z.string().min(1).max(200).optional(),
  heldKeyId: z.string().min(1).max(200).optional(),
  /** The leaked value, sealed for this slot and the purpose `leaked`. */
  leaked: z.string().max(10_000).optional(),
  /** From when on the key's use is looked at; the day before, where it is not known when it leaked. */
  since: z.iso.datetime({ offset: true }).optional(),
  /** Live keys that an earlier rotation left behind: ended with the compromised one. */
  leftOver: z.array(z.string().min(1).max(200)).max(10).optional(),
  /** Moves the slot off the key and leaves the cut to the emergency that started this one. */
  cutBy: z.string().max(200).optional(),
});
export type EmergencyRotationStart = z.output<typeof emergencyRotationInput>;

export const submissionInput = z.strictObject({
  /** The key's value, sealed for the slot and the rotation that waits for it. */
  sealed: z.string().min(1).max(10_000),
  /** The id the provider shows for the key. Without an admin credential nobody else can tell it. */
  keyId: z
    .string()
    .regex(/^[\w.:/-]{1,200}$/, "the id of a key, never its value")
    .optional(),
  by: words.optional(),
});
export type Submission = z.output<typeof submissionInput>;

export const escalationInput = z.strictObject({
  compromisedKeyId: z.string().min(1).max(200),
  /** Since when the key may have been in wrong hands. */
  since: z.iso.datetime({ offset: true }).optional(),
  by: words.optional(),
  why: words.optional(),
});
export type Escalation = z.output<typeof escalationInput>;

export const approvalInput = z.strictObject({ by: words.optional(), why: words.optional() });
export type Approval = z.output<typeof approvalInput>;

export const abortInput = z.strictObject({ by: words.optional(), why: words.optional() });
export type AbortRequest = z.output<typeof abortInput>;

export const progressQuery = defineQuery<Progress>("progress");
export const approveUpdate = defineUpdate<string, [Approval | undefined]>("approve");
export const approveSignal = defineSignal<[Approval | undefined]>("approveSignal");
export const submitKeyUpdate = defineUpdate<string, [Submission | undefined]>("submitKey");
export const submitKeySignal = defineSignal<[Submission | undefined]>("submitKeySignal");
export const escalateUpdate = defineUpdate<string, [Escalation | undefined]>("escalate");
export const escalateSignal = defineSignal<[Escalation | undefined]>("escalateSignal");
export const abortSignal = defineSignal<[AbortRequest | undefined]>("abortSignal");
/** From a rotation to the start that follows it; not for people. */
export const followedProgressSignal = defineSignal<[Progress]>("followedProgress");

/**
 * Checks what came from outside. Fails with `InvalidInput`, which no retry policy repeats; a raw error here would
 * fail the workflow task forever and look like a hang.
 */
export function parseInput<Schema extends z.ZodType>(
  schema: Schema,
  input: unknown,
  what: string,
  example = '{"slot":"production/openai"}',
): z.output<Schema> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, 3).map((issue) => {
    const field = issue.path.map(String).join(".");
    if (issue.code === "unrecognized_keys") return `unknown field ${issue.keys.join(", ")}`;
    return `${field === "" ? "input" : field}: ${issue.message.replace(/^Invalid input: /, "")}`;
  });
  throw ApplicationFailure.nonRetryable(
    `${what} does not take this input: ${issues.join("; ")} (example: ${example})`,
    "InvalidInput",
  );
}
