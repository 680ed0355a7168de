import { readableMs } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import { isOurId } from "../domain/key-id.ts";
import type { KeyEntry } from "../domain/custody.ts";
import { parseKeyName } from "../domain/key-name.ts";
import { shortRotationId, slotName } from "../domain/slot.ts";
import { canManage, type KeyRecord } from "../providers/provider.ts";
import { maskSecrets } from "../redacted.ts";
import type { EmergencyPlan, LeakedFound, LeakedOrder, PlanOrder, SeenKey, SlotKeys } from "./contract.ts";
import type { ClosedRun, Dependencies, SlotAccess, WhichRun } from "./dependencies.ts";
import { findNamed, severalFit, valueUnknown } from "./emergency.ts";
import { findHeldSurely, type HeldKey, readSurely, whoHolds } from "./held-key.ts";
import { findSurely, missingOf } from "./managed.ts";
import { orWhy } from "./or-why.ts";
import {
  asked,
  brothersOf,
  endingOf,
  findByValue,
  type FoundKey,
  lookAgain,
  readMarks,
  recordOf,
  stateOf,
} from "./seen-keys.ts";

/** More are not shown: somebody who reads them at night has to choose. */
const candidatesAtMost = 20;

export const whichKeyActivities = (deps: Dependencies) => ({
  /**
   * Says what an emergency of the slot would be about, before anything is done: the keys that were named, else the held
   * one. It refuses to guess: where the held key is younger than `since`, or a former key of the slot may be alive, the
   * answer is `ambiguous` and has the keys to choose from. Only reads. Fails with `KeyUnknown`, `KeyAmbiguous` (the
   * value fits several keys) and `InvalidInput` as `findCompromised` does.
   */
  async planEmergency(order: PlanOrder): Promise<EmergencyPlan> {
    const access = deps.slotAccess(order.slot);
    const named = (order.keyIds ?? []).length > 0 || order.leaked !== undefined;
    const looked = await lookAround(deps, access, { ...order, mayMiss: named });
    const { held, records, former, unknown } = looked;
    const missing = missingOf(access);
    const plan: Omit<EmergencyPlan, "keys"> = {
      slot: access.name,
      account: access.account,
      gateway: access.place.gateway,
      ...(missing === undefined ? {} : { byHand: missing }),
      unknown,
      warnings: [...(held?.warnings ?? [])],
    };
    if (named) {
      const found = await findNamed(deps, access, { keyIds: order.keyIds ?? [], leaked: order.leaked });
      if (order.leaked !== undefined && found.every(({ how }) => how === "id")) {
        unknown.push("which key has the leaked value: no provider shows one, and no mark bears its fingerprint");
      }
      const keys = await seen(deps, access, found, looked);
      plan.warnings.push(...warningsOf(deps, access, keys));
      return { ...plan, ...(await heldKeyOf(deps, access, keys, looked)), keys };
    }

    const alive = formerAlive(access, looked);
    const candidates = held === undefined ? (records ?? []).filter(isAlive).map((record) => found(record, access)) : [];
    if (held !== undefined) candidates.push(foundHeld(access, held, looked));
    for (const key of alive) if (!candidates.some(({ id }) => id === key.id)) candidates.push(key);
    const shown = await seen(deps, access, candidates.slice(0, candidatesAtMost), looked);
    const heldKey = shown.find(({ id }) => id === held?.id);
    const why = whyGuess({ held, heldKey, why: looked.why, since: order.since, former: alive });
    if (held !== undefined && order.since !== undefined && bornAt(held, heldKey) === undefined) {
      unknown.push(
        `how old ${held.id} is, so whether it was there before ${order.since}, since when a key may be known`,
      );
    }
    if (why !== undefined || heldKey === undefined) {
      return {
        ...plan,
        ...(heldKey === undefined ? {} : { held: heldKey }),
        keys: [],
        ambiguous: { why: why ?? `which key ${access.name} holds is unknown`, candidates: shown },
      };
    }
    plan.warnings.push(...warningsOf(deps, access, [heldKey]));
    if (heldKey.state === "dead") plan.warnings.push(`${heldKey.id} is dead already at its provider`);
    if (former !== undefined && former.result === undefined) {
      unknown.push(`what the run ${former.runId} left behind: it was ended from outside, and nobody answers for it`);
    }
    return { ...plan, held: heldKey, keys: [heldKey] };
  },

  /**
   * The live keys of the slot's project: held, ours by name, left over by the slot's last run, unknown to keyturn. A key
   * that was left over is listed until it is seen dead. Only reads.
   */
  async listSlotKeys({ slot }: { slot: string }): Promise<SlotKeys> {
    const access = deps.slotAccess(slot);
    const looked = await lookAround(deps, access, { mayMiss: true });
    const { held, records, unknown, why } = looked;
    if (why !== undefined) unknown.push(why);
    const missing = missingOf(access);
    if (missing !== undefined) unknown.push(`which other keys live in the project of ${access.name}: ${missing}`);
    const keys = new Map<string, FoundKey>();
    if (held !== undefined) keys.set(held.id, foundHeld(access, held, looked));
    for (const record of records ?? []) if (isAlive(record)) keys.set(record.id, found(record, access));
    for (const key of formerAlive(access, looked)) if (!keys.has(key.id)) keys.set(key.id, key);
    return { slot: access.name, keys: await seen(deps, access, [...keys.values()], looked), unknown };
  },

  /**
   * Finds the keys that have a leaked value, over all slots: by the fingerprints in marks, then by asking the providers
   * that tell, then by the one masked value that fits alone. Only reads. Fails with `KeyUnknown` where there is none,
   * `KeyAmbiguous` where several look like it.
   */
  async findLeaked({ leaked }: LeakedOrder): Promise<LeakedFound> {
    const value = await deps.open(leaked, { purpose: "leaked" });
    const slots = deps.allSlots();
    const unknown: string[] = [];
    const fitting = await lookAgain(Math.max(0, ...slots.map(({ secondLookMs }) => secondLookMs)), async (again) => {
      const seen = await findByValue(value, slots, { marks: await readMarks(slots), again });
      unknown.splice(0, unknown.length, ...seen.unknown);
      if (seen.several.length > 0) throw severalFit(seen.several);
      if (seen.found.length > 0) return seen.found;
      // Where somebody could not be asked who may answer in a moment, "nobody knows it" would be a guess.
      if (seen.passing !== undefined) throw seen.passing;
      throw valueUnknown(
        "no provider shows a key with the leaked value, and no mark bears its fingerprint, over",
        slots,
        unknown,
      );
    });
    const matches: LeakedFound["matches"] = [];
    for (const key of fitting) {
      const holders = (await whoHolds(deps, key.through, [await asked(key)], { patient: true })).get(key.id);
      const holding = holders?.yes ?? [];
      unknown.push(...(holders?.unknown ?? []).map(({ slot, why }) => `whether ${slot} holds ${key.id}: ${why}`));
      const held = holding.length > 0;
      const untold = (holders?.unknown ?? []).map(({ slot }) => slot);
      matches.push({
        keyId: key.id,
        how: key.how,
        slots: held ? holding : [key.through.name],
        held,
        ...(untold.length === 0 ? {} : { heldUnknown: untold }),
      });
    }
    return { matches, unknown };
  },
});

