/**
 * AI Gateway's control plane: gateways, provider configs (the BYOK link), logs.
 * https://developers.cloudflare.com/api/resources/ai_gateway (SDK 7.3.0, 2026-10). PUT and DELETE of a
 * provider config are in the published schema only (2026-07-27).
 */
import type { CloudflareParts, ErrorItem, Needs } from "./cloudflare-envelope.ts";
import { failure, page, success } from "./cloudflare-envelope.ts";
import type { Gateway, ProviderConfig, Secret } from "./cloudflare-state.ts";
import { bindingName, preview, putConfig, putSecret, removeConfig, secretKey, secretName } from "./cloudflare-state.ts";
import { rfc3339 } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { asObject, jsonBody } from "./exchange.ts";
import { gatewayLogRoutes } from "./gateway-logs.ts";
import { hexId } from "./random.ts";
import type { Call, Route } from "./routes.ts";
import { route } from "./routes.ts";

const read: Needs = ["gateway read"];
const write: Needs = ["gateway write"];
const secretsWrite: Needs = ["secrets write"];

/** Settable fields and what they are where a PUT leaves them out. */
const defaults: Record<string, unknown> = {
  cache_invalidate_on_update: false,
  cache_ttl: 0,
  collect_logs: true,
  rate_limiting_interval: 0,
  rate_limiting_limit: 0,
  rate_limiting_technique: "fixed",
  authentication: false,
  byok_only: false,
  store_id: null,
  log_management: 100_000,
  log_management_strategy: "DELETE_OLDEST",
  logpush: false,
  logpush_public_key: null,
  retry_max_attempts: null,
  retry_delay: null,
  retry_backoff: null,
  zdr: false,
  workers_ai_billing_mode: "postpaid",
};
/** Settable fields that are absent where they were not given. */
const optional = ["dlp", "guardrails", "otel", "spend_limits", "stripe", "log_classification"];
const required = [
  "cache_invalidate_on_update",
  "cache_ttl",
  "collect_logs",
  "rate_limiting_interval",
  "rate_limiting_limit",
];
const booleans = ["cache_invalidate_on_update", "collect_logs", "authentication", "byok_only"];

export const newGateway = (id: string, given: Record<string, unknown>, at: number): Gateway => {
  const fields: Record<string, unknown> = {};
  for (const [name, otherwise] of Object.entries(defaults)) fields[name] = given[name] ?? otherwise;
  for (const name of optional) if (given[name] !== undefined) fields[name] = given[name];
  return { id, createdAt: at, modifiedAt: at, fields };
};

export const shownGateway = (gateway: Gateway): Record<string, unknown> => ({
  id: gateway.id,
  created_at: rfc3339(gateway.createdAt),
  modified_at: rfc3339(gateway.modifiedAt),
  is_default: gateway.id === "default",
  ...gateway.fields,
});

const shownConfig = (config: ProviderConfig): Record<string, unknown> => ({
  id: config.id,
  gateway_id: config.gatewayId,
  provider_slug: config.slug,
  alias: config.alias,
  // Seen live as 0 and 1 where the schema says boolean.
  default_config: config.defaultConfig ? 1 : 0,
  secret_id: config.secretId,
  secret_preview: config.preview,
  modified_at: rfc3339(config.modifiedAt),
  ...(config.rateLimit === undefined ? {} : { rate_limit: config.rateLimit }),
  ...(config.rateLimitPeriod === undefined ? {} : { rate_limit_period: config.rateLimitPeriod }),
});

const invalid = (message: string, ...path: string[]): Reply =>
  failure(400, { code: 7001, message, ...(path.length === 0 ? {} : { path }) });
const missing = (what: string): Reply => failure(404, { code: 7002, message: `${what} not found` });

