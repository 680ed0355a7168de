import { expect, test } from "vitest";

import { keyRoles } from "../../src/domain/custody.ts";
import { escalationRows } from "../../src/domain/escalation.ts";
import { readPage, section, table } from "../support/markdown.ts";

/** docs/rotation.md shows what the word of a compromise does, and who answers for a key, as the code has it. */

const page = readPage("docs/rotation.md");

test("the table of escalations has the rows of the code, in its order, each with what it does", () => {
  const [, shown = ""] = section(page, "When a key is compromised").split("\n### What `escalate` does\n");
  const rows = table(shown);
  expect(rows.map((row) => ({ name: row["when the word comes"], does: row["does"] }))).toEqual(
    escalationRows.map(({ name, does }) => ({ name, does })),
  );
  expect(rows.filter((row) => (row["so"] ?? "") === "")).toEqual([]);
});

test("the table of custody has the roles of the code, in its order", () => {
  const rows = table(section(page, "Custody: who answers for a key"));
  expect(rows.flatMap(({ role }) => (role === undefined ? [] : [role])).slice(0, keyRoles.length)).toEqual([
    ...keyRoles,
  ]);
});
