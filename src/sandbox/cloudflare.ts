/**
 * Cloudflare's control plane: the envelope, tokens, the account-wide rate limit, and the table of calls.
 * Shapes: https://developers.cloudflare.com/api; limits: fundamentals/api/reference/limits (2026-04-20).
 */
import { aiGatewayRoutes } from "./ai-gateway.ts";
import type { CloudflareParts, Needs } from "./cloudflare-envelope.ts";
import { bearer, failure, success } from "./cloudflare-envelope.ts";
import type { Token } from "./cloudflare-state.ts";
import { allows } from "./cloudflare-state.ts";
import type { Clock } from "./clock.ts";
import type { Reply, Request, Service } from "./exchange.ts";
import { guideRoutes } from "./guide.ts";
import type { Settings } from "./options.ts";
import type { Route } from "./routes.ts";
import { match, route } from "./routes.ts";
import { secretsStoreRoutes } from "./secrets-store.ts";

const prefix = "/client/v4";

export function createCloudflare(parts: CloudflareParts): Service {
  const { state, settings, clock } = parts;
  const routes: Route<Needs>[] = [
    route("GET", "/user/tokens/verify", [], ({ request }) => verified(request)),
    route("GET", "/accounts/:account/tokens/verify", [], ({ request }) => verified(request)),
    ...secretsStoreRoutes(parts),
    ...aiGatewayRoutes(parts),
    ...guideRoutes(parts),
  ];
  const limiter = createLimiter(settings, clock);

  function verified(request: Request): Reply {
    return success(
      { id: tokenId(tokenOf(request)), status: "active" },
      { messages: [{ code: 10000, message: "This API Token is valid and active" }] },
    );
  }

  function tokenOf(request: Request): Token | undefined {
    return state.tokens.get(bearer(request.headers["authorization"]) ?? "");
  }

  function answer(request: Request): Reply | Promise<Reply> {
    const found = match(routes, prefix, request);
    const token = tokenOf(request);
    if (token === undefined) {
      return failure(401, { code: 10000, message: "Authentication error" });
    }
    if (found.kind !== "found") return notRouted(request, found.kind);
    const { route: target, call } = found;
    const account = call.params["account"];
    if (account !== undefined && !/^[0-9a-f]{32}$/.test(account)) {
      return failure(404, {
        code: 7003,
        message: "Could not route to /accounts, perhaps your object identifier is invalid?",
      });
    }
    const mayAccount = account === undefined || account === state.accountId;
    const may = target.extra.length === 0 || target.extra.some((permission) => allows(token, permission));
    if (!mayAccount || !may) {
      return failure(403, { code: 10000, message: "Authentication error" });
    }
    return target.handle(call);
  }

  return {
    name: "cloudflare",
    async handle(request) {
      const limit = limiter();
      if (limit.blocked) {
        return failure(
          429,
          { code: 971, message: "Please wait and consider throttling your request speed" },
          limit.headers,
        );
      }
      const reply = await answer(request);
      Object.assign(reply.headers, limit.headers);
      return reply;
    },
    errorBody: (status) => ({
      success: false,
      errors: [{ code: status === 429 ? 971 : 10000 + status, message: `error ${status}` }],
      messages: [],
      result: null,
    }),
    recorded: () => true,
  };
}

const notRouted = (request: Request, why: "no path" | "no method"): Reply =>
  why === "no path"
    ? failure(404, {
        code: 7003,
        message: `Could not route to ${request.path.split("?")[0]}, perhaps your object identifier is invalid?`,
      })
    : failure(405, {
        code: 7001,
        message: `Method ${request.method} not available for that URI.`,
      });

const tokenId = (token: Token | undefined): string =>
  Buffer.from(token?.name ?? "")
    .toString("hex")
    .padEnd(32, "0")
    .slice(0, 32);

interface Limit {
  blocked: boolean;
  headers: Record<string, string>;
}

/** Counts calls in a fixed window; one too many blocks the account for a window more. */
function createLimiter(settings: Settings, clock: Clock): () => Limit {
  let windowStart = 0;
  let calls = 0;
  let blockedUntil = 0;
  return () => {
    const now = clock.now();
    const windowMs = clock.span(settings.rateLimit.windowMs);
    if (now < blockedUntil) return over(blockedUntil - now);
    if (now - windowStart >= windowMs) {
      windowStart = now;
      calls = 0;
    }
    calls++;
    if (calls > settings.rateLimit.calls) {
      blockedUntil = now + windowMs;
      windowStart = blockedUntil;
      calls = 0;
      return over(windowMs);
    }
    const resetSeconds = Math.ceil((windowStart + windowMs - now) / 1_000);
    return {
      blocked: false,
      headers: headers(settings.rateLimit.calls - calls, resetSeconds),
    };
  };

  function over(forMs: number): Limit {
    const waitSeconds = Math.max(1, Math.ceil(forMs / 1_000));
    return {
      blocked: true,
      headers: { ...headers(0, waitSeconds), "retry-after": String(waitSeconds) },
    };
  }
  function headers(left: number, resetSeconds: number): Record<string, string> {
    const windowSeconds = clock.span(settings.rateLimit.windowMs) / 1_000;
    return {
      ratelimit: `"default";r=${left};t=${resetSeconds}`,
      "ratelimit-policy": `"default";q=${settings.rateLimit.calls};w=${windowSeconds}`,
    };
  }
}
