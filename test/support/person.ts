import { setTimeout as delay } from "node:timers/promises";
import type { WorkflowHandle } from "@temporalio/client";

import type { SealingPublicKey } from "../../src/config.ts";
import type { Progress } from "../../src/domain/rotation.ts";
import { Redacted } from "../../src/redacted.ts";
import { createSealer } from "../../src/sealing.ts";
import { wantedName } from "./providers.ts";

/** The person who makes keys where no API does: looks now and then, and hands one in whenever it is asked for. */

const looksEveryMs = 250;
const answerWithinMs = 30_000;

export interface Person {
  sealing: SealingPublicKey;
  /** Makes a key under this name in the provider's console. */
  make: (name: string) => Promise<{ id: string; value: string }>;
  leave: AbortSignal;
}

/** Ends with the rotation, or when told. A worker or server that is dead meanwhile is asked again when it is back. */
export async function handInWhenAsked(handle: WorkflowHandle, { sealing, make, leave }: Person): Promise<void> {
  let key: { id: string; value: string; for: string } | undefined;
  while (!leave.aborted) {
    await delay(looksEveryMs);
    try {
      await handle.client.connection.withDeadline(Date.now() + answerWithinMs, async () => {
        if ((await handle.describe()).status.name !== "RUNNING") throw new Ended();
        const progress = await handle.query<Progress>("progress");
        if (progress.waiting?.asks?.kind !== "key") return;
        const { rotationId, keys } = progress;
        // One that was looked at, and another is asked for, did not do; one that did not get through does still, but not for
        // the next rotation under this id.
        if (key === undefined || key.for !== rotationId || keys.some(({ id }) => id === key?.id)) {
          key = { ...(await make(wantedName(progress))), for: rotationId };
        }
        const purpose = { slot: progress.slot, rotationId };
        const sealed = await createSealer([sealing]).seal(new Redacted(key.value), purpose);
        await handle.executeUpdate("submitKey", { args: [{ sealed, by: "ada" }] });
      });
    } catch (error) {
      if (error instanceof Ended) return;
    }
  }
}

class Ended extends Error {}
