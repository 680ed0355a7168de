import { Context } from "@temporalio/activity";

import { canReadAll, type Held, later } from "../cloudflare/slot-secrets.ts";
import { inMs } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import {
  type AskedKey,
  currentPreview,
  doubtMark,
  judgeHeld,
  type Judgement,
  type Ours,
  type Seen,
  type SeenSecret,
} from "../domain/held.ts";
import { idOfMask, isOurId } from "../domain/key-id.ts";
import {
  type Mark,
  maskFits,
  markToleranceMs,
  maskTells,
  masksAgree,
  noFingerprint,
  parseMark,
} from "../domain/mark.ts";
import { canManage, canReadValues, type KeyRecord, type Standing } from "../providers/provider.ts";
import type { Redacted } from "../redacted.ts";
import type { Holders, HoldersOrder, Inspection, OfRotation } from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { lookUp } from "./managed.ts";
import { orWhy } from "./or-why.ts";

/** The most keys whose values are read to find out which of them a slot holds. */
const mostValues = 50;

export const heldKeyActivities = (deps: Dependencies) => ({
  /**
   * Which slots hold each of the keys, asked by reads at this moment. Only reads, so repeating is safe. What cannot be
   * looked at, also not after a few attempts, is named as unknown.
   */
  async lookAtHolders({ slot, rotationId, keyIds, installedKeyId }: HoldersOrder): Promise<Holders[]> {
    const access = deps.slotAccess(slot);
    const keys: AskedKey[] = [];
    for (const id of keyIds) keys.push(await askedAnywhere(deps, access, id));
    const ours = installedKeyId === undefined ? undefined : { rotationId, keyId: installedKeyId };
    const holders = await whoHolds(deps, access, keys, { ours, patient: true });
    return keyIds.map((keyId) => ({ keyId, yes: [], unknown: [], ...holders.get(keyId) }));
  },
});

// ---- which key a slot holds ----------------------------------------------------------------------------------------

/** Which key a slot holds, and how that is known. */
export interface HeldKey {
  id: string;
  how: Inspection["held"]["how"];
  since?: Date;
  /** What to say about how it is known, and about what was left out of account. */
  warnings: string[];
}

/** What a provider can add to its list of keys. */
export interface KeyLore {
  /** Values that the provider showed again, by key id. */
  values?: ReadonlyMap<string, Redacted>;
  /** Whose a key is, where the provider binds keys to accounts. */
  standingOf?: (key: KeyRecord) => Standing;
}

/**
 * Finds out which key a slot holds, like `identifyHeldKey`, and asks the provider for the values of its keys where it
 * shows them again and nothing else tells. Only reads.
 */
export async function findHeldKey(
  access: SlotAccess,
  held: Held,
  keys: KeyRecord[] | undefined,
  heldKeyId: string | undefined,
): Promise<HeldKey> {
  const { name, provider } = access;
  if (keys === undefined || !canReadValues(provider)) return identifyHeldKey(name, held, keys, heldKeyId);
  const standingOf = (key: KeyRecord): Standing => provider.standingOf(key);
  const values = new Map<string, Redacted>();
  const readAll = async (some: KeyRecord[]): Promise<void> => {
    for (const { id } of some.slice(0, mostValues)) {
      const value = await provider.readValue(id);
      if (value !== undefined) values.set(id, value);
    }
  };
  const mark = parseMark(held.comment);
  const marked = keys.filter(({ id, state }) => id === mark?.keyId && state === "active");
  await readAll(marked);
  const seen = seenSecret(held, marked[0] === undefined ? undefined : maskOf(marked[0], values));
  if (doubtMark(seen) === undefined) return identifyHeldKey(name, held, keys, heldKeyId, { values, standingOf });
  await readAll(candidatesOf(keys, standingOf));
  // Another account's key may lie in the slot: then that is said, instead of "none fits".
  if (![...values.values()].some((value) => agreesWithMarkOrPreview(seen, value))) {
    await readAll(keys.filter((key) => key.state === "active" && standingOf(key) === "foreign"));
  }
  return identifyHeldKey(name, held, keys, heldKeyId, { values, standingOf });
}

/**
 * `findHeldKey` where the list `keys` may miss the key: one that it does not show, and a slot whose key nothing tells, are
 * looked at once more, some seconds later. Also answers with the keys that were seen by then.
 */
