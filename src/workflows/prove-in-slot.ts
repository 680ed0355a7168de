import type { Inspection, NewKey } from "../activities/contract.ts";
import { management, propagation } from "./groups.ts";
import { failureType, type Rotation } from "./rotation.ts";

/**
 * Step 8: the real alias answers `goodAnswers` times in a row. Where it doesn't within the budget, the value is
 * stored once more and asked again; then the rotation stops with both keys alive.
 */
export async function proveInSlot(rotation: Rotation, found: Inspection, key: NewKey): Promise<string> {
  const { goodAnswers, propagationBudget } = found.policy;
  const prove = async (): Promise<string> => {
    const until = rotation.deadline(propagationBudget);
    const verified = await rotation.waiting(
      { for: `${goodAnswers} good answers in a row from the slot`, until, then: "the value is stored again" },
      () =>
        propagation.verifyThroughGateway({
          ...rotation.of,
          alias: "real",
          goodAnswers,
          until,
          installedKeyId: key.id,
        }),
    );
    rotation.probes += verified.probes;
    rotation.warn(verified.warnings);
    return `${goodAnswers} good answers in a row`;
  };
  try {
    return await prove();
  } catch (error) {
    const type = failureType(error);
    if (type !== "KeyRejected" && type !== "SlotMissing") throw error;
    await management.installKey({ ...rotation.of, key, secretModified: found.secretModified, again: true });
    return `${await prove()}, after storing the value again`;
  }
}
