import { ActivityFailure, isCancellation, setCurrentDetails, upsertSearchAttributes } from "@temporalio/workflow";
import { z } from "zod";

import type { EndOrphanOrder, OrphanEnd } from "../activities/orphans.ts";
import { type Duration, isDuration } from "../domain/duration.ts";
import { providerNames } from "../domain/slot.ts";
import { sweepDefaults, type SweepItem, type SweepResult } from "../domain/sweep.ts";
import { management, revocation } from "./groups.ts";
import { parseInput } from "./messages.ts";
import { searchAttributes } from "./search-attributes.ts";

export const sweepInput = z.strictObject({
  select: z
    .strictObject({
      environment: z.string().min(1).max(32).optional(),
      provider: z.enum(providerNames).optional(),
      slots: z.array(z.string().max(100)).min(1).max(1_000).optional(),
    })
    .optional(),
  revoke: z.boolean().optional(),
  cap: z.int().min(1).max(1_000).optional(),
  minimumAge: z
    .string()
    .refine(isDuration, "a length of time with its unit, such as 24h")
    .transform((text) => text as Duration)
    .optional(),
});
export type SweepStart = z.input<typeof sweepInput>;

/**
 * Finds live keys of this installation that no slot holds and no open rotation owns, and aliases that ended rotations
 * left; with `revoke` ends them, at most `cap` in a run, each looked at again before. When Temporal, the store or a
 * slot cannot be read, everything is spared and the result says so. Repeating is safe.
 *
 * Input `{"select"?,"revoke"?:false,"cap"?:10,"minimumAge"?:"24h"}`; result `SweepResult`. Fails with `InvalidInput`.
 */
export async function sweepOrphans(input: unknown): Promise<SweepResult> {
  const {
    select = {},
    revoke = false,
    cap = sweepDefaults.cap,
    ...rest
  } = parseInput(sweepInput, input ?? {}, "sweepOrphans", '{"revoke":false}');
  const minimumAge = rest.minimumAge ?? (sweepDefaults.minimumAge as Duration);
  upsertSearchAttributes([{ key: searchAttributes.kind, value: "sweep" }]);

  const { orphans, ...looked } = await management.findOrphans({ select, minimumAge });
  const result: SweepResult = { ...looked, revoke, cap, minimumAge, found: orphans, revoked: [], failed: [] };
  if (revoke) {
    for (const [index, orphan] of orphans.entries()) {
      if (index < cap) await end(orphan, { slot: orphan.slot, id: orphan.id, minimumAge }, result);
      else result.spared.push({ ...orphan, why: `the cap of ${cap} was reached: sweep again` });
    }
  }
  setCurrentDetails(describeSweep(result));
  return result;
}

/** Ends one orphan; what is spared or cannot be ended is said. */
async function end(orphan: SweepItem, order: EndOrphanOrder, result: SweepResult): Promise<void> {
  try {
    const ended = await (orphan.kind === "key" ? revocation.revokeOrphan(order) : revocation.removeOrphanAlias(order));
    note(orphan, ended, result);
  } catch (error) {
    if (isCancellation(error) || !(error instanceof ActivityFailure)) throw error;
    result.failed.push(orphan.id);
    result.spared.push({ ...orphan, why: `it could not be ended: ${error.cause?.message ?? error.message}` });
  }
}

function note(orphan: SweepItem, ended: OrphanEnd, { revoked, spared }: SweepResult): void {
  if (ended.kind === "ended") revoked.push({ kind: orphan.kind, id: orphan.id, at: ended.at });
  else spared.push({ ...orphan, why: ended.why });
}

/** The result as Markdown, for the Temporal UI. */
function describeSweep({ found, revoked, spared, blocked }: SweepResult): string {
  const rows = [
    ...found.map((item) => ({
      ...item,
      state: revoked.some(({ id }) => id === item.id) ? "ended" : "found",
    })),
    ...spared.map((item) => ({ ...item, state: "spared" })),
  ];
  return [
    ...blocked.map((why) => `**Everything is spared:** ${why}`),
    "| what | slot | state | why |",
    "|---|---|---|---|",
    ...rows.map(({ kind, id, slot, state, why }) => `| ${kind} \`${id}\` | ${slot} | ${state} | ${clean(why)} |`),
  ].join("\n");
}

function clean(text: string): string {
  return text.replaceAll("|", "/").replaceAll("\n", " ");
}
