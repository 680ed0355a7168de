import type { Point } from "./points.ts";
import type { Subject } from "./subjects.ts";

/** What can go wrong with one request of keyturn's. */

export interface Fault {
  name: string;
  /** A fault that is about the effect of a request matters to writes only. */
  writesOnly?: true;
  fault: Record<string, unknown>;
  /** A refusal that repeating does not help: the rotation may stop. */
  refusal?: true;
}

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
];

/** A key that is cut is not put back: what stops a rotation there is for test/e2e/emergency.test.ts. */
export function mayMeet({ cutsFirst }: Subject, { service, method }: Point, { writesOnly, refusal }: Fault): boolean {
  if (cutsFirst && refusal === true) return false;
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
