import { spawn } from "node:child_process";
import { once } from "node:events";
import { WorkflowFailedError, type WorkflowHandle, WorkflowUpdateFailedError } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

import { type Progress, type RotationResult, slotWorkflowId, taskQueue } from "../../src/domain/rotation.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { moreSlots, serveByHand, slotOf } from "../support/more-slots.ts";
import { keepingLogger } from "../support/secrecy.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";

/** A start under another id than the slot's own follows the slot's run: what it passes on, and what it leaves alone. */

const plain = ["cancelled", "aborted", "asked", "terminated", "timed", "hasty", "pressed"];

// They run side by side: on a busy machine each takes its time.
vi.setConfig({ testTimeout: 120_000 });

let temporal: DevServer;
let world: World;
beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
  world = await startWorld({
    temporal,
    timeScale: quick.timeScale,
    policy: { ...quick.policy, cacheInvalidationWait: "4s" },
    slots: {
      ...moreSlots(plain),
      ...moreSlots(["updated", "refused"], { approval: "before-install" }),
      ...moreSlots(["signalled"], { approval: "before-revoke" }),
    },
  });
  for (const alias of [...plain, "updated", "refused", "signalled"]) await serveByHand(world, alias);
});
afterAll(async () => {
  await world.stop();
  await temporal.stop();
});

/** A start under an id of its own, once its rotation has issued a key. */
async function follow(alias: string): Promise<{ follower: WorkflowHandle; run: WorkflowHandle }> {
  const follower = await world.start({ slot: slotOf(alias) }, `by-hand-${alias}`);
  const run = runOf(alias);
  await world.until(async () => (await run.query<Progress>("progress")).newKey !== null);
  return { follower, run };
}

function runOf(alias: string): WorkflowHandle {
  return world.client.workflow.getHandle(slotWorkflowId(slotOf(alias)));
}

async function resultOf(handle: WorkflowHandle): Promise<RotationResult> {
  return (await handle.result()) as RotationResult;
}

/** Waits until the follower tells that the run it follows waits for an approval. */
async function awaitsApproval(follower: WorkflowHandle): Promise<void> {
  await world.until(async () => (await follower.query<Progress>("progress")).waiting?.person === true);
}

describe("a start under another id", () => {
  test.concurrent("passes on its cancellation", async () => {
    const { follower, run } = await follow("cancelled");
    await follower.cancel();
    expect(await resultOf(follower)).toMatchObject({ outcome: "aborted", reason: "cancelled" });
    expect((await run.describe()).status.name).toBe("COMPLETED");
  });

  test.concurrent("passes on the signal to abort, with who and why", async () => {
    const { follower } = await follow("aborted");
    await follower.signal("abortSignal", { by: "ada", why: "wrong day" });
    expect(await resultOf(follower)).toMatchObject({ outcome: "aborted", reason: "aborted by ada: wrong day" });
  });

  test.concurrent("answers progress with what its run last told, and names that run", async () => {
    const { follower, run } = await follow("asked");
    const { runId } = await run.describe();
    await world.until(
      async () => (await follower.query<Progress>("progress")).waiting?.for.startsWith("caches") === true,
    );
    expect(await follower.query("progress")).toMatchObject({
      slot: slotOf("asked"),
      waiting: { for: "caches to drop the old key" },
      follows: { workflowId: slotWorkflowId(slotOf("asked")), runId },
    });
    expect(await resultOf(follower)).toEqual(await resultOf(run));
  });

  test.concurrent("passes on an approval by update, and its answer", async () => {
    const { follower } = await follow("updated");
    await awaitsApproval(follower);
    const said = await follower.executeUpdate("approve", { args: [{ by: "ada", why: "seen" }] });
    expect(said).toEqual({ by: "ada" });
    expect((await resultOf(follower)).steps).toContainEqual(
      expect.objectContaining({ step: "approval before-install", note: "approved by ada: seen" }),
    );
  });

  test.concurrent("passes on an approval by signal", async () => {
    const { follower } = await follow("signalled");
    await awaitsApproval(follower);
    await follower.signal("approveSignal", { by: "ada", why: "quiet day" });
    expect((await resultOf(follower)).steps).toContainEqual(
      expect.objectContaining({ step: "approval before-revoke", note: "approved by ada: quiet day" }),
    );
  });

  test.concurrent("refuses at once an approval that is not one, or that nothing waits for, and goes on", async () => {
    const { follower } = await follow("refused");
    await awaitsApproval(follower);
    const refusal = async (approval: unknown): Promise<unknown> =>
      follower.executeUpdate("approve", { args: [approval] }).then(
        () => "taken",
        (error: unknown) => error,
      );
    expect(await refusal({ by: 5 })).toBeInstanceOf(WorkflowUpdateFailedError);
    await follower.executeUpdate("approve", { args: [{ by: "ada" }] });
    expect(await refusal({ by: "bob" })).toBeInstanceOf(WorkflowUpdateFailedError);
    expect((await resultOf(follower)).outcome).toBe("rotated");
  });

  test.concurrent("leaves its run alone when it is terminated", async () => {
    const { follower, run } = await follow("terminated");
    await follower.terminate();
    expect((await resultOf(run)).outcome).toBe("rotated");
  });

  test.concurrent("leaves its run alone when it times out", async () => {
    await startWithTimeout("timed", "by-hand-timed", "3s");
    const follower = world.client.workflow.getHandle("by-hand-timed");
    await expect(follower.result()).rejects.toBeInstanceOf(WorkflowFailedError);
    expect((await follower.describe()).status.name).toBe("TIMED_OUT");
    expect((await resultOf(runOf("timed"))).outcome).toBe("rotated");
  });
});

describe("a start under the slot's own id", () => {
  test.concurrent("is refused before anything is changed when its execution timeout is too short", async () => {
    const before = await keysNamed("hasty");
    await startWithTimeout("hasty", slotWorkflowId(slotOf("hasty")), "30s");
    const failure = await runOf("hasty")
      .result()
      .then(
        () => undefined,
        (error: unknown) => (error instanceof WorkflowFailedError ? error.cause : error),
      );
    expect(failure).toBeInstanceOf(ApplicationFailure);
    expect(failure).toMatchObject({ type: "InvalidInput" });
    expect(String(failure)).toMatch(/the execution timeout of 30s .* start it with .* or more, or without one/);
    expect(await keysNamed("hasty")).toEqual(before);
  });

  test.concurrent("runs with an execution timeout that is long enough", async () => {
    await startWithTimeout("pressed", slotWorkflowId(slotOf("pressed")), "1h");
    expect((await resultOf(runOf("pressed"))).outcome).toBe("rotated");
  });
});

async function keysNamed(alias: string): Promise<string[]> {
  return (await world.record()).keys.filter(({ name }) => name.includes(`.${alias}.`)).map(({ id }) => id);
}

/** As a person types it. */
async function startWithTimeout(alias: string, workflowId: string, timeout: string): Promise<void> {
  const args = ["workflow", "start", "--type", "normalRotation", "--task-queue", taskQueue].concat(
    ["--workflow-id", workflowId, "--input", JSON.stringify({ slot: slotOf(alias) })],
    ["--execution-timeout", timeout, "--address", temporal.address],
  );
  const child = spawn(temporal.binary.path, args, { env: { PATH: process.env["PATH"] }, stdio: "ignore" });
  expect((await once(child, "close"))[0]).toBe(0);
}
