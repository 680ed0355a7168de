import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { RotationResult } from "../../src/domain/rotation.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { keyturnScript } from "../cli/run.ts";
import { progressOf, type Typist, typist } from "../support/providers.ts";
import { keepingLogger } from "../support/secrecy.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";

/** What the command line says to whoever operates it while something waits, and what it refuses. */

const slot = "production/openai";
let temporal: DevServer;
beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
});
afterAll(() => temporal.stop());

describe("a rotation that waits for the old key to be idle", () => {
  let world: World;
  let type: Typist;
  beforeAll(async () => {
    world = await startWorld({ temporal, timeScale: 120, policy: { quietPeriod: "5m" } });
    type = await typist(world, temporal);
  });
  afterAll(async () => {
    await type.leave();
    await world.stop();
  });

  test("takes no approval of use that is seconds old without --yes, and says that requests will fail", async ({
    onTestFailed,
  }) => {
    onTestFailed(async () => {
      process.stderr.write(`it stood at ${JSON.stringify(await progressOf(world, slot))}\n`);
    });
    const traffic = world.traffic(30);
    const handle = await world.start();
    await world.until(async () => (await progressOf(world, slot)).times.lastUsed !== undefined);
    await traffic.stop();
    const refused = await type(["approve", slot]);
    expect(refused).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/key_prod_1 was last used .* ago.*REQUESTS WILL FAIL/),
    });
    expect(refused.stderr).toContain("give --yes");
    expect((await progressOf(world, slot)).waiting?.asks?.kind).toBe("approval");

    const dry = await type(["rotate", slot, "--dry-run"]);
    expect(dry.stdout).toContain(`a rotation of this slot is running (keyturn/${slot}, run `);

    expect((await type(["approve", slot, "--yes"])).code).toBe(0);
    // Late data may show use after the use that was shown: that was not accepted, and is asked about again.
    const ended = handle.result() as Promise<RotationResult>;
    void ended.catch(() => undefined);
    for (let shown = ""; ;) {
      const { waiting, steps } = await progressOf(world, slot);
      if (steps.some(({ step, outcome }) => step === "awaitIdle" && outcome === "done")) break;
      if (waiting?.asks?.kind === "approval" && waiting.id !== shown) {
        shown = waiting.id;
        await type(["approve", slot, "--yes"]);
      }
      await delay(200);
    }
    const result = await ended;
    expect(result.steps.find(({ step }) => step === "awaitIdle")?.note).toMatch(/^use accepted by /);
    const over = await type(["rotate", slot, "--dry-run", "--json"]);
    expect(JSON.parse(over.stdout)).toMatchObject({ running: null });
  }, 120_000);
});

describe("an emergency", () => {
  let world: World;
  let type: Typist;
  beforeAll(async () => {
    world = await startWorld({ temporal, ...quick, policy: { ...quick.policy, usageLag: "60s" } });
    type = await typist(world, temporal);
  });
  afterAll(async () => {
    await type.leave();
    await world.stop();
  });
  const gathering = () =>
    expect
      .poll(() => progressOf(world, slot), { timeout: 60_000, interval: 200 })
      .toMatchObject({ phase: "gatherEvidence", waiting: { for: "the provider's late usage data" } });

  test("shows its clocks and that evidence is gathered; abort ends that with the incident so far, and nothing else", async () => {
    // A day of the sandbox's short buckets would be hundreds of pages.
    const since = new Date(Date.now() - 10_000).toISOString();
    const handle = await world.start({ strategy: "swap-first", since }, undefined, "emergencyRotation");
    await gathering();
    const status = await type(["status", slot]);
    expect(status.stdout).toMatch(/emergency: the key is cut, and evidence is being gathered/);
    expect(status.stdout).toMatch(/clocks +new key in at .* \(in time\); compromised key cut at .* \(in time\)/);
    expect(status.stdout).toMatch(/keyturn abort production\/openai ends the gathering/);
    const aborted = await type(["abort", slot, "--why", "enough"]);
    expect(aborted.code, aborted.stderr).toBe(0);
    expect(aborted.stderr).toContain("asked to end the gathering of evidence");
    expect(aborted.stderr).not.toMatch(/cleans up|too late/);
    const result = (await handle.result()) as RotationResult;
    expect(result).toMatchObject({
      outcome: "rotated",
      incident: { compromisedKey: { id: "key_prod_1" } },
      leftOver: [],
    });
    expect(result.unknown).toContain("use of the compromised key that its provider told later");
    expect(result.steps.at(-1)).toMatchObject({
      step: "gatherEvidence",
      note: expect.stringMatching(/enough.*so far/),
    });
  }, 120_000);

  test("of a key that the slot did not hold is not headlined as if the slot were without one", async () => {
    const path = "/organization/projects/proj_abc/service_accounts/svc_acct_1/api_keys";
    const { id } = (await world.openai("POST", path, { name: "lost" })) as { id: string };
    const [served = "no key"] = await world.servedKeys();
    const handle = await world.start({ strategy: "swap-first", compromisedKeyId: id }, undefined, "emergencyRotation");
    await gathering();
    expect((await type(["abort", slot])).code).toBe(0);
    expect(await handle.result()).toMatchObject({ outcome: "cut", oldKey: { id }, newKey: null });
    const { stdout } = await type(["status", slot]);
    expect(stdout).toContain(`the compromised key is cut; the slot keeps ${served}`);
    expect(stdout).not.toMatch(/no new/);
  }, 120_000);
});

describe("without a worker", () => {
  test("a sweep and an abort say so after some seconds, and what to do, although the last worker still shows", async () => {
    const world = await startWorld({ temporal, ...quick });
    await world.rotate();
    const { inventoryText, env } = world;
    await world.stop();
    const directory = await mkdtemp(join(tmpdir(), "keyturn-operators-"));
    const config = join(directory, "keyturn.yaml");
    await writeFile(config, inventoryText);
    const more = { ...env, KEYTURN_CONFIG: config, TEMPORAL_ADDRESS: temporal.address };
    try {
      expect(await hears(["sweep"], more, /look whether keyturn worker runs/)).toMatch(
        /no worker has taken up the sweep/,
      );
      await world.client.connection.close().catch(() => undefined);
      await hears(["rotate", slot, "--detach"], more, /rotation started/);
      // Whether a compromised key is alive cannot be told: that wants a yes.
      expect(await hears(["abort", slot], more, /give --yes/)).toMatch(/compromised key is alive cannot be told/);
      expect(await hears(["abort", slot, "--yes"], more, /look whether keyturn worker runs/)).toMatch(
        /no worker answers/,
      );
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }, 90_000);
});

/** What a command says on standard error up to some words; then it is left. */
async function hears(args: string[], env: Record<string, string>, words: RegExp): Promise<string> {
  const child = spawn(process.execPath, [keyturnScript, ...args], {
    env: { PATH: process.env["PATH"] ?? "", ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  const ended = once(child, "close");
  await expect.poll(() => said, { timeout: 30_000 }).toMatch(words);
  child.kill("SIGKILL");
  await ended;
  return said;
}
