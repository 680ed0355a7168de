/**
 * OpenAI: who may call what, and the errors for those who may not.
 * https://developers.openai.com/api/reference, error-codes guide (2026-08..11). An expired key's body is
 * unknown; it gets that of a wrong one here.
 */
import type { Reply, Request, Service } from "./exchange.ts";
import { accepts } from "./key-life.ts";
import type { Key } from "./keys.ts";
import { adminRoutes, ownerAccess } from "./openai-admin.ts";
import type { OpenAiParts, OpenAiProblem } from "./openai-errors.ts";
import { incorrectKey, missingScopes, openAiError } from "./openai-errors.ts";
import { modelCall } from "./openai-models.ts";
import { detailOf } from "./openai-state.ts";
import { usageRoutes } from "./openai-usage.ts";
import { match } from "./routes.ts";

const prefix = "/v1";

export function createOpenAi(parts: OpenAiParts): Service {
  const { state, settings, clock, keys, chance } = parts;
  const routes = [...adminRoutes(parts), ...usageRoutes(parts)];

  const works = (key: Key): boolean =>
    (settings.inactiveKeysWork ||
      ownerAccess(state.serviceAccounts.get(detailOf(key).serviceAccountId)) === "active") &&
    accepts(key, clock.now(), chance, { settleMs: clock.span(settings.settleMs), refusedFor: 0, worksFor: 0.5 });

  async function handle(request: Request): Promise<Reply> {
    const value = request.headers["authorization"]?.replace(/^Bearer /, "");
    if (value === undefined || value === "") {
      return openAiError(401, {
        message:
          "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
      });
    }
    const forAdmins = request.path.startsWith(`${prefix}/organization/`);
    const known = state.adminKeys.get(value);
    const admin = (known?.expiresAt ?? Infinity) > clock.now() ? known : undefined;
    const key = keys.byValue(value);
    if (admin === undefined && (key === undefined || key.provider !== "openai" || !works(key))) {
      const reply = incorrectKey(value);
      return { ...reply, facts: { keyId: key?.id } };
    }
    if (forAdmins) {
      if (admin === undefined) return missingScopes("api.management.read");
      const found = match(routes, prefix, request);
      if (found.kind === "found") {
        const needed = request.method === "GET" ? "read" : "write";
        if (!admin.scopes.includes(needed)) return missingScopes(`api.management.${needed}`);
        admin.lastUsedAt = clock.now();
        return found.route.handle(found.call);
      }
      return found.kind === "no path"
        ? openAiError(404, {
            message: `Invalid URL (${request.method} ${request.path.split("?")[0]})`,
          })
        : openAiError(405, { message: `Not allowed to ${request.method} on this URL.` });
    }
    if (key === undefined) return missingScopes("api.model.read");
    const reply = await modelCall(parts, request, key);
    keys.used(key);
    return reply;
  }

  return {
    name: "openai",
    handle,
    errorBody: (status) => ({ error: problemFor(status) }),
    recorded: (request) => request.viaGateway !== true,
  };
}

function problemFor(status: number): Required<OpenAiProblem> {
  const common = { param: null };
  switch (status) {
    case 401:
      return {
        message: "Incorrect API key provided: sk-svcac***.",
        type: "invalid_request_error",
        code: "invalid_api_key",
        ...common,
      };
    case 403:
      return {
        message: "Country, region, or territory not supported",
        type: "request_forbidden",
        code: "unsupported_country_region_territory",
        ...common,
      };
    case 404:
      return { message: "Not found", type: "invalid_request_error", code: null, ...common };
    case 429:
      return {
        message: "Rate limit reached for requests",
        type: "requests",
        code: "rate_limit_exceeded",
        ...common,
      };
    default:
      return {
        message: "The server had an error while processing your request. Sorry about that!",
        type: "server_error",
        code: status === 503 ? "server_is_overloaded" : null,
        ...common,
      };
  }
}

/** The body of an account without money, for a fault of status 429. */
export const insufficientQuota = {
  error: {
    message:
      "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
    type: "insufficient_quota",
    param: null,
    code: "insufficient_quota",
  },
};
