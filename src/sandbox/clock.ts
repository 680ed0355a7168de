/** The wall clock, and spans of it divided by the time scale. */

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** What a real-life span lasts here, in milliseconds. */
  span(realMs: number): number;
  /** Resolves after so many milliseconds of wall clock, or when the sandbox closes. */
  sleep(ms: number): Promise<void>;
  /** Runs `work` after so many milliseconds of wall clock, unless the sandbox closes before. */
  later(ms: number, work: () => void): void;
  stop(): void;
}

export function createClock(timeScale: number): Clock {
  const pending = new Map<NodeJS.Timeout, () => void>();
  const start = (ms: number, due: () => void, onStop: () => void): void => {
    const timer = setTimeout(() => {
      pending.delete(timer);
      due();
    }, ms);
    pending.set(timer, onStop);
  };
  return {
    now: () => Date.now(),
    span: (realMs) => realMs / timeScale,
    sleep: (ms) => new Promise((resolve) => start(ms, resolve, resolve)),
    later: (ms, work) => start(ms, work, () => {}),
    stop() {
      for (const [timer, onStop] of pending) {
        clearTimeout(timer);
        onStop();
      }
      pending.clear();
    },
  };
}

/** RFC 3339, from milliseconds. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString();

/** Whole Unix seconds, from milliseconds. */
export const unixSeconds = (ms: number): number => Math.floor(ms / 1_000);
