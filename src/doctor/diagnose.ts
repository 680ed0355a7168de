import { maskSecrets } from "../redacted.ts";
import { type Check, checks } from "./checks.ts";
import type { Finding, Level } from "./finding.ts";
import type { Ground } from "./ground.ts";

export interface Diagnosis {
  /** No problem was found; warnings and unknowns may have been. */
  healthy: boolean;
  counts: Record<Level, number>;
  findings: Finding[];
}

/** Makes the checks one after the other, since the services count requests, and puts their remedies beside them. */
export async function diagnose(ground: Ground, table: readonly Check[] = checks): Promise<Diagnosis> {
  const findings: Finding[] = [];
  for (const { name, remedy, run } of table) {
    for (const { about, level, message, remedy: own } of await run(ground)) {
      const told = { check: name, about, level, message: maskSecrets(message) };
      findings.push(level === "ok" ? told : { ...told, remedy: maskSecrets(own ?? remedy) });
    }
  }
  const counts: Diagnosis["counts"] = { ok: 0, warning: 0, problem: 0, unknown: 0 };
  for (const { level } of findings) counts[level] += 1;
  return { healthy: counts.problem === 0, counts, findings };
}
