import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Per file: imports that the arrows forbid, and some that they allow. `type` marks an import of types only. */
const samples = {
  "src/domain/sample.ts": {
    forbidden: ["node:fs", "node:fs/promises", "fs", "zod", "undici", "../redacted.ts"],
    allowed: ["./slot.ts"],
  },
  "src/workflows/sample.ts": {
    forbidden: [
      "node:crypto",
      "node:fs/promises",
      "crypto",
      "undici",
      "@temporalio/activity",
      "../activities/index.ts",
      "../http.ts",
      "../config.ts",
      "../redacted.ts",
      "../providers/index.ts",
      "../cloudflare/ai-gateway.ts",
      "type ../http.ts",
    ],
    allowed: [
      "@temporalio/workflow",
      "@temporalio/common",
      "zod",
      "../domain/slot.ts",
      "./messages.ts",
      "type ../activities/contract.ts",
    ],
  },
  "src/activities/sample.ts": {
    forbidden: [
      "../cli/output.ts",
      "../config.ts",
      "../sandbox/server.ts",
      "../workflows/index.ts",
      "../providers/index.ts",
      "../providers/openai.ts",
      "../providers/key-end.ts",
      "../providers/key-ends.ts",
      "type ../providers/key-end.ts",
    ],
    allowed: ["../domain/slot.ts", "../providers/provider.ts", "../cloudflare/x.ts", "../redacted.ts"],
  },
  // One door: nothing else ends, switches off or switches on a key.
  "src/activities/revocation.ts": {
    forbidden: ["../providers/key-ends.ts", "../providers/openai.ts", "../config.ts"],
    allowed: ["../providers/provider.ts", "../providers/key-end.ts"],
  },
  "src/worker.ts": {
    forbidden: [],
    allowed: ["./providers/key-end.ts", "./providers/key-ends.ts"],
  },
  "src/cli/sample.ts": {
    forbidden: ["../providers/key-end.ts", "../providers/key-ends.ts"],
    allowed: ["../providers/index.ts", "../activities/index.ts"],
  },
  "src/doctor/sample.ts": {
    forbidden: ["../providers/key-end.ts", "../providers/key-ends.ts"],
    allowed: ["../providers/provider.ts"],
  },
  "src/temporal/sample.ts": {
    forbidden: ["../providers/key-ends.ts", "type ../providers/key-end.ts"],
    allowed: ["../domain/rotation.ts"],
  },
  "src/providers/openai.ts": {
    forbidden: [
      "@temporalio/activity",
      "@temporalio/common",
      "../cloudflare/ai-gateway.ts",
      "../config.ts",
      "./gemini.ts",
      "./anthropic.ts",
    ],
    allowed: ["../domain/slot.ts", "../http.ts", "../redacted.ts", "./provider.ts", "zod"],
  },
  "src/providers/index.ts": {
    forbidden: ["@temporalio/common", "../cloudflare/ai-gateway.ts"],
    allowed: ["./gemini.ts", "./anthropic.ts", "./key-end.ts"],
  },
  "src/cloudflare/sample.ts": {
    forbidden: ["@temporalio/client", "../providers/openai.ts", "../config.ts"],
    allowed: ["../domain/slot.ts", "../http.ts", "../redacted.ts", "zod"],
  },
  "src/sandbox/sample.ts": {
    forbidden: ["../domain/slot.ts", "../http.ts", "../redacted.ts", "zod", "undici"],
    allowed: ["node:http", "./clock.ts"],
  },
};

const importOf = (source: string, index: number): string =>
  source.startsWith("type ")
    ? `export type { T${index} } from "${source.slice(5)}";`
    : `import { v${index} } from "${source}";\nvoid v${index};`;

let folder: string;
let refused: Set<string>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "keyturn-arrows-"));
  await copyFile(join(root, ".oxlintrc.json"), join(folder, ".oxlintrc.json"));
  for (const [path, { forbidden, allowed }] of Object.entries(samples)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), [...forbidden, ...allowed].map(importOf).join("\n"));
  }
  const oxlint = join(root, "node_modules", "oxlint", "bin", "oxlint");
  const { stdout } = await promisify(execFile)(process.execPath, [oxlint, "--format", "json", "src"], {
    cwd: folder,
  }).catch((error: { stdout: string }) => error);
  const { diagnostics } = JSON.parse(stdout) as {
    diagnostics: { code: string; filename: string; labels: { span: { line: number } }[] }[];
  };
  const lines = new Map<string, string>();
  for (const [path, { forbidden, allowed }] of Object.entries(samples)) {
    let line = 1;
    for (const [index, source] of [...forbidden, ...allowed].entries()) {
      lines.set(`${path}:${line}`, source);
      line += importOf(source, index).split("\n").length;
    }
  }
  refused = new Set(
    diagnostics
      .filter(({ code }) => code.includes("no-restricted-imports"))
      .map(({ filename, labels }) => {
        const source = lines.get(`${filename}:${labels[0]?.span.line}`);
        return `${filename} <- ${source}`;
      }),
  );
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe.each(Object.entries(samples))("%s", (path, { forbidden, allowed }) => {
  test.each(forbidden)("must not import %s", (source) => {
    expect(refused).toContain(`${path} <- ${source}`);
  });

  test.each(allowed)("may import %s", (source) => {
    expect(refused).not.toContain(`${path} <- ${source}`);
  });
});
