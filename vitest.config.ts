import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    globalSetup: "./test/support/share-bundle.ts",
    // Tests start servers and workers of their own, and wait most of the time; more at once make each other late.
    maxWorkers: 3,
    // A first run fetches Temporal's binaries, and the first worker of a file bundles the workflows.
    hookTimeout: 120_000,
    testTimeout: 90_000,
    reporters: ["default", "./test/support/closing-line.ts"],
  },
});
