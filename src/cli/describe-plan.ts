import type { EmergencyPlan, SeenKey } from "../activities/contract.ts";
import type { InventorySlot } from "../config.ts";
import { inMs } from "../domain/duration.ts";
import { decideEscalation } from "../domain/escalation.ts";
import type { Progress } from "../domain/rotation.ts";
import type { ProviderName } from "../domain/slot.ts";
import type { EmergencyRotationStart } from "../workflows/messages.ts";
import { describeKey } from "./describe-keys.ts";
import type { Candidate } from "./failures.ts";
import { clock } from "./watch.ts";

/** What an emergency is about and what it will do, in the words of the plan that it is started with. */

/** How a key is cut at each provider, and who makes the new one: docs/providers.md. */
const providerWords: Record<ProviderName, { cut: string; made: string }> = {
  openai: { cut: "revoked, which cannot be undone", made: "a new key is made" },
  gemini: { cut: "deleted, which can be undone for 30 days", made: "a new key is made" },
  anthropic: {
    cut: "switched off, then archived",
    made: "YOU MAKE a new key (no API does): keyturn status says where, keyturn submit-key hands it in; then it is proven",
  },
};

export interface Meant {
  slot: InventorySlot;
  start: Pick<EmergencyRotationStart, "strategy" | "since">;
  plan: EmergencyPlan;
  temporal: { address: string; namespace: string };
  by: "worker" | "here";
}

/** Which keys are meant, where, and what will happen to each and when: all of it before anything is done. */
export function describePlan(meant: Meant): string[] {
  const { slot, plan, temporal, by, start } = meant;
  return [
    `${slot.name}: EMERGENCY of ${plan.keys.map(({ id }) => id).join(" and ")}`,
    ...plan.keys.map((key) => `  ${key.id}: ${describeKey(key)}`),
    ...(plan.held === undefined || plan.keys.some(({ id }) => id === plan.held?.id)
      ? []
      : [`  ${slot.name} itself holds ${plan.held.id}: ${describeKey(plan.held)}`]),
    `  account ${plan.account}, gateway ${plan.gateway}; Temporal ${temporal.address}, namespace ${temporal.namespace}`,
    `  looked at ${by === "worker" ? "by a worker" : "from here, with the credentials of this machine: no worker answered"}`,
    ...whatWillHappen(meant),
    `Then what ${plan.keys.length === 1 ? "the key was" : "the keys were"} used for since ${start.since === undefined ? "a day ago" : clock(start.since)} is gathered; use that the gateway did not send is reported.`,
    ...plan.unknown.map((what) => `unknown: ${what}`),
    ...plan.warnings.map((warning) => `WARNING: ${warning}`),
  ];
}

/** Without a plan: nobody looked, so nothing is promised. */
export function describeUnseen(
  { slot, start, temporal }: Pick<Meant, "slot" | "start" | "temporal">,
  { keyIds, why }: { keyIds: string[]; why: string },
): string[] {
  const { revokeWithin } = slot.policy.emergency;
  return [
    `${slot.name}: EMERGENCY of ${keyIds.join(" and ")}, UNSEEN: nobody could look at the key (${why})`,
    `  account ${slot.account}, gateway ${slot.gateway}; Temporal ${temporal.address}, namespace ${temporal.namespace}`,
    `It is ended by ${start.strategy === "cut-first" ? "the first worker that takes this up, at once" : `${revokeWithin} after a worker takes this up, at the latest`}, if its provider knows it; whether ${slot.name} holds it, and whether requests fail, nobody has seen.`,
  ];
}

/** What is cut when, whether requests may fail, and the clocks. */
export function whatWillHappen({
  slot,
  start,
  plan,
  by = "worker",
}: Pick<Meant, "slot" | "start" | "plan"> & Partial<Meant>): string[] {
  const here = plan.keys.filter((key) => mayBeIn(key, slot.name));
  const elsewhere = plan.keys.filter(
    (key) => !here.includes(key) && (key.heldBy.length > 0 || key.heldUnknown.length > 0),
  );
  const nowhere = plan.keys.filter((key) => !here.includes(key) && !elsewhere.includes(key));
  const of: Of = { slot, start, byHand: plan.byHand };
  return [
    ...byPeople(plan.byHand, by),
    ...(here.length === 0 ? [] : inTheSlot(of, here)),
    ...(elsewhere.length === 0 ? [] : inOtherSlots(of, elsewhere)),
    ...inNoSlot(of, nowhere, { alone: here.length === 0 }),
  ];
}

interface Of extends Pick<Meant, "slot" | "start"> {
  /** What is not configured, where only people can make and end keys. */
  byHand: string | undefined;
}

/** Without an admin credential keyturn cuts nothing; one that only this machine misses, the workers may have. */
function byPeople(missing: string | undefined, by: Meant["by"]): string[] {
  if (missing === undefined) return [];
  return by === "worker"
    ? [
        `ONLY A PERSON can make and end keys here: ${missing}. You are asked to, and NOBODY ELSE CUTS, at the deadline neither.`,
      ]
    : [
        `Seen from this machine only a person can make and end keys (${missing}); a worker that has the credential does it.`,
      ];
}

function wordsOf({ slot, byHand }: Of): { cut: string; made: string } {
  if (byHand === undefined) return providerWords[slot.slot.provider];
  return {
    cut: "revoked at its provider BY YOU",
    made: "YOU MAKE a new key: keyturn status says where, keyturn submit-key hands it in; then it is proven",
  };
}

/** Ids that cannot be compared may be those of the key the slot holds: then it is replaced. */
function mayBeIn(key: SeenKey, slot: string): boolean {
  return key.heldBy.includes(slot) || key.heldUnknown.includes(slot);
}

