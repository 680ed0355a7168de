/**
 * `npm run mutants [-- promise | name | test file …]`: breaks keyturn on purpose, one patch at a time, each in a copy of
 * this checkout, and sees the test that is named for it fail. First each test must pass without any patch. Exit code 1
 * when a mutant survives; 2 when nothing is called so. See test/mutants.
 *
 * `npm run mutants -- --stories [name …]`: brings back faults that keyturn had, and sees the stories find each of them,
 * within 2,000 stories, by themselves. First the stories must pass without any patch.
 */
import { CheckoutCopy } from "../test/mutants/checkout-copy.ts";
import { promises } from "../test/mutants/list.ts";
import { type Catcher, type Mutant, type StoryMutant, wantsTheMachine } from "../test/mutants/mutant.ts";
import { storyMutants } from "../test/mutants/story-list.ts";
import { playStories, storiesEnough, type StoriesRun } from "../test/mutants/story-run.ts";
import { judge, runTests, type Verdict } from "../test/mutants/test-run.ts";
import { readableMs } from "../src/domain/duration.ts";

/** One run of tests is ended after this long, and proves nothing then. */
const boundMs = { alone: 4 * 60_000, many: 8 * 60_000 };
/** Tests that share a machine well run so many at a time. */
const lanes = 2;

type Numbered = Mutant & { promise: number };

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stop.abort());

function chosen(words: string[]): Numbered[] {
  const all = promises.flatMap(({ promise, mutants }) => mutants.map((mutant) => ({ ...mutant, promise })));
  const fits = (word: string, { name, promise, caughtBy }: Numbered): boolean =>
    word === String(promise) || word === name || caughtBy.file.startsWith(word);
  const unknown = words.filter((word) => !all.some((mutant) => fits(word, mutant)));
  if (unknown.length > 0) {
    console.error(`nothing is called ${unknown.join(", ")}: give promises by number, mutants by name, or test files`);
    process.exit(2);
  }
  return words.length === 0 ? all : all.filter((mutant) => words.some((word) => fits(word, mutant)));
}

function keyOf({ file, test, env = {} }: Catcher): string {
  return JSON.stringify([file, test, env]);
}

/** Runs each test once without any patch, and returns what is wrong with those that are not green. */
async function withoutPatch(mutants: Numbered[]): Promise<Map<string, Verdict>> {
  const catchers = [...new Map(mutants.map(({ caughtBy }) => [keyOf(caughtBy), caughtBy])).values()];
  const [alone, together] = [true, false].map((is) => catchers.filter((catcher) => wantsTheMachine(catcher) === is));
  const files = [...new Set(alone?.map(({ file }) => file))];
  const runs = [together ?? [], ...files.map((name) => catchers.filter(({ file }) => file === name))];
  const notGreen = new Map<string, Verdict>();
  const copy = new CheckoutCopy();
  try {
    if (catchers.some(({ build }) => build)) copy.build();
    for (const group of runs.filter(({ length }) => length > 0)) {
      if (stop.signal.aborted) break;
      const env = Object.assign({}, ...group.map((catcher) => catcher.env));
      const run = await runTests(copy.directory, group, { boundMs: boundMs.many, env, stop: stop.signal });
      for (const catcher of group) {
        const verdict = judge(run, catcher);
        if (verdict.kind !== "green") notGreen.set(keyOf(catcher), verdict);
      }
    }
  } finally {
    copy.remove();
  }
  return notGreen;
}

async function withPatch({ caughtBy, ...patch }: Numbered): Promise<Verdict> {
  const copy = new CheckoutCopy();
  try {
    copy.patch(patch);
    if (caughtBy.build) copy.build();
    const { env = {} } = caughtBy;
    const run = await runTests(copy.directory, [caughtBy], { boundMs: boundMs.alone, env, stop: stop.signal });
    return judge(run, caughtBy);
  } catch (error) {
    return { kind: "unclear", why: error instanceof Error ? error.message : String(error) };
  } finally {
    copy.remove();
  }
}

function tell({ name, promise, caughtBy }: Numbered, verdict: Verdict, ms: number): void {
  const how = { red: "caught", green: "SURVIVED", unclear: "UNCLEAR" }[verdict.kind];
  const why = verdict.kind === "unclear" ? `\n          ${verdict.why}` : "";
  const time = readableMs(ms).padStart(6);
  console.log(`${how.padEnd(8)} ${time}  promise ${promise}: ${name}  (${caughtBy.file}: ${caughtBy.test})${why}`);
}

