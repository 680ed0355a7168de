import type { ExchangeEvent } from "../../src/sandbox/index.ts";

/** The moments at which something can go wrong: keyturn's requests, as a clean run made them. */

export const phases = ["received", "executed", "answered"] as const;
export type Phase = (typeof phases)[number];

/** The n-th request of keyturn's to a method and route of the sandbox. */
export interface Point {
  service: string;
  method: string;
  /** A path whose ids and names are left out. */
  route: string;
  nth: number;
}

export function describePoint({ service, method, route, nth }: Point): string {
  return `${service} ${method} ${route} #${nth}`;
}

/** A segment that holds a digit names a thing, but for versions of an API; so does the id of a key without one. */
export function routeOf(path: string): string {
  const [bare = ""] = path.split("?");
  return bare
    .split("/")
    .map((segment) => (/\d|^key_/.test(segment) && !/^v\d+(?:beta)?$/.test(segment) ? "*" : segment))
    .join("/");
}

/** Numbers keyturn's requests as they come; what the gateway sends on in its own name is not keyturn's request. */
export class Numbering {
  readonly #counts = new Map<string, number>();
  readonly #points = new Map<number, Point>();
  readonly #inGateway = new Set<number>();

  /** The point this event belongs to, or nothing where the request is not keyturn's. */
  pointOf({ seq, service, method, path, userAgent, phase }: ExchangeEvent): Point | undefined {
    if (phase !== "received") {
      this.#inGateway.delete(seq);
      return this.#points.get(seq);
    }
    if (userAgent?.startsWith("keyturn/") !== true) return undefined;
    if (service === "gateway") this.#inGateway.add(seq);
    else if (service !== "cloudflare" && this.#inGateway.size > 0) return undefined;
    const route = routeOf(path);
    const key = `${service} ${method} ${route}`;
    const nth = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, nth);
    const point = { service, method, route, nth };
    this.#points.set(seq, point);
    return point;
  }

  /** All points so far, in the order of their requests. */
  points(): Point[] {
    return [...this.#points.values()];
  }
}

/** The points that both runs have: what only one of them has hangs on how the clock fell. */
export function inBoth(one: Point[], other: Point[]): Point[] {
  const there = new Set(other.map(describePoint));
  return one.filter((point) => there.has(describePoint(point)));
}

/** The point to try where a run did not come to this one: how often something is asked hangs on how the clock fell. */
export function oneEarlier(point: Point): Point {
  return { ...point, nth: Math.max(1, point.nth - 1) };
}

export function same(one: Point, other: Point | undefined): boolean {
  return other !== undefined && describePoint(one) === describePoint(other);
}
