import type { WorkflowHandle } from "@temporalio/client";

import { type RotationResult, slotWorkflowId } from "../../../src/domain/rotation.ts";
import { type Skipping, slot, startOptions } from "../../support/time-skipping.ts";

export { failureOf, resultOf } from "../endings.ts";
export { otherSlot, playSlots, type Slots } from "../../support/slots.ts";
export { documentedPolicy, failing, type Skipping, slot, startSkipping } from "../../support/time-skipping.ts";

export const minute = 60_000;
export const hour = 60 * minute;

/** Starts a workflow of a slot under the slot's own id, or another. */
export function startIn(
  skipping: Skipping,
  workflowType: string,
  {
    slot: in_ = slot,
    workflowId = slotWorkflowId(in_),
    ...input
  }: Record<string, unknown> & { slot?: string; workflowId?: string } = {},
): Promise<WorkflowHandle> {
  return skipping.client.workflow.start(workflowType, { ...startOptions, workflowId, args: [{ slot: in_, ...input }] });
}

/** Lets time pass in steps until it is so; fails after so many minutes. */
export async function passUntil(
  skipping: Skipping,
  so: () => boolean | Promise<boolean>,
  { most = 300, step = 1 }: { most?: number; step?: number } = {},
): Promise<void> {
  for (let passed = 0; passed < most; passed += step) {
    if (await so()) return;
    await skipping.env.sleep(step * minute);
  }
  throw new Error(`it did not come to it in ${most} minutes`);
}

/** The result a run leaves, whether it ended well or failed. */
export async function endOf(handle: Pick<WorkflowHandle, "result">): Promise<RotationResult & { failed?: string }> {
  try {
    return (await handle.result()) as RotationResult;
  } catch (error) {
    const { cause } = error as { cause?: { type?: string; message: string; details?: unknown[] } };
    const result = cause?.details?.[0] as RotationResult | undefined;
    return {
      ...(result ?? ({ keys: [], leftOver: [] } as unknown as RotationResult)),
      failed: cause?.type ?? String(error),
    };
  }
}

/** What a result says of a key. */
export function fateOf({ keys }: Pick<RotationResult, "keys">, keyId: string): string | undefined {
  return keys.find(({ id }) => id === keyId)?.fate;
}
