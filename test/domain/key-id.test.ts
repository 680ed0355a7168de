import { describe, expect, test } from "vitest";

import { idOfFingerprint, idOfMask, isOurId, maskOfId } from "../../src/domain/key-id.ts";
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
