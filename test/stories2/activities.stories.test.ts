import { expect, test } from "vitest";

import { playActivityStories } from "./activity-stories.ts";

const count = Number(process.env["KEYTURN_ACTIVITY_STORIES"] ?? 12);
const seed = Number(process.env["KEYTURN_STORIES_SEED"] ?? 1);

test(
  "no story of single activities ends a serving key, writes over an edit, or loses a key",
  async () => {
    const lines: string[] = [];
    const { failed } = await playActivityStories({ count, seed, print: (line) => lines.push(line) });
    // oxlint-disable-next-line no-console -- a long run is asked for what it met
    if (count > 20) console.log(lines.join("\n"));
    expect(failed, lines.join("\n")).toBe(0);
  },
  Math.max(90_000, count * 30_000),
);
