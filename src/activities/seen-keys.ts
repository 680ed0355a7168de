import { Context } from "@temporalio/activity";

import { canReadAll } from "../cloudflare/slot-secrets.ts";
import { RotationFailure } from "../domain/failure.ts";
import type { AskedKey } from "../domain/held.ts";
import { idOfFingerprint, isOurId } from "../domain/key-id.ts";
import { containsKey } from "../domain/key-shape.ts";
import { type Mark, maskFits, maskTells, parseMark } from "../domain/mark.ts";
import { canHandIn, canManage, type KeyRecord } from "../providers/provider.ts";
import type { Redacted } from "../redacted.ts";
import type { Compromised } from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { askedKey } from "./held-key.ts";
import { findOrListed } from "./managed.ts";

/** A key that somebody named by its id or showed by its value, as far as providers and marks know it. */
export interface FoundKey {
  id: string;
  how: Compromised["how"];
  /** The slot through which its provider knows it, or whose mark names it. */
  through: SlotAccess;
  /** What its provider shows of it; undefined where it is listed no more, or nobody can be asked. */
  record?: KeyRecord;
  state: Compromised["state"];
  /** Of its value, where that is known. */
  fingerprint?: string;
}

/**
 * Looks keys up, and once more some seconds later where one was not found, or is known by no more than a mark: lists miss
 * rows, and reads can be behind. The second time, `again` says so, and lists are asked as well. Only reads.
 */
export async function lookAgain(
  secondLookMs: number,
  look: (again: boolean) => Promise<FoundKey[]>,
): Promise<FoundKey[]> {
  let first: FoundKey[] = [];
  try {
    first = await look(false);
    if (first.every(isSure)) return first;
  } catch (error) {
    if (!(error instanceof RotationFailure) || error.type !== "KeyUnknown") throw error;
  }
  await Context.current().sleep(secondLookMs);
  const second = await look(true);
  return second.map((key) => (isSure(key) ? key : (first.find((one) => one.id === key.id && isSure(one)) ?? key)));
}

/** Whether its provider showed it; or a mark names it, and no provider can be asked. */
function isSure({ record, state, fingerprint }: FoundKey): boolean {
  return record !== undefined || (state === "unknown" && fingerprint !== undefined);
}

/** The slots of the slot's provider, itself first. */
export function brothersOf(deps: Dependencies, access: SlotAccess): SlotAccess[] {
  const others = deps
    .allSlots()
    .filter(({ name, slot }) => name !== access.name && slot.provider === access.slot.provider);
  return [access, ...others];
}

/** One slot for each project of a provider: slots of one project see each other's keys. */
export function oneOfEachKeyring(slots: SlotAccess[]): SlotAccess[] {
  const seen = new Map<string, SlotAccess>();
  for (const access of slots) {
    const keyring = `${access.slot.provider} ${access.keyring}`;
    if (!seen.has(keyring)) seen.set(keyring, access);
  }
  return [...seen.values()];
}

/** Fails with `InvalidInput` where what should be the id of a key is a key's value; it is not repeated. */
export function refuseValue(keyId: string): void {
  if (!containsKey(keyId) && !/^(?:sk-|AIza|AQ\.)/.test(keyId)) return;
  throw new RotationFailure(
    "InvalidInput",
    "what was given as the id of a key is a key's value, and stands in the history now: treat that key as leaked, and give its id",
  );
}

export function stateOf(record: KeyRecord): Compromised["state"] {
  return record.state === "active" || record.state === "disabled" ? "alive" : "dead";
}

/**
 * Finds a key by its id: at the provider of `slots`, the first slot's project first, else in their marks. Without `marks`
 * no slot is looked at. Fails with `KeyUnknown` where nobody knows the id; where a project could not be asked, and the
 * key could be there, with that project's failure if it may pass.
 */
export async function findById(
  id: string,
  slots: SlotAccess[],
  { marks, again }: { marks: SeenMarks | undefined; again: boolean },
): Promise<FoundKey> {
  refuseValue(id);
  const [first] = slots;
  if (first === undefined) throw new RangeError("no slot to look through");
  const unasked: string[] = [];
  let passing: RotationFailure | undefined;
  for (const access of oneOfEachKeyring(slots)) {
    const { name, provider } = access;
    if (!canManage(provider)) continue;
    try {
      const record = await findOrListed(provider, id, again);
      if (record !== undefined) return { id, how: "id", through: access, record, state: stateOf(record) };
    } catch (error) {
      if (!(error instanceof RotationFailure) || access === first) throw error;
      unasked.push(`the project of ${name} (${error.message})`);
      if (error.retried) passing ??= error;
    }
  }
  const marked = marks?.marks.find(({ mark }) => mark.keyId === id || idOfFingerprint(mark.fingerprint) === id);
  if (marked !== undefined) {
    const { access, mark } = marked;
    // An id of ours is known to no provider; one of its own that each project knows no more is dead.
    const dead = canManage(access.provider) && !isOurId(id) && unasked.length === 0;
    const { fingerprint } = mark;
    return { id, how: "id", through: access, state: dead ? "dead" : "unknown", fingerprint };
  }
  // Nobody can be asked here: the id that a console shows may be that of the key which the slot holds under another one.
  if (!canManage(first.provider)) return { id, how: "id", through: first, state: "unknown" };
  if (passing !== undefined) throw passing;
  const asked = oneOfEachKeyring(slots).flatMap(({ name, provider }) => (canManage(provider) ? [name] : []));
  throw new RotationFailure(
    "KeyUnknown",
    `${first.provider.name} knows no key ${id} in the projects of ${asked.join(", ")}${marks === undefined ? "" : ", and no slot's mark names it"}: nothing was ended; check the id (keyturn keys ${first.name} lists those that live)${notAsked([...unasked, ...(marks?.unread ?? [])])}`,
    { details: [{ keyIds: [id] }] },
  );
}

