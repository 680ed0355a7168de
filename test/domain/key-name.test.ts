import { describe, expect, test } from "vitest";

import {
  installationPrefix,
  keyName,
  ownKeyName,
  parseKeyName,
  rotationPrefix,
  slotPrefix,
} from "../../src/domain/key-name.ts";
import { parseSlot, type Slot } from "../../src/domain/slot.ts";

const id = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const slot = (text: string): Slot => parseSlot(text) ?? { environment: "?", provider: "openai", alias: "?" };

test("says who made a key, for which slot, in which rotation and attempt", () => {
  expect(keyName("acme", slot("production/openai"), id, "1-2")).toBe("kt.acme.production.openai.default.0f1e2d3c.1-2");
});

test("begins every name with the prefixes by which keys are found again", () => {
  const one = slot("production/openai:batch");
  const name = keyName("acme", one, id, "1-1");
  for (const prefix of [rotationPrefix("acme", one, id), slotPrefix("acme", one), installationPrefix("acme")]) {
    expect(name.startsWith(prefix)).toBe(true);
  }
});

test.each([
  ["another installation whose name begins alike", rotationPrefix("acme", slot("production/openai"), id), "acme-2"],
  ["an installation whose name ends alike", rotationPrefix("acme", slot("production/openai"), id), "my-acme"],
])("never takes keys of %s for its own", (_, prefix, other) => {
  const theirs = keyName(other, slot("production/openai"), id, "1-1");
  expect(theirs.startsWith(prefix)).toBe(false);
  expect(theirs.startsWith(installationPrefix("acme"))).toBe(false);
});

test.each(["production/openai:batch", "production/openai:default-2", "production-2/openai", "production/gemini"])(
  "never takes keys of the slot %s for those of production/openai",
  (other) => {
    expect(keyName("acme", slot(other), id, "1-1").startsWith(slotPrefix("acme", slot("production/openai")))).toBe(
      false,
    );
  },
);

describe("the whole name of a key is read", () => {
  const one = slot("production/openai:batch");

  test("where we gave it, and says which of the rotation's keys it is", () => {
    const name = keyName("acme", one, id, "12-3");
    expect(parseKeyName(name)).toEqual({
      installation: "acme",
      slot: one,
      rotation: "0f1e2d3c",
      ordinal: 12,
      attempt: 3,
    });
    expect(ownKeyName(name, { installation: "acme", slot: one, rotationId: id })).toEqual({ ordinal: 12, attempt: 3 });
  });

  test.each([
    ["a name of somebody's that begins like ours", "kt.acme.production.openai.batch.0f1e2d3c.1-1 copy"],
    ["one more part", "kt.acme.production.openai.batch.0f1e2d3c.1-1.2"],
    ["a hand-in's, which has no attempt", "kt.acme.production.openai.batch.0f1e2d3c.1"],
    ["no ordinal", "kt.acme.production.openai.batch.0f1e2d3c."],
    ["an ordinal that we do not write", "kt.acme.production.openai.batch.0f1e2d3c.01-1"],
    ["a provider that is none", "kt.acme.production.cohere.batch.0f1e2d3c.1-1"],
    ["an empty part", "kt.acme.production.openai..0f1e2d3c.1-1"],
    ["a line before it", "x\nkt.acme.production.openai.batch.0f1e2d3c.1-1"],
    ["a line after it", "kt.acme.production.openai.batch.0f1e2d3c.1-1\n"],
    ["nothing", ""],
  ])("and not where it is %s", (_, name) => {
    expect(parseKeyName(name)).toBeUndefined();
    expect(ownKeyName(name, { installation: "acme", slot: one, rotationId: id })).toBeUndefined();
  });

  test.each([
    ["installation", keyName("acme-2", one, id, "1-1")],
    ["environment", keyName("acme", slot("staging/openai:batch"), id, "1-1")],
    ["provider", keyName("acme", slot("production/gemini:batch"), id, "1-1")],
    ["alias", keyName("acme", slot("production/openai"), id, "1-1")],
    ["rotation", keyName("acme", one, "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "1-1")],
  ])("and is not this rotation's with another %s", (_, name) => {
    expect(parseKeyName(name)).toBeDefined();
    expect(ownKeyName(name, { installation: "acme", slot: one, rotationId: id })).toBeUndefined();
  });
});
