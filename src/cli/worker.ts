/** `keyturn worker`: does the work of rotations until it is told to stop. */
import { Command } from "commander";

import { type Environment, loadInventory, readCredentials, readEnvironment } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { taskQueue } from "../domain/rotation.ts";
import { temporalTarget } from "../temporal/client.ts";
import { version } from "../version.ts";
import { createOutput } from "./output.ts";
import { onStdinEnd } from "./stdin-leash.ts";

interface Flags {
  json?: true;
  untilStdinEnds?: true;
}

export function workerCommand(): Command {
  return new Command("worker")
    .description("work on rotations until told to stop (SIGINT, SIGTERM)")
    .option("--json", "print one JSON line when ready")
    .addOption(onStdinEnd.option())
    .action(work);
}

async function work({ json, untilStdinEnds }: Flags): Promise<void> {
  const output = createOutput({ json });
  const env = readEnvironment();
  if (untilStdinEnds === true) onStdinEnd.run(() => process.exit(1)); // whoever started it is gone: rotations go on elsewhere
  output.say(
    JSON.stringify({
      at: new Date().toISOString(),
      level: "INFO",
      message: "effective config",
      ...effectiveConfig(env),
    }),
  );

  const { address, namespace } = temporalTarget(env);
  const { runWorker } = await import("../worker.ts");
  try {
    await runWorker(env, () => {
      output.result(
        { ready: true, taskQueue, temporal: { address, namespace } },
        `keyturn worker ready on task queue ${taskQueue} (${address}, ${namespace})`,
      );
    });
  } catch (error) {
    if (!isConnectionError(error)) throw error;
    throw new RotationFailure(
      "Unavailable",
      `no Temporal server answers at ${address}: start one (keyturn dev, docker compose up), or set TEMPORAL_ADDRESS`,
    );
  }
}

/** What the worker goes by, credentials as "set" or "not set" only. */
function effectiveConfig(env: Environment): Record<string, unknown> {
  const inventory = loadInventory(env);
  const { baseUrls, googleConfigured, ...secrets } = readCredentials(env);
  const { path, installation, environments, slots, sealing } = inventory;
  return {
    version,
    temporal: temporalTarget(env),
    inventory: {
      path,
      installation,
      environments,
      slots: Object.values(slots).map(({ name, account, gateway, settings, probeModel, policy }) => ({
        name,
        account,
        gateway,
        settings,
        probeModel,
        policy,
      })),
      sealing: sealing.map(({ kid }) => kid),
    },
    credentials: {
      ...Object.fromEntries(Object.keys(secrets).map((name) => [name, "set"])),
      google: googleConfigured ? "set" : "not set",
    },
    baseUrls: Object.fromEntries(Object.entries(baseUrls).map(([name, url]) => [name, withoutPassword(url)])),
  };
}

/** An address may carry a proxy's user and password. */
function withoutPassword(address: string): string {
  return address.replace(/^(https?:\/\/)[^/@]*@/, "$1[redacted]@");
}

function isConnectionError(error: unknown): boolean {
  return (
    error instanceof Error &&
    (error.name === "TransportError" || /transport error|failed to connect|connect error/i.test(error.message))
  );
}
