import { CancellationScope, sleep } from "@temporalio/workflow";

import type { Policy } from "../../domain/policy.ts";
import { management } from "../groups.ts";
import { failureType } from "./failures.ts";

/** How often the policy is read that is refused. */
const policyTries = 5;

/** A slot's policy, read once, whoever asks first; a cancellation does not reach the read, since the clock needs it. */
export class PolicyOnce {
  readonly #slot: string;
  readonly #onKnown: (policy: Policy) => void;
  #policy: Policy | undefined;
  #reading: Promise<Policy> | undefined;

  constructor(slot: string, onKnown: (policy: Policy) => void) {
    this.#slot = slot;
    this.#onKnown = onKnown;
  }

  /** Undefined until it was read, or seen. */
  get known(): Policy | undefined {
    return this.#policy;
  }

  knows(policy: Policy): Policy {
    this.#policy ??= policy;
    this.#onKnown(this.#policy);
    return this.#policy;
  }

  async read(): Promise<Policy> {
    if (this.#policy !== undefined) return this.#policy;
    this.#reading ??= CancellationScope.nonCancellable(() => this.#read());
    return this.knows(await this.#reading);
  }

  /** Tries again what is refused: the clock of a compromised key depends on it. */
  async #read(): Promise<Policy> {
    for (let tries = 1; ; tries++) {
      try {
        return await management.readPolicy({ slot: this.#slot });
      } catch (error) {
        if (tries === policyTries || failureType(error) === "InvalidInput") throw error;
        await sleep(tries * 10_000, { summary: "before reading the policy again" });
      }
    }
  }
}
