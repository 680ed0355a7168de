import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { WorkflowHandle } from "@temporalio/client";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { type Progress, type RotationResult, slotWorkflowId } from "../../src/domain/rotation.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { keyturn } from "../cli/run.ts";
import { moreGateway, moreSlots, serveByHand, slotOf } from "../support/more-slots.ts";
import { keepingLogger } from "../support/secrecy.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";

/** What waits for a person waits, says so, and records who let it go on, and why. */

type ApprovalWay = (slot: string) => Promise<void>;
const points = ["before-install", "before-revoke"] as const;

// They run side by side: on a busy machine each takes its time.
vi.setConfig({ testTimeout: 120_000 });

let temporal: DevServer;
let world: World;
let directory: string;
let env: Record<string, string>;
/** What the workers did, in order. */
const done: { name: string; slot: string }[] = [];

const ways: Record<string, ApprovalWay> = {
  "keyturn approve": async (slot) => {
    const ran = await keyturn(["approve", slot, "--why", "all quiet", "--json"], env, directory);
    expect(ran.code, ran.stderr).toBe(0);
    expect(JSON.parse(ran.stdout)).toMatchObject({ slot, approved: true });
  },
  "an update": async (slot) => {
    await runOf(slot).executeUpdate("approve", { args: [{ by: "ada", why: "all quiet" }] });
  },
  "a signal": async (slot) => {
    await runOf(slot).signal("approveSignal", { by: "ada", why: "all quiet" });
  },
};
const cases = points.flatMap((point) =>
  Object.entries(ways).map(([name, way], index) => ({ point, name, way, alias: `${point}-${index + 1}` })),
);

beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
  world = await startWorld({
    temporal,
    ...quick,
    slots: Object.assign({}, ...cases.map(({ alias, point }) => moreSlots([alias], { approval: point }))) as Record<
      string,
      unknown
    >,
    beforeActivity: async (name, { slot }) => void done.push({ name, slot: String(slot) }),
  });
  for (const { alias } of cases) await serveByHand(world, alias);
  directory = await mkdtemp(join(tmpdir(), "keyturn-approve-"));
  const inventory = join(directory, "keyturn.yaml");
  await writeFile(inventory, world.inventoryText);
  env = { ...world.env, TEMPORAL_ADDRESS: temporal.address, KEYTURN_CONFIG: inventory };
});
afterAll(async () => {
  await world.stop();
  await temporal.stop();
  await rm(directory, { recursive: true, force: true });
});

function runOf(slot: string): WorkflowHandle {
  return world.client.workflow.getHandle(slotWorkflowId(slot));
}

function doneIn(slot: string): string[] {
  return done.filter((one) => one.slot === slot).map(({ name }) => name);
}

async function heldKey(alias: string): Promise<string | undefined> {
  const { slots } = (await (await fetch(`${world.control}/slots`)).json()) as {
    slots: { gateway: string; provider: string; alias: string; keyId: string }[];
  };
  return slots.find((one) => one.gateway === moreGateway && one.provider === "openai" && one.alias === alias)?.keyId;
}

describe.for(points)("a rotation that waits for an approval %s", (point) => {
  const ofThisPoint = cases.filter((one) => one.point === point);
  test.concurrent.for(ofThisPoint)("says so, and goes on by $name, with who and why", async ({ way, alias }) => {
    const slot = slotOf(alias);
    const handle = await world.start({ slot });
    await world.until(async () => (await handle.query<Progress>("progress")).waiting?.person === true);
    const { waiting, oldKey, newKey } = await handle.query<Progress>("progress");
    expect(waiting).toMatchObject({
      for: `an approval ${point.replace("-", " ")}`,
      then: "the rotation stops",
      action: `keyturn approve ${slot}, or keyturn abort ${slot}`,
    });
    expect(await heldKey(alias)).toBe(point === "before-install" ? oldKey?.id : newKey?.id);
    expect(doneIn(slot)).not.toContain("revokeKey");
    const status = await keyturn(["status", slot, "--json"], env, directory);
    expect(status.code).toBe(3);
    expect(JSON.parse(status.stdout)).toMatchObject({ state: "running", waiting: { person: true } });

    const before = doneIn(slot).length;
    await way(slot);
    const result = (await handle.result()) as RotationResult;
    expect(result.outcome).toBe("rotated");
    expect(result.steps.find(({ step }) => step === `approval ${point}`)).toMatchObject({
      outcome: "done",
      note: expect.stringMatching(/^approved by \S.*: all quiet$/),
    });
    // The old key may have come into use while a person was waited for.
    const after = doneIn(slot).slice(before);
    expect(after.indexOf("checkIdle")).toBeGreaterThanOrEqual(0);
    expect(after.indexOf("checkIdle")).toBeLessThan(after.indexOf("revokeKey"));
    expect((await keyturn(["status", slot], env, directory)).code).toBe(0);
  });
});
