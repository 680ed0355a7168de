import { WorkflowFailedError } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { RotationFailure } from "../../src/domain/failure.ts";
import { parseMark } from "../../src/domain/mark.ts";
import { type Progress, type RotationResult, slotWorkflowId } from "../../src/domain/rotation.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { foundIn, keepingLogger, logged, readableHistory } from "../support/secrecy.ts";
import { lateUsage, lateUsagePolicy } from "../support/teeth.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";

const slot = "production/openai";

let temporal: DevServer;
beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
});
afterAll(() => temporal.stop());

describe("a rotation under live traffic, with usage that comes later than the quiet period is long", () => {
  const timeScale = 60;
  let world: World;
  let result: RotationResult;
  let history: string;
  let served = 0;
  let failures: string[] = [];
  beforeAll(async () => {
    world = await startWorld({ temporal, timeScale, sandbox: lateUsage, policy: lateUsagePolicy(timeScale) });
    const traffic = world.traffic(100);
    const handle = await world.start();
    result = (await handle.result()) as RotationResult;
    await world.later(60_000);
    await traffic.stop();
    ({ served, failures } = traffic);
    history = await readableHistory(handle);
  }, 180_000);
  afterAll(() => world.stop());

  test("loses no request", async () => {
    expect(failures).toEqual([]);
    const { traffic } = await world.record();
    expect(traffic.failed).toBe(0);
    expect(traffic.served).toBe(served);
    expect(served).toBeGreaterThan(5_000);
  });

  test("leaves exactly one live key, the new one, in the slot", async () => {
    const { keys } = await world.record();
    const alive = keys.filter(({ state, projectId }) => projectId === "proj_abc" && state === "active");
    expect(alive.map(({ id }) => id)).toEqual([result.newKey?.id]);
    expect(await world.servedKeys()).toEqual([result.newKey?.id]);
  });

  test("revokes the old key only after its last use, and sees it dead after that", async () => {
    const { keys } = await world.record();
    const old = keys.find(({ id }) => id === result.oldKey?.id);
    const { lastUsedAt, revokedAt, deadAt } = old ?? {};
    expect(Date.parse(lastUsedAt ?? "")).toBeLessThanOrEqual(Date.parse(revokedAt ?? ""));
    // Refusals in a row are of whichever instance answers: the last of them may drop the key a moment later.
    expect(Date.parse(deadAt ?? "")).toBeLessThanOrEqual(Date.parse(result.times.confirmedDead ?? "") + 250);
    expect(Date.parse(result.times.revoked ?? "")).toBeLessThanOrEqual(Date.parse(result.times.confirmedDead ?? ""));
    // OpenAI reports these by project only.
    expect(result.unknown).toEqual(["use of vector_stores by key", "use of code_interpreter_sessions by key"]);
  });

  test("shows no key in the clear: not in the history, not in the logs", async () => {
    const values = await world.values();
    expect(values.length).toBeGreaterThanOrEqual(3);
    expect(foundIn(history, values)).toEqual([]);
    expect(foundIn(logged.join("\n"), values)).toEqual([]);
    expect(history).toContain('"slot":"production/openai"'.replaceAll('"', '\\"'));
  });

  test("seals the key on its way from step to step", () => {
    const [, sealed = ""] = /\\"sealed\\":\\"(eyJ[\w.-]+)\\"/.exec(history) ?? [];
    const header: unknown = JSON.parse(Buffer.from(sealed.split(".")[0] ?? "", "base64url").toString());
    expect(header).toMatchObject({ alg: "ECDH-ES", enc: "A256GCM", slot, rot: result.rotationId });
  });

  test("leaves no alias of its own, and a mark that names the new key", async () => {
    await world.until(async () => (await world.secrets()).every(({ name }) => !name.includes("kt-")));
    const secrets = await world.secrets();
    const held = secrets.find(({ name }) => name === "github-ai-agent-prod_openai_default");
    expect(parseMark(held?.comment ?? undefined)).toMatchObject({
      keyId: result.newKey?.id,
      rotationId: result.rotationId,
    });
  });

  test("tells its story in the UI: summary of each step, search attributes", async () => {
    const description = await world.client.workflow.getHandle(slotWorkflowId(slot)).describe();
    const found = Object.fromEntries(
      description.typedSearchAttributes.getAll().map(({ key, value }) => [key.name, value]),
    );
    expect(found).toMatchObject({
      KeyturnSlot: slot,
      KeyturnProvider: "openai",
      KeyturnKind: "normal",
      KeyturnPhase: "rotated",
    });
  });

  test("takes few events", async () => {
    const { historyLength } = await world.client.workflow.getHandle(slotWorkflowId(slot)).describe();
    expect(historyLength).toBeLessThan(200);
  });
});

