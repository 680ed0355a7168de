/** What all calls of Cloudflare's control plane share: the envelope, pages, and what a call is given. */
import type { Clock } from "./clock.ts";
import type { CloudflareState, Permission } from "./cloudflare-state.ts";
import type { Edges } from "./edges.ts";
import type { Reply } from "./exchange.ts";
import { json } from "./exchange.ts";
import type { Lies } from "./lies.ts";
import type { Settings } from "./options.ts";

export interface CloudflareParts {
  state: CloudflareState;
  settings: Settings;
  clock: Clock;
  edges: Edges;
  lies: Lies;
  /** Origin of the gateway's data plane. */
  gatewayOrigin: () => string;
}

/** What a call needs; any listed permission is enough. Empty: any good token. */
export type Needs = readonly Permission[];

export interface ErrorItem {
  code: number;
  message: string;
  path?: string[];
}

export const success = (result: unknown, more: Record<string, unknown> = {}, status = 200): Reply =>
  json(status, { success: true, errors: [], messages: [], result, ...more });

export const failure = (status: number, errors: ErrorItem | ErrorItem[], headers: Record<string, string> = {}): Reply =>
  json(status, { success: false, errors: [errors].flat(), messages: [], result: null }, headers);

/** One page of a list, in the envelope; undefined where page or size are out of range. */
export function page(query: URLSearchParams, items: unknown[], maxPerPage: number): Reply {
  const number = Number(query.get("page") ?? 1);
  const perPage = Number(query.get("per_page") ?? 20);
  if (!Number.isInteger(perPage) || perPage < 1 || perPage > maxPerPage) {
    return failure(400, {
      code: 7001,
      message: `per_page must be between 1 and ${maxPerPage}`,
      path: ["query", "per_page"],
    });
  }
  const first = (Math.max(1, number) - 1) * perPage;
  const shown = items.slice(first, first + perPage);
  return success(shown, {
    result_info: {
      page: Math.max(1, number),
      per_page: perPage,
      count: shown.length,
      total_count: items.length,
      total_pages: Math.ceil(items.length / perPage),
    },
  });
}

export function bearer(header: string | undefined): string | undefined {
  return header?.startsWith("Bearer ") === true ? header.slice("Bearer ".length) : undefined;
}
