import { execFile } from "node:child_process";
import { copyFile, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

const sample = `
export const work = async (): Promise<void> => undefined;
export function forgets(): void {
  work();
}
export function misuses(values: number[]): void {
  values.forEach(async () => work());
}
export function misses(kind: "a" | "b"): void {
  switch (kind) {
    case "a":
      break;
  }
}
export const anything: any = 1;
`;

test("a forgotten await, a promise nobody waits for, a missed case and an any are refused", async () => {
  const folder = await mkdtemp(join(tmpdir(), "keyturn-promises-"));
  try {
    for (const file of [".oxlintrc.json", "tsconfig.json"]) {
      await copyFile(join(root, file), join(folder, file));
    }
    await symlink(join(root, "node_modules"), join(folder, "node_modules"));
    await writeFile(join(folder, "sample.ts"), sample);
    const oxlint = join(root, "node_modules", "oxlint", "bin", "oxlint");
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [oxlint, "--type-aware", "--format", "json", "sample.ts"],
      { cwd: folder },
    ).catch((error: { stdout: string }) => error);
    const { diagnostics } = JSON.parse(stdout) as { diagnostics: { code: string }[] };
    expect(diagnostics.map(({ code }) => code).toSorted((a, b) => a.localeCompare(b))).toEqual([
      "typescript(no-explicit-any)",
      "typescript(no-floating-promises)",
      "typescript(no-misused-promises)",
      "typescript(switch-exhaustiveness-check)",
    ]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
