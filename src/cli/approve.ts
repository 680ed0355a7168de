/** `keyturn approve <slot>`: lets a rotation go on that waits for a person. */
import { Command } from "commander";

import { loadInventory, readEnvironment } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { withTemporal } from "../temporal/client.ts";
import { approveUpdate, progressQuery } from "../workflows/messages.ts";
import { acceptedUse } from "./accepted-use.ts";
import { confirm } from "./confirm.ts";
import { createOutput } from "./output.ts";
import { runningRotation } from "./running-rotation.ts";
import { readSlot } from "./slot-argument.ts";
import { whoTypes } from "./who.ts";
import { describeAsks, nobodyWorks } from "./watch.ts";

interface Flags {
  why?: string;
  wait?: string;
  yes?: true;
  env?: string;
  json?: true;
}

export function approveCommand(): Command {
  return new Command("approve")
    .description("let a rotation go on that waits for a person")
    .argument("<slot>", "environment/provider[:alias], or provider[:alias] (see --env)")
    .option("--why <words>", "why, for the record")
    .option("--wait <id>", "only where this wait is open: the id that keyturn status --json shows")
    .option("--yes", "do not ask; for scripts")
    .option("--env <environment>", "environment of a slot given without one")
    .option("--json", "print one JSON document")
    .action(approve);
}

async function approve(text: string, { why, wait, yes, env: chosen, json }: Flags): Promise<void> {
  const output = createOutput({ json });
  const env = readEnvironment();
  const { name, policy } = readSlot(text, { inventory: loadInventory(env), env, chosen });
  await withTemporal(env, async (temporal) => {
    const within = async <Result>(call: () => Promise<Result>): Promise<Result> =>
      temporal.client.connection.withDeadline(Date.now() + 15_000, call);
    const handle = await runningRotation(temporal, name);
    const idle = await nobodyWorks(temporal);
    if (idle !== undefined) throw new RotationFailure("Unavailable", idle);
    const progress = await within(() => handle.query(progressQuery));
    const { waiting, phase } = progress;
    // A revocation by hand is told by an approval, too.
    if (waiting === null || waiting.asks === undefined || waiting.asks.kind === "key") {
      // An approval given early would be taken by a later wait, for something nobody has seen yet.
      throw new RotationFailure(
        "InvalidInput",
        `the rotation of ${name} waits for no approval now (step ${phase}): keyturn status ${name} says when it does`,
      );
    }
    if (wait !== undefined && wait !== waiting.id) {
      throw new RotationFailure(
        "InvalidInput",
        `the wait ${wait} of ${name} is over; it waits for ${waiting.for} now (${waiting.id}): nothing was approved`,
      );
    }
    output.say(`${name} waits for ${waiting.for}`);
    for (const line of describeAsks(waiting.asks)) output.say(line);
    const use = acceptedUse(progress, policy);
    if (use !== undefined) {
      output.say(use.recent ? output.paint.red(use.words) : use.words);
      if (use.recent || process.stdin.isTTY) await confirm({ yes });
    }
    const said = await within(() =>
      handle.executeUpdate(approveUpdate, {
        args: [{ by: whoTypes(), wait: waiting.id, ...(why === undefined ? {} : { why }) }],
      }),
    );
    const accepts = said.accepts === undefined ? "" : `, accepting use until ${said.accepts}`;
    output.result(
      { slot: name, workflowId: handle.workflowId, approved: true, wait: waiting.id, ...said },
      `approved by ${said.by}${accepts}: keyturn status ${name} shows how it goes on`,
    );
  });
}
