import type { ProviderName } from "./slot.ts";

/** What bounds a provider's keys, in words for messages: rows of docs/providers.md, which a test holds to these. */

/** Where the money and the limits lie that a key draws on. */
export const quotaHome: Record<ProviderName, string> = {
  openai: "the project and the organisation",
  anthropic: "the workspace and the organisation, by tier",
  gemini: "the project",
};

/** How long a key can live, and whether that can be changed. */
export const keyLifeOf: Record<ProviderName, string> = {
  openai: "a year at most when set, for ever when made without an end; the end can be moved",
  anthropic: "as long as was chosen in the Console when it was made, for ever where policy allows; never moved",
  gemini: "for ever: it has no end",
};
