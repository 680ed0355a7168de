import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

import { checks } from "../../src/doctor/checks.ts";

test("docs/doctor.md lists every check, in order and in the same words", () => {
  const text = readFileSync(new URL("../../docs/doctor.md", import.meta.url), "utf8");
  const rows = [...text.matchAll(/^\| `([a-z-]+)` *\| (.+?) *\| (.+?) *\|$/gm)].map(([, name, looks, remedy]) => ({
    name,
    looks,
    remedy,
  }));
  expect(rows).toEqual(checks.map(({ name, looks, remedy }) => ({ name, looks, remedy })));
});
