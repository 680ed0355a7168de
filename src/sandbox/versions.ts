/** State that remembers its past, so that lists and edges can be late by looking at an earlier moment. */

interface Version<Value> {
  at: number;
  value: Value | undefined;
}

const keptVersions = 300;

export class Versions<Value> {
  readonly #histories = new Map<string, Version<Value>[]>();

  /** Writes a value as of `at` (milliseconds, never earlier than the last write); undefined deletes. */
  set(key: string, value: Value | undefined, at: number): void {
    const history = this.#histories.get(key);
    if (history === undefined) {
      if (value !== undefined) this.#histories.set(key, [{ at, value }]);
      return;
    }
    history.push({ at, value });
    if (history.length > keptVersions) history.shift();
  }

  get(key: string): Value | undefined {
    return this.#histories.get(key)?.at(-1)?.value;
  }

  /** The value as it was at a moment. */
  at(key: string, moment: number): Value | undefined {
    const history = this.#histories.get(key);
    if (history === undefined) return undefined;
    for (let index = history.length - 1; index >= 0; index--) {
      const version = history[index];
      if (version !== undefined && version.at <= moment) return version.value;
    }
    return undefined;
  }

  /** All values as they were at a moment (by default: as they are), oldest first. */
  list(moment = Number.POSITIVE_INFINITY): Value[] {
    const values: Value[] = [];
    for (const key of this.#histories.keys()) {
      const value = this.at(key, moment);
      if (value !== undefined) values.push(value);
    }
    return values;
  }
}
