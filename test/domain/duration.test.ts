import { expect, test } from "vitest";

import { type Duration, durationOf, inMs, isDuration, readableMs } from "../../src/domain/duration.ts";

test.each([
  ["500ms", 500],
  ["30s", 30_000],
  ["1.5m", 90_000],
  ["15m", 900_000],
  ["24h", 86_400_000],
  ["90d", 7_776_000_000],
  ["0ms", 0],
])("reads %s", (text, ms) => {
  expect(isDuration(text)).toBe(true);
  expect(inMs(text as Duration)).toBe(ms);
});

test.each(["", "15", "m", "15 m", "-5m", "15M", "1w", "15m30s", "1e3s", ".5h", "5.h", "٣s", "15m\n", "Infinitys"])(
  "does not take %j for a duration",
  (text) => {
    expect(isDuration(text)).toBe(false);
    expect(() => inMs(text as Duration)).toThrow(RangeError);
  },
);

test("writes what it can read again, in whole milliseconds and never below zero", () => {
  for (const ms of [0, 1, 999, 60_000, 31_536_000_000]) expect(inMs(durationOf(ms))).toBe(ms);
  expect(durationOf(1.6)).toBe("2ms");
  expect(durationOf(-5)).toBe("0ms");
});

test.each([
  [0, "0ms"],
  [-3, "0ms"],
  [340, "340ms"],
  [12_500, "12.5s"],
  [60_000, "1m"],
  [3_900_000, "1h 5m"],
  [3_600_000 + 5_000, "1h 5s"],
  [90 * 86_400_000 + 3_600_000 + 1_000, "90d 1h"],
])("shows %d ms to people as %s", (ms, text) => {
  expect(readableMs(ms)).toBe(text);
});

test("never shows sixty seconds or a thousand milliseconds", () => {
  expect(readableMs(999.7)).not.toBe("1000ms");
  expect(readableMs(59_990)).not.toBe("60s");
});
