import { describe, expect, test } from "vitest";

import { type AskedKey, currentPreview, doubtMark, judgeHeld, type SeenSecret } from "../../src/domain/held.ts";
import type { Mark } from "../../src/domain/mark.ts";

/** Promise 12: "does a slot hold this key" has three answers, and "no" is only said where something speaks against it. */

const at = new Date("2026-11-20T10:00:00.000Z");
const minute = 60_000;
const hour = 60 * minute;
const later = (ms: number): Date => new Date(at.getTime() + ms);

const fpOfKey = "00000000000000aa";
const fpOfOther = "00000000000000bb";
const key: AskedKey = { id: "key_asked", maskedValue: "sk-svc...aaaa" };
const otherMask = "sk-svc...bbbb";

const markOf = {
  "no mark": undefined,
  "this key's mark": { keyId: "key_asked", rotationId: "rot-1", fingerprint: fpOfKey, at },
  "another's mark": { keyId: "key_other", rotationId: "rot-2", fingerprint: fpOfOther, at },
  "a mark by hand": { keyId: `by-hand-${fpOfOther}`, rotationId: "rot-2", fingerprint: fpOfOther, at },
} satisfies Record<string, Mark | undefined>;

/** When the secret was last written: with the mark, or by somebody since. */
const writtenOf = { "with the mark": later(1_000), "an hour later": later(hour) } as const;

const previewOf = {
  "no preview": undefined,
  "like the key's": "****aaaa",
  "another's": "****bbbb",
  "of no use": "sk-...",
} as const;

type Row = [
  mark: keyof typeof markOf,
  written: keyof typeof writtenOf,
  preview: keyof typeof previewOf,
  taken: "before the mark" | "after the mark" | "since the write",
  answer: "yes" | "no" | "unknown",
];

const seenBy = ([mark, written, preview, taken]: Row): SeenSecret => {
  const modified = writtenOf[written];
  const times = { "before the mark": later(-minute), "after the mark": later(500), "since the write": modified };
  const [itsMark, itsPreview] = [markOf[mark], previewOf[preview]];
  return {
    kind: "secret",
    modified,
    config: "present",
    ...(itsMark === undefined ? {} : { mark: itsMark }),
    ...(itsPreview === undefined ? {} : { preview: itsPreview, previewModified: times[taken] }),
  };
};

const rows: Row[] = [
  // Without a mark only a preview of the present value tells.
  ["no mark", "with the mark", "no preview", "since the write", "unknown"],
  ["no mark", "with the mark", "like the key's", "since the write", "yes"],
  ["no mark", "with the mark", "like the key's", "after the mark", "unknown"],
  ["no mark", "with the mark", "like the key's", "before the mark", "unknown"],
  ["no mark", "with the mark", "another's", "since the write", "no"],
  ["no mark", "with the mark", "another's", "after the mark", "unknown"],
  ["no mark", "with the mark", "another's", "before the mark", "unknown"],
  ["no mark", "with the mark", "of no use", "since the write", "unknown"],
  // A mark that was written with the value is believed, unless a preview taken since speaks against it.
  ["this key's mark", "with the mark", "no preview", "since the write", "yes"],
  ["this key's mark", "with the mark", "like the key's", "since the write", "yes"],
  ["this key's mark", "with the mark", "like the key's", "before the mark", "yes"],
  ["this key's mark", "with the mark", "another's", "since the write", "unknown"],
  ["this key's mark", "with the mark", "another's", "after the mark", "unknown"],
  ["this key's mark", "with the mark", "another's", "before the mark", "yes"],
  ["this key's mark", "with the mark", "of no use", "since the write", "yes"],
  ["another's mark", "with the mark", "no preview", "since the write", "no"],
  ["another's mark", "with the mark", "like the key's", "since the write", "unknown"],
  ["another's mark", "with the mark", "like the key's", "after the mark", "unknown"],
  ["another's mark", "with the mark", "like the key's", "before the mark", "no"],
  ["another's mark", "with the mark", "another's", "since the write", "no"],
  ["another's mark", "with the mark", "another's", "before the mark", "no"],
  ["another's mark", "with the mark", "of no use", "since the write", "no"],
  // A mark by hand names no id of the provider's: it may be any of its keys.
  ["a mark by hand", "with the mark", "no preview", "since the write", "unknown"],
  ["a mark by hand", "with the mark", "like the key's", "since the write", "yes"],
  ["a mark by hand", "with the mark", "another's", "since the write", "no"],
  ["a mark by hand", "with the mark", "another's", "before the mark", "unknown"],
  // Somebody wrote since: the mark says nothing any more, unless a preview taken since agrees with it.
  ["this key's mark", "an hour later", "no preview", "since the write", "unknown"],
  ["this key's mark", "an hour later", "like the key's", "since the write", "yes"],
  ["this key's mark", "an hour later", "like the key's", "after the mark", "unknown"],
  ["this key's mark", "an hour later", "like the key's", "before the mark", "unknown"],
  ["this key's mark", "an hour later", "another's", "since the write", "no"],
  ["this key's mark", "an hour later", "another's", "after the mark", "unknown"],
  ["another's mark", "an hour later", "no preview", "since the write", "unknown"],
  ["another's mark", "an hour later", "like the key's", "since the write", "yes"],
  ["another's mark", "an hour later", "another's", "since the write", "no"],
  ["another's mark", "an hour later", "another's", "before the mark", "unknown"],
  ["another's mark", "an hour later", "of no use", "since the write", "unknown"],
  ["a mark by hand", "an hour later", "no preview", "since the write", "unknown"],
];

