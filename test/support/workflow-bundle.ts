import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";

import type { WorkflowCode } from "../../src/worker.ts";

let bundle: Promise<WorkflowCode> | undefined;

/** The workflows as they are in the sources now, bundled once for a file of tests. */
export function workflowBundle(): Promise<WorkflowCode> {
  return (bundle ??= makeBundle());
}

async function makeBundle(): Promise<WorkflowCode> {
  const source = fileURLToPath(new URL("../../src/workflows/index.ts", import.meta.url));
  // In the build the sources lie beside as JavaScript.
  const workflowsPath = existsSync(source) ? source : source.replace(/\.ts$/, ".js");
  const { code } = await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger("WARN") });
  return { workflowBundle: { code } };
}
