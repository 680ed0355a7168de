import { defined } from "../domain/defined.ts";
import { RotationFailure } from "../domain/failure.ts";
import { parseKeyName } from "../domain/key-name.ts";
import { gatewaySlugs, slotName } from "../domain/slot.ts";
import { maskSecrets } from "../redacted.ts";
import type {
  Compromised,
  CompromisedOrder,
  Evidence,
  EvidenceOrder,
  LastRefusal,
  RefusalOrder,
  SoakLook,
  SoakOrder,
} from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { whoHolds } from "./held-key.ts";
import { managed } from "./managed.ts";
import {
  asked,
  brothersOf,
  endingOf,
  findById,
  findByValue,
  type FoundKey,
  lookAgain,
  readMarks,
} from "./seen-keys.ts";
import { deadRuleOf } from "./slots.ts";

/** Statuses with which the three providers refuse a key: the tables of docs/providers.md. */
const refusals: Record<SlotAccess["place"]["provider"], number[]> = {
  openai: [401],
  anthropic: [401],
  gemini: [400, 401, 403],
};

/** The slot whose rotation gave a key its name; undefined where no rotation of ours did. */
function makerOf({ installation }: SlotAccess, name: string | undefined): string | undefined {
  const made = name === undefined ? undefined : parseKeyName(name);
  return made === undefined || made.installation !== installation ? undefined : slotName(made.slot);
}

export const emergencyActivities = (deps: Dependencies) => ({
  /**
   * Finds the compromised keys: by their ids, over all slots of the provider, and by the leaked value. Only reads. Fails
   * with `KeyUnknown` where nobody knows an id or the value, `KeyAmbiguous` where the value fits several keys, and
   * `InvalidInput` where an id is a key's value.
   */
  async findCompromised({ slot, keyIds, leaked, providerOnly }: CompromisedOrder): Promise<Compromised[]> {
    const access = deps.slotAccess(slot);
    const found = await findNamed(deps, access, { keyIds, leaked, providerOnly });
    const all = providerOnly === true ? [] : await Promise.all(found.map(asked));
    const holders = providerOnly === true ? undefined : await whoHolds(deps, access, all, { patient: true });
    return found.map(({ id, how, through, record, state }) => {
      const ending = endingOf(record?.maskedValue ?? all.find((one) => one.id === id)?.maskedValue);
      return {
        id,
        how,
        state,
        through: through.name,
        ...(record === undefined ? {} : { name: maskSecrets(record.name), createdAt: record.createdAt.toISOString() }),
        ...(ending === undefined ? {} : { ending }),
        ...(record?.standard === true ? { dead: deadRuleOf(through.policy, record) } : {}),
        heldBy: holders?.get(id)?.yes ?? [],
        unknown: holders?.get(id)?.unknown ?? [],
        ...defined({ left: holders?.get(id)?.left, madeFor: makerOf(access, record?.name) }),
      };
    });
  },

  /**
   * Looks whether the gateway's logs show more refused keys since the old key was switched off than in as long a time
   * before. Only reads; where the logs cannot be read, or not to their end, it says so.
   */
  async lookForErrors({ slot, since }: SoakOrder): Promise<SoakLook> {
    const access = deps.slotAccess(slot);
    const off = Date.parse(since);
    const now = Date.now();
    try {
      const { rows, readTo } = await access.readLogs({ from: new Date(off - (now - off)), to: new Date(now) });
      const refused = refusedOf(access, rows);
      const after = refused.filter(({ at }) => at.getTime() >= off).length;
      const before = refused.length - after;
      // What was read is from the beginning on, so more refusals than before are real whatever comes after them.
      if (readTo !== undefined && after <= before) return { note: tooMany(readTo, "errors after that are unknown") };
      return { newErrors: Math.max(0, after - before), note: `${after} refused requests since, ${before} before` };
    } catch (error) {
      if (!(error instanceof RotationFailure) || error.retried) throw error;
      return { note: `the gateway's logs cannot be read: ${error.message}` };
    }
  },

  /** When the gateway's logs last show a client's key refused. Only reads; where the logs cannot be read it says so. */
  async findLastRefusal({ slot, from }: RefusalOrder): Promise<LastRefusal> {
    const access = deps.slotAccess(slot);
    try {
      const { rows, readTo } = await access.readLogs({ from: new Date(from), to: new Date(), newestFirst: true });
      const last = refusedOf(access, rows).reduce((latest, { at }) => Math.max(latest, at.getTime()), 0);
      if (last > 0) return { lastRefused: iso(last) };
      return readTo === undefined
        ? {}
        : { note: `${tooMany(readTo, "no client was refused since, before is unknown")}` };
    } catch (error) {
      if (!(error instanceof RotationFailure) || error.retried) throw error;
      return { note: `the gateway's logs cannot be read, so how long requests failed is not known: ${error.message}` };
    }
  },

  /**
   * Compares, bucket by bucket, what the provider says was asked with the key with what the gateway sent: what is over is
   * use by somebody else. Only reads; what cannot be told is said.
   */
  async gatherEvidence({ slot, keyId, from, to }: EvidenceOrder): Promise<Evidence> {
    const access = deps.slotAccess(slot);
    const span = { from: new Date(from), to: new Date(to) };
    const notes: string[] = [];
    const report = await managed(access).readUsage({ keyIds: [keyId], ...span });
    if (report.perKey === false) notes.push("the provider does not report use by key: its use is unknown");
    if (report.notShown !== undefined) notes.push("the provider does not show the key any more: its use is unknown");
    notes.push(...report.unknownSurfaces.map((surface) => `use of ${surface} is not reported by key`));

    const sent = await gatewayRows(access, span, notes);
    const readToMs = sent?.readTo?.getTime() ?? Infinity;
    const strangers: Evidence["strangers"] = [];
    const buckets = byBucket(report.buckets);
    for (const { from: start, to: end, requests, models } of buckets) {
      // One bucket of slack on either side: the two clocks and the two moments of counting differ.
      const width = end - start;
      if (sent === undefined || end + width > readToMs) continue;
      const ours = sent.rows.filter(({ at }) => at.getTime() >= start - width && at.getTime() < end + width).length;
      if (requests > ours) {
        strangers.push({ from: iso(start), to: iso(end), requests: requests - ours, models: [...models] });
      }
    }
    const whole = sent !== undefined && sent.readTo === undefined;
    const asked = new Set(sent?.rows.map(({ model }) => model).filter((model) => model !== undefined));
    const used = new Set(buckets.flatMap(({ models }) => [...models]));
    return {
      from,
      to,
      providerRequests: buckets.reduce((sum, { requests }) => sum + requests, 0),
      providerTokens: report.buckets.reduce((sum, { tokens }) => sum + tokens, 0),
      ...(whole ? { gatewayRequests: sent.rows.length } : {}),
      strangers,
      strangeModels: whole ? [...used].filter((model) => !asked.has(model)) : [],
      notes,
    };
  },
});

