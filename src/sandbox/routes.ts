/** A table of routes with `:names` in them, for the calls that are few. */
import type { Reply, Request } from "./exchange.ts";

export interface Call {
  request: Request;
  params: Record<string, string>;
  query: URLSearchParams;
}

export interface Route<Extra> {
  method: string;
  segments: readonly string[];
  extra: Extra;
  handle(call: Call): Reply | Promise<Reply>;
}

export function route<Extra>(
  method: string,
  path: string,
  extra: Extra,
  handle: (call: Call) => Reply | Promise<Reply>,
): Route<Extra> {
  return { method, segments: path.split("/").filter(Boolean), extra, handle };
}

export type Match<Extra> = { kind: "found"; route: Route<Extra>; call: Call } | { kind: "no path" | "no method" };

/** Finds the route of a request whose path begins with `prefix`. */
export function match<Extra>(routes: readonly Route<Extra>[], prefix: string, request: Request): Match<Extra> {
  const url = new URL(request.path, "http://sandbox");
  if (!url.pathname.startsWith(prefix)) return { kind: "no path" };
  const segments = url.pathname.slice(prefix.length).split("/").filter(Boolean);
  let pathKnown = false;
  for (const candidate of routes) {
    const params = paramsOf(candidate.segments, segments);
    if (params === undefined) continue;
    pathKnown = true;
    if (candidate.method !== request.method) continue;
    return { kind: "found", route: candidate, call: { request, params, query: url.searchParams } };
  }
  return { kind: pathKnown ? "no method" : "no path" };
}

function paramsOf(pattern: readonly string[], segments: readonly string[]): Record<string, string> | undefined {
  if (pattern.length !== segments.length) return undefined;
  const params: Record<string, string> = {};
  for (const [index, part] of pattern.entries()) {
    const segment = segments[index] ?? "";
    if (part.startsWith(":")) params[part.slice(1)] = decodeURIComponent(segment);
    else if (part !== segment) return undefined;
  }
  return params;
}

/** Values of a query parameter sent as `name=a&name=b` or `name[]=a`. */
export const queryList = (query: URLSearchParams, name: string): string[] => [
  ...query.getAll(name),
  ...query.getAll(`${name}[]`),
];
