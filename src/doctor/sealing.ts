import { readSealingKeys, type SealingPrivateKey } from "../sealing.ts";
import { type Found, ofFailure, ok, problem, unknown } from "./finding.ts";
import type { Ground } from "./ground.ts";

const about = "sealing";

/** The private halves belong to the workers: that none is here is no fault, unless workers run here. */
export async function sealingKeys({ inventory, env }: Ground): Promise<Found[]> {
  const kids = inventory.sealing.map(({ kid }) => kid);
  const twice = kids.filter((kid, index) => kids.indexOf(kid) !== index);
  if (twice.length > 0)
    return [problem(about, `the inventory has more than one sealing key named ${twice.join(", ")}`)];
  const named = `the inventory seals with ${kids[0] ?? "nothing"}${kids.length > 1 ? ` and knows ${kids.slice(1).join(", ")}` : ""}`;
  if (!env["KEYTURN_SEALING_KEY"] && !env["KEYTURN_SEALING_KEY_FILE"]) {
    return [unknown(about, `${named}; no private half is here, so whether the workers have it is not seen`)];
  }
  let keys: SealingPrivateKey[];
  try {
    keys = readSealingKeys(env);
  } catch (error) {
    return [ofFailure(about, error)];
  }
  return inventory.sealing.map(({ kid, publicKey }, index) => {
    const half = keys.find((key) => key.kid === kid);
    if (half === undefined) {
      return index === 0
        ? problem(about, `the private half of ${kid}, which seals, is not here: a worker started here would refuse`)
        : unknown(about, `the private half of ${kid} is not here: what it sealed cannot be opened here`);
    }
    return half.x === publicKey.x && half.y === publicKey.y
      ? ok(about, `the private half of ${kid} is here and fits${index === 0 ? "; it seals" : ""}`)
      : problem(about, `the private half of ${kid} that is here belongs to another public key than the inventory's`);
  });
}
