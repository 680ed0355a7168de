import { management } from "../groups.ts";
import { failureMessage } from "./failures.ts";
import type { Rotation } from "./rotation.ts";

/**
 * Says how long requests could fail: past the proof of the new key, isolates go on sending the cut one while it is in
 * their caches. The last refusal in the gateway's logs tells; without logs the end is named unknown.
 */
export async function measureOutage(rotation: Rotation): Promise<string> {
  const { record } = rotation;
  const outage = record.outages.lastOf(rotation.of.slot) ?? record.outages.lastOf(undefined);
  if (outage === undefined) return "none here";
  const { until: proven } = outage;
  if (proven === undefined) return "it goes on, for all that is known";
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
