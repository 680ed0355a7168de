import { defineConfig } from "vitest/config";

/** The fault suites at length: every point, every fault, unless told otherwise. `npm test` has some of them. See test/faults/lanes.ts. */
export default defineConfig({
  test: {
    include: ["test/faults/**/*.test.ts", "test/e2e/one-at-a-time.test.ts", "test/e2e/escalation.test.ts"],
    env: { KEYTURN_FAULTS: process.env["KEYTURN_FAULTS"] ?? "all" },
    pool: "forks",
    globalSetup: "./test/support/share-bundle.ts",
    maxWorkers: 1,
    hookTimeout: 300_000,
  },
});