describe("judgeHeld", () => {
  test.each(rows)("%s, written %s, a preview %s taken %s: %s", (...row) => {
    expect(judgeHeld(seenBy(row), key)).toMatchObject({ answer: row[4], why: expect.any(String) });
  });

  test.each(rows.filter(([, , , , answer]) => answer !== "unknown"))(
    "without a provider config nothing tells: %s, written %s, a preview %s taken %s",
    (...row) => {
      const { preview: _preview, previewModified: _taken, ...bare } = seenBy(row);
      expect(judgeHeld({ ...bare, config: "absent" }, key).answer).toBe("unknown");
    },
  );

  test("a key whose masked value shows nothing is like no preview", () => {
    const seen = seenBy(["no mark", "with the mark", "like the key's", "since the write", "yes"]);
    expect(judgeHeld(seen, { id: "key_asked", maskedValue: "sk-..." }).answer).toBe("unknown");
    expect(judgeHeld(seen, { id: "key_asked" }).answer).toBe("unknown");
  });

  test("a preview without a time says nothing", () => {
    const { previewModified: _taken, ...seen } = seenBy([
      "no mark",
      "with the mark",
      "another's",
      "since the write",
      "no",
    ]);
    expect(judgeHeld(seen, key).answer).toBe("unknown");
  });

  test("a preview that is younger than the value by nothing is of it, one older by a millisecond is not", () => {
    const seen = seenBy(["no mark", "with the mark", "like the key's", "since the write", "yes"]);
    const older = new Date(seen.modified.getTime() - 1);
    expect(judgeHeld(seen, key).answer).toBe("yes");
    expect(judgeHeld({ ...seen, previewModified: older }, key).answer).toBe("unknown");
  });

  test("a secret that is gone holds nothing, and one that cannot be read may hold any key", () => {
    expect(judgeHeld({ kind: "gone" }, key).answer).toBe("no");
    expect(judgeHeld({ kind: "unreadable", why: "cloudflare is away" }, key)).toEqual({
      answer: "unknown",
      why: "cloudflare is away",
    });
  });

  test("two keys that end alike are told apart by the mark, where its key is known to fit the preview as well", () => {
    const seen = seenBy(["another's mark", "with the mark", "like the key's", "since the write", "unknown"]);
    expect(judgeHeld({ ...seen, markedMask: "sk-svc...aaaa" }, key).answer).toBe("no");
    const edited = seenBy(["another's mark", "an hour later", "like the key's", "since the write", "yes"]);
    expect(judgeHeld({ ...edited, markedMask: "sk-svc...aaaa" }, key).answer).not.toBe("yes");
  });

  test("after an edit the mark counts again where a preview taken since is like its key", () => {
    const edited = seenBy(["another's mark", "an hour later", "another's", "since the write", "no"]);
    const noMask: AskedKey = { id: "key_asked" };
    expect(judgeHeld(edited, noMask).answer).toBe("unknown");
    expect(judgeHeld({ ...edited, markedMask: otherMask }, noMask).answer).toBe("no");
  });

  describe("goes by the fingerprint of the value, where that is known", () => {
    const byHand = seenBy(["a mark by hand", "with the mark", "no preview", "since the write", "unknown"]);

    test("of a key that a mark by hand names, and of one that it does not", () => {
      expect(judgeHeld(byHand, { id: "key_asked", fingerprint: fpOfOther }).answer).toBe("yes");
      expect(judgeHeld(byHand, { id: "key_asked", fingerprint: fpOfKey }).answer).toBe("no");
    });

    test("of a key that has no id but its fingerprint", () => {
      expect(judgeHeld(byHand, { id: `by-hand-${fpOfOther}` }).answer).toBe("yes");
      expect(judgeHeld(byHand, { id: `by-hand-${fpOfKey}` }).answer).toBe("no");
      const marked = seenBy(["another's mark", "with the mark", "no preview", "since the write", "no"]);
      expect(judgeHeld(marked, { id: `by-hand-${fpOfOther}` }).answer).toBe("yes");
      expect(judgeHeld(marked, { id: "ends-in-bbbb" }).answer).toBe("unknown");
    });
  });

  describe("goes by age", () => {
    const untold = seenBy(["no mark", "with the mark", "no preview", "since the write", "unknown"]);

    test("a value that was written before the key was made is another's", () => {
      expect(judgeHeld(untold, { ...key, createdAt: later(hour) }).answer).toBe("no");
    });

    test("but not within what two clocks may differ by, nor against a mark that names the key", () => {
      expect(judgeHeld(untold, { ...key, createdAt: later(5 * minute) }).answer).toBe("unknown");
      const named = seenBy(["this key's mark", "an hour later", "no preview", "since the write", "unknown"]);
      expect(judgeHeld(named, { ...key, createdAt: later(3 * hour) }).answer).toBe("unknown");
    });
  });

  describe("knows what this run wrote", () => {
    const ours = { rotationId: "rot-9", keyId: "key_asked" };

    test("a write that does not show may still arrive", () => {
      const old = seenBy(["another's mark", "with the mark", "no preview", "since the write", "no"]);
      expect(judgeHeld({ ...old, ours }, key).answer).toBe("unknown");
      expect(judgeHeld({ ...old, ours: { ...ours, keyId: "key_third" } }, key).answer).toBe("no");
      const fpMark: Mark = { keyId: "key_third", rotationId: "rot-9", fingerprint: fpOfOther, at };
      // Another key of the same run is in: its write of this one came before, and shows.
      expect(judgeHeld({ ...old, mark: fpMark, ours }, key).answer).toBe("no");
    });

    test("where no marks are kept, this run's write tells, then the last result, else nothing", () => {
      expect(judgeHeld({ kind: "remembered" }, key).answer).toBe("unknown");
      expect(judgeHeld({ kind: "remembered", keyId: "key_asked" }, key).answer).toBe("yes");
      expect(judgeHeld({ kind: "remembered", keyId: "key_other" }, key).answer).toBe("no");
      expect(judgeHeld({ kind: "remembered", keyId: "key_other", ours }, key).answer).toBe("yes");
      expect(
        judgeHeld({ kind: "remembered", keyId: "key_asked", ours: { ...ours, keyId: "key_new" } }, key).answer,
      ).toBe("no");
    });
  });
});

