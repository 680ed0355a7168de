import type { ProviderName } from "./slot.ts";

/**
 * What one answer of a provider or of the gateway said, without its body. `message` may echo parts of a key: it is
 * looked at in memory only and never leaves the activity.
 */
export interface Answer {
  status: number;
  /** From `cf-aig-cache-status`. */
  cached: boolean;
  /** Set when the gateway itself answered (`name` is `AiGatewayError`). */
  gatewayError?: { internalCode?: number };
  /** Set when the body is the provider's own error. */
  providerError?: { code?: string; type?: string; status?: string; reason?: string; message?: string };
  /** From `retry-after`. */
  retryAfterMs?: number;
  /** The service's own id of the request, for the operator. */
  requestId?: string;
}

/** What an answer proves about the key that was sent, or that it proves nothing. */
export type Verdict =
  /** The provider served the request: the key works. */
  | "works"
  /** The provider knew the key and had no money left for it: the key works, the quota doesn't. */
  | "works, no quota"
  /** The provider knew the key and did not allow this call: scope, region, address, model. */
  | "works, not allowed"
  /** The provider refused the key itself: wrong, disabled, expired or deleted. */
  | "key refused"
  /** The provider was asked without any key. */
  | "no key sent"
  /** The gateway knows no such alias, or has no value for it. */
  | "alias unknown"
  /** The gateway refused our own token. */
  | "gateway token refused"
  /** The gateway wanted Cloudflare's own credentials to pay, not the stored key. */
  | "not the stored key"
  /** Answered from the gateway's cache: nobody was asked. */
  | "cached"
  | "rate limited"
  | "unavailable"
  /** None of the known answers: proves nothing. */
  | "unclear";

/**
 * What an answer to a probe proves. Only the provider's own word about the key is taken as "key refused", since the
 * gateway's errors, a cached answer, an answer Cloudflare paid for or a request that carried no key can each look like
 * a death. Sources: the tables of docs/providers.md and docs/failures.md.
 */
export function classifyAnswer(provider: ProviderName, answer: Answer): Verdict {
  if (answer.cached) return "cached";
  if (answer.gatewayError !== undefined) return classifyGatewayError(answer);
  if (answer.status >= 200 && answer.status < 300) return "works";
  return classifiers[provider](answer.status, answer.providerError ?? {}, answer.retryAfterMs);
}

/** Whether the verdict says that the key authenticated at its provider. */
export function provesKey(verdict: Verdict): boolean {
  return verdict === "works" || verdict === "works, no quota" || verdict === "works, not allowed";
}

type ProviderError = NonNullable<Answer["providerError"]>;

/** developers.cloudflare.com publishes no such table; seen by third parties on the live service, 2026-08 to 2026-10. */
function classifyGatewayError({ status, gatewayError }: Answer): Verdict {
  switch (gatewayError?.internalCode) {
    case 2003:
    case 2041:
    case 2045:
      return "rate limited";
    case 2005:
      return "unavailable";
    case 2009:
      return "gateway token refused";
    case 2021:
      return "not the stored key";
    case 2040:
      return "alias unknown";
    case 7003:
      // The probe itself is wrong: model or input.
      return "unclear";
    case undefined:
    default:
      if (status === 401) return "gateway token refused";
      if (status === 402) return "not the stored key";
      if (status === 429) return "rate limited";
      return status >= 500 ? "unavailable" : "alias unknown";
  }
}

type Classifier = (status: number, error: ProviderError, retryAfterMs: number | undefined) => Verdict;

const classifiers: Record<ProviderName, Classifier> = {
  openai: classifyOpenAi,
  anthropic: classifyAnthropic,
  gemini: classifyGemini,
};

const openAiNoMoney =
  /^(?:insufficient_quota|credit_balance_exhausted|billing_hard_limit_reached|.*_spend_limit_exceeded)$/;

/** developers.openai.com error-codes guide, 2026-08. */
function classifyOpenAi(status: number, { code, type, message = "" }: ProviderError): Verdict {
  if (status === 401) {
    // What is said of an expired key is not published (2026-11).
    if (
      code === "invalid_api_key" ||
      /key\S* (?:is |has )?expired|expired\S* key|expired_api_key|key_expired/i.test(`${code ?? ""} ${message}`)
    )
      return "key refused";
    if (code === "ip_not_authorized" || /missing scopes|insufficient permissions/i.test(message)) {
      return "works, not allowed";
    }
    return /provide an api key/i.test(message) ? "no key sent" : "unclear";
  }
  if (status === 429) {
    const noMoney = openAiNoMoney.test(code ?? "") || openAiNoMoney.test(type ?? "");
    return noMoney ? "works, no quota" : "rate limited";
  }
  return classifyByStatus(status);
}

/** platform.claude.com errors page, 2026-08. */
function classifyAnthropic(
  status: number,
  { type, message = "" }: ProviderError,
  retryAfterMs: number | undefined,
): Verdict {
  if (status === 401 && type === "authentication_error") {
    return /header is required|no api key|missing/i.test(message) ? "no key sent" : "key refused";
  }
  if (status === 402 && type === "billing_error") return "works, no quota";
  // A limit that passes says when; the cap of a tier does not.
  if (status === 429 && type === "rate_limit_error" && retryAfterMs === undefined) return "works, no quota";
  if ((status === 404 && type === "not_found_error") || (status === 409 && type === "conflict_error")) {
    return "works, not allowed";
  }
  if (status === 400 && type === "invalid_request_error") {
    if (/spend limit|usage limits|credit balance/i.test(message)) return "works, no quota";
    return /anthropic-workspace-id/i.test(message) ? "works, not allowed" : "unclear";
  }
  return classifyByStatus(status);
}

/** ai.google.dev, and answers seen by third parties, 2026-05 to 2026-09: a bad key is a 400 or a 401. */
function classifyGemini(status: number, { status: word, reason, message = "" }: ProviderError): Verdict {
  if (status === 400) {
    if (reason === "API_KEY_INVALID" || /api key (?:expired|not valid)/i.test(message)) return "key refused";
    return word === "FAILED_PRECONDITION" ? "works, not allowed" : "unclear";
  }
  if (status === 401) {
    if (reason === "ACCESS_TOKEN_TYPE_UNSUPPORTED") return "key refused";
    return reason === "CREDENTIALS_MISSING" || /missing required authentication/i.test(message)
      ? "no key sent"
      : "unclear";
  }
  if (status === 403) {
    if (/reported as leaked/i.test(message)) return "key refused";
    return /unregistered callers|without established identity/i.test(message) ? "no key sent" : "works, not allowed";
  }
  if (status === 429) return "rate limited";
  return classifyByStatus(status);
}

function classifyByStatus(status: number): Verdict {
  if (status === 403) return "works, not allowed";
  if (status === 429) return "rate limited";
  if (status >= 500) return "unavailable";
  return "unclear";
}
