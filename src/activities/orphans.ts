import { Context } from "@temporalio/activity";

import { canListAliases, type Held } from "../cloudflare/slot-secrets.ts";
import { type Duration, inMs, readableMs } from "../domain/duration.ts";
import { RotationFailure } from "../domain/failure.ts";
import { installationPrefix, slotPrefix } from "../domain/key-name.ts";
import { type ProviderName, readRotationAlias, shortRotationId } from "../domain/slot.ts";
import type { SweepItem } from "../domain/sweep.ts";
import type { KeyRecord } from "../providers/provider.ts";
import type { Dependencies, OpenRotation, SlotAccess } from "./dependencies.ts";
import { mayHold, readMany, rulesOut } from "./held-key.ts";
import { managed } from "./managed.ts";

export interface SweepSelection {
  environment?: string | undefined;
  provider?: ProviderName | undefined;
  slots?: string[] | undefined;
}

export interface FindOrphansOrder {
  select: SweepSelection;
  minimumAge: Duration;
}

export interface Orphans {
  installation: string;
  orphans: SweepItem[];
  spared: SweepItem[];
  blocked: string[];
  unknown: string[];
}

export interface EndOrphanOrder {
  /** The slot whose provider or gateway it is reached through. */
  slot: string;
  id: string;
  minimumAge: Duration;
}

/** What came of an orphan that was to be ended. */
export type OrphanEnd = { kind: "ended"; at: string } | { kind: "spared"; why: string };

/** Attempts at what can be repeated, before everything is spared for it. */
const patientAttempts = 3;

/** The longest look back at a key's use: whoever used it before may be gone. */
const longestLookMs = 86_400_000;

export const orphanActivities = (deps: Dependencies) => ({
  /**
   * Finds the live keys and aliases of this installation that nobody holds or owns. Only reads. What cannot be read for
   * good, after a few attempts, is said, and everything that may depend on it is spared.
   */
  async findOrphans({ select, minimumAge }: FindOrphansOrder): Promise<Orphans> {
    const sight = await look(deps, deps.allSlots(), { fresh: false });
    const installation = sight.slots[0]?.access.installation ?? "";
    const { candidates, strangers, unknown } = await listOurs(sight);
    const chosen = candidates.filter(({ owner }) => isSelected(owner, select));
    const orphans: SweepItem[] = [];
    const spared: SweepItem[] = Object.keys(select).length === 0 ? strangers : [];

    const suspects: Candidate[] = [];
    for (const candidate of chosen) {
      const why = whySpared(candidate, sight, minimumAge);
      if (why === undefined) suspects.push(candidate);
      else spared.push({ ...itemOf(candidate), why });
    }
    for (const { candidate, why, note } of await askForUse(suspects, minimumAge)) {
      if (why !== undefined) spared.push({ ...itemOf(candidate), why });
      else orphans.push({ ...itemOf(candidate), why: `no slot holds it, no open rotation owns it${note}` });
    }

    const aliases = await findAliases(sight, select, minimumAge);
    return {
      installation,
      orphans: [...orphans, ...aliases.orphans],
      spared: [...spared, ...aliases.spared],
      blocked: sight.blocked,
      unknown: [...unknown, ...aliases.unknown],
    };
  },

  /**
   * Revokes one orphan for good. Looks again at everything first, since the sweep found it a while ago: slots before
   * rotations, so that a key whose slot a rotation just took over is seen in one of the two. Gone is success, so
   * repeating is safe.
   */
  async revokeOrphan({ slot, id, minimumAge }: EndOrphanOrder): Promise<OrphanEnd> {
    const owner = deps.slotAccess(slot);
    const key = await managed(owner).findKey(id);
    if (key === undefined || !isAlive(key)) return { kind: "ended", at: new Date().toISOString() };
    if (!key.name.startsWith(installationPrefix(owner.installation))) {
      return { kind: "spared", why: "its name is not one of ours" };
    }
    const neighbours = deps.allSlots().filter(({ place }) => place.provider === owner.place.provider);
    const sight = await look(deps, neighbours, { fresh: true });
    await listOurs(sight);
    const candidate: Candidate = { key, owner: ownerOf(sight, key) ?? owner, through: owner };
    const why = whySpared(candidate, sight, minimumAge) ?? (await askForUse([candidate], minimumAge))[0]?.why;
    if (why !== undefined) return { kind: "spared", why };
    await managed(owner).revokeKey(id);
    return { kind: "ended", at: new Date().toISOString() };
  },

  /** Removes one alias that an ended rotation left, its provider config and its secret. Gone is success. */
  async removeOrphanAlias({ slot, id, minimumAge }: EndOrphanOrder): Promise<OrphanEnd> {
    const access = deps.slotAccess(slot);
    if (readRotationAlias(id) === undefined) return { kind: "spared", why: "its name is not one of ours" };
    const sight = await look(deps, [access], { fresh: true });
    const { orphans, spared, unknown } = await findAliases(sight, {}, minimumAge);
    const why = spared.find((alias) => alias.id === id)?.why ?? unknown[0];
    if (orphans.some((alias) => alias.id === id)) await access.secrets.remove({ ...access.place, alias: id });
    else if (why !== undefined) return { kind: "spared", why };
    return { kind: "ended", at: new Date().toISOString() };
  },
});

