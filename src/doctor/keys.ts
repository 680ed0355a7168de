import type { SlotAccess } from "../activities/dependencies.ts";
import { seenOf } from "../activities/held-key.ts";
import type { Held } from "../cloudflare/slot-secrets.ts";
import { lookUp, managed, missingOf } from "../activities/managed.ts";
import { type Duration, inMs, readableMs } from "../domain/duration.ts";
import { type AskedKey, doubtMark, judgeHeld } from "../domain/held.ts";
import { isOurId } from "../domain/key-id.ts";
import { parseMark } from "../domain/mark.ts";
import { keyLifeOf } from "../domain/provider-limits.ts";
import type { ProviderName } from "../domain/slot.ts";
import type { KeyRecord } from "../providers/provider.ts";
import { type Found, ofFailure, ofMissing, ok, orMissing, problem, unknown, warning } from "./finding.ts";
import type { Ground, SlotGround } from "./ground.ts";

/** The keys of the slots, and the credentials that manage them. */

const dayMs = 86_400_000;

export async function adminReadsKeys({ name, access, keys }: SlotGround): Promise<Found> {
  const missing = missingOf(access);
  if (missing !== undefined) {
    const message = `${missing}: a person makes each key of ${name} and revokes the old one, its use is unknown so that only the grace ceiling or an approval ends the wait, and leftovers are named, not revoked`;
    return warning(
      name,
      message,
      "leave it so, or give the workers the admin credential: docs/runbooks/hand-issued-key.md",
    );
  }
  await managed(access).checkAdminCredential();
  const found = await keys();
  return ok(name, `the admin credential of ${access.place.provider} reads the slot's keys: ${found.length} there`);
}

export async function adminReadsUsage({ name, access, keys, usage }: SlotGround): Promise<Found> {
  if (missingOf(access) !== undefined) return notWithout(access, "the use of keys");
  if ((await orMissing(keys)) === undefined) return ofMissing(name, "the usage of keys");
  const { provider } = access.place;
  return (await usage()) === undefined
    ? unknown(name, `whether the admin credential of ${provider} reads usage is unknown: there is no key to ask about`)
    : ok(name, `the admin credential of ${provider} reads the usage of keys`);
}

/** None of the providers tells a credential's rights to the credential. */
export async function adminWrites({ name, access }: SlotGround): Promise<Found> {
  if (missingOf(access) !== undefined)
    return ok(name, "no admin credential has to write here: people make and revoke keys");
  return unknown(
    name,
    `whether the admin credential of ${access.place.provider} may make and revoke keys only a write shows, and none is made here`,
  );
}

const howKnown = {
  mark: "by its mark",
  preview: "by the gateway's preview",
  value: "by its value, which the provider shows again",
  "last result": "by the last rotation's result",
  operator: "as told",
};

export async function heldKeyKnown({ name, access, content, keys, held }: SlotGround): Promise<Found> {
  const listed = missingOf(access) !== undefined || (await orMissing(keys)) !== undefined;
  if (!listed || (await orMissing(content)) === undefined) {
    return ofMissing(name, "which key the slot holds");
  }
  const { id, how, warnings } = await held();
  const known = `the slot holds ${id}, known ${howKnown[how]}`;
  return warnings.length === 0 ? ok(name, known) : warning(name, `${known}; ${warnings.join("; ")}`);
}

export async function heldKeyAlive(slot: SlotGround): Promise<Found> {
  if (missingOf(slot.access) !== undefined) return notWithout(slot.access, "whether the held key is alive");
  const record = await recordOf(slot);
  if (record === undefined) return ofMissing(slot.name, "whether the held key is alive");
  const { id, key } = record;
  if (key === undefined) return problem(slot.name, `the provider knows the held key ${id} no more`);
  return key.state === "active"
    ? ok(slot.name, `the held key ${id} is alive at its provider`)
    : problem(slot.name, `the held key ${id} is ${key.state} at its provider`);
}

/** A key that a run named stays named until it is seen dead. */
export async function leftOver({ temporal, slots, everySlot }: Ground): Promise<Found[]> {
  const found: Found[] = [];
  for (const slot of slots) {
    found.push(
      temporal.connected === undefined
        ? ofMissing(slot.name, "what the last run left behind")
        : await leftOverOf(slot, everySlot).catch((error: unknown) => ofFailure(slot.name, error)),
    );
  }
  return found;
}

