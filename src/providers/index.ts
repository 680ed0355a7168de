import type { ProviderName } from "../domain/slot.ts";
import { type AnthropicOptions, createAnthropic } from "./anthropic.ts";
import { createGemini, type GeminiOptions } from "./gemini.ts";
import { createOpenAi, type OpenAiOptions } from "./openai.ts";
import type { Provider } from "./provider.ts";

/** What each provider is made of. Adding one is a line here and one below. */
export interface ProviderOptions {
  openai: OpenAiOptions;
  gemini: GeminiOptions;
  anthropic: AnthropicOptions;
}

const registry: { [Name in keyof ProviderOptions]: (options: ProviderOptions[Name]) => Provider } = {
  openai: createOpenAi,
  gemini: createGemini,
  anthropic: createAnthropic,
};

/** Whether keyturn can rotate keys of this provider. */
export function isRegistered(name: ProviderName): name is keyof ProviderOptions & ProviderName {
  return name in registry;
}

export function createProvider<Name extends keyof ProviderOptions>(
  name: Name,
  options: ProviderOptions[Name],
): Provider {
  return registry[name](options);
}
