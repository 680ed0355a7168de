import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { applyPatch } from "../support/replacement.ts";
import type { Mutant } from "./mutant.ts";

/** What a copy does not need, or makes itself. */
const leftOut = new Set([".git", ".keyturn", "coverage", "dist", "node_modules"]);

/** A copy of this checkout, in which a test can be run with a patch applied. */
export class CheckoutCopy {
  readonly directory = mkdtempSync(join(tmpdir(), "keyturn-mutant-"));

  constructor(checkout = resolve(".")) {
    for (const name of readdirSync(checkout)) {
      if (!leftOut.has(name)) cpSync(join(checkout, name), join(this.directory, name), { recursive: true });
    }
    symlinkSync(join(checkout, "node_modules"), join(this.directory, "node_modules"), "dir");
  }

  patch({ file, ...replacement }: Pick<Mutant, "file" | "find" | "replace">): void {
    const path = join(this.directory, file);
    writeFileSync(path, applyPatch(readFileSync(path, "utf8"), replacement));
  }

  /** Builds it, types checked. Throws with what the compiler said. */
  build(): void {
    const { status, stdout, stderr } = spawnSync("npm", ["run", "build", "--silent"], {
      cwd: this.directory,
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(`the build failed:\n${stdout}${stderr}`);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
