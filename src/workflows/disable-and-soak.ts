import { ApplicationFailure, CancellationScope, condition } from "@temporalio/workflow";

import type { Inspection, NewKey } from "../activities/contract.ts";
import { inMs } from "../domain/duration.ts";
import { cleanup, management } from "./groups.ts";
import type { Rotation } from "./rotation.ts";

/** How often the soak looks at the gateway's errors. */
const looks = 3;

/**
 * Step 11: switches the old key off where that can be undone, and watches the gateway's errors for the soak time. New
 * errors, an abort, or any failure switch it on again, and the rotation stops with both keys alive.
 */
export async function disableAndSoak(rotation: Rotation, found: Inspection, key: NewKey): Promise<string> {
  const order = { ...rotation.of, keyId: found.held.id };
  try {
    const { at } = await management.disableKey({ ...order, installedKeyId: key.id });
    return await soak(rotation, found, { installedKeyId: key.id, since: at });
  } catch (error) {
    await CancellationScope.nonCancellable(() => cleanup.enableKey(order));
    throw error;
  }
}

async function soak(
  rotation: Rotation,
  { policy, held }: Inspection,
  order: { installedKeyId: string; since: string },
): Promise<string> {
  const soakMs = inMs(policy.soak);
  let note = "";
  await rotation.waiting(
    {
      for: `errors at the gateway without ${held.id}, which is switched off`,
      until: rotation.deadlineIn(soakMs),
      then: "the key is revoked for good",
      action: "nothing; keyturn abort switches the key on again",
    },
    async () => {
      for (let look = 0; look < looks; look++) {
        await condition(() => rotation.hurry() !== undefined, soakMs / looks, { summary: "soak" });
        const seen = await management.lookForErrors({ ...rotation.of, ...order });
        note = seen.note;
        if (seen.newErrors === undefined) rotation.unknown("errors at the gateway");
        else if (seen.newErrors > 0) throw errorsSeen(held.id, note);
        if (rotation.hurry() !== undefined) return;
      }
    },
  );
  return `off for ${policy.soak}: ${note}`;
}

function errorsSeen(keyId: string, note: string): ApplicationFailure {
  return ApplicationFailure.nonRetryable(
    `requests failed after ${keyId} was switched off (${note}): it is on again; find out who still uses it`,
    "KeyStillUsed",
  );
}
