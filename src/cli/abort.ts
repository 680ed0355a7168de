/** `keyturn abort <slot>`: asks the running rotation to stop, and watches it clean up. */
import type { WorkflowHandle } from "@temporalio/client";
import { Command } from "commander";

import { loadInventory, readEnvironment } from "../config.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import { abortSignal, progressQuery } from "../workflows/messages.ts";
import { describeResult } from "./describe-result.ts";
import { exitCodeOf, exitCodes } from "./failures.ts";
import { createOutput, printFailure } from "./output.ts";
import { runningRotation } from "./running-rotation.ts";
import { readSlot } from "./slot-argument.ts";
import { nobodyWorks, watchRotation } from "./watch.ts";
import { whoTypes } from "./who.ts";

interface Flags {
  why?: string;
  env?: string;
  json?: true;
}

export function abortCommand(): Command {
  return new Command("abort")
    .description("stop the running rotation of a slot; it leaves one working key and names any other")
    .argument("<slot>", "environment/provider[:alias], or provider[:alias] (see --env)")
    .option("--why <words>", "why, for the record")
    .option("--env <environment>", "environment of a slot given without one")
    .option("--json", "print the rotation's result as one JSON document")
    .action(abort);
}

/** The step a rotation is at; nothing where no worker answers. */
async function phaseOf({ client }: Temporal, handle: WorkflowHandle): Promise<string | undefined> {
  try {
    const asked = client.connection.withDeadline(Date.now() + 3_000, () => handle.query(progressQuery));
    return (await asked).phase;
  } catch {
    return undefined;
  }
}

async function abort(text: string, { why, env: chosen, json }: Flags): Promise<void> {
  const output = createOutput({ json });
  const env = readEnvironment();
  const { name } = readSlot(text, { inventory: loadInventory(env), env, chosen });
  process.exitCode = await withTemporal(env, async (temporal) => {
    const handle = await runningRotation(temporal, name);
    const idle = await nobodyWorks(temporal);
    if (idle !== undefined) output.say(output.paint.yellow(idle));
    const gathering = (await phaseOf(temporal, handle)) === "gatherEvidence";
    await handle.signal(abortSignal, { by: whoTypes(), ...(why === undefined ? {} : { why }) });
    output.say(
      gathering
        ? `${name}: the key is cut already; asked to end the gathering of evidence`
        : `${name}: asked to stop; it cleans up first`,
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
        if (result.outcome === "aborted") return exitCodes.done;
        if (gathering) {
          output.say("the gathering of evidence has ended, with what was known by then; the rest was done already");
          return exitCodes.done;
        }
        output.say("it was too late to stop: the rotation had begun to revoke the old key, and finished");
        return exitCodes.failed;
      }
    }
  });
}
