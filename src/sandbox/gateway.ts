/**
 * AI Gateway's data plane: `/v1/{account}/{gateway}/{provider}/…` and `…/compat/chat/completions`.
 * Credential precedence: https://developers.cloudflare.com/ai-gateway/features/unified-billing; bodies of
 * the gateway's own errors as captured by others from the live service (Cloudflare publishes no table).
 */
import { bearer } from "./cloudflare-envelope.ts";
import type { CloudflareState, Gateway, LogRow } from "./cloudflare-state.ts";
import { allows, bindingName } from "./cloudflare-state.ts";
import type { Clock } from "./clock.ts";
import type { Edge, Edges } from "./edges.ts";
import type { Exchange, Outcome, Reply, Request, Service } from "./exchange.ts";
import { asObject, json } from "./exchange.ts";
import type { Keys } from "./keys.ts";
import type { Settings } from "./options.ts";
import { wordId } from "./random.ts";
import type { GatewayUse, Recorder } from "./record.ts";
import { maskedPath } from "./record.ts";

/** A provider as the gateway reaches it. */
export interface Upstream {
  /** The slug in the gateway's paths and secret names. */
  slug: string;
  service: Service;
  /** Sets the stored key on the request. */
  authorize(headers: Record<string, string | undefined>, key: string): void;
  /** The provider's path for what follows the slug. */
  path(rest: string): string;
  /** What a request brings as a credential of its own, be it a placeholder; undefined for none. */
  keyOf(headers: Record<string, string | undefined>, rest: string): string | undefined;
  /** Turns an OpenAI-shaped chat call into the provider's own. */
  compat(body: Record<string, unknown>): {
    rest: string;
    body: Record<string, unknown>;
    /** Added where the request lacks them. */
    headers?: Record<string, string>;
  };
  /** Turns the provider's answer to such a call back; an error passes as it is. */
  fromCompat(reply: Reply): Reply;
  /** A model's answer that no key of ours paid for. */
  paidByCloudflare(request: Request): Reply;
}

export interface GatewayParts {
  state: CloudflareState;
  settings: Settings;
  clock: Clock;
  edges: Edges;
  exchange: Exchange;
  keys: Keys;
  record: Recorder;
  upstreams: readonly Upstream[];
}

interface Target {
  accountId: string;
  gatewayId: string;
  slug: string;
  rest: string;
}

const keptCached = 2_000;
const keptLogs = 100_000;
const passedOn = /^(?:content-type|accept|user-agent|openai-|anthropic-|authorization|x-api-key|x-goog-)/;

/** One of the gateway's own errors. */
export const gatewayError = (status: number, code: number, message: string): Reply =>
  json(status, {
    success: false,
    result: [],
    messages: [],
    error: [{ code, message }],
    name: "AiGatewayError",
    httpCode: status,
    internalCode: code,
    message,
  });

