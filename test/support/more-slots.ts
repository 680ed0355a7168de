import type { World } from "./world.ts";

/** More slots of `production/openai`, each with a key, a secret and a provider config made by hand. */

export const moreGateway = "github-ai-agent-prod";
const project = "proj_abc";
const serviceAccount = "svc_acct_1";

/** The inventory's slots for these aliases. */
export function moreSlots(aliases: string[], policy?: Record<string, unknown>): Record<string, unknown> {
  const settings = { openai: { project, serviceAccount }, ...(policy === undefined ? {} : { policy }) };
  return Object.fromEntries(aliases.map((alias) => [slotOf(alias), settings]));
}

export function slotOf(alias: string): string {
  return `production/openai:${alias}`;
}

/** A key as somebody makes it in the provider's console. */
export async function keyByHand(world: World, name: string): Promise<{ id: string; value: string }> {
  const path = `/organization/projects/${project}/service_accounts/${serviceAccount}/api_keys`;
  return (await world.openai("POST", path, { name })) as { id: string; value: string };
}

/** Revokes a key as somebody does in the provider's console. */
export async function revokeByHand(world: World, keyId: string): Promise<void> {
  await world.openai("DELETE", `/organization/projects/${project}/api_keys/${keyId}`);
}

/** Makes a key and serves it under the alias, as somebody would in the dashboard; returns the key's id. */
export async function serveByHand(world: World, alias: string, gateway = moreGateway): Promise<string> {
  const key = await keyByHand(world, `by hand for ${alias}`);
  await world.cloudflare("POST", `/ai-gateway/gateways/${gateway}/provider_configs`, {
    alias,
    provider_slug: "openai",
    default_config: alias === "default",
    secret: key.value,
  });
  return key.id;
}

interface SecretRow {
  id: string;
  name: string;
  comment: string | null;
}

/** The secret behind an alias, as lists show it: seconds late. */
export async function secretOf(
  world: World,
  alias: string,
  gateway = moreGateway,
  slug = "openai",
): Promise<SecretRow> {
  const name = `${gateway}_${slug}_${alias}`;
  let found: SecretRow | undefined;
  await world.until(async () => {
    found = (await world.secrets()).find((secret) => secret.name === name) as SecretRow | undefined;
    return found !== undefined;
  });
  return found as unknown as SecretRow;
}

/** Edits the secret as somebody does in the dashboard; what is not given stays. */
export async function editByHand(
  world: World,
  secretId: string,
  change: { value?: string; comment?: string },
): Promise<void> {
  await world.cloudflare("PATCH", `/secrets_store/stores/${world.storeId}/secrets/${secretId}`, change);
}
