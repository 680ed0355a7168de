/** What all of OpenAI's calls share: its errors, and what a call is given. */
import type { Clock } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { json } from "./exchange.ts";
import type { Keys } from "./keys.ts";
import type { OpenAiState } from "./openai-state.ts";
import type { Lies } from "./lies.ts";
import type { Settings } from "./options.ts";
import type { Chance } from "./random.ts";
import type { Usage } from "./usage.ts";

export interface OpenAiParts {
  state: OpenAiState;
  settings: Settings;
  clock: Clock;
  keys: Keys;
  lies: Lies;
  usage: Usage;
  chance: Chance;
}

export interface OpenAiProblem {
  message: string;
  type?: string;
  param?: string | null;
  code?: string | null;
}

export const openAiError = (
  status: number,
  { message, type = "invalid_request_error", param = null, code = null }: OpenAiProblem,
): Reply => json(status, { error: { message, type, param, code } });

export const missingScopes = (...scopes: string[]): Reply =>
  openAiError(401, {
    message: `You have insufficient permissions for this operation. Missing scopes: ${scopes.join(", ")}. Check that you have the correct role in your organization and project, and if you're using a restricted API key, that it has the necessary scopes.`,
  });

/** The echo of a refused key: its first eight characters and its last four. */
export const incorrectKey = (value: string): Reply =>
  openAiError(401, {
    message: `Incorrect API key provided: ${value.slice(0, 8)}${"*".repeat(12)}${value.length > 20 ? value.slice(-4) : ""}. You can find your API key at https://platform.openai.com/account/api-keys.`,
    code: "invalid_api_key",
  });
