import { CancelledFailure, Context } from "@temporalio/activity";

import type { Fate, KeyRole } from "../domain/custody.ts";
import type { Duration } from "../domain/duration.ts";
import { type FailureType, RotationFailure } from "../domain/failure.ts";
import { isOurId, whyNoKeyId } from "../domain/key-id.ts";
import { ownKeyName, parseKeyName } from "../domain/key-name.ts";
import type { Ours } from "../domain/held.ts";
import { canSwitch, type Ending, type Endings } from "../providers/key-end.ts";
import { canManage, isByHand, type KeyRecord, type ManagedProvider } from "../providers/provider.ts";
import type {
  Cut,
  CutFailed,
  CutOrder,
  EndOrder,
  OfRotation,
  Revoked,
  RevokeOrder,
  Settled,
  SettleOrder,
  SwitchedOff,
  SwitchOffFailed,
  SwitchOn,
} from "./contract.ts";
import type { Dependencies, SlotAccess } from "./dependencies.ts";
import { mayWrite } from "./fence.ts";
import { formerAttemptEnded, remember, remembered } from "./heartbeat.ts";
import { askedKey, type HeldBy, type HoldersOptions, requireInstalled, whoHolds } from "./held-key.ts";
import { findOrListed } from "./managed.ts";
import { type EndOrphanOrder, namedByLastRun, type OrphanEnd, whyOrphanSpared } from "./orphans.ts";
import { findElsewhere } from "./seen-keys.ts";

/**
 * The one door through which keys are ended, switched off and switched on. Each purpose has a list of checks, asked in
 * their order immediately before the act; the first reason against it is the one that is said.
 */

/** The most keys that one clean-up ends: a rotation never makes more, so more is somebody else's mistake. */
const endsPerCall = 10;

export const revocationActivities = (deps: Dependencies, endings: Endings) => {
  const door = createDoor(deps, endings);
  return {
    /**
     * Ends the old key for good, by the checks of `replaced`. A key that its provider knows no more is success, so
     * repeating is safe. Fails with `SlotChanged` where a check speaks against it, and with `NotYetPropagated`, for the
     * workflow to wait and ask again, while a slot may hold it.
     */
    async revokeKey(order: RevokeOrder): Promise<Revoked> {
      const of = await door.replaced(order);
      await requireNone(replaced, of);
      return door.end(of);
    },

    /**
     * The look before a person is asked to revoke the old key: the checks of `replaced`. Only reads, so repeating is
     * safe. Fails with `SlotChanged`.
     */
    async lookBeforeRevoking(order: RevokeOrder): Promise<void> {
      await requireNone(replacedByHand, await door.replaced(order));
    },

    /**
     * Ends a compromised key for good, whoever uses it, through the slot at which it was seen: repeating is safe, since
     * not being there any more is then success. Fails with `KeyUnknown` where another project's credential would be
     * needed; before the time when the key is ended whoever holds it, with `SlotChanged` where an attempt that comes long
     * after the last look sees a slot that holds it, and with `NotYetPropagated` where that cannot be told.
     */
    async endCompromisedKey(order: EndOrder): Promise<Revoked> {
      const of = await door.compromised(order);
      await requireNone(
        isOldLook(order) && of.key !== undefined && isAlive(of.key) ? compromisedUnheld : compromised,
        of,
      );
      return door.end(of);
    },

    /**
     * Cuts a compromised key at once, whoever uses it: switches it off where that can be undone, else ends it. The same
     * checks as `endCompromisedKey`, and as safe to repeat. The details of each failure say whether an attempt may have
     * cut it all the same.
     */
    async cutKey(order: CutOrder): Promise<Cut> {
      try {
        const of = await door.compromised(order);
        await requireNone(compromised, of);
        return await door.cut(of);
      } catch (error) {
        throw withDetails(error, { mayBeCut: passOn(cutting, order.keyId) } satisfies CutFailed);
      }
    },

    /**
     * Switches the old key off, so that it could be switched on again, by the checks of `replaced`. Says whether it was
     * off before this rotation touched it: then somebody else's hand did it, and it is not ours to undo. Repeating is
     * safe. Fails with `SlotChanged`, and with `InvalidInput` where the provider cannot undo it; the details of each
     * failure say whether an attempt may have switched it off.
     */
    async disableKey(order: RevokeOrder): Promise<SwitchedOff> {
      try {
        const of = await door.replaced(order);
        await requireNone(switchedOff, of);
        return await door.switchOff(of);
      } catch (error) {
        throw withDetails(error, { mayBeOff: passOn(switching, order.keyId) } satisfies SwitchOffFailed);
      }
    },

    /**
     * Switches a key on again that this rotation switched off. Only ever undoes: no other purpose switches a key on.
     * Already on is success, so repeating is safe. What can be granted or freed is waited for; a key that is gone is a
     * failure for good.
     */
    async enableKey(order: SwitchOn): Promise<void> {
      return door.switchOn(order);
    },

    /**
     * Looks up the keys of a run that have no fate yet: ends those that nobody can have been given and no slot holds, and
     * says of each of the others where it is and why it stays. Where others live that were made for the run, under a name
     * that only it can have given, it ends nothing and tells of them: their ends show nowhere, so no later attempt could.
     * Repeating is safe: what was ended is seen dead. A slot, or a provider, that does not answer is tried again.
     */
    async settleKeys(order: SettleOrder): Promise<Settled> {
      return settle(deps, door, order);
    },

    /**
     * Ends one orphan for good, by the checks of `orphan`, which look again at everything, since the sweep found it a
     * while ago. Gone is success, so repeating is safe.
     */
    async revokeOrphan(order: EndOrphanOrder): Promise<OrphanEnd> {
      const of = await door.orphan(order);
      if (of.gone === true || (of.key !== undefined && !isAlive(of.key))) return { kind: "ended", at: now() };
      const refusal = await firstOf(orphan, of);
      if (refusal !== undefined) return { kind: "spared", why: refusal.why };
      return { kind: "ended", at: (await door.end(of)).at };
    },
  };
};

