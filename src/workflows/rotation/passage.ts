import { CancellationScope, isCancellation } from "@temporalio/workflow";

import type { EmergencyRotationStart } from "../messages.ts";

/**
 * How a run goes from its start to its end: a body that can be stopped, the part past the return that only a hand-over
 * stops, what runs beside both, and why it was stopped.
 */
export class Passage {
  /** Set once the run stops or finishes: no new key is put in any more. */
  ending = false;
  /** Set once the revocation of the old key began: nothing is undone any more. */
  returnPassed = false;
  handOver: EmergencyRotationStart | undefined;

  readonly #scope = new CancellationScope();
  readonly #shield = new CancellationScope({ cancellable: false });
  readonly #past = this.shielded();
  readonly #tasks = new Set<Promise<void>>();
  readonly #onFailure: (error: unknown) => void;
  #stopped: string | undefined;
  #left = false;

  /** `onFailure` hears of what goes wrong beside the body. */
  constructor(onFailure: (error: unknown) => void) {
    this.#onFailure = onFailure;
  }

  async run<Result>(body: () => Promise<Result>): Promise<Result> {
    return this.#scope.run(body);
  }

  /** The part that is finished once it began. */
  async pastTheReturn<Result>(body: () => Promise<Result>): Promise<Result> {
    this.returnPassed = true;
    return this.#past.run(body);
  }

  /** A scope that nobody cancels but who asked for it. */
  shielded(): CancellationScope {
    return new CancellationScope({ cancellable: true, parent: this.#shield });
  }

  /** Runs beside the body, and is waited for at the end. */
  beside(work: () => Promise<void>): Promise<void> {
    const done = CancellationScope.nonCancellable(work)
      .catch((error: unknown) => {
        // Only a hand-over stops it: the run that follows does it again.
        if (!isCancellation(error)) this.#onFailure(error);
      })
      .finally(() => this.#tasks.delete(done));
    this.#tasks.add(done);
    return done;
  }

  /** Stops the body, which then cleans up and ends as aborted. */
  stop(reason: string): void {
    this.#stopped = reason;
    if (!this.returnPassed) this.#scope.cancel();
  }

  /** Ends the run at once, whatever it does: an emergency goes on with all its keys. */
  handOverTo(start: EmergencyRotationStart, reason: string): void {
    this.handOver = start;
    this.#stopped = reason;
    this.#scope.cancel();
    this.#past.cancel();
  }

  /** A person calls the emergency off that was to follow: the run ends as aborted, unless it is gone already. */
  takeBack(): void {
    if (!this.#left) this.handOver = undefined;
  }

  /** From here on nothing keeps it from handing over. */
  leave(): void {
    this.#left = true;
  }

  get busy(): boolean {
    return this.#tasks.size > 0;
  }

  /** Whether the body was cancelled, by whomever. */
  get cancelled(): boolean {
    return this.#scope.consideredCancelled;
  }

  get stopped(): string | undefined {
    return this.#stopped;
  }
}
