/** `keyturn abort <slot>`: asks the running rotation to stop, and watches it clean up. */
import type { WorkflowHandle } from "@temporalio/client";
import { Command } from "commander";

import { loadInventory, readEnvironment } from "../config.ts";
import type { Progress } from "../domain/rotation.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import { abortSignal, progressQuery } from "../workflows/messages.ts";
import { confirm } from "./confirm.ts";
import { describeResult } from "./describe-result.ts";
import { exitCodeOf, exitCodeOfResult, exitCodes, namesCompromised } from "./failures.ts";
import { createOutput, printFailure } from "./output.ts";
import { runningRotation } from "./running-rotation.ts";
import { readSlot } from "./slot-argument.ts";
import { clock, nobodyWorks, watchRotation } from "./watch.ts";
import { whoTypes } from "./who.ts";

interface Flags {
  why?: string;
  yes?: true;
  env?: string;
  json?: true;
}

export function abortCommand(): Command {
  return new Command("abort")
    .description("stop the running rotation of a slot; it leaves one working key and names any other")
    .argument("<slot>", "environment/provider[:alias], or provider[:alias] (see --env)")
    .option("--why <words>", "why, for the record")
    .option("--yes", "do not ask, also where a compromised key stays alive; for scripts")
    .option("--env <environment>", "environment of a slot given without one")
    .option("--json", "print the rotation's result as one JSON document")
    .action(abort);
}

/** What the rotation says of itself; nothing where no worker answers. */
async function progressOf({ client }: Temporal, handle: WorkflowHandle): Promise<Progress | undefined> {
  try {
    return await client.connection.withDeadline(Date.now() + 3_000, () => handle.query(progressQuery));
  } catch {
    return undefined;
  }
}

/**
 * What an abort leaves undone that somebody may count on: an abort by a person calls an emergency off. Nothing where no
 * compromised key of the run may be alive.
 */
export function whatAbortLeaves(
  slot: string,
  { kind, keys, clocks }: Pick<Progress, "kind" | "keys" | "clocks">,
): string[] {
  const alive = keys.filter(({ role, fate }) => role === "compromised" && fate !== "ended").map(({ id }) => id);
  if (alive.length === 0) return [];
  const [is, it] = alive.length === 1 ? ["is", "it"] : ["are", "them"];
  const until = clocks === undefined ? "" : `, not at ${clock(clocks.revokeBy)} either`;
  return [
    `${slot}: ${alive.join(", ")} ${is} COMPROMISED AND ALIVE. With the abort NOBODY WILL CUT ${it.toUpperCase()}${until}.`,
    `To cut all the same, do not abort${kind === "normal" ? " the rotation that hurries" : ""}; or start keyturn emergency ${slot} ${alive.map((id) => `--key ${id}`).join(" ")} afterwards.`,
  ];
}

async function abort(text: string, { why, yes, env: chosen, json }: Flags): Promise<void> {
  const output = createOutput({ json });
  const env = readEnvironment();
  const { name } = readSlot(text, { inventory: loadInventory(env), env, chosen });
  process.exitCode = await withTemporal(env, async (temporal) => {
    const handle = await runningRotation(temporal, name);
    const idle = await nobodyWorks(temporal);
    if (idle !== undefined) output.say(output.paint.yellow(idle));
    const progress = await progressOf(temporal, handle);
    const gathering = progress?.phase === "gatherEvidence";
    const leaves =
      progress === undefined
        ? ["whether a compromised key is alive cannot be told: no worker answers"]
        : whatAbortLeaves(name, progress);
    for (const line of leaves) output.say(output.paint.red(line));
    if (leaves.length > 0) await confirm({ yes });
    await handle.signal(abortSignal, { by: whoTypes(), ...(why === undefined ? {} : { why }) });
    output.say(
      gathering ? `${name}: asked to end the gathering of evidence` : `${name}: asked to stop; it cleans up first`,
    );
    const watched = await watchRotation(temporal, handle, output, { fromNow: true });
    switch (watched.kind) {
      case "left":
        output.say(`\nit goes on cleaning up; look again with: keyturn status ${name}`);
        return exitCodes.interrupted;
      case "failed":
        printFailure(watched.failure, output.json);
        return exitCodeOf(watched.failure.type);
      case "ended": {
        const { result } = watched;
        output.result(result, describeResult(result));
        // What was asked for is done; but a compromised key that stays alive is never a success.
        if (result.outcome === "aborted") return namesCompromised(result) ? exitCodes.failed : exitCodes.done;
        if (gathering) {
          output.say("the gathering of evidence has ended, with what was known by then; the rest was done already");
          return exitCodeOfResult(result);
        }
        output.say("it was too late to stop: the rotation had begun to revoke the old key, and finished");
        return exitCodes.failed;
      }
    }
  });
}
