import type { History } from "@temporalio/common/lib/proto-utils.js";
import { afterAll, beforeAll, expect, test } from "vitest";

import { play, type Skipping, slot, startOptions, startSkipping } from "../support/time-skipping.ts";
import { resultOf } from "./endings.ts";

/**
 * What Temporal Cloud bills a rotation for: starts, attempts of activities, timers, upserts of search attributes, signals
 * and updates (docs.temporal.io/cloud/actions, read 2026-11-27). Heartbeats are billed too; no history tells them.
 */

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

function billableActions({ events }: History): Record<string, number> {
  const actions = { starts: 0, attempts: 0, timers: 0, upserts: 0, signals: 0, updates: 0 };
  for (const event of events ?? []) {
    if (event.workflowExecutionStartedEventAttributes != null) actions.starts += 1;
    if (event.startChildWorkflowExecutionInitiatedEventAttributes != null) actions.starts += 1;
    actions.attempts += event.activityTaskStartedEventAttributes?.attempt ?? 0;
    if (event.timerStartedEventAttributes != null) actions.timers += 1;
    if (event.upsertWorkflowSearchAttributesEventAttributes != null) actions.upserts += 1;
    if (event.workflowExecutionSignaledEventAttributes != null) actions.signals += 1;
    if (event.signalExternalWorkflowExecutionInitiatedEventAttributes != null) actions.signals += 1;
    if (event.workflowExecutionUpdateAcceptedEventAttributes != null) actions.updates += 1;
  }
  return actions;
}

test("a plain rotation takes at most 30 billable actions", async () => {
  const played = play(() => skipping.env.currentTimeMs());
  const history = await skipping.withWorker(played, async () => {
    const handle = await skipping.client.workflow.start("normalRotation", { ...startOptions, args: [{ slot }] });
    expect(await resultOf(handle)).toMatchObject({ outcome: "rotated" });
    return handle.fetchHistory();
  });
  const actions = billableActions(history);
  expect(actions["attempts"]).toBe(played.calls.length);
  const all = Object.values(actions).reduce((sum, count) => sum + count, 0);
  expect(all, JSON.stringify(actions)).toBeLessThanOrEqual(30);
});
