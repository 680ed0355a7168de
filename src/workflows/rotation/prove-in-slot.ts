import type { Inspection, NewKey } from "../../activities/contract.ts";
import { defined } from "../../domain/defined.ts";
import { oneAnswer } from "../../domain/policy.ts";
import { management, propagation } from "../groups.ts";
import { servesNewKey, unlessCompromised } from "./compromised.ts";
import { failureMessage, failureType } from "./failures.ts";
import { provenKey, refuseCompromised } from "./proven-key.ts";
import type { Rotation } from "./rotation.ts";
import { awaitPropagation, install, write } from "./steps.ts";

/**
 * Step 8: the real alias answers `goodAnswers` times in a row. Where it doesn't within the budget, the remedies are, in
 * this order, each a step with its reason: was the value saved, does the key work at its provider and has it quota; if so
 * the value is stored again, then another key is made and stored; at last the old value is put back, and the rotation
 * stops with both keys alive. Returns the key that was proven.
 */
export async function proveInSlot(rotation: Rotation, found: Inspection, first: NewKey): Promise<NewKey> {
  const remedies = [
    async () => first,
    async () => ((await worksDirectly(rotation, first)) ? storeAgain(rotation, found, first) : undefined),
    () => tryAnotherKey(rotation, found),
  ];
  let failure: unknown;
  for (const remedy of remedies) {
    try {
      const key = await remedy();
      if (key === undefined) continue;
      await rotation.step("verifyThroughGateway(real)", () => prove(rotation, found, key));
      return key;
    } catch (error) {
      if (!remedyHelps(error)) throw error;
      failure = error;
    }
  }
  // What is compromised is never put back.
  const mayRestore = rotation.swap.prevAnswered && !rotation.isCompromised(found.held.id);
  if (mayRestore) {
    await rotation
      .step("restoreOldValue", () => restore(rotation, found))
      .catch((error: unknown) => {
        if (!rotation.isCompromised(found.held.id)) throw error;
      });
  }
  throw failure;
}

/** Looks for the cause before anything is written: storing a key again that its provider refuses would not help. */
async function worksDirectly(rotation: Rotation, key: NewKey): Promise<boolean> {
  const { note } = await rotation.step(
    "checkSaved",
    () => management.checkSaved({ ...rotation.of, installedKeyId: key.id }),
    { says: (saved) => `was it saved? ${saved.note}` },
  );
  const direct = await rotation.step("tryDirectly", () => tryDirectly(rotation, key), {
    says: ({ said }) => `does ${key.id} work at its provider, and has it quota? ${said}`,
  });
  if (!direct.works)
    rotation.record.warn(`${key.id} is stored (${note}) and refused by its provider: another key is made`);
  return direct.works;
}

async function tryDirectly(rotation: Rotation, key: NewKey): Promise<{ works: boolean; said: string }> {
  try {
    const settleUntil = new Date().toISOString(); // it was settled before it was installed
    const { warnings } = await propagation.verifyAtProvider({ ...rotation.of, key, settleUntil, rule: oneAnswer });
    rotation.record.warn(...warnings);
    return { works: true, said: warnings.length === 0 ? "it does: the gateway is the cause" : warnings.join("; ") };
  } catch (error) {
    if (failureType(error) !== "KeyRejected") throw error;
    return { works: false, said: failureMessage(error) };
  }
}

async function prove(rotation: Rotation, { policy }: Inspection, key: NewKey): Promise<string> {
  const { goodAnswers, propagationBudget } = policy;
  const until = rotation.deadline(propagationBudget);
  const verified = await rotation.waiting(
    { for: `${goodAnswers} good answers in a row from the slot`, until, then: "the next remedy is tried" },
    () =>
      propagation.verifyThroughGateway({ ...rotation.of, alias: "real", goodAnswers, until, installedKeyId: key.id }),
  );
  servesNewKey(rotation, verified.at);
  rotation.swap.probes += verified.probes;
  rotation.record.warn(...verified.warnings);
  return `${goodAnswers} good answers in a row`;
}

async function storeAgain(rotation: Rotation, { secretModified }: Inspection, key: NewKey): Promise<NewKey> {
  await rotation.step("storeAgain", async () => {
    await write(rotation, { key, secretModified, again: true });
    return `${key.id} written once more: the slot did not answer with it`;
  });
  return key;
}

async function tryAnotherKey(rotation: Rotation, found: Inspection): Promise<NewKey> {
  const key = await provenKey(rotation, found);
  refuseCompromised(rotation, key);
  await rotation.step("installKey", () => install(rotation, found, key));
  await rotation.step("awaitPropagation", () => awaitPropagation(rotation, found));
  return key;
}

/** Puts the old value back. */
async function restore(rotation: Rotation, { held }: Inspection): Promise<string> {
  await unlessCompromised(rotation, held.id, () =>
    management.restoreOldValue({
      ...rotation.of,
      installedKeyId: rotation.record.newKey?.id ?? "",
      oldKeyId: held.id,
      ...defined({ oldFingerprint: held.fingerprint }),
    }),
  );
  return "the old value is back, from its copy on prev: the slot did not answer with a new key";
}

function remedyHelps(error: unknown): boolean {
  const type = failureType(error);
  // A seal that is opened no more cannot be stored again; another key can.
  return type === "KeyRejected" || type === "SlotMissing" || type === "SealUnreadable";
}

/** One more try of the new key that the slot holds, after its rotation had failed and the old key was cut. */
export async function proveAfterAll(rotation: Rotation, installedKeyId: string): Promise<void> {
  const { of, policy, record } = rotation;
  if (policy === undefined) return;
  await rotation.step("verifyThroughGateway(real)", async () => {
    const until = rotation.deadline(policy.propagationBudget);
    const { goodAnswers } = policy;
    const { at } = await propagation.verifyThroughGateway({ ...of, alias: "real", goodAnswers, until, installedKeyId });
    servesNewKey(rotation, at);
    record.warn(`${installedKeyId} serves ${of.slot}, though its rotation had failed before`);
    return `${goodAnswers} good answers in a row`;
  });
}
