/** `keyturn doctor [slot]`: looks at everything a rotation needs, and changes nothing. */
import { Command } from "commander";

import {
  type Credentials,
  type Environment,
  type Inventory,
  loadInventory,
  missingVariables,
  readCredentials,
  readEnvironment,
} from "../config.ts";
import type { Diagnosis } from "../doctor/diagnose.ts";
import type { Finding, Level } from "../doctor/finding.ts";
import type { TemporalGround } from "../doctor/ground.ts";
import { RotationFailure } from "../domain/failure.ts";
import { temporalTarget, withTemporal } from "../temporal/client.ts";
import { exitCodes } from "./failures.ts";
import { coloursFor, createOutput } from "./output.ts";
import { readSlot } from "./slot-argument.ts";

interface Flags {
  env?: string;
  json?: true;
}

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("look at everything a rotation needs: credentials, gateways, keys, Temporal, files; changes nothing")
    .argument("[slot]", "a slot; without one, all of the inventory")
    .option("--env <environment>", "environment of a slot given without one; without a slot, only its slots")
    .option("--json", "print one JSON document")
    .action(doctor);
}

async function doctor(text: string | undefined, flags: Flags): Promise<void> {
  const output = createOutput(flags);
  const env = readEnvironment();
  const { inventory, credentials, missing } = readAll(env);
  const only = slotsAsked(text, { inventory, env, chosen: flags.env });
  const [{ createGround }, { diagnose }] = await Promise.all([
    import("../doctor/ground.ts"), // the worker's code, which takes a second to load
    import("../doctor/diagnose.ts"),
  ]);
  const diagnosis = await withTemporalIfThere(env, async (temporal) =>
    diagnose(
      createGround({
        env,
        directory: process.cwd(),
        inventory,
        credentials,
        missing,
        temporal,
        ...(only === undefined ? {} : { only }),
      }),
    ),
  );
  output.result(diagnosis, describeDiagnosis(diagnosis));
  process.exitCode = diagnosis.healthy ? exitCodes.done : exitCodes.failed;
}

/** Inventory and credentials, with something made up for each variable that is not set, and the names of those. */
function readAll(env: Environment): { inventory: Inventory; credentials: Credentials; missing: string[] } {
  const missing = missingVariables(env);
  const filled = { ...env, ...Object.fromEntries(missing.map((name) => [name, `not-set-${name}`])) };
  try {
    return { inventory: loadInventory(filled), credentials: readCredentials(filled), missing };
  } catch (error) {
    if (missing.length > 0) loadInventory(env); // where a made-up value does not fit, the variable is what is wrong
    throw error;
  }
}

/** The slot that was named, else those of the environment that was; all where neither was. */
function slotsAsked(text: string | undefined, of: Parameters<typeof readSlot>[1]): string[] | undefined {
  if (text !== undefined) return [readSlot(text, of).name];
  const { chosen, inventory } = of;
  if (chosen === undefined) return undefined;
  const names = Object.values(inventory.slots).flatMap(({ name, slot }) => (slot.environment === chosen ? [name] : []));
  if (names.length > 0) return names;
  const environments = Object.keys(inventory.environments).join(", ");
  throw new RotationFailure("InvalidInput", `no slots in environment ${chosen} (environments: ${environments})`);
}

async function withTemporalIfThere<Result>(
  env: Environment,
  work: (temporal: TemporalGround) => Promise<Result>,
): Promise<Result> {
  const target = temporalTarget(env);
  let reached = false;
  try {
    return await withTemporal(env, async (connected) => {
      reached = true;
      return work({ ...target, connected });
    });
  } catch (error) {
    if (reached || !(error instanceof RotationFailure)) throw error;
    return work({ ...target, why: error.message });
  }
}

const signs: Record<Level, string> = { ok: "✓", warning: "!", problem: "✗", unknown: "?" };

/** In the order in which they are read: what has to be mended, what is worth a look, the rest. */
const sections: Level[][] = [["problem"], ["warning"], ["ok", "unknown"]];

/** By section, in each grouped by what it is about, slots last; what is well in one line, the rest with its next move. */
export function describeDiagnosis({ findings, counts }: Diagnosis): string {
  const paint = coloursFor(process.stdout);
  const colour = { ok: paint.green, warning: paint.yellow, problem: paint.red, unknown: paint.cyan };
  const line = ({ check, level, message, remedy }: Finding): string =>
    `  ${colour[level](signs[level])} ${check}: ${message}${remedy === undefined ? "" : `\n      ${paint.dim("→")} ${remedy}`}`;
  const told = sections.flatMap((levels) => {
    const those = findings.filter(({ level }) => levels.includes(level));
    const groups = [...new Set(those.map(({ about }) => about))].toSorted(
      (a, b) => Number(a.includes("/")) - Number(b.includes("/")),
    );
    return groups.map((group) => [paint.bold(group), ...those.filter(({ about }) => about === group).map(line)]);
  });
  const count = (level: Level, one: string, many: string): string =>
    `${counts[level]} ${counts[level] === 1 ? one : many}`;
  const sum = [count("problem", "problem", "problems"), count("warning", "warning", "warnings")].join(", ");
  return [...told.map((lines) => lines.join("\n")), `${sum}, ${counts.unknown} unknown; nothing was changed`].join(
    "\n\n",
  );
}
