import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestProject } from "vitest/node";

import { sharedBundleVariable } from "./workflow-bundle.ts";

/** Before a run of tests, once for all its projects: a folder for what its files share. Under `--watch` the sources change, so nothing is shared. */
export async function setup({ config }: TestProject): Promise<void> {
  if (config.watch || process.env[sharedBundleVariable] !== undefined) return;
  process.env[sharedBundleVariable] = join(await mkdtemp(join(tmpdir(), "keyturn-bundle-")), "workflows.js");
}

/** After it. */
export async function teardown(): Promise<void> {
  const path = process.env[sharedBundleVariable];
  if (path !== undefined) await rm(dirname(path), { recursive: true, force: true });
}
