import type { Answer } from "../domain/answer.ts";
import { defaultAlias, gatewaySlugs, type ProviderName, shortRotationId } from "../domain/slot.ts";
import { bearer, type Exchange, type Http, readErrorFacts, type Request } from "../http.ts";
import type { Redacted } from "../redacted.ts";

/**
 * The gateway's data plane, asked as its clients ask it, but so that only the stored key can make it answer:
 * no provider credential on the request, no Cloudflare-paid credentials (`cf-aig-no-wholesale`), no cached answer, no
 * retries inside. developers.cloudflare.com/ai-gateway: glossary of headers, bring-your-own-keys (2026-07-31), and
 * features/unified-billing for which credential wins.
 *
 * The alias header is documented for a provider's own paths only; on `compat` it may be ignored.
 */
export interface Probe {
  gateway: string;
  provider: ProviderName;
  /** `default` is asked for as clients ask for it: by naming none. */
  alias: string;
  path: "native" | "compat";
  model: string;
  rotationId: string;
  signal?: AbortSignal;
}

export interface GatewayProbeOptions {
  http: Http;
  /** `https://gateway.ai.cloudflare.com/v1`, or what stands in for it. */
  gatewayBaseUrl: string;
  accountId: string;
  /** Needs the right AI Gateway Run. */
  token: Redacted;
}

export type GatewayProbe = (probe: Probe) => Promise<Answer>;

/**
 * Enough for one word and what a reasoning model thinks before it. Some refuse with 400 where it is too little
 * (github.com/spiceai/spiceai/issues/7126).
 */
const maxTokens = 256;
const ping = [{ role: "user", content: "ping" }];

/** What each provider's own path wants; OpenAI's newer models refuse `max_tokens`. */
const native: Record<ProviderName, (model: string) => Pick<Request, "route" | "path" | "headers" | "body">> = {
  openai: (model) => ({
    route: "/chat/completions",
    body: { model, messages: ping, max_completion_tokens: maxTokens },
  }),
  gemini: (model) => ({
    route: "/v1/models/{model}:generateContent",
    path: { model },
    body: {
      contents: [{ role: "user", parts: [{ text: "ping" }] }],
      generationConfig: { maxOutputTokens: maxTokens },
    },
  }),
  anthropic: (model) => ({
    route: "/v1/messages",
    headers: { "anthropic-version": "2023-06-01" },
    body: { model, messages: ping, max_tokens: maxTokens },
  }),
};

/** OpenAI's shape for all; the model says whose it is. Deprecated by Cloudflare but kept. */
const compat = (provider: ProviderName, model: string): Pick<Request, "route" | "body"> => ({
  route: "/compat/chat/completions",
  body: {
    model: `${gatewaySlugs[provider]}/${model}`,
    messages: ping,
    ...(provider === "openai" ? { max_completion_tokens: maxTokens } : { max_tokens: maxTokens }),
  },
});

/**
 * Makes the function that sends one model request of a few tokens through the gateway and tells what came back,
 * refusals included. Fails with `Unavailable` when no whole answer came. Repeating costs a few tokens.
 */
export function createGatewayProbe({ http, gatewayBaseUrl, accountId, token }: GatewayProbeOptions): GatewayProbe {
  return async ({ gateway, provider, alias, path, model, rotationId, signal }) => {
    const slug = gatewaySlugs[provider];
    const shape: Pick<Request, "route" | "path" | "headers" | "body"> =
      path === "compat" ? compat(provider, model) : native[provider](model);
    const exchange = await http.exchange({
      service: "ai-gateway",
      method: "POST",
      changesNothing: true,
      baseUrl: gatewayBaseUrl,
      route: `/{account}/{gateway}${path === "compat" ? "" : `/${slug}`}${shape.route}`,
      path: { ...shape.path, account: accountId, gateway },
      headers: {
        ...shape.headers,
        "cf-aig-authorization": bearer(token),
        ...(alias === defaultAlias ? {} : { "cf-aig-byok-alias": alias }),
        "cf-aig-no-wholesale": "true",
        "cf-aig-skip-cache": "true",
        "cf-aig-max-attempts": "1",
        "cf-aig-collect-log-payload": "false",
        "cf-aig-metadata": JSON.stringify({
          keyturn: "probe",
          rotation: shortRotationId(rotationId),
        }),
      },
      body: shape.body,
      doing: `while probing alias ${alias} of ${provider} through gateway ${gateway}`,
      ...(signal === undefined ? {} : { signal }),
    });
    return answerOf(exchange);
  };
}

function answerOf({ status, header, body, requestId, retryAfterMs }: Exchange): Answer {
  const cached = header("cf-aig-cache-status")?.toUpperCase() === "HIT";
  const gatewayError = gatewayErrorOf(body);
  const providerError = status >= 400 && gatewayError === undefined ? readErrorFacts(body) : undefined;
  return {
    status,
    cached,
    ...(gatewayError === undefined ? {} : { gatewayError }),
    ...(providerError === undefined ? {} : { providerError }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(requestId === undefined ? {} : { requestId }),
  };
}

/** The gateway's own error names itself; any other body is the provider's (bodies captured live by third parties, 2026). */
function gatewayErrorOf(body: unknown): Answer["gatewayError"] {
  if (body === null || typeof body !== "object" || !("name" in body) || body.name !== "AiGatewayError")
    return undefined;
  return "internalCode" in body && typeof body.internalCode === "number" ? { internalCode: body.internalCode } : {};
}
