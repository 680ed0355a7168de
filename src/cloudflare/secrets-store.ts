import { z } from "zod";
import { RotationFailure } from "../domain/failure.ts";
import type { Exchange } from "../http.ts";
import type { Redacted } from "../redacted.ts";
import {
  type ControlPlaneOptions,
  type Creation,
  createControlPlane,
  creationOf,
  mentions,
  says,
} from "./control-plane.ts";

/**
 * Cloudflare's Secrets Store, where a gateway finds the keys it serves.
 * developers.cloudflare.com/secrets-store and the types of npm cloudflare 7.3.0 (2026-10-02).
 *
 * Can: make, list, overwrite, copy and delete secrets; tell how many are left.
 * Cannot: read a value back, rename a secret, or tell when every edge has a new value (`status` turns `active` first).
 * One store per account; 100 secrets in it (2026-09-25): ask `quota()`.
 */
export interface SecretRecord {
  id: string;
  name: string;
  /** `pending`, `active` or `deleted`: a fresh value is usable from `active` on, everywhere only some time later. */
  status: string;
  created: Date;
  modified: Date;
  comment?: string;
}

export interface Store {
  id: string;
  name: string;
}

const read = "Secrets Store Read";
const write = "Secrets Store Write";
const secrets = "/secrets_store/stores/{store}/secrets";

/** Times are RFC 3339. `comment` is null when unset, seen live by a third party in 2026. */
const secretRow = z
  .object({
    id: z.string(),
    name: z.string(),
    status: z.string(),
    created: z.coerce.date(),
    modified: z.coerce.date(),
    comment: z.string().nullish(),
  })
  .transform(({ comment, ...secret }): SecretRecord => (typeof comment === "string" ? { ...secret, comment } : secret));

const quotaResult = z.object({ secrets: z.object({ quota: z.number(), usage: z.number() }) });
const storeRow = z.object({ id: z.string(), name: z.string() });

