/**
 * Anthropic's usage and cost: rows that come late. `analytics/…` is the beta of 2026-08-24, `usage_report` and
 * `cost_report` the older reports. With a time scale the bucket called `1m` is narrower than a minute.
 * https://platform.claude.com/docs/en/api/usage-cost-api (2026-10), npm `@anthropic-ai/sdk` 1.12.0.
 */
import type { AnthropicParts } from "./anthropic-errors.ts";
import { anthropicError } from "./anthropic-errors.ts";
import { rfc3339 } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { json } from "./exchange.ts";
import { requestCount } from "./openai-usage.ts";
import type { Settings } from "./options.ts";
import type { Call, Route } from "./routes.ts";
import { queryList, route } from "./routes.ts";
import type { UsageBucket, UsageRow } from "./usage.ts";
import { grouped } from "./usage.ts";

const beta = "analytics-usage-cost-2026-08-24";
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** Fields of `group` that the sandbox knows; the rest is null however it is grouped. */
const groupings: Record<string, keyof UsageRow> = {
  api_key_id: "keyId",
  model: "model",
  workspace_id: "project",
};
const dimensions = [...Object.keys(groupings), "actor", "actor_type", "agent_id"].concat(
  ["claude_tag_category", "claude_tag_user_id", "context_window", "cost_type", "deployment_id", "environment_id"],
  ["inference_geo", "organization_id", "product", "rbac_group_id", "service_tier", "session_id"],
  ["slack_channel_id", "speed", "token_type", "user_profile_id"],
);

const metrics: Record<string, (row: UsageRow) => number> = {
  total_tokens: (row) => row.tokensIn + row.tokensOut,
  output_tokens: (row) => row.tokensOut,
  uncached_input_tokens: (row) => row.tokensIn,
  requests: (row) => row.requests,
  amount: (row) => row.costUsd,
  list_amount: (row) => row.costUsd,
};

const cacheCreation = { ephemeral_1h_input_tokens: 0, ephemeral_5m_input_tokens: 0 };
const serverToolUse = { web_search_requests: 0 };

interface Range {
  startMs: number;
  endMs: number;
}

