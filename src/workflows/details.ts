import { readableMs } from "../domain/duration.ts";
import type { Progress, StepRecord } from "../domain/rotation.ts";

/** The rotation as Markdown, for the Temporal UI: what it waits for, and a table of its steps. */
export function describeProgress({ waiting, steps, oldKey, newKey }: Progress): string {
  const keys = `old key \`${oldKey?.id ?? "not known yet"}\`, new key \`${newKey?.id ?? "none yet"}\``;
  const wait =
    waiting === null
      ? []
      : [
          `**Waiting for** ${waiting.for}, since ${clock(waiting.since)}, until ${clock(waiting.until)}; then ${waiting.then}.`,
          ...(waiting.action === undefined ? [] : [`**What to do:** ${waiting.action}`]),
        ];
  const rows = steps.map((step) => `| ${step.step} | ${clock(step.started)} | ${took(step)} | ${ending(step)} |`);
  return [...wait, keys, "", "| step | began | took | how it ended |", "|---|---|---|---|", ...rows].join("\n");
}

function clock(at: string): string {
  return at.slice(11, 19);
}

function took({ started, ended }: StepRecord): string {
  return ended === undefined ? "" : readableMs(Date.parse(ended) - Date.parse(started));
}

function ending({ outcome, note }: StepRecord): string {
  return note === undefined ? outcome : `${outcome}: ${note.replaceAll("|", "/").replaceAll("\n", " ")}`;
}