/** Keys that somebody named. */
interface Named {
  keyIds: string[];
  leaked?: string | undefined;
  providerOnly?: true | undefined;
}

/** The keys that were named by id or shown by value, each once. */
export async function findNamed(deps: Dependencies, access: SlotAccess, named: Named): Promise<FoundKey[]> {
  return lookAgain(access.secondLookMs, (again) => findOnce(deps, access, { ...named, again }));
}

async function findOnce(
  deps: Dependencies,
  access: SlotAccess,
  { keyIds, leaked, providerOnly, again }: Named & { again: boolean },
): Promise<FoundKey[]> {
  if (keyIds.length === 0 && leaked === undefined) {
    throw new RotationFailure("InvalidInput", "no key id and no leaked value: name the key");
  }
  const slots = brothersOf(deps, access);
  const marks = providerOnly === true ? undefined : await readMarks(slots);
  const found = new Map<string, FoundKey>();
  if (leaked !== undefined) {
    const value = await deps.open(leaked, { slot: access.name, purpose: "leaked" });
    const { found: fitting, several, unknown, passing } = await findByValue(value, slots, { marks, again });
    if (several.length > 0) throw severalFit(several);
    if (fitting.length === 0 && keyIds.length === 0) {
      if (passing !== undefined) throw passing;
      throw valueUnknown(
        `${access.provider.name} shows no key with the leaked value in the projects of`,
        slots,
        unknown,
      );
    }
    for (const key of fitting) found.set(key.id, key);
  }
  for (const id of new Set(keyIds)) {
    if (!found.has(id)) found.set(id, await knownById(deps, access, id, () => findById(id, slots, { marks, again })));
  }
  return [...found.values()];
}