export function anthropicUsageRoutes(parts: AnthropicParts): Route<undefined>[] {
  const { usage, clock } = parts;

  const widthOf = (name: string): number | undefined => ({ "1m": usage.minuteMs(), "1h": hourMs, "1d": dayMs })[name];

  /** Whether a row passes the filters of the query. */
  function filter(query: URLSearchParams): (row: UsageRow) => boolean {
    const keyIds = queryList(query, "api_key_ids");
    const workspaceIds = queryList(query, "workspace_ids");
    const models = queryList(query, "models");
    const wants = (list: string[], value: string): boolean => list.length === 0 || list.includes(value);
    return (row) => wants(keyIds, row.keyId) && wants(workspaceIds, row.project) && wants(models, row.model);
  }

  function rangeOf(query: URLSearchParams, otherwiseEnd: (startMs: number) => number): Range | Reply {
    const startMs = Date.parse(query.get("starting_at") ?? "");
    if (Number.isNaN(startMs)) return anthropicError(400, "starting_at: Input should be a valid RFC 3339 datetime");
    const end = query.get("ending_at");
    const endMs = end === null ? otherwiseEnd(startMs) : Date.parse(end);
    if (Number.isNaN(endMs)) return anthropicError(400, "ending_at: Input should be a valid RFC 3339 datetime");
    if (endMs <= startMs) return anthropicError(400, "ending_at must be after starting_at");
    return { startMs, endMs };
  }

  function analytics(call: Call, kind: "usage" | "cost"): Reply {
    const { query, request } = call;
    if (!(request.headers["anthropic-beta"] ?? "").split(/\s*,\s*/).includes(beta)) {
      return anthropicError(400, `anthropic-beta: this endpoint needs the header value ${beta}`);
    }
    const range = rangeOf(query, (startMs) => Math.min(clock.now(), startMs + 31 * dayMs));
    if ("status" in range) return range;
    const width = query.get("time_bucket_width");
    const widthMs = width === null ? undefined : widthOf(width);
    if (width !== null && widthMs === undefined) return anthropicError(400, "time_bucket_width: one of 1m, 1h, 1d");
    if (width !== null && query.get("ending_at") === null) {
      return anthropicError(400, "ending_at is required when time_bucket_width is set");
    }
    if (range.startMs < clock.now() - 365 * dayMs) {
      return anthropicError(400, "starting_at must be within the last 365 days");
    }
    if (range.endMs - range.startMs > (width === "1m" ? dayMs : 31 * dayMs)) {
      return anthropicError(400, `the range may span at most ${width === "1m" ? "24 hours" : "31 days"}`);
    }
    const limit = Number(query.get("limit") ?? 20);
    if (!Number.isInteger(limit) || limit < 1 || limit > 1_000) {
      return anthropicError(400, "limit: Input should be between 1 and 1000");
    }
    const fields = queryList(query, "group_by");
    if (fields.length > 5) return anthropicError(400, "group_by: at most 5 dimensions");
    const unknown = fields.find((name) => !dimensions.includes(name));
    if (unknown !== undefined) return anthropicError(400, `group_by: unknown dimension ${unknown}`);

    const by = fields.flatMap((name) => groupings[name] ?? []);
    const passes = filter(query);
    const rows = bucketsOf(range, widthMs).flatMap((bucket) =>
      grouped(bucket.rows.filter(passes), by).map((row) => ({ bucket, row })),
    );
    const wantedOrder = query.get("order_by") ?? (kind === "usage" ? "total_tokens" : "amount");
    const sign = query.get("order") === "asc" ? 1 : -1;
    const measure = metrics[wantedOrder] ?? metrics[kind === "usage" ? "total_tokens" : "amount"];
    rows.sort((one, other) => {
      const inTime = one.bucket.startMs - other.bucket.startMs;
      if (wantedOrder === "time" && inTime !== 0) return sign * inTime;
      const bySize = (measure?.(one.row) ?? 0) - (measure?.(other.row) ?? 0);
      return wantedOrder === "time" ? -bySize : sign * bySize || inTime;
    });
    const first = Number(fromToken(query.get("page")) ?? 0);
    return json(200, {
      data: rows.slice(first, first + limit).map(({ bucket, row }) => ({
        starting_at: rfc3339(bucket.startMs),
        ending_at: rfc3339(bucket.endMs),
        group: Object.fromEntries(
          dimensions.map((name) => {
            const field = groupings[name];
            const value = field !== undefined && fields.includes(name) ? row[field] : null;
            return [name, value === "" ? null : value];
          }),
        ),
        ...(kind === "usage" ? { usage: usageOf(row, parts.settings.usageRequests) } : { cost: costOf(row) }),
      })),
      has_more: first + limit < rows.length,
      next_page: first + limit < rows.length ? toToken(String(first + limit)) : null,
      // Told a bucket too early now and then: the newest bucket before it may still lack its second half.
      data_refreshed_at: rfc3339(
        Math.floor((usage.wholeUntil() + usage.minuteMs()) / usage.minuteMs()) * usage.minuteMs(),
      ),
    });
  }

  /** Without a width the whole range, in whole hours, is one bucket. */
  function bucketsOf(range: Range, widthMs: number | undefined): UsageBucket[] {
    if (widthMs !== undefined) {
      // A start that we gave out may have been rounded down by part of a millisecond.
      return usage.filled({ startMs: range.startMs + 1, endMs: range.endMs, widthMs });
    }
    const startMs = Math.floor(range.startMs / hourMs) * hourMs;
    const endMs = Math.floor(range.endMs / hourMs) * hourMs;
    const found = usage.filled({ startMs, endMs, widthMs: usage.minuteMs() });
    const rows = found.filter((bucket) => bucket.endMs <= endMs).flatMap((bucket) => bucket.rows);
    return rows.length === 0 ? [] : [{ startMs, endMs, rows }];
  }

  /** The older reports: whole buckets, oldest first, empty ones included. */
  function report(call: Call, sizes: Record<string, { usual: number; most: number }>, kind: "usage" | "cost"): Reply {
    const { query } = call;
    const width = query.get("bucket_width") ?? "1d";
    const size = sizes[width];
    const widthMs = widthOf(width);
    if (size === undefined || widthMs === undefined) {
      return anthropicError(400, `bucket_width: one of ${Object.keys(sizes).join(", ")}`);
    }
    const range = rangeOf(query, () => clock.now());
    if ("status" in range) return range;
    const limit = Number(query.get("limit") ?? size.usual);
    if (!Number.isInteger(limit) || limit < 1 || limit > size.most) {
      return anthropicError(400, `limit: for bucket_width ${width} at most ${size.most}`);
    }
    const fields = queryList(query, "group_by");
    const by = fields.flatMap((name) => groupings[name] ?? []);
    const passes = filter(query);
    const startMs = Number(fromToken(query.get("page")) ?? range.startMs) + 1;
    const upTo = Math.min(range.endMs, (Math.floor(startMs / widthMs) + limit + 1) * widthMs);
    const found = usage.buckets({ startMs, endMs: upTo, widthMs });
    const next = found[limit];
    return json(200, {
      data: found.slice(0, limit).map((bucket) => ({
        starting_at: rfc3339(bucket.startMs),
        ending_at: rfc3339(bucket.endMs),
        results: grouped(bucket.rows.filter(passes), by).map((row) => {
          const named = (name: string): string | null => {
            const field = groupings[name];
            const value = field !== undefined && fields.includes(name) ? String(row[field]) : "";
            return value === "" ? null : value;
          };
          return kind === "usage"
            ? {
                uncached_input_tokens: row.tokensIn,
                cache_creation: cacheCreation,
                cache_read_input_tokens: 0,
                output_tokens: row.tokensOut,
                server_tool_use: serverToolUse,
                api_key_id: named("api_key_id"),
                workspace_id: named("workspace_id"),
                model: named("model"),
                service_tier: fields.includes("service_tier") ? "standard" : null,
                context_window: fields.includes("context_window") ? "0-200k" : null,
              }
            : {
                amount: String(row.costUsd * 100),
                currency: "USD",
                workspace_id: named("workspace_id"),
                description: null,
                cost_type: null,
                context_window: null,
                model: null,
                service_tier: null,
                token_type: null,
              };
        }),
      })),
      has_more: next !== undefined,
      next_page: next === undefined ? null : toToken(String(next.startMs)),
    });
  }

  const reportSizes = {
    "1m": { usual: 60, most: 1_440 },
    "1h": { usual: 24, most: 168 },
    "1d": { usual: 7, most: 31 },
  };
  return [
    route("GET", "/organizations/analytics/usage", undefined, (call) => analytics(call, "usage")),
    route("GET", "/organizations/analytics/cost", undefined, (call) => analytics(call, "cost")),
    route("GET", "/organizations/usage_report/messages", undefined, (call) => report(call, reportSizes, "usage")),
    route("GET", "/organizations/cost_report", undefined, (call) =>
      report(call, { "1d": { usual: 7, most: 31 } }, "cost"),
    ),
  ];
}

const usageOf = (row: UsageRow, told: Settings["usageRequests"]): Record<string, unknown> => ({
  ...requestCount("requests", row.requests, told),
  total_tokens: row.tokensIn + row.tokensOut,
  uncached_input_tokens: row.tokensIn,
  cache_read_input_tokens: 0,
  cache_creation: cacheCreation,
  output_tokens: row.tokensOut,
  server_tool_use: serverToolUse,
});

/** Amounts are cents. */
const costOf = (row: UsageRow): Record<string, unknown> => ({
  amount: String(row.costUsd * 100),
  list_amount: String(row.costUsd * 100),
  currency: "USD",
  requests: row.requests,
});

const toToken = (text: string): string => `page_${Buffer.from(text).toString("base64url")}`;

const fromToken = (token: string | null): string | undefined =>
  token === null || token === "" ? undefined : Buffer.from(token.replace(/^page_/, ""), "base64url").toString();
