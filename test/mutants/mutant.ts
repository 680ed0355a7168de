import type { Replacement } from "../support/replacement.ts";

/** keyturn as it would be if it broke one of its promises: one change of its source, and the test that must notice. */
export interface Mutant extends Replacement {
  /** What is broken, in a few words joined by hyphens. */
  name: string;
  /** The source file that is changed. */
  file: string;
  caughtBy: Catcher;
}

/** The test that a mutant must turn red, by an assertion of its own. */
export interface Catcher {
  file: string;
  /** Its name as Vitest prints it, groups and test joined by ` > `; `*` stands for any text in one of them. */
  test: string;
  /** Set where the test runs the build: the command line, or a worker that is a process of its own. */
  build?: true;
  /** More of the environment that the test runs in. */
  env?: Record<string, string>;
}

/** A fault that keyturn once had, brought back by one change, which the stories have to find: no test is named for it. */
export interface StoryMutant extends Replacement {
  /** What is broken, in a few words joined by hyphens. */
  name: string;
  /** The source file that is changed. */
  file: string;
  foundBy: {
    /** Those of whole runs (test/stories), or those of single activities (test/stories2). */
    stories: "workflows" | "activities";
    /** Of the first story. */
    seed: number;
  };
}

/** One promise, and the mutants that break it. */
export interface PromiseMutants {
  promise: number;
  words: string;
  mutants: Mutant[];
}

/** Whether the test shares its machine badly: it times real traffic, or starts processes and kills them. */
export function wantsTheMachine({ file }: Catcher): boolean {
  return /^test\/(?:cli|e2e|faults)\//.test(file);
}

/** What the whole name of the test must match, its parts joined as `separator` says. */
export function namePattern({ test }: Catcher, separator: string): RegExp {
  const escaped = test.replaceAll(/[\\^$.+?()[\]{}|/]/g, "\\$&").replaceAll("*", "[^>]*");
  return new RegExp(`^${escaped.replaceAll(" > ", separator)}$`);
}