// ---- the checks --------------------------------------------------------------------------------------------------

/** Why a key is not ended, and as which failure that is told. */
interface Refusal {
  why: string;
  type: FailureType;
  /** Overrides the table of failures: who asked waits for it where people see it. */
  retried?: false;
}

/** One question before the act. */
interface Check<Case> {
  /** What must be so, in words. */
  must: string;
  /** Why it is not so, or undefined. What it throws is the failure of the attempt. */
  against(of: Case): Promise<Refusal | undefined> | Refusal | undefined;
}

/** A key that is about to be ended, and all that is needed for it. */
interface Case {
  deps: Dependencies;
  /** The slot on whose behalf it is ended. */
  access: SlotAccess;
  /** The slot whose provider knows it. */
  via: SlotAccess;
  ending: Ending | undefined;
  keyId: string;
  /** What its provider showed of it just now; undefined where it knows it not, or cannot be asked. */
  key: KeyRecord | undefined;
  /** Its id and the list agree, twice, that its provider knows it no more: then nobody can hold it. */
  gone?: true;
  /** What the rotation itself wrote into the slot. */
  ours?: Ours;
}

interface Replaced extends Case {
  order: OfRotation;
  installedKeyId: string;
}

interface Orphan extends Case {
  minimumAge: Duration;
}

const isAnId: Check<Pick<Case, "keyId">> = {
  must: "what names the key is an id, not a value",
  against: ({ keyId }) => refuseUnless(whyNoKeyId(keyId), "InvalidInput"),
};

const hasCredential: Check<Case> = {
  must: "an admin credential that can end keys is configured",
  against: ({ via, keyId, ending }) =>
    ending === undefined ? { why: byHandWords(via, keyId), type: "InvalidInput" } : undefined,
};

const isItsProviders: Check<Case> = {
  must: "the id is its provider's, not one that keyturn gave the key while it could not ask",
  against: ({ via, keyId }) =>
    isOurId(keyId)
      ? {
          why: `${keyId} is what keyturn called the key while no admin credential was configured, and ${via.provider.name} does not know it by that: nothing was ended; find the key in its list, and name it by the id it has there`,
          type: "KeyUnknown",
        }
      : undefined,
};

const isNotElsewhere: Check<Case> = {
  must: "the key is one of the project that is asked to end it",
  async against({ deps, via, keyId, key, gone }) {
    if (key !== undefined) return undefined;
    let elsewhere = await findElsewhere(deps, via, keyId);
    if (gone !== true && canManage(via.provider)) {
      // One look that does not find it may be old, here and there, and another project's key can bear the same id.
      await Context.current().sleep(via.secondLookMs);
      if ((await findOrListed(via.provider, keyId, true)) !== undefined) return undefined;
      elsewhere ??= await findElsewhere(deps, via, keyId);
    }
    return elsewhere === undefined
      ? undefined
      : {
          why: `${via.provider.name} knows no key ${keyId} in the project of ${via.name}, and knows it in that of ${elsewhere.name}: nothing was ended; name ${elsewhere.name}`,
          type: "KeyUnknown",
        };
  },
};

