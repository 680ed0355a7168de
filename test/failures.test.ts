import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

import { type FailureType, failureTypes } from "../src/domain/failure.ts";

/** docs/failures.md, held to the code and to the tests. */

const root = new URL("../", import.meta.url);
const page = readFileSync(new URL("docs/failures.md", root), "utf8");
const types = Object.keys(failureTypes) as FailureType[];

/** The first table of the page, a row an array of its cells. */
function rowsOf(text: string): string[][] {
  const lines = text.split("\n");
  const first = lines.findIndex((line) => line.startsWith("|"));
  const rows: string[][] = [];
  for (const line of lines.slice(first)) {
    if (!line.startsWith("|")) break;
    rows.push(
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  }
  return rows;
}

const [head, , ...rows] = rowsOf(page);
const sections = new Map(
  page
    .split(/^## /m)
    .slice(1)
    .map((section) => [section.slice(0, section.indexOf("\n")), section]),
);

test("the table of failures has a row for each type, and none besides", () => {
  expect(head).toEqual(["type", "when", "retried", "what a person does"]);
  expect(rows.map(([type]) => type)).toEqual(types.map((type) => `\`${type}\``));
});

describe.each(types)("%s", (type) => {
  test("is retried as the table says", () => {
    const [, , retried = ""] = rows.find(([name]) => name === `\`${type}\``) ?? [];
    expect(/^(?:yes|no)\b/.exec(retried)?.[0]).toBe(failureTypes[type].retried ? "yes" : "no");
  });

  test("says when, whether it is retried and what to do, under a heading of its own", () => {
    for (const part of ["**When:**", "**Retried:**", "**What to do:**"]) expect(sections.get(type)).toContain(part);
  });

  test("is shown by a test that exists", () => {
    const shown = [...(sections.get(type) ?? "").matchAll(/\*\*Shown by:\*\* `(?<file>[^`]+)`:\s+"(?<name>[^"]+)"/g)];
    expect(shown).not.toEqual([]);
    for (const { groups: { file = "", name = "" } = {} } of shown) {
      const source = readFileSync(fileURLToPath(new URL(file, root)), "utf8");
      expect(
        ["test", "inTurn"].some((call) => source.includes(`${call}("${name}"`)),
        `${file} has a test "${name}"`,
      ).toBe(true);
    }
  });
});
