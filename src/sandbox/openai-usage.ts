/**
 * OpenAI's usage and costs: buckets that come late. Fields are null unless grouped by them.
 * https://developers.openai.com/api/reference (organization/usage, 2026-08). With a time scale the bucket
 * called `1m` is narrower than a minute, and `start_time` and `end_time` may be fractions of a second.
 */
import type { Reply } from "./exchange.ts";
import { json } from "./exchange.ts";
import type { OpenAiParts } from "./openai-errors.ts";
import { openAiError } from "./openai-errors.ts";
import type { Settings } from "./options.ts";
import type { Call, Route } from "./routes.ts";
import { queryList, route } from "./routes.ts";
import type { UsageRow } from "./usage.ts";
import { grouped } from "./usage.ts";

export const surfaces = [
  "completions",
  "embeddings",
  "moderations",
  "images",
  "audio_speeches",
  "audio_transcriptions",
  "vector_stores",
  "code_interpreter_sessions",
  "file_search_calls",
  "web_search_calls",
  "decisions",
];

/** Buckets per page: as a default, and at most. */
const pageSizes: Record<string, { usual: number; most: number }> = {
  "1m": { usual: 60, most: 1_440 },
  "1h": { usual: 24, most: 168 },
  "1d": { usual: 7, most: 31 },
};

const groupings: Record<string, keyof UsageRow> = {
  api_key_id: "keyId",
  project_id: "project",
  model: "model",
};

export function usageRoutes(parts: OpenAiParts): Route<undefined>[] {
  return [
    ...surfaces.map((surface) =>
      route("GET", `/organization/usage/${surface}`, undefined, (call) =>
        buckets(parts, call, {
          pageSizes,
          wanted: (row) => row.surface === surface,
          shown: (row, fields) => usageResult(surface, row, fields, parts.settings.usageRequests),
        }),
      ),
    ),
    route("GET", "/organization/costs", undefined, (call) =>
      buckets(parts, call, {
        pageSizes: { "1d": { usual: 7, most: 180 } },
        wanted: () => true,
        shown: costResult,
      }),
    ),
  ];
}

interface Report {
  pageSizes: typeof pageSizes;
  wanted(row: UsageRow): boolean;
  /** `fields` are the names grouped by. */
  shown(row: UsageRow, fields: readonly string[]): Record<string, unknown>;
}

function buckets({ usage, clock }: OpenAiParts, { query }: Call, report: Report): Reply {
  const start = Number(query.get("start_time"));
  if (query.get("start_time") === null || Number.isNaN(start)) {
    return openAiError(400, {
      message: "Missing required parameter: 'start_time'.",
      param: "start_time",
      code: "missing_required_parameter",
    });
  }
  const width = query.get("bucket_width") ?? "1d";
  const size = report.pageSizes[width];
  if (size === undefined) {
    return openAiError(400, { message: `Invalid bucket_width '${width}'`, param: "bucket_width" });
  }
  const limit = Number(query.get("limit") ?? size.usual);
  if (!Number.isInteger(limit) || limit < 1 || limit > size.most) {
    const message = `Invalid limit: for bucket_width ${width} at most ${size.most}`;
    return openAiError(400, { message, param: "limit" });
  }
  const fields = queryList(query, "group_by");
  const keyIds = queryList(query, "api_key_ids");
  const projectIds = queryList(query, "project_ids");
  const models = queryList(query, "models");
  const userIds = queryList(query, "user_ids");
  const passes = (row: UsageRow): boolean =>
    report.wanted(row) &&
    userIds.length === 0 &&
    (keyIds.length === 0 || keyIds.includes(row.keyId)) &&
    (projectIds.length === 0 || projectIds.includes(row.project)) &&
    (models.length === 0 || models.includes(row.model));

  const widthMs = { "1m": usage.minuteMs(), "1h": 3_600_000, "1d": 86_400_000 }[width] ?? 0;
  const end = query.get("end_time");
  const from = fromToken(query.get("page"));
  const endMs = end === null ? clock.now() : Number(end) * 1_000;
  // Half a millisecond forgives the rounding of a fractional start that we gave out ourselves.
  const startMs = Math.max((from ?? start) * 1_000 + 0.5, 0);
  // A page and one bucket more, to know whether there is one.
  const upTo = Math.min(endMs, (Math.floor(startMs / widthMs) + limit + 1) * widthMs);
  const found = usage.buckets({ startMs, endMs: upTo, widthMs });
  const shown = found.slice(0, limit);
  const next = found[limit];
  const by = fields.flatMap((field) => groupings[field] ?? []);
  return json(200, {
    object: "page",
    data: shown.map((bucket) => ({
      object: "bucket",
      start_time: bucket.startMs / 1_000,
      end_time: bucket.endMs / 1_000,
      results: grouped(bucket.rows.filter(passes), by).map((row) => report.shown(row, fields)),
    })),
    has_more: next !== undefined,
    next_page: next === undefined ? null : toToken(next.startMs / 1_000),
  });
}

