import { z } from "zod";
import { RotationFailure } from "../domain/failure.ts";
import type { Exchange } from "../http.ts";
import { type ControlPlaneOptions, type Creation, createControlPlane, creationOf, says } from "./control-plane.ts";

/**
 * Cloudflare AI Gateway's control plane: gateways, the provider configs that link an alias to a stored key, and logs.
 * developers.cloudflare.com/ai-gateway and the types of npm cloudflare 7.3.0 (2026-10-02).
 *
 * Can: read a gateway; make, list and delete provider configs; list logs, on accounts made before 2026-09-24.
 * Cannot: point `default` at another alias, or change which secret a config means: the gateway finds the secret by
 * its name alone, `secret_id` is only recorded (page on bring-your-own-keys, 2026-07-31).
 */
export interface Gateway {
  id: string;
  /** Whether a request must carry a gateway token. */
  authentication: boolean;
  /** The Secrets Store it reads keys from; without one it cannot serve stored keys. */
  storeId?: string;
  /** Whether it refuses rather than fall back to keys that Cloudflare pays for. */
  byokOnly: boolean;
}

export interface ProviderConfig {
  id: string;
  providerSlug: string;
  alias: string;
  defaultConfig: boolean;
  secretId?: string;
  /** A masked hint of the value. Never log it beside the key. */
  secretPreview?: string;
  modified?: Date;
}

/** One request as the gateway logged it, without bodies. */
export interface LogRow {
  id: string;
  at: Date;
  provider: string;
  model?: string;
  success: boolean;
  status?: number;
  cached: boolean;
  tokensIn: number;
  tokensOut: number;
  /** An estimate at list prices, in US dollars. It does not say who paid. */
  costUsd?: number;
  /** As the client sent it in `cf-aig-metadata`. */
  metadata?: string;
  /** Whether a stored key served it; seen live by a third party, 2026-09. */
  byok?: boolean;
}

export interface LogSpan {
  from: Date;
  to: Date;
  newestFirst?: boolean;
  atMost?: number;
}

export interface Logs {
  rows: LogRow[];
  /** Set where there was more than could be read: nothing is known of what lies beyond this time. */
  readTo?: Date;
}

/** 400 pages: a third of what an account may ask in five minutes, and less than an activity's two minutes. */
const mostLogRows = 20_000;
const mostLogReadingMs = 60_000;

const gateways = "/ai-gateway/gateways/{gateway}";
const read = "AI Gateway Read";
/** Writes of provider configs name Secrets Store Write as their token group and the AI Gateway permission beside it. */
const write = "Secrets Store Write and AI Gateway Write";

const gatewayRow = z
  .object({
    id: z.string(),
    authentication: z.boolean().nullish(),
    store_id: z.string().nullish(),
    byok_only: z.boolean().nullish(),
  })
  .transform(({ id, authentication, store_id, byok_only }): Gateway => ({
    id,
    authentication: authentication ?? false,
    byokOnly: byok_only ?? false,
    ...(store_id ? { storeId: store_id } : {}),
  }));

const configRow = z
  .object({
    id: z.string(),
    provider_slug: z.string(),
    alias: z.string(),
    // Came back as 0 and 1 in live tests of alchemy, 2026.
    default_config: z.union([z.boolean(), z.number()]).nullish(),
    secret_id: z.string().nullish(),
    secret_preview: z.string().nullish(),
    modified_at: z.coerce.date().nullish(),
  })
  .transform((row): ProviderConfig => ({
    id: row.id,
    providerSlug: row.provider_slug,
    alias: row.alias,
    defaultConfig: Boolean(row.default_config),
    ...(row.secret_id ? { secretId: row.secret_id } : {}),
    ...(row.secret_preview ? { secretPreview: row.secret_preview } : {}),
    ...(row.modified_at ? { modified: row.modified_at } : {}),
  }));

const flag = z.union([z.boolean(), z.number()]).nullish();

const logRow = z
  .object({
    id: z.string(),
    created_at: z.coerce.date(),
    provider: z.string(),
    model: z.string().nullish(),
    success: flag,
    status_code: z.number().nullish(),
    cached: flag,
    tokens_in: z.number().nullish(),
    tokens_out: z.number().nullish(),
    cost: z.number().nullish(),
    metadata: z.string().nullish().catch(undefined),
    byok: flag,
  })
  .transform((row): LogRow => ({
    id: row.id,
    at: row.created_at,
    provider: row.provider,
    success: Boolean(row.success),
    cached: Boolean(row.cached),
    tokensIn: row.tokens_in ?? 0,
    tokensOut: row.tokens_out ?? 0,
    ...(row.model ? { model: row.model } : {}),
    ...(typeof row.status_code === "number" ? { status: row.status_code } : {}),
    ...(typeof row.cost === "number" ? { costUsd: row.cost } : {}),
    ...(row.metadata ? { metadata: row.metadata } : {}),
    ...(row.byok === undefined || row.byok === null ? {} : { byok: Boolean(row.byok) }),
  }));

