import type { Dependencies, Runs } from "../activities/dependencies.ts";
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
export function dependenciesHere({ inventory, credentials, temporal, leaked }: Here): Dependencies {
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

export function whichKeyHere(here: Here): ReturnType<typeof whichKeyActivities> {
  return whichKeyActivities(dependenciesHere(here));
}
