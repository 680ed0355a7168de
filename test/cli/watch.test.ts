import type { WorkflowHandle } from "@temporalio/client";
import pc from "picocolors";
import { expect, test } from "vitest";

import { createOutput, type Output } from "../../src/cli/output.ts";
import { watchRotation } from "../../src/cli/watch.ts";
import type { Progress, RotationResult, StepRecord } from "../../src/domain/rotation.ts";
import type { Temporal } from "../../src/temporal/client.ts";

/** What somebody sees who watches a rotation: here Temporal's answers are played, one for each look. */

const at = (second: number): string => new Date(Date.UTC(2026, 10, 28, 3, 0, second)).toISOString();
const step = (name: StepRecord["step"], second: number): StepRecord => ({
  step: name,
  started: at(second),
  ended: at(second + 1),
  outcome: "done",
});

test("a rotation that goes on as an emergency shows its steps anew, under the same rotation id", async () => {
  const rotation = [step("inspectSlot", 0), step("issueKey", 1)];
  const emergency = [step("cutKey", 5), step("inspectSlot", 6), step("findCompromised", 7)];
  const looks = [rotation, [], emergency.slice(0, 1)].map((steps) => ({ steps, waiting: null }) as unknown as Progress);
  const result = { steps: emergency } as unknown as RotationResult;
  const handle = {
    describe: async () => ({ status: { name: looks.length > 0 ? "RUNNING" : "COMPLETED" } }),
    query: async () => looks.shift(),
    result: async () => result,
  } as unknown as WorkflowHandle;
  const connection = { withDeadline: async (_by: number, call: () => Promise<unknown>) => call() };
  const lines: string[] = [];
  const output: Output = {
    ...createOutput(),
    paint: pc.createColors(false),
    say: (line) => void lines.push(line),
    live: () => undefined,
  };

  expect(await watchRotation({ client: { connection } } as unknown as Temporal, handle, output)).toEqual({
    kind: "ended",
    result,
  });
  expect(lines.map((line) => line.replace(/ \(.*/, ""))).toEqual([
    "✓ inspectSlot",
    "✓ issueKey",
    "goes on as the emergency that follows",
    "✓ cutKey",
    "✓ inspectSlot",
    "✓ findCompromised",
  ]);
});