const isAnotherKey: Check<Replaced> = {
  must: "it is not the key that was put in",
  against: ({ access, keyId, installedKeyId }) =>
    keyId === installedKeyId
      ? { why: `${access.name} holds ${keyId}: it is not revoked`, type: "SlotChanged" }
      : undefined,
};

const slotHoldsTheNew: Check<Replaced> = {
  must: "the slot holds the new key, by a mark that can be believed",
  async against({ access, order, installedKeyId }) {
    await requireInstalled(access, order, installedKeyId);
    return undefined;
  },
};

const nobodyHoldsIt: Check<Case> = {
  must: "no slot holds the key",
  async against({ deps, access, keyId, key, gone, ours }) {
    if (gone === true) return undefined;
    const { yes, unknown } = await holdersOf(deps, access, { id: keyId, key }, ours === undefined ? {} : { ours });
    if (yes.length > 0) {
      const holders = yes.join(", ");
      return { why: `${holders} holds ${keyId}: it is not revoked; rotate ${holders} first`, type: "SlotChanged" };
    }
    // A key that is dead cannot be ended any more: what cannot be told holds nothing up.
    if (unknown.length === 0 || (key !== undefined && !isAlive(key))) return undefined;
    return {
      why: `whether a slot holds ${keyId} cannot be told, so it is not revoked: ${unknownWords(unknown)}; look at it, or rotate it`,
      type: "NotYetPropagated",
      retried: false,
    };
  },
};

const theNewOneLives: Check<Replaced> = {
  must: "the new key is alive at its provider; a flag of the provider's is no death",
  async against({ access, keyId, installedKeyId }) {
    const { provider, name } = access;
    // Without a credential only the slot's own answers show that it lives: they are asked for as well.
    if (!canManage(provider)) return undefined;
    const state = await stateSeenTwice(provider, installedKeyId, access.secondLookMs);
    return state === "active"
      ? undefined
      : {
          why: `${name} holds ${installedKeyId}, which ${provider.name} knows as ${state}: ${keyId} stays alive; put a key that works into the slot`,
          type: "SlotChanged",
        };
  },
};

const canBeUndone: Check<Case> = {
  must: "the provider can switch keys off and on again",
  against: ({ access, ending }) =>
    ending !== undefined && canSwitch(ending)
      ? undefined
      : { why: `${access.name}: its keys cannot be disabled`, type: "InvalidInput" },
};

const nameIsOurs: Check<Orphan> = {
  must: "its whole name is one that this installation gives, or the last run of its slot named it",
  async against({ deps, access, keyId, key }) {
    if (key !== undefined && parseKeyName(key.name)?.installation === access.installation) return undefined;
    const named = await namedByLastRun(deps, access, keyId);
    return named === undefined ? { why: "its name is not one of ours", type: "InvalidInput" } : undefined;
  },
};

const nobodyOwnsIt: Check<Orphan> = {
  must: "no open rotation owns it, it is old enough, and nobody uses it",
  async against({ deps, via, key, minimumAge }) {
    if (key === undefined) return undefined;
    return refuseUnless(await whyOrphanSpared(deps, { through: via, key, minimumAge }), "SlotChanged");
  },
};

/** The old key, when a proven one has replaced it. */
const replacedByHand: Check<Replaced>[] = [
  isAnId,
  isAnotherKey,
  isNotElsewhere,
  slotHoldsTheNew,
  nobodyHoldsIt,
  theNewOneLives,
];
const replaced: Check<Replaced>[] = [hasCredential, isItsProviders, ...replacedByHand];
const switchedOff: Check<Replaced>[] = [canBeUndone, ...replaced];

/** A compromised key: whoever uses it. Which slots hold it is the workflow's to ask before; a look may not delay a cut. */
const compromised: Check<Case>[] = [isAnId, hasCredential, isItsProviders, isNotElsewhere];

/** The same where it was not held a while ago, and nothing presses yet. */
const compromisedUnheld: Check<Case>[] = [...compromised, nobodyHoldsIt];