describe("believing a mark (promise 3: a slot's key is known, not guessed)", () => {
  const mark: Mark = { keyId: "key_1", rotationId: "rot-1", fingerprint: "0123456789abcdef", at };
  const secret = (modified: Date): SeenSecret => ({ kind: "secret", modified, config: "present", mark });

  test.each([0, 1, 5 * minute, -5 * minute])("believes a mark %d ms from its secret's last write", (ms) => {
    expect(doubtMark(secret(later(ms)))).toBeUndefined();
  });

  test.each([5 * minute + 1, -5 * minute - 1, 86_400_000])("disbelieves one that is %d ms away", (ms) => {
    expect(doubtMark(secret(later(ms)))).toContain("modified at");
  });

  const contrary = { ...secret(at), preview: "****zzzz", markedMask: "sk-svc...9AbC" };

  test("disbelieves a mark whose key looks unlike a preview taken since", () => {
    expect(doubtMark({ ...contrary, previewModified: at })).toContain("preview is not that of key key_1");
    expect(doubtMark({ ...contrary, previewModified: later(minute) })).toContain("preview");
  });

  test("lets a preview from before the mark say nothing", () => {
    expect(doubtMark({ ...contrary, previewModified: later(-1) })).toBeUndefined();
    expect(doubtMark(contrary)).toBeUndefined();
  });

  test("believes a mark whose key looks like the preview, or whose key nobody masks", () => {
    expect(doubtMark({ ...contrary, preview: "****9AbC", previewModified: at })).toBeUndefined();
    expect(doubtMark({ ...secret(at), preview: "****zzzz", previewModified: later(minute) })).toBeUndefined();
  });

  test("after an edit believes it only where a preview taken since is its key's", () => {
    const edited = { ...secret(later(hour)), preview: "****9AbC", markedMask: "sk-svc...9AbC" };
    expect(doubtMark({ ...edited, previewModified: later(hour) })).toBeUndefined();
    expect(doubtMark({ ...edited, previewModified: later(minute) })).toContain("modified at");
    expect(doubtMark({ ...edited, markedMask: "sk-...", previewModified: later(hour) })).toContain("modified at");
  });

  test("says that there is none", () => {
    expect(doubtMark({ kind: "secret", modified: at, config: "present" })).toContain("no mark");
  });
});

test("a preview is of the present value only where it is no older, and tells keys apart", () => {
  const seen: SeenSecret = {
    kind: "secret",
    modified: at,
    config: "present",
    preview: "****aaaa",
    previewModified: at,
  };
  expect(currentPreview(seen)).toBe("****aaaa");
  expect(currentPreview({ ...seen, previewModified: later(-1) })).toBeUndefined();
  expect(currentPreview({ ...seen, preview: "sk-..." })).toBeUndefined();
  const { previewModified: _taken, ...untimed } = seen;
  expect(currentPreview(untimed)).toBeUndefined();
});
