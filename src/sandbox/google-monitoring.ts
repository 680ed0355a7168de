/**
 * Cloud Monitoring v3 as far as it tells the use of API keys: `timeSeries.list` for request counts.
 * https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list (general knowledge, 2026);
 * labels as tools that run live say. With a time scale, alignment periods below an hour are divided by it,
 * and the ends of intervals may be fractions of a second.
 */
import { rfc3339 } from "./clock.ts";
import type { Reply, Service } from "./exchange.ts";
import { json } from "./exchange.ts";
import type { GoogleParts } from "./google-errors.ts";
import { googleError, googleFault, refusedToken } from "./google-errors.ts";
import { projectOf } from "./google-state.ts";
import type { Call } from "./routes.ts";
import { match, queryList, route } from "./routes.ts";
import type { UsageRow } from "./usage.ts";
import { grouped } from "./usage.ts";

const requestCount = "serviceruntime.googleapis.com/api/request_count";
const consumedApi = "consumed_api";
const gemini = "generativelanguage.googleapis.com";
const aligners = ["ALIGN_NONE", "ALIGN_SUM", "ALIGN_DELTA", "ALIGN_RATE"];
const reducers = ["REDUCE_NONE", "REDUCE_SUM"];
const mostPoints = 100_000;

interface Series {
  metric: Record<string, string>;
  resource: Record<string, string>;
}

interface Point {
  series: Series;
  startMs: number;
  endMs: number;
  count: number;
}

type Test = (series: Series) => boolean;

export function createMonitoring(parts: GoogleParts): Service {
  const { state, settings, clock, keys, usage } = parts;

  /** Labels of what a row counts; `surface` is the method and the response code. */
  function seriesOf(row: UsageRow): Series {
    const [method = "", code = ""] = row.surface.split(" ");
    return {
      metric: { protocol: "http", response_code: code, response_code_class: `${code.charAt(0)}xx` },
      resource: {
        project_id: row.project,
        service: gemini,
        method,
        version: method.split(".")[3] ?? "",
        location: "global",
        credential_id: credentialOf(row.keyId),
      },
    };
  }

  function credentialOf(uid: string): string {
    const key = keys.all().find(({ detail }) => detail["uid"] === uid);
    const account = state.serviceAccounts.get(String(key?.detail["serviceAccountEmail"]));
    return settings.monitoringNamesServiceAccount && account !== undefined
      ? `serviceaccount:${account.uniqueId}`
      : `apikey:${uid}`;
  }

  function list({ params, query }: Call): Reply {
    const project = projectOf(state, params["project"] ?? "");
    if (project === undefined) {
      return googleError(403, `Permission denied on resource project ${params["project"] ?? ""}.`);
    }
    const test = filterOf(query.get("filter") ?? "");
    if (typeof test === "string") return googleError(400, `Field filter had an invalid value: ${test}`);
    const endMs = Date.parse(query.get("interval.endTime") ?? "");
    const startMs = Date.parse(query.get("interval.startTime") ?? query.get("interval.endTime") ?? "");
    if (Number.isNaN(endMs) || Number.isNaN(startMs) || startMs > endMs) {
      return googleError(400, "Field interval had an invalid value: it needs an endTime, not before startTime.");
    }
    const aligner = query.get("aggregation.perSeriesAligner") ?? "ALIGN_NONE";
    const reducer = query.get("aggregation.crossSeriesReducer") ?? "REDUCE_NONE";
    if (!aligners.includes(aligner)) return googleError(400, `The sandbox knows no aligner ${aligner}.`);
    if (!reducers.includes(reducer)) return googleError(400, `The sandbox knows no reducer ${reducer}.`);
    const widthMs = widthOf(query.get("aggregation.alignmentPeriod"), aligner);
    if (widthMs === undefined) {
      return googleError(400, "Field aggregation.alignmentPeriod had an invalid value: at least 60s.");
    }
    const size = Number(query.get("pageSize") ?? mostPoints);
    if (!Number.isInteger(size) || size < 0) return googleError(400, "Field pageSize had an invalid value.");
    const token = query.get("pageToken");
    const first = token === null || token === "" ? 0 : Number(Buffer.from(token, "base64url").toString());
    if (!Number.isInteger(first)) return googleError(400, "Field pageToken had an invalid value.");

    const kept = reducer === "REDUCE_SUM" ? queryList(query, "aggregation.groupByFields") : undefined;
    const points = pointsOf({ startMs, endMs, widthMs }, project.id, test, kept);
    const upTo = first + Math.min(size === 0 ? mostPoints : size, mostPoints);
    const shown = bySeries(points.slice(first, upTo)).map((group) => shownSeries(group, query, aligner));
    return json(200, {
      ...(shown.length === 0 ? {} : { timeSeries: shown, unit: "1" }),
      ...(upTo < points.length ? { nextPageToken: Buffer.from(String(upTo)).toString("base64url") } : {}),
    });
  }

  function widthOf(period: string | null, aligner: string): number | undefined {
    if (aligner === "ALIGN_NONE") return usage.minuteMs();
    const seconds = Number(/^(\d+(?:\.\d+)?)s$/.exec(period ?? "")?.[1] ?? Number.NaN);
    if (!(seconds >= 60)) return undefined;
    return seconds < 3_600 ? clock.span(seconds * 1_000) : seconds * 1_000;
  }

  /** Points by series, and in each the newest first, as Monitoring gives them. */
  function pointsOf(
    query: { startMs: number; endMs: number; widthMs: number },
    projectId: string,
    test: Test,
    kept: string[] | undefined,
  ): Point[] {
    const points = new Map<string, Point>();
    // A start that we gave out may have been rounded down by part of a millisecond.
    for (const bucket of usage.filled({ ...query, startMs: query.startMs + 1 })) {
      for (const row of grouped(bucket.rows, ["surface", "keyId", "project"])) {
        const series = seriesOf(row);
        if (row.project !== projectId || !test(series)) continue;
        const shown = kept === undefined ? series : reduced(series, kept);
        const name = `${JSON.stringify(shown)}|${bucket.startMs}`;
        const point = points.get(name);
        if (point === undefined) {
          points.set(name, { series: shown, startMs: bucket.startMs, endMs: bucket.endMs, count: row.requests });
        } else point.count += row.requests;
      }
    }
    return [...points.values()].sort(
      (one, other) =>
        JSON.stringify(one.series).localeCompare(JSON.stringify(other.series)) || other.startMs - one.startMs,
    );
  }

  return {
    name: "monitoring",
    handle(request) {
      const refused = refusedToken(state, request, "monitoring read", "monitoring.googleapis.com");
      if (refused !== undefined) return refused;
      const found = match([route("GET", "/projects/:project/timeSeries", undefined, list)], "/v3", request);
      return found.kind === "found" ? found.route.handle(found.call) : googleError(404, "Method not found.");
    },
    errorBody: googleFault,
    recorded: () => true,
  };
}