function notAsked(what: string[]): string {
  return what.length === 0 ? "" : `; not asked: ${what.join("; ")}`;
}

/** The marks that slots bear, believed or not: the fingerprint in one is that of the value it was written with. */
export interface SeenMarks {
  marks: { access: SlotAccess; mark: Mark }[];
  /** What could not be read, and why. */
  unread: string[];
  /** The first failure among those that may pass. */
  passing?: RotationFailure;
}

/** Reads them by a few calls for each account. What cannot be read is said. */
export async function readMarks(slots: SlotAccess[]): Promise<SeenMarks> {
  const seen: SeenMarks = { marks: [], unread: [] };
  const note = (access: SlotAccess, comment: string | undefined): void => {
    const mark = parseMark(comment);
    if (mark !== undefined) seen.marks.push({ access, mark });
  };
  const tolerant = async (what: string, read: () => Promise<void>): Promise<void> => {
    try {
      await read();
    } catch (error) {
      if (!(error instanceof RotationFailure)) throw error;
      // A slot that is not there bears no mark.
      if (error.type === "SlotMissing") return;
      seen.unread.push(`${what} (${error.message})`);
      if (error.retried) seen.passing ??= error;
    }
  };
  const marking = slots.filter(({ secrets }) => secrets.keepsMarks);
  for (const account of new Set(marking.map((slot) => slot.account))) {
    const listed = marking.filter((slot) => slot.account === account && canReadAll(slot.secrets));
    const [first] = listed;
    if (first === undefined || !canReadAll(first.secrets)) continue;
    const { secrets } = first;
    await tolerant(`the marks of ${listed.map(({ name }) => name).join(", ")}`, async () => {
      const held = await secrets.readAll(listed.map(({ place }) => place));
      for (const [index, access] of listed.entries()) note(access, held[index]?.comment);
    });
  }
  for (const access of marking.filter(({ secrets }) => !canReadAll(secrets))) {
    await tolerant(`the mark of ${access.name}`, async () => {
      note(access, (await access.secrets.read(access.place)).comment);
    });
  }
  return seen;
}

/** Keys that have, or can only have, a value. */
export interface FoundByValue {
  found: FoundKey[];
  /** Several keys look like it, and nothing tells which it is: then `found` is empty. */
  several: FoundKey[];
  unknown: string[];
  passing?: RotationFailure;
}

/**
 * Looks the value up: by the fingerprints in marks, then by asking the providers that tell, then by the one masked value
 * that fits alone. A provider is not asked about a value that has another one's shape.
 */
