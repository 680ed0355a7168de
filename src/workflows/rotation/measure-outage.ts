import type { Outage } from "../../domain/outages.ts";
import { management } from "../groups.ts";
import { failureMessage } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/** The slot's outage that is over as far as the new key's proof tells: how long it really was can be asked. */
export function outageToMeasure({ of, record }: Rotation): Over | undefined {
  const outage = record.outages.lastOf(of.slot) ?? record.outages.lastOf(undefined);
  return outage?.until === undefined ? undefined : (outage as Over);
}

type Over = Outage & { until: string };

/**
 * Says how long requests could fail: past the proof of the new key, isolates go on sending the cut one while it is in
 * their caches. The last refusal in the gateway's logs tells; without logs the end is named unknown.
 */
export async function measureOutage(rotation: Rotation, outage: Over): Promise<string> {
  const { record } = rotation;
  const { until: proven } = outage;
  try {
    const { lastRefused, note } = await management.findLastRefusal({ ...rotation.of, from: outage.from });
    if (note === undefined) {
      if (lastRefused !== undefined && lastRefused > proven) outage.until = lastRefused;
      return lastRefused === undefined ? "no client was refused" : `a client was last refused at ${lastRefused}`;
    }
    record.warn(note);
  } catch (error) {
    record.warn(`how long requests failed could not be read: ${failureMessage(error)}`);
  }
  record.unknown("end of the outage");
  return `requests failed at least until ${proven}`;
}
