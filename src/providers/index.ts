import type { ProviderName } from "../domain/slot.ts";
import { type AnthropicOptions, anthropicByHand, createAnthropic } from "./anthropic.ts";
import { createGemini, type GeminiOptions, geminiByHand } from "./gemini.ts";
import { createOpenAi, type OpenAiOptions, openAiByHand } from "./openai.ts";
import type { ByHand, HandIn, ManagedProvider, Provider } from "./provider.ts";

/** What each provider is made of. Adding one is a line here and one below. */
export interface ProviderOptions {
  openai: OpenAiOptions;
  gemini: GeminiOptions;
  anthropic: AnthropicOptions;
}

/** The same without what makes the calls of an admin credential. */
type ByHandOptions<Name extends keyof ProviderOptions> = Omit<ProviderOptions[Name], "adminKey" | "auth">;

interface Factories<Name extends keyof ProviderOptions> {
  managed(options: ProviderOptions[Name]): ManagedProvider;
  byHand(options: ByHandOptions<Name>): Provider & Pick<HandIn, "handInInstructions">;
}

const registry: { [Name in keyof ProviderOptions]: Factories<Name> } = {
  openai: { managed: createOpenAi, byHand: openAiByHand },
  gemini: { managed: createGemini, byHand: geminiByHand },
  anthropic: { managed: createAnthropic, byHand: anthropicByHand },
};

/** Whether keyturn can rotate keys of this provider. */
export function isRegistered(name: ProviderName): name is keyof ProviderOptions & ProviderName {
  return name in registry;
}

export function createProvider<Name extends keyof ProviderOptions>(
  name: Name,
  options: ProviderOptions[Name],
): ManagedProvider {
  return registry[name].managed(options);
}

/** The provider without its admin credential: keys are tried, and people make and revoke them. `missing` says what is not set. */
export function createByHand<Name extends keyof ProviderOptions>(
  name: Name,
  options: ByHandOptions<Name> & { missing: string },
): Provider & ByHand {
  return { ...registry[name].byHand(options), missing: options.missing };
}
