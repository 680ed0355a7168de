import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { WorkflowHandle } from "@temporalio/client";
import { Runtime } from "@temporalio/worker";
import { beforeAll, describe, expect, test } from "vitest";

import type { Progress, RotationResult } from "../../src/domain/rotation.ts";
import { keyturn } from "../cli/run.ts";
import { keepingLogger, readableHistory } from "../support/secrecy.ts";
import { newSealingKeys, quick, type SealingKeys, startTemporal, startWorld, type World } from "../support/world.ts";

/** Sealing keys that are retired or lost while a rotation waits. */

let old: SealingKeys;
let fresh: SealingKeys;
beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  old = await newSealingKeys("2026-05");
  fresh = await newSealingKeys("2026-11");
});

function inThisOrder(...keys: SealingKeys[]): SealingKeys {
  return {
    publicKeys: keys.flatMap(({ publicKeys }) => publicKeys),
    privateKeys: keys.flatMap(({ privateKeys }) => privateKeys),
  };
}

async function atWait(world: World, handle: WorkflowHandle, wait: string): Promise<void> {
  await world.until(async () => (await handle.query<Progress>("progress")).waiting?.for.includes(wait) === true);
}

/** The sealing keys that the seals in a history name. */
async function sealedWith(handle: WorkflowHandle): Promise<string[]> {
  const seals = (await readableHistory(handle)).matchAll(/\\"sealed\\":\\"(eyJ[\w-]+)\./g);
  const kids = [...seals].map(
    ([, header = ""]) => (JSON.parse(Buffer.from(header, "base64url").toString()) as { kid: string }).kid,
  );
  return [...new Set(kids)];
}

async function liveKeys(world: World): Promise<string[]> {
  const { keys } = await world.record();
  return keys.filter(({ state, projectId }) => projectId === "proj_abc" && state === "active").map(({ id }) => id);
}

const approvalAndCaches = { approval: "before-install", cacheInvalidationWait: "4s" };

/** A world and a Temporal of its own, so that several go side by side. */
async function inAWorld(play: (world: World, temporal: { address: string }) => Promise<void>): Promise<void> {
  const temporal = await startTemporal();
  const world = await startWorld({
    temporal,
    timeScale: quick.timeScale,
    policy: { ...quick.policy, ...approvalAndCaches },
    sealing: inThisOrder(old, fresh),
  });
  try {
    await play(world, temporal);
  } finally {
    await world.stop();
    await temporal.stop();
  }
}

describe("a sealing key", () => {
  test.concurrent(
    "that is retired while a rotation waits still opens what it sealed, and the next rotation seals with the new one",
    async () =>
      inAWorld(async (world) => {
        const handle = await world.start();
        await atWait(world, handle, "an approval before install");
        await world.restartWorker(inThisOrder(fresh, old));
        await handle.signal("approveSignal", { by: "ada" });
        expect(((await handle.result()) as RotationResult).outcome).toBe("rotated");
        expect(await sealedWith(handle)).toEqual(["2026-05"]);

        const next = await world.start();
        await atWait(world, next, "an approval before install");
        await next.signal("approveSignal", { by: "ada" });
        expect(((await next.result()) as RotationResult).outcome).toBe("rotated");
        expect(await sealedWith(next)).toEqual(["2026-11"]);
      }),
    60_000,
  );

  test.concurrent(
    "that is lost before the install costs the key it sealed: that is revoked and another one issued",
    async () =>
      inAWorld(async (world) => {
        const handle = await world.start();
        await atWait(world, handle, "an approval before install");
        const { newKey: lost } = await handle.query<Progress>("progress");
        await world.restartWorker(fresh);
        await handle.signal("approveSignal", { by: "ada" });
        const result = (await handle.result()) as RotationResult;
        expect(result.outcome).toBe("rotated");
        expect(result.newKey?.id).not.toBe(lost?.id);
        expect(result.steps.find(({ step, outcome }) => step === "installKey" && outcome === "failed")?.note).toContain(
          "2026-05",
        );
        expect(await liveKeys(world)).toEqual([result.newKey?.id]);
        expect(await world.servedKeys()).toEqual([result.newKey?.id]);
      }),
    60_000,
  );

  test.concurrent(
    "that is lost after the install is needed no more",
    async () =>
      inAWorld(async (world) => {
        const handle = await world.start();
        await atWait(world, handle, "an approval before install");
        await handle.signal("approveSignal", { by: "ada" });
        await atWait(world, handle, "caches to drop the old key");
        const { newKey } = await handle.query<Progress>("progress");
        await world.restartWorker(fresh);
        const result = (await handle.result()) as RotationResult;
        expect(result).toMatchObject({ outcome: "rotated", newKey: { id: newKey?.id } });
        expect(await liveKeys(world)).toEqual([newKey?.id]);
      }),
    60_000,
  );
});

test.concurrent(
  "a worker without the private half of the first public key refuses to start, and says which it needs",
  async () =>
    inAWorld(async (world, temporal) => {
      const directory = await mkdtemp(join(tmpdir(), "keyturn-seal-"));
      try {
        const inventory = join(directory, "keyturn.yaml");
        await writeFile(inventory, world.inventoryText);
        const env = { ...world.env, TEMPORAL_ADDRESS: temporal.address, KEYTURN_CONFIG: inventory };
        const sealing = JSON.stringify({ keys: fresh.privateKeys });
        const ran = await keyturn(["worker"], { ...env, KEYTURN_SEALING_KEY: sealing }, directory);
        expect(ran.code).toBe(2);
        expect(ran.stderr).toMatch(/no private key for sealing key 2026-05, the first in the inventory/);
        expect(ran.stderr).not.toContain(fresh.privateKeys[0]?.d);
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
    }),
  60_000,
);