export function aiGatewayRoutes(parts: CloudflareParts): Route<Needs>[] {
  const { state, settings, clock, gatewayOrigin, lies } = parts;
  const base = "/accounts/:account/ai-gateway/gateways";
  const lagged = (): number => clock.now() - clock.span(settings.listLagMs);

  const withGateway =
    (work: (gateway: Gateway, call: Call) => Reply) =>
    (call: Call): Reply => {
      const gateway = state.gateways.get(call.params["gateway"] ?? "");
      return gateway === undefined ? missing("gateway") : work(gateway, call);
    };
  const withConfig = (work: (config: ProviderConfig, call: Call) => Reply) =>
    withGateway((gateway, call) => {
      const config = state.configs.get(call.params["config"] ?? "");
      return config === undefined || config.gatewayId !== gateway.id ? missing("provider config") : work(config, call);
    });

  function createGateway({ request }: Call): Reply {
    const given = asObject(jsonBody(request));
    const id = given["id"];
    const errors = problemsOf(given);
    if (typeof id !== "string" || id.length > 64 || !/^[a-z0-9_]+(?:-[a-z0-9_]+)*$/.test(id)) {
      errors.push({ code: 7001, message: "Invalid gateway id", path: ["body", "id"] });
    }
    if (errors.length > 0) return failure(400, errors);
    if (state.gateways.get(String(id)) !== undefined) return invalid("gateway already exists");
    if (state.gateways.list().length >= settings.gatewayQuota) return invalid("too many gateways");
    const gateway = newGateway(String(id), given, clock.now());
    state.gateways.set(gateway.id, gateway, clock.now());
    return success(shownGateway(gateway));
  }

  function replaceGateway(gateway: Gateway, { request }: Call): Reply {
    const given = asObject(jsonBody(request));
    const errors = problemsOf(given);
    if (errors.length > 0) return failure(400, errors);
    const replaced = {
      ...newGateway(gateway.id, given, clock.now()),
      createdAt: gateway.createdAt,
    };
    state.gateways.set(gateway.id, replaced, clock.now());
    return success(shownGateway(replaced));
  }

  function removeGateway(gateway: Gateway): Reply {
    for (const config of state.configs.list()) {
      if (config.gatewayId === gateway.id) removeConfig(state, config, clock.now());
    }
    state.gateways.set(gateway.id, undefined, clock.now());
    state.logs.delete(gateway.id);
    return success(shownGateway(gateway));
  }

  function createConfig(gateway: Gateway, { request }: Call): Reply {
    const given = asObject(jsonBody(request));
    const { alias, provider_slug: slug, default_config: isDefault, secret: value } = given;
    if (typeof alias !== "string" || alias === "") return invalid("Required", "body", "alias");
    if (typeof slug !== "string" || slug === "") {
      return invalid("Required", "body", "provider_slug");
    }
    if (typeof isDefault !== "boolean" && isDefault !== 0 && isDefault !== 1) {
      return invalid("Required", "body", "default_config");
    }
    if (state.configsByAlias.get(bindingName(gateway.id, slug, alias)) !== undefined) {
      return invalid(`Provider config '${slug}' with alias '${alias}' already exists`);
    }
    const storeId = gateway.fields["store_id"];
    if (typeof storeId !== "string") return invalid("gateway has no store", "body", "secret");
    const now = clock.now();
    const name = secretName(gateway.id, slug, alias);
    let secret: Secret | undefined;
    if (typeof value === "string" && value !== "") {
      if (state.secretsByName.get(secretKey(storeId, name)) !== undefined) {
        return invalid(`Secret '${name}' already exists`);
      }
      if (state.secrets.list().length >= settings.secretQuota) {
        return invalid("maximum_secrets_exceeded");
      }
      secret = {
        id: hexId(),
        storeId,
        name,
        value,
        scopes: ["ai_gateway"],
        comment: null,
        createdAt: now,
        modifiedAt: now,
        activeAt: now + clock.span(settings.activationMs),
      };
      putSecret(state, secret, now);
    } else {
      // Sees the store as late as lists do: right after its creation a secret "was not found".
      secret =
        state.secretsByName.at(secretKey(storeId, name), lagged()) === undefined
          ? undefined
          : state.secretsByName.get(secretKey(storeId, name));
      if (secret === undefined) return invalid(`Secret '${name}' was not found`);
    }
    const config: ProviderConfig = {
      id: hexId(),
      gatewayId: gateway.id,
      slug,
      alias,
      defaultConfig: isDefault === true || isDefault === 1,
      secretId: secret.id,
      preview: preview(secret.value),
      modifiedAt: now,
      rateLimit: typeof given["rate_limit"] === "number" ? given["rate_limit"] : undefined,
      rateLimitPeriod: typeof given["rate_limit_period"] === "number" ? given["rate_limit_period"] : undefined,
    };
    putConfig(state, config, now);
    return success(shownConfig(config));
  }

  /** Rotates the key of a config: the value of its secret. Whether that changes the secret's `modified` is unknown; here it does. */
  function rotateConfig(config: ProviderConfig, { request }: Call): Reply {
    const given = asObject(jsonBody(request));
    const value = given["secret"];
    if (typeof value !== "string" || value === "" || Object.keys(given).length > 1) {
      return invalid("Required", "body", "secret");
    }
    const gateway = state.gateways.get(config.gatewayId);
    const storeId = String(gateway?.fields["store_id"]);
    const name = secretName(config.gatewayId, config.slug, config.alias);
    const secret = state.secretsByName.get(secretKey(storeId, name));
    if (secret === undefined) return missing("secret");
    const now = clock.now();
    const activeAt = now + clock.span(settings.activationMs);
    putSecret(state, { ...secret, value, modifiedAt: now, activeAt }, now);
    const changed = { ...config, preview: preview(value), modifiedAt: now };
    putConfig(state, changed, now);
    return success(shownConfig(changed));
  }

  return [
    route("GET", base, read, ({ query }) => {
      const search = query.get("search") ?? "";
      const gateways = state.gateways.list(lagged()).filter(({ id }) => id.includes(search));
      return page(query, gateways.map(shownGateway), 100);
    }),
    route("POST", base, write, createGateway),
    route(
      "GET",
      `${base}/:gateway`,
      read,
      withGateway((gateway) => success(shownGateway(gateway))),
    ),
    route("PUT", `${base}/:gateway`, write, withGateway(replaceGateway)),
    route("DELETE", `${base}/:gateway`, write, withGateway(removeGateway)),
    route(
      "GET",
      `${base}/:gateway/url/:provider`,
      read,
      withGateway((gateway, { params }) =>
        success(`${gatewayOrigin()}/v1/${state.accountId}/${gateway.id}/${params["provider"] ?? ""}`),
      ),
    ),
    // An unknown gateway gives an empty list, as seen live.
    route("GET", `${base}/:gateway/provider_configs`, read, ({ params, query }) =>
      page(
        query,
        lies
          .shown(
            "provider-configs",
            state.configs.list(lagged()).filter(({ gatewayId }) => gatewayId === params["gateway"]),
            ({ id, gatewayId, slug, alias }) => [id, secretName(gatewayId, slug, alias)],
          )
          .map(shownConfig),
        100,
      ),
    ),
    route("POST", `${base}/:gateway/provider_configs`, secretsWrite, withGateway(createConfig)),
    route("PUT", `${base}/:gateway/provider_configs/:config`, secretsWrite, withConfig(rotateConfig)),
    route(
      "DELETE",
      `${base}/:gateway/provider_configs/:config`,
      secretsWrite,
      withConfig((config) => {
        removeConfig(state, config, clock.now());
        return success(shownConfig(config));
      }),
    ),
    ...gatewayLogRoutes(parts),
  ];
}

function problemsOf(given: Record<string, unknown>): ErrorItem[] {
  const errors: ErrorItem[] = required
    .filter((name) => given[name] === undefined)
    .map((name) => ({ code: 7001, message: "Required", path: ["body", name] }));
  for (const name of booleans) {
    if (given[name] === undefined || typeof given[name] === "boolean") continue;
    errors.push({ code: 7001, message: "Expected boolean", path: ["body", name] });
  }
  for (const name of ["cache_ttl", "rate_limiting_interval", "rate_limiting_limit"]) {
    const value = given[name];
    if (value === undefined || value === null) continue;
    if (typeof value === "number" && Number.isInteger(value) && value >= 0) continue;
    errors.push({ code: 7001, message: "Expected a whole number", path: ["body", name] });
  }
  return errors;
}
