import type { ProviderName } from "./slot.ts";

/**
 * The shapes of key values today: a hint for people, never a reason to refuse a value that was handed in, since vendors
 * change them unannounced. docs/providers.md, "key formats".
 */
export const keyShapes: Record<ProviderName, RegExp> = {
  openai: /^sk-(?!ant-|admin-)[A-Za-z0-9_-]{16,}$/,
  gemini: /^(?:AQ\.[\w.-]{20,}|AIza[\w-]{35})$/,
  anthropic: /^sk-ant-api(?!01-)\d\d-[A-Za-z0-9_-]{16,}$/,
};

/** The admin credentials of OpenAI and Anthropic, and Anthropic's keys of other kinds: no less secret. */
const otherSecrets = /^sk-(?:admin|ant)-[\w-]{16,}$/;

/** Whether a word of the text has the shape of a secret of a provider's. */
export function containsKey(text: string): boolean {
  const shapes = [...Object.values(keyShapes), otherSecrets];
  return text.split(/[\s=:,;"'`()]+/).some((word) => {
    const bare = word.replace(/\.$/, "");
    return shapes.some((shape) => shape.test(bare));
  });
}
