import { readFileSync } from "node:fs";

/** keyturn's version, from its package.json: two levels up in the build, one in the sources. */
export const version: string = readVersion();

function readVersion(): string {
  for (const place of ["../package.json", "../../package.json"]) {
    try {
      const parsed: unknown = JSON.parse(readFileSync(new URL(place, import.meta.url), "utf8"));
      if (typeof parsed === "object" && parsed !== null && "version" in parsed) return String(parsed.version);
    } catch {
      // not there: the next place
    }
  }
  return "0.0.0";
}
