#!/usr/bin/env node
// Bundles the compiled workflows into dist/workflow-bundle.js, which workers load: they then start without webpack, and
// all workers of one build run the same code. Skipped when nothing that goes into the bundle changed.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const workflowsPath = join(root, "dist/src/workflows/index.js");
const bundlePath = join(root, "dist/workflow-bundle.js");
const stampPath = `${bundlePath}.sha256`;

/** Everything the bundle can be made from: our compiled code, this script, and the versions of the dependencies. */
function inputs() {
  const compiled = readdirSync(join(root, "dist/src"), { recursive: true })
    .filter((name) => name.endsWith(".js"))
    .toSorted((a, b) => (a < b ? -1 : 1))
    .map((name) => join(root, "dist/src", name));
  return [fileURLToPath(import.meta.url), join(root, "package-lock.json"), ...compiled];
}

function hashOf(paths) {
  const hash = createHash("sha256");
  for (const path of paths) hash.update(path).update("\0").update(readFileSync(path)).update("\0");
  return hash.digest("hex");
}

function writeWhole(path, text) {
  const aside = `${path}.${process.pid}`;
  writeFileSync(aside, text);
  renameSync(aside, path);
}

if (existsSync(workflowsPath)) {
  const hash = hashOf(inputs());
  const stamp = existsSync(stampPath) ? readFileSync(stampPath, "utf8") : "";
  if (stamp !== hash || !existsSync(bundlePath)) {
    const { bundleWorkflowCode, DefaultLogger } = await import("@temporalio/worker");
    const { code } = await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger("WARN") });
    writeWhole(bundlePath, code);
    writeWhole(stampPath, hash);
  }
}