export async function findByValue(
  value: Redacted,
  slots: SlotAccess[],
  { marks, again }: { marks: SeenMarks | undefined; again: boolean },
): Promise<FoundByValue> {
  const fingerprint = value.fingerprint();
  const marked = new Map<string, FoundKey>();
  for (const { access, mark } of marks?.marks ?? []) {
    if (mark.fingerprint !== fingerprint || marked.has(mark.keyId)) continue;
    marked.set(mark.keyId, {
      ...(await recordOf(mark.keyId, { access, slots, again })),
      how: "fingerprint",
      fingerprint,
    });
  }
  const seen: FoundByValue = { found: [...marked.values()], several: [], unknown: [...(marks?.unread ?? [])] };
  if (marks?.passing !== undefined) seen.passing = marks.passing;
  if (seen.found.length > 0) return seen;

  const fitting: FoundKey[] = [];
  const masked: string[] = [];
  const shaped = slots.some(({ provider }) => provider.looksLikeKey(value));
  const isSomebodys = containsKey(value.reveal());
  for (const access of oneOfEachKeyring(slots)) {
    const { name, provider } = access;
    if (shaped && !provider.looksLikeKey(value)) continue;
    if (!canManage(provider)) {
      seen.unknown.push(`keys of the project of ${name}: no admin credential lists them`);
      continue;
    }
    try {
      const records = await provider.listKeys();
      const known = (record: KeyRecord, how: FoundKey["how"]): FoundKey => ({
        id: record.id,
        how,
        through: access,
        record,
        state: stateOf(record),
        fingerprint,
      });
      // A provider that masks nothing tells whose value it is, or nobody does.
      if (records.every(({ maskedValue }) => maskedValue === undefined) && canHandIn(provider)) {
        // What may be another one's is shown to nobody.
        if (isSomebodys && !provider.looksLikeKey(value)) {
          seen.unknown.push(`keys of the project of ${name}: the value is not of ${provider.name}'s shape`);
          continue;
        }
        const identified = await provider.identifyKey(value, { openedAt: new Date(0) });
        if (identified.kind === "identified") seen.found.push(known(identified.key, "value"));
        if (identified.kind === "unknown") seen.unknown.push(identified.message);
      }
      const hidden = records.filter(({ maskedValue }) => maskedValue === undefined || !maskTells(maskedValue));
      if (hidden.length > 0 && hidden.length < records.length) {
        const ids = hidden.map(({ id }) => id).join(", ");
        masked.push(`keys of the project of ${name} that show too little of their value to tell: ${ids}`);
      }
      fitting.push(
        ...records.filter((record) => looksLike(record, value)).map((record) => known(record, "masked value")),
      );
    } catch (error) {
      if (!(error instanceof RotationFailure)) throw error;
      seen.unknown.push(`keys of the project of ${name}: ${error.message}`);
      if (error.retried) seen.passing ??= error;
    }
  }
  if (seen.found.length > 0) return seen;
  // Two projects can list one key.
  const keys = fitting.filter((key, index) => fitting.findIndex((one) => isSameKey(one, key)) === index);
  const alone = keys.length === 1 ? keys : [];
  if (keys.length === 0) seen.unknown.push(...masked);
  return { ...seen, found: alone, several: alone.length === 0 ? keys : [] };
}

/**
 * A key that `access` bears or bore, in whatever project of its provider it lives: by hand a slot gets another project's
 * key. Dead is what none of them shows; where one of the others could not be asked, that is unknown.
 */
export async function recordOf(
  id: string,
  { access, slots, again }: { access: SlotAccess; slots: SlotAccess[]; again: boolean },
): Promise<FoundKey> {
  const of = { id, how: "id", through: access } as const;
  if (!canManage(access.provider) || isOurId(id)) return { ...of, state: "unknown" };
  const brothers = slots.filter(({ slot }) => slot.provider === access.slot.provider);
  let unasked = false;
  for (const through of oneOfEachKeyring([access, ...brothers])) {
    const { provider } = through;
    try {
      const record = canManage(provider) ? await findOrListed(provider, id, again) : undefined;
      if (record !== undefined) return { ...of, through, record, state: stateOf(record) };
      unasked ||= !canManage(provider);
    } catch (error) {
      if (!(error instanceof RotationFailure) || through === access) throw error;
      unasked = true;
    }
  }
  return { ...of, state: unasked ? "unknown" : "dead" };
}

/** Another slot of the provider in whose project the key lives; undefined where there is none, or none can be asked. */
export async function findElsewhere(
  deps: Dependencies,
  via: SlotAccess,
  keyId: string,
): Promise<SlotAccess | undefined> {
  const asked = new Set([via.keyring]);
  for (const other of deps.allSlots()) {
    const { provider, keyring, slot } = other;
    if (slot.provider !== via.slot.provider || asked.has(keyring) || !canManage(provider)) continue;
    asked.add(keyring);
    try {
      const key = await provider.findKey(keyId);
      if (key !== undefined && stateOf(key) === "alive") return other;
    } catch (error) {
      // A credential that may not look there says nothing of the key.
      if (!(error instanceof RotationFailure) || error.retried) throw error;
    }
  }
  return undefined;
}

function isSameKey(one: FoundKey, other: FoundKey): boolean {
  return one.id === other.id && one.record?.createdAt.getTime() === other.record?.createdAt.getTime();
}

function looksLike({ maskedValue }: KeyRecord, value: Redacted): boolean {
  return maskedValue !== undefined && maskTells(maskedValue) && maskFits(maskedValue, value.reveal());
}

/** What is known of a key, for asking which slots hold it. */
export async function asked({ id, through, record, fingerprint }: FoundKey): Promise<AskedKey> {
  // Without a record there is nothing to ask a provider that lists its keys; elsewhere the id itself may tell.
  const known = record ?? (canManage(through.provider) ? {} : undefined);
  const key = await askedKey(through, id, known);
  return fingerprint === undefined ? key : { ...key, fingerprint };
}

/** What a masked value shows of the value's end; undefined where that is too little to know it by. */
export function endingOf(maskedValue: string | undefined): string | undefined {
  return maskedValue === undefined ? undefined : /[\w-]{4}$/.exec(maskedValue)?.[0];
}
