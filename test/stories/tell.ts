import fc from "fast-check";

import { count, type Coverage, noCoverage } from "./coverage.ts";
import type { workflowIsolate } from "./ground.ts";
import { chainsOf, judge, type Violation } from "./judge.ts";
import { type Played, playStory } from "./play.ts";
import { plainStory, type Story, story } from "./story.ts";

/** Plays many stories, and tells of one that fails so that it can be read and played again. */

type Isolate = Awaited<ReturnType<typeof workflowIsolate>>;

export interface Failed {
  seed: number;
  index: number;
  path: string;
  violations: Violation[];
  account: string;
}

export interface Told {
  passed: number;
  failed: Failed[];
  coverage: Coverage;
  tookMs: number;
}

/** Each so many stories is played again in another isolate, to see that its commands are the same. */
const replayEach = 25;

/** The stories of a seed, in their order: the same for the same seed, however many are asked for. */
export function* storiesOf(seed: number, from: number, to: number): Generator<{ index: number; told: Story }> {
  const many = 500;
  for (let block = Math.floor(from / many); block * many < to; block++) {
    const drawn = fc.sample(story, { seed: seed * 100_003 + block, numRuns: many });
    for (const [i, told] of drawn.entries()) {
      const index = block * many + i;
      if (index >= from && index < to) yield { index, told };
    }
  }
}

async function verdict(
  isolate: Isolate,
  told: Story,
  replay: boolean,
): Promise<{ played: Played; violations: Violation[] }> {
  const played = await playStory(isolate, told, { replay });
  return { played, violations: judge(played) };
}

export async function tellStories(
  isolate: Isolate,
  {
    seed,
    from = 0,
    to,
    shrink = 3,
    heard = () => undefined,
  }: { seed: number; from?: number; to: number; shrink?: number; heard?: (line: string) => void },
): Promise<Told> {
  const begun = Date.now();
  const coverage = noCoverage();
  const failed: Failed[] = [];
  let passed = 0;
  for (const { index, told } of storiesOf(seed, from, to)) {
    const { played, violations } = await verdict(isolate, told, index % replayEach === 0);
    count(coverage, played);
    if (violations.length === 0) {
      passed += 1;
      continue;
    }
    heard(`story ${seed}:${index} fails: ${violations[0]?.rule}: ${violations[0]?.says}`);
    const smaller = failed.length < shrink ? await shrunk(isolate, told, violations) : undefined;
    failed.push({
      seed,
      index,
      path: `${seed}:${index}`,
      violations: smaller?.violations ?? violations,
      account: accountOf(smaller?.played ?? played, smaller?.violations ?? violations),
    });
  }
  return { passed, failed, coverage, tookMs: Date.now() - begun };
}

/**
 * The smallest story found that breaks the same rule. Parts are left out one after the other, and what is left is set to
 * its plainest value, as long as the rule stays broken.
 */
async function shrunk(
  isolate: Isolate,
  first: Story,
  violations: Violation[],
): Promise<{ played: Played; violations: Violation[] } | undefined> {
  const rule = violations[0]?.rule;
  let best = first;
  let found: { played: Played; violations: Violation[] } | undefined;
  let tries = 0;
  const attempt = async (candidate: Story): Promise<boolean> => {
    if (tries++ > 150) return false;
    const tried = await verdict(isolate, candidate, false).catch(() => undefined);
    if (tried === undefined || !tried.violations.some((violation) => violation.rule === rule)) return false;
    best = candidate;
    found = tried;
    return true;
  };
  for (let again = true; again;) {
    again = false;
    for (const part of ["faults", "deeds"] as const) {
      for (let i = best[part].length - 1; i >= 0; i--) {
        if (await attempt({ ...best, [part]: best[part].filter((_, at) => at !== i) })) again = true;
      }
    }
    for (const [name, value] of Object.entries(plain)) {
      if (JSON.stringify(best[name as keyof Story]) === JSON.stringify(value)) continue;
      if (await attempt({ ...best, [name]: value })) again = true;
    }
    for (const [i, { attempts, calls }] of best.faults.entries()) {
      if (attempts === 1 && calls === 1) continue;
      const faults = best.faults.map((one, at) => (at === i ? { ...one, attempts: 1, calls: 1 } : one));
      if (await attempt({ ...best, faults })) again = true;
    }
  }
  return found;
}

/** What is set to its plainest value; faults and deeds are left out one by one. */
const { seed: _seed, slots: _slots, faults: _faults, deeds: _deeds, ...plain } = plainStory;

/** Who did what when, in the world and on the ground, and what is wrong with it. */
export function accountOf(played: Played, violations: Violation[]): string {
  const { world, ground, story: told, startedAt } = played;
  const time = (ms: number): string => {
    const s = (ms - startedAt) / 1_000;
    return `+${Math.floor(s / 3_600)}:${String(Math.floor(s / 60) % 60).padStart(2, "0")}:${(s % 60).toFixed(3).padStart(6, "0")}`;
  };
  const happened = [
    ...world.account.map(({ at, who, what }) => ({ at, line: `${who}: ${what}` })),
    ...ground.calls.map(({ scheduledAt, endedAt, name, run, attempts, outcome, failure, order, nth }) => ({
      at: scheduledAt,
      line: `    ${run.workflowId} ${name}#${nth} ${keyIn(order)}x${attempts} ${outcome ?? "open"}${endedAt === undefined ? "" : ` at ${time(endedAt)}`}${failure === undefined ? "" : ` (${failure.type}: ${failure.message})`}`,
    })),
  ].toSorted((a, b) => a.at - b.at);
  // Long refusals are told by their first and last attempts.
  const shown = happened.length > 260 ? [...happened.slice(0, 200), undefined, ...happened.slice(-50)] : happened;
  const { slots: _slots, ...drawn } = told;
  return [
    `the story: ${JSON.stringify(drawn)}`,
    ...shown.map((one) => (one === undefined ? "  …" : `${time(one.at)} ${one.line}`)),
    ...chainsOf(played).map(({ workflowId, last, result }) => {
      const keys = (result?.keys ?? []).map(
        ({ id, role, fate, why, at }) => `${id} ${role} ${fate} ${why ?? at ?? ""}`,
      );
      return `${workflowId} ${last.status} ${result?.outcome ?? ""} ${last.failure?.type ?? ""}: ${result?.reason ?? last.failure?.message ?? ""}\n    keys: ${keys.join(" | ")}\n    warnings: ${(result?.warnings ?? []).join(" | ")}`;
    }),
    ...violations.map(({ rule, says }) => `VIOLATION ${rule}: ${says}`),
  ].join("\n");
}

function keyIn(order: Record<string, unknown>): string {
  const { keyId, key, keyIds } = order as { keyId?: string; key?: { id: string }; keyIds?: string[] };
  const id = keyId ?? key?.id ?? keyIds?.join(",");
  return id === undefined ? "" : `${id} `;
}
