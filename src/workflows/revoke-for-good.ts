import { condition, log } from "@temporalio/workflow";

import type { Inspection, NewKey, Revoked } from "../activities/contract.ts";
import { inMs } from "../domain/duration.ts";
import type { Policy } from "../domain/policy.ts";
import { revocation } from "./groups.ts";
import { failureMessage, failureType, type Rotation } from "./rotation.ts";

const firstPauseMs = 30_000;
const longestPauseMs = 3_600_000;

/**
 * Step 12: revokes the old key and never gives up, since giving up would leave it alive. What goes wrong is shown;
 * after `revokeAlertAfter` it is an alert. Only an abort ends it, with the key named, or the slot no longer holding the
 * key this rotation installed.
 */
export async function revokeForGood(rotation: Rotation, { held, policy }: Inspection, key: NewKey): Promise<string> {
  return withoutGivingUp(rotation, { keyId: held.id, policy }, () =>
    revocation.revokeKey({ ...rotation.of, keyId: held.id, installedKeyId: key.id }),
  );
}

/** Ends a compromised key as patiently, whoever holds it. */
export async function endForGood(rotation: Rotation, ending: { keyId: string; policy: Policy }): Promise<string> {
  return withoutGivingUp(rotation, ending, () => revocation.endCompromisedKey({ ...rotation.of, keyId: ending.keyId }));
}

async function withoutGivingUp(
  rotation: Rotation,
  { keyId, policy }: { keyId: string; policy: Policy },
  revoke: () => Promise<Revoked>,
): Promise<string> {
  const sinceMs = Date.now();
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    try {
      const { at, note } = await revoke();
      rotation.reached("revoked", at);
      return note;
    } catch (error) {
      if (failureType(error) === "SlotChanged") throw error;
      const alert = Date.now() - sinceMs >= inMs(policy.revokeAlertAfter);
      log[alert ? "error" : "warn"]("the old key could not be revoked yet", { keyId, alert });
      await rotation.waiting(
        {
          for: `the revocation of ${keyId}: ${failureMessage(error)}`,
          until: rotation.deadlineIn(pauseMs),
          then: "it is tried again",
          person: alert,
          action: alert ? "mend what the message says, or keyturn abort and revoke the key by hand" : "nothing yet",
        },
        () => condition(() => rotation.abortAsked, pauseMs, { summary: "before revoking again" }),
      );
      if (rotation.abortAsked) throw error;
    }
  }
}
