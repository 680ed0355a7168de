import { request, type Dispatcher } from "undici";
import type { z } from "zod";
import type { Answer } from "./domain/answer.ts";
import { RotationFailure } from "./domain/failure.ts";
import { Redacted } from "./redacted.ts";

/** One request to an outside service, told for metrics. Nothing in it is secret or unbounded. */
export interface Traffic {
  service: string;
  method: Method;
  /** The path with its variable parts left as names, so that it can label a metric. */
  route: string;
  /** Nothing where no whole answer came. */
  status: number | undefined;
  ms: number;
}

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** A secret belongs in a header; some services take it nowhere else. It shows in no message and no metric of ours. */
export type QueryValue = string | number | boolean | Redacted | readonly string[] | undefined;

export interface Request {
  /** Whom we ask, for messages and metrics: `openai`, `cloudflare`, `ai-gateway`. */
  service: string;
  method: Method;
  /** The vendor's base address, as its SDK takes it. */
  baseUrl: string;
  /** The path after the base, with `{names}` for the parts that `path` fills in, escaped. */
  route: string;
  path?: Record<string, string>;
  /** An array is sent as repeated parameters of the same name; nothing is left out. */
  query?: Record<string, QueryValue>;
  /** A secret stays `Redacted` until the request is built. */
  headers?: Record<string, string | Redacted>;
  /** Sent as JSON. A `Redacted` in it becomes its value on the wire, and nowhere else. */
  body?: unknown;
  /** The answer is one JSON value a line: `body` is then an array of them. */
  lines?: boolean;
  /** What this is for, as it ends a sentence: `while listing the keys of project proj_1`. Never a secret. */
  doing: string;
  /** Ends the request early; the call then fails with the signal's own reason. */
  signal?: AbortSignal;
  /** Changes nothing, though its method is not GET: a model is asked. It passes the fence. */
  changesNothing?: true;
}

/** A whole answer, whatever its status. `body` may echo secrets: it is looked at in memory only. */
export interface Exchange {
  status: number;
  header: (name: string) => string | undefined;
  /** The parsed JSON; nothing where the body is empty or, on a refusal, no JSON. */
  body: unknown;
  /** The service's own id of the request. */
  requestId: string | undefined;
  /** How long the service asks us to wait, in milliseconds. */
  retryAfterMs: number | undefined;
  /** `(request 8c2…)` with a leading space for the end of a message, or an empty string. */
  trace: string;
}

export interface SendRequest<T> extends Request {
  /** What a good answer looks like; fields it does not name are dropped. */
  response: z.ZodType<T>;
  /** Makes a result of a refusal that is an answer (`404`: there is none); nothing leaves it a failure. */
  instead?: (refusal: Exchange) => { value: T } | undefined;
  /**
   * Names a refusal in the caller's terms; nothing leaves it to the default mapping. Asked for every answer that is
   * not 2xx, and for a 2xx one off its schema (Cloudflare can refuse with `success: false`).
   */
  failure?: (refusal: Exchange) => RotationFailure | undefined;
}

export interface HttpOptions {
  /** Shared by all requests, so that connections are. */
  dispatcher?: Dispatcher;
  /** For one request from its start to the last byte of its answer. */
  timeoutMs?: number;
  /** `keyturn/<version>`. */
  userAgent: string;
  /**
   * Asked before each request that may change something leaves; what it throws is what the caller gets, and nothing is
   * sent. It may take its time: the request's own begins after it.
   */
  mayWrite?: () => Promise<void> | void;
  onResponse?: (traffic: Traffic) => void;
}

export interface Http {
  /**
   * Makes one request and returns its parsed answer. One attempt, redirects not followed. Fails with `RateLimited`
   * (429, with the wait the service asks for), `Unavailable` (5xx, no or half an answer, a 2xx body that is no JSON:
   * a write then has an unknown outcome, so look before repeating it), `RequestInvalid` (any other refusal) or
   * `ResponseUnexpected` (JSON off its schema, a redirect), or with what `failure` makes of the refusal.
   */
  send<T>(request: SendRequest<T>): Promise<T>;

