/** `keyturn dev`: a Temporal dev server, the sandbox and a worker, to try things on this machine. */
import { setTimeout as delay } from "node:timers/promises";
import { Command, InvalidArgumentError } from "commander";

import { RotationFailure } from "../domain/failure.ts";
import { type Sandbox, startSandbox, type UsageLag } from "../sandbox/index.ts";
import { findDevServer } from "../temporal/binaries.ts";
import { type DevServer, startDevServer } from "../temporal/dev-server.ts";
import { searchAttributes } from "../workflows/search-attributes.ts";
import { type Child, keyturnScript, sandboxedEnvironment, startChild } from "./child.ts";
import { createDevDirectory, type DevDirectory, isAlive } from "./dev-directory.ts";
import { exitCodes } from "./failures.ts";
import { createOutput, type Output } from "./output.ts";
import { portsFrom, sandboxCommand } from "./sandbox.ts";
import { onStdinEnd } from "./stdin-leash.ts";

interface Flags {
  timeScale: number;
  directory: string;
  temporalDb?: string;
  temporalPort?: number;
  uiPort?: number;
  port?: number;
  usageLag: Record<string, UsageLag>;
  worker: boolean;
  json?: true;
  untilStdinEnds?: true;
}

export function devCommand(): Command {
  return new Command("dev")
    .description("run Temporal, the sandbox and a worker on this machine, for trials")
    .option("--time-scale <n>", "divide every wait, delay and lag by this", positive, 60)
    .option("--directory <dir>", "where the generated keyturn.yaml and the sealing key go", ".keyturn/dev")
    .option("--temporal-db <file>", "keep Temporal's data in this file across restarts")
    .option("--temporal-port <port>", "Temporal's port (default: a free one)", port)
    .option("--ui-port <port>", "the port of Temporal's UI (default: a free one)", port)
    .option("--port <port>", "the sandbox's control port; its services take the next ones", port)
    .addOption(usageLagOption())
    .option("--no-worker", "without a worker")
    .option("--json", "print one line of JSON instead of NAME=value lines")
    .addOption(onStdinEnd.option())
    .action(dev);
}

async function dev(flags: Flags): Promise<void> {
  const output = createOutput(flags);
  const told = untilTold(flags); // first of all: a signal that comes while things start must end them too
  const stage = new Stage(flags, output);
  const going = stage.up();
  going.catch(() => undefined);
  try {
    const ready = await Promise.race([going, told]);
    if (ready === undefined) return;
    print(ready, flags, output);
    const end = await Promise.race([told, stage.brokenBy]);
    if (end !== undefined) throw end;
  } finally {
    await stage.down(going);
  }
}

/** Resolves when somebody wants this to end; a second signal ends it at once. */
async function untilTold({ untilStdinEnds }: Flags): Promise<undefined> {
  return new Promise((resolve) => {
    let asked = false;
    const stop = (): void => {
      if (asked) process.exit(exitCodes.failed);
      asked = true;
      resolve(undefined);
    };
    process.on("SIGINT", stop).on("SIGTERM", stop).on("SIGHUP", stop);
    if (untilStdinEnds === true) onStdinEnd.run(() => resolve(undefined));
  });
}

interface Ready {
  control: string;
  env: Record<string, string>;
  temporal: { address: string; namespace: string; ui: string | undefined };
  worker: { pid: number } | null;
}

const workerStopsWithinMs = 5_000;
const startsWithinMs = 60_000;

/** The three parts and their order: Temporal, the sandbox, the worker; down the other way. */
class Stage {
  /** Rejects nothing, resolves with a failure when a part died that cannot be replaced. */
  readonly brokenBy: Promise<RotationFailure>;
  #broke: (failure: RotationFailure) => void = () => undefined;
  readonly #flags: Flags;
  readonly #output: Output;
  #directory: DevDirectory | undefined;
  #temporal: DevServer | undefined;
  #sandbox: Sandbox | undefined;
  #worker: Child | undefined;
  #ending = false;

