import { ApplicationFailure, condition, isCancellation, log } from "@temporalio/workflow";

import type { Inspection, NewKey } from "../../activities/contract.ts";
import { inMs } from "../../domain/duration.ts";
import { revocation } from "../groups.ts";
import { failureMessage, failureType } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

const firstPauseMs = 30_000;
const longestPauseMs = 3_600_000;

/** Failures that repeating does not help: what is asked for is wrong, or somebody else changed the slot. */
const final = new Set(["SlotChanged", "KeyUnknown", "InvalidInput", "KeyAmbiguous"]);

/**
 * Step 12: revokes the old key and never gives up, since giving up would leave it alive. What goes wrong is shown;
 * after `revokeAlertAfter` it is an alert. Only an abort ends it, with the key named, or the slot no longer holding the
 * key this rotation installed. A key that is called compromised meanwhile is left to its emergency's end.
 */
export async function revokeForGood(rotation: Rotation, { held }: Inspection, key: NewKey): Promise<string> {
  return withoutGivingUp(
    rotation,
    held.id,
    async () => {
      const { at, seen, note } = await revocation.revokeKey({
        ...rotation.of,
        keyId: held.id,
        installedKeyId: key.id,
      });
      rotation.record.reached("revoked", at);
      rotation.record.custody.settle(held.id, { fate: "ended", at, seen });
      return note;
    },
    { unless: () => rotation.hurry },
  );
}

/** Repeats an end until it is done. `unless` says why it is no longer for this loop to do, where it isn't. */
export async function withoutGivingUp(
  rotation: Rotation,
  keyId: string,
  end: () => Promise<string>,
  { unless = () => undefined }: { unless?: () => string | undefined } = {},
): Promise<string> {
  const sinceMs = Date.now();
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    const other = unless();
    if (other !== undefined) return other;
    try {
      return await end();
    } catch (error) {
      if (isCancellation(error) || final.has(failureType(error) ?? "")) throw error;
      const policy = await rotation.readPolicy();
      const alert = Date.now() - sinceMs >= inMs(policy.revokeAlertAfter);
      log[alert ? "error" : "warn"]("a key could not be revoked yet", { keyId, alert });
      const over = (): boolean =>
        rotation.mailbox.aborted !== undefined || rotation.handsOver || unless() !== undefined;
      await rotation.waiting(
        {
          for: `the revocation of ${keyId}: ${failureMessage(error)}`,
          until: rotation.deadlineIn(pauseMs),
          then: "it is tried again",
          person: alert,
          action: alert
            ? `fix what the message says, or keyturn abort ${rotation.of.slot} and revoke the key by hand`
            : "nothing yet",
        },
        () => condition(over, pauseMs, { summary: "before revoking again" }),
      );
      if (rotation.mailbox.aborted === undefined && !rotation.handsOver) continue;
      throw ApplicationFailure.nonRetryable(
        `${rotation.stopReason}: ${keyId} is not revoked (${failureMessage(error)})`,
        failureType(error) ?? "Unavailable",
      );
    }
  }
}
