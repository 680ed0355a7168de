import { createHash } from "node:crypto";
import { inspect } from "node:util";

import { secretShapes } from "./domain/key-shape.ts";

/**
 * A secret string that cannot leave by accident: printing it shows `[redacted]`, serialising it throws, so that
 * neither a log line nor a placeholder stored as a key can come of it. `reveal()` is called once, where the request
 * is built.
 */
export class Redacted {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  /** The secret itself. Call it only where the request that carries it is built. */
  reveal(): string {
    return this.#value;
  }

  /** The first 16 hex digits of the value's SHA-256: enough to tell keys apart, useless to a thief. */
  fingerprint(): string {
    return createHash("sha256").update(this.#value, "utf8").digest("hex").slice(0, 16);
  }

  toString(): string {
    return "[redacted]";
  }

  toJSON(): never {
    throw new TypeError("a secret was about to be serialised");
  }

  [inspect.custom](): string {
    return "[redacted]";
  }
}

/** The text with everything that looks like a key masked. */
export function maskSecrets(text: string): string {
  return text.replaceAll(secretShapes, "[redacted]");
}
