import { Context } from "@temporalio/activity";

import { RotationFailure } from "../domain/failure.ts";
import { maskOfId } from "../domain/key-id.ts";
import { canManage, isByHand, type KeyRecord, type ManagedProvider } from "../providers/provider.ts";
import type { SlotAccess } from "./dependencies.ts";

/** The slot's provider with its admin credential. Fails with `InvalidInput` where none is configured. */
export function managed({ name, provider }: SlotAccess): ManagedProvider {
  if (canManage(provider)) return provider;
  throw new RotationFailure(
    "InvalidInput",
    `${missingOf({ provider }) ?? "there is no admin credential"}: ${name} needs it for this`,
  );
}

/** What is not configured, where the slot's provider has no admin credential. */
export function missingOf({ provider }: Pick<SlotAccess, "provider">): string | undefined {
  return isByHand(provider) ? provider.missing : undefined;
}

/**
 * The keys of these ids that their provider knows, by id. What is read can be behind, and lists miss rows: a key is not
 * there only where two reads by its id, some seconds apart, and a list do not show it. Only reads, so repeating is safe.
 */
export async function findSurely(
  { provider, secondLookMs }: { provider: ManagedProvider; secondLookMs: number },
  keyIds: string[],
): Promise<Map<string, KeyRecord>> {
  const found = new Map<string, KeyRecord>();
  const missing = (): string[] => keyIds.filter((id) => !found.has(id));
  const look = async (): Promise<void> => {
    for (const id of missing()) {
      const record = await provider.findKey(id);
      if (record !== undefined) found.set(id, record);
    }
  };
  await look();
  if (missing().length === 0) return found;
  await Context.current().sleep(secondLookMs);
  await look();
  if (missing().length === 0) return found;
  const listed = await provider.listKeys();
  for (const id of missing()) {
    const record = listed.find((key) => key.id === id);
    if (record !== undefined) found.set(id, record);
  }
  return found;
}

/** The key by its id; where that does not show it, and it is asked again, by the list. */
export async function findOrListed(
  provider: ManagedProvider,
  keyId: string,
  again: boolean,
): Promise<KeyRecord | undefined> {
  const record = await provider.findKey(keyId);
  return record !== undefined || !again ? record : (await provider.listKeys()).find(({ id }) => id === keyId);
}

/** What is known of a key: what its provider lists, or, where it cannot be asked, what the id itself tells. */
export async function lookUp({ provider }: SlotAccess, keyId: string): Promise<Partial<KeyRecord> | undefined> {
  if (canManage(provider)) return provider.findKey(keyId);
  const maskedValue = maskOfId(keyId);
  return maskedValue === undefined ? undefined : { maskedValue };
}