/** Keeps the labels that are grouped by. */
function reduced({ metric, resource }: Series, kept: readonly string[]): Series {
  const only = (labels: Record<string, string>, kind: string): Record<string, string> =>
    Object.fromEntries(
      Object.entries(labels).filter(
        ([name]) => kept.includes(`${kind}.labels.${name}`) || kept.includes(`${kind}.label.${name}`),
      ),
    );
  return { metric: only(metric, "metric"), resource: only(resource, "resource") };
}

function bySeries(points: readonly Point[]): Point[][] {
  const groups = new Map<string, Point[]>();
  for (const point of points) {
    const name = JSON.stringify(point.series);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [point]);
    else group.push(point);
  }
  return [...groups.values()];
}

function shownSeries(points: readonly Point[], query: URLSearchParams, aligner: string): Record<string, unknown> {
  const [first] = points;
  const rate = aligner === "ALIGN_RATE";
  return {
    metric: { type: requestCount, labels: first?.series.metric ?? {} },
    resource: { type: consumedApi, labels: first?.series.resource ?? {} },
    metricKind: rate ? "GAUGE" : "DELTA",
    valueType: rate ? "DOUBLE" : "INT64",
    ...(query.get("view") === "HEADERS"
      ? {}
      : {
          points: points.map(({ startMs, endMs, count }) => ({
            interval: { startTime: rfc3339(startMs), endTime: rfc3339(endMs) },
            value: rate ? { doubleValue: (count * 1_000) / (endMs - startMs) } : { int64Value: String(count) },
          })),
        }),
  };
}

const term =
  /^\s*(metric\.type|resource\.type|(?:metric|resource)\.labels?\.\w+)\s*(?:(=|!=)\s*(?:"([^"]*)"|'([^']*)'|([\w.\-/]+)|(starts_with|one_of)\(([^)]*)\)))\s*/;

/** A filter of terms joined by AND; a string says what is wrong with it. */
function filterOf(filter: string): Test | string {
  const tests: Test[] = [];
  let typed = false;
  let rest = filter;
  for (;;) {
    const found = term.exec(rest);
    if (found === null) return `cannot read "${rest.slice(0, 60)}"`;
    const [whole, name = "", operator = "=", double, single, bare, call, list = ""] = found;
    const wanted = call === undefined ? [double ?? single ?? bare ?? ""] : quoted(list);
    if (name === "metric.type" && operator === "=") typed = true;
    tests.push((series) => {
      const held = heldBy(series, name);
      const fits = call === "starts_with" ? held.startsWith(wanted[0] ?? "") : wanted.includes(held);
      return operator === "=" ? fits : !fits;
    });
    rest = rest.slice(whole.length);
    if (rest === "") break;
    rest = rest.replace(/^AND\b/i, "");
  }
  return typed ? (series) => tests.every((test) => test(series)) : "a metric.type is needed";
}

const quoted = (list: string): string[] => [...list.matchAll(/"([^"]*)"/g)].map(([, value = ""]) => value);

function heldBy(series: Series, name: string): string {
  if (name === "metric.type") return requestCount;
  if (name === "resource.type") return consumedApi;
  const [kind, , label = ""] = name.split(".");
  return (kind === "metric" ? series.metric : series.resource)[label] ?? "";
}