/** What is known of a slot's keys beside those that somebody named. */
interface Looked {
  held?: HeldKey;
  /** Why it is not known which key the slot holds. */
  why?: string;
  /** What the provider lists; undefined where nobody lists keys. */
  records?: KeyRecord[];
  former?: ClosedRun;
  /** Keys that the last run named, or of which only the acceptance of their end is known; by id. */
  leftOver: Map<string, { entry: KeyEntry; key: FoundKey }>;
  /** The held key, where the slot's own project does not list it. */
  unlisted?: FoundKey;
  unknown: string[];
}

/**
 * Looks which key the slot holds, which keys its provider lists, and what its last run left behind. With `mayMiss` a look
 * that cannot be made is told as unknown; else it fails, since what follows would be a guess.
 */
async function lookAround(
  deps: Dependencies,
  access: SlotAccess,
  {
    heldKeyId,
    formerRunId,
    ownRunId,
    mayMiss,
  }: Pick<PlanOrder, "heldKeyId" | "formerRunId" | "ownRunId"> & { mayMiss: boolean },
): Promise<Looked> {
  const { name, provider } = access;
  const unknown: string[] = [];
  const orMissed = async <T>(what: string, look: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await look();
    } catch (error) {
      if (!(error instanceof RotationFailure) || !mayMiss) throw error;
      unknown.push(`${what}: ${error.message}`);
      return undefined;
    }
  };
  const which: WhichRun = { hint: formerRunId, except: ownRunId };
  const records = canManage(provider)
    ? await orMissed(`which keys live in the project of ${name}`, () => provider.listKeys())
    : undefined;
  const former = await orMissed(`what the last run of ${name} left behind`, () => deps.runs.lastClosed(name, which));
  const looked: Looked = { leftOver: new Map(), unknown };
  if (records !== undefined) looked.records = records;
  if (former !== undefined) looked.former = former;
  if (records !== undefined || !canManage(provider)) {
    try {
      const { key, keys } = await heldNow(deps, access, { records, heldKeyId, which });
      looked.held = key;
      if (keys !== undefined) looked.records = keys;
    } catch (error) {
      if (!(error instanceof RotationFailure)) throw error;
      // What cannot be told is an answer here; what may pass is not.
      if (error.retried && !mayMiss) throw error;
      looked.why = maskSecrets(error.message);
    }
  }
  const left = (former?.result?.keys ?? []).filter(({ id, fate, seen }) => {
    const accepted = fate === "ended" && seen !== true;
    return id !== looked.held?.id && (fate === "named" || fate === "open" || accepted);
  });
  const ids = left.map(({ id }) => id);
  const known = await orMissed(`whether ${ids.join(", ")} lives, which the last run named`, () =>
    stillKnown(deps, access, ids, looked.records),
  );
  for (const entry of left) {
    const key = known?.get(entry.id) ?? ({ id: entry.id, how: "id", through: access, state: "unknown" } as const);
    looked.leftOver.set(entry.id, { entry, key });
  }
  const { held } = looked;
  if (held !== undefined && looked.records?.every(({ id }) => id !== held.id) === true) {
    const of = { access, slots: brothersOf(deps, access), again: true };
    const unlisted = await orMissed(`whether ${held.id} lives, which the slot holds`, () => recordOf(held.id, of));
    looked.unlisted = unlisted ?? { id: held.id, how: "id", through: access, state: "unknown" };
  }
  return looked;
}

