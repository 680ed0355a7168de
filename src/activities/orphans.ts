import { canListAliases } from "../cloudflare/slot-secrets.ts";
import { type Duration, inMs, readableMs } from "../domain/duration.ts";
import type { AskedKey } from "../domain/held.ts";
import { installationPrefix, slotPrefix } from "../domain/key-name.ts";
import { parseAliasComment } from "../domain/mark.ts";
import { type ProviderName, readRotationAlias, shortRotationId } from "../domain/slot.ts";
import type { SweepItem } from "../domain/sweep.ts";
import type { KeyRecord } from "../providers/provider.ts";
import { maskSecrets } from "../redacted.ts";
import type { Dependencies, OpenRotation, SlotAccess } from "./dependencies.ts";
import { askedKey, heldByOf, type Judged, judgeSlots, type SeenSlot } from "./held-key.ts";
import { managed } from "./managed.ts";
import { orWhy } from "./or-why.ts";

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

/** The longest look back at a key's use: whoever used it before may be gone. */
const longestLookMs = 86_400_000;

export const orphanActivities = (deps: Dependencies) => ({
  /**
   * Finds the live keys and aliases of this installation that nobody holds or owns, and the live keys that the last run
   * of a slot named, whatever their names. Only reads. What cannot be read for good, after a few attempts, is said, and
   * everything that may depend on it is spared.
   */
  async findOrphans({ select, minimumAge }: FindOrphansOrder): Promise<Orphans> {
    const accesses = deps.allSlots();
    const { candidates, strangers, unknown, rings } = await listOurs(deps, accesses);
    const sight = await look(deps, { accesses, candidates, rings });
    const chosen = candidates.filter(({ owner }) => isSelected(owner, select));
    const orphans: SweepItem[] = [];
    const spared: SweepItem[] = Object.keys(select).length === 0 ? strangers : [];

    const suspects: Candidate[] = [];
    for (const candidate of chosen) {
      const why = whySpared(candidate, sight, minimumAge);
      if (why === undefined) suspects.push(candidate);
      else spared.push({ ...itemOf(candidate), why: withName(why, candidate) });
    }
    for (const { candidate, why, note } of await askForUse(suspects, minimumAge)) {
      if (why !== undefined) spared.push({ ...itemOf(candidate), why: withName(why, candidate) });
      else {
        const none = `no slot holds it, no open rotation owns it${note}`;
        orphans.push({ ...itemOf(candidate), why: withName(none, candidate) });
      }
    }

    const aliases = await findAliases(sight, select, minimumAge);
    return {
      installation: accesses[0]?.installation ?? "",
      orphans: [...orphans, ...aliases.orphans],
      spared: [...spared, ...aliases.spared],
      blocked: sight.blocked,
      unknown: [...unknown, ...aliases.unknown],
    };
  },

  /** Removes one alias that an ended rotation left, its provider config and its secret. Gone is success. */
  async removeOrphanAlias({ slot, id, minimumAge }: EndOrphanOrder): Promise<OrphanEnd> {
    const access = deps.slotAccess(slot);
    if (readRotationAlias(id) === undefined) return { kind: "spared", why: "its name is not one of ours" };
    const sight = await look(deps, { accesses: [access], candidates: [], rings: new Map() });
    const { orphans, spared, unknown } = await findAliases(sight, {}, minimumAge);
    const why = spared.find((alias) => alias.id === id)?.why ?? unknown[0];
    if (orphans.some((alias) => alias.id === id)) await access.secrets.remove({ ...access.place, alias: id });
    else if (why !== undefined) return { kind: "spared", why };
    return { kind: "ended", at: new Date().toISOString() };
  },
});

/**
 * Why a key that was found as an orphan is spared after all, looked at again, since the sweep found it a while ago: at
 * the slots before the rotations, so that a key whose slot a rotation just took over is seen in one of the two. Nothing
 * where it may be ended. Whether it is ours to end, its name or `namedByLastRun` says. Only reads.
 */
export async function whyOrphanSpared(
  deps: Dependencies,
  { through, key, minimumAge }: { through: SlotAccess; key: KeyRecord; minimumAge: Duration },
): Promise<string | undefined> {
  const accesses = deps.allSlots().filter(({ place }) => place.provider === through.place.provider);
  const { rings } = await listOurs(deps, accesses, { named: false });
  const candidate: Candidate = { key, owner: ownerOf(accesses, key) ?? through, through };
  const sight = await look(deps, { accesses, candidates: [candidate], rings });
  return whySpared(candidate, sight, minimumAge) ?? (await askForUse([candidate], minimumAge))[0]?.why;
}

