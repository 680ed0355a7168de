import { expect, test } from "vitest";

import { installationPrefix, keyName, rotationPrefix, slotPrefix } from "../../src/domain/key-name.ts";
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
