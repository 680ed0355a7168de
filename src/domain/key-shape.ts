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

/**
 * What looks like a credential of a provider's, admin credentials among them, wherever it stands in a text: a last guard
 * for words of people and of others. reference: docs/providers.md, "key formats".
 */
export const secretShapes =
  /sk-[A-Za-z0-9_-]{16,}|AIza[0-9A-Za-z_-]{30,}|AQ\.[0-9A-Za-z._-]{20,}|(?:gsk_|xai-|hf_)[A-Za-z0-9_-]{16,}/g;

/** The same, but that a `sk-` within a word is a key's only with what vendors write after it: nobody means `task-…`. */
const secretInWords = new RegExp(
  String.raw`(?<![A-Za-z])(?:${secretShapes.source})|sk-(?:proj|svcacct|ant|admin)-[A-Za-z0-9_-]{16,}`,
);

/** Whether something in a person's words has the shape of a secret of a provider's, whatever marks stand around it. */
export function containsKey(text: string): boolean {
  return secretInWords.test(text);
}
