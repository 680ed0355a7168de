import { defineConfig } from "vitest/config";

/** They change nothing that outlives a test: their files share what a process has loaded. */
const alike = ["activities", "cloudflare", "docs", "doctor", "domain", "providers", "sandbox"].map(
  (area) => `test/${area}/**/*.test.ts`,
);

export default defineConfig({
  test: {
    projects: [
      { extends: true, test: { name: "alone", include: ["test/**/*.test.ts"], exclude: alike } },
      { extends: true, test: { name: "together", include: alike, isolate: false } },
    ],
    pool: "forks",
    globalSetup: "./test/support/share-bundle.ts",
    // Tests start servers and workers of their own, and wait most of the time; more at once make each other late.
    maxWorkers: 3,
    // A first run fetches Temporal's binaries, and the first worker of a file bundles the workflows.
    hookTimeout: 120_000,
    testTimeout: 90_000,
    // Only for a known fault of the server that skips time: test/support/time-skipping.ts.
    retry: { count: 9, condition: /^TaskLost/ },
    reporters: ["default", "./test/support/closing-line.ts"],
  },
});
