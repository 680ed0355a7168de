import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

import { exitCodes } from "../src/cli/failures.ts";
import { createProgram } from "../src/cli/main.ts";
import { policyDefaults } from "../src/domain/policy.ts";
import { rotationSteps } from "../src/domain/rotation.ts";
import { codeBlocks, readPage, rows, section } from "./support/markdown.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const read = readPage;
const readme = read("README.md");
const rotation = read("docs/rotation.md");

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

describe("every keyturn command that a page shows", () => {
  const commands = new Map(createProgram().commands.map((command) => [command.name(), command]));
  const blocks = pages.flatMap((page) =>
    codeBlocks(read(page))
      .filter(({ language }) => language === "sh")
      .flatMap(({ code }) => code.split("\n").map((line) => ({ page, line: line.replace(/(?:^|\s)#.*$/, "") }))),
  );
  const inBlocks = blocks.flatMap(({ page, line }) =>
    [...line.matchAll(/^\s*(?:npx )?keyturn ([a-z][^|;<>)&]*)/g)].map(([, typed = ""]) => ({ page, typed })),
  );
  const inText = pages.flatMap((page) =>
    [...read(page).matchAll(/`(?:npx )?keyturn ([a-z][^`]*)`/g)].map(([, typed = ""]) => ({ page, typed })),
  );

  /** What is wrong with the words after `keyturn`; `whole` where they are to be typed as they stand. */
  function faults(typed: string, whole: boolean): string[] {
    const [name = "", ...words] = typed.trim().match(/"[^"]*"|<[^>]*>|\S+/g) ?? [];
    const command = commands.get(name);
    if (command === undefined) return [`no command ${name}`];
    const found: string[] = [];
    let given = 0;
    while (words.length > 0) {
      const word = words.shift() ?? "";
      if (!word.startsWith("--")) {
        if (/^[\w"<]/.test(word)) given++;
        continue;
      }
      const option = command.options.find(({ long }) => long === word);
      if (option === undefined) found.push(`${name} has no option ${word}`);
      else if (option.required && words.shift() === undefined && whole) found.push(`${word} without its value`);
    }
    const wanted = command.registeredArguments;
    if (given > wanted.length) found.push(`${name} takes ${wanted.length} words, not ${given}`);
    if (whole && given < wanted.filter(({ required }) => required).length) found.push(`${name} without its slot`);
    return found;
  }

  test("is read from blocks and from text", () => {
    expect(inBlocks.length).toBeGreaterThan(10);
    expect(inText.length).toBeGreaterThan(60);
    expect(faults("rotat production/openai", true)).toEqual(["no command rotat"]);
    expect(faults("rotate a --dryrun", true)).toEqual(["rotate has no option --dryrun"]);
    expect(faults('emergency a b --why "x y"', true)).toEqual(["emergency takes 1 words, not 2"]);
    expect(faults("approve --why", true)).toEqual(["--why without its value", "approve without its slot"]);
  });

  test.each(inBlocks)("$page: keyturn $typed", ({ typed }) => expect(faults(typed, true)).toEqual([]));

  test.each(pages)("%s, in its text", (page) => {
    const wrong = inText.filter((one) => one.page === page).flatMap(({ typed }) => faults(typed, false));
    expect(wrong).toEqual([]);
  });
});

test("the README links to every page", () => {
  const linked = new Set([...readme.matchAll(/\]\(([^)#]+\.md)/g)].map(([, file = ""]) => file));
  const missing = pages.filter(
    (page) => page.startsWith("docs/") && !page.startsWith("docs/adr/") && !linked.has(page),
  );
  expect(missing).toEqual([]);
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
