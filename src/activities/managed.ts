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

/** What is known of a key: what its provider lists, or, where it cannot be asked, what the id itself tells. */
export async function lookUp({ provider }: SlotAccess, keyId: string): Promise<Partial<KeyRecord> | undefined> {
  if (canManage(provider)) return provider.findKey(keyId);
  const maskedValue = maskOfId(keyId);
  return maskedValue === undefined ? undefined : { maskedValue };
}
