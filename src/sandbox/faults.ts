/** Faults switched on by route. Their delays are wall clock: a test that asks for 300 ms gets 300 ms. */
import type { Request, ServiceName } from "./exchange.ts";

const modes = [
  "status",
  "timeout",
  "lost-request",
  "lost-answer",
  "slow",
  "malformed",
  "reset",
  "late",
  "slow-answer",
  "half",
] as const;

export type FaultMode = (typeof modes)[number];

export interface Fault {
  id: number;
  service: ServiceName;
  /** A method, or `*`. */
  method: string;
  /** Regular expression on path and query. */
  path: string;
  mode: FaultMode;
  status?: number;
  /** Seconds, sent as `retry-after`. */
  retryAfter?: number;
  /** Matching requests to let pass first. */
  skip: number;
  /** How many to hit then; absent: all, until cleared. */
  times?: number;
  /** For `slow`, `slow-answer` and `late`, in milliseconds of wall clock. */
  delayMs: number;
  /** For `status`: the whole answer, a string as it is, anything else as JSON. */
  body?: unknown;
  headers?: Record<string, string>;
  /** Regular expressions on request headers; all must match. */
  when?: Record<string, string>;
  /** Requests that matched, and those that it changed. */
  matched: number;
  hits: number;
}

interface Armed {
  fault: Fault;
  path: RegExp;
  when: [string, RegExp][];
}

export interface Faults {
  /** Adds a fault; a string says why it was refused. */
  add(input: unknown): Fault | string;
  list(): Fault[];
  clear(id?: number): void;
  /** The fault that this request meets, counted; undefined for none. */
  pick(service: ServiceName, request: Request): Fault | undefined;
}

export function createFaults(): Faults {
  let armed: Armed[] = [];
  let lastId = 0;
  return {
    add(input) {
      const parsed = parse(input, lastId + 1);
      if (typeof parsed === "string") return parsed;
      lastId++;
      armed.push(parsed);
      return parsed.fault;
    },
    list: () => armed.map(({ fault }) => fault),
    clear(id) {
      armed = id === undefined ? [] : armed.filter(({ fault }) => fault.id !== id);
    },
    pick(service, request) {
      if (armed.length === 0) return undefined;
      for (const { fault, path, when } of armed) {
        if (fault.service !== service) continue;
        if (fault.method !== "*" && fault.method !== request.method) continue;
        if (!path.test(request.path)) continue;
        if (!when.every(([name, value]) => value.test(request.headers[name] ?? ""))) continue;
        if (fault.times !== undefined && fault.hits >= fault.times) continue;
        fault.matched++;
        if (fault.matched <= fault.skip) continue;
        fault.hits++;
        return fault;
      }
      return undefined;
    },
  };
}

function parse(input: unknown, id: number): Armed | string {
  if (typeof input !== "object" || input === null) return "a fault is a JSON object";
  const given = input as Partial<Fault>;
  if (typeof given.service !== "string") return "service is missing";
  const mode = modes.find((known) => known === given.mode);
  if (mode === undefined) return `mode must be one of ${modes.join(", ")}`;
  const fault: Fault = {
    id,
    service: given.service,
    method: (given.method ?? "*").toUpperCase(),
    path: given.path ?? "",
    mode,
    skip: given.skip ?? 0,
    delayMs: given.delayMs ?? 5_000,
    matched: 0,
    hits: 0,
  };
  if (given.status !== undefined) fault.status = given.status;
  if (given.retryAfter !== undefined) fault.retryAfter = given.retryAfter;
  if (given.times !== undefined) fault.times = given.times;
  if (given.body !== undefined) fault.body = given.body;
  if (given.headers !== undefined) fault.headers = given.headers;
  if (given.when !== undefined) fault.when = given.when;
  try {
    return {
      fault,
      path: new RegExp(fault.path),
      when: Object.entries(fault.when ?? {}).map(([name, value]) => [name.toLowerCase(), new RegExp(value)]),
    };
  } catch (error) {
    return `not a regular expression: ${String(error)}`;
  }
}