export function createSecretsStore(options: ControlPlaneOptions) {
  const api = createControlPlane(options);

  async function listSecrets(storeId: string, doing: string): Promise<SecretRecord[]> {
    const rows = await api.list(
      {
        method: "GET",
        route: secrets,
        path: { store: storeId },
        // A settled order, so that no row slips between two pages. Not `search`: what it does with `_` is not written down.
        query: { order: "name", direction: "asc" },
        doing,
        right: read,
        failure: (refusal) => storeMissing(refusal, storeId),
      },
      secretRow,
    );
    // A delete is only accepted (202): its row may stay a while.
    return rows.filter(({ status }) => status !== "deleted");
  }

  return {
    /** All secrets of the store. A list can lag a write by seconds. */
    async listSecrets(storeId: string): Promise<SecretRecord[]> {
      return listSecrets(storeId, "while listing the secrets of the store");
    },

    /** How many secrets the account may hold and holds. */
    async quota(): Promise<{ quota: number; usage: number }> {
      const doing = "while reading the quota of the secrets store";
      return (await api.call({ method: "GET", route: "/secrets_store/quota", doing, right: read }, quotaResult))
        .secrets;
    },

    /** The account's stores: one, since it may have no more. */
    async stores(): Promise<Store[]> {
      const doing = "while listing the secrets stores";
      return api.list({ method: "GET", route: "/secrets_store/stores", doing, right: read }, storeRow);
    },

    /** The secret of exactly this name, or nothing. A list can lag a write by seconds. */
    async findSecret(storeId: string, name: string): Promise<SecretRecord | undefined> {
      const rows = await listSecrets(storeId, `while looking for secret ${name}`);
      return rows.find((secret) => secret.name === name);
    },

    /** The secret with this id, or nothing. */
    async getSecret(storeId: string, id: string): Promise<SecretRecord | undefined> {
      return api.call(
        {
          method: "GET",
          route: `${secrets}/{secret}`,
          path: { store: storeId, secret: id },
          doing: `while reading secret ${id}`,
          right: read,
          failure: (refusal) => storeMissing(refusal, storeId),
        },
        secretRow,
        whenGone,
      );
    },

    /**
     * Makes a secret. A lost answer leaves one that `findSecret` shows, after which this says `taken`: repeating makes
     * no second one.
     */
    async createSecret(
      storeId: string,
      secret: { name: string; value: Redacted; scopes: string[]; comment: string },
    ): Promise<Creation<SecretRecord>> {
      return api.call(
        {
          method: "POST",
          route: secrets,
          path: { store: storeId },
          // An array in, an array out.
          body: [secret],
          doing: `while making secret ${secret.name}`,
          right: write,
          failure: (refusal) => storeMissing(refusal, storeId),
        },
        creationOf(z.tuple([secretRow], z.unknown()).transform(([made]) => made)),
        whenNotMade,
      );
    },

    /**
     * Writes value and comment in one request. Everything that uses the secret gets the new value. Repeating it with
     * the same value changes only `modified`. Fails with `SlotMissing` when the secret is not there.
     */
    async updateSecret(
      storeId: string,
      id: string,
      change: { value?: Redacted; comment?: string; scopes: string[] },
    ): Promise<SecretRecord> {
      return api.call(
        {
          method: "PATCH",
          route: `${secrets}/{secret}`,
          path: { store: storeId, secret: id },
          body: change,
          doing: `while writing secret ${id}`,
          right: write,
          failure: (refusal) => secretMissing(refusal, id) ?? storeMissing(refusal, storeId),
        },
        secretRow,
      );
    },

    /** Deletes the secret. Succeeds also when it is already gone. Only accepted: its row may stay in lists a while. */
    async deleteSecret(storeId: string, id: string): Promise<void> {
      await api.tell(
        {
          method: "DELETE",
          route: `${secrets}/{secret}`,
          path: { store: storeId, secret: id },
          doing: `while deleting secret ${id}`,
          right: write,
          failure: (refusal) => storeMissing(refusal, storeId),
        },
        whenGone,
      );
    },

    /**
     * Copies a secret under another name; its value never leaves Cloudflare. Repeating says `taken`. Fails with
     * `SlotMissing` when there is nothing to copy.
     */
    async duplicateSecret(
      storeId: string,
      id: string,
      copy: { name: string; scopes: string[]; comment: string },
    ): Promise<Creation<SecretRecord>> {
      return api.call(
        {
          method: "POST",
          route: `${secrets}/{secret}/duplicate`,
          path: { store: storeId, secret: id },
          body: copy,
          doing: `while copying secret ${id} to ${copy.name}`,
          right: write,
          failure: (refusal) => secretMissing(refusal, id) ?? storeMissing(refusal, storeId),
        },
        creationOf(secretRow),
        whenNotMade,
      );
    },
  };
}

export type SecretsStore = ReturnType<typeof createSecretsStore>;

// Codes and words: what the live tests of npm @distilled.cloud/cloudflare caught, 2026. Statuses are not written down.

const isGone = (refusal: Exchange): boolean => says(refusal, 1001, /secret[_ ]not[_ ]found/i);
const isTaken = (refusal: Exchange): boolean => says(refusal, 1003, /secret[_ ]name[_ ]already[_ ]exists/i);
/** The code of a full store is not known (2026-11), so its words must do. */
const isFull = (refusal: Exchange): boolean => mentions(refusal, /quota|maximum[_ ]secrets|secrets?[_ ]limit/i);

const whenGone = (refusal: Exchange) => (isGone(refusal) ? { value: undefined } : undefined);

function whenNotMade(refusal: Exchange): { value: Creation<SecretRecord> } | undefined {
  if (isTaken(refusal)) return { value: { kind: "taken" } };
  return isFull(refusal) ? { value: { kind: "full" } } : undefined;
}

function secretMissing(refusal: Exchange, id: string): RotationFailure | undefined {
  if (!isGone(refusal)) return undefined;
  return new RotationFailure(
    "SlotMissing",
    `secret ${id} is not in the store: look whether somebody deleted it${refusal.trace}`,
  );
}

function storeMissing(refusal: Exchange, storeId: string): RotationFailure | undefined {
  if (!says(refusal, 1001, /store[_ ]not[_ ]found/i)) return undefined;
  return new RotationFailure(
    "SlotMissing",
    `secrets store ${storeId} is not there: check the gateway's store${refusal.trace}`,
  );
}
