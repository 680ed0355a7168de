import { readFileSync } from "node:fs";
import { DefaultLogger, Runtime, Worker } from "@temporalio/worker";
import { beforeAll, describe, expect, test } from "vitest";

import type { WorkflowCode } from "../src/worker.ts";
import { historiesDirectory, readHistories, type RecordedHistory } from "./support/histories.ts";
import { brokenBundle } from "./support/broken-workflows.ts";
import { endingOf, paths } from "./support/paths.ts";
import { workflowBundle } from "./support/workflow-bundle.ts";

/**
 * Promise 5 across versions: a run that began with the workflows as they were recorded goes on with those of today. See
 * scripts/record-histories.ts.
 */

const histories = readHistories();

/** What each history's replay failed with, where it failed. */
async function replay(bundle: WorkflowCode, recorded: RecordedHistory[]) {
  const failures: Record<string, string> = {};
  // The ids of runs are not those of paths.
  const names = recorded.map(({ name }) => name);
  let at = 0;
  const inTurn = recorded.map(({ workflowId, history }) => ({ workflowId, history }));
  for await (const { error } of Worker.runReplayHistories(bundle, inTurn)) {
    const name = names[at++] ?? "";
    if (error !== undefined) failures[name] = `${error.name}: ${error.message}`;
  }
  expect(at).toBe(recorded.length);
  return failures;
}

beforeAll(() => {
  Runtime.install({ logger: new DefaultLogger("ERROR", () => undefined) });
});

describe("the recorded histories (promise 5)", () => {
  test("are of every path, and of no other", () => {
    expect(histories.map(({ name }) => name).toSorted()).toEqual(paths.map(({ name }) => name).toSorted());
  });

  test.each(paths)("of $name ends as it should", ({ name, ends }) => {
    const recorded = histories.find((history) => history.name === name);
    expect(recorded === undefined ? "never recorded" : endingOf(recorded.history)).toBe(ends);
  });

  test("replay with the workflows of today", async () => {
    expect(await replay(await workflowBundle(), histories)).toEqual({});
  });

  test("do not replay with workflows that take two steps in another order", async () => {
    const broken = await brokenBundle("src/workflows/normal-rotation.ts", {
      find: `      await rotation.step("stageAliases", () => stage(rotation, found, key), { unless: inPlace(rotation, found) });
      const staged = { unless: inPlace(rotation, found) };
      await rotation.step("verifyThroughGateway(new)", () => proveOnOwnAlias(rotation, found), staged);`,
      replace: `      const staged = { unless: inPlace(rotation, found) };
      await rotation.step("verifyThroughGateway(new)", () => proveOnOwnAlias(rotation, found), staged);
      await rotation.step("stageAliases", () => stage(rotation, found, key), staged);`,
    });
    const rotated = histories.filter(({ name }) => name === "rotated" || name === "input-refused");
    const failures = await replay(broken, rotated);
    expect(Object.keys(failures)).toEqual(["rotated"]);
    expect(failures["rotated"]).toMatch(/^DeterminismViolationError: .*[Nn]ondeterminism/s);
  });

  test.each(histories)("$name tells nothing of the machine it was made on", ({ name }) => {
    const text = readFileSync(`${historiesDirectory}/${name}.json`, "utf8");
    const readable = text.replaceAll(/"data":"([^"]*)"/g, (_, data: string) => Buffer.from(data, "base64").toString());
    expect(readable).not.toMatch(/"identity"|@|file:\/\/|node_modules|\/(?:home|root|tmp|Users|work)\//);
  });
});