export async function findHeldSurely(
  access: SlotAccess,
  held: Held,
  keys: KeyRecord[] | undefined,
  heldKeyId: string | undefined,
): Promise<{ key: HeldKey; keys: KeyRecord[] | undefined }> {
  const { provider } = access;
  const look = (among: KeyRecord[] | undefined): Promise<HeldKey> => findHeldKey(access, held, among, heldKeyId);
  if (keys === undefined || !canManage(provider)) return { key: await look(keys), keys };
  let key: HeldKey | undefined;
  try {
    key = await look(keys);
  } catch (error) {
    if (!(error instanceof RotationFailure) || error.type !== "InvalidInput") throw error;
  }
  if (key !== undefined && (isOurId(key.id) || keys.some(({ id }) => id === key?.id))) return { key, keys };
  await Context.current().sleep(access.secondLookMs);
  const named = key?.id ?? heldKeyId;
  const byId = named === undefined || isOurId(named) ? undefined : await provider.findKey(named);
  const seen = [...(byId === undefined ? [] : [byId]), ...(await provider.listKeys()), ...keys];
  const all = seen.filter(({ id }, index) => seen.findIndex((one) => one.id === id) === index);
  return { key: key ?? (await look(all)), keys: all };
}

/**
 * Finds out which key a slot holds: by its mark, else by what the operator says, else by the one key of the provider
 * whose value or masked value fits the gateway's preview. Fails with `InvalidInput` when none or several fit, or when
 * the operator's word contradicts what is seen; nothing is changed. Without `keys`, since no admin credential lists
 * them, the operator's word is taken as it is, and a key that only the preview shows is named after its ending.
 */
export function identifyHeldKey(
  name: string,
  held: Held,
  keys: KeyRecord[] | undefined,
  heldKeyId: string | undefined,
  { values = new Map(), standingOf = () => "own" }: KeyLore = {},
): HeldKey {
  const mark = parseMark(held.comment);
  const marked = keys?.find(({ id }) => id === mark?.keyId);
  const seen = seenSecret(held, marked === undefined ? undefined : maskOf(marked, values));
  const handedInBlind = keys !== undefined && mark !== undefined && isOurId(mark.keyId);
  const doubt = handedInBlind
    ? "its key was handed in while no admin credential was configured, so its id is not the provider's"
    : doubtMark(seen);
  if (mark !== undefined && doubt === undefined) {
    if (heldKeyId !== undefined && heldKeyId !== mark.keyId) {
      throw invalid(`${name} holds ${mark.keyId} by its mark, not ${heldKeyId}: start again without the held key`);
    }
    if (marked !== undefined) requireOwn(name, marked, standingOf);
    return { id: mark.keyId, how: "mark", since: mark.at, warnings: [] };
  }

  const warnings = mark === undefined ? [] : [`the mark is not believed: ${doubt}`];
  const preview = currentPreview(seen);
  if (keys === undefined) return heldKeyByHand(name, { preview, heldKeyId, doubt, warnings });
  /** Whether the key has the value that is in the secret now; undefined where nothing tells. */
  const fits = (key: KeyRecord): boolean | undefined => {
    if (preview === undefined) return undefined;
    const value = values.get(key.id);
    if (value !== undefined) return maskFits(preview, value.reveal());
    const mask = key.maskedValue;
    return mask === undefined || !maskTells(mask) ? undefined : masksAgree(preview, mask);
  };
  if (heldKeyId !== undefined) {
    const said = keys.find(({ id }) => id === heldKeyId);
    if (said === undefined) throw invalid(`the provider has no key ${heldKeyId}: look which key ${name} holds`);
    requireOwn(name, said, standingOf);
    if (fits(said) === false) {
      throw invalid(`the gateway's preview for ${name} is not that of ${heldKeyId}: look which key it holds`);
    }
    if (held.modified.getTime() + markToleranceMs < said.createdAt.getTime()) {
      warnings.push(
        `${said.id} was made at ${said.createdAt.toISOString()}, after the secret of ${name} was last written (${held.modified.toISOString()}): look again which key it holds`,
      );
    }
    return { id: said.id, how: "operator", since: said.createdAt, warnings };
  }

  const alive = keys.filter(({ state }) => state === "active");
  const candidates = candidatesOf(keys, standingOf);
  const byValue = candidates.filter((key) => values.has(key.id) && agreesWithMarkOrPreview(seen, values.get(key.id)));
  const fitting = byValue.length > 0 ? byValue : candidates.filter((key) => fits(key) === true);
  // After a cut the slot goes on holding the dead key.
  const [match, ...others] =
    fitting.length > 0 ? fitting : keys.filter((key) => fits(key) === true && standingOf(key) !== "foreign");
  if (match !== undefined && others.length === 0) {
    const how = values.has(match.id) ? "value" : "preview";
    return { id: match.id, how, since: match.createdAt, warnings };
  }
  const foreign = alive.find((key) => fits(key) === true && standingOf(key) === "foreign");
  if (foreign !== undefined) requireOwn(name, foreign, standingOf);
  const why = preview === undefined ? "the gateway has no preview of its present value" : whyNot(fitting);
  const likely = marked !== undefined && candidates.includes(marked) && fits(marked) !== false ? marked : undefined;
  const rest = (fitting.length === 0 ? candidates : fitting).filter((key) => key !== likely);
  const named = rest.map(({ id, name: label }) => `${id} (${label})`).slice(0, 10);
  throw invalid(
    `which key ${name} holds is unknown: ${doubt}, and ${why}; ` +
      (likely === undefined
        ? `start with --held-key and one of: ${named.join(", ") || "none is alive"}`
        : `if that edit left the value alone, start with --held-key ${likely.id} (${likely.name}); else with one of: ${named.join(", ") || "no other is alive"}`),
  );
}