/** As `inspectSlot` finds it out. */
async function heldNow(
  deps: Dependencies,
  access: SlotAccess,
  { records, heldKeyId, which }: { records: KeyRecord[] | undefined; heldKeyId: string | undefined; which: WhichRun },
): Promise<{ key: HeldKey; keys: KeyRecord[] | undefined }> {
  const { name, secrets } = access;
  const held = await readSurely(access);
  const remembered =
    secrets.keepsMarks || heldKeyId !== undefined ? undefined : await deps.runs.lastInstalledKey(name, which);
  const { key, keys } = await findHeldSurely(access, held, records, heldKeyId ?? remembered);
  return { key: remembered === undefined ? key : { ...key, how: "last result" }, keys };
}

/** What became of the keys: those that are listed, or found where they are asked for, since lists miss rows. */
async function stillKnown(
  deps: Dependencies,
  access: SlotAccess,
  keyIds: string[],
  records: KeyRecord[] | undefined,
): Promise<Map<string, FoundKey>> {
  const { provider, secondLookMs } = access;
  const known = new Map<string, FoundKey>();
  for (const record of records ?? []) if (keyIds.includes(record.id)) known.set(record.id, found(record, access));
  const missed = keyIds.filter((id) => !known.has(id) && !isOurId(id));
  if (missed.length === 0 || !canManage(provider)) return known;
  const surely = await findSurely({ provider, secondLookMs }, missed);
  const of = { access, slots: brothersOf(deps, access), again: true };
  for (const id of missed) {
    const record = surely.get(id);
    if (record !== undefined) known.set(id, found(record, access));
    // Without a list what is not found is not known to be gone.
    else if (records !== undefined) known.set(id, await recordOf(id, of));
  }
  return known;
}