  constructor(flags: Flags, output: Output) {
    this.#flags = flags;
    this.#output = output;
    this.brokenBy = new Promise((resolve) => (this.#broke = resolve));
  }

  async up(): Promise<Ready | undefined> {
    const { timeScale, directory, temporalDb, temporalPort, uiPort, port: control, usageLag } = this.#flags;
    this.#directory = await createDevDirectory(directory, timeScale);
    const binary = await findDevServer();
    if (this.#ending) return undefined;
    this.#output.say(binary.line);
    this.#temporal = await startDevServer({
      binary,
      searchAttributes: Object.values(searchAttributes).map(({ name }) => name),
      ...(temporalDb === undefined ? {} : { dbFile: temporalDb }),
      ...(temporalPort === undefined ? {} : { port: temporalPort }),
      ...(uiPort === undefined ? {} : { uiPort }),
    });
    if (this.#ending) return undefined;
    this.#sandbox = await startSandbox({
      timeScale,
      usageLag,
      ports: control === undefined ? undefined : portsFrom(control),
    });
    const { address, namespace, ui } = this.#temporal;
    const env = {
      ...this.#sandbox.env,
      TEMPORAL_ADDRESS: address,
      TEMPORAL_NAMESPACE: namespace,
      TEMPORAL_CONFIG_FILE: this.#directory.temporalConfig,
      KEYTURN_CONFIG: this.#directory.inventory,
      KEYTURN_SEALING_KEY_FILE: this.#directory.sealingKey,
    };
    this.#directory.writeEnvironment(env);
    if (this.#ending) return undefined;
    if (this.#flags.worker) await this.#startWorker(env, this.#directory.path);
    void this.#watchTemporal(this.#temporal);
    const worker = this.#worker === undefined ? null : { pid: this.#worker.pid };
    return { control: this.#sandbox.control, env, temporal: { address, namespace, ui }, worker };
  }

  /** Stops what is there in the reverse order; `going` is the start that may still be under way. */
  async down(going: Promise<unknown>): Promise<void> {
    this.#ending = true;
    await Promise.race([going.catch(() => undefined), delay(3_000, undefined, { ref: false })]);
    await this.#worker?.stop(workerStopsWithinMs);
    await this.#sandbox?.close();
    await this.#temporal?.stop();
    this.#directory?.remove();
  }

  /** A worker that was killed is started again, as a supervisor would; one that gives up ends everything. */
  async #startWorker(env: Record<string, string>, cwd: string): Promise<void> {
    const worker = startChild([keyturnScript, "worker", "--json", "--until-stdin-ends"], {
      env: sandboxedEnvironment(process.env, env),
      cwd, // where no .dev.vars is
      onErrorLine: (line) => {
        const shown = trouble(line);
        if (shown !== undefined) this.#output.say(shown);
      },
    });
    this.#worker = worker;
    void worker.ended.then(async ({ code, signal }) => {
      if (this.#ending) return;
      if (signal === null) {
        this.#broke(
          new RotationFailure("Unavailable", `the worker gave up (exit code ${code}): its last words are above`),
        );
        return;
      }
      this.#output.say(`the worker was killed (${signal}); another is started`);
      await delay(500);
      if (!this.#ending) await this.#startWorker(env, cwd).catch(() => undefined);
    });
    const slow = delay(startsWithinMs, "slow" as const, { ref: false });
    const first = await Promise.race([worker.firstLine(), slow]);
    if (first.startsWith('{"error"'))
      throw new RotationFailure("Unavailable", "the worker did not start: its words are above");
    if (first === "slow") throw new RotationFailure("Unavailable", "the worker was not ready in a minute: try again");
  }

  async #watchTemporal({ pid }: DevServer): Promise<void> {
    while (!this.#ending && isAlive(pid)) await delay(500, undefined, { ref: false });
    this.#broke(new RotationFailure("Unavailable", "the Temporal dev server ended: start keyturn dev again"));
  }
}

function print({ control, env, temporal, worker }: Ready, { timeScale }: Flags, output: Output): void {
  const lines = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  output.result({ ready: true, control, env, temporal, worker }, lines.join("\n"));
  output.say(`in another terminal: set -a; . ${env["KEYTURN_CONFIG"]?.replace(/keyturn\.yaml$/, "env")}; set +a`);
  output.say(
    `ready at time scale ${timeScale}: Temporal UI ${temporal.ui ?? "none"}, sandbox control ${control}; stop with Ctrl-C`,
  );
}

/** What a line of the worker's log says of trouble; nothing for the rest of it, since three things share a terminal here. */
function trouble(line: string): string | undefined {
  if (!line.startsWith("{")) return line;
  try {
    const entry = JSON.parse(line) as Record<string, unknown>;
    const { level, message, activityType, workflowId, attempt, error } = entry;
    if (level === "INFO" || level === "DEBUG" || level === "TRACE") return undefined;
    const where = [workflowId, activityType, attempt === undefined ? undefined : `attempt ${String(attempt)}`];
    const parts = [...where, error].filter((part) => part !== undefined);
    return `worker: ${String(message)}${parts.length === 0 ? "" : `: ${parts.map(String).join(", ")}`}`;
  } catch {
    return line;
  }
}

/** The sandbox command's own option, so that both read it alike. */
function usageLagOption() {
  const option = sandboxCommand().options.find(({ long }) => long === "--usage-lag");
  if (option === undefined) throw new Error("keyturn sandbox has no option --usage-lag any more");
  return option;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError("It must be a number above 0.");
  return value;
}

function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 65_500) throw new InvalidArgumentError("It must be a port.");
  return value;
}