/** The live keys that a slot can hold: those of its own account first, then those of none. */
function candidatesOf(keys: KeyRecord[], standingOf: (key: KeyRecord) => Standing): KeyRecord[] {
  const alive = keys.filter(({ state }) => state === "active");
  return (["own", "unbound"] as const).flatMap((standing) => alive.filter((key) => standingOf(key) === standing));
}

/**
 * Whether a key's own value is what the secret holds: it fits the preview of the present value; or it is the mark's, and
 * fits a preview that was taken since the mark was written, so that an edit since left the value alone.
 */
function agreesWithMarkOrPreview(seen: SeenSecret, value: Redacted | undefined): boolean {
  const { preview, previewModified, mark } = seen;
  if (value === undefined || preview === undefined || previewModified === undefined) return false;
  if (!maskTells(preview) || !maskFits(preview, value.reveal())) return false;
  if (previewModified >= seen.modified) return true;
  return mark !== undefined && mark.fingerprint === value.fingerprint() && previewModified >= mark.at;
}

function requireOwn(name: string, key: KeyRecord, standingOf: (key: KeyRecord) => Standing): void {
  if (standingOf(key) !== "foreign") return;
  throw invalid(
    `key ${key.id} belongs to ${key.owner?.id ?? "another account"}, not to the account of ${name}: correct the slot's service account in the inventory`,
  );
}

/** The held key where no provider lists keys, and no mark that can be believed names it. */
function heldKeyByHand(
  name: string,
  {
    preview,
    heldKeyId,
    doubt,
    warnings,
  }: { preview: string | undefined; heldKeyId: string | undefined; doubt: string | undefined; warnings: string[] },
): HeldKey {
  if (heldKeyId !== undefined) return { id: heldKeyId, how: "operator", warnings };
  const id = preview === undefined ? undefined : idOfMask(preview);
  if (id !== undefined) return { id, how: "preview", warnings };
  throw invalid(
    `which key ${name} holds is unknown: ${doubt}, and the gateway has no preview of its present value; ` +
      "start with --held-key and the id or the name that the provider's console shows for it",
  );
}

function whyNot(fitting: KeyRecord[]): string {
  return `${fitting.length === 0 ? "no key" : "more than one key"} fits the gateway's preview`;
}

// ---- does the slot still hold what this rotation wrote ---------------------------------------------------------------

/**
 * Fails with `SlotChanged` unless the slot still holds the key this rotation installed, by a mark that can be believed.
 * A single answer may be stale: only two of them, some seconds apart, are believed. Where no marks are kept, there is
 * nothing to look at, and somebody's edit goes unseen. Returns what it saw.
 */
export async function requireInstalled(
  access: SlotAccess,
  order: OfRotation,
  keyId: string,
): Promise<Held | undefined> {
  if (!access.secrets.keepsMarks) return undefined;
  const first = await installedOrWhy(access, order, keyId);
  if (first.why === undefined) return first.held;
  await Context.current().sleep(access.secondLookMs);
  const second = await installedOrWhy(access, order, keyId);
  if (second.why === undefined) return second.held;
  throw new RotationFailure(
    "SlotChanged",
    `somebody changed ${access.name} meanwhile: ${second.why}; look what it holds, both keys stay alive`,
  );
}

type InstalledOrWhy = { held: Held; why?: undefined } | { why: string };