// ---- what is seen ------------------------------------------------------------------------------------------------

/** A slot and what tells which key it holds: what lies in it, or, where no marks are kept, its last result. */
interface SeenSlot {
  access: SlotAccess;
  held?: Held;
  lastInstalled?: string;
}

interface Sight {
  slots: SeenSlot[];
  open: OpenRotation[];
  /** What each keyring's provider lists, by keyring. */
  keys: Map<string, KeyRecord[]>;
  /** Providers of which a keyring could not be listed, and why. */
  unlisted: Map<ProviderName, string>;
  blocked: string[];
}

/** A live key of ours. */
interface Candidate {
  key: KeyRecord;
  /** The slot its name says. */
  owner: SlotAccess;
  /** A slot whose provider lists it. */
  through: SlotAccess;
}

/**
 * Reads the slots, then which rotations are open: in this order a key cannot slip from one to the other unseen. By lists,
 * which lag seconds behind, or each slot `fresh`, before something is ended.
 */
async function look(deps: Dependencies, accesses: SlotAccess[], { fresh }: { fresh: boolean }): Promise<Sight> {
  const sight: Sight = { slots: [], open: [], keys: new Map(), unlisted: new Map(), blocked: [] };
  const listed = fresh ? undefined : await orWhy(() => readMany(accesses));
  const shown = listed !== undefined && listed.why === undefined ? listed.value : new Map<string, Held | undefined>();
  for (const access of accesses) {
    const seen = await orWhy(async (): Promise<SeenSlot> => {
      if (access.secrets.keepsMarks) {
        // What the lists do not show is asked for by itself, which says what is missing.
        return { access, held: shown.get(access.name) ?? (await access.secrets.read(access.place)) };
      }
      const lastInstalled = await deps.runs.lastInstalledKey(access.name);
      return { access, ...(lastInstalled === undefined ? {} : { lastInstalled }) };
    });
    if (seen.why === undefined) sight.slots.push(seen.value);
    else {
      sight.slots.push({ access });
      sight.blocked.push(`${access.name} cannot be read: ${seen.why}`);
    }
  }
  const everySlot = deps.allSlots().map(({ name }) => name);
  const open = await orWhy(() => deps.runs.openRotations(everySlot));
  if (open.why === undefined) sight.open = open.value;
  else sight.blocked.push(`the open rotations cannot be read: ${open.why}`);
  return sight;
}

/** All live keys that bear this installation's name, each once. */
async function listOurs(sight: Sight): Promise<{ candidates: Candidate[]; strangers: SweepItem[]; unknown: string[] }> {
  const candidates: Candidate[] = [];
  const strangers: SweepItem[] = [];
  const unknown: string[] = [];
  const once = new Set<string>();
  for (const { access } of sight.slots) {
    const ring = ringOf(access);
    if (sight.keys.has(ring)) continue;
    const listed = await orWhy(async () => managed(access).listKeys());
    sight.keys.set(ring, listed.why === undefined ? listed.value : []);
    if (listed.why !== undefined) {
      unknown.push(`the keys of ${access.name}: ${listed.why}`);
      sight.unlisted.set(access.place.provider, `not all keys of ${access.place.provider} could be listed`);
      continue;
    }
    for (const key of listed.value) {
      const { provider } = access.place;
      const same = `${provider} ${key.id} ${key.createdAt.getTime()}`;
      if (!key.name.startsWith(installationPrefix(access.installation)) || !isAlive(key) || once.has(same)) continue;
      once.add(same);
      const owner = ownerOf(sight, key);
      // The slot's own access where it reaches the key: it is asked again under that name.
      const through = owner !== undefined && ringOf(owner) === ring ? owner : access;
      if (owner !== undefined) candidates.push({ key, owner, through });
      else {
        const why = "its slot is not in this inventory: put the slot back, or revoke the key by hand";
        strangers.push({ ...itemOf({ key, owner: access, through: access }), why });
      }
    }
  }
  return { candidates, strangers, unknown };
}

