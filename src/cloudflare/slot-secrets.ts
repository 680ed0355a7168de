import { RotationFailure } from "../domain/failure.ts";
import { defaultAlias, gatewaySlugs, type ProviderName, secretName } from "../domain/slot.ts";
import type { Redacted } from "../redacted.ts";
import type { AiGateway, ProviderConfig } from "./ai-gateway.ts";
import type { Creation } from "./control-plane.ts";
import type { SecretRecord, SecretsStore } from "./secrets-store.ts";

/** Where one key is served from: an alias of a provider in a gateway. */
export interface Place {
  gateway: string;
  provider: ProviderName;
  alias: string;
}

/** What a place holds, as far as Cloudflare tells: never the value. */
export interface Held {
  status: string;
  modified: Date;
  comment?: string;
  preview?: string;
  previewModified?: Date;
  /** Where the value lies; a secret that was deleted and made anew has another id. Nothing where the dialect has no ids. */
  secret?: { storeId: string; id: string };
  /** Set where a list tells of a later write than the read by id, or of what that does not find: one of the two is old. */
  contradicted?: true;
  /** Set where no provider config is listed for it. A correctly named secret alone was seen to serve, too (2026). */
  withoutConfig?: true;
}

/** Where a gateway's keys lie, how it treats callers, and how many more secrets fit. */
export interface StoreFacts {
  authenticated: boolean;
  byokOnly: boolean;
  secretsLeft: number;
}

/**
 * The keys of one account's gateways: what rotations read and write. One dialect of Cloudflare is one implementation;
 * test/cloudflare/slot-secrets.contract.ts says what each promises.
 */
export interface SlotSecrets {
  /**
   * Whether comments are kept beside values, so that `read` tells which key a place holds. Where not, only the last
   * result or the operator knows, and nothing that a place holds may be revoked on the word of `read`.
   */
  readonly keepsMarks: boolean;
  /** Fails with `SlotMissing` when the gateway is not there or has no store. */
  storeOf(gateway: string): Promise<StoreFacts>;
  /** What the place holds. Fails with `SlotMissing` when its secret or its provider config is not there. */
  read(place: Place): Promise<Held>;
  /**
   * What the place's secret holds right now, by its id, also where no provider config is listed; nothing where the
   * secret or its gateway is not found: lists may miss what is there, so once is no proof. `listed` is what `readAll`
   * told of the place just before, and spares the lists. Where the two contradict each other, that is said.
   */
  look(place: Place, listed?: Held): Promise<Held | undefined>;
  /**
   * Overwrites value and comment in one request. Repeating it with the same value changes nothing but the time.
   * `seen` is what was read of the place just before, and spares the lists, which may miss it. `leaving` is called when
   * the request is about to leave: what fails before has changed nothing.
   */
  write(
    place: Place,
    content: { value: Redacted; comment: string },
    given?: { seen?: Held; leaving?: () => void },
  ): Promise<void>;
  /** Makes the place, or overwrites what is there. A repetition ends at the same. */
  make(place: Place, content: { value: Redacted; comment: string }): Promise<void>;
  /** Makes the place with a copy of what another holds; the value never leaves Cloudflare. Does nothing when it is there. */
  makeCopy(place: Place, from: Place, comment: string): Promise<void>;
  /**
   * Puts a copy of what another place holds into a place, with a gap of seconds in which it holds nothing: a value cannot
   * be written without being known. The last resort. `seen` is what the place must still hold, or nothing for a place
   * that an earlier attempt left empty: fails with `SlotChanged`, and changes nothing, where it is not so. No room for the
   * copy is a failure that is tried again, since the place is empty meanwhile.
   */
  replaceByCopy(place: Place, from: Place, copy: { comment: string; seen: Held | undefined }): Promise<void>;
  /** Removes the place. Succeeds also when it is already gone, or a list shows it late; says whether it was seen. */
  remove(place: Place): Promise<boolean>;
}

/** A dialect that has a call for dropping cached keys. The public API has none. */
export interface CachePurge {
  /** Asks for it. That a cache obeyed is not told. */
  purgeCache(gateway: string): Promise<void>;
}

export function canPurge(secrets: SlotSecrets): secrets is SlotSecrets & CachePurge {
  return "purgeCache" in secrets;
}