async function leftOverOf(slot: SlotGround, everySlot: SlotGround[]): Promise<Found> {
  const { name, access } = slot;
  const last = await slot.lastClosed();
  if (last === undefined) return ok(name, "no run of the slot is kept, so none left a key behind that is known");
  const { runId, status, result } = last;
  if (result === undefined) {
    return unknown(
      name,
      `what the run ${runId} left behind is unknown: it ended as ${status}, and no worker answers for it`,
    );
  }
  const held = await orMissing(slot.held);
  const named = result.keys.filter(({ id, fate }) => (fate === "named" || fate === "open") && id !== held?.id);
  const alive: string[] = [];
  for (const { id, role, why = "" } of named) {
    const record =
      missingOf(access) === undefined && !isOurId(id) ? await knownAnywhere(slot, everySlot, id) : "unasked";
    const dead =
      record === undefined || (record !== "unasked" && record.state !== "active" && record.state !== "disabled");
    if (dead) continue;
    alive.push(
      `${id}${role === "compromised" ? " (COMPROMISED)" : ""}${record === "unasked" ? ", if it lives" : ""}: ${why}`,
    );
  }
  if (alive.length === 0) return ok(name, "no key that the last run named lives on");
  const message = `the run ${runId} left behind ${alive.join("; ")}`;
  const compromised = named.find(({ id, role }) => role === "compromised" && alive.some((one) => one.startsWith(id)));
  return compromised === undefined
    ? warning(name, message)
    : problem(name, message, `cut it: keyturn emergency ${name} --key ${compromised.id}`);
}

/** A rotation that only starts when it is due starts early, once half a period is left. */
export async function lifeLeft(slot: SlotGround): Promise<Found> {
  const { every } = slot.slot.policy;
  if (missingOf(slot.access) !== undefined) return notWithout(slot.access, "the life left to the held key");
  const key = (await recordOf(slot))?.key;
  if (key === undefined) return ofMissing(slot.name, "the life left to the held key");
  if (key.expiresAt === undefined) return ok(slot.name, `the held key ${key.id} has no end that its provider tells`);
  const leftMs = key.expiresAt.getTime() - Date.now();
  const left = leftMs > 0 ? `expires in ${readableMs(leftMs)}` : `expired ${readableMs(-leftMs)} ago`;
  if (leftMs < dayMs) {
    return problem(
      slot.name,
      `the held key ${key.id} ${left}; a key of ${slot.slot.slot.provider} lives ${keyLifeOf[slot.slot.slot.provider]}`,
    );
  }
  if (leftMs < inMs(every) / 2)
    return warning(slot.name, `the held key ${key.id} ${left}, under half of every (${every})`);
  return ok(slot.name, `the held key ${key.id} ${left}, and every is ${every}`);
}

export async function keyLifeFits({ name, slot }: SlotGround): Promise<Found> {
  const { keyLife, every } = slot.policy;
  return inMs(keyLife) < 2 * inMs(every)
    ? problem(name, `keyLife (${keyLife}) is under twice every (${every}): one rotation that fails lets the key die`)
    : ok(name, `keyLife (${keyLife}) is at least twice every (${every})`);
}

/** The longest life a provider gives at all. OpenAI: 1 to 31,536,000 s; document of 2026-08-21. */
const longestLife: Partial<Record<ProviderName, Duration>> = { openai: "365d" as Duration };

/** No API tells an organisation's own limit; the life that a key of ours got shows it. */
export async function lifeLimit(ground: SlotGround): Promise<Found> {
  const { name, slot, content } = ground;
  const { provider } = slot.slot;
  const { keyLife } = slot.policy;
  if (provider === "gemini") return ok(name, "keys of gemini have no end, so nothing limits their life");
  if (provider === "anthropic") {
    return unknown(
      name,
      "the life of an anthropic key is chosen by the person who makes it; what the organisation allows no API tells",
    );
  }
  const longest = longestLife[provider];
  if (longest !== undefined && inMs(keyLife) > inMs(longest)) {
    return warning(
      name,
      `keyLife (${keyLife}) is longer than ${provider} allows (${longest}): it is halved until taken`,
    );
  }
  const key = (await recordOf(ground))?.key;
  const mark = parseMark((await orMissing(content))?.comment);
  if (key?.expiresAt !== undefined && mark?.keyId === key.id) {
    const gotMs = key.expiresAt.getTime() - mark.at.getTime();
    return gotMs < inMs(keyLife) - dayMs
      ? warning(
          name,
          `the last key got ${readableMs(gotMs)} of life, not keyLife (${keyLife}): the organisation allows no more`,
        )
      : ok(name, `the organisation lets keys live for keyLife (${keyLife}), as the last one shows`);
  }
  return unknown(name, "how long the organisation lets keys live no API tells, and no key of ours shows it yet");
}

