import { readableMs } from "../../domain/duration.ts";
import type { Progress, RotationTimes, StepRecord } from "../../domain/rotation.ts";

/** The rotation as Markdown, for the Temporal UI: what it waits for, its moments, and a table of its steps. */
export function describeProgress({ waiting, steps, oldKey, newKey, times }: Progress): string {
  const keys = `old key \`${oldKey?.id ?? "not known yet"}\`, new key \`${newKey?.id ?? "none yet"}\``;
  const wait =
    waiting === null
      ? []
      : [
          `**Waiting for** ${waiting.for}, since ${day(waiting.since)}, until ${day(waiting.until)} UTC; then ${waiting.then}.`,
          ...(waiting.action === undefined ? [] : [`**What to do:** ${waiting.action}`]),
        ];
  // As code, since the UI draws no lines between the columns.
  const rows = steps.map(
    (step) => `| ${step.step} | \`${clock(step.started)}\` | \`${took(step)}\` | ${ending(step)} |`,
  );
  const head = ["| step | began (UTC) | took | how it ended |", "|---|---|---|---|"];
  return [...wait, keys, "", ...moments(times), ...head, ...rows].join("\n");
}

const told: [keyof RotationTimes, string][] = [
  ["installed", "new key installed"],
  ["verified", "verified"],
  ["lastUsed", "old key last used"],
  ["revoked", "revoked"],
  ["confirmedDead", "confirmed dead"],
];

function moments(times: RotationTimes): string[] {
  const reached = told.flatMap(([moment, words]) => {
    const at = times[moment];
    return at === undefined ? [] : [`${words} ${clock(at)}`];
  });
  return reached.length === 0 ? [] : [reached.join(", "), ""];
}

function clock(at: string): string {
  return at.slice(11, 19);
}

function day(at: string): string {
  return `${at.slice(0, 10)} ${clock(at)}`;
}

function took({ started, ended }: StepRecord): string {
  return ended === undefined ? "…" : readableMs(Date.parse(ended) - Date.parse(started));
}

function ending({ outcome, note }: StepRecord): string {
  if (note === undefined) return outcome;
  const times = note.replaceAll(/(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z/g, "$1 $2");
  return `${outcome}: ${times.replaceAll("|", "/").replaceAll("\n", " ")}`;
}