  /**
   * Makes one request and returns the answer whatever its status, for callers to whom a refusal is the news. Fails
   * with `Unavailable` when no whole answer came: also a 2xx one that is no JSON, and a refusal that is half of it.
   */
  exchange(request: Request): Promise<Exchange>;
}

/** How long one request may take where nobody says otherwise. */
export const defaultHttpTimeoutMs = 20_000;

/** The one way out: timeout, secrets revealed at the last moment, status to failure. Temporal repeats; this does not. */
export function createHttp({
  dispatcher,
  timeoutMs = defaultHttpTimeoutMs,
  userAgent,
  mayWrite,
  onResponse,
}: HttpOptions): Http {
  async function exchange(wanted: Request): Promise<Exchange> {
    const url = urlOf(wanted);
    if (wanted.method !== "GET" && wanted.changesNothing !== true) await mayWrite?.();
    wanted.signal?.throwIfAborted();
    const deadline = AbortSignal.timeout(timeoutMs);
    const startedAt = performance.now();
    const tell = (status: number | undefined): void =>
      onResponse?.({
        service: wanted.service,
        method: wanted.method,
        route: wanted.route,
        status,
        ms: performance.now() - startedAt,
      });

    let status: number;
    let headers: Record<string, string | string[] | undefined>;
    let text: string;
    try {
      const response = await request(url, {
        ...(dispatcher === undefined ? {} : { dispatcher }),
        method: wanted.method,
        headers: headersOf(wanted, userAgent),
        ...(wanted.body === undefined ? {} : { body: JSON.stringify(revealed(wanted.body)) }),
        signal: wanted.signal === undefined ? deadline : AbortSignal.any([wanted.signal, deadline]),
      });
      status = response.statusCode;
      headers = response.headers;
      text = await response.body.text();
    } catch (error) {
      tell(undefined);
      wanted.signal?.throwIfAborted();
      if (codeOf(error) === "UND_ERR_INVALID_ARG") throw unsendable(wanted);
      throw noAnswer(wanted, url, deadline.aborted ? `no answer within ${timeoutMs} ms` : faultOf(error));
    }
    tell(status);

    const header = (name: string): string | undefined => {
      const value = headers[name.toLowerCase()];
      return Array.isArray(value) ? value.join(", ") : value;
    };
    const body = wanted.lines === true ? parsedLines(text) : parsed(text);
    const good = status >= 200 && status < 300;
    // A refusal may be a page of a proxy; one that began as JSON was cut off, and half of it names no reason.
    if (body === notJson && (good || /^\s*[[{]/.test(text))) {
      throw noAnswer(wanted, url, "an answer that is not json");
    }
    const requestId = requestIdOf(header);
    return {
      status,
      header,
      body: body === notJson ? undefined : body,
      requestId,
      retryAfterMs: retryAfterOf(header),
      trace: requestId === undefined ? "" : ` (request ${requestId})`,
    };
  }

  async function send<T>({ response, instead, failure, ...wanted }: SendRequest<T>): Promise<T> {
    const answer = await exchange(wanted);
    const good = answer.status >= 200 && answer.status < 300;
    const read = good ? response.safeParse(answer.body) : undefined;
    if (read?.success) return read.data;
    const answered = instead?.(answer);
    if (answered !== undefined) return answered.value;
    throw failure?.(answer) ?? (read === undefined ? refusalOf(wanted, answer) : offSchema(wanted, answer, read.error));
  }

  return { send, exchange };
}

/** The default mapping. One 401 can mean the admin credential, the new key or propagation: the caller knows which. */
function refusalOf({ service, method, doing }: Request, { status, retryAfterMs, trace }: Exchange): RotationFailure {
  const wait = retryAfterMs === undefined ? {} : { retryAfterMs };
  if (status === 429) {
    const asked = retryAfterMs === undefined ? "" : `, it asks to wait ${Math.ceil(retryAfterMs / 1000)} s`;
    return new RotationFailure("RateLimited", `${service} limits our requests ${doing}${asked}${trace}`, wait);
  }
  // 408: the service gave up on us half way. Like a 5xx, it says nothing about the request itself.
  if (status >= 500 || status === 408) {
    return new RotationFailure(
      "Unavailable",
      `${service} answered ${status} ${doing}; ${nextMove(method)}${trace}`,
      wait,
    );
  }
  if (status >= 400) {
    return new RotationFailure(
      "RequestInvalid",
      `${service} refused the request ${doing} with ${status}; look up the request at ${service} and report it as our bug${trace}`,
    );
  }
  return new RotationFailure(
    "ResponseUnexpected",
    `${service} answered ${status} ${doing} where a result was due; check its base address${trace}`,
  );
}

/** A write without a good answer may have been carried out. */
function nextMove(method: Method): string {
  return method === "GET" ? "try again" : "it may have taken effect: look before trying again";
}

function offSchema({ service, doing }: Request, { trace }: Exchange, error: z.ZodError): RotationFailure {
  // Paths only: a message of the schema may quote what it found.
  const paths = new Set(error.issues.map((issue) => issue.path.join(".") || "its top level"));
  return new RotationFailure(
    "ResponseUnexpected",
    `${service} answered ${doing} with a body we do not understand at ${[...paths].slice(0, 5).join(", ")}; the api may have changed${trace}`,
  );
}

function noAnswer({ service, method, doing }: Request, url: URL, fault: string): RotationFailure {
  const next = nextMove(method);
  return new RotationFailure("Unavailable", `${service} at ${url.host} gave ${fault} ${doing}; ${next}`);
}

/** A header that cannot be sent, most often a credential with a line break at its end. Repeating cannot help. */
function unsendable({ service, doing }: Request): RotationFailure {
  return new RotationFailure(
    "RequestInvalid",
    `the request to ${service} cannot be built ${doing}; look for stray characters in its credential`,
  );
}

/** A short word for what went wrong below HTTP. The error's own text is left out: it can quote what was sent. */
function faultOf(error: unknown): string {
  return `no whole answer (${codeOf(error) ?? "connection lost"})`;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

function urlOf({ baseUrl, route, path = {}, query = {} }: Request): URL {
  const filled = route.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    const value = path[name];
    if (value === undefined || value === "") throw new TypeError(`route ${route} lacks ${name}`);
    return encodeURIComponent(value);
  });
  const url = new URL(baseUrl.replace(/\/+$/, "") + filled);
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) {
      url.searchParams.append(name, one instanceof Redacted ? one.reveal() : String(one));
    }
  }
  return url;
}

