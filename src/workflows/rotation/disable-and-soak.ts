import { ApplicationFailure, CancellationScope, condition } from "@temporalio/workflow";

import type { Inspection, NewKey, SwitchedOff, SwitchOffFailed } from "../../activities/contract.ts";
import { inMs, readableMs } from "../../domain/duration.ts";
import { cleanup, management } from "../groups.ts";
import { unlessCompromised } from "./compromised.ts";
import { failureDetails, failureMessage } from "./failures.ts";
import { withoutGivingUp } from "./revoke-for-good.ts";
import type { Rotation } from "./rotation.ts";

/** How often the soak looks at the gateway's errors. */
const looks = 3;

/**
 * Step 11: switches the old key off where that can be undone, and watches the gateway's errors for the soak time. New
 * errors, an abort, or any failure switch it on again, and the rotation stops with both keys alive. A key that is
 * compromised is never switched on again, and one that somebody else had switched off neither.
 */
export async function disableAndSoak(rotation: Rotation, found: Inspection, key: NewKey): Promise<string> {
  const { id: keyId } = found.held;
  let off: SwitchedOff | undefined;
  // Each try says it of itself: a stop in the pause before the next one says nothing of the key.
  let mayBeOff = false;
  const disable = (): Promise<SwitchedOff> =>
    management.disableKey({ ...rotation.of, keyId, installedKeyId: key.id }).catch((error: unknown) => {
      mayBeOff ||= mayHaveSwitched(error);
      throw error;
    });
  try {
    const done = await withoutGivingUp<SwitchedOff | string>(rotation, keyId, disable, {
      unless: () => cutShort(rotation),
      onlyLooking: true,
    });
    if (typeof done === "string") return done;
    off = done;
    if (off.wasOff) rotation.record.warn(`${keyId} was switched off by somebody else: it stays off`);
    return await soak(rotation, found, { installedKeyId: key.id, since: off.at });
  } catch (error) {
    if (rotation.hurry !== undefined) return `cut short: ${rotation.hurry}; ${failureMessage(error)}`;
    // Off before is not ours to undo.
    if (off === undefined ? mayBeOff : !off.wasOff)
      await CancellationScope.nonCancellable(() => switchOn(rotation, keyId));
    // The word came while it was switched on again: now it is to be cut.
    const hurry = cutShort(rotation);
    if (hurry === undefined) throw error;
    return `${hurry}, while it was switched on again`;
  }
}

function cutShort({ hurry }: Rotation): string | undefined {
  return hurry === undefined ? undefined : `cut short: ${hurry}`;
}

/** What was refused before it was touched was not switched off; what does not say so may have been. */
function mayHaveSwitched(error: unknown): boolean {
  const { mayBeOff = true } = (failureDetails(error) ?? {}) as Partial<SwitchOffFailed>;
  return mayBeOff;
}

/** Undoes what was switched off. Where that is refused the key stays off, and is named in capitals. */
async function switchOn(rotation: Rotation, keyId: string): Promise<void> {
  try {
    const enable = () => cleanup.enableKey({ ...rotation.of, keyId });
    await unlessCompromised(rotation, keyId, enable, rotation.passage.shielded());
  } catch (error) {
    if (rotation.isCompromised(keyId)) return;
    const why = `it is SWITCHED OFF and could not be switched on again: ${failureMessage(error)}; switch it on by hand if clients still use it`;
    rotation.record.warn(`${keyId}: ${why}`);
    rotation.record.custody.settle(keyId, { fate: "named", why });
  }
}

async function soak(
  rotation: Rotation,
  { policy, held }: Inspection,
  order: { installedKeyId: string; since: string },
): Promise<string> {
  const soakMs = inMs(policy.soak);
  const beganMs = Date.now();
  let note = "";
  await rotation.waiting(
    {
      for: `errors at the gateway without ${held.id}, which is switched off`,
      until: rotation.deadlineIn(soakMs),
      then: "the key is revoked for good",
      action: `nothing; keyturn abort ${rotation.of.slot} switches the key on again`,
    },
    async () => {
      for (let look = 0; look < looks; look++) {
        await condition(() => rotation.hurry !== undefined, soakMs / looks, { summary: "soak" });
        if (rotation.hurry !== undefined) return;
        const seen = await management.lookForErrors({ ...rotation.of, ...order });
        note = seen.note;
        if (rotation.hurry !== undefined) return;
        if (seen.newErrors === undefined) rotation.record.unknown("errors at the gateway");
        else if (seen.newErrors > 0) throw errorsSeen(held.id, note);
      }
    },
  );
  const off = `off for ${readableMs(Date.now() - beganMs)}`;
  if (rotation.hurry !== undefined) return `${off}, cut short: ${rotation.hurry}`;
  return `${off}: ${note}`;
}

function errorsSeen(keyId: string, note: string): ApplicationFailure {
  return ApplicationFailure.nonRetryable(
    `requests failed after ${keyId} was switched off (${note}): it is on again; find out who still uses it`,
    "KeyStillUsed",
  );
}
