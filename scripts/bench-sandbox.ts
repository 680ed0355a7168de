/** How many chats a second the sandbox's gateway serves, with the load made in the same process: a floor, not a ceiling. */
import { Agent, request } from "node:http";
import { startSandbox } from "../src/sandbox/index.ts";

const connections = 16;
const runMs = 5_000;

const sandbox = await startSandbox();
const url = new URL(
  `${sandbox.env["CLOUDFLARE_GATEWAY_BASE_URL"]}/${sandbox.env["CLOUDFLARE_ACCOUNT_ID"]}/github-ai-agent-prod/openai/chat/completions`,
);
const agent = new Agent({ keepAlive: true, maxSockets: connections });
const body = JSON.stringify({
  model: "gpt-5-mini",
  messages: [{ role: "user", content: "ping" }],
});
const options = {
  agent,
  method: "POST",
  headers: {
    "cf-aig-authorization": `Bearer ${sandbox.env["CLOUDFLARE_GATEWAY_TOKEN"]}`,
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
  },
};

const chat = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const sent = request(url, options, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode ?? 0));
    });
    sent.on("error", reject);
    sent.end(body);
  });

let served = 0;
const cpuBefore = process.cpuUsage();
const started = performance.now();
await Promise.all(
  Array.from({ length: connections }, async () => {
    while (performance.now() - started < runMs) {
      if ((await chat()) !== 200) throw new Error("a chat failed");
      served++;
    }
  }),
);
const seconds = (performance.now() - started) / 1_000;
const cpu = process.cpuUsage(cpuBefore);
const cpuSeconds = (cpu.user + cpu.system) / 1_000_000;
process.stdout.write(
  `${Math.round(served / seconds)} requests/s, ${Math.round(served / cpuSeconds)} per second of CPU (client included)\n`,
);
agent.destroy();
await sandbox.close();
