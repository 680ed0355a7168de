import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client, Connection } from "@temporalio/client";
import { expect, test, vi } from "vitest";
import { findDevServer } from "../../src/temporal/binaries.ts";
import { startDevServer, startTestServer } from "../../src/temporal/dev-server.ts";

/** False also for a zombie, which is only a row in a table until somebody reads it. */
async function isRunning(pid: number): Promise<boolean> {
  const { stdout } = await promisify(execFile)("ps", ["-o", "stat=", "-p", String(pid)]).catch(() => ({ stdout: "" }));
  return stdout.trim() !== "" && !stdout.trim().startsWith("Z");
}

test("the dev server starts with its namespace and search attributes, and is gone after stop", async () => {
  const server = await startDevServer({
    namespace: "keyturn-test",
    searchAttributes: ["KeyturnSlot"],
    headless: true,
  });
  try {
    const connection = await Connection.connect({ address: server.address });
    const client = new Client({ connection, namespace: server.namespace });
    const { count } = await client.workflow.count('KeyturnSlot = "production/openai"');
    const { namespace } = server;
    const { config } = await client.workflowService.describeNamespace({ namespace });
    await connection.close();

    expect(count).toBe(0);
    // Longer than twice a quarter: a slot's last result says which keys stayed behind.
    expect(Number(config?.workflowExecutionRetentionTtl?.seconds)).toBe(365 * 86_400);
    expect(server.ui).toBeUndefined();
    expect(await isRunning(server.pid)).toBe(true);
  } finally {
    await server.stop();
  }
  expect(await isRunning(server.pid)).toBe(false);
}, 120_000);

test("the web UI answers at its address", async () => {
  const server = await startDevServer();
  try {
    const answer = await fetch(server.ui ?? "");
    expect(answer.ok).toBe(true);
  } finally {
    await server.stop();
  }
}, 120_000);

test("the test server starts and is gone after stop", async () => {
  const server = await startTestServer();
  expect(await isRunning(server.pid)).toBe(true);
  await server.stop();
  expect(await isRunning(server.pid)).toBe(false);
}, 120_000);

test("the dev server ends when its owner is killed without a chance to stop it", async () => {
  await findDevServer(); // what may take long is fetched before
  const module = fileURLToPath(new URL("../../dist/src/temporal/dev-server.js", import.meta.url));
  await expect(readFile(module)).resolves.toBeDefined();
  const owner = spawn(
    process.execPath,
    [
      "--input-type=module",
      "--eval",
      `const { startDevServer } = await import(${JSON.stringify(module)});
       console.log((await startDevServer({ headless: true })).pid);
       setInterval(() => {}, 1000);`,
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const [line] = await once(owner.stdout, "data");
  const pid = Number(String(line));
  expect(await isRunning(pid)).toBe(true);

  owner.kill("SIGKILL");

  await vi.waitFor(async () => expect(await isRunning(pid)).toBe(false), { timeout: 10_000 });
}, 120_000);

test("a server that ends at its start is reported with what it printed", async () => {
  const binary = { path: process.execPath, origin: "fake", line: "temporal dev server: fake" };
  await expect(startDevServer({ binary, port: 1 })).rejects.toThrow(
    /temporal dev server: fake: ended at its start \(exit code \d+\); it printed:\n/,
  );
});
