import type { ClosedRun, SlotAccess } from "../activities/dependencies.ts";
import { findHeldKey, type HeldKey } from "../activities/held-key.ts";
import { managed } from "../activities/managed.ts";
import { createAiGateway, type Gateway, type ProviderConfig } from "../cloudflare/ai-gateway.ts";
import { createSecretsStore, type SecretRecord } from "../cloudflare/secrets-store.ts";
import type { Held } from "../cloudflare/slot-secrets.ts";
import type { Credentials, Environment, Inventory, InventorySlot } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { gatewaySlugs, secretName } from "../domain/slot.ts";
import { guarded } from "./environment.ts";
import { createHttp } from "../http.ts";
import { canManage, type KeyRecord } from "../providers/provider.ts";
import { createSealer } from "../sealing.ts";
import type { Temporal } from "../temporal/client.ts";
import { version } from "../version.ts";
import { runsOf } from "../temporal/runs.ts";
import { plugTogether } from "../worker.ts";

/** What the doctor stands on: read only when a check asks, and once. Nothing here writes. */
export interface Ground {
  env: Environment;
  /** Where `.dev.vars` is looked for. */
  directory: string;
  inventory: Inventory;
  credentials: Credentials;
  missing: string[];
  /** The slots that were asked for. */
  slots: SlotGround[];
  /** All of the inventory. */
  everySlot: SlotGround[];
  accounts: AccountGround[];
  temporal: TemporalGround;
}

export interface TemporalGround {
  address: string;
  namespace: string;
  /** Nothing where no server answers. */
  connected?: Temporal;
  /** Why no server answers. */
  why?: string;
}

export interface AccountGround {
  id: string;
  gateways: string[];
  quota(): Promise<{ quota: number; usage: number }>;
  stores(): Promise<{ id: string }[]>;
  gateway(id: string): Promise<Gateway>;
}

/** One slot. Each fact fails as its client does. */
export interface SlotGround {
  name: string;
  slot: InventorySlot;
  access: SlotAccess;
  /** Whether Cloudflare's own API is spoken, which tells of gateways and secrets; the dialect `guide` tells nothing. */
  tells: boolean;
  gateway(): Promise<Gateway>;
  /** All provider configs of the slot's gateway. */
  configs(): Promise<ProviderConfig[]>;
  config(): Promise<ProviderConfig | undefined>;
  secret(): Promise<SecretRecord | undefined>;
  /** What the provider lists. Fails with `InvalidInput` where no admin credential is configured. */
  keys(): Promise<KeyRecord[]>;
  /** What tells which key the secret holds. */
  content(): Promise<Held>;
  held(): Promise<HeldKey>;
  /** The slot's newest closed run; undefined where it has none, or no Temporal server answers. */
  lastClosed(): Promise<ClosedRun | undefined>;
  /** Whether the provider reports use: once for each credential. */
  usage(): Promise<unknown>;
}

export interface GroundOptions {
  env: Environment;
  directory: string;
  inventory: Inventory;
  credentials: Credentials;
  temporal: TemporalGround;
  /** The slots to look at; all without it. */
  only?: string[];
  /** Variables that are not set; `inventory` and `credentials` hold something made up in their place. */
  missing?: string[];
}

const shortMs = 5 * 60_000;