/** Keys that were the slot's and may be alive: named by its last run, or by our exact names of the slot. */
function formerAlive(access: SlotAccess, { held, records = [], leftOver }: Looked): FoundKey[] {
  const keys = new Map<string, FoundKey>();
  for (const [id, { entry, key }] of leftOver) {
    if (key.state === "dead") continue;
    // An end that was accepted, of a key nobody can look at, is all that a person's word can be.
    if (entry.fate === "ended" && key.state === "unknown") continue;
    keys.set(id, key);
  }
  for (const record of records) {
    if (record.id === held?.id || !isAlive(record) || !isOwnName(access, record.name)) continue;
    keys.set(record.id, found(record, access));
  }
  return [...keys.values()];
}

function bornAt(held: HeldKey, heldKey: SeenKey | undefined): string | undefined {
  return heldKey?.createdAt ?? held.since?.toISOString();
}

function whyGuess({
  held,
  heldKey,
  why,
  since,
  former,
}: {
  held: HeldKey | undefined;
  heldKey: SeenKey | undefined;
  why: string | undefined;
  since: string | undefined;
  former: FoundKey[];
}): string | undefined {
  if (held === undefined) return why;
  const reasons: string[] = [];
  const born = bornAt(held, heldKey);
  if (since !== undefined && born !== undefined && Date.parse(born) > Date.parse(since)) {
    reasons.push(
      `${held.id}, which the slot holds, is ${readableMs(Math.max(0, Date.now() - Date.parse(born)))} old, younger than the time since when the key may be known to others (${since})`,
    );
  }
  if (former.length > 0) {
    const one = former.length === 1;
    reasons.push(
      `${former.map(({ id }) => id).join(", ")}, ${one ? "a former key" : "former keys"} of the slot, may be alive`,
    );
  }
  return reasons.length === 0 ? undefined : reasons.join("; ");
}

/** What is worth a second look in keys that will be cut. */
function warningsOf(deps: Dependencies, access: SlotAccess, keys: SeenKey[]): string[] {
  const warnings: string[] = [];
  for (const { id, through, heldBy, heldUnknown, state } of keys) {
    const project = deps.slotAccess(through);
    if (project.keyring !== access.keyring)
      warnings.push(`${id} is a key of the project of ${through}, not of ${access.name}'s`);
    const others = heldBy.filter((name) => name !== access.name);
    const holding = others.filter((name) => deps.slotAccess(name).policy.emergency.atDeadline === "hold");
    if (holding.length > 0 && access.policy.emergency.atDeadline === "revoke") {
      warnings.push(
        `${holding.join(", ")} ${holding.length === 1 ? "holds" : "hold"} ${id} too, with the policy to hold it at the deadline: the policy of ${access.name} counts, and cuts it`,
      );
    }
    if (heldUnknown.length > 0) warnings.push(`whether ${heldUnknown.join(", ")} holds ${id} cannot be told`);
    if (state === "unknown") warnings.push(`whether ${id} lives cannot be told`);
  }
  return warnings;
}

/** The held key beside keys that were named: one of them, or another. */
async function heldKeyOf(
  deps: Dependencies,
  access: SlotAccess,
  keys: SeenKey[],
  looked: Looked,
): Promise<Pick<EmergencyPlan, "held">> {
  const { held } = looked;
  if (held === undefined) {
    if (looked.why !== undefined) looked.unknown.push(looked.why);
    return {};
  }
  const known = keys.find(({ id }) => id === held.id);
  const [shown] = known === undefined ? await seen(deps, access, [foundHeld(access, held, looked)], looked) : [known];
  return shown === undefined ? {} : { held: shown };
}

function isAlive(record: KeyRecord): boolean {
  return stateOf(record) === "alive";
}

function found(record: KeyRecord, through: SlotAccess): FoundKey {
  return { id: record.id, how: "id", through, record, state: stateOf(record) };
}

function foundHeld(access: SlotAccess, held: HeldKey, { records, unlisted }: Looked): FoundKey {
  const record = records?.find(({ id }) => id === held.id);
  if (record !== undefined) return found(record, access);
  return unlisted ?? { id: held.id, how: "id", through: access, state: "unknown" };
}

