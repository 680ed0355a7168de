import { makeContinueAsNewFunc } from "@temporalio/workflow";

import { defined } from "../../domain/defined.ts";
import type { EmergencyRotationStart } from "../messages.ts";
import type { Rotation } from "./rotation.ts";
import { nameCalledOff, nameWhatOthersCut } from "./settle.ts";

/** Goes on under the same workflow id as the emergency of a key that the slot holds, with all that the run answers for. */
export async function goOnAsEmergency(rotation: Rotation, start: EmergencyRotationStart): Promise<never> {
  const { of, record, clock, policy, found, stopReason } = rotation;
  const said = `before this emergency, rotation ${of.rotationId} of ${of.slot} was stopped: ${stopReason}`;
  nameWhatOthersCut(rotation);
  for (const { id, given } of record.custody.open()) {
    const who = clock.calledOff(id);
    if (who !== undefined && given) nameCalledOff(rotation, id, who);
  }
  const { cut, cutUnsure, leak } = rotation.compromised;
  const { unanswered, given } = rotation.swap;
  const clocks = clock.all().filter(({ keyId }) => clock.has(keyId));
  const carried = {
    ...record.carry(said, clocks),
    cut: { keyIds: [...cut], unsure: [...cutUnsure] },
    ...(unanswered.size === 0 ? {} : { unanswered: [...unanswered] }),
    given: [...given, ...(found === undefined ? [] : [found.held.id])],
    ...defined({ policy, leak }),
  };
  return continueAsEmergency({ ...start, ...defined({ heldKeyId: heldNow(rotation) }), carried });
}

/** Which key the slot holds, where no mark tells: the last result of the slot does not know of this run's. */
function heldNow({ found, swap, record }: Rotation): string | undefined {
  const isTold = found?.held.how === "last result" || found?.held.how === "operator";
  if (!isTold || swap.unanswered.size > 0) return undefined;
  const { newKey, times, custody } = record;
  if (times.installed === undefined) return found.held.id;
  return newKey !== null && custody.find(newKey.id)?.given === true ? newKey.id : undefined;
}

const continueAsEmergency = makeContinueAsNewFunc<(start: EmergencyRotationStart) => Promise<never>>({
  workflowType: "emergencyRotation",
});