export function createGround({
  env,
  directory,
  inventory,
  credentials,
  temporal,
  only,
  missing = [],
}: GroundOptions): Ground {
  const http = guarded(createHttp({ userAgent: `keyturn/${version}` }), missing);
  const none = (): never => {
    throw new RotationFailure("RequestInvalid", "the doctor asks no rotation and opens no key");
  };
  const { connected } = temporal;
  const away = { find: none, update: none, openRotations: none };
  const unasked = { lastInstalledKey: () => Promise.resolve(undefined), lastClosed: () => Promise.resolve(undefined) };
  const dependencies = plugTogether({
    inventory,
    credentials,
    http,
    sealing: { ...createSealer(inventory.sealing), open: none },
    runs: connected === undefined ? { ...away, ...unasked } : runsOf(connected.client),
  });
  const once = memory();
  const clients = (accountId: string) => {
    const options = {
      http,
      baseUrl: credentials.baseUrls.cloudflareApi,
      accountId,
      token: credentials.cloudflareToken,
    };
    return { gateways: createAiGateway(options), store: createSecretsStore(options) };
  };
  const gatewayOf = async (account: string, id: string): Promise<Gateway> =>
    once(`gateway ${account} ${id}`, () => clients(account).gateways.getGateway(id));

  const groundOf = (slot: InventorySlot): SlotGround => {
    const { name, account, gateway: gatewayId } = slot;
    const access = dependencies.slotAccess(name);
    const { gateways, store } = clients(account);
    const ground: SlotGround = {
      name,
      slot,
      access,
      tells: access.secrets.keepsMarks,
      gateway: () => gatewayOf(account, gatewayId),
      configs: () => once(`configs ${account} ${gatewayId}`, () => gateways.listProviderConfigs(gatewayId)),
      async config() {
        return (await ground.configs()).find(
          ({ alias, providerSlug }) => alias === slot.slot.alias && providerSlug === gatewaySlugs[slot.slot.provider],
        );
      },
      async secret() {
        const { storeId } = await ground.gateway();
        if (storeId === undefined) {
          throw new RotationFailure("SlotMissing", `gateway ${gatewayId} has no secrets store`);
        }
        const secrets = await once(`secrets ${account} ${storeId}`, () => store.listSecrets(storeId));
        const wanted = secretName(gatewayId, slot.slot.provider, slot.slot.alias);
        return secrets.find((secret) => secret.name === wanted);
      },
      keys: () => once(`keys ${slot.slot.provider} ${access.keyring}`, async () => managed(access).listKeys()),
      async content() {
        if (!ground.tells) return access.secrets.read(access.place);
        const [secret, config] = [await ground.secret(), await ground.config()];
        if (secret === undefined) throw new RotationFailure("SlotMissing", `${name} has no secret`);
        return {
          status: secret.status,
          modified: secret.modified,
          ...(secret.comment === undefined ? {} : { comment: secret.comment }),
          ...(config === undefined ? { withoutConfig: true } : {}),
          ...(config?.secretPreview === undefined ? {} : { preview: config.secretPreview }),
          ...(config?.modified === undefined ? {} : { previewModified: config.modified }),
        };
      },
      held: () =>
        once(`held ${name}`, async () => {
          const remembered = ground.tells ? undefined : await dependencies.runs.lastInstalledKey(name);
          const keys = canManage(access.provider) ? await ground.keys() : undefined;
          const held = await findHeldKey(access, await ground.content(), keys, remembered);
          return remembered === undefined ? held : { ...held, how: "last result" as const };
        }),
      lastClosed: () => once(`last closed ${name}`, () => dependencies.runs.lastClosed(name)),
      usage: () =>
        once(`usage ${slot.slot.provider} ${slot.slot.provider === "gemini" ? access.keyring : ""}`, async () => {
          const [key] = await ground.keys();
          const now = Date.now();
          if (key === undefined) return undefined;
          return managed(access).readUsage({ keyIds: [key.id], from: new Date(now - shortMs), to: new Date(now) });
        }),
    };
    return ground;
  };

  const everySlot = Object.values(inventory.slots).map(groundOf);
  const slots = everySlot.filter(({ name }) => only === undefined || only.includes(name));
  const accounts = [...new Set(slots.filter(({ tells }) => tells).map(({ slot }) => slot.account))].map(
    (id): AccountGround => ({
      id,
      gateways: [...new Set(slots.filter(({ slot }) => slot.account === id).map(({ slot }) => slot.gateway))],
      quota: () => once(`quota ${id}`, () => clients(id).store.quota()),
      stores: () => once(`stores ${id}`, () => clients(id).store.stores()),
      gateway: (gatewayId) => gatewayOf(id, gatewayId),
    }),
  );
  return { env, directory, inventory, credentials, missing, slots, everySlot, accounts, temporal };
}

/** Asks each question once, failures included. */
function memory(): <T>(name: string, ask: () => Promise<T>) => Promise<T> {
  const answers = new Map<string, Promise<unknown>>();
  return async <T>(name: string, ask: () => Promise<T>): Promise<T> => {
    const known = answers.get(name) ?? ask();
    answers.set(name, known);
    return known as Promise<T>;
  };
}
