import { inMs, readableMs } from "../domain/duration.ts";
import type { Policy } from "../domain/policy.ts";
import type { Progress } from "../domain/rotation.ts";

/** What somebody accepts who approves in the wait for the old key to be idle. */
export interface AcceptedUse {
  /** In words, for whoever approves. */
  words: string;
  /** The provider shows use so late that whoever used the key may well use it still: requests will fail. */
  recent: boolean;
}

/** The use that an approval accepts now, and none that comes later; nothing where the rotation waits for something else. */
export function acceptedUse(
  { oldKey, waiting }: Pick<Progress, "oldKey" | "waiting">,
  { quietPeriod, usageLag }: Pick<Policy, "quietPeriod" | "usageLag">,
  now = Date.now(),
): AcceptedUse | undefined {
  const asks = waiting?.asks;
  if (asks?.kind !== "approval" || asks.of !== "use") return undefined;
  const key = oldKey?.id ?? "the old key";
  const { accepts } = asks;
  if (accepts === undefined) {
    return {
      words: `the provider shows no use of ${key} so far, and its data comes late: whoever uses it all the same will fail once it is revoked`,
      recent: false,
    };
  }
  const lastUsed = Date.parse(accepts);
  // What is no time is what the rotation says in words of a use that cannot be told.
  if (Number.isNaN(lastUsed)) return { words: `this accepts of ${key}: ${accepts}`, recent: true };
  const agoMs = now - lastUsed;
  const recent = agoMs < inMs(quietPeriod) + inMs(usageLag);
  const ago = `${key} was last used ${readableMs(Math.max(0, agoMs))} ago, as far as the provider's data goes`;
  return { words: recent ? `${ago}: REQUESTS WILL FAIL once it is revoked` : ago, recent };
}
