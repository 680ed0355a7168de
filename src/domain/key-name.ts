import { providerNames, type Slot, shortRotationId } from "./slot.ts";

/**
 * The label a key of ours bears at its provider: who made it, for which slot, in which rotation. Parts are joined by
 * dots, which none of them contains, so that one installation never takes another's keys for its own.
 */
export function keyName(installation: string, slot: Slot, rotationId: string, suffix: string): string {
  return `${rotationPrefix(installation, slot, rotationId)}${suffix}`;
}

/** What the labels of all keys of one rotation begin with. */
export function rotationPrefix(installation: string, slot: Slot, rotationId: string): string {
  return `${slotPrefix(installation, slot)}${shortRotationId(rotationId)}.`;
}

/** What the labels of all keys of one slot begin with. */
export function slotPrefix(installation: string, { environment, provider, alias }: Slot): string {
  return `${installationPrefix(installation)}${environment}.${provider}.${alias}.`;
}

/** What the labels of all keys of one installation begin with. */
export function installationPrefix(installation: string): string {
  return `kt.${installation}.`;
}

/** What the label of a key of ours says. */
export interface KeyNameParts {
  installation: string;
  slot: Slot;
  /** The short id. */
  rotation: string;
  /** Which of the rotation's keys it is, from 1. */
  ordinal: number;
  /** Which attempt to make that key made it, from 1. */
  attempt: number;
}

const namePattern =
  /^kt\.(?<installation>[^.]+)\.(?<environment>[^.]+)\.(?<provider>[^.]+)\.(?<alias>[^.]+)\.(?<rotation>[^.]{1,8})\.(?<ordinal>[1-9]\d{0,5})-(?<attempt>[1-9]\d{0,5})$/;

/** Reads the whole label of a key that we made; undefined for any other, however it begins. */
export function parseKeyName(name: string): KeyNameParts | undefined {
  const { installation, environment, provider, alias, rotation, ordinal, attempt } =
    namePattern.exec(name)?.groups ?? {};
  const known = providerNames.find((one) => one === provider);
  if (installation === undefined || environment === undefined || alias === undefined) return undefined;
  if (known === undefined || rotation === undefined) return undefined;
  return {
    installation,
    slot: { environment, provider: known, alias },
    rotation,
    ordinal: Number(ordinal),
    attempt: Number(attempt),
  };
}

/** Whether the label is one that this rotation of this slot gives, and to which of its keys; undefined where it is not. */
export function ownKeyName(
  name: string,
  { installation, slot, rotationId }: { installation: string; slot: Slot; rotationId: string },
): Pick<KeyNameParts, "ordinal" | "attempt"> | undefined {
  const parts = parseKeyName(name);
  if (parts === undefined) return undefined;
  const { ordinal, attempt } = parts;
  return name === keyName(installation, slot, rotationId, `${ordinal}-${attempt}`) ? { ordinal, attempt } : undefined;
}