export function createAiGateway(options: ControlPlaneOptions) {
  const api = createControlPlane(options);

  return {
    /** The gateway with this id. Fails with `SlotMissing` when it is not there. */
    async getGateway(id: string): Promise<Gateway> {
      return api.call(
        {
          method: "GET",
          route: gateways,
          path: { gateway: id },
          doing: `while reading gateway ${id}`,
          right: read,
          failure: (refusal) => gatewayMissing(refusal, id),
        },
        gatewayRow,
      );
    },

    /**
     * The gateway's provider configs. An unknown gateway gives an empty list, not a failure, and a config can be
     * missing from the list and still be in the way of a new one (alchemy's live tests, 2026).
     */
    async listProviderConfigs(gateway: string): Promise<ProviderConfig[]> {
      return api.list(
        {
          method: "GET",
          route: `${gateways}/provider_configs`,
          path: { gateway },
          doing: `while listing the provider configs of gateway ${gateway}`,
          right: read,
          failure: (refusal) => gatewayMissing(refusal, gateway),
        },
        configRow,
      );
    },

    /**
     * Makes an alias of the secret that bears its name, which must be there first. Repeating says `taken`. Fails with
     * `NotYetPropagated` while the gateway does not see the new secret yet.
     */
    async createProviderConfig(
      gateway: string,
      config: { alias: string; providerSlug: string; defaultConfig: boolean; secretId?: string },
    ): Promise<Creation<ProviderConfig>> {
      return api.call<Creation<ProviderConfig>, Creation<ProviderConfig>>(
        {
          method: "POST",
          route: `${gateways}/provider_configs`,
          path: { gateway },
          body: {
            alias: config.alias,
            provider_slug: config.providerSlug,
            default_config: config.defaultConfig,
            ...(config.secretId === undefined ? {} : { secret_id: config.secretId }),
          },
          doing: `while making alias ${config.alias} of ${config.providerSlug} in gateway ${gateway}`,
          right: write,
          failure: (refusal) =>
            says(refusal, 7001, /not found/i)
              ? new RotationFailure(
                  "NotYetPropagated",
                  `gateway ${gateway} does not see the secret of alias ${config.alias} yet; try again${refusal.trace}`,
                )
              : gatewayMissing(refusal, gateway),
        },
        creationOf(configRow),
        (refusal) => (says(refusal, 7001, /already exists/i) ? { value: { kind: "taken" } } : undefined),
      );
    },

    /** Deletes the alias, not its secret. Succeeds also when it, or its whole gateway, is already gone. */
    async deleteProviderConfig(gateway: string, id: string): Promise<void> {
      await api.tell(
        {
          method: "DELETE",
          route: `${gateways}/provider_configs/{config}`,
          path: { gateway, config: id },
          doing: `while deleting provider config ${id} of gateway ${gateway}`,
          right: write,
        },
        (refusal) => (says(refusal, 7002) ? { value: undefined } : undefined),
      );
    },

    /**
     * What the gateway logged between two times, oldest first unless asked otherwise, as far as about `atMost` rows and a
     * minute of reading go. Evidence, never a condition: rows can be a minute late, and accounts made on or after
     * 2026-09-24 keep their logs elsewhere (page on logging, 2026-09).
     */
    async readLogs(gateway: string, { from, to, newestFirst = false, atMost = mostLogRows }: LogSpan): Promise<Logs> {
      // One parameter of JSON: the form that clients in the field use. The SDK's dotted form is not known to work.
      const filters = [
        { key: "created_at", operator: "gt", value: [from.toISOString()] },
        { key: "created_at", operator: "lt", value: [to.toISOString()] },
      ];
      const { rows, complete } = await api.listSome(
        {
          method: "GET",
          route: `${gateways}/logs`,
          path: { gateway },
          query: {
            filters: JSON.stringify(filters),
            order_by: "created_at",
            order_by_direction: newestFirst ? "desc" : "asc",
          },
          doing: `while reading the logs of gateway ${gateway}`,
          right: read,
          failure: (refusal) => gatewayMissing(refusal, gateway),
        },
        logRow,
        // 100, as elsewhere, is answered with 400 here.
        { perPage: 50, atMost, withinMs: mostLogReadingMs },
      );
      // A row that came late pushes others to the next page: none counts twice.
      const once = [...new Map(rows.map((row) => [row.id, row])).values()];
      const last = once.at(-1);
      return complete || last === undefined ? { rows: once } : { rows: once, readTo: last.at };
    },
  };
}

export type AiGateway = ReturnType<typeof createAiGateway>;

/** 7002, also under status 404: docs' schema and the live tests of npm @distilled.cloud/cloudflare, 2026. */
function gatewayMissing(refusal: Exchange, gateway: string): RotationFailure | undefined {
  if (refusal.status !== 404 && !says(refusal, 7002)) return undefined;
  return new RotationFailure(
    "SlotMissing",
    `gateway ${gateway} is not there: check the environment's gateway in the inventory${refusal.trace}`,
  );
}
