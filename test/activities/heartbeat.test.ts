import { Context } from "@temporalio/activity";
import { MockActivityEnvironment } from "@temporalio/testing";
import { expect, test } from "vitest";

import { heartbeatInterceptor } from "../../src/activities/heartbeat.ts";

/** Runs an attempt that ends once its heartbeats were seen, or at once where none are due. */
async function beatsOf(heartbeatTimeoutMs: number | undefined, wanted: number): Promise<number> {
  const environment = new MockActivityEnvironment(heartbeatTimeoutMs === undefined ? {} : { heartbeatTimeoutMs });
  let beats = 0;
  await environment.run(async () => {
    const { execute } = heartbeatInterceptor(Context.current());
    const seen = new Promise<void>((resolve) => {
      environment.on("heartbeat", () => {
        beats++;
        if (beats >= wanted) resolve();
      });
      if (wanted === 0) resolve();
    });
    await execute?.({ args: [], headers: {} }, async () => seen);
  });
  return beats;
}

test("an attempt gives signs of life while it lasts, without doing anything for it", async () => {
  expect(await beatsOf(50, 3)).toBe(3);
});

test("an attempt that nobody watches gives none", async () => {
  expect(await beatsOf(undefined, 0)).toBe(0);
});
