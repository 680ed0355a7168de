import { describe, expect, test } from "vitest";

import { containsKey } from "../../src/domain/key-shape.ts";

describe("a text contains a key", () => {
  test.each([
    ["an OpenAI key", "sk-proj-MadeUpMadeUpMadeUp0123"],
    ["an Anthropic key", "sk-ant-api03-MadeUpMadeUpMadeUp"],
    ["a Google key", "AQ.MadeUpMadeUpMadeUpMadeUp"],
    ["a standard Google key", `AIza${"MadeUp0".repeat(5)}`],
    ["an admin credential", "sk-ant-admin01-MadeUpMadeUpMadeUp"],
    ["an option with its value", "--key=sk-proj-MadeUpMadeUpMadeUp0123"],
    ["words around it", "they posted 'sk-proj-MadeUpMadeUpMadeUp0123'."],
    ["a slot before it", "production/openai:sk-proj-MadeUpMadeUpMadeUp0123"],
    ["a word right before it", "keysk-proj-MadeUpMadeUpMadeUp0123"],
    ["an address around it", `https://x.example/?key=AIza${"MadeUp0".repeat(5)}&a=b`],
    ["an escape before it", "Bearer%20sk-proj-MadeUpMadeUpMadeUp0123"],
  ])("%s", (_, text) => expect(containsKey(text)).toBe(true));

  test.each([..."!?.,;:/|*<>()[]{}@…“”‘’'\"`~^&#$%\\"])("%s around it", (mark) => {
    expect(containsKey(`it is ${mark}sk-proj-MadeUpMadeUpMadeUp0123${mark} they say`)).toBe(true);
  });

  test.each([
    "production/openai:batch",
    "key_abc123DEF456ghi789",
    "apikey_01MadeUpMadeUpMadeUpMadeUp",
    "projects/my-project/locations/global/keys/0a1b2c3d-0000-4000-8000-000000000000",
    "kt.acme.production.openai.default.0a1b2c3d.1",
    "task-force-of-the-platform-team",
    "./risk-assessment-of-november.txt",
    "sk-ant-…",
    "",
  ])("%s is none", (text) => expect(containsKey(text)).toBe(false));
});
