import { ApplicationFailure, CancellationScope, condition, isCancellation } from "@temporalio/workflow";

import type { Policy } from "../../domain/policy.ts";
import { management } from "../groups.ts";
import { failureMessage, failureType } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/** How long the policy is read that is refused: past a deadline too, which nobody knows until then. */
const readForMs = 24 * 3_600_000;
const longestPauseMs = 600_000;
/** From then on a person is called: a cause that passes by itself has passed. */
const fewTries = 5;

/**
 * A slot's policy, read once, whoever asks first, and kept by the run that follows this one: no edit of it moves a deadline
 * that runs. A cancellation does not reach the read while a clock needs it.
 */
export class PolicyOnce {
  readonly #rotation: Rotation;
  #policy: Policy | undefined;
  #reading: Promise<Policy | undefined> | undefined;

  constructor(rotation: Rotation) {
    this.#rotation = rotation;
  }

  /** Undefined until it was read, or seen. */
  get known(): Policy | undefined {
    return this.#policy;
  }

  knows(policy: Policy): Policy {
    this.#policy ??= policy;
    this.#rotation.clock.knows(this.#policy);
    return this.#policy;
  }

  async read(): Promise<Policy> {
    while (this.#policy === undefined) {
      this.#reading ??= CancellationScope.nonCancellable(() => this.#read());
      const policy = await this.#reading;
      if (policy !== undefined) return this.knows(policy);
      if (this.#isUnwanted()) throw ApplicationFailure.nonRetryable(this.#rotation.stopReason, "Aborted");
    }
    return this.#policy;
  }

  /** Ends without it once nobody waits for it: who still does then, for a key that was told since, asks again. */
  async #read(): Promise<Policy | undefined> {
    const scope = new CancellationScope();
    void condition(() => this.#isUnwanted()).then(() => scope.cancel());
    try {
      return await scope.run(() => this.#untilRead());
    } catch (error) {
      if (!isCancellation(error)) throw error;
      this.#reading = undefined;
      return undefined;
    }
  }

  /** Tries again what is refused: without it nobody knows when a compromised key is to be cut. */
  async #untilRead(): Promise<Policy> {
    const { slot } = this.#rotation.of;
    const untilMs = Date.now() + readForMs;
    const ask = (): Promise<Policy> => management.readPolicy({ slot });
    let refused: unknown;
    for (let tries = 0; ; tries++) {
      try {
        return await (tries === 0 ? ask() : this.#again(ask, { refused, tries }));
      } catch (error) {
        if (isCancellation(error) || failureType(error) === "InvalidInput" || Date.now() >= untilMs) throw error;
        refused = error;
      }
    }
  }

  /** After a pause; shown as a wait until it is answered, which may take longer than the pause. */
  async #again(ask: () => Promise<Policy>, { refused, tries }: { refused: unknown; tries: number }): Promise<Policy> {
    const rotation = this.#rotation;
    const { slot } = rotation.of;
    const pauseMs = Math.min(tries * 10_000, longestPauseMs);
    const person = tries >= fewTries;
    const keyIds = rotation.clock.all().map(({ keyId }) => keyId);
    const whose = keyIds.length === 0 ? "a compromised key" : keyIds.join(", ");
    return rotation.waiting(
      {
        for: `the policy of ${slot}, without which nobody knows when ${whose} must be cut: ${failureMessage(refused)}`,
        until: rotation.deadlineIn(pauseMs),
        then: "it is read again",
        person,
        action: person
          ? `fix what the message says, or keyturn abort ${slot} and revoke the key by hand`
          : "nothing yet",
      },
      async () => {
        await condition(() => this.#policy !== undefined, pauseMs, { summary: "before reading the policy again" });
        return this.#policy ?? ask();
      },
    );
  }

  /** Whether nobody waits for it: the run goes on as another, or has stopped, and no clock of a compromised key runs. */
  #isUnwanted(): boolean {
    const { passage, clock, handsOver } = this.#rotation;
    return handsOver || ((passage.cancelled || passage.ending) && !clock.isRunning);
  }
}
