/** What all of Google's calls share: its errors, who may call, and what a call is given. */
import type { Clock } from "./clock.ts";
import type { Reply, Request } from "./exchange.ts";
import { json } from "./exchange.ts";
import type { GooglePermission, GoogleState } from "./google-state.ts";
import type { Keys } from "./keys.ts";
import type { Lies } from "./lies.ts";
import type { Settings } from "./options.ts";
import type { Chance } from "./random.ts";
import type { Usage } from "./usage.ts";

export interface GoogleParts {
  state: GoogleState;
  settings: Settings;
  clock: Clock;
  keys: Keys;
  lies: Lies;
  usage: Usage;
  chance: Chance;
}

const words: Record<number, string> = {
  400: "INVALID_ARGUMENT",
  401: "UNAUTHENTICATED",
  403: "PERMISSION_DENIED",
  404: "NOT_FOUND",
  409: "ALREADY_EXISTS",
  429: "RESOURCE_EXHAUSTED",
  500: "INTERNAL",
  503: "UNAVAILABLE",
  504: "DEADLINE_EXCEEDED",
};

export interface GoogleReason {
  /** In place of the status's usual word. */
  status?: string;
  reason?: string;
  service?: string;
}

/** The body of an error in Google's shape. */
export const googleProblem = (code: number, message: string, { status, reason, service }: GoogleReason = {}) => ({
  error: {
    code,
    message,
    status: status ?? words[code] ?? "UNKNOWN",
    ...(reason === undefined
      ? {}
      : {
          details: [
            {
              "@type": "type.googleapis.com/google.rpc.ErrorInfo",
              reason,
              domain: "googleapis.com",
              metadata: { service: service ?? "generativelanguage.googleapis.com" },
            },
          ],
        }),
  },
});

export const googleError = (code: number, message: string, more?: GoogleReason): Reply =>
  json(code, googleProblem(code, message, more));

const badToken =
  "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.";

/** The refusal of a call whose OAuth token is missing, wrong or too weak; undefined where it may. */
export function refusedToken(
  state: GoogleState,
  request: Request,
  needed: GooglePermission,
  service: string,
): Reply | undefined {
  const header = request.headers["authorization"];
  if (header === undefined) {
    const message =
      "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other valid authentication credential.";
    return googleError(401, message, { reason: "CREDENTIALS_MISSING", service });
  }
  const permissions = state.tokens.get(header.replace(/^Bearer /, ""));
  if (permissions === undefined)
    return googleError(401, badToken, { reason: "ACCESS_TOKEN_TYPE_UNSUPPORTED", service });
  const may = permissions.has(needed) || (needed === "apikeys read" && permissions.has("apikeys write"));
  return may
    ? undefined
    : googleError(403, "Request had insufficient authentication scopes.", {
        reason: "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        service,
      });
}

/** Bodies for faults that name only a status. */
export const googleFault = (status: number): unknown =>
  googleProblem(status, status === 429 ? "Resource has been exhausted (e.g. check quota)." : `error ${status}`);

/** The refusal of a place that Gemini does not serve, for a fault of status 400. */
export const geminiLocation = googleProblem(400, "User location is not supported for the API use.", {
  status: "FAILED_PRECONDITION",
});
