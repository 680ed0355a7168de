import { z } from "zod";
import { RotationFailure } from "../domain/failure.ts";
import { bearer, type Exchange } from "../http.ts";
import type { LogRow, Logs, LogSpan } from "./ai-gateway.ts";
import { type ControlPlaneOptions, createControlPlane } from "./control-plane.ts";
import type { CachePurge, Place, SlotSecrets } from "./slot-secrets.ts";

/*
 * The dialect `guide`: the three endpoints of the guide that keyturn began from, to the letter, for proxies built to it.
 * Cloudflare's own API has none of them but the logs (looked for on developers.cloudflare.com and in npm cloudflare
 * 7.3.0, 2026-11).
 *
 * Can: overwrite the value of a secret whose id is known, ask for caches to be dropped, read logs.
 * Cannot: read anything about a secret, keep a comment (so no marks), make or remove an alias. Rotations go in place,
 * and which key a slot holds is known from the last result or from the operator.
 */
export interface GuideOptions extends ControlPlaneOptions {
  /** The slot's place and the id of its secret. */
  place: Place;
  secretId: string;
}

/** The dialect tells no time of a secret's last change. */
const noTime = new Date(0);

const right = "the guide's proxy asks for";

export function createGuideSecrets({ place: own, secretId, ...options }: GuideOptions): SlotSecrets & CachePurge {
  const api = createControlPlane(options);

  const inPlaceOnly = ({ alias }: Place): RotationFailure =>
    new RotationFailure(
      "RequestInvalid",
      `the dialect guide has no aliases, and ${alias} was to be made: set aliases: never, or dialect: secrets-store`,
    );
  const isOwn = ({ gateway, provider, alias }: Place): boolean =>
    gateway === own.gateway && provider === own.provider && alias === own.alias;
  const missing = (what: string, trace = ""): RotationFailure =>
    new RotationFailure("SlotMissing", `${what}: check secretId in the inventory${trace}`);

  return {
    keepsMarks: false,

    /**
     * The guide's gateways are called with a token, so they are taken for authenticated; whether they fall back to
     * keys of Cloudflare is not told. No room for aliases: rotations go in place.
     */
    async storeOf() {
      return { authenticated: true, byokOnly: false, secretsLeft: 0 };
    },

    /** Nothing can be read: what was written counts as active, and the probes tell whether it is. */
    async read(place) {
      if (!isOwn(place)) throw missing(`gateway ${place.gateway} has no secret known for alias ${place.alias}`);
      return { status: "active", modified: noTime };
    },

    async look(place) {
      return isOwn(place) ? { status: "active", modified: noTime } : undefined;
    },

    /** The comment is dropped: there is no field for it. */
    async write(place, { value }, { leaving } = {}) {
      if (!isOwn(place)) throw inPlaceOnly(place);
      leaving?.();
      await api.tell({
        method: "PUT",
        route: "/ai-gateway/secrets/{secret}",
        path: { secret: secretId },
        body: { value },
        doing: `while writing secret ${secretId}`,
        right,
        failure: (refusal: Exchange) =>
          refusal.status === 404 ? missing(`there is no secret ${secretId}`, refusal.trace) : undefined,
      });
    },

    async make(place) {
      throw inPlaceOnly(place);
    },

    async makeCopy(place) {
      throw inPlaceOnly(place);
    },

    async replaceByCopy(place) {
      throw inPlaceOnly(place);
    },

    /** No alias was ever made: none can be there that is not seen. */
    async remove(place) {
      if (isOwn(place)) throw new RotationFailure("RequestInvalid", "the dialect guide cannot remove a slot's secret");
      return true;
    },

    async purgeCache(gateway) {
      await options.http.send({
        service: "cloudflare",
        method: "POST",
        baseUrl: options.baseUrl,
        route: "/cache/purge",
        headers: { authorization: bearer(options.token) },
        body: { files: [`${gateway}/secrets`] },
        doing: `while purging the cached secrets of gateway ${gateway}`,
        response: z.object({ success: z.literal(true) }).optional(),
        failure: ({ status, trace }) =>
          status === 401 || status === 403
            ? new RotationFailure(
                "AdminCredentialRejected",
                `cloudflare refused the token while purging the cached secrets of gateway ${gateway}: give CLOUDFLARE_API_TOKEN the right to purge caches${trace}`,
              )
            : undefined,
      });
    },
  };
}

const guideRow = z
  .object({
    id: z.union([z.string(), z.number()]).transform(String).optional(),
    timestamp: z.coerce.date().optional(),
    created_at: z.coerce.date().optional(),
    provider: z.string(),
    model: z.string().nullish(),
    success: z.union([z.boolean(), z.number()]).nullish(),
    status: z.number().nullish().catch(undefined),
    status_code: z.number().nullish(),
    cached: z.union([z.boolean(), z.number()]).nullish(),
    request_tokens: z.number().nullish(),
    response_tokens: z.number().nullish(),
    tokens_in: z.number().nullish(),
    tokens_out: z.number().nullish(),
    cost_usd: z.number().nullish(),
    cost: z.number().nullish(),
  })
  .transform((row, context): LogRow => {
    const at = row.timestamp ?? row.created_at;
    if (at === undefined) {
      context.addIssue({ code: "custom", path: ["timestamp"], message: "no time" });
      return z.NEVER;
    }
    const status = row.status_code ?? row.status ?? undefined;
    const costUsd = row.cost_usd ?? row.cost ?? undefined;
    return {
      id: row.id ?? "",
      at,
      provider: row.provider,
      success: row.success === undefined || row.success === null ? (status ?? 200) < 400 : Boolean(row.success),
      cached: Boolean(row.cached),
      tokensIn: row.request_tokens ?? row.tokens_in ?? 0,
      tokensOut: row.response_tokens ?? row.tokens_out ?? 0,
      ...(row.model ? { model: row.model } : {}),
      ...(status === undefined ? {} : { status }),
      ...(costUsd === undefined ? {} : { costUsd }),
    };
  });

/** Rows one a line; an envelope around them, as Cloudflare's own API has it, is read too. */
const guideLines = z.array(
  z.union([z.object({ success: z.literal(true), result: z.array(guideRow) }), guideRow.transform((row) => [row])]),
);

/**
 * What the gateway logged between two times, oldest first, in the guide's words (`request_tokens`, `cost_usd`, provider
 * `google`). The guide names no filters, so all rows are read.
 */
export function createGuideLogs({ http, baseUrl, accountId, token }: ControlPlaneOptions) {
  return async (gateway: string, { from, to }: LogSpan): Promise<Logs> => {
    const answers = await http.send({
      service: "cloudflare",
      method: "GET",
      baseUrl,
      route: "/accounts/{account}/ai-gateway/gateways/{gateway}/logs",
      path: { account: accountId, gateway },
      headers: { authorization: bearer(token) },
      lines: true,
      doing: `while reading the logs of gateway ${gateway}`,
      response: guideLines,
    });
    const rows = answers
      .flatMap((one) => (Array.isArray(one) ? one : one.result))
      .filter(({ at }) => at > from && at < to)
      .toSorted((a, b) => a.at.getTime() - b.at.getTime());
    return { rows };
  };
}
