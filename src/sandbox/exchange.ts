/**
 * One request and its answer, whichever service plays it. Everything that holds for all services is
 * done here: faults, the record, and the hooks of tests. A call that the gateway makes to a provider
 * comes through here too.
 */
import type { Clock } from "./clock.ts";
import type { Fault, Faults } from "./faults.ts";
import type { Recorder } from "./record.ts";

export type ServiceName = "cloudflare" | "gateway" | "openai" | (string & {});

export interface Request {
  method: string;
  /** Path with query, as sent. */
  path: string;
  headers: Record<string, string | undefined>;
  body: string;
  /** Number of the TCP connection, to keep it at one edge; -1 for a call from inside. */
  connection: number;
  /** Set for a provider's call that comes from the gateway. */
  viaGateway?: boolean;
}

/** What a provider knows about a model call beyond its answer; the gateway logs it. */
export interface CallFacts {
  keyId?: string | undefined;
  model?: string | undefined;
  tokensIn?: number;
  tokensOut?: number;
  costUsd?: number;
}

export interface Reply {
  status: number;
  headers: Record<string, string>;
  body: string;
  /** Sent one after the other instead of `body`. */
  chunks?: readonly string[];
  facts?: CallFacts;
}

export type Outcome =
  | { kind: "reply"; reply: Reply }
  | { kind: "half"; reply: Reply }
  | { kind: "drop" | "reset" | "hang" };

export interface Service {
  name: ServiceName;
  handle(request: Request): Reply | Promise<Reply>;
  /** The body of an error of this service, for faults that name only a status. */
  errorBody(status: number): unknown;
  /** Whether the request belongs in the record of control-plane and admin calls. */
  recorded(request: Request): boolean;
  /** Told of each outcome; `reply` is missing where the client got none. */
  settled?(request: Request, reply: Reply | undefined): void;
}

export interface ExchangeEvent {
  phase: "received" | "executed" | "answered";
  seq: number;
  service: ServiceName;
  method: string;
  path: string;
  userAgent: string | undefined;
}

/** Awaited at each phase, so a test can stop the world exactly there. */
export type ExchangeHook = (event: ExchangeEvent) => void | Promise<void>;

export interface Exchange {
  run(service: Service, request: Request): Promise<Outcome>;
  /** To be called when the answer has left. */
  answered(service: Service, request: Request): Promise<void>;
}

export const json = (status: number, body: unknown, headers: Record<string, string> = {}): Reply => ({
  status,
  headers: { "content-type": "application/json", ...headers },
  body: JSON.stringify(body),
});

/** Reads a JSON body; undefined where it is none. */
export function jsonBody(request: Request): unknown {
  try {
    return JSON.parse(request.body) as unknown;
  } catch {
    return undefined;
  }
}

/** A JSON object, or an empty one. */
export function asObject(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

export function createExchange(parts: {
  faults: Faults;
  record: Recorder;
  clock: Clock;
  hook: ExchangeHook | undefined;
}): Exchange {
  const { faults, record, clock, hook } = parts;
  const seqs = new WeakMap<Request, number>();
  let lastSeq = 0;

  async function tell(phase: ExchangeEvent["phase"], service: Service, request: Request): Promise<void> {
    if (hook === undefined) return;
    const { method, path } = request;
    await hook({
      phase,
      seq: seqs.get(request) ?? 0,
      service: service.name,
      method,
      path,
      userAgent: request.headers["user-agent"],
    });
  }

  async function execute(service: Service, request: Request): Promise<Reply> {
    let reply: Reply;
    try {
      reply = await service.handle(request);
    } catch (error) {
      reply = json(500, service.errorBody(500), { "x-sandbox-bug": String(error).slice(0, 200) });
    }
    record.executed(request, reply);
    if (hook !== undefined) await tell("executed", service, request);
    return reply;
  }

  async function withFault(service: Service, request: Request, fault: Fault): Promise<Outcome> {
    record.faulted(request, fault.mode);
    switch (fault.mode) {
      case "status": {
        const status = fault.status ?? 500;
        const headers: Record<string, string> = { ...fault.headers };
        if (fault.retryAfter !== undefined) headers["retry-after"] = String(fault.retryAfter);
        if (typeof fault.body === "string") {
          return {
            kind: "reply",
            reply: {
              status,
              headers: { "content-type": "text/plain", ...headers },
              body: fault.body,
            },
          };
        }
        return {
          kind: "reply",
          reply: json(status, fault.body ?? service.errorBody(status), headers),
        };
      }
      case "timeout":
        return { kind: "hang" };
      case "lost-request":
        return { kind: "drop" };
      case "reset":
        return { kind: "reset" };
      case "lost-answer":
        await execute(service, request);
        return { kind: "drop" };
      case "late":
        clock.later(fault.delayMs, () => void execute(service, request));
        return { kind: "drop" };
      case "slow":
        await clock.sleep(fault.delayMs);
        return { kind: "reply", reply: await execute(service, request) };
      case "slow-answer": {
        const reply = await execute(service, request);
        await clock.sleep(fault.delayMs);
        return { kind: "reply", reply };
      }
      case "half":
        return { kind: "half", reply: await execute(service, request) };
      case "malformed": {
        const reply = await execute(service, request);
        const body = reply.body.slice(0, Math.max(1, Math.floor(reply.body.length / 2)));
        return {
          kind: "reply",
          reply: { status: reply.status, headers: reply.headers, body },
        };
      }
    }
  }

  return {
    async run(service, request) {
      const seq = ++lastSeq;
      if (service.recorded(request)) record.received(seq, service.name, request);
      if (hook !== undefined) {
        seqs.set(request, seq);
        await tell("received", service, request);
      }
      const fault = faults.pick(service.name, request);
      const outcome: Outcome =
        fault === undefined
          ? { kind: "reply", reply: await execute(service, request) }
          : await withFault(service, request, fault);
      const reply = outcome.kind === "reply" ? outcome.reply : undefined;
      record.answered(request, reply);
      service.settled?.(request, reply);
      return outcome;
    },
    answered: (service, request) => tell("answered", service, request),
  };
}