/** What the last closed run of the slot said of a key that it left behind alive; nothing where it did not name the key. */
export async function namedByLastRun(deps: Dependencies, access: SlotAccess, id: string): Promise<string | undefined> {
  return (await namedBy(deps, access)).find((one) => one.id === id)?.why;
}

// ---- what is seen ------------------------------------------------------------------------------------------------

/** What a keyring's provider lists, or why it could not be asked. */
type Rings = Map<string, { provider: ProviderName; keys: KeyRecord[]; why?: string }>;

interface Sight {
  accesses: SlotAccess[];
  seen: Map<string, SeenSlot>;
  /** By provider: an id is only an id within one. */
  judged: Map<ProviderName, Judged>;
  open: OpenRotation[];
  /** Providers of which a keyring could not be listed, and why. */
  unlisted: Map<ProviderName, string>;
  blocked: string[];
}

/** A live key of ours. */
interface Candidate {
  key: KeyRecord;
  /** The slot its name says, or whose run named it. */
  owner: SlotAccess;
  /** A slot whose provider lists it. */
  through: SlotAccess;
  /** What the slot's last run said of it, where that named it. */
  named?: string;
}

/**
 * Looks which slots hold the candidates, then which rotations are open: in this order a key cannot slip from one to the
 * other unseen.
 */
async function look(
  deps: Dependencies,
  { accesses, candidates, rings }: { accesses: SlotAccess[]; candidates: Candidate[]; rings: Rings },
): Promise<Sight> {
  const sight: Sight = {
    accesses,
    seen: new Map(),
    judged: new Map(),
    open: [],
    unlisted: new Map(),
    blocked: [],
  };
  for (const { provider, why } of rings.values()) {
    if (why !== undefined) sight.unlisted.set(provider, `not all keys of ${provider} could be listed`);
  }
  for (const provider of new Set(accesses.map(({ place }) => place.provider))) {
    const slots = accesses.filter(({ place }) => place.provider === provider);
    const asked: AskedKey[] = [];
    for (const { key, through } of candidates) {
      if (through.place.provider !== provider) continue;
      // Where the value that its provider shows again cannot be read, the key is known by less.
      const known = await orWhy(() => askedKey(through, key.id, key));
      asked.push(known.why === undefined ? known.value : { id: key.id, createdAt: key.createdAt });
    }
    const known = [...rings.values()].flatMap((ring) => (ring.provider === provider ? ring.keys : []));
    const { judged, seen } = await judgeSlots(deps, slots, asked, { patient: true, known });
    sight.judged.set(provider, judged);
    for (const [name, what] of seen) {
      sight.seen.set(name, what);
      if (what.kind === "unreadable") sight.blocked.push(`${name} cannot be read: ${what.why}`);
      if (what.kind === "gone") {
        sight.blocked.push(
          `${name} cannot be read: its secret is not there; make it, or take the slot out of the inventory`,
        );
      }
    }
  }
  const everySlot = deps.allSlots().map(({ name }) => name);
  const open = await orWhy(() => deps.runs.openRotations(everySlot));
  if (open.why === undefined) sight.open = open.value;
  else sight.blocked.push(`the open rotations cannot be read: ${open.why}`);
  return sight;
}

/** All live keys that bear this installation's name, or that the last run of a slot named, each once. */
async function listOurs(
  deps: Dependencies,
  accesses: SlotAccess[],
  { named = true }: { named?: boolean } = {},
): Promise<{ candidates: Candidate[]; strangers: SweepItem[]; unknown: string[]; rings: Rings }> {
  const candidates: Candidate[] = [];
  const strangers: SweepItem[] = [];
  const unknown: string[] = [];
  const rings: Rings = new Map();
  const once = new Set<string>();
  for (const access of accesses) {
    const ring = ringOf(access);
    if (rings.has(ring)) continue;
    const { provider } = access.place;
    const listed = await orWhy(async () => managed(access).listKeys());
    if (listed.why !== undefined) {
      rings.set(ring, { provider, keys: [], why: listed.why });
      unknown.push(`the keys of ${access.name}: ${listed.why}`);
      continue;
    }
    rings.set(ring, { provider, keys: listed.value });
    for (const key of listed.value) {
      if (!key.name.startsWith(installationPrefix(access.installation)) || !isAlive(key)) continue;
      if (once.has(sameKey(provider, key))) continue;
      once.add(sameKey(provider, key));
      const owner = ownerOf(accesses, key);
      // The slot's own access where it reaches the key: it is asked again under that name.
      const through = owner !== undefined && ringOf(owner) === ring ? owner : access;
      if (owner !== undefined) candidates.push({ key, owner, through });
      else {
        const why = "its slot is not in this inventory: put the slot back, or revoke the key by hand";
        strangers.push({ ...itemOf({ key, owner: access, through: access }), why });
      }
    }
  }
  for (const access of named ? accesses : []) {
    const told = await orWhy(() => namedBy(deps, access));
    if (told.why !== undefined) {
      unknown.push(`what the last run of ${access.name} left behind: ${told.why}`);
      continue;
    }
    const { provider } = access.place;
    const ring = rings.get(ringOf(access));
    for (const { id, why } of told.value) {
      if (ring?.why !== undefined) {
        unknown.push(`whether ${id} of ${access.name} is alive: ${why}`);
        continue;
      }
      const key = ring?.keys.find((one) => one.id === id);
      if (key === undefined || !isAlive(key)) continue;
      const known = candidates.find((one) => sameKey(provider, one.key) === sameKey(provider, key));
      if (known === undefined) candidates.push({ key, owner: access, through: access, named: why });
      else known.named ??= why;
    }
  }
  return { candidates, strangers, unknown, rings };
}

