import { expect, test } from "vitest";

import { describeDiagnosis } from "../../src/cli/doctor.ts";
import { VariableMissing } from "../../src/doctor/environment.ts";
import type { Finding, Level } from "../../src/doctor/finding.ts";

test("the text begins with the problems, then come the warnings, then the rest", () => {
  const finding = (about: string, level: Level): Finding => ({
    check: `${level}-of-${about}`,
    about,
    level,
    message: "m",
  });
  const findings = [
    finding("temporal", "ok"),
    finding("production/openai", "warning"),
    finding("production/openai", "problem"),
    finding("temporal", "unknown"),
    finding("files", "warning"),
    finding("files", "problem"),
  ];
  const text = describeDiagnosis({ healthy: false, counts: { ok: 1, warning: 2, problem: 2, unknown: 1 }, findings });
  expect([...text.matchAll(/[a-z]+-of-\S+(?=:)/g)].map(([check]) => check)).toEqual([
    "problem-of-files",
    "problem-of-production/openai",
    "warning-of-files",
    "warning-of-production/openai",
    "ok-of-temporal",
    "unknown-of-temporal",
  ]);
  expect(text.trimEnd().split("\n").at(-1)).toBe("2 problems, 2 warnings, 1 unknown; nothing was changed");
});

test.each([
  [["A"], "A is not set"],
  [["A", "B"], "neither A nor B is set"],
  [["A", "B", "C"], "none of A, B and C is set"],
])("of missing variables %j it says: %s", (names, said) => {
  expect(new VariableMissing(names).message).toBe(`this is not looked at: ${said}`);
});