/** The keys in words by which an operator knows them, and who holds each. */
async function seen(deps: Dependencies, access: SlotAccess, keys: FoundKey[], looked: Looked): Promise<SeenKey[]> {
  const { holders, masks } = await holdersOf(deps, access, keys, looked);
  return keys.map((key): SeenKey => {
    const { id, record, through, state } = key;
    const { yes = [], unknown = [] } = holders.get(id) ?? {};
    const isHeld = looked.held?.id === id;
    const heldBy = isHeld && !yes.includes(access.name) ? [access.name, ...yes] : yes;
    const left = looked.leftOver.get(id);
    const ending = endingOf(record?.maskedValue ?? masks.get(id));
    const createdAt = record?.createdAt ?? (isHeld ? looked.held?.since : undefined);
    return {
      id,
      ...(ending === undefined ? {} : { ending }),
      ...(record === undefined ? {} : { name: maskSecrets(record.name) }),
      ...(createdAt === undefined ? {} : { createdAt: createdAt.toISOString() }),
      madeBy: madeBy(access, record),
      state,
      what: heldBy.includes(access.name)
        ? "held"
        : left !== undefined
          ? "left over"
          : isOwnName(access, record?.name)
            ? "ours"
            : "unknown",
      ...(left === undefined || looked.former === undefined ? {} : { leftOver: whyLeft(looked.former, left.entry) }),
      heldBy,
      heldUnknown: unknown.map(({ slot }) => slot).filter((name) => !heldBy.includes(name)),
      through: through.name,
    };
  });
}

type HoldersById = Awaited<ReturnType<typeof whoHolds>>;

/** Who holds each, and how each is masked where only its value could tell, which is read for the question. */
async function holdersOf(
  deps: Dependencies,
  access: SlotAccess,
  keys: FoundKey[],
  { unknown }: Looked,
): Promise<{ holders: HoldersById; masks: Map<string, string | undefined> }> {
  const masks = new Map<string, string | undefined>();
  if (keys.length === 0) return { holders: new Map(), masks };
  const looked = await orWhy(async () => {
    const all = await Promise.all(keys.map(asked));
    for (const { id, maskedValue } of all) masks.set(id, maskedValue);
    return whoHolds(deps, access, all, { patient: true });
  });
  if (looked.why === undefined) return { holders: looked.value, masks };
  const { why } = looked;
  unknown.push(`which slots hold ${keys.map(({ id }) => id).join(", ")}: ${why}`);
  // Nobody was looked at: each may hold it.
  const each = brothersOf(deps, access).map(({ name }) => ({ slot: name, why }));
  return { holders: new Map(keys.map(({ id }) => [id, { yes: [], unknown: each }])), masks };
}

function whyLeft({ runId, result }: ClosedRun, { why, fate, at }: KeyEntry): string {
  const run = `the run ${runId}${result === undefined ? "" : ` (${result.kind === "emergency" ? "emergency" : "rotation"} ${shortRotationId(result.rotationId)})`}`;
  if (fate === "ended")
    return `${run} ended it${at === undefined ? "" : ` at ${at}`}, which was accepted and never seen`;
  return `${run} left it${why === undefined ? "" : `: ${why}`}`;
}

/** Who made a key, by its label and owner. */
function madeBy(access: SlotAccess, record: KeyRecord | undefined): string {
  if (record === undefined) return "unknown";
  const parts = readName(record.name);
  if (parts !== undefined) {
    const { installation, slot, rotation } = parts;
    if (installation !== access.installation) return `keyturn of installation ${installation}, for ${slotName(slot)}`;
    return slotName(slot) === access.name
      ? `keyturn, rotation ${rotation}`
      : `keyturn, for ${slotName(slot)}, rotation ${rotation}`;
  }
  const { owner } = record;
  if (owner === undefined) return "not keyturn";
  return owner.kind === "user" ? `not keyturn (user ${owner.id})` : `not keyturn (service account ${owner.id})`;
}

/** Whether the name is exactly one of ours for this slot. */
function isOwnName(access: SlotAccess, name: string | undefined): boolean {
  const parts = name === undefined ? undefined : readName(name);
  return parts?.installation === access.installation && slotName(parts.slot) === access.name;
}

/** A person who makes a key by hand is asked to name it without an attempt. */
function readName(name: string): ReturnType<typeof parseKeyName> {
  return parseKeyName(name) ?? parseKeyName(`${name}-1`);
}
