/**
 * Sweeps the time scale: at which scale do the teeth bite every time, and the true build never loses a request?
 * Usage: node dist/scripts/sweep-time-scale.js 60,120 3
 */
import { idleByNoRows, noWaits, lateUsage, lateUsagePolicy } from "../test/support/teeth.ts";
import { startTemporal, startWorld, type WorldOptions } from "../test/support/world.ts";

const scales = (process.argv[2] ?? "60").split(",").map(Number);
const rounds = Number(process.argv[3] ?? 1);
const temporal = await startTemporal();

async function run(name: string, options: Omit<WorldOptions, "temporal">): Promise<void> {
  const world = await startWorld({ temporal, ...options });
  const traffic = world.traffic(120);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const startedAt = Date.now();
  const outcome = await world.rotate().then(
    ({ outcome, times }) =>
      `${outcome}, last used ${times.lastUsed}, revoked ${times.revoked}, dead ${times.confirmedDead}`,
    (error: unknown) => String(error instanceof Error ? (error.cause ?? error) : error),
  );
  const ms = Date.now() - startedAt;
  await new Promise((resolve) => setTimeout(resolve, 1_000 + 600_000 / options.timeScale));
  await traffic.stop();
  const { served, failed, failures } = traffic;
  console.log(JSON.stringify({ name, timeScale: options.timeScale, ms, served, failed, first: failures[0], outcome }));
  await world.stop();
}

try {
  for (const timeScale of scales) {
    for (let round = 0; round < rounds; round++) {
      await run("no waits", { timeScale, policy: noWaits });
      await run("no rows taken for idle", {
        timeScale,
        sandbox: lateUsage,
        policy: lateUsagePolicy(timeScale),
        breakActivities: idleByNoRows,
      });
      await run("true build, late usage", { timeScale, sandbox: lateUsage, policy: lateUsagePolicy(timeScale) });
    }
  }
} finally {
  await temporal.stop();
}
