import { condition, isCancellation } from "@temporalio/workflow";

import { defined } from "../../domain/defined.ts";
import { type Duration, inMs, readableMs } from "../../domain/duration.ts";
import { management } from "../groups.ts";
import { failureMessage } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/** How far back a compromised key's use is looked at, where nobody says since when it may have leaked. */
const lookBackMs = 24 * 3_600_000;
/** How often evidence is gathered at most, a usage lag apart, until it no longer changes. */
const evidenceRounds = 4;

export interface Suspect {
  keyId: string;
  /** When it was made, where that is known: nobody used it before. */
  createdAt?: string | undefined;
  /** Since when it may have been in wrong hands. */
  since?: string | undefined;
}

/** Gathers what a compromised key was used for, until the provider's late data no longer changes it. */
export async function gatherEvidence(
  rotation: Rotation,
  { keyId, since, createdAt }: Suspect,
  usageLag: Duration,
): Promise<string> {
  const asked = since ?? new Date(Date.parse(rotation.record.times.started) - lookBackMs).toISOString();
  const from = createdAt !== undefined && Date.parse(createdAt) > Date.parse(asked) ? createdAt : asked;
  // The emergency that follows reports on a key of its own.
  const suspect = (): string => (rotation.handsOver ? keyId : "the compromised key");
  const isStopped = (): boolean => rotation.handsOver || rotation.mailbox.abortedFor(keyId) !== undefined;
  let seen = -1;
  for (let round = 1; ; round++) {
    const to = new Date().toISOString();
    try {
      const evidence = await management.gatherEvidence({ ...rotation.of, keyId, from, to });
      const former = rotation.record.incident?.compromisedKey.id ?? keyId;
      if (former !== keyId) rotation.record.unknown(`use of ${former}: the report is that of ${keyId}`);
      rotation.record.incident = { compromisedKey: { id: keyId }, ...defined({ asked: since }), ...evidence };
      const settled = evidence.providerRequests === seen;
      if ((settled || round === evidenceRounds) && evidence.gatewayRequests === undefined) {
        rotation.record.unknown("whether others used the compromised key");
      }
      if (settled) return `settled after ${round} looks: ${evidence.providerRequests} requests`;
      seen = evidence.providerRequests;
    } catch (error) {
      rotation.record.unknown(`use of ${suspect()}`);
      return `the use of the key could not be read: ${isCancellation(error) ? rotation.stopReason : failureMessage(error)}`;
    }
    if (round === evidenceRounds) return `still changing after ${round} looks: ${seen} requests; look again later`;
    const lagMs = inMs(usageLag);
    await rotation.waiting(
      {
        for: "the provider's late usage data",
        until: rotation.deadlineIn(lagMs),
        then: "the evidence is gathered again",
        action: afterwards(rotation),
      },
      () =>
        condition(isStopped, lagMs, {
          summary: `usage lag of ${readableMs(lagMs)}`,
        }),
    );
    if (isStopped()) {
      rotation.record.unknown(`use of ${suspect()} that its provider told later`);
      return `${rotation.stopReason}, after ${round} looks: ${seen} requests so far`;
    }
  }
}

function afterwards({ of: { slot }, record: { outages } }: Rotation): string {
  const end = `keyturn abort ${slot} ends the gathering, with what is known by then`;
  return outages.openSlots.length > 0
    ? `REQUESTS FAIL, no working key is in: ${end}; then keyturn rotate ${slot}`
    : `nothing; ${end}`;
}
