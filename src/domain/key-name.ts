import { type Slot, shortRotationId } from "./slot.ts";

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