describe("two starts of one slot", () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ temporal, ...quick });
  });
  afterAll(() => world.stop());

  test("the second under another id fails at once and names the running one, the first goes on", async () => {
    const first = await world.start();
    const second = await world.start({}, "by-hand");
    const failure = await second.result().then(
      () => undefined,
      (error: unknown) => (error instanceof WorkflowFailedError ? error.cause : error),
    );
    expect(failure).toBeInstanceOf(ApplicationFailure);
    expect(failure).toMatchObject({ type: "SlotBusy" });
    expect(String(failure)).toContain((await first.describe()).runId);
    expect(((await first.result()) as RotationResult).outcome).toBe("rotated");
  });

  test("a start under another id follows the slot's run to its end", async () => {
    const follower = await world.start({}, "by-hand-again");
    const result = (await follower.result()) as RotationResult;
    expect(result.outcome).toBe("rotated");
  });
});

describe("stopping", () => {
  test("an abort after the install leaves the new key serving and names the old one", async () => {
    const world = await startWorld({ temporal, timeScale: 60 });
    try {
      const handle = await world.start();
      await world.until(async () => (await handle.query<Progress>("progress")).phase === "awaitCacheInvalidation");
      await handle.signal("abortSignal", { by: "ada", why: "wrong day" });
      const result = (await handle.result()) as RotationResult;
      expect(result).toMatchObject({ outcome: "aborted", reason: "aborted by ada: wrong day" });
      expect(result.leftOver.map(({ id }) => id)).toEqual([result.oldKey?.id]);
      const { keys } = await world.record();
      expect(keys.filter(({ state, projectId }) => projectId === "proj_abc" && state === "active")).toHaveLength(2);
      await world.until(async () => (await world.secrets()).every(({ name }) => !name.includes("kt-")));
    } finally {
      await world.stop();
    }
  });

  test("a cancellation before the install revokes the new key and leaves the old one serving", async () => {
    const world = await startWorld({ temporal, timeScale: 60, sandbox: { settleMs: 600_000 } });
    try {
      const handle = await world.start();
      await world.until(async () => (await handle.query<Progress>("progress")).phase === "verifyAtProvider");
      await handle.cancel();
      const result = (await handle.result()) as RotationResult;
      expect(result).toMatchObject({ outcome: "aborted", newKey: null, leftOver: [] });
      const { keys } = await world.record();
      const alive = keys.filter(({ state, projectId }) => projectId === "proj_abc" && state === "active");
      expect(alive.map(({ id }) => id)).toEqual([result.oldKey?.id]);
    } finally {
      await world.stop();
    }
  });

  test("a cancellation during an attempt that then fails by itself completes as aborted, too", async () => {
    let cancel: (() => Promise<unknown>) | undefined;
    const world = await startWorld({
      temporal,
      ...quick,
      beforeActivity: async (name) => {
        if (name !== "stageAliases" || cancel === undefined) return;
        await cancel();
        throw new RotationFailure("NotYetPropagated", "the gateway does not see the secret yet");
      },
    });
    try {
      const handle = await world.start();
      cancel = async () => {
        await handle.cancel();
        await handle.query("progress"); // the workflow has taken it in
      };
      expect(await handle.result()).toMatchObject({ outcome: "aborted", reason: "cancelled", newKey: null });
      const { keys } = await world.record();
      expect(keys.filter(({ state, projectId }) => projectId === "proj_abc" && state === "active")).toHaveLength(1);
    } finally {
      await world.stop();
    }
  });
});
