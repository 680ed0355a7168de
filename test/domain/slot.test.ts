import { expect, test } from "vitest";

import { parseSlot, rotationAliases, secretName, shortRotationId, slotName } from "../../src/domain/slot.ts";

test("reads a slot with and without its alias, and writes it as people do", () => {
  expect(parseSlot("production/openai")).toEqual({ environment: "production", provider: "openai", alias: "default" });
  expect(parseSlot("staging-2/gemini:batch")).toEqual({ environment: "staging-2", provider: "gemini", alias: "batch" });
  for (const text of ["production/openai", "production/anthropic:batch"]) {
    const slot = parseSlot(text);
    expect(slot === undefined ? undefined : slotName(slot)).toBe(text);
  }
});

test("leaves the alias default out, however the slot was written", () => {
  const slot = parseSlot("production/openai:default");
  expect(slot === undefined ? undefined : slotName(slot)).toBe("production/openai");
});

test.each([
  "openai",
  "production/",
  "/openai",
  "production/google",
  "Production/openai",
  "production/openai:",
  "production/openai:Batch",
  "production/openai/batch",
  "-prod/openai",
  "production/openai ",
  "production/openai\n",
  `${"x".repeat(33)}/openai`,
])("does not take %j for a slot", (text) => {
  expect(parseSlot(text)).toBeUndefined();
});

test("names a secret with the word Cloudflare has for the provider", () => {
  expect(secretName("gw", "openai", "default")).toBe("gw_openai_default");
  expect(secretName("my_gw", "gemini", "batch")).toBe("my_gw_google-ai-studio_batch");
});

test("gives a rotation two aliases that bear the beginning of its id", () => {
  const id = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
  expect(shortRotationId(id)).toBe("0f1e2d3c");
  expect(rotationAliases(id)).toEqual({ new: "kt-0f1e2d3c-new", prev: "kt-0f1e2d3c-prev" });
});