/** A dialect that tells which aliases a provider has in a gateway. The dialect `guide` has none to tell of. */
export interface AliasList {
  /**
   * All that have a secret or a provider config, when the younger of the two was made or changed, and the secret's
   * comment.
   */
  listAliases(gateway: string, provider: ProviderName): Promise<{ alias: string; since: Date; comment?: string }[]>;
}

/** A dialect whose lists tell what many places hold, in two calls for each gateway and one for its store. */
export interface HeldList {
  /**
   * What each of these places of the account holds, in their order; nothing where the lists show no secret or no
   * gateway of it. Lists lag a write by seconds and may miss rows: `read` and `look` are fresher, and dearer.
   */
  readAll(places: Place[]): Promise<(Held | undefined)[]>;
}

export function canReadAll(secrets: SlotSecrets): secrets is SlotSecrets & HeldList {
  return "readAll" in secrets;
}

export function canListAliases(secrets: SlotSecrets): secrets is SlotSecrets & AliasList {
  return "listAliases" in secrets;
}

const scopes = ["ai_gateway"];

/** The dialect `secrets-store`: Cloudflare's public API. */
export function createSlotSecrets({
  store,
  gateways,
}: {
  store: SecretsStore;
  gateways: AiGateway;
}): SlotSecrets & AliasList & HeldList {
  async function storeIdOf(gateway: string): Promise<string> {
    const { storeId } = await gateways.getGateway(gateway);
    if (storeId !== undefined) return storeId;
    throw new RotationFailure(
      "SlotMissing",
      `gateway ${gateway} has no secrets store, so it cannot serve stored keys: set its store in the dashboard`,
    );
  }

  /** By name for its id, then by id: lists lag a write by seconds. */
  async function find(
    place: Place,
    configOf = async () => findConfig(place),
  ): Promise<{ storeId: string; secret: SecretRecord | undefined }> {
    const storeId = await storeIdOf(place.gateway);
    const { secret, listed } = await findIn(storeId, place, configOf);
    return { storeId, secret: secret === undefined ? undefined : later(secret, listed) };
  }

  /** A list may miss the secret, and the config still record its id. */
  async function findIn(
    storeId: string,
    place: Place,
    configOf: () => Promise<ProviderConfig | undefined>,
  ): Promise<{ secret: SecretRecord | undefined; listed: SecretRecord | undefined }> {
    const name = nameOf(place);
    const listed = await store.findSecret(storeId, name);
    const id = listed?.id ?? (await configOf())?.secretId;
    const secret = id === undefined ? undefined : await store.getSecret(storeId, id);
    return { secret: secret?.name === name ? secret : undefined, listed };
  }

  async function findId(place: Place): Promise<{ storeId: string; id: string }> {
    const { storeId, secret } = await find(place);
    if (secret === undefined) throw missing(place, `secret ${nameOf(place)}`);
    return { storeId, id: secret.id };
  }

  async function findConfig(place: Place): Promise<ProviderConfig | undefined> {
    const configs = await gateways.listProviderConfigs(place.gateway);
    return configs.find((config) => isConfigOf(config, place));
  }

  async function link({ gateway, provider, alias }: Place, secretId: string): Promise<void> {
    // "taken" is success: the list of configs lags, an earlier attempt may have made it.
    await gateways.createProviderConfig(gateway, {
      alias,
      providerSlug: gatewaySlugs[provider],
      defaultConfig: alias === defaultAlias,
      secretId,
    });
  }

  return {
    keepsMarks: true,

    async storeOf(gateway) {
      const [{ authentication, byokOnly }, quota] = await Promise.all([
        gateways.getGateway(gateway),
        storeIdOf(gateway).then(() => store.quota()),
      ]);
      return { authenticated: authentication, byokOnly, secretsLeft: quota.quota - quota.usage };
    },

    async read(place) {
      const asked = findConfig(place);
      const [{ storeId, secret }, config] = await Promise.all([find(place, async () => asked), asked]);
      if (secret === undefined) throw missing(place, `secret ${nameOf(place)}`);
      if (config === undefined) throw missing(place, `a provider config for alias ${place.alias}`);
      return heldOf(storeId, secret, config);
    },

    async look(place, listed) {
      if (listed?.secret !== undefined) {
        const { storeId, id } = listed.secret;
        const secret = await orNotThere(store.getSecret(storeId, id));
        if (secret !== undefined) return agreed(withConfigOf(listed, heldOf(storeId, secret, undefined)), listed);
      }
      const storeId = await orNotThere(storeIdOf(place.gateway));
      if (storeId === undefined) return undefined;
      const asked = orNotThere(findConfig(place));
      const [found, config] = await Promise.all([findIn(storeId, place, async () => asked), asked]);
      const [read, listedNow] = [found.secret, found.listed].map((secret) =>
        secret === undefined ? undefined : heldOf(storeId, secret, config),
      );
      return agreed(read, listedNow);
    },

    async readAll(places) {
      const byGateway = new Map<string, { storeId: string; secrets: SecretRecord[]; configs: ProviderConfig[] }>();
      const byStore = new Map<string, SecretRecord[]>();
      for (const gateway of new Set(places.map((place) => place.gateway))) {
        const storeId = await orNotThere(storeIdOf(gateway));
        if (storeId === undefined) continue;
        const secrets = byStore.get(storeId) ?? (await store.listSecrets(storeId));
        byStore.set(storeId, secrets);
        byGateway.set(gateway, { storeId, secrets, configs: await gateways.listProviderConfigs(gateway) });
      }
      return places.map((place) => {
        const there = byGateway.get(place.gateway);
        const secret = there?.secrets.find(({ name }) => name === nameOf(place));
        if (there === undefined || secret === undefined) return undefined;
        const config = there.configs.find((one) => isConfigOf(one, place));
        return heldOf(there.storeId, secret, config);
      });
    },

    async write(place, { value, comment }, { seen, leaving } = {}) {
      const { storeId, id } = seen?.secret ?? (await findId(place));
      leaving?.();
      await store.updateSecret(storeId, id, { value, comment, scopes });
    },

    async make(place, { value, comment }) {
      const { storeId, secret } = await find(place, notAsked);
      if (secret !== undefined) {
        await store.updateSecret(storeId, secret.id, { value, comment, scopes });
        return link(place, secret.id);
      }
      const created = await store.createSecret(storeId, { name: nameOf(place), value, comment, scopes });
      await link(place, made(place, created).id);
    },

    async makeCopy(place, from, comment) {
      const { storeId, secret } = await find(place, notAsked);
      if (secret !== undefined) return link(place, secret.id);
      const source = await findId(from);
      const copy = await store.duplicateSecret(storeId, source.id, { name: nameOf(place), comment, scopes });
      await link(place, made(place, copy).id);
    },

    async replaceByCopy(place, from, { comment, seen }) {
      const source = await findId(from);
      // Read by id, right before it is deleted.
      const { storeId, secret } = await find(place);
      if (secret !== undefined) {
        if (!isStill(secret, seen)) throw changedMeanwhile(place, secret);
        await store.deleteSecret(storeId, secret.id);
      } else if (seen !== undefined) throw notShown(place);
      const copy = await store.duplicateSecret(storeId, source.id, { name: nameOf(place), comment, scopes });
      made(place, copy, { retried: true });
    },

    async listAliases(gateway, provider) {
      const storeId = await storeIdOf(gateway);
      const [secrets, configs] = await Promise.all([store.listSecrets(storeId), gateways.listProviderConfigs(gateway)]);
      const prefix = secretName(gateway, provider, "");
      const found = new Map<string, { since: Date; comment?: string }>();
      for (const { name, modified, comment } of secrets) {
        if (!name.startsWith(prefix)) continue;
        found.set(name.slice(prefix.length), { since: modified, ...(comment === undefined ? {} : { comment }) });
      }
      for (const { alias, providerSlug, modified = new Date(0) } of configs) {
        if (providerSlug !== gatewaySlugs[provider]) continue;
        const known = found.get(alias);
        if (known === undefined) found.set(alias, { since: modified });
        else if (known.since < modified) known.since = modified;
      }
      return [...found].map(([alias, one]) => ({ alias, ...one }));
    },

    async remove(place) {
      // The config first: a config without its secret makes calls fail instead of falling back (field reports, 2026).
      const config = await findConfig(place);
      if (config !== undefined) await gateways.deleteProviderConfig(place.gateway, config.id);
      const storeId = await storeIdOf(place.gateway);
      const listed = await store.findSecret(storeId, nameOf(place));
      if (listed !== undefined) {
        await store.deleteSecret(storeId, listed.id);
        return true;
      }
      // A list may miss the secret, and the config still record its id.
      const id = config?.secretId;
      const recorded = id === undefined ? undefined : await store.getSecret(storeId, id);
      if (recorded?.name === nameOf(place)) await store.deleteSecret(storeId, recorded.id);
      return config !== undefined;
    },
  };
}

