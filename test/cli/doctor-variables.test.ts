import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";

import type { Diagnosis } from "../../src/doctor/diagnose.ts";
import { startSandbox } from "../../src/sandbox/index.ts";
import { keyturn, ownDirectory } from "./run.ts";

/** The doctor goes on past variables that are not set: each is a finding, and what needs it is unknown. */

async function inventory(project: string): Promise<{ directory: string; config: string }> {
  const directory = await ownDirectory();
  const config = join(directory, "keyturn.yaml");
  await writeFile(
    config,
    `
installation: acme
account: \${CLOUDFLARE_ACCOUNT_ID} # not \${A_COMMENT}
environments: { production: { gateway: github-ai-agent-prod } }
slots:
  production/openai: { openai: { project: "${project}", serviceAccount: svc_acct_1 } }
sealing: [{ kid: 2026-11, publicKey: { kty: EC, crv: P-256, x: "abc", y: "def" } }]
`,
  );
  return { directory, config };
}

async function diagnosis(env: Record<string, string>, project = "proj_abc") {
  const { directory, config } = await inventory(project);
  const more = { KEYTURN_CONFIG: config, TEMPORAL_ADDRESS: "127.0.0.1:9" };
  const ran = await keyturn(["doctor", "--json"], { ...env, ...more }, directory);
  expect(ran.code, ran.stderr).toBe(1);
  const { findings } = JSON.parse(ran.stdout) as Diagnosis;
  const of = (level: string) => findings.filter((one) => one.level === level).map(({ check }) => check);
  const told = findings.filter(({ check }) => check === "environment").map(({ message }) => message.split(":")[0]);
  return { findings, of, told };
}

test("each is told once as a problem, what needs one is unknown, and nothing outside is asked", async () => {
  const { of, told } = await diagnosis({ OPENAI_ADMIN_KEY: "sk-admin-madeUpMadeUp" }, "${OPENAI_PROJECT}");
  expect(told).toEqual([
    "CLOUDFLARE_ACCOUNT_ID is not set",
    "OPENAI_PROJECT is not set",
    "CLOUDFLARE_API_TOKEN is not set",
  ]);
  expect(of("problem").filter((check) => check !== "environment")).toEqual(["temporal"]);
  expect(of("unknown")).toEqual(expect.arrayContaining(["admin-keys", "gateway", "secret", "held-key", "quota"]));
}, 30_000);

test("without the Cloudflare token the provider is asked all the same", async () => {
  const played = await startSandbox({ timeScale: 600 });
  try {
    const { CLOUDFLARE_API_TOKEN: _, ...env } = played.env;
    const { findings, of, told } = await diagnosis(env);
    expect(told).toEqual(["CLOUDFLARE_API_TOKEN is not set"]);
    expect(findings.find(({ check }) => check === "admin-keys")).toMatchObject({ level: "ok" });
    expect(of("problem").filter((check) => check !== "environment")).toEqual(["temporal"]);
    const record = (await (await fetch(`${played.control}/record`)).json()) as { requests: { path: string }[] };
    expect(record.requests.filter(({ path }) => path.includes("/accounts/"))).toEqual([]);
  } finally {
    await played.close();
  }
}, 30_000);
