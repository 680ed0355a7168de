import type { RotationResult } from "../domain/rotation.ts";
import { table } from "./output.ts";
import { clock } from "./watch.ts";

/** The result of a rotation for people: keys, times, and whatever is not as it should be. */
export function describeResult(result: RotationResult): string {
  const { times } = result;
  const time = (at: string | undefined): string | undefined => (at === undefined ? undefined : clock(at));
  const rows: [string, string | undefined][] = [
    ["old key", result.oldKey?.id],
    ["new key", result.newKey?.id],
    ["started", time(times.started)],
    ["issued", time(times.issued)],
    ["installed", time(times.installed)],
    ["verified", time(times.verified)],
    ["old key last used", time(times.lastUsed)],
    ["revoked", time(times.revoked)],
    ["confirmed dead", time(times.confirmedDead)],
    ["finished", time(times.finished)],
    ["next due", result.nextDue?.slice(0, 10)],
    ["unknown", result.unknown.length === 0 ? undefined : result.unknown.join("; ")],
    ...result.leftOver.map(({ id, why }): [string, string] => ["still alive", `${id}: ${why}`]),
    ...result.warnings.map((warning): [string, string] => ["warning", warning]),
  ];
  return `${result.slot}: ${headline(result)}\n${table(rows)}`;
}

function headline({ outcome, reason }: RotationResult): string {
  switch (outcome) {
    case "rotated":
      return `rotated (${reason})`;
    case "cut":
      return `the old key is cut, and no new one is in (${reason})`;
    case "kept":
      return `not rotated: ${reason}`;
    case "aborted":
      return `stopped: ${reason}`;
    case "joined":
      return `joined the rotation that was running (${reason})`;
  }
}
