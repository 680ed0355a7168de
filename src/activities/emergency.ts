import { RotationFailure } from "../domain/failure.ts";
import { maskTells, masksAgree, parseMark } from "../domain/mark.ts";
import { gatewaySlugs } from "../domain/slot.ts";
import { canManage, type KeyRecord } from "../providers/provider.ts";
import type { Redacted } from "../redacted.ts";
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
import { findHolders, lookAtSlots, type SeenSlot } from "./held-key.ts";
import { deadRuleOf } from "./slots.ts";
import { managed } from "./managed.ts";

/** Statuses with which the three providers refuse a key: the tables of docs/providers.md. */
const refusals: Record<SlotAccess["place"]["provider"], number[]> = {
  openai: [401],
  anthropic: [401],
  gemini: [400, 401, 403],
};

export const emergencyActivities = (deps: Dependencies) => ({
  /**
   * Finds the compromised key: by its id, else by its leaked value (fingerprint in a mark, masked value at the
   * provider). Only reads. Fails with `InvalidInput` when it is not found, or more than one fits.
   */
  async findCompromised({ slot, compromisedKeyId, leaked, cut }: CompromisedOrder): Promise<Compromised> {
    const access = deps.slotAccess(slot);
    const seen = await lookAtSlots(deps, access);
    const found = await identify(deps, access, { compromisedKeyId, leaked, seen });
    const { provider } = access;
    const record = canManage(provider) ? await provider.findKey(found.id) : undefined;
    const heldBy = await findHolders(deps, access, found.id, seen);
    // A key that is dead already, by our cut or by its provider's, may be listed no more.
    if (canManage(provider) && record === undefined && found.how === "id" && heldBy.length === 0 && cut !== true) {
      throw new RotationFailure("InvalidInput", `${access.provider.name} knows no key ${found.id}: check the id`);
    }
    return {
      ...found,
      ...(canManage(provider) ? { alive: record?.state === "active" || record?.state === "disabled" } : {}),
      heldBy,
      ...(record?.standard === true ? { dead: deadRuleOf(access.policy, record) } : {}),
      ...(record === undefined ? {} : { createdAt: record.createdAt.toISOString() }),
    };
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

async function identify(
  deps: Dependencies,
  access: SlotAccess,
  {
    compromisedKeyId,
    leaked,
    seen,
  }: { compromisedKeyId?: string | undefined; leaked?: string | undefined; seen: SeenSlot[] },
): Promise<Pick<Compromised, "id" | "how">> {
  if (compromisedKeyId !== undefined) return { id: compromisedKeyId, how: "id" };
  if (leaked === undefined) throw new RotationFailure("InvalidInput", "no key id and no leaked value: name the key");
  const value = await deps.open(leaked, { slot: access.name, purpose: "leaked" });
  const marked = heldByMark(seen, value);
  if (marked !== undefined) return { id: marked, how: "fingerprint" };
  const fitting = (await managed(access).listKeys()).filter((key) => looksLike(key, value));
  const [match, ...others] = fitting;
  if (match !== undefined && others.length === 0) return { id: match.id, how: "masked value" };
  const several = fitting.map(({ id, name }) => `${id} (${name})`).join(", ");
  throw new RotationFailure(
    "InvalidInput",
    match === undefined
      ? `${access.provider.name} shows no key with the leaked value in the project of ${access.name}: it may be dead already, or of another slot${rivalsOf(deps, access)}`
      : `several keys look like the leaked value: start again with one of them: ${several}`,
  );
}

/** The other slots of the provider, to try. */
function rivalsOf(deps: Dependencies, { name, slot }: SlotAccess): string {
  const names = deps
    .allSlots()
    .flatMap((one) => (one.slot.provider === slot.provider && one.name !== name ? [one.name] : []));
  return names.length === 0 ? "" : ` (try ${names.slice(0, 10).join(", ")})`;
}

function heldByMark(seen: SeenSlot[], value: Redacted): string | undefined {
  const marks = seen.map(({ held }) => parseMark(held?.comment));
  return marks.find((mark) => mark?.fingerprint === value.fingerprint())?.keyId;
}

function looksLike({ maskedValue }: KeyRecord, value: Redacted): boolean {
  return maskedValue !== undefined && maskTells(maskedValue) && masksAgree(maskedValue, value.reveal());
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
