import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

import type { StoryMutant } from "./mutant.ts";

/** Within so many stories a fault has to be found: those of single activities are slow, and each is about fewer things. */
export const storiesEnough = { workflows: 2_000, activities: 1_000 };
/** Stories of single activities are told of when a run of them is over: so many are a run. */
const activitiesAtATime = 60;

export type StoriesRun =
  | { kind: "found"; stories: number; says: string }
  | { kind: "none" }
  | { kind: "unclear"; why: string };

/** Plays stories in a copy until one fails, or enough were played. */
export async function playStories(
  directory: string,
  { stories, seed }: StoryMutant["foundBy"],
  stop: AbortSignal,
): Promise<StoriesRun> {
  if (stories === "workflows") return ofWorkflows(directory, seed, stop);
  for (let played = 0; played < storiesEnough.activities && !stop.aborted; played += activitiesAtATime) {
    const run = await ofActivities(directory, seed + played, stop);
    if (run.kind === "found") return { ...run, stories: played + run.stories };
    if (run.kind === "unclear") return run;
  }
  return { kind: "none" };
}

async function ofWorkflows(directory: string, seed: number, stop: AbortSignal): Promise<StoriesRun> {
  // One worker, so that they are played one after the other and the first that fails is known by its number.
  const args = ["--count", `${storiesEnough.workflows}`, "--seed", `${seed}`, "--workers", "1", "--no-gate"];
  return untilOneFails(directory, ["--enable-source-maps", "dist/scripts/stories.js", ...args], {}, stop, (line) => {
    const [, index, says = ""] = /^story \d+:(\d+) fails: (.*)$/.exec(line) ?? [];
    return index === undefined ? undefined : { stories: Number(index) + 1, says };
  });
}

async function ofActivities(directory: string, seed: number, stop: AbortSignal): Promise<StoriesRun> {
  const args = ["node_modules/vitest/vitest.mjs", "run", "test/stories2/activities.stories.test.ts", "--no-cache"];
  const env = { KEYTURN_ACTIVITY_STORIES: `${activitiesAtATime}`, KEYTURN_STORIES_SEED: `${seed}` };
  return untilOneFails(directory, args, env, stop, (line) => {
    const [, its, says = ""] = /^seed (\d+)(?: \(.*?\))?: (.*)$/.exec(line) ?? [];
    return its === undefined ? undefined : { stories: Number(its) - seed + 1, says };
  });
}

/** Runs it and leaves nothing running; ended as soon as a line tells of a story that failed. */
async function untilOneFails(
  directory: string,
  args: string[],
  env: Record<string, string>,
  stop: AbortSignal,
  failureIn: (line: string) => { stories: number; says: string } | undefined,
): Promise<StoriesRun> {
  const child = spawn(process.execPath, args, {
    cwd: directory,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const end = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // none of it is left
    }
  };
  stop.addEventListener("abort", end, { once: true });
  const exited = once(child, "exit");
  let found: StoriesRun | undefined;
  let passed = false;
  let last = "";
  const read = async (stream: NodeJS.ReadableStream): Promise<void> => {
    for await (const line of createInterface({ input: stream })) {
      if (line.trim() !== "") last = line;
      if (/^\d+ passed, 0 failed$/.test(line.trim())) passed = true;
      const failure = failureIn(line);
      if (failure === undefined || found !== undefined) continue;
      found = { kind: "found", ...failure };
      end();
    }
  };
  await Promise.all([read(child.stdout), read(child.stderr), exited]);
  stop.removeEventListener("abort", end);
  end();
  if (found !== undefined) return found;
  return passed
    ? { kind: "none" }
    : { kind: "unclear", why: `the stories did not come to their end: ${last.slice(0, 200)}` };
}
