import { defineConfig } from "vitest/config";

/** The fault suites in full: every point, every fault. `npm test` has some of them. See test/faults/lanes.ts. */
export default defineConfig({
  test: {
    include: ["test/faults/**/*.test.ts"],
    env: { KEYTURN_FAULTS: "all" },
    pool: "forks",
    maxWorkers: 1,
    hookTimeout: 300_000,
  },
});