function headersOf({ headers = {}, body }: Request, userAgent: string): Record<string, string> {
  const sent: Record<string, string> = { "user-agent": userAgent, accept: "application/json" };
  if (body !== undefined) sent["content-type"] = "application/json";
  for (const [name, value] of Object.entries(headers)) {
    sent[name] = value instanceof Redacted ? value.reveal() : value;
  }
  return sent;
}

/** The value of an `authorization` header, as secret as the token in it. */
export function bearer(token: Redacted): Redacted {
  return new Redacted(`Bearer ${token.reveal()}`);
}

/** A copy of a JSON value in which each secret is its text. */
function revealed(value: unknown): unknown {
  if (value instanceof Redacted) return value.reveal();
  if (Array.isArray(value)) return value.map(revealed);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, revealed(inner)]));
}

const notJson = Symbol("not json");

function parsed(text: string): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return notJson;
  }
}

function parsedLines(text: string): unknown {
  const values = text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map(parsed);
  return values.includes(notJson) ? notJson : values;
}

/**
 * The most telling id first: services behind Cloudflare send `cf-ray` beside their own. Cut to what an id can look
 * like, so that a header cannot put a line of its own into our logs.
 */
function requestIdOf(header: Exchange["header"]): string | undefined {
  const id = header("cf-aig-log-id") ?? header("x-request-id") ?? header("request-id") ?? header("cf-ray") ?? undefined;
  return id === undefined ? undefined : /^[\w.:-]{1,80}/.exec(id)?.[0];
}

