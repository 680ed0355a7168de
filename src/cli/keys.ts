/** `keyturn keys <slot>`: the live keys of the slot's project, and what each is. */
import { Command } from "commander";

import { loadInventory, readEnvironment } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { withTemporal } from "../temporal/client.ts";
import { describeSlotKeys } from "./describe-keys.ts";
import { createOutput } from "./output.ts";
import { findRunning } from "./running-rotation.ts";
import { readSlot } from "./slot-argument.ts";
import { keysOf } from "./which-key.ts";

interface Flags {
  env?: string;
  json?: true;
}

export function keysCommand(): Command {
  return new Command("keys")
    .description("list the live keys of a slot's project: held, ours, left over by which run, unknown; changes nothing")
    .argument("<slot>", "environment/provider[:alias], or provider[:alias] (see --env)")
    .option("--env <environment>", "environment of a slot given without one (default: NODE_ENV, then the inventory's)")
    .option("--json", "print one JSON document")
    .action(keys);
}

async function keys(text: string, flags: Flags): Promise<void> {
  const output = createOutput(flags);
  const env = readEnvironment();
  const inventory = loadInventory(env);
  const { name } = readSlot(text, { inventory, env, chosen: flags.env });
  await withTemporal(env, async (temporal) => {
    const look = await keysOf(name, { env, inventory, temporal });
    if (look.kind === "unseen") {
      throw new RotationFailure("Unavailable", `which keys ${name} has cannot be told: ${look.why}`);
    }
    if (look.by === "here") output.say("no worker answered: looked at from here, with the credentials of this machine");
    if ((await findRunning(temporal, name)) !== undefined) {
      output.say(`a rotation of ${name} is running: keyturn status ${name} says what it does with each of its keys`);
    }
    output.result({ ...look.seen, by: look.by }, describeSlotKeys(look.seen));
  });
}