async function byTests(words: string[]): Promise<void> {
  const startedMs = Date.now();
  const mutants = chosen(words);
  console.log(`without any patch: the tests that are to catch ${mutants.length} mutants`);
  const notGreen = await withoutPatch(mutants);
  for (const [key, verdict] of notGreen) {
    console.log(`NOT GREEN ${key}${verdict.kind === "unclear" ? `\n          ${verdict.why}` : ""}`);
  }
  console.log(`took ${readableMs(Date.now() - startedMs)}`);

  let caught = 0;
  async function work(queue: Numbered[]): Promise<void> {
    for (let mutant = queue.shift(); mutant !== undefined && !stop.signal.aborted; mutant = queue.shift()) {
      const fromMs = Date.now();
      const verdict = await withPatch(mutant);
      if (stop.signal.aborted) return;
      if (verdict.kind === "red") caught++;
      tell(mutant, verdict, Date.now() - fromMs);
    }
  }

  const ready = mutants.filter(({ caughtBy }) => !notGreen.has(keyOf(caughtBy)));
  const light = ready.filter(({ caughtBy }) => !wantsTheMachine(caughtBy));
  await Promise.all(Array.from({ length: lanes }, () => work(light)));
  await work(ready.filter(({ caughtBy }) => wantsTheMachine(caughtBy)));

  const tail = stop.signal.aborted ? ", stopped by hand" : "";
  console.log(`${caught} of ${mutants.length} mutants caught in ${readableMs(Date.now() - startedMs)}${tail}`);
  process.exitCode = caught === mutants.length ? 0 : 1;
}

function chosenStories(words: string[]): StoryMutant[] {
  const unknown = words.filter((word) => !storyMutants.some(({ name }) => name === word));
  if (unknown.length > 0) {
    console.error(`no mutant for the stories is called ${unknown.join(", ")}`);
    process.exit(2);
  }
  return words.length === 0 ? storyMutants : storyMutants.filter(({ name }) => words.includes(name));
}

/** What stories say in a copy of this checkout, with a patch or without any. */
async function inStories(foundBy: StoryMutant["foundBy"], patch?: StoryMutant): Promise<StoriesRun> {
  const copy = new CheckoutCopy();
  try {
    if (patch !== undefined) copy.patch(patch);
    copy.build();
    return await playStories(copy.directory, foundBy, stop.signal);
  } catch (error) {
    return { kind: "unclear", why: error instanceof Error ? error.message : String(error) };
  } finally {
    copy.remove();
  }
}

function tellStories(name: string, { stories }: StoryMutant["foundBy"], run: StoriesRun, ms: number): void {
  const said = {
    found: () => (run.kind === "found" ? `found after ${run.stories}: ${run.says}` : ""),
    none: () => `nothing in ${storiesEnough[stories]} stories`,
    unclear: () => (run.kind === "unclear" ? `UNCLEAR: ${run.why}` : ""),
  }[run.kind]();
  console.log(`${readableMs(ms).padStart(6)}  ${name}: ${said}`);
}

async function byStories(words: string[]): Promise<void> {
  const startedMs = Date.now();
  const mutants = chosenStories(words);
  const forms = new Map(mutants.map(({ foundBy }) => [JSON.stringify(foundBy), foundBy]));
  const sound = new Set<string>();
  for (const [key, foundBy] of forms) {
    const fromMs = Date.now();
    const run = await inStories(foundBy);
    if (run.kind === "none") sound.add(key);
    tellStories(
      `without any patch, stories of ${foundBy.stories}, seed ${foundBy.seed}`,
      foundBy,
      run,
      Date.now() - fromMs,
    );
  }
  let found = 0;
  const queue = mutants.filter(({ foundBy }) => sound.has(JSON.stringify(foundBy)));
  const work = async (): Promise<void> => {
    for (let mutant = queue.shift(); mutant !== undefined && !stop.signal.aborted; mutant = queue.shift()) {
      const fromMs = Date.now();
      const run = await inStories(mutant.foundBy, mutant);
      if (stop.signal.aborted) return;
      if (run.kind === "found") found++;
      tellStories(
        run.kind === "none" ? `SURVIVED ${mutant.name}` : mutant.name,
        mutant.foundBy,
        run,
        Date.now() - fromMs,
      );
    }
  };
  await Promise.all(Array.from({ length: lanes }, work));
  console.log(`${found} of ${mutants.length} mutants found by stories in ${readableMs(Date.now() - startedMs)}`);
  process.exitCode = found === mutants.length ? 0 : 1;
}

const [first, ...rest] = process.argv.slice(2);
if (first === "--stories") await byStories(rest);
else await byTests(first === undefined ? [] : [first, ...rest]);