/**
 * What was read, or what was seen of the same before, where that is of a later write: then the read is an old one. Of
 * two with the same time, which may be in whole seconds, the read counts.
 */
export function later<Seen extends { modified: Date }>(read: Seen, before: Seen | undefined): Seen {
  return before !== undefined && before.modified > read.modified ? before : read;
}

/** What a read by id and a list tell of one secret. */
function agreed(read: Held | undefined, listed: Held | undefined): Held | undefined {
  if (listed === undefined || (read !== undefined && later(read, listed) === read)) return read;
  return { ...listed, contradicted: true };
}

/** What is about to be made is seldom there, and its creation says where it is: no list of configs is read for it. */
const notAsked = (): Promise<undefined> => Promise.resolve(undefined);

function isConfigOf(config: ProviderConfig, { provider, alias }: Place): boolean {
  return config.alias === alias && config.providerSlug === gatewaySlugs[provider];
}

function heldOf(storeId: string, secret: SecretRecord, config: ProviderConfig | undefined): Held {
  return {
    status: secret.status,
    modified: secret.modified,
    secret: { storeId, id: secret.id },
    ...(secret.comment === undefined ? {} : { comment: secret.comment }),
    ...(config === undefined ? { withoutConfig: true } : {}),
    ...(config?.secretPreview === undefined ? {} : { preview: config.secretPreview }),
    ...(config?.modified === undefined ? {} : { previewModified: config.modified }),
  };
}

