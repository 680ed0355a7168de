import {
  CancellationScope,
  getExternalWorkflowHandle,
  setCurrentDetails,
  upsertSearchAttributes,
  workflowInfo,
} from "@temporalio/workflow";

import type { Phase } from "../../domain/rotation.ts";
import { parseSlot } from "../../domain/slot.ts";
import { followedProgressSignal } from "../messages.ts";
import { searchAttributes } from "../search-attributes.ts";
import { describeProgress } from "./details.ts";
import type { RotationRecord } from "./record.ts";

/** Shows a run's record to those who watch: the details in the UI, the search attributes, the start that follows it. */
export class Display {
  readonly #record: RotationRecord;
  #phase: Phase;
  #follower: string | undefined;
  #told: Promise<void> = Promise.resolve();
  #telling = false;
  #untold = false;

  /** `tellsFollower`: whether the parent of this run, if there is one, is a start that follows it. */
  constructor(record: RotationRecord, { tellsFollower }: { tellsFollower: boolean }) {
    this.#record = record;
    this.#follower = tellsFollower ? workflowInfo().parent?.workflowId : undefined;
    this.#phase = record.phase;
    upsertSearchAttributes([
      { key: searchAttributes.slot, value: record.slot },
      { key: searchAttributes.provider, value: parseSlot(record.slot)?.provider ?? "unknown" },
      { key: searchAttributes.kind, value: record.kind },
      { key: searchAttributes.phase, value: this.#phase },
    ]);
  }

  /** Brings all of it up to date. Each change of the phase is one billable action; the rest is free where nobody follows. */
  show(): void {
    this.showHere();
    this.#untold = true;
    if (!this.#telling) this.#told = CancellationScope.nonCancellable(() => this.#tell());
  }

  /** The same without a word to the follower: at the end, which it sees by itself. */
  showHere(): void {
    setCurrentDetails(describeProgress(this.#record.progress()));
    if (this.#record.phase === this.#phase) return;
    this.#phase = this.#record.phase;
    upsertSearchAttributes([{ key: searchAttributes.phase, value: this.#phase }]);
  }

  /** Waits until the follower has heard the latest. */
  async flush(): Promise<void> {
    await this.#told;
  }

  /** One signal at a time, since two under way may arrive the other way round; each tells the latest. */
  async #tell(): Promise<void> {
    this.#telling = true;
    try {
      while (this.#untold && this.#follower !== undefined) {
        this.#untold = false;
        await getExternalWorkflowHandle(this.#follower).signal(followedProgressSignal, this.#record.progress());
      }
    } catch {
      this.#follower = undefined; // it ended; this run goes on alone
    } finally {
      this.#telling = false;
    }
  }
}
