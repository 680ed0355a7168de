/**
 * `npm run mutants [-- promise | name | test file …]`: breaks keyturn on purpose, one patch at a time, each in a copy of
 * this checkout, and sees the test that is named for it fail. First each test must pass without any patch. Exit code 1
 * when a mutant survives; 2 when nothing is called so. See test/mutants.
 */
import { CheckoutCopy } from "../test/mutants/checkout-copy.ts";
import { promises } from "../test/mutants/list.ts";
import { type Catcher, type Mutant, wantsTheMachine } from "../test/mutants/mutant.ts";
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

const startedMs = Date.now();
const mutants = chosen(process.argv.slice(2));
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
