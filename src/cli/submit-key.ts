/** `keyturn submit-key <slot>`: hands a key that a person made to the rotation that waits for it. */
import { Command } from "commander";

import { loadInventory, readEnvironment } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { keyShapes } from "../domain/key-shape.ts";
import { createSealer } from "../sealing.ts";
import { withTemporal } from "../temporal/client.ts";
import { progressQuery, submitKeyUpdate } from "../workflows/messages.ts";
import { describeFailure } from "./failures.ts";
import { createOutput } from "./output.ts";
import { refuseOddKeyId } from "./rotate.ts";
import { runningRotation } from "./running-rotation.ts";
import { readSecret } from "./secret-input.ts";
import { readSlot } from "./slot-argument.ts";
import { describeAsks, nobodyWorks } from "./watch.ts";
import { whoTypes } from "./who.ts";

interface Flags {
  file?: string;
  keyId?: string;
  env?: string;
  json?: true;
}

const answerWithinMs = 90_000;

export function submitKeyCommand(): Command {
  return new Command("submit-key")
    .description("hand a key that you made to the rotation that waits for it; its value is sealed on this machine")
    .argument("<slot>", "environment/provider[:alias], or provider[:alias] (see --env)")
    .option("--file <file>", "read the value from this file (- is standard input); default: typed hidden, or piped in")
    .option(
      "--key-id <id>",
      "the id the provider's console shows for it, where keyturn has no admin credential to find out",
    )
    .option("--env <environment>", "environment of a slot given without one")
    .option("--json", "print one JSON document")
    .action(submitKey);
}

async function submitKey(text: string, { file, keyId: ownWord, env: chosen, json }: Flags): Promise<void> {
  if (ownWord !== undefined) refuseOddKeyId("--key-id", ownWord);
  const output = createOutput({ json });
  const env = readEnvironment();
  const inventory = loadInventory(env);
  const { name, slot } = readSlot(text, { inventory, env, chosen });
  await withTemporal(env, async (temporal) => {
    const within = async <Result>(ms: number, call: () => Promise<Result>): Promise<Result> =>
      temporal.client.connection.withDeadline(Date.now() + ms, call);
    const handle = await runningRotation(temporal, name);
    const idle = await nobodyWorks(temporal);
    if (idle !== undefined) throw new RotationFailure("Unavailable", idle);
    const { waiting, phase, rotationId } = await within(15_000, () => handle.query(progressQuery));
    if (waiting?.asks?.kind !== "key") {
      throw new RotationFailure(
        "InvalidInput",
        `the rotation of ${name} waits for no key now (step ${phase}): keyturn status ${name} says what it waits for`,
      );
    }
    output.say(`${name} waits for ${waiting.for}`);
    for (const line of describeAsks(waiting.asks)) output.say(line);
    const value = await readSecret({ file, what: `the new key of ${name}` });
    if (!keyShapes[slot.provider].test(value.reveal())) {
      output.say(output.paint.yellow(`this does not look like a key of ${slot.provider}; it is tried all the same`));
    }
    const sealed = await createSealer(inventory.sealing).seal(value, { slot: name, rotationId });
    try {
      const { taken } = await within(answerWithinMs, () =>
        handle.executeUpdate(submitKeyUpdate, {
          args: [{ sealed, ...(ownWord === undefined ? {} : { keyId: ownWord }), by: whoTypes() }],
        }),
      );
      output.result(
        { slot: name, workflowId: handle.workflowId, accepted: true, keyId: taken.id },
        `the rotation of ${name} takes ${taken.id}: keyturn status ${name} shows how it goes on`,
      );
    } catch (error) {
      const { type, message } = describeFailure(error);
      // A seal that a worker cannot open is this inventory's public key against that worker's private one.
      if (type !== "InvalidInput" && type !== "SealUnreadable") throw error;
      throw new RotationFailure("InvalidInput", `${message} (the rotation waits on)`);
    }
  });
}
