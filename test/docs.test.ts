import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

import { exitCodes } from "../src/cli/failures.ts";
import { createProgram } from "../src/cli/main.ts";
import { policyDefaults } from "../src/domain/policy.ts";
import { rotationSteps } from "../src/domain/rotation.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const readme = read("README.md");
const rotation = read("docs/rotation.md");

/** The cells of all table rows, without their backticks. */
function rows(markdown: string): string[][] {
  return markdown
    .split("\n")
    .filter((line) => line.startsWith("|") && !/^[|\s:-]+$/.test(line))
    .map((line) => line.slice(1, line.lastIndexOf("|")).split("|"))
    .map((cells) => cells.map((cell) => cell.trim().replaceAll("`", "")));
}

/** The part of a page under one of its headings. */
function section(markdown: string, heading: string): string {
  const after = markdown.split(`\n## ${heading}\n`)[1];
  if (after === undefined) throw new Error(`no heading "${heading}"`);
  return after.split("\n## ")[0] ?? "";
}

/** What policy settles beside waits: lives of keys, ways, and the clocks of emergencies. */
const notWaits = ["every", "keyLife", "probePath", "aliases", "approval", "emergency"];

const numbered = rotationSteps.map((step, index) => `${index + 1}. ${step}`);

describe("docs/rotation.md", () => {
  test("has a heading for each step, in the order of the code", () => {
    expect([...rotation.matchAll(/^### (\d+\. .+)$/gm)].map(([, heading]) => heading)).toEqual(numbered);
  });

  test("gives each wait the default of the code", () => {
    const said = (value: unknown): string =>
      value !== null && typeof value === "object"
        ? Object.entries(value)
            .map(([name, part]) => `${name} ${String(part)}`)
            .join(", ")
        : String(value);
    const [, ...table] = rows(section(rotation, "The waits"));
    const inPage = Object.fromEntries(table.map(([setting, value]) => [setting, value]));
    const waits = Object.entries(policyDefaults).filter(([name]) => !notWaits.includes(name));
    expect(inPage).toEqual(Object.fromEntries(waits.map(([name, value]) => [name, said(value)])));
  });
});

describe("README.md", () => {
  test("lists the commands that there are", () => {
    const listed = rows(section(readme, "Commands"))
      .map(([command = ""]) => /^keyturn (\S+)/.exec(command)?.[1])
      .filter((name) => name !== undefined);
    const commands = createProgram().commands.map((command) => command.name());
    expect(listed.toSorted()).toEqual(commands.toSorted());
  });

  test("lists the exit codes that there are", () => {
    const listed = rows(section(readme, "Commands")).flatMap(([code = ""]) =>
      /^\d+$/.test(code) ? [Number(code)] : [],
    );
    const ofCtrlC = exitCodes.interrupted;
    expect(listed).toEqual(Object.values(exitCodes).filter((code) => code !== ofCtrlC));
  });

  test("lists the steps in the order of the code", () => {
    const [, ...table] = rows(section(readme, "The steps"));
    expect(table.map(([step]) => step)).toEqual(numbered);
  });
});

const pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", ...markdownUnder("docs")];

function markdownUnder(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join(folder, name));
}

test.each(pages)("%s links to files and headings that are there", (page) => {
  const broken = [...read(page).matchAll(/\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)/g)].filter(
    ([, file = "", anchor]) => {
      const target = file === "" ? page : join(dirname(page), file);
      if (!existsSync(join(root, target))) return true;
      return anchor !== undefined && !anchorsOf(read(target)).has(anchor);
    },
  );
  expect(broken.map(([link]) => link)).toEqual([]);
});

/** Anchors as GitHub makes them from headings. */
function anchorsOf(markdown: string): Set<string> {
  const headings = [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => heading);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, "")
        .trim()
        .replaceAll(" ", "-"),
    ),
  );
}
