import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

import { type Environment, parseInventory, readCredentials } from "../../src/config.ts";
import { diagnose, type Diagnosis } from "../../src/doctor/diagnose.ts";
import type { Finding } from "../../src/doctor/finding.ts";
import { createGround, type TemporalGround } from "../../src/doctor/ground.ts";
import { generateSealingKey } from "../../src/sealing.ts";
import { prod, prodGateway, type Stage, staging, stagingGateway } from "./activities.ts";

/** The doctor against a stage's sandbox. */

export interface Visit {
  policy?: Record<string, unknown>;
  slots?: Record<string, unknown>;
  environments?: Record<string, unknown>;
  inventory?: Record<string, unknown>;
  env?: Environment;
  directory?: string;
  temporal?: TemporalGround;
  only?: string[];
}

export interface Visited extends Diagnosis {
  /** The findings of one check, as `level: message`. */
  said(check: string): string[];
  of(check: string): Finding[];
}

const nowhere: TemporalGround = { address: "127.0.0.1:9", namespace: "default", why: "no Temporal server answers" };

export async function visit(stage: Stage, options: Visit = {}): Promise<Visited> {
  const { policy = {}, slots = {}, environments = {}, inventory = {}, env = {}, temporal = nowhere, only } = options;
  const variables = { ...stage.env, ...env };
  const { publicKey } = await generateSealingKey("2026-11");
  const read = parseInventory(
    JSON.stringify({
      installation: "acme",
      account: "${CLOUDFLARE_ACCOUNT_ID}",
      environments: {
        production: { gateway: prodGateway },
        staging: { gateway: stagingGateway },
        ...environments,
      },
      slots: {
        [prod]: { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } },
        [staging]: { openai: { project: "proj_stg", serviceAccount: "svc_acct_2" } },
        ...slots,
      },
      sealing: [publicKey],
      policy,
      ...inventory,
    }),
    "keyturn.yaml",
    variables,
  );
  const diagnosis = await diagnose(
    createGround({
      env: variables,
      directory: options.directory ?? (await emptyDirectory()),
      inventory: read,
      credentials: readCredentials(variables),
      temporal,
      ...(only === undefined ? {} : { only }),
    }),
  );
  const of = (check: string): Finding[] => diagnosis.findings.filter((finding) => finding.check === check);
  return { ...diagnosis, of, said: (check) => of(check).map(({ level, message }) => `${level}: ${message}`) };
}

export async function emptyDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "keyturn-doctor-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Runs git in a repository of the test's own, whoever's settings this machine has. */
export function git(directory: string, ...args: string[]): void {
  const nobody = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
  execFileSync("git", [...nobody, ...args], { cwd: directory, stdio: "ignore" });
}

/** Changes settings of a gateway, as somebody would in the dashboard. */
export async function setGateway(stage: Stage, id: string, change: Record<string, unknown>): Promise<void> {
  const path = `/ai-gateway/gateways/${id}`;
  const { result } = (await stage.cloudflare("GET", path)) as { result: Record<string, unknown> };
  await stage.cloudflare("PUT", path, { ...result, ...change });
}
