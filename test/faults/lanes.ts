import { everything, seed, someOf, wanted } from "../support/sample.ts";
import { type Subject, subjects } from "./subjects.ts";

/** Does the work for each item, in so many lanes at a time as there are; returns what went wrong, in words. */
export async function overLanes<Lane, Item>(
  lanes: Lane[],
  items: Item[],
  work: (lane: Lane, item: Item) => Promise<void>,
): Promise<string[]> {
  const failures: string[] = [];
  const queue = [...items];
  await Promise.all(
    lanes.map(async (lane) => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
        if (everything && queue.length % 25 === 0) tell(`${new Date().toISOString()} ${queue.length} to begin`);
        try {
          await work(lane, item);
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          tell(`failed: ${message}`);
          failures.push(message);
        }
      }
    }),
  );
  return failures;
}

/** Whether each subject has lanes of its own (`npm run test:faults`), or most of them share a few (`npm test`). */
export const atLength = wanted !== "";

const only = process.env["KEYTURN_FAULTS_ONLY"];

/** Subjects that are rotated in the same lanes. */
export interface Group {
  name: string;
  subjects: Subject[];
  /** How many moments of each are tried. */
  moments: number;
}

/** How many subjects beside the first have their turn on one day. */
const turnsADay = 2;

/**
 * At length: each subject by itself. In short: the first by itself and at some length, and others that share lanes, other
 * ones each day. `salt` tells two suites of one day apart.
 */
export function groups(short: { first: number; others: number }, salt: number): Group[] {
  if (atLength) {
    return subjects.map((subject) => ({ name: subject.name, subjects: [subject], moments: Number(wanted) || 0 }));
  }
  const [first, ...others] = subjects;
  if (first === undefined) throw new Error("KEYTURN_FAULTS_SUBJECTS fits no subject");
  const turns = someOf(others, turnsADay, seed + salt);
  return [
    { name: first.name, subjects: [first], moments: short.first },
    { name: "others, in turn", subjects: turns, moments: short.others },
  ].filter((group) => group.subjects.length > 0);
}

/**
 * The moments to try: all, some by the seed, or those whose description fits KEYTURN_FAULTS_ONLY, a regular expression:
 * how a failed one is tried again alone.
 */
export function chosen<Moment>(
  all: Moment[],
  describe: (moment: Moment) => string,
  { count, salt }: { count: number; salt: number },
): Moment[] {
  if (only !== undefined) return all.filter((moment) => new RegExp(only).test(describe(moment)));
  return everything ? all : someOf(all, count, seed + salt);
}

export function tell(line: string): void {
  process.stderr.write(`${line}\n`);
}
