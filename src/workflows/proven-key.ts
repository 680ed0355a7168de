import { ActivityFailure, ApplicationFailure } from "@temporalio/workflow";

import type { Inspection, NewKey } from "../activities/contract.ts";
import { type Duration, durationOf, inMs, readableMs } from "../domain/duration.ts";
import { aliveRule, leastLifeMs, longestRotationMs, oneAnswer, type RowRule } from "../domain/policy.ts";
import { management, propagation } from "./groups.ts";
import type { Rotation } from "./rotation.ts";

/** How many keys a rotation tries before it stops: one may be unlucky, three are a cause. */
export const keysTried = 3;

/** Where no API makes keys: what to make and where is shown, and the wait goes on until a key is handed in that fits. */
async function handedInKey(rotation: Rotation, { handIn, policy }: Inspection): Promise<NewKey> {
  const asked =
    handIn === undefined
      ? "make a key"
      : `make ${handIn.keyType}, named ${handIn.keyName}, for ${handIn.belongsTo} at ${handIn.where}`;
  return rotation.handedIn({
    for: "a key that a person makes and hands in",
    action: `${asked}, to live ${readableMs(leastLifeMs(policy))} or longer, then keyturn submit-key ${rotation.of.slot}`,
    deadline: policy.personDeadline,
    orElse: `no key was handed in for ${rotation.of.slot} in ${policy.personDeadline}`,
  });
}

/** Steps 2 and 3: a new key that answered at its provider. A key that is refused is revoked and another one issued. */
export async function provenKey(rotation: Rotation, found: Inspection): Promise<NewKey> {
  for (let tries = 1; ; tries++) {
    const ordinal = ++rotation.keysIssued;
    const issue = (): Promise<NewKey> =>
      found.canIssue
        ? management.issueKey({ ...rotation.of, ordinal, unprovenLife: unprovenLife(found) })
        : handedInKey(rotation, found);
    const key = await rotation.step("issueKey", issue, { told: ({ id }) => id });
    rotation.issued(key);
    try {
      await rotation.step("verifyAtProvider", () => verify(rotation, found, key));
      return key;
    } catch (error) {
      if (!anotherKeyHelps(error) || tries === keysTried) throw error;
      await management.revokeLeftoverKeys(rotation.of);
    }
  }
}

async function verify(rotation: Rotation, { policy }: Inspection, key: NewKey): Promise<string> {
  const settleUntil = rotation.deadline(policy.settleBudget);
  // Requests fail already once the old key is cut: then one good answer has to do.
  const rule: RowRule =
    rotation.times.cut === undefined ? aliveRule(policy, { emergency: rotation.clocksRun }) : oneAnswer;
  const wanted = `${rule.answers} good answer${rule.answers === 1 ? "" : "s in a row"} over ${readableMs(inMs(rule.span))}`;
  const verified = await rotation.waiting(
    {
      for: `the provider to accept the new key: ${wanted}`,
      until: settleUntil,
      then: "it is revoked and another one issued",
    },
    () => propagation.verifyAtProvider({ ...rotation.of, key, settleUntil, rule }),
  );
  rotation.warn(verified.warnings);
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
  const cause = error instanceof ActivityFailure ? error.cause : undefined;
  return cause instanceof ApplicationFailure && (cause.type === "KeyRejected" || cause.type === "SealUnreadable");
}
