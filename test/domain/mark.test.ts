import { describe, expect, test } from "vitest";

import {
  formatAliasComment,
  formatMark,
  type Mark,
  masksAgree,
  maskTells,
  parseAliasComment,
  parseMark,
} from "../../src/domain/mark.ts";

const at = new Date("2026-11-20T10:00:00.000Z");
const mark: Mark = { keyId: "key_1", rotationId: "rot-1", fingerprint: "0123456789abcdef", at };

describe("reading and writing", () => {
  test("writes the mark as the design has it, and reads the same back", () => {
    const text = formatMark(mark);
    expect(text).toBe("keyturn/1 key=key_1 rot=rot-1 fp=0123456789abcdef at=2026-11-20T10:00:00.000Z");
    expect(parseMark(text)).toEqual(mark);
  });

  test("reads a mark of an id with slashes and dots, as other providers have", () => {
    const other = { ...mark, keyId: "projects/1/locations/global/keys/a.b-c" };
    expect(parseMark(formatMark(other))).toEqual(other);
  });

  test.each([
    undefined,
    "",
    "made by hand",
    "keyturn copy for rotation rot-1",
    "keyturn/2 key=key_1 rot=rot-1 fp=0123456789abcdef at=2026-11-20T10:00:00.000Z",
    "keyturn/1 key=key_1 rot=rot-1 fp=0123456789ABCDEF at=2026-11-20T10:00:00.000Z",
    "keyturn/1 key=key_1 rot=rot-1 fp=0123 at=2026-11-20T10:00:00.000Z",
    "keyturn/1 key= rot=rot-1 fp=0123456789abcdef at=2026-11-20T10:00:00.000Z",
    "keyturn/1 key=key_1 rot=rot-1 fp=0123456789abcdef at=yesterday",
    `note: ${formatMark(mark)}`,
    `${formatMark(mark)} (checked by Kim)`,
  ])("takes %j for no mark", (comment) => {
    expect(parseMark(comment)).toBeUndefined();
  });
});

describe("whose an alias is", () => {
  const owner = { installation: "acme", rotationId: "0a1b2c3d-1234-4234-8234-123456789012" };

  test("stands in its secret's comment, and is read back", () => {
    const text = formatAliasComment(owner);
    expect(text).toBe("keyturn/1 alias of=acme rot=0a1b2c3d-1234-4234-8234-123456789012");
    expect(parseAliasComment(text)).toEqual(owner);
    expect(parseMark(text)).toBeUndefined();
  });

  test.each([undefined, "", "made by hand", formatMark(mark), "keyturn copy for rotation rot-1"])(
    "cannot be told from %j",
    (comment) => {
      expect(parseAliasComment(comment)).toBeUndefined();
    },
  );
});

describe("masks", () => {
  test.each([
    ["****9AbC", "sk-svc...9AbC"],
    ["sk-s********9AbC", "sk-svc...9AbC"],
    ["…9AbC", "****xy9AbC"],
    ["sk-svcacct-abc…", "sk-svc...9AbC"],
    ["9AbC", "sk-svc...9AbC"],
    ["AIza...7-_x", "****7-_x"],
  ])("%s and %s can be of one value", (one, other) => {
    expect(masksAgree(one, other)).toBe(true);
    expect(masksAgree(other, one)).toBe(true);
  });

  test.each([
    ["****9AbC", "sk-svc...9Abc"],
    ["sk-proj...9AbC", "sk-svc...9AbC"],
    ["****8AbC", "****9AbC"],
  ])("%s and %s cannot", (one, other) => {
    expect(masksAgree(one, other)).toBe(false);
    expect(masksAgree(other, one)).toBe(false);
  });

  test("a mask tells keys apart from four characters of the ending on", () => {
    expect(maskTells("****9AbC")).toBe(true);
    expect(maskTells("sk-svc...9AbC")).toBe(true);
    for (const mask of ["****AbC", "********", "", "sk-svcacct-abc…"]) expect(maskTells(mask)).toBe(false);
  });
});