/** By mark and preview: a key that one slot is known to hold, and another one shows; or one value in two marks. */
export async function oneKeyOneSlot({ slots, everySlot }: Ground): Promise<Found[]> {
  const found: Found[] = [];
  const blind: string[] = [];
  const mine = new Set(slots.map(({ name }) => name));
  const told = new Set<string>();
  for (const slot of everySlot) {
    const rivals = everySlot.filter((rival) => rival !== slot && rival.slot.slot.provider === slot.slot.slot.provider);
    if (!mine.has(slot.name) && !rivals.some(({ name }) => mine.has(name))) continue;
    const record = await recordOf(slot);
    if (record === undefined) blind.push(slot.name);
    for (const rival of record === undefined ? [] : rivals) {
      // Without a credential no list shows the key; its id may tell how it ends.
      const shown = missingOf(slot.access) === undefined ? undefined : await lookUp(slot.access, record?.id ?? "");
      const content = rival.tells ? await orMissing(rival.content) : undefined;
      const pair = [slot.name, rival.name].toSorted().join(" and ");
      const shares =
        content === undefined
          ? (await orMissing(rival.held))?.id === record?.id
          : (record !== undefined && isSeenIn(content, { ...(record.key ?? shown), id: record.id })) ||
            sameValue(await orMissing(slot.content), content);
      if (!shares || told.has(pair) || !(mine.has(slot.name) || mine.has(rival.name))) continue;
      told.add(pair);
      found.push(problem("all slots", `${pair} hold one key, as far as marks and previews tell: ${record?.id}`));
    }
  }
  if (blind.length > 0) {
    const names = blind.join(", ");
    const message = `which key is in ${names} is unknown, so another slot may hold it too`;
    found.push(unknown("all slots", message, "see the finding held-key of those slots"));
  }
  return found.length > 0 ? found : [ok("all slots", "no key is in two slots, as far as marks and previews tell")];
}

function isSeenIn(held: Held, key: AskedKey): boolean {
  return judgeHeld(seenOf({ kind: "held", held }, [key]), key).answer === "yes";
}

/** By the fingerprints that two marks bear: one key may go under two ids, where a person gave one of them. */
function sameValue(one: Held | undefined, other: Held): boolean {
  const marks = [one, other].map((held) => {
    const seen = held === undefined ? undefined : seenOf({ kind: "held", held });
    const believed = seen?.kind === "secret" && doubtMark(seen) === undefined;
    return believed ? parseMark(held?.comment)?.fingerprint : undefined;
  });
  return marks[0] !== undefined && marks[0] === marks[1];
}

/** What no admin credential leaves unknown: as good as it gets, so it is told once as a warning and here as unknown. */
function notWithout(access: SlotAccess, what: string): Found {
  return unknown(access.name, `${what} is unknown: ${missingOf(access)}`, "nothing, or configure the admin credential");
}

/** The held key as its provider lists it; nothing where the held key is not known. */
async function recordOf(slot: SlotGround): Promise<{ id: string; key: KeyRecord | undefined } | undefined> {
  const held = await orMissing(slot.held);
  if (held === undefined) return undefined;
  if (missingOf(slot.access) !== undefined) return { id: held.id, key: undefined };
  return { id: held.id, key: await knownKey(slot, held.id) };
}

/** The key in whatever project of its provider it lives: a run can name another slot's. */
async function knownAnywhere(slot: SlotGround, everySlot: SlotGround[], keyId: string): Promise<KeyRecord | undefined> {
  const home = await knownKey(slot, keyId);
  if (home !== undefined) return home;
  for (const other of everySlot) {
    const { access } = other;
    if (access.slot.provider !== slot.access.slot.provider || access.keyring === slot.access.keyring) continue;
    const key = missingOf(access) === undefined ? await orMissing(() => knownKey(other, keyId)) : undefined;
    if (key !== undefined) return key;
  }
  return undefined;
}

/** The key as its provider knows it, by its list or by id: lists miss rows, and reads can be behind. */
async function knownKey({ access, keys }: SlotGround, keyId: string): Promise<KeyRecord | undefined> {
  return (await keys()).find(({ id }) => id === keyId) ?? managed(access).findKey(keyId);
}