function ownerOf({ slots }: Sight, { name }: KeyRecord): SlotAccess | undefined {
  return slots.find(({ access }) => name.startsWith(slotPrefix(access.installation, access.slot)))?.access;
}

// ---- what is spared ----------------------------------------------------------------------------------------------

/** Why the key stays, or nothing: the first reason that is there. */
function whySpared({ key, owner, through }: Candidate, sight: Sight, minimumAge: Duration): string | undefined {
  const { provider } = through.place;
  const rivals = sight.slots.filter(({ access }) => access.place.provider === provider);
  const reasons: (() => string | undefined)[] = [
    () => rivals.filter((slot) => holds(slot, key)).map(({ access }) => `${access.name} holds it`)[0],
    () => (sight.blocked[0] === undefined ? undefined : `everything is spared: ${sight.blocked[0]}`),
    () => sight.unlisted.get(provider),
    () =>
      rivals
        .filter((slot) => !isRuledOut(slot, key, sight))
        .map(({ access }) => `which key ${access.name} holds is unknown, so it may be this one`)[0],
    () => ownedBy(sight.open, owner, key),
    () => tooYoung("it is", key.createdAt, minimumAge),
    () => {
      const written = sight.slots.find(({ access }) => access.name === owner.name)?.held?.modified;
      if (written === undefined) return undefined;
      const young = tooYoung(`${owner.name} was written`, written, minimumAge, " ago");
      return young === undefined ? undefined : `${young}, and caches may still send its former key`;
    },
    () => {
      const { lastUsedAt } = key;
      const sinceMs = lastUsedAt === undefined ? Infinity : Date.now() - lastUsedAt.getTime();
      return sinceMs < lookMs(owner, minimumAge)
        ? `it was used ${readableMs(sinceMs)} ago: find out by whom, then sweep again`
        : undefined;
    },
  ];
  for (const reason of reasons) {
    const why = reason();
    if (why !== undefined) return why;
  }
  return undefined;
}

function holds({ held, lastInstalled }: SeenSlot, key: KeyRecord): boolean {
  return lastInstalled === key.id || (held !== undefined && mayHold(held, key.id, key));
}

function isRuledOut({ access, held, lastInstalled }: SeenSlot, key: KeyRecord, { keys }: Sight): boolean {
  if (held === undefined) return lastInstalled !== undefined && lastInstalled !== key.id;
  return rulesOut(held, key, keys.get(ringOf(access)) ?? []);
}

/** A rotation owns the keys it tells of, those that bear its id, and, while it runs, all that were made for its slot. */
function ownedBy(open: OpenRotation[], owner: SlotAccess, { id, name }: KeyRecord): string | undefined {
  const rotation = open.find(
    ({ slot, rotationId, keyIds }) =>
      slot === owner.name || keyIds.includes(id) || name.includes(`.${shortRotationId(rotationId)}.`),
  );
  return rotation === undefined ? undefined : `the open rotation ${rotation.workflowId} may need it`;
}

function tooYoung(what: string, since: Date, minimumAge: Duration, tail = " old"): string | undefined {
  const ageMs = Date.now() - since.getTime();
  return ageMs < inMs(minimumAge) ? `${what} ${readableMs(ageMs)}${tail}, less than ${minimumAge}` : undefined;
}

/** How far back use counts: the minimum age, a day at most, and never less than what a provider's late data needs. */
function lookMs({ policy }: SlotAccess, minimumAge: Duration): number {
  return Math.max(inMs(policy.quietPeriod) + inMs(policy.usageLag), Math.min(inMs(minimumAge), longestLookMs));
}

interface Asked {
  candidate: Candidate;
  /** Why it is spared, where it is. */
  why?: string;
  note: string;
}

