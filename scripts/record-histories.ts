/**
 * `npm run histories [name …]`: takes every path anew, or those that are named, and writes its history into
 * test/histories, if it ends as the path says. On purpose only: a history that no longer replays says that runs which are open now would break; a
 * change to a workflow's steps comes with `patched`, and a new history beside the old one. See CONTRIBUTING.md.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { historiesDirectory, writeHistory } from "../test/support/histories.ts";
import { endingOf, paths, takePath } from "../test/support/paths.ts";
import { startSkipping } from "../test/support/time-skipping.ts";

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !paths.some((path) => path.name === name));
if (unknown.length > 0) throw new Error(`no path ${unknown.join(", ")}: see test/support/paths.ts`);

mkdirSync(historiesDirectory, { recursive: true });
let wrong = 0;
const skipping = await startSkipping();
try {
  for (const path of paths.filter(({ name }) => wanted.length === 0 || wanted.includes(name))) {
    const { workflowId, runId } = await takePath(skipping, path);
    const history = await skipping.client.workflow.getHandle(workflowId, runId).fetchHistory();
    const ending = endingOf(history);
    console.error(`${path.name}: ${history.events?.length ?? 0} events, ${ending}`);
    if (ending === path.ends) {
      writeFileSync(join(historiesDirectory, `${path.name}.json`), writeHistory(workflowId, history));
    } else {
      wrong += 1;
      console.error(`  not written: it was to end as ${path.ends}`);
    }
  }
} finally {
  await skipping.stop();
}
if (wrong > 0) throw new Error(`${wrong} of the paths did not end as they say: see test/support/paths.ts`);
