/** A length of time with its unit, as in `keyturn.yaml`: `"500ms"`, `"30s"`, `"15m"`, `"24h"`, `"90d"`. */
export type Duration = string & { readonly unit: "duration" };

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const durationPattern = /^(?<amount>\d+(?:\.\d+)?)(?<unit>ms|s|m|h|d)$/;

/** Whether the text is a number with one of the units ms, s, m, h, d. */
export function isDuration(text: string): text is Duration {
  return durationPattern.test(text);
}

/** The duration in milliseconds. Throws a `RangeError` for text that is not one. */
export function inMs(duration: Duration): number {
  const groups = durationPattern.exec(duration)?.groups;
  if (groups === undefined) throw new RangeError(`"${duration}" is not a duration such as 30s, 15m or 90d`);
  return Math.round(Number(groups["amount"]) * unitMs[groups["unit"] as keyof typeof unitMs]);
}

/** The duration that is this many milliseconds long. */
export function durationOf(ms: number): Duration {
  return `${Math.max(0, Math.round(ms))}ms` as Duration;
}

/** Milliseconds for people: the two largest units that matter (`1h 5m`, `12.5s`, `340ms`). */
export function readableMs(ms: number): string {
  if (Math.round(ms) < 1_000) return `${Math.max(0, Math.round(ms))}ms`;
  if (ms < 59_950) return `${Number((ms / 1_000).toFixed(1))}s`;
  const parts: string[] = [];
  let rest = Math.round(ms / 1_000);
  for (const [unit, seconds] of [
    ["d", 86_400],
    ["h", 3_600],
    ["m", 60],
    ["s", 1],
  ] as const) {
    const amount = Math.floor(rest / seconds);
    rest %= seconds;
    if (amount > 0) parts.push(`${amount}${unit}`);
  }
  return parts.slice(0, 2).join(" ");
}
