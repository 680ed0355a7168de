/**
 * Live traffic for the demo and for tests: clients that ask a model through the sandbox's gateway at a steady rate, and
 * count what they got. Takes the sandbox's environment (`CLOUDFLARE_…`), talks to 127.0.0.1 only, and prints its counts as
 * one line of JSON on SIGUSR2 and at its end (SIGTERM, SIGINT, `--max-seconds`, or its standard input's end).
 */
import { parseArgs } from "node:util";
import { Client } from "undici";

import { maskSecrets } from "../src/redacted.ts";

const { values: flags } = parseArgs({
  options: {
    control: { type: "string" },
    rate: { type: "string", default: "170" },
    clients: { type: "string", default: "16" },
    "compat-share": { type: "string", default: "0.25" },
    "max-seconds": { type: "string", default: "600" },
    "until-stdin-ends": { type: "boolean", default: false },
  },
});

interface Failure {
  at: string;
  edge: string | null;
  status: number | null;
  why: string;
}

const counts = { served: 0, failed: 0, byPath: { native: 0, compat: 0 }, failures: [] as Failure[] };
const keptFailures = 50;

const gateway = local("CLOUDFLARE_GATEWAY_BASE_URL", process.env["CLOUDFLARE_GATEWAY_BASE_URL"]);
const token = process.env["CLOUDFLARE_GATEWAY_TOKEN"] ?? "";
const slot = `${gateway.pathname.replace(/\/$/, "")}/${process.env["CLOUDFLARE_ACCOUNT_ID"]}/github-ai-agent-prod`;
const edges = await edgesOf(local("--control", flags.control));
const perSecond = positive("--rate", flags.rate);
const compatShare = Math.min(1, Number(flags["compat-share"]));

// One connection each, since clients keep theirs; each at an edge of its own, so that every edge serves some.
const clients = Array.from({ length: positive("--clients", flags.clients) }, (_, index) => ({
  connection: new Client(gateway.origin, { pipelining: 1, keepAliveTimeout: 60_000 }),
  edge: edges[index % edges.length],
}));

const open = new Set<Promise<void>>();
let turn = 0;
let due = performance.now();
const ticks = setInterval(() => {
  for (; due <= performance.now(); due += 1_000 / perSecond) {
    const sent: Promise<void> = ask(turn++).finally(() => open.delete(sent));
    open.add(sent);
  }
}, 10);

process.on("SIGUSR2", print);
process.once("SIGTERM", () => void stop()).once("SIGINT", () => void stop());
if (flags["until-stdin-ends"]) process.stdin.once("end", () => void stop()).resume();
setTimeout(() => void stop(), positive("--max-seconds", flags["max-seconds"]) * 1_000).unref();
process.stdout.write('{"ready":true}\n');

async function ask(number: number): Promise<void> {
  const client = clients[number % clients.length];
  if (client === undefined) return;
  const compat = (number * compatShare) % 1 < compatShare;
  try {
    const { statusCode, headers, body } = await client.connection.request({
      method: "POST",
      path: `${slot}/${compat ? "compat" : "openai"}/chat/completions`,
      headers: {
        "content-type": "application/json",
        "cf-aig-authorization": `Bearer ${token}`,
        ...(client.edge === undefined ? {} : { "x-sandbox-edge": client.edge }),
      },
      body: JSON.stringify({
        model: compat ? "openai/gpt-5-mini" : "gpt-5-mini",
        messages: [{ role: "user", content: `request ${number}` }],
      }),
    });
    const text = await body.text();
    counts.byPath[compat ? "compat" : "native"]++;
    if (statusCode < 400) counts.served++;
    else failed(String(headers["x-sandbox-edge"] ?? client.edge), statusCode, text);
  } catch (error) {
    failed(client.edge ?? null, null, error instanceof Error ? error.message : String(error));
  }
}

function failed(edge: string | null, status: number | null, why: string): void {
  counts.failed++;
  if (counts.failures.length >= keptFailures) return;
  const shown = maskSecrets(why)
    .replaceAll(/\bsk-\S+/g, "[redacted]")
    .slice(0, 200);
  counts.failures.push({ at: new Date().toISOString(), edge, status, why: shown });
}

let stopping = false;
async function stop(): Promise<void> {
  if (stopping) return;
  stopping = true;
  clearInterval(ticks);
  await Promise.all(open);
  await Promise.all(clients.map(({ connection }) => connection.close()));
  print();
  process.exit(0);
}

function print(): void {
  process.stdout.write(`${JSON.stringify(counts)}\n`);
}

async function edgesOf(control: URL): Promise<string[]> {
  const options = (await (await fetch(new URL("/options", control))).json()) as { edges: { name: string }[] };
  return options.edges.map(({ name }) => name);
}

function local(name: string, text: string | undefined): URL {
  const url = text !== undefined && URL.canParse(text) ? new URL(text) : undefined;
  if (url?.hostname === "127.0.0.1") return url;
  console.error(`traffic: ${name} must be an address at 127.0.0.1: this is for the sandbox only`);
  process.exit(2);
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (value > 0) return value;
  console.error(`traffic: ${name} must be a number above 0`);
  process.exit(2);
}
