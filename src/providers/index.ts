import type { ProviderName } from "../domain/slot.ts";
import { createOpenAi, type OpenAiOptions } from "./openai.ts";
import type { Provider } from "./provider.ts";

/** What each provider is made of. Adding one is a line here and one below. */
export interface ProviderOptions {
  openai: OpenAiOptions;
}

const registry: { [Name in keyof ProviderOptions]: (options: ProviderOptions[Name]) => Provider } = {
  openai: createOpenAi,
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