export function createGateway(parts: GatewayParts): Service {
  const { state, settings, clock, edges, exchange, keys, record } = parts;
  const upstreams = new Map(parts.upstreams.map((upstream) => [upstream.slug, upstream]));
  const uses = new WeakMap<Request, GatewayUse>();
  const cache = new Map<string, { reply: Reply; until: number }>();
  const logPrefix = `01${wordId(10).toUpperCase()}`;
  let lastLog = 0;

  function useOf(request: Request): GatewayUse {
    let use = uses.get(request);
    if (use === undefined) {
      const edge = edges.pick(request.connection, request.headers["x-sandbox-edge"]);
      const alias = request.headers["cf-aig-byok-alias"] ?? "default";
      use = {
        edge: edge.name,
        gateway: "",
        alias,
        keyId: undefined,
        probe: alias.startsWith("kt-") || isProbe(request.headers["cf-aig-metadata"]),
        status: undefined,
        body: "",
        source: "none",
      };
      uses.set(request, use);
    }
    return use;
  }

  async function handle(request: Request): Promise<Reply> {
    const started = clock.now();
    const edge = edges.pick(request.connection, request.headers["x-sandbox-edge"]);
    const use = useOf(request);
    const target = targetOf(request.path);
    const reply = await route(request, edge, target, use);
    const logId = `${logPrefix}${(++lastLog).toString(36).toUpperCase().padStart(14, "0")}`;
    reply.headers["x-sandbox-edge"] = edge.name;
    reply.headers["cf-aig-log-id"] = logId;
    reply.headers["cf-aig-request-id"] = logId;
    reply.headers["cf-aig-event-id"] = logId;
    reply.headers["cf-aig-step"] = "0";
    const refused = reply.status === 401 && use.source === "none";
    if (use.gateway !== "" && !refused) log(logId, request, reply, target, edge, use, started);
    return reply;
  }

  async function route(request: Request, edge: Edge, target: Target | undefined, use: GatewayUse): Promise<Reply> {
    const gateway =
      target === undefined || target.accountId !== state.accountId ? undefined : state.gateways.get(target.gatewayId);
    // The code and text for an unknown gateway are general knowledge, not in any reference.
    if (target === undefined || gateway === undefined) {
      return gatewayError(400, 2001, "Please configure AI Gateway in the Cloudflare dashboard");
    }
    use.gateway = gateway.id;
    if (gateway.fields["authentication"] === true && !mayRun(request)) {
      return gatewayError(401, 2009, "Unauthorized");
    }
    if (target.slug !== "compat") {
      const upstream = upstreams.get(target.slug);
      if (upstream === undefined) return gatewayError(400, 2005, "Invalid provider");
      return throughCache(request, gateway, edge, upstream, target.rest, request.body, use, true);
    }
    if (target.rest.split("?")[0] !== "chat/completions") {
      return gatewayError(404, 7003, "Not found");
    }
    const body = asObject(parsed(request.body));
    const [slug = "", ...model] = String(body["model"] ?? "").split("/");
    const upstream = upstreams.get(slug);
    if (upstream === undefined || model.length === 0) {
      return gatewayError(400, 2005, "Invalid provider or model");
    }
    const call = upstream.compat({ ...body, model: model.join("/") });
    const reply = await throughCache(
      call.headers === undefined ? request : { ...request, headers: { ...call.headers, ...request.headers } },
      gateway,
      edge,
      upstream,
      call.rest,
      JSON.stringify(call.body),
      use,
      settings.compatHonoursAlias,
    );
    return use.source === "none" ? reply : upstream.fromCompat(reply);
  }

  function mayRun(request: Request): boolean {
    const value = bearer(request.headers["cf-aig-authorization"]);
    const token = value === undefined ? undefined : state.tokens.get(value);
    return token !== undefined && allows(token, "gateway run");
  }

  async function throughCache(
    request: Request,
    gateway: Gateway,
    edge: Edge,
    upstream: Upstream,
    rest: string,
    body: string,
    use: GatewayUse,
    honoursAlias: boolean,
  ): Promise<Reply> {
    const { headers } = request;
    const ownKey = headers["cf-aig-cache-key"];
    const ttlSeconds = Number(
      headers["cf-aig-cache-ttl"] ??
        headers["cf-cache-ttl"] ??
        (Number(gateway.fields["cache_ttl"] ?? 0) || (ownKey === undefined ? 0 : 300)),
    );
    const skip = headers["cf-aig-skip-cache"] === "true" || headers["cf-skip-cache"] === "true";
    const cacheName = ttlSeconds > 0 ? `${gateway.id}|${ownKey ?? `${upstream.slug}|${rest}|${body}`}` : undefined;
    if (cacheName !== undefined && !skip) {
      const cached = cache.get(cacheName);
      if (cached !== undefined && clock.now() < cached.until) {
        use.source = "cache";
        return {
          ...cached.reply,
          headers: { ...cached.reply.headers, "cf-aig-cache-status": "HIT" },
          facts: { ...cached.reply.facts, keyId: undefined, costUsd: 0 },
        };
      }
    }
    const reply = await withCredential(request, gateway, edge, upstream, rest, body, use, honoursAlias);
    reply.headers["cf-aig-cache-status"] = "MISS";
    if (cacheName !== undefined && reply.status < 400) {
      if (cache.size >= keptCached) cache.clear();
      cache.set(cacheName, {
        reply: { ...reply, headers: { ...reply.headers } },
        until: clock.now() + clock.span(ttlSeconds * 1_000),
      });
    }
    return reply;
  }

  async function withCredential(
    request: Request,
    gateway: Gateway,
    edge: Edge,
    upstream: Upstream,
    rest: string,
    body: string,
    use: GatewayUse,
    honoursAlias: boolean,
  ): Promise<Reply> {
    const headers = passedHeaders(request.headers);
    const own = upstream.keyOf(headers, rest);
    if (own !== undefined) {
      use.source = "request";
      use.keyId = keys.byValue(own)?.id;
      return callUpstream(request, gateway, upstream, rest, headers, body);
    }
    const named = honoursAlias ? request.headers["cf-aig-byok-alias"] : undefined;
    const alias = named ?? "default";
    const binding = edges.read(edge, bindingName(gateway.id, upstream.slug, alias));
    if (binding.kind === "key") {
      use.source = "key";
      use.keyId = keys.byValue(binding.value)?.id;
      upstream.authorize(headers, binding.value);
      return callUpstream(request, gateway, upstream, rest, headers, body);
    }
    if (binding.kind === "unavailable") {
      return gatewayError(400, 2005, "Configured BYOK credentials are unavailable");
    }
    if (named !== undefined && named !== "default") {
      const aliases = state.configs
        .list()
        .filter((config) => config.gatewayId === gateway.id && config.slug === upstream.slug)
        .map((config) => config.alias);
      return gatewayError(
        400,
        2040,
        `Provider '${upstream.slug}' has no BYOK credential named '${named}'. Configured aliases: ${aliases.join(", ")}`,
      );
    }
    const noWholesale = gateway.fields["byok_only"] === true || request.headers["cf-aig-no-wholesale"] === "true";
    // The code of this refusal is unknown.
    if (noWholesale) return gatewayError(400, 2005, "No credential: this gateway or request is BYOK only");
    if (!settings.unifiedBilling) {
      return gatewayError(402, 2021, "Insufficient Unified Billing credits");
    }
    use.source = "cloudflare";
    return upstream.paidByCloudflare({ ...request, path: upstream.path(rest), body });
  }

  async function callUpstream(
    request: Request,
    gateway: Gateway,
    upstream: Upstream,
    rest: string,
    headers: Record<string, string | undefined>,
    body: string,
  ): Promise<Reply> {
    const attempts = Number(request.headers["cf-aig-max-attempts"] ?? gateway.fields["retry_max_attempts"] ?? 1);
    for (let attempt = 1; ; attempt++) {
      const call: Request = {
        method: request.method,
        path: upstream.path(rest),
        headers,
        body,
        connection: -1,
        viaGateway: true,
      };
      const outcome = await exchange.run(upstream.service, call);
      await exchange.answered(upstream.service, call);
      const reply = await replyOf(outcome, request);
      if (reply.status < 500 || attempt >= attempts) return reply;
    }
  }

  /** What the gateway makes of an upstream call: lost connections become its own errors. */
  async function replyOf(outcome: Outcome, request: Request): Promise<Reply> {
    if (outcome.kind === "reply") {
      return { ...outcome.reply, headers: { ...outcome.reply.headers } };
    }
    if (outcome.kind === "hang") {
      await clock.sleep(Number(request.headers["cf-aig-request-timeout"] ?? 60_000));
      return gatewayError(504, 2005, "Provider request timed out");
    }
    return gatewayError(502, 2005, "Failed to get response from provider");
  }

  function log(
    id: string,
    request: Request,
    reply: Reply,
    target: Target | undefined,
    edge: Edge,
    use: GatewayUse,
    started: number,
  ): void {
    const gateway = target === undefined ? undefined : state.gateways.get(target.gatewayId);
    if (target === undefined || gateway === undefined) return;
    const wanted = request.headers["cf-aig-collect-log"] ?? String(gateway.fields["collect_logs"]);
    if (wanted === "false") return;
    let rows = state.logs.get(gateway.id);
    if (rows === undefined) state.logs.set(gateway.id, (rows = []));
    const row: LogRow = {
      id,
      at: started,
      provider: target.slug === "compat" ? compatProvider(request.body) : target.slug,
      model: reply.facts?.model ?? "",
      path: maskedPath(target.rest),
      durationMs: clock.now() - started,
      status: reply.status,
      cached: use.source === "cache",
      tokensIn: reply.facts?.tokensIn ?? 0,
      tokensOut: reply.facts?.tokensOut ?? 0,
      costUsd: reply.facts?.costUsd ?? 0,
      metadata: request.headers["cf-aig-metadata"],
      userAgent: request.headers["user-agent"],
      byok: use.source === "key",
      wholesale: use.source === "cloudflare",
      location: edge.name.toUpperCase(),
      step: 0,
    };
    rows.push(row);
    if (rows.length > keptLogs) rows.splice(0, keptLogs / 10);
  }

  return {
    name: "gateway",
    handle,
    errorBody: (status) => JSON.parse(gatewayError(status, status === 401 ? 2009 : 2005, "error").body) as unknown,
    recorded: () => false,
    settled(request, reply) {
      const use = useOf(request);
      use.status = reply?.status;
      if (reply !== undefined && reply.status >= 400) use.body = reply.body;
      if (use.gateway === "") use.gateway = targetOf(request.path)?.gatewayId ?? "";
      record.gatewayUse(use);
    },
  };
}

/** Splits `/v1/{account}/{gateway}/{provider}/{rest}`. */
function targetOf(path: string): Target | undefined {
  const [empty, version, accountId = "", gatewayId = "", slug = "", ...rest] = path.split("/");
  if (empty !== "" || version !== "v1" || slug === "" || rest.length === 0) return undefined;
  return { accountId, gatewayId, slug, rest: rest.join("/") };
}

function isProbe(metadata: string | undefined): boolean {
  return metadata !== undefined && metadata.includes('"keyturn"') && "keyturn" in asObject(parsed(metadata));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

const compatProvider = (body: string): string => String(asObject(parsed(body))["model"] ?? "").split("/")[0] ?? "";

function passedHeaders(headers: Record<string, string | undefined>): Record<string, string | undefined> {
  const passed: Record<string, string | undefined> = {};
  for (const name in headers) if (passedOn.test(name)) passed[name] = headers[name];
  return passed;
}