/** A key that nobody knows any more, and that the slot's last run saw dead, is no slip of the pen: it is dead. */
async function knownById(
  { runs }: Dependencies,
  access: SlotAccess,
  id: string,
  find: () => Promise<FoundKey>,
): Promise<FoundKey> {
  try {
    return await find();
  } catch (error) {
    if (!(error instanceof RotationFailure) || error.type !== "KeyUnknown") throw error;
    const last = await runs.lastClosed(access.name).catch(() => undefined);
    const entry = last?.result?.keys.find((key) => key.id === id);
    if (entry?.fate !== "ended" || entry.seen !== true) throw error;
    return { id, how: "id", through: access, state: "dead" };
  }
}

/** Several keys look like a leaked value: nobody guesses. */
export function severalFit(several: FoundKey[]): RotationFailure {
  const candidates = several.map(({ id, through, record }) => ({
    id,
    through: through.name,
    ...(record === undefined ? {} : { name: maskSecrets(record.name), createdAt: record.createdAt.toISOString() }),
  }));
  const named = several.map(
    ({ id, through, record }) => `${id} (${record?.name ?? "no name"}, seen by ${through.name})`,
  );
  return new RotationFailure(
    "KeyAmbiguous",
    `several keys look like the leaked value, and which it is cannot be told: start again with the ids of one or more of them: ${named.join(", ")}`,
    { details: [{ candidates }] },
  );
}

export function valueUnknown(what: string, slots: SlotAccess[], unknown: string[]): RotationFailure {
  const not = unknown.length === 0 ? "" : `; not looked at: ${unknown.join("; ")}`;
  return new RotationFailure(
    "KeyUnknown",
    `${what} ${slots.map(({ name }) => name).join(", ")}: nothing was ended; it may be dead already, or a key of somewhere else${not}`,
    { details: [{ keyIds: [] }] },
  );
}

type LogRow = Awaited<ReturnType<SlotAccess["readLogs"]>>["rows"][number];

/** What is said of logs that are longer than can be read. */
function tooMany(readTo: Date, so: string): string {
  return `the gateway logged more than can be read, which went as far as ${readTo.toISOString()}: ${so}`;
}

/** Requests of clients, the key of which the slot's provider refused. */
function refusedOf({ place: { provider } }: SlotAccess, rows: LogRow[]): LogRow[] {
  const ours = new Set([gatewaySlugs[provider], provider === "gemini" ? "google" : provider]);
  return rows.filter(
    ({ provider: name, status, metadata }) =>
      ours.has(name) && refusals[provider].includes(status ?? 0) && metadata?.includes("keyturn") !== true,
  );
}

async function gatewayRows(access: SlotAccess, span: { from: Date; to: Date }, notes: string[]) {
  try {
    const { provider } = access.place;
    const names = new Set([gatewaySlugs[provider], provider === "gemini" ? "google" : provider]);
    const { rows, readTo } = await access.readLogs(span);
    if (readTo !== undefined) {
      notes.push(tooMany(readTo, "use by others after that, and which models are not ours, is unknown"));
    }
    const sent = rows.filter(({ provider: name, cached }) => names.has(name) && !cached);
    return { rows: sent, ...(readTo === undefined ? {} : { readTo }) };
  } catch (error) {
    if (!(error instanceof RotationFailure) || error.retried) throw error;
    notes.push(`the gateway's logs cannot be read, so strangers cannot be told from clients: ${error.message}`);
    return undefined;
  }
}

function byBucket(rows: { from: Date; to: Date; requests: number; model?: string }[]) {
  const buckets = new Map<number, { from: number; to: number; requests: number; models: Set<string> }>();
  for (const { from, to, requests, model } of rows) {
    const at = from.getTime();
    const bucket = buckets.get(at) ?? { from: at, to: to.getTime(), requests: 0, models: new Set<string>() };
    bucket.requests += requests;
    if (model !== undefined) bucket.models.add(model);
    buckets.set(at, bucket);
  }
  return [...buckets.values()].toSorted((a, b) => a.from - b.from);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
