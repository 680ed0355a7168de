import { format, inspect } from "node:util";
import { serialize } from "node:v8";
import { describe, expect, test } from "vitest";

import { maskSecrets, Redacted } from "../src/redacted.ts";

const value = "sk-svcacct-MadeUpMadeUpMadeUpMadeUp1234";
const secret = new Redacted(value);

describe("a secret (promise 4)", () => {
  test.each<[string, () => string]>([
    ["a template", () => `key: ${secret as unknown as string}`],
    ["a sum", () => "key: " + String(secret)],
    ["inspect", () => inspect(secret)],
    ["inspect with hidden fields", () => inspect({ deep: [{ secret }] }, { showHidden: true, depth: null })],
    ["a log line's format", () => format("%s %o %O", secret, secret, { secret })],
    ["a table of its entries", () => JSON.stringify([Object.entries(secret), Object.getOwnPropertyNames(secret)])],
    ["an error", () => inspect(new Error(`no ${secret as unknown as string}`, { cause: secret }))],
    ["a copy of its fields", () => JSON.stringify({ ...secret })],
    ["a structured clone", () => serialize(structuredClone({ ...secret })).toString("latin1")],
  ])("does not show itself to %s", (_, show) => {
    expect(show()).not.toContain("MadeUp");
  });

  test("cannot be serialised, not even deep inside, so that no placeholder is ever stored as a key", () => {
    expect(() => JSON.stringify(secret)).toThrow(TypeError);
    expect(() => JSON.stringify({ deep: [{ secret }] })).toThrow("a secret was about to be serialised");
    expect(() => format("%j", secret)).toThrow(TypeError);
  });

  test("is itself only to the one who asks", () => {
    expect(secret.reveal()).toBe(value);
  });

  test("has a fingerprint that tells keys apart and does not depend on when it is asked for", () => {
    expect(secret.fingerprint()).toMatch(/^[0-9a-f]{16}$/);
    expect(new Redacted("abc").fingerprint()).toBe("ba7816bf8f01cfea");
    expect(new Redacted(`${value}5`).fingerprint()).not.toBe(secret.fingerprint());
  });
});

describe("masking what others wrote (promise 4)", () => {
  const tail = "MadeUpMadeUpMadeUpMadeUpMadeUpMadeUp_-12";
  test.each([
    ["an OpenAI key of a user", `sk-proj-${tail}`],
    ["an OpenAI key of a service account", `sk-svcacct-${tail}`],
    ["an OpenAI admin key", `sk-admin-${tail}`],
    ["an old OpenAI key", `sk-${"MadeUp12".repeat(6)}`],
    ["an Anthropic key", `sk-ant-api03-${tail}`],
    ["an Anthropic admin key", `sk-ant-admin01-${tail}`],
    ["an Anthropic compliance key", `sk-ant-api01-${tail}`],
    ["a Google key", `AIza${"MadeUp1".repeat(5)}`],
    ["a Google auth key", `AQ.${"MadeUp_-12".repeat(5)}`],
    ["an OpenRouter key", `sk-or-v1-${tail}`],
    ["a Groq key", `gsk_${tail}`],
    ["an xAI key", `xai-${tail}`],
    ["a Hugging Face token", `hf_${tail}`],
  ])("masks %s wherever it stands", (_, key) => {
    for (const text of [key, `Bearer ${key}`, `{"key":"${key}"}`, `a=${key}&b=${key},c`, `'${key}'.`, `x\n${key}\n`]) {
      const masked = maskSecrets(text);
      expect(masked).toContain("[redacted]");
      expect(masked).not.toContain("MadeUp");
    }
  });

  test("masks again when it is asked again", () => {
    const text = `sk-proj-${tail}`;
    expect([maskSecrets(text), maskSecrets(text)]).toEqual(["[redacted]", "[redacted]"]);
  });

  test.each([
    "key_abc123 of service account svc_acct_1",
    "kt.acme.production.openai.default.0f1e2d3c.1-1",
    "keyturn/1 key=key_1 rot=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0 fp=0123456789abcdef at=2026-11-20T10:00:00.000Z",
    "sk-svc...9AbC",
    "request 01HXYZABCDEFGHJKMNPQRSTVWX",
    "asked for, the task-queue keyturn",
  ])("leaves %j readable", (text) => {
    expect(maskSecrets(text)).toBe(text);
  });
});
