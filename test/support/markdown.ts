import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Pages of the documentation, as tests read them. */

/** A page of this checkout, by its path from the root. */
export const readPage = (path: string): string => readFileSync(join(process.cwd(), path), "utf8");

/** The cells of all table rows, without their backticks and escapes. */
export function rows(markdown: string): string[][] {
  return markdown
    .split("\n")
    .filter((line) => line.startsWith("|") && !/^[|\s:-]+$/.test(line))
    .map((line) => line.slice(1, line.lastIndexOf("|")).split("|"))
    .map((cells) => cells.map((cell) => cell.trim().replaceAll(/[`\\]/g, "")));
}

/** The rows of the first table, by the names of its columns. */
export function table(markdown: string): Record<string, string>[] {
  const [columns = [], ...cells] = rows(markdown);
  return cells.map((row) => Object.fromEntries(columns.map((column, index) => [column, row[index] ?? ""])));
}

/** The part of a page under one of its headings of the second rank. Throws where there is no such heading. */
export function section(markdown: string, heading: string): string {
  const after = markdown.split(`\n## ${heading}\n`)[1];
  if (after === undefined) throw new Error(`no heading "${heading}"`);
  return after.split("\n## ")[0] ?? "";
}

export interface CodeBlock {
  /** The nearest heading above. */
  heading: string;
  language: string;
  code: string;
  /** The paragraph below. */
  below: string;
}

/** The fenced code blocks of a page, in order. */
export function codeBlocks(markdown: string): CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let heading = "";
  let open: { language: string; lines: string[] } | undefined;
  let below: string[] | undefined;
  for (const line of markdown.split("\n")) {
    const fence = /^\s*```(\S*)/.exec(line);
    if (open !== undefined && fence === null) open.lines.push(line);
    else if (open !== undefined) {
      blocks.push({ heading, language: open.language, code: open.lines.join("\n"), below: "" });
      open = undefined;
      below = [];
    } else if (fence !== null) open = { language: fence[1] ?? "", lines: [] };
    else {
      if (/^#+ /.test(line)) heading = line.replace(/^#+ /, "");
      if (line !== "") below?.push(line);
      else if (below !== undefined && below.length > 0) below = undefined;
      const last = blocks.at(-1);
      if (below !== undefined && last !== undefined) last.below = below.join(" ");
    }
  }
  return blocks;
}
