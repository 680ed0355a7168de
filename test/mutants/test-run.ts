import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

import { type Catcher, namePattern } from "./mutant.ts";

/** What Vitest's reporter `json` writes, as far as it is read here. */
const report = z.object({
  testResults: z.array(
    z.object({
      message: z.string(),
      assertionResults: z.array(
        z.object({
          ancestorTitles: z.array(z.string()),
          title: z.string(),
          status: z.string(),
          failureMessages: z.array(z.string()).nullish(),
        }),
      ),
    }),
  ),
});

interface TestRun {
  /** The tests that ran, by their whole names. */
  tests: { name: string; error: string | undefined }[];
  /** What else went wrong: a file that could not be loaded, a hook that failed, no end in time. */
  trouble: string | undefined;
}

/** How a test took a mutant. Red for any other reason than an assertion of the test proves nothing. */
export type Verdict = { kind: "green" } | { kind: "red" } | { kind: "unclear"; why: string };

/** Runs these tests of one copy and nothing else, for so long at most, and leaves nothing running. */
export async function runTests(
  directory: string,
  catchers: Catcher[],
  { boundMs, env = {}, stop }: { boundMs: number; env?: Record<string, string>; stop: AbortSignal },
): Promise<TestRun> {
  const output = join(directory, "report.json");
  const files = [...new Set(catchers.map(({ file }) => file))];
  const names = catchers.map((catcher) => namePattern(catcher, " ").source);
  const child = spawn(
    process.execPath,
    ["node_modules/vitest/vitest.mjs", "run", ...files, "--testNamePattern", names.join("|")].concat([
      "--reporter=json",
      `--outputFile=${output}`,
      "--no-cache",
    ]),
    // A group of its own, so that whatever it forked can be ended with it; servers hang on their parents' lives.
    { cwd: directory, env: { ...process.env, ...env }, stdio: "ignore", detached: true },
  );
  const end = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // none of it is left
    }
  };
  const timer = setTimeout(end, boundMs);
  stop.addEventListener("abort", end, { once: true });
  await once(child, "exit");
  clearTimeout(timer);
  stop.removeEventListener("abort", end);
  end();
  if (child.signalCode !== null) return { tests: [], trouble: `it did not end in ${boundMs / 1_000} s` };
  if (!existsSync(output)) return { tests: [], trouble: "Vitest did not start" };

  const { testResults } = report.parse(JSON.parse(readFileSync(output, "utf8")));
  const ran = testResults.flatMap(({ assertionResults }) => assertionResults);
  return {
    tests: ran
      .filter(({ status }) => status === "passed" || status === "failed")
      .map(({ ancestorTitles, title, status, failureMessages }) => ({
        name: [...ancestorTitles, title].join(" > "),
        error: status === "failed" ? (failureMessages?.[0] ?? "it failed without a word") : undefined,
      })),
    trouble: testResults.map(({ message }) => message).find((message) => message !== ""),
  };
}

/** How an assertion fails, by the first words of its stack; that of `rejects` and `resolves` is a plain error. */
const assertion = /^(?:AssertionError\b|Error: promise (?:resolved|rejected) .* instead of (?:rejecting|resolving))/s;

/** What the run says of one of its tests. */
export function judge({ tests, trouble }: TestRun, catcher: Catcher): Verdict {
  const pattern = namePattern(catcher, " > ");
  const named = tests.filter(({ name }) => pattern.test(name));
  const errors = named.flatMap(({ error }) => (error === undefined ? [] : [error]));
  const [other] = errors.filter((error) => !assertion.test(error));
  if (other !== undefined) return { kind: "unclear", why: firstLine(other) };
  if (errors.length > 0) return { kind: "red" };
  if (trouble !== undefined) return { kind: "unclear", why: firstLine(trouble) };
  return named.length === 0 ? { kind: "unclear", why: "no such test ran" } : { kind: "green" };
}

function firstLine(text: string): string {
  return text.trim().split("\n")[0]?.slice(0, 200) ?? "";
}
