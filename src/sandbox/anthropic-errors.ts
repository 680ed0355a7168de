/** What all of Anthropic's calls share: its errors, and what a call is given. */
import type { AnthropicState } from "./anthropic-state.ts";
import type { Clock } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { json } from "./exchange.ts";
import type { Keys } from "./keys.ts";
import type { Lies } from "./lies.ts";
import type { Settings } from "./options.ts";
import type { Chance } from "./random.ts";
import { wordId } from "./random.ts";
import type { Usage } from "./usage.ts";

export interface AnthropicParts {
  state: AnthropicState;
  settings: Settings;
  clock: Clock;
  keys: Keys;
  lies: Lies;
  usage: Usage;
  chance: Chance;
}

const types: Record<number, string> = {
  400: "invalid_request_error",
  401: "authentication_error",
  402: "billing_error",
  403: "permission_error",
  404: "not_found_error",
  409: "conflict_error",
  429: "rate_limit_error",
  504: "timeout_error",
  529: "overloaded_error",
};

const prefix = `req_011C${wordId(12)}`;
let last = 0;

/** Cheap and unlike those of another sandbox. */
export const newRequestId = (): string => `${prefix}${(++last).toString(36).padStart(8, "0")}`;

/** The body of an error; its type follows from the status. */
export const anthropicProblem = (status: number, message: string, details?: Record<string, unknown>) => ({
  type: "error",
  error: { type: types[status] ?? "api_error", message, ...(details === undefined ? {} : { details }) },
  request_id: newRequestId(),
});

export function anthropicError(status: number, message: string, details?: Record<string, unknown>): Reply {
  const problem = anthropicProblem(status, message, details);
  return json(status, problem, { "request-id": problem.request_id });
}

/** The body of an account without money, for a fault of status 400. */
export const anthropicSpendLimit = {
  type: "error",
  error: {
    type: "invalid_request_error",
    message: "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
  },
  request_id: "req_011Cspendlimit",
};
