import type { ProviderName } from "./slot.ts";

/**
 * The shapes of key values today: a hint for people, never a reason to refuse, since vendors change them unannounced.
 * docs/providers.md, "key formats".
 */
export const keyShapes: Record<ProviderName, RegExp> = {
  openai: /^sk-(?!ant-|admin-)[A-Za-z0-9_-]{16,}$/,
  gemini: /^(?:AQ\.[\w.-]{20,}|AIza[\w-]{35})$/,
  anthropic: /^sk-ant-api(?!01-)\d\d-[A-Za-z0-9_-]{16,}$/,
};
