import { canReadAll, type Held } from "../cloudflare/slot-secrets.ts";
import { RotationFailure } from "../domain/failure.ts";
import { idOfFingerprint, idOfMask, isOurId } from "../domain/key-id.ts";
import { disbelieveMark, type Mark, markToleranceMs, maskTells, masksAgree, parseMark } from "../domain/mark.ts";
import type { KeyRecord } from "../providers/provider.ts";
import type { OfRotation } from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { lookUp } from "./managed.ts";

/** Which key a slot holds, and how that is known. */
export interface HeldKey {
  id: string;
  how: "mark" | "preview" | "operator" | "last result";
  since?: Date;
}

/**
 * Finds out which key a slot holds: by its mark, else by what the operator says, else by the one key of the provider
 * whose masked value fits the gateway's preview. Fails with `InvalidInput` when none or several fit, or when the
 * operator's word contradicts what is seen; nothing is changed. Without `keys`, since no admin credential lists them,
 * the operator's word is taken as it is, and a key that only the preview shows is named after its ending.
 */
export function identifyHeldKey(
  name: string,
  held: Held,
  keys: KeyRecord[] | undefined,
  heldKeyId: string | undefined,
): HeldKey & { warnings: string[] } {
  const mark = parseMark(held.comment);
  const doubt = mark === undefined ? "the secret bears no mark of keyturn" : doubtOf(mark, held, keys);
  if (mark !== undefined && doubt === undefined) {
    if (heldKeyId !== undefined && heldKeyId !== mark.keyId) {
      throw invalid(`${name} holds ${mark.keyId} by its mark, not ${heldKeyId}: start again without the held key`);
    }
    return { id: mark.keyId, how: "mark", since: mark.at, warnings: [] };
  }

  if (keys === undefined) return heldKeyByHand(name, held, { heldKeyId, doubt, marked: mark !== undefined });
  const alive = keys.filter(({ state }) => state === "active");
  if (heldKeyId !== undefined) {
    const said = keys.find(({ id }) => id === heldKeyId);
    if (said === undefined) throw invalid(`the provider has no key ${heldKeyId}: look which key ${name} holds`);
    if (contradicts(held, said)) {
      throw invalid(`the gateway's preview for ${name} is not that of ${heldKeyId}: look which key it holds`);
    }
    return { id: said.id, how: "operator", since: said.createdAt, warnings: [] };
  }

  const preview = currentPreview(held);
  const fits = ({ maskedValue }: KeyRecord): boolean =>
    preview !== undefined && maskedValue !== undefined && masksAgree(preview, maskedValue);
  const fitting = alive.filter(fits);
  // After a cut the slot goes on holding the dead key.
  const [match, ...others] = fitting.length > 0 ? fitting : keys.filter(fits);
  if (match !== undefined && others.length === 0) {
    const warnings = mark === undefined ? [] : [`the mark is not believed: ${doubt}`];
    return { id: match.id, how: "preview", since: match.createdAt, warnings };
  }
  const candidates = (fitting.length === 0 ? alive : fitting).map(({ id, name: label }) => `${id} (${label})`);
  throw invalid(
    `which key ${name} holds is unknown: ${doubt}, and ${whyNotByPreview(preview, fitting)}; ` +
      `start with --held-key and one of: ${candidates.slice(0, 10).join(", ") || "none is alive"}`,
  );
}

/** The held key where no provider lists keys, and no mark that can be believed names it. */
function heldKeyByHand(
  name: string,
  held: Held,
  { heldKeyId, doubt, marked }: { heldKeyId: string | undefined; doubt: string | undefined; marked: boolean },
): HeldKey & { warnings: string[] } {
  const warnings = marked ? [`the mark is not believed: ${doubt}`] : [];
  if (heldKeyId !== undefined) return { id: heldKeyId, how: "operator", warnings };
  const preview = currentPreview(held);
  const id = preview === undefined ? undefined : idOfMask(preview);
  if (id !== undefined) return { id, how: "preview", warnings };
  throw invalid(
    `which key ${name} holds is unknown: ${doubt}, and ${whyNotByPreview(undefined, [])}; ` +
      "start with --held-key and the id or the name that the provider's console shows for it",
  );
}

