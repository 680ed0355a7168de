/** The sandbox's own address: faults, the record, and what only a sandbox can tell or do. */
import { anthropicConsoleRoutes } from "./anthropic-console.ts";
import type { AnthropicState } from "./anthropic-state.ts";
import type { CloudflareState } from "./cloudflare-state.ts";
import { bindingName, secretName } from "./cloudflare-state.ts";
import type { Clock } from "./clock.ts";
import { rfc3339 } from "./clock.ts";
import type { Edges } from "./edges.ts";
import type { Reply, Service } from "./exchange.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import type { Faults } from "./faults.ts";
import { googleControlRoutes } from "./google-control.ts";
import type { GoogleState } from "./google-state.ts";
import type { Key, Keys } from "./keys.ts";
import type { Lies } from "./lies.ts";
import { openAiControlRoutes } from "./openai-control.ts";
import type { OpenAiState } from "./openai-state.ts";
import type { Settings } from "./options.ts";
import type { Recorder } from "./record.ts";
import type { Call, Route } from "./routes.ts";
import { match, route } from "./routes.ts";
import type { Usage } from "./usage.ts";

export interface ControlParts {
  state: CloudflareState;
  anthropic: AnthropicState;
  google: GoogleState;
  openai: OpenAiState;
  openaiUsage: Usage;
  settings: Settings;
  clock: Clock;
  edges: Edges;
  faults: Faults;
  lies: Lies;
  keys: Keys;
  record: Recorder;
  env: Record<string, string>;
  seed: Record<string, string>;
}

/** What may be changed while the sandbox runs; the rest is fixed at its start. */
const changeable = [
  "usageLag",
  "usageDisorder",
  "lastUsedLagMs",
  "settleMs",
  "deathMs",
  "listLagMs",
  "anthropicSettleMs",
  "anthropicDeathMs",
  "reviveMs",
  "anthropicKeyLimit",
  "googleSettleMs",
  "googleDeathMs",
  "googleStandardDeathMs",
  "operationMs",
  "googleQuota",
  "inactiveKeysWork",
  "usageRequests",
  "monitoringNamesServiceAccount",
  "dialect",
  "purgeMs",
  "activationMs",
  "logLagMs",
  "auditLagMs",
  "secretQuota",
  "gatewayQuota",
  "maxKeyLifeSeconds",
  "patchRefreshesPreview",
  "configNeeded",
  "compatHonoursAlias",
  "unifiedBilling",
  "rateLimit",
  "modelLatencyMs",
] as const satisfies readonly (keyof Settings)[];

const notFound = (what: string): Reply => json(404, { error: `no ${what}` });