async function installedOrWhy(access: SlotAccess, { rotationId }: OfRotation, keyId: string): Promise<InstalledOrWhy> {
  const held = await readIfThere(access);
  if (held === undefined) return { why: "its secret, its provider config or its gateway is not there any more" };
  const mark = parseMark(held.comment);
  if (mark?.rotationId !== rotationId || mark.keyId !== keyId) return { why: "its mark is no longer this rotation's" };
  const why = await doubtAbout(access, held);
  return why === undefined ? { held } : { why };
}

/** Why the slot's mark does not speak of what it holds now; nothing where it does. */
async function doubtAbout(access: SlotAccess, held: Held): Promise<string | undefined> {
  const mark = parseMark(held.comment);
  if (mark === undefined) return "the secret bears no mark of keyturn";
  const { preview, previewModified, modified } = held;
  const younger = Math.min(mark.at.getTime(), modified.getTime());
  // Only a preview that was taken since speaks for or against the mark; the key need not be looked up for an older one.
  const speaks = preview !== undefined && previewModified !== undefined && previewModified.getTime() >= younger;
  return doubtMark(seenSecret(held, speaks ? (await askedKey(access, mark.keyId)).maskedValue : undefined));
}

/**
 * What the slot holds. Fails with `SlotMissing` only where two reads, some seconds apart, do not find it: one may be
 * stale. So may an answer that does not fit what the caller knows; then the second read counts.
 */
