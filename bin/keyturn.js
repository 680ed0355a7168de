#!/usr/bin/env node
// Runs the built command line; a fresh checkout has none yet.
import { existsSync } from "node:fs";

const built = new URL("../dist/src/cli/main.js", import.meta.url);
if (existsSync(built)) {
  const { main } = await import(built.href);
  await main(process.argv.slice(2));
} else {
  process.stderr.write(
    "keyturn: this checkout is not set up yet: run node scripts/setup.mjs, which installs what it needs and builds\n",
  );
  process.exitCode = 1;
}
