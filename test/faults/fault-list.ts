import type { Point } from "./points.ts";
import type { Subject } from "./subjects.ts";

/** What can go wrong with one request of keyturn's, and what can happen while it is under way. */

export interface Fault {
  name: string;
  /** A fault that is about the effect of a request matters to writes only. */
  writesOnly?: true;
  fault?: Record<string, unknown>;
  /** A refusal that repeating does not help: the rotation may stop. */
  refusal?: true;
  /** What the answer is not true about: a list that lacks the rows, a read that finds nothing, or what was. */
  lie?: "missing" | "not-found" | "stale";
  /** What a person does while the request is under way. */
  deed?: Deed;
}

/** Stops the run, or calls a key compromised: the one that is replaced, or the one that is put in. */
export type Deed = "abort" | "escalate held" | "escalate new";

export const faults: Fault[] = [
  { name: "the request is lost", fault: { mode: "lost-request" } },
  { name: "the answer is lost", fault: { mode: "lost-answer" }, writesOnly: true },
  { name: "the effect comes seconds later", fault: { mode: "late", delayMs: 2_500 }, writesOnly: true },
  { name: "nobody answers", fault: { mode: "timeout" } },
  { name: "the connection is reset", fault: { mode: "reset" }, writesOnly: true },
  { name: "half an answer comes", fault: { mode: "half" }, writesOnly: true },
  { name: "half a body comes as a whole", fault: { mode: "malformed" } },
  { name: "429 with a wait", fault: { mode: "status", status: 429, retryAfter: 1 } },
  { name: "429 without a wait", fault: { mode: "status", status: 429 }, writesOnly: true },
  { name: "500", fault: { mode: "status", status: 500 }, writesOnly: true },
  { name: "503", fault: { mode: "status", status: 503 } },
  { name: "400", fault: { mode: "status", status: 400 }, refusal: true },
  { name: "403", fault: { mode: "status", status: 403 }, refusal: true },
  { name: "a body off its schema", fault: { mode: "status", status: 200, body: {} }, refusal: true },
  { name: "the list lacks rows", lie: "missing" },
  { name: "nothing is found by this id", lie: "not-found" },
  { name: "what is read is seconds old", lie: "stale" },
  { name: "a person aborts", deed: "abort" },
  { name: "the old key is called compromised", deed: "escalate held" },
  { name: "the new key is called compromised", deed: "escalate new" },
];

/** A key that is cut is not put back: what stops a rotation there is for test/e2e/emergency.test.ts. */
export function mayMeet({ cutsFirst }: Subject, point: Point, { writesOnly, refusal, lie }: Fault): boolean {
  const { service, method } = point;
  if (cutsFirst && refusal === true) return false;
  if (lie !== undefined) return toldAbout(point)?.asList === (lie === "missing");
  return writesOnly !== true || (method !== "GET" && service !== "gateway");
}

/** Switches the fault on for the n-th of keyturn's requests that fit the point, once. */
export function faultAt(
  { service, method, route, nth }: Point,
  fault: Record<string, unknown>,
): Record<string, unknown> {
  const path = route
    .split("*")
    .map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`))
    .join("[^/?]+");
  return {
    ...fault,
    service,
    method,
    path: `^${path}(?:\\?|$)`,
    when: { "user-agent": "^keyturn/" },
    skip: nth - 1,
    times: 1,
  };
}

/** A fault of the service's, which the sandbox can be told of before. */
export function isOfService(fault: Fault): fault is Fault & { fault: Record<string, unknown> } {
  return fault.fault !== undefined;
}

const kinds: [service: string, route: RegExp, about: string][] = [
  ["cloudflare", /\/secrets$/, "secrets"],
  ["cloudflare", /\/secrets\/\*$/, "secrets"],
  ["cloudflare", /\/provider_configs$/, "provider-configs"],
  ["openai", /\/projects\/[^/]+\/api_keys(?:\/\*)?$/, "openai-keys"],
  ["anthropic", /\/organizations\/api_keys(?:\/\*)?$/, "anthropic-keys"],
  ["apikeys", /\/keys(?:\/\*)?$/, "google-keys"],
];

/** What a read is about, where the sandbox can lie about it, and whether it is a list or asks for one thing by its id. */
export function toldAbout({ service, method, route }: Point): { about: string; asList: boolean } | undefined {
  if (method !== "GET") return undefined;
  const kind = kinds.find(([of, fits]) => of === service && fits.test(route));
  return kind === undefined ? undefined : { about: kind[2], asList: !route.endsWith("/*") };
}
