/**
 * The dialect `guide`: calls that a guide names and Cloudflare's public API does not have, for proxies built
 * to it. They act on the same secrets, gateways and edges. A secret is named by its id or by its name in the store.
 */
import type { CloudflareParts, Needs } from "./cloudflare-envelope.ts";
import { failure, success } from "./cloudflare-envelope.ts";
import type { LogRow, Secret } from "./cloudflare-state.ts";
import { preview, putConfig, putSecret } from "./cloudflare-state.ts";
import { rfc3339 } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { asObject, jsonBody } from "./exchange.ts";
import { hexId } from "./random.ts";
import type { Call, Route } from "./routes.ts";
import { route } from "./routes.ts";

export function guideRoutes({ state, settings, clock, edges, lies }: CloudflareParts): Route<Needs>[] {
  const base = "/accounts/:account/ai-gateway/secrets/:secret";

  const noSecret = (): Reply => failure(404, { code: 1001, message: "secret_not_found" });
  const shown = (secret: Secret): Record<string, unknown> => ({
    id: secret.id,
    name: secret.name,
    value: preview(secret.value),
    status: clock.now() < secret.activeAt ? "pending" : "active",
    created_at: rfc3339(secret.createdAt),
    modified_at: rfc3339(secret.modifiedAt),
  });
  const withSecret =
    (work: (secret: Secret, call: Call) => Reply) =>
    (call: Call): Reply => {
      const wanted = call.params["secret"] ?? "";
      const secret = state.secrets.get(wanted) ?? state.secrets.list().find(({ name }) => name === wanted);
      return secret === undefined ? noSecret() : work(secret, call);
    };

  function write(secret: Secret, { request }: Call): Reply {
    const { value } = asObject(jsonBody(request));
    if (typeof value !== "string" || value === "") {
      return failure(400, { code: 1001, message: "secret_value_empty" });
    }
    const now = clock.now();
    const changed = { ...secret, value, modifiedAt: now, activeAt: now + clock.span(settings.activationMs) };
    putSecret(state, changed, now);
    for (const config of state.configs.list()) {
      if (config.secretId !== secret.id || !settings.patchRefreshesPreview) continue;
      putConfig(state, { ...config, preview: preview(value), modifiedAt: now }, now);
    }
    return success(shown(changed));
  }

  /** Makes the isolates of the named gateways drop the keys they cached, after a moment. */
  function purge({ request }: Call): Reply {
    const { files } = asObject(jsonBody(request));
    const gateways = (Array.isArray(files) ? files : []).map((file) => {
      const id = /([^/]+)\/secrets\/?$/.exec(String(file))?.[1];
      return id === undefined ? undefined : state.gateways.get(id)?.id;
    });
    if (gateways.length === 0 || gateways.includes(undefined)) {
      return failure(400, { code: 1012, message: "files must be a list of {gateway}/secrets" });
    }
    clock.later(clock.span(settings.purgeMs), () => {
      for (const gateway of gateways) if (gateway !== undefined) edges.drop(gateway);
    });
    return success({ id: hexId() });
  }

  return [
    route(
      "GET",
      base,
      ["secrets read"],
      withSecret(({ id }) => {
        const secret = lies.read("secrets", state.secrets, id, ({ name }) => [id, name]);
        return secret === undefined ? noSecret() : success(shown(secret));
      }),
    ),
    route("PUT", base, ["secrets write"], withSecret(write)),
    route("POST", "/cache/purge", ["secrets write", "gateway write"], purge),
  ];
}

/** A provider under the guide's name, and back. */
export const guideProvider = (slug: string): string => (slug === "google-ai-studio" ? "google" : slug);
export const providerOfGuide = (name: unknown): unknown => (name === "google" ? "google-ai-studio" : name);

/** One row of the logs, on one line, under the guide's names. */
export const guideLine = (row: LogRow): string =>
  JSON.stringify({
    id: row.id,
    timestamp: rfc3339(row.at),
    created_at: rfc3339(row.at),
    provider: guideProvider(row.provider),
    model: row.model,
    path: row.path,
    status: row.status,
    success: row.status < 400,
    cached: row.cached,
    duration_ms: row.durationMs,
    request_tokens: row.tokensIn,
    response_tokens: row.tokensOut,
    total_tokens: row.tokensIn + row.tokensOut,
    cost_usd: row.costUsd,
  });
