/** `keyturn abort <slot>`: asks the running rotation to stop, and watches it clean up. */
import { Command } from "commander";

import { loadInventory, readEnvironment } from "../config.ts";
import { withTemporal } from "../temporal/client.ts";
import { abortSignal } from "../workflows/messages.ts";
import { describeResult } from "./describe-result.ts";
import { exitCodeOf, exitCodes } from "./failures.ts";
import { createOutput, printFailure } from "./output.ts";
import { runningRotation } from "./running-rotation.ts";
import { readSlot } from "./slot-argument.ts";
import { watchRotation } from "./watch.ts";
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

async function abort(text: string, { why, env: chosen, json }: Flags): Promise<void> {
  const output = createOutput({ json });
  const env = readEnvironment();
  const { name } = readSlot(text, { inventory: loadInventory(env), env, chosen });
  process.exitCode = await withTemporal(env, async (temporal) => {
    const handle = await runningRotation(temporal, name);
    await handle.signal(abortSignal, { by: whoTypes(), ...(why === undefined ? {} : { why }) });
    output.say(`${name}: asked to stop; it cleans up first`);
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
        output.say("it was too late to stop: the rotation had begun to revoke the old key, and finished");
        return exitCodes.failed;
      }
    }
  });
}
