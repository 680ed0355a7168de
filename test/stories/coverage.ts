import { escalationRows } from "../../src/domain/escalation.ts";
import type { RotationResult } from "../../src/domain/rotation.ts";
import { chainsOf, toldOf } from "./judge.ts";
import type { Played } from "./play.ts";
import { faultsOf } from "./story.ts";

/** What stories met, counted over many: a judge that never sees a case says nothing of it. */

export interface Coverage {
  stories: number;
  installed: number;
  compromised: number;
  rows: Record<string, number>;
  fates: Record<string, number>;
  faults: Record<string, number>;
  outcomes: Record<string, number>;
}

/** Each role and fate a result can tell of. */
export const rolesAndFates = [
  "old held",
  "old ended",
  "old named",
  "new held",
  "new ended",
  "new named",
  "handed-in held",
  "handed-in ended",
  "handed-in named",
  "compromised ended",
  "compromised named",
  "earlier named",
  "earlier ended",
];

/** What no story can meet, and why. */
export const unmet: Record<string, string> = {
  "compromised held": "a compromised key is cut or named: that a slot holds it is no end of it",
  "earlier held": "a person who edits a slot puts a fresh key in, never one that a run had left behind",
};

export function noCoverage(): Coverage {
  return { stories: 0, installed: 0, compromised: 0, rows: {}, fates: {}, faults: {}, outcomes: {} };
}

function add(counts: Record<string, number>, name: string, by = 1): void {
  counts[name] = (counts[name] ?? 0) + by;
}

/** Rows of the escalation table are known by their sentences, since an answer does not name its row. */
const sentences = escalationRows.flatMap((row) =>
  (["revoke", "hold"] as const).flatMap((atDeadline) =>
    ["\u0001", undefined].map((by) => {
      const says = row.says({ keyId: "\u0001", slot: "\u0001", by, atDeadline, holders: ["\u0001"] });
      const pattern = says.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`).replaceAll("\u0001", ".+");
      return { name: row.name, pattern: new RegExp(`^${pattern}$`) };
    }),
  ),
);

export function count(coverage: Coverage, played: Played): void {
  const { world, met, ground } = played;
  const chains = chainsOf(played);
  coverage.stories += 1;
  if (world.writes.some(({ by }) => by.activity === "installKey")) coverage.installed += 1;
  if (toldOf(played, chains).length > 0) coverage.compromised += 1;
  const seen = new Set<string>();
  for (const { activity, kind } of met) seen.add(`${activity} ${kind}`);
  for (const name of seen) add(coverage.faults, name);
  for (const { heard } of ground.runs) {
    for (const { answer } of heard) {
      const says = (answer?.value?.value as { says?: string } | undefined)?.says;
      const row = says === undefined ? undefined : sentences.find(({ pattern }) => pattern.test(says));
      if (row !== undefined) add(coverage.rows, row.name);
    }
  }
  for (const { last, result } of chains) {
    for (const { role, fate } of result?.keys ?? []) add(coverage.fates, `${role} ${fate}`);
    const how = (last.result as RotationResult | undefined)?.outcome ?? last.failure?.type ?? last.status;
    add(coverage.outcomes, how);
  }
}

export function sum(all: Coverage[]): Coverage {
  const total = noCoverage();
  for (const one of all) {
    total.stories += one.stories;
    total.installed += one.installed;
    total.compromised += one.compromised;
    for (const part of ["rows", "fates", "faults", "outcomes"] as const) {
      for (const [name, times] of Object.entries(one[part])) add(total[part], name, times);
    }
  }
  return total;
}

/** What was met too seldom for this many stories: twenty times in twenty thousand, half installed, a third compromised. */
export function gaps(coverage: Coverage): string[] {
  const { stories } = coverage;
  const least = Math.floor(stories / 1_000);
  const missing: string[] = [];
  if (stories === 0) return missing;
  if (coverage.installed * 2 < stories)
    missing.push(`only ${coverage.installed} of ${stories} stories pass installKey`);
  if (coverage.compromised * 3 < stories)
    missing.push(`only ${coverage.compromised} of ${stories} stories meet a compromise`);
  const need = (kind: string, names: string[], counts: Record<string, number>): void => {
    for (const name of names) {
      const times = counts[name] ?? 0;
      if (times < least) missing.push(`${kind} "${name}": ${times} of ${least}`);
    }
  };
  need(
    "escalation row",
    escalationRows.map(({ name }) => name),
    coverage.rows,
  );
  need("role and fate", rolesAndFates, coverage.fates);
  need(
    "fault",
    faultsOf.map(([activity, kind]) => `${activity} ${kind}`),
    coverage.faults,
  );
  return missing;
}

export function coverageLines(coverage: Coverage): string[] {
  const { stories, installed, compromised } = coverage;
  const percent = (part: number): string => `${stories === 0 ? 0 : Math.round((part * 100) / stories)} %`;
  const table = (counts: Record<string, number>): string[] =>
    Object.entries(counts)
      .toSorted(([, a], [, b]) => b - a)
      .map(([name, times]) => `  ${String(times).padStart(7)}  ${name}`);
  return [
    `${stories} stories: ${percent(installed)} pass installKey, ${percent(compromised)} meet a compromise`,
    "outcomes",
    ...table(coverage.outcomes),
    "escalation rows",
    ...table(coverage.rows),
    "roles and fates",
    ...table(coverage.fates),
    ...Object.entries(unmet).map(([name, why]) => `        -  ${name}: ${why}`),
    "faults by step",
    ...table(coverage.faults),
  ];
}
