import { CancellationScope, condition } from "@temporalio/workflow";

import { inMs } from "../../domain/duration.ts";
import type { FirstTold } from "../../domain/escalation.ts";
import type { Policy } from "../../domain/policy.ts";

/** A key that was called compromised: by whom, and when, which is when its clock started. RFC 3339 times. */
export interface Told {
  keyId: string;
  at: string;
  by: string;
  /** Since when it may have been in wrong hands. */
  since?: string;
  /** The deadline and the policy of the slot that was told first, where that is another one. */
  first?: FirstTold;
}

export interface ClockWork {
  /** Reads the slot's policy, and says so by `knows`. Rejects where it cannot be read. */
  policy(): Promise<Policy>;
  /** Whether the key's custody is settled: ended, or named. */
  isSettled(keyId: string): boolean;
  /** Cuts the key, whatever the state of the rest. Never rejects. */
  cut(keyId: string): Promise<void>;
}

/**
 * The revoke deadlines of a run: one for each key that was called compromised, from the moment that is said until the
 * key's custody is settled. It runs beside everything else a run does, whatever fails, waits or is cancelled there. It
 * stops for an abort alone, by which a person calls the emergency off.
 */
export class RevokeClock {
  readonly #told = new Map<string, Told>();
  readonly #due = new Set<string>();
  readonly #work: ClockWork;
  #policy: Policy | undefined;
  #running: Promise<void> | undefined;
  #closed = false;
  readonly #calledOff = new Map<string, string>();

  constructor(work: ClockWork) {
    this.#work = work;
  }

  /**
   * Starts the key's clock, at once and for good: the first word counts, unless a person called the emergency off since.
   * A later word of a slot that was told before this one brings that slot's deadline and policy. Returns whether it was
   * this word that started it.
   */
  tell(told: Told): boolean {
    const known = this.#told.get(told.keyId);
    const isCalledOff = this.#calledOff.delete(told.keyId);
    if (known !== undefined && !isCalledOff) {
      this.goBy(told.keyId, told.first);
      return false;
    }
    this.#told.set(told.keyId, told);
    // Called off and told again it has a deadline of its own, though the one before had come.
    this.#due.delete(told.keyId);
    this.#running ??= CancellationScope.nonCancellable(() => this.#run());
    return true;
  }

  /**
   * Goes by another slot's deadline and policy, where that was told of the key before this one. Of two that were told at one
   * moment the one counts that holds, and then the one with the earlier deadline: both come to the same.
   */
  goBy(keyId: string, first: FirstTold | undefined): void {
    const known = this.#told.get(keyId);
    if (known === undefined || first?.at === undefined || this.#due.has(keyId)) return;
    const laterMs = Date.parse(known.first?.at ?? known.at) - Date.parse(first.at);
    if (laterMs > 0 || (laterMs === 0 && this.#comesBefore(keyId, first))) this.#told.set(keyId, { ...known, first });
  }

  #comesBefore(keyId: string, { atDeadline, revokeBy }: FirstTold): boolean {
    if (atDeadline !== this.atDeadlineOf(keyId)) return atDeadline === "hold";
    const deadline = this.deadlineOf(keyId);
    return deadline !== undefined && Date.parse(revokeBy) < Date.parse(deadline);
  }

  /** Whether the key's clock runs, or ran to its deadline. */
  has(keyId: string): boolean {
    return this.#told.has(keyId) && !this.#calledOff.has(keyId);
  }

  /** Takes back a word about a key that does not exist. Words that came with it and wait stay called off, where they were. */
  forget(keyId: string): void {
    this.#told.delete(keyId);
  }

  all(): Told[] {
    return [...this.#told.values()];
  }

  find(keyId: string): Told | undefined {
    return this.#told.get(keyId);
  }

  /** What another slot is told of the key's first telling; undefined while the deadline is not known. */
  firstOf(keyId: string): FirstTold | undefined {
    const told = this.#told.get(keyId);
    const revokeBy = this.deadlineOf(keyId);
    if (told === undefined || revokeBy === undefined) return undefined;
    return { revokeBy, atDeadline: this.atDeadlineOf(keyId), at: told.first?.at ?? told.at };
  }

  /** The key's revoke deadline, RFC 3339; undefined while the policy is not known. */
  deadlineOf(keyId: string): string | undefined {
    const told = this.#told.get(keyId);
    if (told?.first !== undefined) return told.first.revokeBy;
    if (told === undefined || this.#policy === undefined) return undefined;
    return new Date(Date.parse(told.at) + inMs(this.#policy.emergency.revokeWithin)).toISOString();
  }

  /** What happens at the key's deadline. */
  atDeadlineOf(keyId: string): "revoke" | "hold" {
    return this.#told.get(keyId)?.first?.atDeadline ?? this.#policy?.emergency.atDeadline ?? "revoke";
  }

  knows(policy: Policy): void {
    this.#policy ??= policy;
  }

  /** Whether the deadline has come: then the key is cut, or held where policy says so. */
  isDue(keyId: string): boolean {
    return this.#due.has(keyId);
  }

  /** A person calls the emergency off: none of these keys is cut any more, which are all that were told so far. */
  callOff(who: string, keyIds: Iterable<string> = this.#told.keys()): void {
    for (const keyId of keyIds) this.#calledOff.set(keyId, who);
  }

  /** Who called the key's emergency off; undefined if nobody did. */
  calledOff(keyId: string): string | undefined {
    return this.#calledOff.get(keyId);
  }

  /** Ends with the run, when every key is settled. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
  }

  /** Whether a key is cut that is not yet. */
  get isRunning(): boolean {
    return this.#open().length > 0;
  }

  async #run(): Promise<void> {
    // Beside the clock: a deadline that another slot gave needs no policy of this one. Where it cannot be read, the run's
    // own steps fail with the reason, and its end names the keys.
    if (this.#policy === undefined) void this.#work.policy().catch(() => undefined);
    const cuts: Promise<void>[] = [];
    while (!this.#closed) {
      const next = this.#next();
      if (next === undefined) {
        await condition(() => this.#closed || this.#next() !== undefined);
        continue;
      }
      const deadline = this.deadlineOf(next) ?? "";
      const ms = Date.parse(deadline) - Date.now();
      if (ms > 0) {
        const isOther = (): boolean => this.#closed || this.#next() !== next || this.deadlineOf(next) !== deadline;
        await condition(isOther, ms, { summary: "until the compromised key is cut" });
        if (isOther()) continue;
        if (Date.parse(this.deadlineOf(next) ?? "") > Date.now()) continue;
      }
      this.#due.add(next);
      if (this.atDeadlineOf(next) === "revoke") cuts.push(this.#work.cut(next));
    }
    await Promise.all(cuts);
  }

  /** The key whose deadline comes first, of those that have one. */
  #next(): string | undefined {
    const deadlines = this.#open().flatMap((keyId) => {
      const deadline = this.deadlineOf(keyId);
      return deadline === undefined ? [] : [{ keyId, ms: Date.parse(deadline) }];
    });
    return deadlines.toSorted((a, b) => a.ms - b.ms)[0]?.keyId;
  }

  /** The keys that are not settled and not due yet. */
  #open(): string[] {
    return [...this.#told.keys()].filter(
      (keyId) => !this.#due.has(keyId) && !this.#calledOff.has(keyId) && !this.#work.isSettled(keyId),
    );
  }
}
