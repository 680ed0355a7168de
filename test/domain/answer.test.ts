import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

import { type Answer, classifyAnswer, provesKey, type Verdict } from "../../src/domain/answer.ts";
import { type ProviderName, providerNames } from "../../src/domain/slot.ts";

/** docs/providers.md is the table; these hold the code to it, row by row. */
const page = readFileSync(new URL("../../docs/providers.md", import.meta.url), "utf8");

/** The rows of the table under a heading, by the names of its columns. */
function rowsUnder(heading: string): Record<string, string>[] {
  const section = page.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? "";
  const lines = section
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim().replaceAll("\\", "")),
    );
  const [columns = [], , ...rows] = lines;
  return rows.map((cells) => Object.fromEntries(columns.map((column, index) => [column, cells[index] ?? ""])));
}

const list = (cell: string | undefined): string[] => (cell ?? "").split(", ").filter((item) => item !== "");
const verdicts = new Set<string>([
  "works",
  "works, no quota",
  "works, not allowed",
  "key refused",
  "no key sent",
  "alias unknown",
  "gateway token refused",
  "not the stored key",
  "cached",
  "rate limited",
  "unavailable",
  "unclear",
] satisfies Verdict[]);

/** A row with several statuses is a case for each. */
function cases(row: Record<string, string>): { status: number; verdict: string }[] {
  return list(row["HTTP"]).map((status) => ({ status: Number(status), verdict: row["verdict"] ?? "" }));
}

const providerCases = rowsUnder("What a provider's answer means").flatMap((row) =>
  cases(row).map(({ status, verdict }) => {
    const fields = { type: row["type"], code: row["code"], status: row["status"], reason: row["reason"] };
    const given = Object.entries(fields).filter(([, value]) => value);
    const message = row["words"] ? { message: `before. ${row["words"]}. after` } : {};
    const answer: Answer = {
      status,
      cached: false,
      ...(status < 400 ? {} : { providerError: { ...Object.fromEntries(given), ...message } }),
      ...(row["retry-after"] ? { retryAfterMs: Number.parseInt(row["retry-after"], 10) * 1_000 } : {}),
    };
    const told = [row["type"], row["code"], row["status"], row["reason"], row["words"], row["retry-after"]];
    return { provider: row["provider"] as ProviderName, answer, verdict, told: told.filter(Boolean).join(" ") };
  }),
);
const gatewayCases = rowsUnder("What the gateway's own answer means").flatMap((row) =>
  cases(row).map(({ status, verdict }) => ({
    answer: {
      status,
      cached: false,
      gatewayError: row["internalCode"] ? { internalCode: Number(row["internalCode"]) } : {},
    } satisfies Answer,
    verdict,
  })),
);

test("the tables are read whole, and name only verdicts there are", () => {
  expect(providerCases.length).toBeGreaterThan(45);
  expect(gatewayCases.length).toBeGreaterThan(15);
  for (const { verdict } of [...providerCases, ...gatewayCases]) expect(verdicts).toContain(verdict);
  expect([...new Set(providerCases.map(({ provider }) => provider))].toSorted()).toEqual([...providerNames].toSorted());
  const shown = new Set([...providerCases, ...gatewayCases].map(({ verdict }) => verdict));
  expect([...verdicts].filter((verdict) => !shown.has(verdict))).toEqual(["cached"]);
});

describe("a provider's answer", () => {
  test.each(providerCases)("$provider $answer.status $told: $verdict", ({ provider, answer, verdict }) => {
    expect(classifyAnswer(provider, answer)).toBe(verdict);
  });
});

describe("the gateway's own answer", () => {
  test.each(gatewayCases)("$answer.status $answer.gatewayError.internalCode: $verdict", ({ answer, verdict }) => {
    for (const provider of providerNames) expect(classifyAnswer(provider, answer)).toBe(verdict);
  });

  test("is never taken for a dead key, whatever its code", () => {
    for (let internalCode = 2_000; internalCode < 2_100; internalCode += 1) {
      for (const status of [400, 401, 402, 403, 404, 429, 500, 503]) {
        const verdict = classifyAnswer("openai", { status, cached: false, gatewayError: { internalCode } });
        expect(verdict).not.toBe("key refused");
        expect(provesKey(verdict)).toBe(false);
      }
    }
  });
});

test("a cached answer proves nothing, good or bad", () => {
  for (const { provider, answer } of providerCases) {
    expect(classifyAnswer(provider, { ...answer, cached: true })).toBe("cached");
  }
});

test("a refusal without a body is never taken for a dead key", () => {
  for (const provider of providerNames) {
    for (const status of [400, 401, 402, 404, 409, 429, 500, 503]) {
      expect(classifyAnswer(provider, { status, cached: false })).not.toBe("key refused");
    }
  }
});

test("only what the provider said of the key itself proves it", () => {
  const proving = [...verdicts].filter((verdict) => provesKey(verdict as Verdict));
  expect(proving).toEqual(["works", "works, no quota", "works, not allowed"]);
});
