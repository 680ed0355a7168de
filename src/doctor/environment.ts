import { RotationFailure } from "../domain/failure.ts";
import type { Http } from "../http.ts";
import { type Found, ok, problem } from "./finding.ts";
import type { Ground } from "./ground.ts";

/** Variables that are not set: the doctor goes on without what they are for, and calls it unknown. */

const about = "environment";

export async function variablesSet({ missing }: Ground): Promise<Found[]> {
  if (missing.length === 0) return [ok(about, "every variable that the inventory and the credentials need is set")];
  return missing.map((name) => problem(about, `${name} is not set: ${purposeOf(name)}`));
}

function purposeOf(name: string): string {
  return name === "CLOUDFLARE_API_TOKEN"
    ? "a token with Secrets Store Write and AI Gateway Write"
    : "the inventory takes a value from it";
}

/** A question that cannot be asked for want of a variable: that is told once, as a problem of its own. */
export class VariableMissing extends RotationFailure {
  override readonly name = "VariableMissing";

  constructor(names: string[]) {
    super("InvalidInput", `this is not looked at: ${notSet(names)}`);
  }
}

/** `A is not set`, `neither A nor B is set`, `none of A, B and C is set`. */
function notSet(names: string[]): string {
  if (names.length <= 1) return `${names.join("")} is not set`;
  const last = names.at(-1);
  const others = names.slice(0, -1).join(", ");
  return names.length === 2 ? `neither ${others} nor ${last} is set` : `none of ${others} and ${last} is set`;
}

const ofCloudflare = new Set(["cloudflare", "ai-gateway"]);

/** Asks nothing that a missing variable would make another question: the token's without it, anything without a value of the inventory. */
export function guarded(http: Http, missing: string[]): Http {
  const onlyToken = missing.every((name) => name === "CLOUDFLARE_API_TOKEN");
  const guard = (service: string): void => {
    if (missing.length > 0 && (!onlyToken || ofCloudflare.has(service))) throw new VariableMissing(missing);
  };
  return {
    async send(request) {
      guard(request.service);
      return http.send(request);
    },
    async exchange(request) {
      guard(request.service);
      return http.exchange(request);
    },
  };
}
