import { existsSync } from "node:fs";
import { readFile, rename, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";

/** Names the file in which the files of one run of tests share the bundle: making it costs each of them seconds. */
export const sharedBundleVariable = "KEYTURN_TEST_BUNDLE";

interface Bundle {
  workflowBundle: { code: string };
}

let bundle: Promise<Bundle> | undefined;

/** The workflows as they are in the sources now, bundled once for a run of tests. */
export function workflowBundle(): Promise<Bundle> {
  return (bundle ??= sharedBundle());
}

async function sharedBundle(): Promise<Bundle> {
  const path = process.env[sharedBundleVariable];
  if (path === undefined) return makeBundle();
  if (existsSync(path)) return { workflowBundle: { code: await readFile(path, "utf8") } };
  const made = await makeBundle();
  const aside = `${path}.${process.pid}`;
  await writeFile(aside, made.workflowBundle.code);
  await rename(aside, path);
  return made;
}

async function makeBundle(): Promise<Bundle> {
  const source = fileURLToPath(new URL("../../src/workflows/index.ts", import.meta.url));
  // In the build the sources lie beside as JavaScript.
  const workflowsPath = existsSync(source) ? source : source.replace(/\.ts$/, ".js");
  const { code } = await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger("WARN") });
  return { workflowBundle: { code } };
}
