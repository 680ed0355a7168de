import { ActivityFailure, ApplicationFailure } from "@temporalio/workflow";

import type { Inspection, NewKey } from "../../activities/contract.ts";
import { type Duration, durationOf, inMs, readableMs } from "../../domain/duration.ts";
import { aliveRule, leastLifeMs, longestRotationMs, oneAnswer, type RowRule } from "../../domain/policy.ts";
import { management, propagation } from "../groups.ts";
import type { Rotation } from "./rotation.ts";
import { settleOpen } from "./settle.ts";
import { hasOutage } from "./steps.ts";

/** How many keys a rotation tries before it stops: one may be unlucky, three are a cause. */
export const keysTried = 3;

/** Where no API makes keys: what to make and where is shown, and the wait goes on until a key is handed in that fits. */
async function handedInKey(rotation: Rotation, { handIn, policy }: Inspection): Promise<NewKey> {
  const key = await rotation.mailbox.handedIn({
    for: "a key that a person makes and hands in",
    asks: {
      kind: "key",
      name: handIn?.keyName ?? "as you like",
      keyType: handIn?.keyType ?? "a key",
      belongsTo: handIn?.belongsTo ?? "the slot's project",
      where: handIn?.where ?? "the provider's console",
      livesAtLeast: readableMs(leastLifeMs(policy)),
    },
    deadline: policy.personDeadline,
    then: `the rotation stops${cutMeanwhile(rotation)}`,
    orElse: `no key was handed in for ${rotation.of.slot} in ${policy.personDeadline}`,
  });
  rotation.record.custody.take(key.id, "handed-in");
  return key;
}

/** What happens to the compromised key while a person is waited for. */
function cutMeanwhile({ record: { clocks }, policy, compromised }: Rotation): string {
  if (clocks === undefined || compromised.cut.size > 0) return "";
  return policy?.emergency.atDeadline === "hold"
    ? ", and the compromised key stays alive"
    : `; the compromised key is cut at ${clocks.revokeBy}, and REQUESTS FAIL from then until a key is in`;
}

/** Makes a key. From before the call on the run answers for whatever may exist under its name. */
async function issuedKey(rotation: Rotation, found: Inspection): Promise<NewKey> {
  const { custody } = rotation.record;
  const ordinal = custody.expect();
  rotation.swap.issueUnsure = true;
  const order = { ...rotation.of, ordinal, unprovenLife: unprovenLife(found) };
  const { leftBehind, ...key } = await management.issueKey(order);
  rotation.swap.issueUnsure = false;
  custody.take(key.id, "new");
  for (const id of leftBehind) custody.take(id, "new");
  return key;
}

/** Steps 2 and 3: a new key that answered at its provider. One that is refused is ended or named, and another is made. */
export async function provenKey(rotation: Rotation, found: Inspection): Promise<NewKey> {
  const { record } = rotation;
  for (let tries = 1; ; tries++) {
    const make = (): Promise<NewKey> => (found.canIssue ? issuedKey(rotation, found) : handedInKey(rotation, found));
    const key = await rotation.step("issueKey", make, { says: ({ id }) => id });
    record.newKey = { id: key.id };
    record.reached("issued");
    try {
      await rotation.step("verifyAtProvider", () => verify(rotation, found, key));
      refuseCompromised(rotation, key);
      return key;
    } catch (error) {
      if (!anotherKeyHelps(error) || tries === keysTried) throw error;
      await giveUp(rotation, key);
    }
  }
}

/** Settles a key that was tried in vain, and whatever else was left behind, before another is made. */
export async function giveUp(rotation: Rotation, key: NewKey): Promise<void> {
  if (rotation.record.newKey?.id === key.id) rotation.record.newKey = null;
  await settleTried(rotation);
}

/** The old key and what clients were given is not looked at now: only what nobody can use yet. */
async function settleTried(rotation: Rotation): Promise<void> {
  await settleOpen(rotation, ({ role, given }) => !given && (role === "new" || role === "handed-in"));
}

/** A key that was called compromised before it was installed is not installed: another one is made. */
export function refuseCompromised(rotation: Rotation, key: NewKey): void {
  if (!rotation.isCompromised(key.id)) return;
  throw ApplicationFailure.nonRetryable(`${key.id} was called compromised before it was installed`, "KeyRejected");
}

async function verify(rotation: Rotation, { policy }: Inspection, key: NewKey): Promise<string> {
  const settleUntil = rotation.deadline(policy.settleBudget);
  // Where requests fail already one good answer has to do.
  const rule: RowRule = hasOutage(rotation)
    ? oneAnswer
    : aliveRule(policy, { emergency: rotation.record.clocks !== undefined });
  const wanted = `${rule.answers} good answer${rule.answers === 1 ? "" : "s in a row"} over ${readableMs(inMs(rule.span))}`;
  const verified = await rotation.waiting(
    {
      for: `the provider to accept the new key: ${wanted}`,
      until: settleUntil,
      then: "it is given up and another one made",
    },
    () => propagation.verifyAtProvider({ ...rotation.of, key, settleUntil, rule }),
  );
  rotation.record.warn(...verified.warnings);
  return wanted;
}

/**
 * How long a key lives that nobody installs: long enough for the steps up to its installation, a person's approval
 * included, so that an orphan dies by itself.
 */
function unprovenLife({ policy }: Inspection): Duration {
  const approvalMs = policy.approval === "before-install" ? inMs(policy.personDeadline) : 0;
  return durationOf(3_600_000 + approvalMs + Math.min(longestRotationMs(policy, { byPerson: false }), 3_600_000));
}

function anotherKeyHelps(error: unknown): boolean {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  return cause instanceof ApplicationFailure && (cause.type === "KeyRejected" || cause.type === "SealUnreadable");
}
