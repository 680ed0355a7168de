import { anthropicKeyEnd } from "./anthropic.ts";
import { geminiKeyEnd } from "./gemini.ts";
import type { ProviderOptions } from "./index.ts";
import type { Ending } from "./key-end.ts";
import { openAiKeyEnd } from "./openai.ts";

const registry: { [Name in keyof ProviderOptions]: (options: ProviderOptions[Name]) => Ending } = {
  openai: openAiKeyEnd,
  gemini: geminiKeyEnd,
  anthropic: anthropicKeyEnd,
};

/** What ends keys of this provider. For the composition root: see key-end.ts. */
export function createKeyEnd<Name extends keyof ProviderOptions>(name: Name, options: ProviderOptions[Name]): Ending {
  return registry[name](options);
}