/** What a read by id found, with what a list told of the provider config just before. */
function withConfigOf({ preview, previewModified, withoutConfig }: Held, read: Held): Held {
  const { status, modified, comment, secret } = read;
  return {
    status,
    modified,
    ...(comment === undefined ? {} : { comment }),
    ...(secret === undefined ? {} : { secret }),
    ...(preview === undefined ? {} : { preview }),
    ...(previewModified === undefined ? {} : { previewModified }),
    ...(withoutConfig === undefined ? {} : { withoutConfig }),
  };
}

async function orNotThere<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (error) {
    if (error instanceof RotationFailure && error.type === "SlotMissing") return undefined;
    throw error;
  }
}

function nameOf({ gateway, provider, alias }: Place): string {
  return secretName(gateway, provider, alias);
}

/** Whether nobody wrote since the secret was seen: a new value has a new time, a new secret a new id. */
function isStill({ id, modified }: SecretRecord, seen: Held | undefined): boolean {
  return seen?.secret?.id === id && seen.modified.getTime() === modified.getTime();
}

function changedMeanwhile(place: Place, { modified }: SecretRecord): RotationFailure {
  return new RotationFailure(
    "SlotChanged",
    `somebody wrote into secret ${nameOf(place)} at ${modified.toISOString()}: it is left as it is, look what it holds`,
  );
}

/** A list that misses what was just seen: once is no proof. */
function notShown(place: Place): RotationFailure {
  return new RotationFailure(
    "NotYetPropagated",
    `secret ${nameOf(place)} was there a moment ago, and lists do not show it: it is looked up again`,
  );
}

function made(place: Place, creation: Creation<SecretRecord>, full: { retried?: boolean } = {}): SecretRecord {
  switch (creation.kind) {
    case "created":
      return creation.made;
    case "taken":
      throw new RotationFailure(
        "NotYetPropagated",
        `secret ${nameOf(place)} exists, and lists do not show it yet: it is looked up again`,
      );
    case "full":
      throw new RotationFailure(
        "KeyLimitReached",
        `the secrets store has no room for ${nameOf(place)}: delete secrets nobody needs, or set aliases: never`,
        full,
      );
  }
}

function missing(place: Place, what: string): RotationFailure {
  return new RotationFailure(
    "SlotMissing",
    `gateway ${place.gateway} has no ${what.replace(/^a /, "")}: make it in the dashboard, or correct the inventory`,
  );
}
