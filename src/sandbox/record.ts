/** What happened, for tests to ask: requests to control planes, client traffic, probes. No key value is in it. */
import { rfc3339 } from "./clock.ts";
import type { Clock } from "./clock.ts";
import type { Reply, Request, ServiceName } from "./exchange.ts";
import type { Keys } from "./keys.ts";

const keyInQuery = /([?&](?:key|keyString)=)[^&]*/g;

/** Google takes keys in the query; they have no place in a record. */
export const maskedPath = (path: string): string => (path.includes("key") ? path.replace(keyInQuery, "$1***") : path);

interface RequestRow {
  seq: number;
  at: string;
  service: ServiceName;
  method: string;
  path: string;
  status: number | null;
  userAgent: string | null;
  keyId?: string;
  fault?: string;
  executed: boolean;
}

/** One request through the gateway. */
export interface GatewayUse {
  edge: string;
  gateway: string;
  alias: string;
  keyId: string | undefined;
  probe: boolean;
  status: number | undefined;
  body: string;
  /** Answered from the response cache, or paid by Cloudflare: no key was used. */
  source: "key" | "request" | "cache" | "cloudflare" | "none";
}

interface Tally {
  served: number;
  failed: number;
}

export interface Recorder {
  /** `seq` is the one that hooks are told; numbers of unrecorded requests are left out. */
  received(seq: number, service: ServiceName, request: Request): void;
  faulted(request: Request, fault: string): void;
  executed(request: Request, reply: Reply): void;
  answered(request: Request, reply: Reply | undefined): void;
  gatewayUse(use: GatewayUse): void;
  report(): Record<string, unknown>;
}

const keptRequests = 20_000;
const keptFailures = 100;
const keptProbes = 1_000;

export function createRecorder(parts: { clock: Clock; keys: Keys; trafficLog: boolean }): Recorder {
  const { clock, keys, trafficLog } = parts;
  const rows: RequestRow[] = [];
  const rowOf = new WeakMap<Request, RequestRow>();
  const traffic: Tally = { served: 0, failed: 0 };
  const probes: Tally = { served: 0, failed: 0 };
  const byEdge = new Map<string, Tally>();
  const bySource = new Map<string, number>();
  const failures: Record<string, unknown>[] = [];
  const probeRows: Record<string, unknown>[] = [];
  let writes = 0;

  const count = (tally: Tally, good: boolean): void => {
    if (good) tally.served++;
    else tally.failed++;
  };
  const rowFrom = (use: GatewayUse): Record<string, unknown> => ({
    at: rfc3339(clock.now()),
    edge: use.edge,
    gateway: use.gateway,
    alias: use.alias,
    keyId: use.keyId ?? null,
    status: use.status ?? null,
    source: use.source,
    body: use.body.slice(0, 300),
  });

  return {
    received(seq, service, request) {
      const row: RequestRow = {
        seq,
        at: rfc3339(clock.now()),
        service,
        method: request.method,
        path: maskedPath(request.path),
        status: null,
        userAgent: request.headers["user-agent"] ?? null,
        executed: false,
      };
      rowOf.set(request, row);
      rows.push(row);
      if (rows.length > keptRequests) rows.splice(0, keptRequests / 10);
    },
    faulted(request, fault) {
      const row = rowOf.get(request);
      if (row !== undefined) row.fault = fault;
    },
    executed(request, reply) {
      const row = rowOf.get(request);
      if (row === undefined) return;
      row.executed = true;
      if (reply.facts?.keyId !== undefined) row.keyId = reply.facts.keyId;
      if (request.method !== "GET" && reply.status < 400 && reply.facts === undefined) writes++;
    },
    answered(request, reply) {
      const row = rowOf.get(request);
      if (row !== undefined) row.status = reply?.status ?? null;
    },
    gatewayUse(use) {
      const good = use.status !== undefined && use.status < 400;
      const key = use.keyId === undefined ? undefined : keys.byId(use.keyId);
      if (use.probe) {
        count(probes, good);
        if (trafficLog) {
          probeRows.push(rowFrom(use));
          if (probeRows.length > keptProbes) probeRows.splice(0, keptProbes / 10);
        }
        return;
      }
      count(traffic, good);
      if (key !== undefined && good) key.lastUsedAt = clock.now();
      if (!trafficLog) return;
      let edge = byEdge.get(use.edge);
      if (edge === undefined) byEdge.set(use.edge, (edge = { served: 0, failed: 0 }));
      count(edge, good);
      bySource.set(use.source, (bySource.get(use.source) ?? 0) + 1);
      if (key !== undefined) {
        const seen = key.usesByEdge.get(use.edge);
        if (seen === undefined) key.usesByEdge.set(use.edge, { at: clock.now(), count: 1 });
        else {
          seen.at = clock.now();
          seen.count++;
        }
      }
      if (!good && failures.length < keptFailures) failures.push(rowFrom(use));
    },
    report: () => ({
      keys: keys.all().map((key) => keys.describe(key)),
      traffic: {
        ...traffic,
        byEdge: Object.fromEntries(byEdge),
        bySource: Object.fromEntries(bySource),
        failures,
      },
      probes: { ...probes, rows: probeRows },
      requests: rows,
      writes,
    }),
  };
}
