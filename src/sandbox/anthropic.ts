/**
 * Anthropic: who may call what, and the errors for those who may not. Any key comes as `x-api-key` or, as
 * its SDK 1.12.0 sends them all, as `Authorization: Bearer`.
 * https://platform.claude.com/docs/en/api/errors (2026-10). What an admin key gets on a model call, and a
 * model key on the Admin API, is a guess.
 */
import { anthropicAdminRoutes } from "./anthropic-admin.ts";
import type { AnthropicParts } from "./anthropic-errors.ts";
import { anthropicError, anthropicProblem, newRequestId } from "./anthropic-errors.ts";
import { anthropicModelCall } from "./anthropic-models.ts";
import { anthropicDetail } from "./anthropic-state.ts";
import { anthropicUsageRoutes } from "./anthropic-usage.ts";
import type { Reply, Request, Service } from "./exchange.ts";
import { accepts } from "./key-life.ts";
import type { Key } from "./keys.ts";
import { match } from "./routes.ts";

const prefix = "/v1";
const versions = ["2023-06-01", "2026-10-21"];

/** The key of a request, wherever it is. */
export const anthropicKeyOf = (headers: Request["headers"]): string | undefined =>
  headers["x-api-key"] ?? headers["authorization"]?.replace(/^Bearer /, "");

export function createAnthropic(parts: AnthropicParts): Service {
  const { state, settings, clock, keys, chance } = parts;
  const routes = [...anthropicAdminRoutes(parts), ...anthropicUsageRoutes(parts)];
  const works = (key: Key): boolean =>
    accepts(key, clock.now(), chance, {
      settleMs: clock.span(settings.anthropicSettleMs),
      refusedFor: 0,
      worksFor: 0.5,
    });

  async function answer(request: Request): Promise<Reply> {
    const value = anthropicKeyOf(request.headers);
    if (value === undefined || value === "") return anthropicError(401, "x-api-key header is required");
    const admin = state.adminKeys.get(value);
    const key = keys.byValue(value);
    if (admin === undefined && (key === undefined || key.provider !== "anthropic" || !works(key))) {
      return { ...anthropicError(401, "invalid x-api-key"), facts: { keyId: key?.id } };
    }
    const version = request.headers["anthropic-version"];
    if (version === undefined) return anthropicError(400, "anthropic-version: header is required");
    if (!versions.includes(version)) {
      return anthropicError(400, `anthropic-version: "${version}" is not a valid version`);
    }
    if (request.path.startsWith(`${prefix}/organizations/`)) {
      const needed = request.method === "GET" ? "read" : "write";
      if (admin === undefined || !admin.scopes.includes(needed)) {
        return anthropicError(403, "Your API key does not have permission to use the specified resource.");
      }
      const found = match(routes, prefix, request);
      if (found.kind === "found") return found.route.handle(found.call);
      return found.kind === "no path" ? anthropicError(404, "Not Found") : anthropicError(405, "Method Not Allowed");
    }
    if (key === undefined) {
      return anthropicError(403, "Admin API keys cannot be used for this endpoint.");
    }
    if (anthropicDetail(key).workspaceId === undefined && request.headers["anthropic-workspace-id"] === undefined) {
      const message = "anthropic-workspace-id: header is required for API keys that are not scoped to a workspace";
      return { ...anthropicError(400, message), facts: { keyId: key.id } };
    }
    const reply = await anthropicModelCall(parts, request, key);
    keys.used(key);
    return reply;
  }

  return {
    name: "anthropic",
    async handle(request) {
      const reply = await answer(request);
      reply.headers["request-id"] ??= newRequestId();
      return reply;
    },
    errorBody: (status) => anthropicProblem(status, problems[status] ?? "Internal server error"),
    recorded: (request) => request.viaGateway !== true,
  };
}

const problems: Record<number, string> = {
  401: "invalid x-api-key",
  402: "Your credit balance is too low to access the Anthropic API.",
  403: "Your API key does not have permission to use the specified resource.",
  404: "Not Found",
  409: "The resource is being changed by another request.",
  429: "This request would exceed your organization's rate limit.",
  504: "The request timed out.",
  529: "Overloaded",
};