/**
 * Fails with `SlotChanged` unless the slot still holds the key this rotation installed, by a mark that can be believed.
 * Where no marks are kept, there is nothing to look at, and somebody's edit goes unseen.
 */
export async function requireInstalled(access: SlotAccess, order: OfRotation, keyId: string): Promise<void> {
  if (!access.secrets.keepsMarks) return;
  const doubt = await doubtAboutInstalled(access, order, keyId);
  if (doubt === undefined) return;
  throw new RotationFailure(
    "SlotChanged",
    `somebody changed ${access.name} meanwhile: ${doubt}; look what it holds, both keys stay alive`,
  );
}

async function doubtAboutInstalled(
  access: SlotAccess,
  { rotationId }: OfRotation,
  keyId: string,
): Promise<string | undefined> {
  const held = await readIfThere(access);
  if (held === undefined) return "its secret, its provider config or its gateway is not there any more";
  const mark = parseMark(held.comment);
  if (mark?.rotationId !== rotationId || mark.keyId !== keyId) return "its mark is no longer this rotation's";
  return doubtAbout(access, mark, held);
}

/** Fails with `SlotChanged` when any slot of the inventory holds the key, as far as marks and previews tell. */
export async function requireHeldByNone(deps: Dependencies, access: SlotAccess, keyId: string): Promise<void> {
  const [holder] = await findHolders(deps, access, keyId);
  if (holder === undefined) return;
  throw new RotationFailure("SlotChanged", `${holder} holds ${keyId}: it is not revoked; rotate ${holder} first`);
}

/** A slot and what tells which key it holds: what lies in it, or, where no marks are kept, its last result. */
export interface SeenSlot {
  name: string;
  held?: Held;
  lastInstalled?: string;
}

/**
 * What all slots of the provider hold, asked for once in an attempt: by hand a key can get into any of them. The slot
 * itself is read as fresh as can be, the others by their account's lists. A slot whose secret is not there holds nothing.
 * Where no marks are kept, another slot's last result tells; the slot's own is out of date while it is rotated, so its
 * callers have to know.
 */
export async function lookAtSlots(deps: Dependencies, access: SlotAccess): Promise<SeenSlot[]> {
  const neighbours = deps.allSlots().filter(({ slot }) => slot.provider === access.slot.provider);
  const listed = await readMany(neighbours.filter(({ name }) => name !== access.name));
  const seen: SeenSlot[] = [];
  for (const neighbour of neighbours) {
    const { name } = neighbour;
    if (!neighbour.secrets.keepsMarks) {
      const lastInstalled = name === access.name ? undefined : await deps.runs.lastInstalledKey(name);
      seen.push({ name, ...(lastInstalled === undefined ? {} : { lastInstalled }) });
      continue;
    }
    const held = listed.has(name) ? listed.get(name) : await readIfThere(neighbour);
    seen.push({ name, ...(held === undefined ? {} : { held }) });
  }
  return seen;
}

/** What those of the slots hold that lists tell of, by name: a few calls for each account, however many slots. */
export async function readMany(slots: SlotAccess[]): Promise<Map<string, Held | undefined>> {
  const found = new Map<string, Held | undefined>();
  for (const account of new Set(slots.map((slot) => slot.account))) {
    const there = slots.filter((slot) => slot.account === account && canReadAll(slot.secrets));
    const [first] = there;
    if (first === undefined || !canReadAll(first.secrets)) continue;
    const held = await first.secrets.readAll(there.map(({ place }) => place));
    for (const [index, { name }] of there.entries()) found.set(name, held[index]);
  }
  return found;
}

/** The slots that hold the key, as far as marks and previews tell; in doubt they do. `seen` where it was looked already. */
export async function findHolders(
  deps: Dependencies,
  access: SlotAccess,
  keyId: string,
  seen?: SeenSlot[],
): Promise<string[]> {
  const key = await lookUp(access, keyId);
  return (seen ?? (await lookAtSlots(deps, access)))
    .filter(({ held, lastInstalled }) => lastInstalled === keyId || (held !== undefined && mayHold(held, keyId, key)))
    .map(({ name }) => name);
}