const toToken = (start: number): string => `page_${Buffer.from(String(start)).toString("base64url")}`;

function fromToken(token: string | null): number | undefined {
  if (token === null || token === "") return undefined;
  const start = Number(Buffer.from(token.replace(/^page_/, ""), "base64url").toString());
  return Number.isNaN(start) ? undefined : start;
}

/** The count of requests, as it is told. */
export function requestCount(name: string, requests: number, told: Settings["usageRequests"]): Record<string, unknown> {
  switch (told) {
    case "told":
      return { [name]: requests };
    case "null":
      return { [name]: null };
    case "absent":
      return {};
    case "renamed":
      return { num_requests: requests };
  }
}

function dimensions(row: UsageRow, fields: readonly string[]): Record<string, unknown> {
  return {
    project_id: fields.includes("project_id") ? row.project : null,
    user_id: null,
    api_key_id: fields.includes("api_key_id") ? row.keyId : null,
    model: fields.includes("model") ? row.model : null,
  };
}

/** The counters of reports that count no tokens. Names as in npm `openai` 7.57.0, admin/organization/usage. */
const otherCounters: Record<string, readonly string[]> = {
  images: ["images", "num_model_requests"],
  audio_speeches: ["characters", "num_model_requests"],
  audio_transcriptions: ["seconds", "num_model_requests"],
  vector_stores: ["usage_bytes"],
  code_interpreter_sessions: ["num_sessions"],
  file_search_calls: ["num_requests"],
  web_search_calls: ["num_requests", "num_model_requests"],
};

function usageResult(
  surface: string,
  row: UsageRow,
  fields: readonly string[],
  told: Settings["usageRequests"],
): Record<string, unknown> {
  const object = `organization.usage.${surface}.result`;
  const counters = otherCounters[surface];
  if (counters !== undefined) {
    const counted = counters.map((name) => [name, row.requests]);
    return { object, ...Object.fromEntries(counted), ...dimensions(row, fields) };
  }
  const common = {
    object,
    input_tokens: row.tokensIn,
    ...requestCount("num_model_requests", row.requests, told),
    ...dimensions(row, fields),
  };
  if (surface !== "completions") return common;
  return {
    ...common,
    output_tokens: row.tokensOut,
    input_cached_tokens: 0,
    input_audio_tokens: 0,
    output_audio_tokens: 0,
    batch: fields.includes("batch") ? false : null,
    service_tier: fields.includes("service_tier") ? "default" : null,
  };
}

function costResult(row: UsageRow, fields: readonly string[]): Record<string, unknown> {
  return {
    object: "organization.costs.result",
    amount: { value: row.costUsd, currency: "usd" },
    line_item: fields.includes("line_item") ? row.model : null,
    project_id: fields.includes("project_id") ? row.project : null,
    api_key_id: fields.includes("api_key_id") ? row.keyId : null,
    quantity: null,
    quantity_unit: null,
  };
}
