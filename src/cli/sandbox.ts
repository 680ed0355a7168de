/** `keyturn sandbox`: plays the outside services until it is told to stop. */
import { once } from "node:events";
import { Command, InvalidArgumentError, Option } from "commander";
import type { EdgeOptions, SandboxOptions, UsageLag } from "../sandbox/index.ts";
import { startSandbox } from "../sandbox/index.ts";

interface Flags {
  json?: true;
  timeScale: number;
  host: string;
  port?: number;
  usageLag: Record<string, UsageLag>;
  edge: EdgeOptions[];
  settle?: number;
  death?: number;
  listLag?: number;
  dialect?: "secrets-store" | "guide";
  secretQuota?: number;
  maxKeyLife?: number;
  modelLatency?: number;
  seed?: number;
  unifiedBilling: boolean;
}

/** The command; its output is the environment that points keyturn or an SDK at the sandbox. */
export function sandboxCommand(): Command {
  return new Command("sandbox")
    .description("play Cloudflare and the providers on this machine, for trials and tests")
    .option("--json", "print one line of JSON instead of NAME=value lines")
    .option("--time-scale <n>", "divide every delay and lag by this", positive, 1)
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option("--port <port>", "control port; the services take the next ones", whole)
    .option(
      "--usage-lag <provider=duration>",
      "how late usage is told, for example openai=20m or openai=20m+1m (jitter)",
      addUsageLag,
      {},
    )
    .option(
      "--edge <name=propagation,ttl,isolates>",
      "an edge in place of the default ones, for example lhr=2s,1m,8",
      addEdge,
      [],
    )
    .option("--settle <duration>", "a new key may be refused for so long, at every provider", duration)
    .option("--death <duration>", "a revoked key may work for so long, at every provider", duration)
    .option("--list-lag <duration>", "how late lists are", duration)
    .addOption(new Option("--dialect <dialect>", "of the gateway's logs").choices(["secrets-store", "guide"]))
    .option("--secret-quota <n>", "secrets the account may hold", whole)
    .option("--max-key-life <duration>", "longest life of a key that the organisation allows", duration)
    .option("--model-latency <duration>", "how long a model takes (not scaled)", duration)
    .option("--seed <n>", "seed of what is left to chance", whole)
    .option("--no-unified-billing", "let Cloudflare pay for no call")
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const options: SandboxOptions = {
    timeScale: flags.timeScale,
    host: flags.host,
    usageLag: flags.usageLag,
    edges: flags.edge.length > 0 ? flags.edge : undefined,
    settleMs: flags.settle,
    anthropicSettleMs: flags.settle,
    googleSettleMs: flags.settle,
    deathMs: flags.death,
    anthropicDeathMs: flags.death,
    googleDeathMs: flags.death,
    googleStandardDeathMs: flags.death === undefined ? undefined : { minMs: flags.death, maxMs: flags.death },
    dialect: flags.dialect,
    listLagMs: flags.listLag,
    secretQuota: flags.secretQuota,
    maxKeyLifeSeconds: flags.maxKeyLife === undefined ? undefined : flags.maxKeyLife / 1_000,
    modelLatencyMs: flags.modelLatency,
    seed: flags.seed,
    unifiedBilling: flags.unifiedBilling,
    ports: flags.port === undefined ? undefined : portsFrom(flags.port),
  };
  // Listen first: a signal that comes while it starts must end it too.
  const told = Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]);
  const sandbox = await startSandbox(options);
  const { control, env } = sandbox;
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify({ ready: true, control, env })}\n`);
  } else {
    for (const [name, value] of Object.entries(env)) process.stdout.write(`${name}=${value}\n`);
    process.stderr.write(`sandbox ready; control ${control}; stop with Ctrl-C\n`);
  }
  await told;
  await sandbox.close();
}

export const portsFrom = (first: number): Record<string, number> => ({
  control: first,
  cloudflare: first + 1,
  gateway: first + 2,
  openai: first + 3,
  anthropic: first + 4,
  apikeys: first + 5,
  gemini: first + 6,
  monitoring: first + 7,
});

const units: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of `500ms`, `2s`, `20m`, `1h`, `90d`. */
function duration(text: string): number {
  const [, amount, unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
  const unitMs = units[unit];
  if (amount === undefined || unitMs === undefined) {
    throw new InvalidArgumentError(`"${text}" is not a duration like 30s or 15m.`);
  }
  return Number(amount) * unitMs;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError(`"${text}" is not a number above 0.`);
  return value;
}

function whole(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`"${text}" is not a whole number.`);
  return Number(text);
}

function addUsageLag(text: string, before: Record<string, UsageLag>): Record<string, UsageLag> {
  const [, provider = "", least = "", jitter] = /^(\w+)=([^+]+)(?:\+(.+))?$/.exec(text) ?? [];
  if (provider === "") throw new InvalidArgumentError(`"${text}" is not like openai=20m.`);
  const lag = {
    minMs: duration(least),
    jitterMs: jitter === undefined ? 60_000 : duration(jitter),
  };
  return { ...before, [provider]: lag };
}

function addEdge(text: string, before: EdgeOptions[]): EdgeOptions[] {
  const [, name, propagation = "", ttl = "", isolates = "8"] = /^([\w-]+)=([^,]+),([^,]+)(?:,(\d+))?$/.exec(text) ?? [];
  if (name === undefined) throw new InvalidArgumentError(`"${text}" is not like lhr=2s,1m,8.`);
  const edge = {
    name,
    propagationMs: duration(propagation),
    cacheTtlMs: duration(ttl),
    isolates: Number(isolates),
  };
  return [...before, edge];
}
