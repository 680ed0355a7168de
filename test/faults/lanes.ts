import { someOf } from "./points.ts";

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

/** Whether everything is tried (`npm run test:faults`), or some of it, chosen by the seed. */
export const everything = process.env["KEYTURN_FAULTS"] === "all";

/** Another part of the whole each day; set KEYTURN_FAULTS_SEED to have one again. */
export const seed = Number(process.env["KEYTURN_FAULTS_SEED"] ?? Math.floor(Date.now() / 86_400_000));

const only = process.env["KEYTURN_FAULTS_ONLY"];

/**
 * The moments to try: all, some by the seed, or those whose description fits KEYTURN_FAULTS_ONLY, a regular expression:
 * how a failed one is tried again alone.
 */
export function chosen<Moment>(all: Moment[], describe: (moment: Moment) => string, count: number): Moment[] {
  if (only !== undefined) return all.filter((moment) => new RegExp(only).test(describe(moment)));
  return everything ? all : someOf(all, count, seed);
}

export function tell(line: string): void {
  process.stderr.write(`${line}\n`);
}
