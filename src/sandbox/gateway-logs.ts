/**
 * AI Gateway's Logs API, for accounts from before 2026-09-24.
 * https://developers.cloudflare.com/ai-gateway/observability/logging; fields beyond the SDK's as seen live by others.
 */
import type { CloudflareParts, Needs } from "./cloudflare-envelope.ts";
import { failure, page, success } from "./cloudflare-envelope.ts";
import type { LogRow } from "./cloudflare-state.ts";
import { rfc3339 } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { asObject } from "./exchange.ts";
import { guideLine, providerOfGuide } from "./guide.ts";
import type { Call, Route } from "./routes.ts";
import { route } from "./routes.ts";

const read: Needs = ["gateway read"];

type Shown = Record<string, unknown>;
interface Filter {
  key: string;
  operator: string;
  value: unknown[];
}

const shown = (row: LogRow): Shown => ({
  id: row.id,
  created_at: rfc3339(row.at),
  provider: row.provider,
  model: row.model,
  model_type: "",
  path: row.path,
  duration: row.durationMs,
  success: row.status < 400,
  status_code: row.status,
  cached: row.cached,
  tokens_in: row.tokensIn,
  tokens_out: row.tokensOut,
  cost: row.costUsd,
  custom_cost: false,
  ...(row.metadata === undefined ? {} : { metadata: row.metadata }),
  request_type: "",
  request_content_type: "application/json",
  response_content_type: "application/json",
  step: row.step,
  event_id: row.id,
  byok: row.byok,
  wholesale: row.wholesale,
  authentication: true,
  location: row.location,
  user_agent: row.userAgent ?? null,
});

export function gatewayLogRoutes({ state, settings, clock }: CloudflareParts): Route<Needs>[] {
  const base = "/accounts/:account/ai-gateway/gateways/:gateway/logs";
  const visible = (gatewayId: string): LogRow[] | undefined => {
    if (state.gateways.get(gatewayId) === undefined) return undefined;
    const horizon = clock.now() - clock.span(settings.logLagMs);
    return (state.logs.get(gatewayId) ?? []).filter(({ at }) => at <= horizon);
  };
  const unknown = (): Reply => failure(404, { code: 7002, message: "gateway not found" });

  function list({ params, query }: Call): Reply {
    const rows = visible(params["gateway"] ?? "");
    if (rows === undefined) return unknown();
    const guide = settings.dialect === "guide";
    const filters = filtersOf(query)?.map((filter) =>
      guide && filter.key === "provider" ? { ...filter, value: filter.value.map(providerOfGuide) } : filter,
    );
    if (filters === undefined) {
      return failure(400, { code: 7001, message: "Invalid filters", path: ["query", "filters"] });
    }
    const wanted = rows.filter((row) => filters.every((filter) => passes(row, filter)));
    const order = query.get("order_by") ?? "created_at";
    const direction = query.get("order_by_direction") ?? query.get("direction") ?? "desc";
    if (order === "created_at") {
      if (direction === "desc") wanted.reverse();
    } else {
      const sign = direction === "desc" ? -1 : 1;
      wanted.sort((one, other) => sign * String(field(one, order)).localeCompare(String(field(other, order))));
    }
    if (guide) return lines(wanted, query);
    const perPage = Number(query.get("per_page") ?? 20);
    const first = (Math.max(1, Number(query.get("page") ?? 1)) - 1) * perPage;
    // Only the page asked for is spelt out: there can be very many rows.
    const sparse: unknown[] = wanted.map((row, index) =>
      index >= first && index < first + perPage ? shown(row) : undefined,
    );
    return page(query, sparse, 50);
  }

  /** Dialect `guide`: all rows, or a page of them, one a line. */
  function lines(rows: readonly LogRow[], query: URLSearchParams): Reply {
    const perPage = Number(query.get("per_page") ?? query.get("limit") ?? rows.length) || rows.length;
    const first = (Math.max(1, Number(query.get("page") ?? 1)) - 1) * perPage;
    const shownRows = rows.slice(first, first + perPage);
    return {
      status: 200,
      headers: { "content-type": "application/x-ndjson" },
      body: shownRows.map((row) => `${guideLine(row)}\n`).join(""),
    };
  }

  return [
    route("GET", base, read, list),
    route("GET", `${base}/:log`, read, ({ params }) => {
      const row = visible(params["gateway"] ?? "")?.find(({ id }) => id === params["log"]);
      if (row === undefined) return failure(404, { code: 7002, message: "log not found" });
      return success({ ...shown(row), request_size: 0, response_size: 0 });
    }),
  ];
}

/** One `filters` parameter of JSON, plus the deprecated single ones. */
function filtersOf(query: URLSearchParams): Filter[] | undefined {
  const filters: Filter[] = [];
  const raw = query.get("filters");
  if (raw !== null) {
    let parsed: unknown;
    try {
      parsed = JSON.parse(raw);
    } catch {
      return undefined;
    }
    if (!Array.isArray(parsed)) return undefined;
    for (const item of parsed) {
      const { key, operator, value } = asObject(item);
      if (typeof key !== "string" || typeof operator !== "string") return undefined;
      filters.push({ key, operator, value: Array.isArray(value) ? value : [value] });
    }
  }
  const single = (name: string, key: string, operator: string): void => {
    const value = query.get(name);
    if (value !== null) filters.push({ key, operator, value: [value] });
  };
  single("start_date", "created_at", "gt");
  single("end_date", "created_at", "lt");
  single("provider", "provider", "eq");
  single("model", "model", "eq");
  single("success", "success", "eq");
  single("cached", "cached", "eq");
  return filters;
}

function field(row: LogRow, key: string): unknown {
  if (key === "tokens") return row.tokensIn + row.tokensOut;
  return shown(row)[key];
}

function passes(row: LogRow, { key, operator, value }: Filter): boolean {
  if (key === "metadata.key" || key === "metadata.value") {
    const metadata = Object.entries(parsedMetadata(row.metadata));
    const found = metadata.map(([name, held]) => (key === "metadata.key" ? name : String(held)));
    return found.some((held) => compares(held, operator, value));
  }
  return compares(quickField(row, key), operator, value);
}

/** Saves spelling out a whole row for the commonest filters. */
function quickField(row: LogRow, key: string): unknown {
  switch (key) {
    case "created_at":
      return row.at;
    case "provider":
      return row.provider;
    case "success":
      return row.status < 400;
    default:
      return field(row, key);
  }
}

function compares(held: unknown, operator: string, values: unknown[]): boolean {
  const one = (value: unknown): boolean => {
    const comparable =
      typeof held === "number" && typeof value === "string" && Number.isNaN(Number(value)) ? Date.parse(value) : value;
    switch (operator) {
      case "eq":
        return String(held) === String(comparable);
      case "neq":
        return String(held) !== String(comparable);
      case "contains":
        return String(held).includes(String(comparable));
      case "lt":
        return Number(held) < Number(comparable);
      case "gt":
        return Number(held) > Number(comparable);
      default:
        return false;
    }
  };
  return operator === "neq" ? values.every(one) : values.some(one);
}

function parsedMetadata(metadata: string | undefined): Record<string, unknown> {
  try {
    return asObject(JSON.parse(metadata ?? "{}"));
  } catch {
    return {};
  }
}