/**
 * The keys that the slot's last closed run named, and what it said of each. A key whose end was only accepted is named
 * too: it was not seen dead.
 */
async function namedBy(deps: Dependencies, { name }: SlotAccess): Promise<{ id: string; why: string }[]> {
  const closed = await deps.runs.lastClosed(name);
  return (closed?.result?.keys ?? []).flatMap(({ id, fate, seen, why = "it did not say why" }) => {
    if (fate === "named" || fate === "open") return [{ id, why: `the last run of ${name} named it: ${why}` }];
    return fate === "ended" && seen !== true
      ? [{ id, why: `the last run of ${name} ended it, and did not see it dead` }]
      : [];
  });
}

function sameKey(provider: ProviderName, { id, createdAt }: KeyRecord): string {
  return `${provider} ${id} ${createdAt.getTime()}`;
}

function withName(why: string, { named }: Candidate): string {
  return named === undefined ? why : `${why}; ${named}`;
}

function ownerOf(accesses: SlotAccess[], { name }: KeyRecord): SlotAccess | undefined {
  return accesses.find(({ installation, slot }) => name.startsWith(slotPrefix(installation, slot)));
}

// ---- what is spared ----------------------------------------------------------------------------------------------

/** Why the key stays, or nothing: the first reason that is there. */
function whySpared({ key, owner, through }: Candidate, sight: Sight, minimumAge: Duration): string | undefined {
  const { provider } = through.place;
  const { yes, unknown } = heldByOf(sight.judged.get(provider) ?? new Map(), key.id);
  const reasons: (() => string | undefined)[] = [
    () => yes.map((name) => `${name} holds it`)[0],
    () => (sight.blocked[0] === undefined ? undefined : `everything is spared: ${sight.blocked[0]}`),
    () => sight.unlisted.get(provider),
    () => unknown.map(({ slot, why }) => `which key ${slot} holds is unknown, so it may be this one: ${why}`)[0],
    () => ownedBy(sight.open, owner, key),
    () => tooYoung("it is", key.createdAt, minimumAge),
    () => {
      const seen = sight.seen.get(owner.name);
      const written = seen?.kind === "held" ? seen.held.modified : undefined;
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
      const { buckets, perKey, notShown = [] } = report.value;
      if (notShown.includes(candidate.key.id)) {
        asked.push({ candidate, why: "its use cannot be read: its provider did not show the key just now", note: "" });
        continue;
      }
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
  { accesses, open, blocked }: Sight,
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
  for (const access of accesses) {
    const { gateway, provider } = access.place;
    if (!isSelected(access, select) || !canListAliases(access.secrets) || once.has(`${gateway} ${provider}`)) continue;
    once.add(`${gateway} ${provider}`);
    const { secrets } = access;
    const listed = await orWhy(() => secrets.listAliases(gateway, provider));
    if (listed.why !== undefined) {
      found.unknown.push(`the aliases of ${provider} in gateway ${gateway}: ${listed.why}`);
      continue;
    }
    for (const { alias, since, comment } of listed.value) {
      const rotation = readRotationAlias(alias);
      if (rotation === undefined) continue;
      const made = parseAliasComment(comment);
      // Another installation shares the gateway, and knows what it still needs.
      if (made !== undefined && made.installation !== access.installation) continue;
      const ours = made !== undefined && shortRotationId(made.rotationId) === rotation;
      const spared =
        (blocked[0] === undefined ? undefined : `everything is spared: ${blocked[0]}`) ??
        (openIds.has(rotation) ? "its rotation is open" : undefined) ??
        (ours ? undefined : "its secret does not say which installation made it: remove it by hand if it is yours") ??
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
    name: maskSecrets(key.name),
    slot: (ringOf(owner) === ringOf(through) ? owner : through).name,
    created: key.createdAt.toISOString(),
    ...(key.lastUsedAt === undefined ? {} : { lastUsed: key.lastUsedAt.toISOString() }),
  };
}
