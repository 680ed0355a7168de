import { describe, expect, test } from "vitest";

import { idOfFingerprint, idOfMask, isOurId, maskOfId, whyNoKeyId } from "../../src/domain/key-id.ts";
import { formatMark, parseMark } from "../../src/domain/mark.ts";

describe("the id of a key that no provider could be asked about", () => {
  test("is its fingerprint where its value was handed in, and stands in a mark", () => {
    const keyId = idOfFingerprint("0123456789abcdef");
    expect(keyId).toBe("by-hand-0123456789abcdef");
    expect(isOurId(keyId)).toBe(true);
    expect(maskOfId(keyId)).toBeUndefined();
    const mark = { keyId, rotationId: "r", fingerprint: "0123456789abcdef", at: new Date(0) };
    expect(parseMark(formatMark(mark))).toEqual(mark);
  });

  test("is its ending where only a preview shows it, and no more of it", () => {
    const id = idOfMask("sk-svc...x9AbC");
    expect(id).toBe("ends-in-9AbC");
    expect(isOurId(id ?? "")).toBe(true);
    expect(maskOfId("ends-in-9AbC")).toBe("****9AbC");
  });

  test.each(["****", "****abc", "sk-proj-...", ""])("is none where the mask is %o", (mask) => {
    expect(idOfMask(mask)).toBeUndefined();
  });

  test.each(["key_prod_1", "apikey_01", "by-hand-xyz", "ends-in-", "ends-in-9AbCd", "gemini-prod-1"])(
    "is not taken for one of a provider: %s",
    (id) => {
      expect(isOurId(id)).toBe(false);
      expect(maskOfId(id)).toBeUndefined();
    },
  );
});

describe("a text that should be the id of a key", () => {
  test.each([
    "key_prod_1",
    "apikey_01abc",
    "gemini-prod-1",
    "by-hand-0123456789abcdef",
    "ends-in-9AbC",
    "0f1e2d3c-4b5a",
  ])("is taken: %s", (id) => expect(whyNoKeyId(id)).toBeUndefined());

  test.each([
    "sk-svcacct-made-up-0123456789abcdef",
    "sk-ant-api03-made-up-0123456789abcdef-zzzz",
    "AQ.made-up-0123456789-abcdef-0123456789",
    "AIzaMadeUpMadeUpMadeUpMadeUpMadeUpMade1",
    "sk-short",
  ])("is refused where it is a value, without repeating it: %s", (value) => {
    const why = whyNoKeyId(value) ?? "";
    expect(why).toContain("value of a key, not its id");
    expect(why).not.toContain(value);
  });

  test.each([".", "..", "", "two words", "key_1\n", "ключ", "k".repeat(201)])(
    "is refused where it can be none: %j",
    (text) => {
      expect(whyNoKeyId(text)).toContain("no id of a key");
    },
  );
});