/** Asks the providers for the suspects' late use, once for each keyring. */
async function askForUse(suspects: Candidate[], minimumAge: Duration): Promise<Asked[]> {
  const asked: Asked[] = [];
  for (const ring of new Set(suspects.map(({ through }) => ringOf(through)))) {
    const group = suspects.filter(({ through }) => ringOf(through) === ring);
    const [first] = group;
    if (first === undefined) continue;
    const now = Date.now();
    const backMs = Math.max(...group.map(({ owner }) => lookMs(owner, minimumAge)));
    const keyIds = group.map(({ key }) => key.id);
    const report = await orWhy(async () =>
      managed(first.through).readUsage({ keyIds, from: new Date(now - backMs), to: new Date(now) }),
    );
    for (const candidate of group) {
      if (report.why !== undefined) {
        asked.push({ candidate, why: `its use cannot be read: ${report.why}`, note: "" });
        continue;
      }
      const { buckets, perKey } = report.value;
      const used = buckets.some(({ keyId, requests, tokens }) => keyId === candidate.key.id && requests + tokens > 0);
      if (used) {
        const why = `it was used within ${readableMs(backMs)}: find out by whom, then sweep again`;
        asked.push({ candidate, why, note: "" });
      } else asked.push({ candidate, note: perKey === false ? "; its use is unknown" : "" });
    }
  }
  return asked;
}

// ---- aliases -----------------------------------------------------------------------------------------------------

async function findAliases(
  { slots, open, blocked }: Sight,
  select: SweepSelection,
  minimumAge: Duration,
): Promise<{ orphans: SweepItem[]; spared: SweepItem[]; unknown: string[] }> {
  const found: { orphans: SweepItem[]; spared: SweepItem[]; unknown: string[] } = {
    orphans: [],
    spared: [],
    unknown: [],
  };
  const openIds = new Set(open.map(({ rotationId }) => shortRotationId(rotationId)));
  const once = new Set<string>();
  for (const { access } of slots) {
    const { gateway, provider } = access.place;
    if (!isSelected(access, select) || !canListAliases(access.secrets) || once.has(`${gateway} ${provider}`)) continue;
    once.add(`${gateway} ${provider}`);
    const { secrets } = access;
    const listed = await orWhy(() => secrets.listAliases(gateway, provider));
    if (listed.why !== undefined) {
      found.unknown.push(`the aliases of ${provider} in gateway ${gateway}: ${listed.why}`);
      continue;
    }
    for (const { alias, since } of listed.value) {
      const rotation = readRotationAlias(alias);
      if (rotation === undefined) continue;
      const spared =
        (blocked[0] === undefined ? undefined : `everything is spared: ${blocked[0]}`) ??
        (openIds.has(rotation) ? "its rotation is open" : undefined) ??
        tooYoung("it is", since, minimumAge);
      const item = {
        kind: "alias",
        id: alias,
        name: gateway,
        slot: access.name,
        created: since.toISOString(),
      } as const;
      if (spared !== undefined) found.spared.push({ ...item, why: spared });
      else found.orphans.push({ ...item, why: "its rotation has ended" });
    }
  }
  return found;
}

// ---- small things ------------------------------------------------------------------------------------------------

function isAlive({ state }: KeyRecord): boolean {
  return state === "active" || state === "disabled";
}

function isSelected({ name, slot }: SlotAccess, { environment, provider, slots }: SweepSelection): boolean {
  return (
    (environment === undefined || environment === slot.environment) &&
    (provider === undefined || provider === slot.provider) &&
    (slots === undefined || slots.includes(name))
  );
}

function ringOf({ place, keyring }: SlotAccess): string {
  return `${place.provider} ${keyring}`;
}

function itemOf({ key, owner, through }: Candidate): Omit<SweepItem, "why"> {
  return {
    kind: "key",
    id: key.id,
    name: key.name,
    slot: (ringOf(owner) === ringOf(through) ? owner : through).name,
    created: key.createdAt.toISOString(),
    ...(key.lastUsedAt === undefined ? {} : { lastUsed: key.lastUsedAt.toISOString() }),
  };
}

/** The answer, or why there is none. What may pass is repeated a few times first. */
async function orWhy<T>(ask: () => Promise<T>): Promise<{ value: T; why?: undefined } | { why: string }> {
  try {
    return { value: await ask() };
  } catch (error) {
    if (!(error instanceof RotationFailure)) throw error;
    if (error.retried && Context.current().info.attempt < patientAttempts) throw error;
    return { why: error.message };
  }
}
