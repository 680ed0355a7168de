/**
 * The places where the gateway runs. Each has its own, late copy of the store, and isolates that go on
 * using a value they once read until their cache runs out. An isolate is taken to be warm: at each end
 * of its TTL it read the store again, as one under traffic does. The ends of an edge's isolates are
 * spread evenly over the TTL, so after any write one of them stays stale for almost all of it.
 */
import type { Clock } from "./clock.ts";
import type { EdgeOptions } from "./options.ts";

/** What a stored key resolves to at some moment. */
export type Binding = { kind: "key"; value: string } | { kind: "unavailable" } | { kind: "none" };

/** What the control plane says about (gateway, provider, alias) as of a moment. */
export type Resolve = (name: string, moment: number) => Binding;

interface Isolate {
  /** How far into each TTL its cache runs out, in milliseconds. */
  phaseMs: number;
  cache: Map<string, { binding: Binding; until: number }>;
}

export interface Edge {
  name: string;
  propagationMs: number;
  cacheTtlMs: number;
  isolates: Isolate[];
  /** By gateway: when its cached keys were last dropped. */
  droppedAt: Map<string, number>;
  /** Whose turn it is. */
  turn: number;
}

export interface Edges {
  all: readonly Edge[];
  /** The edge a TCP connection ends at, or the one that is named. */
  pick(connection: number, named: string | undefined): Edge;
  /** Resolves a stored key as the edge's next isolate sees it now. */
  read(edge: Edge, name: string): Binding;
  /** What every isolate of an edge would use now, without taking a turn. */
  views(edge: Edge, name: string): Binding[];
  /** Makes every isolate drop what it cached of a gateway: it reads its edge's copy of now. */
  drop(gatewayId: string): void;
}

export function createEdges(options: readonly EdgeOptions[], clock: Clock, resolve: Resolve): Edges {
  const all: Edge[] = options.map((edge) => ({
    name: edge.name,
    propagationMs: clock.span(edge.propagationMs),
    cacheTtlMs: clock.span(edge.cacheTtlMs),
    isolates: Array.from({ length: Math.max(1, edge.isolates) }, (_, index) => ({
      phaseMs: (clock.span(edge.cacheTtlMs) * index) / Math.max(1, edge.isolates),
      cache: new Map(),
    })),
    droppedAt: new Map(),
    turn: 0,
  }));
  const byName = new Map(all.map((edge) => [edge.name, edge]));

  function look(edge: Edge, isolate: Isolate, name: string, now: number): Binding {
    const cached = isolate.cache.get(name);
    if (cached !== undefined && now < cached.until) return cached.binding;
    if (edge.cacheTtlMs <= 0) return resolve(name, now - edge.propagationMs);
    const turns = Math.floor((now - isolate.phaseMs) / edge.cacheTtlMs);
    const turnedAt = turns * edge.cacheTtlMs + isolate.phaseMs;
    const lastRead = Math.max(turnedAt, edge.droppedAt.get(name.slice(0, name.indexOf("|"))) ?? 0);
    let binding = resolve(name, lastRead - edge.propagationMs);
    // Only keys are cached: where there was none, each request looks again.
    if (binding.kind !== "key") binding = resolve(name, now - edge.propagationMs);
    if (binding.kind === "key") {
      isolate.cache.set(name, { binding, until: turnedAt + edge.cacheTtlMs });
    } else isolate.cache.delete(name);
    return binding;
  }

  return {
    all,
    pick(connection, named) {
      const edge = named === undefined ? undefined : byName.get(named);
      const fallback = all[Math.max(0, connection) % all.length];
      if (fallback === undefined) throw new Error("a sandbox needs at least one edge");
      return edge ?? fallback;
    },
    read(edge, name) {
      edge.turn = (edge.turn + 1) % edge.isolates.length;
      const isolate = edge.isolates[edge.turn];
      return isolate === undefined ? { kind: "none" } : look(edge, isolate, name, clock.now());
    },
    drop(gatewayId) {
      for (const edge of all) {
        edge.droppedAt.set(gatewayId, clock.now());
        for (const { cache } of edge.isolates) {
          for (const name of cache.keys()) if (name.startsWith(`${gatewayId}|`)) cache.delete(name);
        }
      }
    },
    views: (edge, name) => edge.isolates.map((isolate) => look(edge, isolate, name, clock.now())),
  };
}