export async function readSurely(access: SlotAccess, fits: (held: Held) => boolean = () => true): Promise<Held> {
  const first = await readIfThere(access);
  if (first !== undefined && fits(first)) return first;
  await Context.current().sleep(access.secondLookMs);
  return access.secrets.read(access.place);
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

// ---- who holds a key -------------------------------------------------------------------------------------------------

export interface HoldersOptions {
  /** What this rotation wrote into `access`, or began to write. */
  ours?: Ours | undefined;
  /** Whether a slot that cannot be looked at is named after a few attempts, instead of failing on and on. */
  patient?: boolean;
}

/** Who holds one key. A slot in neither list holds another one. */
export type HeldBy = Omit<Holders, "keyId">;

/**
 * Which slots hold each of the keys, at this moment: by hand a key can get into any slot of its provider. One list of
 * each account rules out the slots whose mark is believed and names another key; the rest, and the slot itself, are read
 * by the id of their secret. A slot's secret is gone only where it was not found twice, some seconds apart, and where a list
 * and the read do not say the same of a key, what was written last counts, and is read once more.
 */
export async function whoHolds(
  deps: Dependencies,
  access: SlotAccess,
  keys: AskedKey[],
  options: HoldersOptions = {},
): Promise<Map<string, HeldBy>> {
  const slots = deps.allSlots().filter(({ slot }) => slot.provider === access.slot.provider);
  const { judged, seen } = await judgeSlots(deps, slots, keys, { ...options, own: access.name });
  return new Map(
    keys.map((key) => {
      const left = slots.flatMap((slot) => leftBy(slot, seen.get(slot.name), key));
      const isHeld = (name: string): boolean => judged.get(name)?.get(key.id)?.answer !== "no";
      const only = left.filter(({ slot }) => !isHeld(slot));
      return [key.id, { ...heldByOf(judged, key.id), ...(only.length === 0 ? {} : { left: only }) }];
    }),
  );
}

/** Until when a slot's edges may send a key that its secret holds no more: a value can be served for a while after it. */
function leftBy({ name, policy }: SlotAccess, seen: SeenSlot | undefined, { createdAt }: AskedKey) {
  if (seen?.kind !== "held") return [];
  const modifiedMs = seen.held.modified.getTime();
  // What was written before the key was made took another one's place.
  if (createdAt !== undefined && modifiedMs < createdAt.getTime()) return [];
  const untilMs = modifiedMs + inMs(policy.propagationWait) + inMs(policy.cacheInvalidationWait);
  return untilMs <= Date.now() ? [] : [{ slot: name, until: new Date(untilMs).toISOString() }];
}

/**
 * The same for slots that the caller chose, with what was seen of each. `own` is the slot that `ours` speaks of; `known`
 * are keys that nobody asks for, and that marks may name.
 */
export async function judgeSlots(
  deps: Dependencies,
  slots: SlotAccess[],
  asked: AskedKey[],
  { ours, patient = false, own, known = [] }: HoldersOptions & { own?: string; known?: AskedKey[] },
): Promise<{ judged: Judged; seen: Map<string, SeenSlot> }> {
  const listed = await listedOrNone(slots, patient);
  const keys = withFingerprints(asked, [...listed.values()]);
  const all = [...keys, ...known];
  const seen = new Map<string, SeenSlot>();
  const judged: Judged = new Map();
  const suspects: { slot: SlotAccess; list: Held | undefined; answers: Map<string, string> }[] = [];
  const judge = (slot: SlotAccess, what: SeenSlot): Map<string, Judgement> => {
    const mine = slot.name === own && ours !== undefined ? { ours } : {};
    return new Map(keys.map((key) => [key.id, judgeHeld({ ...seenOf(what, all), ...mine }, key)]));
  };
  for (const slot of slots) {
    const list = listed.get(slot.name);
    const ruledOut = list !== undefined && slot.name !== own && keys.every((key) => isRuledOut(list, all, key));
    if (ruledOut) {
      seen.set(slot.name, { kind: "held", held: list });
      judged.set(slot.name, judge(slot, { kind: "held", held: list }));
      continue;
    }
    const answers = list === undefined ? [] : [...judge(slot, { kind: "held", held: list })];
    suspects.push({ slot, list, answers: new Map(answers.map(([id, { answer }]) => [id, answer])) });
  }

  const again: typeof suspects = [];
  for (const suspect of suspects) {
    const what = await lookAt(deps, suspect.slot, suspect.list, patient);
    const now = judge(suspect.slot, what);
    seen.set(suspect.slot.name, what);
    judged.set(suspect.slot.name, now);
    // A read may be stale as a list may: where the two do not say the same, it is made again.
    const contradicted = [...suspect.answers].some(([id, said]) => now.get(id)?.answer !== said);
    const isOld = what.kind === "held" && what.held.contradicted === true;
    if (what.kind === "gone" || isOld || contradicted) again.push(suspect);
  }
  if (again.length > 0) await Context.current().sleep(Math.max(...again.map(({ slot }) => slot.secondLookMs)));
  for (const { slot } of again) {
    const what = ofTwo(seen.get(slot.name), await lookAt(deps, slot, undefined, patient));
    seen.set(slot.name, what);
    judged.set(slot.name, judge(slot, what));
  }
  return { judged, seen };
}

/** What counts of two looks at a slot, a moment apart. */
function ofTwo(before: SeenSlot | undefined, looked: SeenSlot): SeenSlot {
  // Seen a moment ago: once not found is no proof.
  if (looked.kind === "gone" && before?.kind !== "gone") {
    return { kind: "unreadable", why: "its secret was there a moment ago, and was not found again" };
  }
  if (looked.kind !== "held") return looked;
  if (looked.held.contradicted === true) {
    return { kind: "unreadable", why: "lists and reads of its secret do not tell the same" };
  }
  const isKnown = before?.kind === "held" && before.held.contradicted !== true;
  return isKnown ? { kind: "held", held: later(looked.held, before.held) } : looked;
}

/** By slot, then by key. */
export type Judged = Map<string, Map<string, Judgement>>;

/** What was seen of a slot. */
export type SeenSlot =
  | { kind: "held"; held: Held }
  | { kind: "gone" }
  | { kind: "remembered"; keyId?: string }
  | { kind: "unreadable"; why: string };

/** The slots that hold the key by these judgements, and those of which it cannot be told. */
export function heldByOf(judged: Judged, keyId: string): HeldBy {
  const held: HeldBy = { yes: [], unknown: [] };
  for (const [slot, answers] of judged) {
    const { answer, why } = answers.get(keyId) ?? { answer: "unknown", why: "it was not looked at" };
    if (answer === "yes") held.yes.push(slot);
    else if (answer === "unknown") held.unknown.push({ slot, why });
  }
  return held;
}

/**
 * What is known of a key that may be another project's, as one that was called compromised is: each project of the
 * provider is asked, the slot's own first. Who cannot be asked knows nothing of it.
 */
async function askedAnywhere(deps: Dependencies, access: SlotAccess, keyId: string): Promise<AskedKey> {
  const others = deps.allSlots().filter(({ slot }) => slot.provider === access.slot.provider);
  const projects = new Map([access, ...others].map((slot) => [slot.keyring, slot]));
  projects.set(access.keyring, access);
  for (const slot of projects.values()) {
    const found = await orWhy(() => lookUp(slot, keyId), true);
    if (found.why === undefined && found.value !== undefined) return askedKey(slot, keyId, found.value);
  }
  return { id: keyId };
}

/** What is known of a key for asking who holds it: what its provider shows, and its value's fingerprint where it shows that. */
export async function askedKey(access: SlotAccess, keyId: string, found?: Partial<KeyRecord>): Promise<AskedKey> {
  const { provider } = access;
  const key = found ?? (await lookUp(access, keyId));
  // A value can only be read of a key that is alive.
  const readable = canManage(provider) && canReadValues(provider) && key?.state === "active";
  const value = readable ? await provider.readValue(keyId) : undefined;
  const maskedValue = key?.maskedValue ?? (value === undefined ? undefined : maskOfValue(value));
  return {
    id: keyId,
    ...(maskedValue === undefined ? {} : { maskedValue }),
    ...(value === undefined ? {} : { fingerprint: value.fingerprint() }),
    ...(key?.createdAt === undefined ? {} : { createdAt: key.createdAt }),
  };
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

/** Lists that cannot be read rule nothing out: each slot is then looked at by itself, which says what is wrong. */
async function listedOrNone(slots: SlotAccess[], patient: boolean): Promise<Map<string, Held | undefined>> {
  const listed = await orWhy(() => readMany(slots), patient);
  return listed.why === undefined ? listed.value : new Map();
}

async function lookAt(
  deps: Dependencies,
  slot: SlotAccess,
  list: Held | undefined,
  patient: boolean,
): Promise<SeenSlot> {
  const looked = await orWhy(async (): Promise<SeenSlot> => {
    if (!slot.secrets.keepsMarks) {
      const keyId = await deps.runs.lastInstalledKey(slot.name);
      return { kind: "remembered", ...(keyId === undefined ? {} : { keyId }) };
    }
    const held = await slot.secrets.look(slot.place, list);
    return held === undefined ? { kind: "gone" } : { kind: "held", held };
  }, patient);
  return looked.why === undefined ? looked.value : { kind: "unreadable", why: looked.why };
}

/** Whether a list alone rules a slot out: by a mark that is believed, beside a provider config, and another key's. */
function isRuledOut(list: Held, keys: AskedKey[], key: AskedKey): boolean {
  const seen = seenOf({ kind: "held", held: list }, keys);
  return seen.kind === "secret" && doubtMark(seen) === undefined && judgeHeld(seen, key).answer === "no";
}

/** What is seen of a slot, as `judgeHeld` takes it. `keys` are those that are asked for: a mark may name one of them. */
export function seenOf(what: SeenSlot, keys: AskedKey[] = []): Seen {
  if (what.kind !== "held") return what;
  const mark = parseMark(what.held.comment);
  return seenSecret(what.held, keys.find(({ id }) => id === mark?.keyId)?.maskedValue);
}

function seenSecret(held: Held, markedMask?: string): SeenSecret {
  const { modified, comment, preview, previewModified, withoutConfig } = held;
  const mark = parseMark(comment);
  return {
    kind: "secret",
    modified,
    config: withoutConfig === true ? "absent" : "present",
    ...(mark === undefined ? {} : { mark }),
    ...(markedMask === undefined ? {} : { markedMask }),
    ...(preview === undefined ? {} : { preview }),
    ...(previewModified === undefined ? {} : { previewModified }),
  };
}

/** A key that a mark names has the mark's fingerprint: marks of other slots may tell what the provider does not show. */
function withFingerprints(keys: AskedKey[], listed: (Held | undefined)[]): AskedKey[] {
  const marks = listed.flatMap((held) => parseMark(held?.comment) ?? []);
  return keys.map((key) => {
    const fingerprint = key.fingerprint ?? knownOf(marks.find(({ keyId }) => keyId === key.id));
    return fingerprint === undefined ? key : { ...key, fingerprint };
  });
}

function knownOf(mark: Mark | undefined): string | undefined {
  return mark?.fingerprint === noFingerprint ? undefined : mark?.fingerprint;
}

function maskOf({ id, maskedValue }: KeyRecord, values: ReadonlyMap<string, Redacted>): string | undefined {
  const value = values.get(id);
  return maskedValue ?? (value === undefined ? undefined : maskOfValue(value));
}

/** As much of a value as gateways show. */
function maskOfValue(value: Redacted): string {
  const text = value.reveal();
  return text.length < 16 ? "****" : `${text.slice(0, 2)}...${text.slice(-4)}`;
}

function invalid(message: string): RotationFailure {
  return new RotationFailure("InvalidInput", message);
}