/** A key that a run made and nobody can have been given. That it is one is seen by its id or its exact name. */
const leftover: Check<Case>[] = [isAnId, hasCredential, nobodyHoldsIt];

/** A key of ours that no run answers for. */
const orphan: Check<Orphan>[] = [isAnId, hasCredential, nameIsOurs, nobodyOwnsIt, nobodyHoldsIt];

/** What must be so before a key is ended, by purpose, in the order in which it is asked. */
export const purposes = {
  replaced: replaced.map(({ must }) => must),
  compromised: compromised.map(({ must }) => must),
  compromisedUnheld: compromisedUnheld.map(({ must }) => must),
  leftover: leftover.map(({ must }) => must),
  orphan: orphan.map(({ must }) => must),
};

async function firstOf<One>(checks: Check<One>[], of: One): Promise<Refusal | undefined> {
  for (const check of checks) {
    const refusal = await check.against(of);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

/** So long a look at who holds a key counts. */
const lookCountsMs = 10_000;

/** Whether the look that was made before an end was ordered is too old by now, and the end not due yet. */
function isOldLook({ unheldUntil }: EndOrder): boolean {
  const now = Date.now();
  if (unheldUntil === undefined || now >= Date.parse(unheldUntil)) return false;
  const { scheduledTimestampMs } = Context.current().info;
  return now - scheduledTimestampMs > lookCountsMs;
}

async function requireNone<One>(checks: Check<One>[], of: One): Promise<void> {
  const refusal = await firstOf(checks, of);
  if (refusal !== undefined) throw failureOf(refusal);
}

function failureOf({ why, type, retried }: Refusal): RotationFailure {
  return new RotationFailure(type, why, retried === undefined ? {} : { retried });
}

function refuseUnless(why: string | undefined, type: FailureType): Refusal | undefined {
  return why === undefined ? undefined : { why, type };
}

// ---- the door ----------------------------------------------------------------------------------------------------

type Door = ReturnType<typeof createDoor>;

function createDoor(deps: Dependencies, endings: Endings) {
  /** The key as its provider shows it. An id that cannot be one is not asked for: it may be a secret. */
  async function open(access: SlotAccess, via: SlotAccess, keyId: string): Promise<Case> {
    const { provider } = via;
    const askable = canManage(provider) && whyNoKeyId(keyId) === undefined;
    const key = askable ? await provider.findKey(keyId) : undefined;
    return { deps, access, via, ending: endings(via.name), keyId, key };
  }

  /** The same, looked at again where it does not show: one look can be old, and then a slot may hold it. */
  async function openPatiently(access: SlotAccess, keyId: string): Promise<Case> {
    const of = await open(access, access, keyId);
    const { provider } = access;
    if (of.key !== undefined || !canManage(provider) || isOurId(keyId) || whyNoKeyId(keyId) !== undefined) return of;
    const look = async (): Promise<KeyRecord | undefined> =>
      (await provider.listKeys()).find(({ id }) => id === keyId) ?? (await provider.findKey(keyId));
    const key = await look();
    if (key !== undefined) return { ...of, key };
    await Context.current().sleep(access.secondLookMs);
    const later = await look();
    return later === undefined ? { ...of, gone: true } : { ...of, key: later };
  }

  /** Not being shown once is no reason not to ask for the end. */
  async function revoke({ via, keyId, key, gone: isGoneAlready }: Case, ending: Ending): Promise<Revoked> {
    if (isGoneAlready === true) {
      return { at: now(), seen: true, note: `${keyId} was gone already: ${via.provider.name} shows it no more` };
    }
    if (key?.state === "revoked") return { at: now(), seen: true, note: `${keyId} was revoked before` };
    const gone = await isGone(() => ending.revokeKey(keyId));
    const at = now();
    const { seen, note } = await lookBack(via, keyId);
    return { at, seen, note: gone ? `${keyId} was gone already${note}` : `${keyId} revoked${note}` };
  }

  return {
    async replaced({ keyId, installedKeyId, ...order }: RevokeOrder): Promise<Replaced> {
      const access = deps.slotAccess(order.slot);
      const ours: Ours = { rotationId: order.rotationId, keyId: installedKeyId };
      return { ...(await openPatiently(access, keyId)), order, installedKeyId, ours };
    },

    async compromised({ slot, keyId, through }: CutOrder): Promise<Case> {
      return open(deps.slotAccess(slot), deps.slotAccess(through), keyId);
    },

    async orphan({ slot, id, minimumAge }: EndOrphanOrder): Promise<Orphan> {
      const access = deps.slotAccess(slot);
      return { ...(await openPatiently(access, id)), minimumAge };
    },

    async leftover(access: SlotAccess, keyId: string): Promise<Case> {
      return open(access, access, keyId);
    },

    /** The same where its provider cannot be asked. */
    unseen(access: SlotAccess, keyId: string): Case {
      return { deps, access, via: access, ending: endings(access.name), keyId, key: undefined };
    },

    /** Ends the key, and looks whether that is seen. */
    async end(of: Case): Promise<Revoked> {
      return revoke(of, required(of));
    },

    async cut(of: Case): Promise<Cut> {
      const ending = required(of);
      const { key, keyId } = of;
      if (key?.state === "revoked" || key?.state === "expired") return { at: now(), how: "dead already" };
      const undoable = canSwitch(ending);
      const wasUnsure = mayBeDone(cutting, keyId);
      await mayWrite();
      remember(cutting, keyId);
      const gone = await isGone(() => (undoable ? ending.disableKey(keyId) : ending.revokeKey(keyId))).catch(
        (error: unknown) => {
          if (!wasUnsure && isRefused(error)) remember(cutting, undefined);
          throw error;
        },
      );
      return { at: now(), how: gone ? "dead already" : undoable ? "disabled" : "revoked" };
    },

    async switchOff(of: Replaced): Promise<SwitchedOff> {
      const ending = required(of);
      const { key, keyId, access, gone: isGoneAlready } = of;
      if (!canSwitch(ending)) throw new RotationFailure("InvalidInput", `${access.name}: its keys cannot be disabled`);
      if (isGoneAlready === true) return { at: now(), wasOff: true };
      if (key !== undefined && key.state !== "active") {
        // Off already: by us, where an earlier attempt was about to send it, or was given up on before it could say so.
        return { at: now(), wasOff: !mayBeDone(switching, keyId) };
      }
      // What the fence refuses was not sent.
      await mayWrite();
      remember(switching, keyId);
      const gone = await isGone(() => ending.disableKey(keyId));
      return { at: now(), wasOff: gone };
    },

    async switchOn({ slot, keyId }: SwitchOn): Promise<void> {
      const access = deps.slotAccess(slot);
      const ending = endings(slot);
      const refusal = await firstOf([isAnId], { keyId });
      if (refusal !== undefined) throw failureOf(refusal);
      if (ending === undefined || !canSwitch(ending)) {
        throw new RotationFailure("InvalidInput", stillOff(access, keyId, "it cannot be switched on from here"));
      }
      try {
        await ending.enableKey(keyId);
      } catch (error) {
        if (!(error instanceof RotationFailure)) throw error;
        // A right that is missing can be given, a limit that is reached can be freed: only a key that is gone stays off.
        const retried = error.type !== "RequestInvalid" && error.type !== "KeyUnknown";
        const wait = error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs };
        throw new RotationFailure(error.type, stillOff(access, keyId, error.message), { retried, ...wait });
      }
    },
  };
}

/** The names under which an attempt lets the next one know that it was about to do it to a key. */
const switching = "switches off";
const cutting = "cuts";

/** Whether this attempt or one before it was about to do it to the key, or was given up on before it could say so. */
function mayBeDone(what: typeof switching | typeof cutting, keyId: string): boolean {
  return remembered(what) === keyId || !formerAttemptEnded();
}

/** The same, where this attempt fails: the next one is to know as much. */
function passOn(what: typeof switching | typeof cutting, keyId: string): boolean {
  const mayBe = mayBeDone(what, keyId);
  if (mayBe) remember(what, keyId);
  return mayBe;
}

/** Whether the answer to a request says that it was not carried out. */
function isRefused(error: unknown): boolean {
  return error instanceof RotationFailure && error.type !== "Unavailable" && error.type !== "ResponseUnexpected";
}

function withDetails(error: unknown, details: object): unknown {
  if (error instanceof RotationFailure) {
    const { type, message, retried, retryAfterMs } = error;
    return new RotationFailure(type, message, { retried, retryAfterMs, details: [details] });
  }
  return error instanceof CancelledFailure ? new CancelledFailure(error.message, [details], error) : error;
}

function required({ ending, via, keyId }: Case): Ending {
  if (ending !== undefined) return ending;
  throw new RotationFailure("InvalidInput", byHandWords(via, keyId));
}

/** Does it, and says whether the key was not there any more: whoever calls has seen it there before. */
async function isGone(change: () => Promise<void>): Promise<boolean> {
  try {
    await change();
    return false;
  } catch (error) {
    if (!(error instanceof RotationFailure) || error.type !== "KeyUnknown") throw error;
    return true;
  }
}

/** Whether the end of a key shows, by its id and in the list. What cannot be read now is not seen, and no failure. */
async function lookBack({ provider }: SlotAccess, keyId: string): Promise<{ seen: boolean; note: string }> {
  if (!canManage(provider)) return { seen: false, note: "" };
  try {
    const byId = await provider.findKey(keyId);
    const listed = (await provider.listKeys()).find(({ id }) => id === keyId);
    const alive = [byId, listed].some((key) => key !== undefined && isAlive(key));
    return alive
      ? { seen: false, note: `; ${provider.name} took it and still shows the key, which can be late` }
      : { seen: true, note: `; ${provider.name} shows it no more as alive` };
  } catch (error) {
    if (!(error instanceof RotationFailure)) throw error;
    return { seen: false, note: `; whether it shows cannot be told: ${error.message}` };
  }
}

/** What the provider knows a key as. One look that does not show it alive is made again: what is read can be old. */
async function stateSeenTwice(
  provider: ManagedProvider,
  keyId: string,
  secondLookMs: number,
): Promise<KeyRecord["state"] | "gone"> {
  const first = (await provider.findKey(keyId))?.state;
  if (first === "active") return first;
  await Context.current().sleep(secondLookMs);
  return (await provider.findKey(keyId))?.state ?? "gone";
}

async function holdersOf(
  deps: Dependencies,
  access: SlotAccess,
  { id, key }: { id: string; key: KeyRecord | undefined },
  options: HoldersOptions,
): Promise<HeldBy> {
  // What its provider does not show is not asked for again.
  const known = key ?? (canManage(access.provider) ? {} : undefined);
  const found = await whoHolds(deps, access, [await askedKey(access, id, known)], options);
  return found.get(id) ?? { yes: [], unknown: [{ slot: access.name, why: "it was not looked at" }] };
}

// ---- a run's end -------------------------------------------------------------------------------------------------

interface Open {
  id: string;
  role: KeyRole;
  given: boolean;
  /** As the list shows it. */
  listed?: KeyRecord | undefined;
  /** Why no list could be read: then a key that is not found by its id may be anywhere. */
  unlisted?: string;
}

async function settle(
  deps: Dependencies,
  door: Door,
  { keys, ordinals, known = [], ...order }: SettleOrder,
): Promise<Settled> {
  const access = deps.slotAccess(order.slot);
  const { provider } = access;
  const manager = canManage(provider) ? provider : undefined;
  const issued = ordinals.length > 0 || keys.some(({ role }) => role === "new");
  if (manager === undefined && issued) {
    // Another worker of this installation had the credential, or this one lost it: without it nothing can be told.
    const missing = isByHand(provider) ? provider.missing : "there is no admin credential";
    throw new RotationFailure(
      "AdminCredentialRejected",
      `${missing} on this worker, and keys of ${access.name} were made with one: start all workers with the same credentials`,
      { retried: true },
    );
  }

  const open: Open[] = keys.map(({ id, role, given }) => ({ id, role, given }));
  if (manager !== undefined && open.length + ordinals.length > 0) {
    const found = await lookTwice(access, manager, { open, ordinals, known, ...order });
    if (found.length > 0) return { keys: [], found, warnings: [] };
  }
  const settled: Settled = { keys: [], warnings: [] };
  let ends = 0;
  for (const one of open) {
    const ours = wroteOf(access, order, one, open);
    const look = { one, access, ours, mayEnd: ends < endsPerCall };
    const { fate, ended, warning, notHeld } = await settleOne(deps, door, look);
    if (ended) ends += 1;
    if (notHeld === true && one.given) (settled.notHeld ??= []).push(one.id);
    if (warning !== undefined) settled.warnings.push(warning);
    settled.keys.push({ id: one.id, role: one.role, fate });
  }
  return settled;
}

/**
 * Finds live keys whose whole name is one that this rotation gave under one of the ordinals, and that are not known by
 * id; notes of each known key whether it is there at all. What is read can be seconds old, so where a key may exist, or
 * seems not to, the list is asked for twice, with one pause for all.
 */
async function lookTwice(
  { installation, slot, secondLookMs }: SlotAccess,
  provider: ManagedProvider,
  { open, ordinals, known, rotationId }: { open: Open[]; ordinals: number[]; known: string[] } & OfRotation,
): Promise<string[]> {
  const found = new Set<string>();
  const look = async (): Promise<void> => {
    const { keys, why } = await listed(provider, ordinals.length > 0);
    for (const one of open) {
      one.listed = keys.find(({ id }) => id === one.id) ?? one.listed;
      if (why !== undefined) one.unlisted = why;
    }
    for (const key of keys) {
      const name = ownKeyName(key.name, { installation, slot, rotationId });
      const isKnown = known.includes(key.id) || open.some(({ id }) => id === key.id);
      if (name === undefined || isKnown || !ordinals.includes(name.ordinal) || !isAlive(key)) continue;
      found.add(key.id);
    }
  };
  await look();
  const isAbsent = ({ id, listed: shown }: Open): boolean => shown === undefined && !isOurId(id);
  if (ordinals.length > 0 || open.some(isAbsent)) {
    await Context.current().sleep(secondLookMs);
    await look();
  }
  return [...found];
}

/**
 * What the provider lists. Where a key may exist that only the list can show, a refused credential is waited for: it can
 * be renewed, and nobody could name the key before. Else the list is only one of two looks.
 */
async function listed(provider: ManagedProvider, isNeeded: boolean): Promise<{ keys: KeyRecord[]; why?: string }> {
  try {
    return { keys: await provider.listKeys() };
  } catch (error) {
    const { type, message } = forGood(error);
    if (isNeeded) throw new RotationFailure(type, message, { retried: true });
    return { keys: [], why: message };
  }
}

interface Look {
  one: Open;
  access: SlotAccess;
  ours: Ours | undefined;
  mayEnd: boolean;
}

async function settleOne(
  deps: Dependencies,
  door: Door,
  look: Look,
): Promise<{ fate: Fate; ended?: true; warning?: string; notHeld?: boolean }> {
  const { one, access, ours, mayEnd } = look;
  const { id, role, given } = one;
  const { of, blind } = await lookAtKey(door, access, one);
  const dead = blind === undefined ? await deathOf(deps, of, one) : undefined;
  if (dead !== undefined) return { fate: { fate: "ended", at: dead, seen: true } };
  const { key } = of;

  const warning = key?.flag === undefined ? {} : { warning: `${id}: ${key.flag}` };
  const options = { patient: true, ...(ours === undefined ? {} : { ours }) };
  const { yes, unknown } = await holdersOf(deps, access, { id, key }, options);
  const notHeld = ![...yes, ...unknown.map(({ slot }) => slot)].includes(access.name);
  const named = (why: string) => ({ fate: { fate: "named", why } as const, notHeld, ...warning });
  if (yes.length > 0) return { fate: { fate: "held", by: yes.join(", ") }, notHeld, ...warning };
  const doubts = [
    ...(unknown.length === 0 ? [] : [`; whether a slot holds it cannot be told: ${unknownWords(unknown)}`]),
    ...(blind === undefined ? [] : [`; it could not be looked at: ${blind}`]),
  ];
  // Where neither its id nor lists show it, slots cannot be compared with it; but no slot was given it, and it is asked
  // to end all the same: a write goes by no old list.
  const isAbsent = key === undefined && blind === undefined && canManage(access.provider);
  if (role !== "new" || given || (doubts.length > 0 && !isAbsent)) {
    return named(`${whyItStays(one, access, unknown.length > 0)}${doubts.join("")}`);
  }
  if (!mayEnd) return named(`${endsPerCall} keys were ended and no more are at a time: run keyturn sweep`);
  try {
    // Asked again at the moment of the act, and of this key alone.
    const refusal = await firstOf(leftover, isAbsent ? { ...of, gone: true } : of);
    if (refusal !== undefined) return named(refusal.why);
    const { at, seen } = await door.end(of);
    return { fate: { fate: "ended", at, seen }, ended: true };
  } catch (error) {
    return named(`it could not be ended: ${forGood(error).message}`);
  }
}

/** The key at this moment, or why it cannot be looked at for good: then a slot may still be seen to hold it. */
async function lookAtKey(
  door: Door,
  access: SlotAccess,
  { id, listed: shown, unlisted }: Open,
): Promise<{ of: Case; blind?: string }> {
  try {
    let of = await door.leftover(access, id);
    // One of the two is old.
    if (of.key !== undefined && shown !== undefined && isAlive(of.key) !== isAlive(shown)) {
      await Context.current().sleep(access.secondLookMs);
      of = await door.leftover(access, id);
    }
    const key = of.key ?? shown;
    return { of: { ...of, key }, ...(key === undefined && unlisted !== undefined ? { blind: unlisted } : {}) };
  } catch (error) {
    return { of: door.unseen(access, id), blind: forGood(error).message };
  }
}

/** What may work in a moment is tried again, and nothing is lost by it: what was ended is seen dead then. */
function forGood(error: unknown): RotationFailure {
  if (!(error instanceof RotationFailure) || error.retried) throw error;
  return error;
}

/** When the key was dead, where it is: as it is shown, or where neither its id nor lists show it any more. */
async function deathOf(
  deps: Dependencies,
  { via, key, keyId }: Case,
  { role, given }: Open,
): Promise<string | undefined> {
  // An id of ours says how a key ends or what its fingerprint is: no provider knows it, dead or alive.
  if (!canManage(via.provider) || isOurId(keyId) || whyNoKeyId(keyId) !== undefined) return undefined;
  if (key?.state === "revoked") return now();
  if (key?.state === "expired") return (key.expiresAt ?? new Date()).toISOString();
  // One that may be ended is asked to end instead.
  if (key !== undefined || (role === "new" && !given)) return undefined;
  return (await findElsewhere(deps, via, keyId)) === undefined ? now() : undefined;
}

/**
 * What the run wrote into its slot, or began to, as far as it bears on this key. By marks, a write of this key that does
 * not show may still arrive. Where no marks are kept, the last key that was given is what lies there.
 */
function wroteOf(access: SlotAccess, { rotationId }: OfRotation, one: Open, all: Open[]): Ours | undefined {
  const isNew = ({ role, given }: Open): boolean => given && (role === "new" || role === "handed-in");
  const written = access.secrets.keepsMarks ? (isNew(one) ? one : undefined) : all.filter(isNew).at(-1);
  return written === undefined ? undefined : { rotationId, keyId: written.id };
}

/** Why a key that no slot is known to hold stays alive, and what to do about it. */
function whyItStays({ id, role, given }: Open, access: SlotAccess, inDoubt: boolean): string {
  switch (role) {
    case "old":
      return "clients may still use it: revoke it when it is idle";
    case "earlier":
      return `an earlier run of ${access.name} left it alive: look whether anybody uses it, then revoke it`;
    case "compromised":
      return `it is compromised and alive, and nobody will cut it: run keyturn emergency ${access.name} --key ${id}`;
    case "handed-in":
      if (!given && inDoubt) return "it was handed in, and a slot may hold it: look before it is revoked";
      if (!given) return "it was handed in and is not in the slot: whoever made it should revoke it";
      break;
    case "new":
      if (!given) return "it was made for this rotation, and a slot may hold it: look, then revoke it";
      break;
  }
  return inDoubt
    ? `its installation was begun and does not show: it may still arrive; look what ${access.name} holds before it is revoked`
    : "clients were given it: revoke it when it is idle";
}

// ---- words -------------------------------------------------------------------------------------------------------

function isAlive({ state }: KeyRecord): boolean {
  return state === "active" || state === "disabled";
}

function unknownWords(unknown: HeldBy["unknown"]): string {
  return unknown.map(({ slot, why }) => `${slot} (${why})`).join(", ");
}

function byHandWords({ provider, name }: SlotAccess, keyId: string): string {
  if (!isByHand(provider)) return `there is no admin credential for ${name}, so ${keyId} cannot be ended from here`;
  const { where } = provider.handInInstructions({ name: "" });
  return `${provider.missing}, so ${keyId} cannot be cut from here: revoke it by hand at ${where} now; swap-first then puts a new key in`;
}

function stillOff({ name, provider }: SlotAccess, keyId: string, why: string): string {
  return `KEY ${keyId} OF ${name} IS SWITCHED OFF, AND CLIENTS WHO USE IT FAIL: switch it on by hand at ${provider.name}; ${why}`;
}

function now(): string {
  return new Date().toISOString();
}
