/** Who issues keys. The names of slots, logs and metrics; Cloudflare's and the inventory's own words are below. */
export type ProviderName = "openai" | "gemini" | "anthropic";

export const providerNames = ["openai", "gemini", "anthropic"] as const satisfies ProviderName[];

/**
 * How Cloudflare names a provider: in URLs, in model prefixes and in the names of secrets.
 * developers.cloudflare.com/ai-gateway, seen 2026-11.
 */
export const gatewaySlugs: Record<ProviderName, string> = {
  openai: "openai",
  gemini: "google-ai-studio",
  anthropic: "anthropic",
};

/** The alias the gateway uses for a request that names none. */
export const defaultAlias = "default";

/** The place one key is served from. */
export interface Slot {
  environment: string;
  provider: ProviderName;
  alias: string;
}

const slotPattern =
  /^(?<environment>[a-z0-9][a-z0-9-]{0,31})\/(?<provider>openai|gemini|anthropic)(?::(?<alias>[a-z0-9][a-z0-9-]{0,31}))?$/;

/** Reads `production/openai` or `production/openai:batch`; nothing when the text is not a slot. */
export function parseSlot(text: string): Slot | undefined {
  const groups = slotPattern.exec(text)?.groups;
  if (groups === undefined) return undefined;
  const { environment, provider, alias } = groups;
  if (environment === undefined || provider === undefined) return undefined;
  return { environment, provider: provider as ProviderName, alias: alias ?? defaultAlias };
}

/** The slot as people write it: the alias `default` is left out. */
export function slotName({ environment, provider, alias }: Slot): string {
  return alias === defaultAlias ? `${environment}/${provider}` : `${environment}/${provider}:${alias}`;
}

/**
 * The secret a gateway looks up for a provider and alias. The gateway finds it by this name alone, in the store that
 * the gateway names. Gateway ids may contain `_`: names are built, never parsed.
 * developers.cloudflare.com/ai-gateway/configuration/bring-your-own-keys, 2026-07-31.
 */
export function secretName(gateway: string, provider: ProviderName, alias: string): string {
  return `${gateway}_${gatewaySlugs[provider]}_${alias}`;
}

/** The two aliases a rotation makes for itself: one serves the new key, one a copy of the old. */
export function rotationAliases(rotationId: string): { new: string; prev: string } {
  const short = shortRotationId(rotationId);
  return { new: `kt-${short}-new`, prev: `kt-${short}-prev` };
}

/** The short rotation id in the name of a rotation's own alias; nothing when the alias is not one. */
export function readRotationAlias(alias: string): string | undefined {
  return /^kt-([0-9a-f]{8})-(?:new|prev)$/.exec(alias)?.[1];
}

/** The first eight letters of the rotation id: enough to tell rotations apart in names that people read. */
export function shortRotationId(rotationId: string): string {
  return rotationId.replaceAll("-", "").slice(0, 8);
}