/**
 * Whether the slot may hold the key. A mark that names it counts unless somebody wrote since and the preview taken then
 * is another key's. A preview like the key counts unless a mark that can be believed is younger than it.
 */
export function mayHold(held: Held, keyId: string, key: Partial<KeyRecord> | undefined): boolean {
  const { modified, preview, previewModified = new Date(0) } = held;
  const mark = parseMark(held.comment);
  const believed = mark !== undefined && disbelieveMark(mark, { secretModified: modified }) === undefined;
  const mask = key?.maskedValue;
  const alike =
    preview === undefined || mask === undefined || !maskTells(preview) ? undefined : masksAgree(preview, mask);
  const names = mark?.keyId === keyId || (mark !== undefined && idOfFingerprint(mark.fingerprint) === keyId);
  if (names) return believed || alike !== false || previewModified < modified;
  // A mark that names no id of the provider's may mean any key that it lists, unless the preview tells.
  if (believed && isOurId(mark.keyId) && key?.id !== undefined) {
    return alike === undefined || previewModified < mark.at || alike;
  }
  return alike === true && !(believed && previewModified < mark.at);
}

/**
 * Whether what is seen of a slot rules out that it holds the key: a mark that can be believed and names another one, or
 * a preview of its present value that is not this key's. Where nothing tells, it may hold any. `keys` is what the
 * provider lists.
 */
export function rulesOut(held: Held, key: KeyRecord, keys: KeyRecord[]): boolean {
  const mark = parseMark(held.comment);
  if (mark !== undefined && doubtOf(mark, held, keys) === undefined) return mark.keyId !== key.id;
  const preview = currentPreview(held);
  return preview !== undefined && key.maskedValue !== undefined && !masksAgree(preview, key.maskedValue);
}

/** What the slot holds, or nothing when its secret or provider config is not there. */
export async function readIfThere(access: SlotAccess): Promise<Held | undefined> {
  try {
    return await access.secrets.read(access.place);
  } catch (error) {
    if (error instanceof RotationFailure && error.type === "SlotMissing") return undefined;
    throw error;
  }
}

/** Why the mark does not speak of what the slot holds now, or nothing. */
export async function doubtAbout(access: SlotAccess, mark: Mark, held: Held): Promise<string | undefined> {
  const key = await lookUp(access, mark.keyId);
  return disbelieveMark(mark, evidence(held, key));
}

function doubtOf(mark: Mark, held: Held, keys: KeyRecord[] | undefined): string | undefined {
  if (keys !== undefined && isOurId(mark.keyId)) {
    return "its key was handed in while no admin credential was configured, so its id is not the provider's";
  }
  return disbelieveMark(
    mark,
    evidence(
      held,
      keys?.find(({ id }) => id === mark.keyId),
    ),
  );
}

function evidence(held: Held, key: Partial<KeyRecord> | undefined) {
  return {
    secretModified: held.modified,
    ...(held.preview === undefined ? {} : { preview: held.preview }),
    ...(held.previewModified === undefined ? {} : { previewModified: held.previewModified }),
    ...(key?.maskedValue === undefined ? {} : { maskedValue: key.maskedValue }),
  };
}

function contradicts(held: Held, { maskedValue }: KeyRecord): boolean {
  const preview = currentPreview(held);
  return preview !== undefined && maskedValue !== undefined && !masksAgree(preview, maskedValue);
}

/** The preview, where it tells keys apart and is not from before the secret's last write: then it is another value's. */
function currentPreview({ preview, previewModified, modified }: Held): string | undefined {
  if (preview === undefined || !maskTells(preview)) return undefined;
  const old = previewModified !== undefined && modified.getTime() - previewModified.getTime() > markToleranceMs;
  return old ? undefined : preview;
}

function whyNotByPreview(preview: string | undefined, fitting: KeyRecord[]): string {
  if (preview === undefined) return "the gateway has no preview of its present value";
  return `${fitting.length === 0 ? "no key" : "more than one key"} fits the gateway's preview`;
}

function invalid(message: string): RotationFailure {
  return new RotationFailure("InvalidInput", message);
}