export function createControl(parts: ControlParts): Service {
  const { settings, clock, faults, lies, keys, record } = parts;

  const withKey =
    (work: (key: Key) => Reply) =>
    ({ params }: Call): Reply => {
      const key = keys.byId(params["key"] ?? "");
      return key === undefined ? notFound(`key ${params["key"] ?? ""}`) : work(key);
    };
  const shownSettings = (): Record<string, unknown> => {
    const { hooks: _, ...rest } = settings;
    return rest;
  };

  const routes: Route<undefined>[] = [
    route("GET", "/", undefined, () =>
      json(200, {
        calls: routes.map(({ method, segments }) => `${method} /${segments.join("/")}`),
        seed: parts.seed,
        settings: shownSettings(),
      }),
    ),
    route("GET", "/env", undefined, () => json(200, parts.env)),
    route("GET", "/record", undefined, () => json(200, record.report())),
    route("GET", "/faults", undefined, () => json(200, { faults: faults.list() })),
    route("POST", "/faults", undefined, ({ request }) => {
      const input = jsonBody(request);
      const added = Array.isArray(input) ? input.map((fault) => faults.add(fault)) : faults.add(input);
      const refused = [added].flat().find((result) => typeof result === "string");
      return refused === undefined ? json(201, added) : json(400, { error: refused });
    }),
    route("DELETE", "/faults", undefined, () => {
      faults.clear();
      return json(200, { faults: [] });
    }),
    route("DELETE", "/faults/:fault", undefined, ({ params }) => {
      faults.clear(Number(params["fault"]));
      return json(200, { faults: faults.list() });
    }),
    route("GET", "/lies", undefined, () => json(200, { lies: lies.list() })),
    route("POST", "/lies", undefined, ({ request }) => {
      const input = jsonBody(request);
      const added = Array.isArray(input) ? input.map((lie) => lies.add(lie)) : lies.add(input);
      const refused = [added].flat().find((result) => typeof result === "string");
      return refused === undefined ? json(201, added) : json(400, { error: refused });
    }),
    route("DELETE", "/lies", undefined, () => {
      lies.clear();
      return json(200, { lies: [] });
    }),
    route("DELETE", "/lies/:lie", undefined, ({ params }) => {
      lies.clear(Number(params["lie"]));
      return json(200, { lies: lies.list() });
    }),
    route("GET", "/options", undefined, () => json(200, shownSettings())),
    route("POST", "/options", undefined, ({ request }) => {
      const given = asObject(jsonBody(request));
      const unknown = Object.keys(given).find((name) => !changeable.some((one) => one === name));
      if (unknown !== undefined) {
        return json(400, { error: `${unknown} is not one of ${changeable.join(", ")}` });
      }
      Object.assign(settings, given);
      return json(200, shownSettings());
    }),
    route("GET", "/values", undefined, () => json(200, { values: keys.all().map(({ id, value }) => ({ id, value })) })),
    route(
      "GET",
      "/keys/:key/uses",
      undefined,
      withKey((key) => json(200, usesOf(key))),
    ),
    route(
      "POST",
      "/keys/:key/expire",
      undefined,
      withKey((key) => {
        key.expiresAt = clock.now();
        return json(200, keys.describe(key));
      }),
    ),
    route("GET", "/keys", undefined, () => json(200, { keys: keys.all().map((key) => keys.describe(key)) })),
    route("GET", "/secrets", undefined, () => json(200, { secrets: secrets(parts) })),
    route("GET", "/slots", undefined, () => json(200, { slots: slots(parts) })),
    ...anthropicConsoleRoutes({ state: parts.anthropic, clock, keys }),
    ...openAiControlRoutes({ state: parts.openai, usage: parts.openaiUsage, clock, keys }),
    ...googleControlRoutes({ state: parts.google, clock, keys }),
  ];

  return {
    name: "control",
    handle(request) {
      const found = match(routes, "/", request);
      return found.kind === "found" ? found.route.handle(found.call) : notFound("such call");
    },
    errorBody: (status) => ({ error: `error ${status}` }),
    recorded: () => false,
  };
}

const usesOf = (key: Key): Record<string, unknown> => ({
  id: key.id,
  lastClientUseAt: key.lastUsedAt === undefined ? null : rfc3339(key.lastUsedAt),
  edges: [...key.usesByEdge].map(([edge, { at, count }]) => ({ edge, lastAt: rfc3339(at), count })),
});

/** Each secret in the store, with or without a provider config, and the key whose value lies in it. */
function secrets({ state, keys }: ControlParts): Record<string, unknown>[] {
  const configured = new Set(
    state.configs.list().map(({ gatewayId, slug, alias }) => secretName(gatewayId, slug, alias)),
  );
  return state.secrets.list().map(({ id, name, value, comment, scopes, modifiedAt }) => ({
    id,
    name,
    comment,
    scopes,
    modified: rfc3339(modifiedAt),
    keyId: keys.byValue(value)?.id ?? null,
    config: configured.has(name),
  }));
}

/** Which key each slot holds in the store, and how many isolates of each edge use which key now. */
function slots({ state, keys, edges }: ControlParts): Record<string, unknown>[] {
  return state.configs.list().map((config) => {
    const name = bindingName(config.gatewayId, config.slug, config.alias);
    // By name, as the gateway finds it: the id a config recorded may be that of a deleted secret.
    const secret = state.secrets
      .list()
      .find(({ name: own }) => own === secretName(config.gatewayId, config.slug, config.alias));
    return {
      gateway: config.gatewayId,
      provider: config.slug,
      alias: config.alias,
      secretId: secret?.id ?? config.secretId,
      keyId: secret === undefined ? null : (keys.byValue(secret.value)?.id ?? null),
      edges: edges.all.map((edge) => {
        const isolates: Record<string, number> = {};
        for (const view of edges.views(edge, name)) {
          const keyId = view.kind === "key" ? (keys.byValue(view.value)?.id ?? "unknown") : view.kind;
          isolates[keyId] = (isolates[keyId] ?? 0) + 1;
        }
        return { edge: edge.name, isolates };
      }),
    };
  });
}
