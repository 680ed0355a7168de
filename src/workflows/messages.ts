import { defineQuery, defineSignal, defineUpdate } from "@temporalio/workflow";
import { ApplicationFailure } from "@temporalio/common";
import { z } from "zod";

import { keyRoles } from "../domain/custody.ts";
import type { EscalationAnswer } from "../domain/escalation.ts";
import type { Approved, Progress, Submitted } from "../domain/rotation.ts";
import { whyNoKeyId } from "../domain/key-id.ts";
import { containsKey } from "../domain/key-shape.ts";
import { parseSlot } from "../domain/slot.ts";
import type { CarriedRecord } from "./rotation/record.ts";

/** What a start, a signal or an update may carry. One plain JSON object each, never a secret. */

const slot = z
  .string()
  .refine(
    (text) => parseSlot(text) !== undefined,
    "a slot, written environment/provider or environment/provider:alias",
  );
const wordsAtMost = 500;
/** An update that is refused here leaves no trace; what a workflow takes stands in its history. */
const words = z
  .string()
  .max(wordsAtMost)
  .refine((text) => !containsKey(text), "it holds the value of a key, which would stand in the history");
/** As much of a text as a start takes as words: what people say is put together from several. Ends with a whole word. */
export function asWords(text: string): string {
  return text.length <= wordsAtMost ? text : `${text.slice(0, wordsAtMost - 1).replace(/\S*$/, "")}…`;
}
const keyId = z
  .string()
  .min(1)
  .max(200)
  .superRefine((id, check) => {
    const why = whyNoKeyId(id);
    if (why !== undefined) check.addIssue({ code: "custom", message: why });
  });
/** The slot's run before this one, where the starter knows it. */
const formerRunId = z.string().min(1).max(100).optional();
/** A sealed value has five parts (JWE); a key that somebody forgot to seal has its provider's shape. */
const sealed = z
  .string()
  .min(1)
  .max(10_000)
  .refine(
    (text) => text.split(".").length === 5 || !containsKey(text),
    "the value of a key that is not sealed: treat that key as leaked where this was a signal, which stands in the history",
  );

export const normalRotationInput = z.strictObject({
  slot,
  reason: words.optional(),
  onlyIfDue: z.boolean().optional(),
  heldKeyId: keyId.optional(),
  formerRunId,
});
export type NormalRotationStart = z.output<typeof normalRotationInput>;

/** The deadline and policy of the slot that was told first, and when it was. */
const firstTold = z.strictObject({
  revokeBy: z.iso.datetime({ offset: true }),
  atDeadline: z.enum(["revoke", "hold"]),
  at: z.iso.datetime({ offset: true }).optional(),
});

/** What a run that follows another reads of what that hands it. What else there is passes as it is. */
const carriedRecord = z.looseObject({
  rotationId: z.string(),
  custody: z.looseObject({
    entries: z.array(z.looseObject({ id: z.string(), role: z.enum(keyRoles), given: z.boolean() })),
    ordinals: z.array(z.number()),
    issued: z.number().max(1000),
  }),
  unknown: z.array(z.string()),
  warnings: z.array(z.string()),
  cut: z.object({ keyIds: z.array(z.string()), unsure: z.array(z.string()) }).optional(),
  unanswered: z.array(z.string()).optional(),
  leak: z.looseObject({ value: z.string(), at: z.iso.datetime({ offset: true }), by: z.string() }).optional(),
  clock: z.array(
    z.looseObject({
      keyId: z.string(),
      at: z.iso.datetime({ offset: true }),
      by: z.string(),
      first: firstTold.optional(),
    }),
  ),
  said: z.string(),
});

export const emergencyRotationInput = z
  .strictObject({
    /** Left out where only the leaked value is known: then each slot that holds it is found. */
    slot: slot.optional(),
    reason: words.optional(),
    strategy: z.enum(["swap-first", "cut-first"]).optional(),
    compromisedKeyId: keyId.optional(),
    compromisedKeyIds: z.array(keyId).min(1).max(20).optional(),
    heldKeyId: keyId.optional(),
    /** The leaked value, sealed for this slot and the purpose `leaked`; without a slot, for the purpose alone. */
    leaked: sealed.optional(),
    /** From when on the key's use is looked at; the day before, where it is not known when it leaked. */
    since: z.iso.datetime({ offset: true }).optional(),
    formerRunId,
    /** Moves the slot off the key and leaves the cut to the emergency of this slot, which started this one. */
    cutBy: slot.optional(),
    /** The deadline and policy of that slot. Not for people. */
    first: firstTold.optional(),
    /** What a rotation of the slot hands over that an emergency follows. Not for people. */
    carried: z
      .custom<CarriedRecord>((value) => carriedRecord.safeParse(value).success, "only what a rotation hands over")
      .optional(),
  })
  .refine(({ slot: named, leaked }) => named !== undefined || leaked !== undefined, {
    path: ["slot"],
    message: "without a slot the leaked value is needed, sealed",
  });
export type EmergencyStart = z.output<typeof emergencyRotationInput>;
export type EmergencyRotationStart = EmergencyStart & { slot: string };

export const planEmergencyInput = z.strictObject({
  slot,
  keyIds: z.array(keyId).max(20).optional(),
  leaked: sealed.optional(),
  since: z.iso.datetime({ offset: true }).optional(),
  heldKeyId: keyId.optional(),
  formerRunId,
});
export const slotInput = z.strictObject({ slot });

export const submissionInput = z.strictObject({
  /** The key's value, sealed for the slot and the rotation that waits for it. */
  sealed,
  /** The id the provider shows for the key. Without an admin credential nobody else can tell it. */
  keyId: keyId.optional(),
  by: words.optional(),
});
export type Submission = z.output<typeof submissionInput>;

export const escalationInput = z.strictObject({
  compromisedKeyId: keyId,
  /** The deadline and policy of the slot that was told first, where another slot's emergency passes the word on. Not for people. */
  first: firstTold.optional(),
  /** Since when the key may have been in wrong hands. */
  since: z.iso.datetime({ offset: true }).optional(),
  by: words.optional(),
  why: words.optional(),
});
export type Escalation = z.output<typeof escalationInput>;

export const approvalInput = z.strictObject({
  by: words.optional(),
  why: words.optional(),
  /** The wait it was shown for. Without it, it counts for the wait that is open when it comes. */
  wait: z.string().min(1).max(20).optional(),
});
export type Approval = z.output<typeof approvalInput>;

export const abortInput = z.strictObject({ by: words.optional(), why: words.optional() });
export type AbortRequest = z.output<typeof abortInput>;

export const progressQuery = defineQuery<Progress>("progress");
export const approveUpdate = defineUpdate<Approved, [Approval | undefined]>("approve");
export const approveSignal = defineSignal<[Approval | undefined]>("approveSignal");
export const submitKeyUpdate = defineUpdate<Submitted, [Submission | undefined]>("submitKey");
export const submitKeySignal = defineSignal<[Submission | undefined]>("submitKeySignal");
export const escalateUpdate = defineUpdate<EscalationAnswer, [Escalation | undefined]>("escalate");
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
