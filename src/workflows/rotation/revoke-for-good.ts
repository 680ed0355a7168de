import { ApplicationFailure, condition, isCancellation, log } from "@temporalio/workflow";

import type { Inspection, NewKey } from "../../activities/contract.ts";
import { inMs } from "../../domain/duration.ts";
import { revocation } from "../groups.ts";
import { failureMessage, failureType } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/** Between looks while it cannot be told whether a slot holds the key: mostly a list that is seconds old. */
const looking = { firstMs: 5_000, longestMs: 600_000 };
const trying = { firstMs: 30_000, longestMs: 3_600_000 };

/** Where the policy cannot be read: no cut hangs on that. */
const alertAfterMs = 3_600_000;

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
      rotation.record.keyReached(held.id, "revoked", at);
      rotation.record.custody.settle(held.id, { fate: "ended", at, seen });
      return note;
    },
    { unless: () => (rotation.hurry === undefined ? undefined : `not by this step: ${rotation.hurry}`) },
  );
}

/**
 * Repeats an act on a key until it is done; what holds it up is shown as a wait. `unless` says why it is no longer for
 * this loop to do, where it isn't; `onlyLooking` leaves every failure to the caller but that of a look that could not
 * tell whether a slot holds the key.
 */
export async function withoutGivingUp<Result>(
  rotation: Rotation,
  keyId: string,
  act: () => Promise<Result>,
  { unless = () => undefined, onlyLooking = false }: { unless?: () => Result | undefined; onlyLooking?: boolean } = {},
): Promise<Result> {
  const sinceMs = Date.now();
  const letGo = (): string | undefined =>
    rotation.handsOver ? rotation.stopReason : rotation.mailbox.abortedFor(keyId);
  for (let tries = 0; ; tries++) {
    const other = unless();
    if (other !== undefined) return other;
    try {
      return await act();
    } catch (error) {
      const cannotTell = failureType(error) === "NotYetPropagated";
      if (isCancellation(error) || final.has(failureType(error) ?? "") || (onlyLooking && !cannotTell)) throw error;
      const { policy } = rotation;
      const alert = Date.now() - sinceMs >= (policy === undefined ? alertAfterMs : inMs(policy.revokeAlertAfter));
      log[alert ? "error" : "warn"]("a key could not be revoked yet", { keyId, alert });
      // At the deadline of a compromised key it is tried again at once.
      const wasDue = rotation.clock.isDue(keyId);
      const isDueNow = (): boolean => !wasDue && rotation.clock.isDue(keyId);
      const over = (): boolean => letGo() !== undefined || unless() !== undefined || isDueNow();
      const { firstMs, longestMs } = cannotTell ? looking : trying;
      const pauseMs = Math.min(firstMs * 2 ** tries, longestMs);
      await rotation.waiting(
        {
          for: `the revocation of ${keyId}: ${failureMessage(error)}`,
          until: rotation.deadlineIn(pauseMs),
          then: "it is tried again",
          person: alert,
          action: alert
            ? `fix what the message says, or keyturn abort ${rotation.of.slot} and revoke the key by hand`
            : cannotTell
              ? "fix what the message says, if it lasts for minutes"
              : "nothing yet",
        },
        () => condition(over, pauseMs, { summary: cannotTell ? "before looking again" : "before revoking again" }),
      );
      const why = letGo();
      if (why === undefined) continue;
      throw ApplicationFailure.nonRetryable(
        `${why}: ${keyId} is not revoked (${failureMessage(error)})`,
        failureType(error) ?? "Unavailable",
      );
    }
  }
}