function inTheSlot(of: Of, keys: SeenKey[]): string[] {
  const {
    slot: { name, policy },
    start: { strategy },
    byHand,
  } = of;
  const { installWithin, revokeWithin, atDeadline } = policy.emergency;
  const { cut, made } = wordsOf(of);
  const ids = keys.map(({ id }) => id).join(" and ");
  const failing = [...new Set([name, ...keys.flatMap(({ heldBy }) => heldBy)])];
  if (keys.every(({ state }) => state === "dead")) {
    return [
      `${ids}: dead already, so nothing is cut, and REQUESTS FAIL in ${failing.join(", ")} until a new key is in: ${made}, and put in, within ${installWithin} if all goes well.`,
    ];
  }
  if (strategy === "cut-first") {
    return [
      `CUT FIRST. ${ids}: ${cut}, at once.`,
      `REQUESTS FAIL in ${failing.join(", ")} from then until a new key is in: ${made}, and put in, within ${installWithin} if all goes well.`,
    ];
  }
  const others = failing.filter((one) => one !== name);
  return [
    `SWAP FIRST. ${made} and put in, within ${installWithin}.`,
    `Then ${ids}: ${cut}, as soon as the caches have dropped it, within ${revokeWithin} from now. Until then whoever has it can use it.`,
    ...(byHand !== undefined
      ? []
      : [
          atDeadline === "revoke"
            ? `At ${revokeWithin} it is cut whatever the state of the new key; without a new one, requests fail from then on.`
            : `Without a new key it is not cut, even past ${revokeWithin} (policy: atDeadline hold).`,
        ]),
    `No request fails, unless something goes on using the old key for longer than the cache wait of ${policy.cacheInvalidationWait}.`,
    "No wait for the old key to be idle, no soak, no approval.",
    ...(others.length === 0
      ? []
      : [
          `${others.join(", ")} ${others.length === 1 ? "holds" : "hold"} it too, and ${others.length === 1 ? "is" : "are"} moved off it by an emergency of ${others.length === 1 ? "its" : "their"} own.`,
        ]),
  ];
}

function inOtherSlots(of: Of, keys: SeenKey[]): string[] {
  const {
    slot,
    start: { strategy },
  } = of;
  const { revokeWithin } = slot.policy.emergency;
  const { cut } = wordsOf(of);
  return keys.map(({ id, heldBy, heldUnknown }) => {
    const holders = heldBy.length > 0 ? heldBy.join(", ") : `perhaps ${heldUnknown.join(", ")}`;
    const not = `${id} is not the key of ${slot.name}, which keeps its own and gets no new one; ${holders} ${heldBy.length > 1 ? "hold" : "holds"} it.`;
    return strategy === "cut-first"
      ? `${not} CUT FIRST: ${cut}, at once; REQUESTS FAIL in ${holders} from then until a new key is in there.`
      : `${not} An emergency there moves off it first, then it is ${cut}, within ${revokeWithin} from now.`;
  });
}

function inNoSlot(of: Of, keys: SeenKey[], { alone }: { alone: boolean }): string[] {
  const { cut } = wordsOf(of);
  const kept = alone ? `; NO NEW KEY is made, and ${of.slot.name} keeps its own` : "";
  return keys.map(({ id, state }) =>
    state === "dead"
      ? `${id} is dead already, and no slot holds it: nothing is cut${kept}.`
      : `${id}: no slot holds it, so it is ${cut}, AT ONCE${kept}.`,
  );
}

/** What a rotation that runs does when it is told that the key is compromised: the row of its own table. */
export function whatJoiningDoes(
  keyId: string,
  {
    slot,
    running,
    seen,
    byHand,
  }: { slot: InventorySlot; running: Progress; seen?: SeenKey | undefined; byHand: boolean },
  now = Date.now(),
): string {
  const { kind, oldKey, newKey, keys, times, steps, clocks } = running;
  const known = keys.find(({ id }) => id === keyId);
  const begun = steps.some(({ step, outcome }) => step === "revokeKey" && outcome !== "skipped");
  const others = (seen?.heldBy ?? []).filter((name) => name !== slot.name);
  // An emergency's old key is the compromised one, which the slot need not hold.
  const isHeld = seen?.heldBy.includes(slot.name) === true || (kind === "normal" && keyId === oldKey?.id);
  const { revokeWithin, atDeadline } = slot.policy.emergency;
  const row = decideEscalation({
    kind,
    key: keyId === newKey?.id ? "new" : isHeld ? "held" : "other",
    told: known?.role === "compromised",
    ended: known?.fate === "ended",
    calledOff: false,
    installed: times.installed !== undefined,
    returnPassed: begun,
    ending: false,
    heldElsewhere: others.length > 0 ? "yes" : seen === undefined || seen.heldUnknown.length > 0 ? "unknown" : "no",
    byHand,
  });
  const by = clocks?.revokeBy ?? new Date(now + inMs(revokeWithin)).toISOString();
  return row.says({ keyId, slot: slot.name, by, atDeadline, holders: others });
}

/** The exact commands to choose with, one for each key and one for all of them. */
export function commandsFor(command: string, candidates: Candidate[]): string[] {
  const keys = (ids: string[]): string => ids.map((id) => ` --key ${id}`).join("");
  const ids = candidates.map(({ id }) => id);
  return [
    ...candidates.flatMap((key) => [`  ${key.id}: ${describeKey(key)}`, `      ${command}${keys([key.id])}`]),
    ...(ids.length > 1
      ? [ids.length === 2 ? `  both of them:` : `  all of them:`, `      ${command}${keys(ids)}`]
      : []),
  ];
}
