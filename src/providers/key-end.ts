/**
 * Ending a key, apart from all else a provider does: who holds one of these can end any key that its admin credential
 * reaches. The wiring hands them to activities/revocation.ts alone, which knows when a key may be ended; the linter
 * forbids the import elsewhere.
 */
export interface KeyEnd {
  /**
   * Ends the key for good: its provider took it, or shows it ended already. Fails with `KeyUnknown` where the provider
   * knows no such key: only who has seen it there before may take that for gone.
   */
  revokeKey(keyId: string): Promise<void>;
}

/** Switching a key off and on again, where a provider can. */
export interface KeySwitch {
  /** Succeeds also when the key is already off. Fails with `KeyUnknown` like `revokeKey`. */
  disableKey(keyId: string): Promise<void>;
  /** Succeeds also when the key is already on. */
  enableKey(keyId: string): Promise<void>;
}

export type Ending = KeyEnd & Partial<KeySwitch>;

/** How to end keys of a slot's project; nothing where no admin credential is configured. */
export type Endings = (slot: string) => Ending | undefined;

export function canSwitch(ending: Ending): ending is KeyEnd & KeySwitch {
  return ending.disableKey !== undefined && ending.enableKey !== undefined;
}
