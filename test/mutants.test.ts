import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

import { promises } from "./mutants/list.ts";
import type { Mutant, StoryMutant } from "./mutants/mutant.ts";
import { storyMutants } from "./mutants/story-list.ts";
import { judge } from "./mutants/test-run.ts";
import { applyPatch } from "./support/replacement.ts";

/**
 * Keeps the mutants working. That each is caught, `npm run mutants` shows; here it is looked that each can be applied,
 * that what it makes compiles, since a mutant that does not proves nothing, and that its test is there.
 */

const mutants = promises.flatMap((promise) => promise.mutants);
type Patched = Mutant | StoryMutant;
const patched: Patched[] = [...mutants, ...storyMutants];
const run = promisify(execFile);

test("each of the twelve promises has its mutants, under names of their own", () => {
  expect(promises.filter((promise) => promise.mutants.length > 0).map(({ promise }) => promise)).toEqual(
    Array.from({ length: 12 }, (_, index) => index + 1),
  );
  expect(new Set(patched.map(({ name }) => name)).size).toBe(patched.length);
});

test("each provider and both kinds of rotation have some", () => {
  const broken = new Set(mutants.map(({ file }) => file));
  for (const file of ["providers/openai", "providers/gemini", "providers/anthropic"]) {
    expect(broken).toContain(`src/${file}.ts`);
  }
  for (const file of ["normal-rotation", "emergency-rotation"]) expect(broken).toContain(`src/workflows/${file}.ts`);
});

test("each changes a text that stands in its file once", () => {
  const misfits = patched.filter(({ file, find, replace }) => {
    return readFileSync(file, "utf8").split(find).length !== 2 || find === replace;
  });
  expect(misfits.map(({ name, file }) => `${name}: ${file}`)).toEqual([]);
});

/** Mutants that can be applied to one copy at the same time: none changes what another one looks for. */
function inLayers(all: Patched[]): Map<string, string>[] {
  const layers: Map<string, string>[] = [];
  const patches = new Map(all.map((mutant) => [`${mutant.file} ${mutant.find} ${mutant.replace}`, mutant]));
  for (const { file, find, replace } of patches.values()) {
    const replacement = { find, replace };
    const original = readFileSync(file, "utf8");
    const layer = layers.find((texts) => (texts.get(file) ?? original).split(replacement.find).length === 2);
    const texts = layer ?? new Map<string, string>();
    if (layer === undefined) layers.push(texts);
    texts.set(file, applyPatch(texts.get(file) ?? original, replacement));
  }
  return layers;
}

test("what they make compiles", async () => {
  const copy = mkdtempSync(join(tmpdir(), "keyturn-mutants-"));
  try {
    for (const name of ["tsconfig.json", "package.json"]) cpSync(name, join(copy, name));
    writeFileSync(join(copy, "tsconfig.src.json"), '{ "extends": "./tsconfig.json", "include": ["src"] }');
    symlinkSync(resolve("node_modules"), join(copy, "node_modules"), "dir");
    for (const texts of inLayers(patched)) {
      cpSync("src", join(copy, "src"), { recursive: true });
      for (const [file, text] of texts) writeFileSync(join(copy, file), text);
      const tsc = [resolve("node_modules/typescript/bin/tsc"), "--noEmit", "--project", "tsconfig.src.json"];
      const said = await run(process.execPath, tsc, { cwd: copy }).then(
        () => "",
        (error: { stdout: string }) => error.stdout,
      );
      expect(said).toBe("");
    }
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
});

/** The names of tests and groups in a file and in what it imports from beside it: any text in quotes may be one. */
function namesIn(file: string): string[] {
  const source = readFileSync(file, "utf8");
  const beside = [...source.matchAll(/from "(\.\/[^"]+)"/g)].map(([, path = ""]) => join(dirname(file), path));
  return [source, ...beside.map((path) => readFileSync(path, "utf8"))].flatMap((text) =>
    [...text.matchAll(/"((?:[^"\\\n]|\\.)+)"|`((?:[^`\\]|\\.)+)`/g)].map(([, plain, template]) =>
      (plain ?? template ?? "").replaceAll(/\\(.)/g, "$1"),
    ),
  );
}

/** Whether a test could be called so: each part of its name is written somewhere, `%s` and `$name` being any text. */
function isNamed(name: string, written: string[]): boolean {
  const parts = name.split(" > ");
  return parts.every((part, index) => {
    const least = index === parts.length - 1 ? 8 : 0; // a name that is all placeholders says nothing
    return part === "*" || written.some((text) => fits(text, part.replaceAll("*", ""), least));
  });
}

function fits(written: string, part: string, least: number): boolean {
  const texts = written.split(/%[a-z#]|\$\{.+?\}|\$\w+/);
  if (texts.join("").length < least) return false;
  return new RegExp(`^${texts.map((text) => text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join(".*")}$`).test(part);
}

test("the test that is to catch each is there", () => {
  const missing = mutants.filter(({ caughtBy: { file, test: name } }) => !isNamed(name, namesIn(file)));
  expect(missing.map(({ name, caughtBy }) => `${name}: ${caughtBy.file}: ${caughtBy.test}`)).toEqual([]);
});

test("a name is not found where it is not written so", () => {
  const written = ["finish", "ends at the same after a %s", "$slot", "loses no request", "%s"];
  expect(isNamed("finish > ends at the same after a lost-answer", written)).toBe(true);
  expect(isNamed("'production/openai' > loses no request", written)).toBe(true);
  expect(isNamed("* > loses no request", written)).toBe(true);
  expect(isNamed("finish > loses a request", written)).toBe(false);
  expect(isNamed("finish > ends at the same", written)).toBe(false);
});

test("only an assertion of the test that is named catches a mutant", () => {
  const catcher = { file: "x.test.ts", test: "finish > removes the aliases" };
  const verdict = (error: string | undefined, name = catcher.test, trouble?: string): string =>
    judge({ tests: [{ name, error }], trouble }, catcher).kind;
  expect(verdict("AssertionError: expected 1 to be 2")).toBe("red");
  expect(verdict('Error: promise resolved "{ at: 1 }" instead of rejecting')).toBe("red");
  expect(verdict(undefined)).toBe("green");
  expect(verdict("Error: Test timed out in 90000ms.")).toBe("unclear");
  expect(verdict("TypeError: nothing is no function")).toBe("unclear");
  expect(verdict(undefined, catcher.test, "Error: a hook failed")).toBe("unclear");
  expect(verdict("AssertionError: expected 1 to be 2", "finish > removes the aliases twice")).toBe("unclear");
});
