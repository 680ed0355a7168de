import { Runtime } from "@temporalio/worker";
import { beforeAll, expect, test } from "vitest";

import { keepingLogger } from "../support/secrecy.ts";
import { idleByNoRows, lateUsage, lateUsagePolicy, noWaits } from "../support/teeth.ts";
import { startTemporal, startWorld, type WorldOptions } from "../support/world.ts";

/** The sandbox can only show that nothing is lost if it shows what is lost when keyturn is broken. */

const timeScale = 60;
beforeAll(() => {
  Runtime.install({ logger: keepingLogger });
});

async function lostBy(options: Omit<WorldOptions, "temporal" | "timeScale">): Promise<number> {
  const temporal = await startTemporal();
  const world = await startWorld({ temporal, timeScale, ...options });
  try {
    const traffic = world.traffic(100);
    expect((await world.rotate()).outcome).toBe("rotated");
    await world.later(10 * 60_000);
    await traffic.stop();
    expect((await world.record()).traffic.failed).toBe(traffic.failed);
    return traffic.failed;
  } finally {
    await world.stop();
    await temporal.stop();
  }
}

test.concurrent("without waits and without the idle check, requests are lost", async () => {
  expect(await lostBy({ policy: noWaits })).toBeGreaterThan(0);
}, 60_000);

test.concurrent("taking no rows for no use loses requests where usage comes late", async () => {
  // The wait for the longest request would hide some of what the wrong answer does.
  const policy = { ...lateUsagePolicy(timeScale), longestRequest: "1ms" };
  const lost = await lostBy({ sandbox: lateUsage, policy, breakActivities: idleByNoRows });
  expect(lost).toBeGreaterThan(0);
}, 90_000);
