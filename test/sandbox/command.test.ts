import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { sandboxCommand } from "../../src/cli/sandbox.ts";
import { eventually } from "./world.ts";

let printed: string[] = [];
beforeEach(() => {
  printed = [];
  vi.spyOn(process.stdout, "write").mockImplementation((chunk) => {
    printed.push(String(chunk));
    return true;
  });
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
});
afterEach(() => {
  vi.restoreAllMocks();
});

const run = (...flags: string[]): Promise<unknown> =>
  sandboxCommand().exitOverride().parseAsync(flags, { from: "user" });
const ready = (): Promise<string> =>
  eventually(
    () => Promise.resolve(printed.join("")),
    (text) => text.endsWith("\n"),
  );

test("prints one line of JSON when ready, takes its flags, and ends on SIGTERM", async () => {
  const ended = run(
    "--json",
    "--time-scale=60",
    "--usage-lag=openai=20m",
    "--edge=one=1s,1m,4",
    "--edge=two=2s,5m",
    "--settle=1s",
    "--dialect=guide",
  );
  const line = JSON.parse(await ready()) as {
    ready: boolean;
    control: string;
    env: Record<string, string>;
  };
  expect(line.ready).toBe(true);
  expect(line.env["CLOUDFLARE_ACCOUNT_ID"]).toMatch(/^[0-9a-f]{32}$/);
  const options = (await (await fetch(`${line.control}/options`)).json()) as unknown;
  expect(options).toMatchObject({
    timeScale: 60,
    dialect: "guide",
    settleMs: 1_000,
    googleSettleMs: 1_000,
    usageLag: { openai: { minMs: 1_200_000 } },
    edges: [
      { name: "one", propagationMs: 1_000, cacheTtlMs: 60_000, isolates: 4 },
      { name: "two", propagationMs: 2_000, cacheTtlMs: 300_000, isolates: 8 },
    ],
  });
  process.emit("SIGTERM");
  await ended;
  await expect(fetch(line.control)).rejects.toThrow();
});

test("prints its environment as NAME=value lines", async () => {
  const ended = run();
  const lines = (await ready()).trimEnd().split("\n");
  expect(lines.map((line) => line.split("=")[0])).toEqual(
    expect.arrayContaining([
      "CLOUDFLARE_ACCOUNT_ID",
      "CLOUDFLARE_API_TOKEN",
      "CLOUDFLARE_GATEWAY_TOKEN",
      "CLOUDFLARE_BASE_URL",
      "OPENAI_ADMIN_KEY",
      "OPENAI_BASE_URL",
      "ANTHROPIC_ADMIN_KEY",
      "ANTHROPIC_BASE_URL",
      "GOOGLE_OAUTH_ACCESS_TOKEN",
      "GOOGLE_CLOUD_PROJECT",
      "GOOGLE_APIKEYS_BASE_URL",
      "GOOGLE_MONITORING_BASE_URL",
      "GEMINI_BASE_URL",
    ]),
  );
  process.emit("SIGTERM");
  await ended;
});

test("refuses what it cannot read", async () => {
  for (const flag of ["--usage-lag=20m", "--edge=one", "--time-scale=0", "--port=x", "--settle=3", "--dialect=x"]) {
    await expect(run(flag)).rejects.toThrow();
  }
});
