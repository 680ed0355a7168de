import { asyncLocalStorage, Context, type Info } from "@temporalio/activity";
import { type Logger, noopMetricMeter } from "@temporalio/common";

import type { Dependencies, Runs } from "../activities/dependencies.ts";
import { slotActivities } from "../activities/slots.ts";
import { whichKeyActivities } from "../activities/which-key.ts";
import type { Credentials, Inventory } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import type { Redacted } from "../redacted.ts";
import { createSealer } from "../sealing.ts";
import { runsOf } from "../temporal/runs.ts";
import type { Temporal } from "../temporal/client.ts";
import { plugTogether } from "../worker.ts";

/** What a command looks at with the credentials of this machine, where it does not leave that to a worker. Only reads. */

export interface Here {
  inventory: Inventory;
  credentials: Credentials;
  /** Undefined where Temporal is not asked. */
  temporal?: Temporal | undefined;
  /** The leaked value that somebody typed: no private sealing key is here to open it again. */
  leaked?: Redacted | undefined;
}

/** The clients of a worker, without its private keys. */
function dependenciesHere({ inventory, credentials, temporal, leaked }: Here): Dependencies {
  const none = (): never => {
    throw new RotationFailure("RequestInvalid", "nothing is changed from here, and no sealed key is opened");
  };
  const runs: Runs =
    temporal === undefined
      ? {
          find: none,
          update: none,
          openRotations: none,
          lastInstalledKey: () => Promise.resolve(undefined),
          lastClosed: () => Promise.resolve(undefined),
        }
      : runsOf(temporal.client);
  return plugTogether({
    inventory,
    credentials,
    sealing: {
      ...createSealer(inventory.sealing),
      open: () => (leaked === undefined ? none() : Promise.resolve(leaked)),
    },
    runs,
  });
}

/** The activities that look which key is meant, and the first step of a rotation, run from here. */
export function activitiesHere(here: Here) {
  const dependencies = dependenciesHere(here);
  const { planEmergency, listSlotKeys, findLeaked } = whichKeyActivities(dependencies);
  const { inspectSlot } = slotActivities(dependencies);
  return {
    planEmergency: fromHere(planEmergency),
    listSlotKeys: fromHere(listSlotKeys),
    findLeaked: fromHere(findLeaked),
    inspectSlot: fromHere(inspectSlot),
  };
}

/** Nothing repeats the call from here, so it is its own last attempt: what cannot be looked at is said at once. */
const lastAttempt = 1_000;

/** An activity takes its pauses and the number of its attempt from the context that a worker runs it in. */
function fromHere<Order, Result>(activity: (order: Order) => Promise<Result>): (order: Order) => Promise<Result> {
  const silent = (): undefined => undefined;
  const log: Logger = { log: silent, trace: silent, debug: silent, info: silent, warn: silent, error: silent };
  return (order) =>
    asyncLocalStorage.run(
      new Context(
        { attempt: lastAttempt } as Info,
        new Promise<never>(silent),
        new AbortController().signal,
        silent,
        undefined,
        log,
        noopMetricMeter,
        {},
      ),
      () => activity(order),
    );
}
