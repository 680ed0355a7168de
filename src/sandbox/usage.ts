/**
 * Usage as providers tell it: in buckets, late, out of order, sometimes in two parts. A bucket's rows
 * arrive `minMs` to `minMs + jitterMs` after its end; with disorder, one pair of neighbours in four
 * swaps its arrivals, and one bucket in four shows at first only its first part, the rest half a bucket later.
 */
import type { Clock } from "./clock.ts";
import type { Settings, UsageLag } from "./options.ts";
import { chance } from "./random.ts";

/** One model call. */
export interface UsageEvent {
  /** Which report it belongs in, for example `completions`. */
  surface: string;
  keyId: string;
  project: string;
  model: string;
  tokensIn: number;
  tokensOut: number;
  costUsd: number;
}

/** Sums over one bucket. */
export interface UsageRow extends UsageEvent {
  requests: number;
}

interface Kept {
  /** What came in the first part of the bucket, and what came later. */
  parts: [UsageRow, UsageRow];
}

export interface UsageBucket {
  startMs: number;
  endMs: number;
  rows: UsageRow[];
}

export interface UsageQuery {
  startMs: number;
  endMs: number;
  widthMs: number;
}

export interface Usage {
  add(event: UsageEvent): void;
  /** Width of the bucket called `1m`, in milliseconds. */
  minuteMs(): number;
  /** Buckets from the one that holds `startMs` to the last that begins before `endMs`, as far as rows have arrived. */
  buckets(query: UsageQuery): UsageBucket[];
  /** Only those with rows, oldest first: cheap however long the time asked for. */
  filled(query: UsageQuery): UsageBucket[];
  /** Until when the data is sure to be whole, by the lag and the disorder that are set. */
  wholeUntil(): number;
}

const keptBuckets = 60_000;
/** How much of a bucket the first part of a two-part arrival covers. */
const firstPart = 0.5;

export function createUsage(parts: { clock: Clock; settings: Settings; provider: string }): Usage {
  const { clock, settings, provider } = parts;
  const minuteMs = (): number => clock.span(60_000);
  const buckets = new Map<number, Map<string, Kept>>();

  /** When the rows of a bucket turn up: the first part, and the rest. */
  function arrivals(index: number): [number, number] {
    const lag: UsageLag = settings.usageLag[provider] ?? { minMs: 0, jitterMs: 0 };
    const odds = (what: number, of: number): number => chance(settings.seed * 7_919 + of * 4 + what)();
    const pair = Math.floor(index / 2);
    const swapped = settings.usageDisorder && odds(0, pair) < 0.25;
    const partial = settings.usageDisorder && odds(1, index) < 0.25;
    const stand = swapped ? index + (index % 2 === 0 ? 1 : -1) : index;
    const usual = (stand + 1) * minuteMs() + clock.span(lag.minMs + odds(2, stand) * lag.jitterMs);
    // A swap may hurry a bucket, but never to before the lag has passed.
    const first = Math.max(usual, (index + 1) * minuteMs() + clock.span(lag.minMs));
    return [first, partial ? first + minuteMs() / 2 : first];
  }

  function filled({ startMs, endMs, widthMs }: UsageQuery): UsageBucket[] {
    const now = clock.now();
    const minute = minuteMs();
    const until = Math.min(endMs, now);
    const firstIndex = Math.floor(startMs / widthMs);
    const byIndex = new Map<number, UsageBucket>();
    for (const [index, rows] of buckets) {
      const place = Math.floor((index * minute + minute / 2) / widthMs);
      if (place < firstIndex || place * widthMs >= until) continue;
      const [first, rest] = arrivals(index);
      if (first > now) continue;
      let bucket = byIndex.get(place);
      if (bucket === undefined) {
        byIndex.set(place, (bucket = { startMs: place * widthMs, endMs: (place + 1) * widthMs, rows: [] }));
      }
      for (const { parts } of rows.values()) {
        if (parts[0].requests > 0) bucket.rows.push(parts[0]);
        if (rest <= now && parts[1].requests > 0) bucket.rows.push(parts[1]);
      }
    }
    return [...byIndex.values()]
      .filter(({ rows }) => rows.length > 0)
      .sort((one, other) => one.startMs - other.startMs);
  }

  return {
    minuteMs,
    filled,
    wholeUntil() {
      const { minMs, jitterMs } = settings.usageLag[provider] ?? { minMs: 0, jitterMs: 0 };
      return clock.now() - clock.span(minMs + jitterMs) - 1.5 * minuteMs();
    },
    add(event) {
      const now = clock.now();
      const width = minuteMs();
      const index = Math.floor(now / width);
      let rows = buckets.get(index);
      if (rows === undefined) {
        buckets.set(index, (rows = new Map()));
        if (buckets.size > keptBuckets) {
          const oldest = buckets.keys().next().value;
          if (oldest !== undefined) buckets.delete(oldest);
        }
      }
      const name = `${event.surface}|${event.keyId}|${event.model}|${event.project}`;
      let kept = rows.get(name);
      if (kept === undefined) {
        const empty = { ...event, tokensIn: 0, tokensOut: 0, costUsd: 0, requests: 0 };
        rows.set(name, (kept = { parts: [{ ...empty }, { ...empty }] }));
      }
      const row = kept.parts[now - index * width < width * firstPart ? 0 : 1];
      row.requests++;
      row.tokensIn += event.tokensIn;
      row.tokensOut += event.tokensOut;
      row.costUsd += event.costUsd;
    },
    buckets(query) {
      const { startMs, endMs, widthMs } = query;
      const rows = new Map(filled(query).map((bucket) => [Math.round(bucket.startMs / widthMs), bucket.rows]));
      const answer: UsageBucket[] = [];
      const until = Math.min(endMs, clock.now());
      for (let index = Math.floor(startMs / widthMs); index * widthMs < until; index++) {
        answer.push({ startMs: index * widthMs, endMs: (index + 1) * widthMs, rows: rows.get(index) ?? [] });
      }
      return answer;
    },
  };
}

/** Adds up rows that agree in the named fields. */
export function grouped(rows: readonly UsageRow[], fields: readonly (keyof UsageRow)[]): UsageRow[] {
  const sums = new Map<string, UsageRow>();
  for (const row of rows) {
    const name = fields.map((field) => String(row[field])).join("|");
    const sum = sums.get(name);
    if (sum === undefined) {
      sums.set(name, { ...row });
      continue;
    }
    sum.requests += row.requests;
    sum.tokensIn += row.tokensIn;
    sum.tokensOut += row.tokensOut;
    sum.costUsd += row.costUsd;
  }
  return [...sums.values()];
}
