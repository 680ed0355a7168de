import type { EmergencyPlan, SlotKeys } from "../activities/contract.ts";
import { defined } from "../domain/defined.ts";
import { promptly } from "./groups.ts";
import { parseInput, planEmergencyInput, slotInput } from "./messages.ts";

/**
 * Says what an emergency of the slot would be about: which key, where it is held, what else it could be. Only reads, in
 * ten seconds at most. Input `{"slot","keyIds"?,"leaked"?,"since"?,"heldKeyId"?,"formerRunId"?}`; result `EmergencyPlan`.
 */
export async function planEmergency(input: unknown): Promise<EmergencyPlan> {
  const { slot, ...asked } = parseInput(planEmergencyInput, input, "planEmergency");
  return promptly.planEmergency({ slot, ...defined(asked) });
}

/** Lists the live keys of the slot's project. Only reads. Input `{"slot"}`; result `SlotKeys`. */
export async function listSlotKeys(input: unknown): Promise<SlotKeys> {
  return promptly.listSlotKeys(parseInput(slotInput, input, "listSlotKeys"));
}