/**
 * `retry-after-ms` (OpenAI), `retry-after` in seconds or as a date, else Cloudflare's `Ratelimit: "default";r=0;t=30`
 * (nothing left, 30 s to go): developers.cloudflare.com/fundamentals/api/reference/limits, 2026-04-20.
 */
function retryAfterOf(header: Exchange["header"]): number | undefined {
  const millis = numberOf(header("retry-after-ms"));
  if (millis !== undefined) return Math.ceil(millis);
  const after = header("retry-after");
  const seconds = numberOf(after);
  if (seconds !== undefined) return Math.ceil(seconds * 1000);
  const date = after === undefined ? Number.NaN : Date.parse(after);
  if (!Number.isNaN(date)) return Math.max(0, date - Date.now());
  const waits = [...(header("ratelimit") ?? "").matchAll(/;\s*r=0\s*;\s*t=(\d+)/gi)].map((match) => Number(match[1]));
  return waits.length === 0 ? undefined : Math.max(...waits) * 1000;
}

function numberOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : undefined;
}

/** What a provider's error body says, in the words of domain/answer.ts. */
export interface ErrorFacts {
  code?: string;
  type?: string;
  status?: string;
  reason?: string;
  /** Which of our parameters is wrong. */
  param?: string;
  /** May echo parts of a key. */
  message?: string;
}

/**
 * Reads the error of OpenAI (`error.{code,type,param,message}`), Anthropic (`error.{type,message,details.error_code}`) or
 * Google (`error.{status,message,details[].reason}`, at times wrapped in an array of one); nothing where the body is
 * none of these. Shapes: the vendors' error pages and public issues, seen 2024 to 2026.
 */
export function readErrorFacts(body: unknown): ErrorFacts | undefined {
  const error = fieldOf(Array.isArray(body) ? body[0] : body, "error");
  if (error === null || typeof error !== "object" || Array.isArray(error)) return undefined;
  const details = fieldOf(error, "details");
  const code = textOf(error, "code") ?? textOf(details, "error_code");
  const reason = Array.isArray(details)
    ? details.map((detail) => textOf(detail, "reason")).find((found) => found !== undefined)
    : undefined;
  const type = textOf(error, "type");
  const status = textOf(error, "status");
  const param = textOf(error, "param");
  const message = textOf(error, "message");
  return {
    ...(code === undefined ? {} : { code }),
    ...(type === undefined ? {} : { type }),
    ...(status === undefined ? {} : { status }),
    ...(reason === undefined ? {} : { reason }),
    ...(param === undefined ? {} : { param }),
    ...(message === undefined ? {} : { message }),
  };
}

function fieldOf(value: unknown, name: string): unknown {
  return value !== null && typeof value === "object" ? (value as Record<string, unknown>)[name] : undefined;
}

function textOf(value: unknown, name: string): string | undefined {
  const text = fieldOf(value, name);
  return typeof text === "string" ? text : undefined;
}

/** What a provider answered to a request with a key, for judging it (domain/answer.ts). */
export function answerOf({ status, body, retryAfterMs, requestId }: Exchange): Answer {
  const providerError = status >= 400 ? readErrorFacts(body) : undefined;
  return {
    status,
    cached: false,
    ...(providerError === undefined ? {} : { providerError }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(requestId === undefined ? {} : { requestId }),
  };
}
