import fc from "fast-check";

import { playStory } from "./play.ts";
import { type Story, stories } from "./story.ts";

export interface Wanted {
  count: number;
  /** The first story's; the n-th has the n-th after it. */
  seed: number;
  print: (line: string) => void;
  /** How many are played at once: most of their time they wait. */
  atOnce?: number;
  /** How long a story that went wrong is made smaller. */
  shrinkMs?: number;
}

export interface Told {
  passed: number;
  failed: number;
  /** How many stories met what. */
  met: Map<string, number>;
}

/**
 * Plays stories of the real activities against the sandbox. Story n is made of `seed + n`, so that one can be told again
 * alone. Prints the seed and the smallest form of each story that went wrong, and closes with a line that counts.
 */
export async function playActivityStories({
  count,
  seed,
  print,
  atOnce = 6,
  shrinkMs = 20_000,
}: Wanted): Promise<Told> {
  const told: Told = { passed: 0, failed: 0, met: new Map() };
  const beganAt = performance.now();
  print(`activity stories: seed ${seed}, ${count} of them`);
  let next = 0;
  const tell = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) {
      const wrong = await playOne(seed + index, told.met, shrinkMs);
      if (wrong === undefined) told.passed += 1;
      else {
        told.failed += 1;
        print(wrong);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, tell));
  for (const [what, times] of [...told.met].sort(([one], [other]) => one.localeCompare(other))) {
    print(`${String(times).padStart(6)}  ${what}`);
  }
  const seconds = (performance.now() - beganAt) / 1_000;
  print(`${(count / seconds).toFixed(2)} stories a second`);
  print(`${told.passed} passed, ${told.failed} failed`);
  return told;
}

/** What went wrong in the smallest form of one story, in words; undefined where nothing did. */
async function playOne(seed: number, met: Map<string, number>, shrinkMs: number): Promise<string | undefined> {
  const story = storyOf(seed);
  const played = await playStory(story);
  for (const what of played.met) met.set(what, (met.get(what) ?? 0) + 1);
  if (played.violations.length === 0) return undefined;
  let smallest = { story, played };
  const { numShrinks } = await fc.check(
    fc.asyncProperty(stories, async (smaller) => {
      const again = await playStory(smaller);
      if (again.violations.length === 0) return;
      smallest = { story: smaller, played: again };
      throw new Error("still wrong");
    }),
    { seed, numRuns: 1, interruptAfterTimeLimit: shrinkMs },
  );
  return [
    `seed ${seed}: ${played.violations.join("; ")}`,
    `after ${numShrinks} shrinks: ${smallest.played.violations.join("; ")}`,
    JSON.stringify(smallest.story),
    ...smallest.played.log.map((line) => `  ${line}`),
  ].join("\n");
}

/** The story that a check with this seed begins with: `fc.sample` makes another one. */
export function storyOf(seed: number): Story {
  let first: Story | undefined;
  fc.check(
    fc.property(stories, (story) => {
      first ??= story;
    }),
    { seed, numRuns: 1 },
  );
  if (first === undefined) throw new RangeError("no story was made");
  return first;
}
