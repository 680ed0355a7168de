import { AsyncLocalStorage } from "node:async_hooks";
import type { Context } from "@temporalio/activity";
import type { ActivityInboundCallsInterceptor } from "@temporalio/worker";

/** How many signs of life fit into the time after which Temporal takes the worker for dead. */
const beatsPerTimeout = 5;

/** What each sign of life carries, and the next attempt is given. */
interface Carried {
  /** Facts that an attempt wants the next one to know, by name. */
  facts: Record<string, unknown>;
  /** The attempt that ended by itself: its last words. */
  ended?: number;
}

interface Heart {
  carried: Carried;
  formerEnded: boolean;
  /** Whether the end of this attempt is told to the next one. */
  tellsEnd: boolean;
  beat(): void;
}

const hearts = new AsyncLocalStorage<Heart>();

/**
 * Gives signs of life while an attempt lasts, so that Temporal starts the next attempt soon after its worker died, not
 * when the time of a whole attempt is over. An attempt that fails by itself says so with the last of them: where the
 * next attempt is not given that word, this one was given up on, and may still be at work somewhere.
 */
export const heartbeatInterceptor = (context: Context): ActivityInboundCallsInterceptor => ({
  async execute(input, next) {
    const { heartbeatTimeoutMs, heartbeatDetails, attempt } = context.info;
    const isWatched = heartbeatTimeoutMs !== undefined;
    const former = readCarried(heartbeatDetails);
    const heart: Heart = {
      carried: { facts: former.facts },
      formerEnded: !isWatched || attempt === 1 || former.ended === attempt - 1,
      tellsEnd: true,
      beat: () => (isWatched ? context.heartbeat(heart.carried) : undefined),
    };
    const beats = isWatched ? setInterval(() => heart.beat(), heartbeatTimeoutMs / beatsPerTimeout) : undefined;
    try {
      return await hearts.run(heart, () => next(input));
    } catch (error) {
      if (heart.tellsEnd) heart.carried.ended = attempt;
      heart.beat();
      throw error;
    } finally {
      clearInterval(beats);
    }
  },
});

/** Whether the attempt before this one ended by itself; true where there was none, or nobody would know. */
export function formerAttemptEnded(): boolean {
  return hearts.getStore()?.formerEnded ?? true;
}

/**
 * Keeps from the next attempt that this one ended by itself: it shall wait as after one that was given up on, since what
 * an earlier one had under way may not have landed yet.
 */
export function passDoubtOn(): void {
  const heart = hearts.getStore();
  if (heart !== undefined) heart.tellsEnd = false;
}

/**
 * Lets the next attempts know of something, should this one not end well. It stands readable in Temporal: no secret. A
 * worker that dies within two seconds takes it along; the next attempt then sees that this one was given up on.
 */
export function remember(name: string, fact: unknown): void {
  const heart = hearts.getStore();
  if (heart === undefined) return;
  heart.carried.facts[name] = fact;
  heart.beat();
}

/** What an earlier attempt let know of. */
export function remembered(name: string): unknown {
  return hearts.getStore()?.carried.facts[name];
}

function readCarried(details: unknown): Carried {
  if (typeof details !== "object" || details === null) return { facts: {} };
  const { facts, ended } = details as Partial<Carried>;
  return { facts: { ...facts }, ...(ended === undefined ? {} : { ended }) };
}
