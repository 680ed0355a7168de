import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";

import type { WorkflowCode } from "../../src/worker.ts";
import { applyPatch, type Replacement } from "./replacement.ts";

/** The workflows as they would be with one file changed, bundled from a copy. */
export async function brokenBundle(file: string, replacement: Replacement): Promise<WorkflowCode> {
  const copy = mkdtempSync(join(tmpdir(), "keyturn-broken-"));
  try {
    for (const folder of ["src/workflows", "src/domain", "src/activities"]) {
      cpSync(folder, join(copy, folder), { recursive: true });
    }
    symlinkSync(resolve("node_modules"), join(copy, "node_modules"), "dir");
    const target = join(copy, file);
    writeFileSync(target, applyPatch(readFileSync(target, "utf8"), replacement));
    const workflowsPath = join(copy, "src/workflows/index.ts");
    const { code } = await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger("ERROR") });
    return { workflowBundle: { code } };
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}
