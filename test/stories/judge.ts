import type { KeyEntry } from "../../src/domain/custody.ts";
import { exitCodeOfResult, namesCompromised } from "../../src/cli/failures.ts";
import { failureTypes } from "../../src/domain/failure.ts";
import type { RotationResult, StepRecord } from "../../src/domain/rotation.ts";
import { durationMs } from "./activities.ts";
import type { Call, Run } from "./ground.ts";
import { type Played, slackMs } from "./play.ts";
import type { KeyEvent, WriteEvent } from "./world.ts";

/**
 * What is judged when a story is over. The oracle is the toy world: what a result says is held against what lives there,
 * never taken for it.
 *
 * - `ended`: every run ended, no workflow task fails, and a replay gives the same commands.
 * - `owned`: each key that a run made, replaced, was handed, was told of or took over is in its result, and no other is.
 * - `fate`: `held` is held, `ended` is dead, `named` was not seen dead; nothing is open; `leftOver` is what is named.
 * - `deadline`: a compromised key is cut by its deadline where policy says so, and is never switched on or written back.
 * - `serving`: no key that a slot serves is ended, but by `cut-first`, at a deadline or on a person's word, and then the
 *   record says that requests fail.
 * - `edges`: the same while only edges and caches may still send the key, since the secret was replaced a moment before.
 * - `edit`: what a person wrote into a secret is not written over.
 * - `record`: each step and time has a call, each call that changed something has a step.
 * - `outcome`: outcome, failure type and exit code fit what is so.
 * - `slot`: a slot that served at the beginning serves at the end, or its outage is in a record; no alias stays unsaid.
 */
export type Rule =
  | "ended"
  | "owned"
  | "fate"
  | "deadline"
  | "serving"
  | "edges"
  | "edit"
  | "record"
  | "outcome"
  | "slot";

export interface Violation {
  rule: Rule;
  says: string;
}

/** Runs of one execution: a run, and those it went on as. */
export interface Chain {
  workflowId: string;
  slot: string;
  runs: Run[];
  runIds: Set<string>;
  last: Run;
  startedAt: number;
  closedAt: number;
  result: RotationResult | undefined;
  calls: Call[];
  heard: Run["heard"];
}

/** A compromise that a run was told of. */
export interface Told {
  chain: Chain;
  keyId: string;
  at: number;
  /** The earliest moment at which it can have been heard, where a worker that died leaves it open. */
  earliest?: number;
  /** When a run that was told of no key by name knew which it is. */
  knownAt?: number;
  how: "start" | "escalate";
  cutFirst: boolean;
}

export function chainsOf({ ground }: Played): Chain[] {
  const chains: Chain[] = [];
  for (const run of ground.runs) {
    if (!run.workflowId.startsWith("keyturn/") || run.workflowId.startsWith("keyturn/leaked/")) continue;
    if (run.type !== "normalRotation" && run.type !== "emergencyRotation") continue;
    const before = run.continuedFrom;
    const chain = before === undefined ? undefined : chains.find(({ runIds }) => runIds.has(before.runId));
    const result = (run.status === "failed" ? run.failure?.details : run.result) as RotationResult | undefined;
    const ownResult = result !== undefined && Array.isArray(result.steps) ? result : undefined;
    if (chain === undefined) {
      chains.push({
        workflowId: run.workflowId,
        slot: run.workflowId.slice("keyturn/".length),
        runs: [run],
        runIds: new Set([run.runId]),
        last: run,
        startedAt: run.startedAt,
        closedAt: run.closedAt ?? ground.now,
        result: ownResult,
        calls: [...run.calls],
        heard: [...run.heard],
      });
      continue;
    }
    chain.runs.push(run);
    chain.runIds.add(run.runId);
    chain.last = run;
    chain.closedAt = run.closedAt ?? ground.now;
    chain.result = ownResult;
    chain.calls.push(...run.calls);
    chain.heard.push(...run.heard);
  }
  return chains;
}

/** Failures by which a start is refused: nothing was done, and no result is owed. */
const refusals = new Set(["InvalidInput", "SlotBusy", "KeyAmbiguous", "KeyUnknown"]);

export function toldOf(played: Played, chains: Chain[]): Told[] {
  const told: Told[] = [];
  for (const chain of chains) {
    for (const run of chain.runs) {
      if (run.type !== "emergencyRotation") continue;
      const input = run.input as {
        compromisedKeyId?: string;
        compromisedKeyIds?: string[];
        leaked?: string;
        strategy?: string;
      };
      const ids = new Set([
        ...(input.compromisedKeyIds ?? []),
        ...(input.compromisedKeyId === undefined ? [] : [input.compromisedKeyId]),
      ]);
      const leaked = input.leaked?.replace(/^leaked:/, "");
      // Whose value it is only a look can tell: a run that stops for want of one cannot name the key.
      const isUntold = chain.result?.unknown.includes("which key has the leaked value") === true;
      const stopped = isUntold || chain.last.status === "failed" || chain.result?.outcome === "aborted";
      if (leaked !== undefined && (!stopped || sawKey(chain, leaked))) ids.add(leaked);
      let knownAt: number | undefined;
      if (ids.size === 0) {
        for (const call of run.calls) {
          if (call.name !== "planEmergency") continue;
          knownAt = call.endedAt;
          for (const { id } of (call.result as { keys?: { id: string }[] } | undefined)?.keys ?? []) ids.add(id);
        }
      }
      // What a run hands over was told when it was told to that run.
      if (run.continuedFrom !== undefined) continue;
      const cutFirst = input.strategy === "cut-first";
      for (const keyId of ids) {
        const known = knownAt === undefined ? {} : { knownAt };
        told.push({ chain, keyId, at: run.startedAt, ...known, how: "start", cutFirst });
      }
    }
    for (const { at, what, arg, answer } of chain.heard) {
      if (what !== "escalate" && what !== "escalateSignal") continue;
      const keyId = (arg as { compromisedKeyId?: string }).compromisedKeyId;
      if (keyId === undefined || answer?.value?.failure !== undefined) continue;
      // A signal that comes as the run ends may find nobody.
      if (what === "escalateSignal" && chain.closedAt - at < 10_000) continue;
      const earliest = played.ground.workersUp(at);
      told.push({ chain, keyId, at: heardAt(played, at), earliest, how: "escalate", cutFirst: false });
    }
  }
  return told.filter(({ keyId }) => played.world.keys.has(keyId)).toSorted((a, b) => a.at - b.at);
}

/** A word is heard when a worker lives that hears it, and lives until it has said so. */
function heardAt({ ground, story }: Played, at: number): number {
  const up = ground.workersUp(at);
  const until = up + story.taskLatencyMs;
  return ground.workersUp(until) > until ? ground.workersUp(until) : up;
}

export function judge(played: Played): Violation[] {
  if (played.taskFailed !== undefined) return [{ rule: "ended", says: played.taskFailed }];
  const judgement = new Judgement(played);
  return judgement.all();
}

class Judgement {
  readonly #played: Played;
  readonly #chains: Chain[];
  readonly #told: Told[];
  readonly #violations: Violation[] = [];

  constructor(played: Played) {
    this.#played = played;
    this.#chains = chainsOf(played);
    // Of two slots that were told at one moment the one counts that holds a key past its deadline.
    const revokes = ({ chain }: Told): number => (this.#policy(chain.slot)?.emergency.atDeadline === "hold" ? 0 : 1);
    this.#told = toldOf(played, this.#chains).toSorted((a, b) => a.at - b.at || revokes(a) - revokes(b));
  }

  all(): Violation[] {
    this.#ended();
    for (const chain of this.#chains) {
      if (chain.last.status === "open") continue;
      this.#outcome(chain);
      const { result } = chain;
      if (result === undefined) {
        this.#refused(chain);
        continue;
      }
      this.#owned(chain, result);
      this.#fates(chain, result);
      this.#record(chain, result);
    }
    this.#deadlines();
    this.#serving();
    this.#edits();
    this.#slots();
    return this.#violations;
  }

  #say(rule: Rule, says: string): void {
    this.#violations.push({ rule, says });
  }

  #policy(slot: string) {
    return this.#played.story.slots[slot]?.policy;
  }

  // ---- ended ----------------------------------------------------------------------------------------------------

  #ended(): void {
    const { ground, end, differences } = this.#played;
    if (end === "busy") this.#say("ended", "the story has no end: more events than any story needs");
    for (const run of ground.openRuns) this.#say("ended", `${run.workflowId} run ${run.number} is still open`);
    for (const difference of differences) this.#say("ended", difference);
  }

  // ---- owned ----------------------------------------------------------------------------------------------------

  /** Keys a chain has to answer for, and why. */
  #answersFor(chain: Chain): Map<string, string> {
    const { world, inspections } = this.#played;
    const keys = new Map<string, string>();
    const lookedLast = Math.max(
      0,
      ...chain.calls
        .filter(({ name, outcome }) => name === "settleKeys" && outcome === "completed")
        .map(({ scheduledAt }) => scheduledAt),
    );
    for (const key of world.keys.values()) {
      if (!chain.runIds.has(key.madeBy.runId ?? "")) continue;
      // A key whose request arrived after the last look, or after the end, nobody could have seen.
      const tooLate = this.#landedLate(key.id) && key.madeAt > (lookedLast === 0 ? chain.closedAt : lookedLast);
      // One that a person, or another slot's run, ended before this one had ever seen it leaves nothing to be found.
      const isDead = world.stateAt(key.id, chain.closedAt) === "dead";
      const gone =
        isDead && (this.#endedByPeople(key.id) || this.#endedByOthers(chain, key.id)) && !sawKey(chain, key.id);
      if (!tooLate && !gone) keys.set(key.id, "made");
    }
    for (const write of world.writes) {
      if (write.by.activity !== "installKey" || !chain.runIds.has(write.by.runId ?? "")) continue;
      const { before } = write;
      if (before === undefined || write.at > chain.closedAt || crossed(write)) continue;
      keys.set(before.keyId, "replaced");
    }
    for (const call of chain.calls) {
      if (call.name !== "acceptKey") continue;
      // While it is looked at, a person has let go of it: the run may not close and forget it.
      const looked = call.outcome === undefined || call.outcome === "cancelled";
      const id = looked ? this.#handedIn(chain, call) : undefined;
      if (id !== undefined) keys.set(id, "handed in, and looked at when the run closed");
      const taken = (call.result as { id?: string } | undefined)?.id;
      const refused = (call.failure?.details as { handedIn?: { id: string; heldBy: string[] } } | undefined)?.handedIn;
      if (taken !== undefined) keys.set(taken, "handed in");
      if (refused !== undefined && refused.heldBy.length === 0) keys.set(refused.id, "handed in and refused");
    }
    // A key that nobody knows, or that nobody can ask about, is refused, and nobody's to answer for.
    const refused = refusedKeys(chain);
    for (const { chain: other, keyId } of this.#told) {
      if (other === chain && !refused.includes(keyId)) keys.set(keyId, "told");
    }
    for (const { runId, inspection } of inspections) {
      // What was looked at and never told, since the run was cancelled meanwhile, the next run is told.
      if (!chain.runIds.has(runId) || !chain.calls.some(({ result }) => result === inspection)) continue;
      for (const { id, state } of inspection.earlier)
        if (state !== "dead" && world.keys.has(id)) keys.set(id, "left by an earlier run");
    }
    return keys;
  }

  /** The live key that was being looked at, where it is one of the slot's project. */
  #handedIn(chain: Chain, { order }: Call): string | undefined {
    const { world } = this.#played;
    const key = world.keys.get(String(order["sealed"]).replace(/^sealed:/, ""));
    const isOurs = key !== undefined && key.project === world.slot(chain.slot)?.project;
    return isOurs && world.stateAt(key.id, chain.closedAt) === "alive" ? key.id : undefined;
  }

  #landedLate(keyId: string): boolean {
    return this.#played.landedLate.some((late) => late.keyId === keyId);
  }

  #owned(chain: Chain, result: RotationResult): void {
    const { world } = this.#played;
    const entries = new Map((result.keys ?? []).map((entry) => [entry.id, entry]));
    const answersFor = this.#answersFor(chain);
    for (const [id, why] of answersFor) {
      if (entries.has(id)) continue;
      const state = world.stateAt(id, chain.closedAt);
      this.#say("owned", `${chain.workflowId}: ${id} (${why}, ${state} at the end) is not in the result`);
    }
    const told = new Set(this.#told.map(({ keyId }) => keyId));
    const asked = JSON.stringify([chain.runs.map(({ input }) => input), chain.heard.map(({ arg }) => arg)]);
    const earlier = new Set(
      this.#played.inspections
        .filter(({ runId }) => chain.runIds.has(runId))
        .flatMap(({ inspection }) => inspection.earlier.map(({ id }) => id)),
    );
    for (const { id } of entries.values()) {
      if (earlier.has(id) || asked.includes(`"${id}"`)) continue;
      // One that came so late that nobody had to see it may have been seen all the same.
      if (chain.runIds.has(world.keys.get(id)?.madeBy.runId ?? "")) continue;
      if (answersFor.has(id) || told.has(id) || world.heldWithin(chain.slot, id, chain.startedAt, chain.closedAt))
        continue;
      this.#say("owned", `${chain.workflowId}: ${id} is in the result, and is none of its keys`);
    }
  }

  /** The keys it was told of, also by a word that came as it ended and may have found nobody. */
  #saidTo(chain: Chain): string[] {
    const told = this.#told.filter((word) => word.chain === chain).map(({ keyId }) => keyId);
    const heard = chain.heard.map(({ arg }) => (arg as { compromisedKeyId?: string } | undefined)?.compromisedKeyId);
    return [...told, ...heard.filter((keyId) => keyId !== undefined)];
  }

  /** A run that ended without a result did nothing that needs one. */
  #refused(chain: Chain, except: ReadonlySet<string> = new Set()): void {
    const { world } = this.#played;
    const made = [...world.keys.values()].filter(({ madeBy }) => chain.runIds.has(madeBy.runId ?? ""));
    const changed = [
      ...made.map(({ id }) => `made ${id}`),
      ...world.writes.filter(({ by }) => chain.runIds.has(by.runId ?? "")).map(({ after }) => `wrote ${after.keyId}`),
      ...world.keyEvents
        .filter(({ by, what, keyId }) => what !== "made" && !except.has(keyId) && chain.runIds.has(by.runId ?? ""))
        .map(({ keyId, what }) => `${keyId} ${what}`),
    ];
    if (changed.length > 0) {
      this.#say(
        "owned",
        `${chain.workflowId} ended (${chain.last.failure?.type ?? chain.last.status}) without a result: ${changed.join(", ")}`,
      );
    }
  }

  // ---- fate -----------------------------------------------------------------------------------------------------

  #fates(chain: Chain, result: RotationResult): void {
    for (const entry of result.keys ?? []) this.#fate(chain, entry);
    const named = (result.keys ?? []).filter(({ fate }) => fate === "named").map(({ id }) => id);
    const left = (result.leftOver ?? []).map(({ id }) => id);
    if (named.toSorted().join(" ") !== left.toSorted().join(" ")) {
      this.#say("fate", `${chain.workflowId}: leftOver is ${left.join(", ")}, and named are ${named.join(", ")}`);
    }
  }

  #fate(chain: Chain, { id, role, fate, why = "", at, seen }: KeyEntry): void {
    const { world } = this.#played;
    const state = world.stateAt(id, chain.closedAt);
    const where = `${chain.workflowId}: ${id} (${role})`;
    if (fate === "open") this.#say("fate", `${where} is open in the result`);
    if (fate === "held") {
      const slot = [...world.slots.keys()]
        .toSorted((a, b) => b.length - a.length)
        .find((name) => why.startsWith(`${name} `));
      if (slot === undefined) this.#say("fate", `${where} is held, and by no slot: ${why}`);
      else if (!world.heldWithin(slot, id, this.#lookedSince(chain), chain.closedAt)) {
        this.#say("fate", `${where} is said to be held by ${slot}, and is not`);
      }
      // A slot of another project cannot ask after the key: it sees only who holds it.
      const canAsk = world.slots.get(chain.slot)?.project === world.keys.get(id)?.project;
      const wasDead = world.stateAt(id, this.#lookedSince(chain) + 1_000) === "dead";
      if (wasDead && canAsk && !this.#endedByPeople(id)) this.#say("fate", `${where} is said to be held, and is dead`);
    }
    if (fate === "ended") {
      // Without an admin credential a key that is off and one that is gone are refused alike.
      const alike = state === "off" && this.#played.story.flavour === "by-hand";
      if (state !== "dead" && state !== "unmade" && !alike)
        this.#say("fate", `${where} is said to be ended (seen ${seen}), and is ${state}`);
      const deadAt = world.keys.get(id)?.deadAt ?? 0;
      const saidAt = Date.parse(at ?? "");
      if (state === "dead" && !(saidAt >= deadAt - 1_000 - this.#skew(chain, id) && saidAt <= chain.closedAt + 1_000)) {
        this.#say("fate", `${where} is said to be ended at ${at}, and was at ${new Date(deadAt).toISOString()}`);
      }
    }
    if (fate === "named" && role === "new" && state === "alive" && this.#couldEnd(chain, id)) {
      this.#say("fate", `${where} is named (${why}), and was never on its way into the slot: it could be ended`);
    }
    if (fate === "named" && state === "dead" && this.#sawEnd(chain, id)) {
      this.#say("fate", `${where} is named (${why}), and the run had seen its end`);
    }
  }

  /** A cut by switching off counts from then, and the end for good comes later. */
  #skew(chain: Chain, id: string): number {
    const cut = this.#played.world.keyEvents.find(({ keyId, what }) => keyId === id && what === "off");
    return cut === undefined ? 0 : chain.closedAt - cut.at;
  }

  /** From when on what the run says of a slot may have been seen. */
  #lookedSince(chain: Chain): number {
    const looks = chain.calls.filter(({ name, outcome }) => name === "settleKeys" && outcome === "completed");
    return (looks.at(-1)?.scheduledAt ?? chain.startedAt) - 1_000;
  }

  /** The key's installation was never sent, and nothing stood in the way of its end. */
  #couldEnd(chain: Chain, id: string): boolean {
    const sent = chain.calls.some(({ name, order, outcome, failure, attempts }) => {
      if (name !== "installKey" || (order["key"] as { id: string }).id !== id) return false;
      // Of one whose time ran out while no worker lived, or that was cancelled, the run cannot tell that it never began.
      if (attempts === 0 && outcome !== "failed" && outcome !== "cancelled") return false;
      return outcome === "completed" || (failure?.details as { sent?: boolean } | undefined)?.sent !== false;
    });
    // Stopped in the middle, or not asked at all, is no failure: the exit can ask again.
    const failed = chain.calls.some(
      ({ name, order, outcome }) =>
        name === "settleKeys" &&
        outcome === "failed" &&
        (order["keys"] as { id: string }[]).some((key) => key.id === id),
    );
    const hindered = this.#played.met.some(
      ({ activity, kind, runId }) => activity === "settleKeys" && kind !== "slow" && chain.runIds.has(runId),
    );
    // Ten ends are a call's cap.
    const many = [...this.#played.world.keys.values()].filter(({ madeBy }) => chain.runIds.has(madeBy.runId ?? ""));
    return !sent && !failed && !hindered && many.length <= 10 && this.#played.story.flavour !== "by-hand";
  }

  #endedByOthers(chain: Chain, id: string): boolean {
    const end = this.#played.world.keyEvents.findLast(({ keyId, what }) => keyId === id && what === "dead");
    return end?.by.runId !== undefined && !chain.runIds.has(end.by.runId);
  }

  #endedByPeople(id: string): boolean {
    return this.#played.byPeople.some(({ of, what }) => of === id && what !== "edit");
  }

  #sawEnd(chain: Chain, id: string): boolean {
    return chain.calls.some(({ name, order, outcome, result }) => {
      if (outcome !== "completed") return false;
      if (name === "revokeKey" || name === "endCompromisedKey") return order["keyId"] === id;
      if (name !== "settleKeys") return false;
      return (result as { keys: { id: string; fate: { fate: string } }[] }).keys.some(
        (key) => key.id === id && key.fate.fate === "ended",
      );
    });
  }

  // ---- deadline -------------------------------------------------------------------------------------------------

  #deadlines(): void {
    const { world } = this.#played;
    const first = new Map<string, Told>();
    for (const told of this.#told) if (!first.has(told.keyId)) first.set(told.keyId, told);
    for (const told of first.values()) this.#deadline(told);
    for (const event of world.keyEvents) {
      const told = first.get(event.keyId);
      if (told === undefined || event.what !== "on" || event.by.activity === undefined) continue;
      // What had left before the word may land after it.
      if (this.#sentAt(event) <= told.at + 5_000 || this.#isCalledOff(told, event.at)) continue;
      this.#say("deadline", `${event.keyId} is compromised, and was switched on again`);
    }
    for (const write of world.writes) {
      // A run can only heed what was told to it.
      const told = this.#told.find(
        ({ keyId, chain }) => keyId === write.after.keyId && chain.runIds.has(write.by.runId ?? ""),
      );
      if (told === undefined || write.by.activity === undefined) continue;
      if (write.sentAt > told.at + 5_000 && write.before?.keyId !== write.after.keyId) {
        this.#say(
          "deadline",
          `${write.after.keyId} is compromised, and was written into ${write.slot} (${write.by.activity})`,
        );
      }
    }
  }

  #deadline({ chain, keyId, at }: Told): void {
    const { world, story, ground, snapshots } = this.#played;
    const policy = this.#policy(chain.slot);
    const key = world.keys.get(keyId);
    if (policy?.emergency.atDeadline !== "revoke" || story.flavour === "by-hand" || key === undefined) return;
    if (![...world.slots.values()].some(({ project }) => project === key.project)) return;
    if (this.#isCalledOff({ keyId, at })) return;
    if (chain.result === undefined && refusals.has(chain.last.failure?.type ?? "")) return;
    const deadline = at + durationMs(policy.emergency.revokeWithin);
    const latest = this.#excused(at, deadline + slackMs);
    if (ground.now < latest) return;
    if (world.stateAt(keyId, latest) === "alive") {
      const fate = chain.result?.keys?.find(({ id }) => id === keyId);
      this.#say(
        "deadline",
        `${keyId} was called compromised at ${iso(at)} and is alive at ${iso(latest)}; ${chain.workflowId} says ${fate?.fate ?? "nothing"} ${fate?.why ?? ""}`,
      );
      return;
    }
    if (world.stateAt(keyId, deadline + slackMs) !== "alive") return;
    // A worker that was away needs a moment to find out which key is meant.
    const planned = chain.calls.find(({ name, outcome }) => name === "planEmergency" && outcome === "completed");
    const from = Math.max(deadline, ground.workersUp(deadline) + 5_000, (planned?.endedAt ?? 0) + 5_000);
    const shown = snapshots.filter(
      ({ workflowId, at: then, progress }) => workflowId === chain.workflowId && then >= from && progress !== undefined,
    );
    if (shown.length > 0 && !shown.some(({ progress }) => JSON.stringify(progress ?? {}).includes(keyId))) {
      this.#say("deadline", `${keyId} is late, and progress does not say so`);
    }
  }

  /** An abort in another slot's run takes nothing back that this one was told. */
  #wasAborted({ chain, at }: Told, before: number): boolean {
    return this.#isAbortIn([chain], at, before);
  }

  /** Whether a person aborted a run that had been told of the key: that calls its emergency off. */
  #isCalledOff({ keyId, at }: Pick<Told, "keyId" | "at">, before = Infinity): boolean {
    // Also of one that heard the word as it ended.
    const heardOf = ({ heard }: Chain): boolean =>
      heard.some(({ arg }) => (arg as { compromisedKeyId?: string } | undefined)?.compromisedKeyId === keyId);
    const tellers = this.#chains.filter(
      (chain) => heardOf(chain) || this.#told.some((told) => told.keyId === keyId && told.chain === chain),
    );
    return this.#isAbortIn(tellers, at, before);
  }

  /** An abort is heard when a worker lives. */
  #isAbortIn(chains: Chain[], from: number, before: number): boolean {
    const aborts = chains.flatMap(({ heard }) => heard.filter(({ what }) => what === "abortSignal"));
    return aborts.some((said) => this.#played.ground.workersUp(said.at) >= from && said.at < before);
  }

  /** Until when a cut may be late: the provider refused it, or nobody worked. */
  #excused(told: number, latest: number): number {
    const { met, ground } = this.#played;
    const cuts = ["cutKey", "endCompromisedKey", "findCompromised", "readPolicy", "planEmergency", "revokeKey"];
    let until = latest;
    for (const { from, to } of ground.outages) if (from < until && to > told) until = Math.max(until, to + slackMs);
    const last = Math.max(
      0,
      ...met.filter((fault) => cuts.includes(fault.activity) && fault.at >= told - 60_000).map((fault) => fault.until),
    );
    if (last > 0) until = Math.max(until, last + 2 * Math.max(0, last - told) + 70 * 60_000);
    return until;
  }

  // ---- serving --------------------------------------------------------------------------------------------------

  #serving(): void {
    const { world } = this.#played;
    for (const event of world.keyEvents) {
      if (event.what !== "off" && event.what !== "dead") continue;
      if (event.by.activity === undefined || event.serving.length === 0) continue;
      const was = world.keyEvents
        .filter(({ keyId, at, what }) => keyId === event.keyId && at < event.at && what !== "made")
        .at(-1);
      // What was off already fails nobody by its end.
      if (was?.what === "off") continue;
      this.#served(event);
    }
  }

  /** When the request had left that changed the key. */
  #sentAt({ at, by }: Pick<KeyEvent, "at" | "by">): number {
    const late = this.#played.landedLate.find((landed) => landed.at === at && landed.activity === by.activity);
    return late?.sentAt ?? at;
  }

  #served({ at, keyId, by, serving, holding }: KeyEvent): void {
    const { world, byPeople } = this.#played;
    const where = `${keyId}, which ${serving.join(", ")} serves, was ended by ${by.activity} at ${iso(at)}`;
    // Between the look and the act another run may put the key in: no look can see that.
    const sentAt = this.#sentAt({ at, by });
    const justNow = world.writes.some(
      (write) => write.after.keyId === keyId && write.at <= at && sentAt - write.at < 5_000,
    );
    if (justNow) return;
    const told = this.#told.filter((word) => word.keyId === keyId && (word.earliest ?? word.at) <= at);
    // Of the words that stand, that of the run which knew the key first counts.
    const knewAt = ({ at: toldAt, earliest = toldAt, knownAt = earliest }: Told): number => knownAt;
    const [first] = [
      ...told.filter((word) => !this.#wasAborted(word, at)).toSorted((a, b) => knewAt(a) - knewAt(b)),
      ...told,
    ];
    if (first === undefined) {
      // A write that was under way may have put it in after the last look.
      const late = world.writes.some((write) => write.after.keyId === keyId && write.at - write.sentAt > 1_000);
      const rule = holding.length === 0 ? "edges" : "serving";
      if (!late) this.#say(rule, `${where}, and nobody had called it compromised`);
      return;
    }
    const policy = this.#policy(first.chain.slot);
    const deadline = (first.earliest ?? first.at) + durationMs(policy?.emergency.revokeWithin ?? "1h");
    const cutFirst = told.some((word) => word.cutFirst);
    const byDeadline = at >= deadline - 1_000 && policy?.emergency.atDeadline === "revoke";
    const bySaid = byPeople.some(({ what, at: then }) => what === "approve-cut" && then <= at);
    if (!cutFirst && !byDeadline && !bySaid) {
      const [rule, how] =
        holding.length === 0 ? (["edges", "while edges may still have it, "] as const) : (["serving", ""] as const);
      this.#say(rule, `${where}, ${how}before its deadline and without cut-first`);
      return;
    }
    if (holding.length === 0) return;
    const doer = this.#chains.find(({ runIds }) => runIds.has(by.runId ?? ""));
    const { result } = doer ?? {};
    if (doer === undefined || result === undefined) return;
    const saidIt =
      result.outage !== undefined || result.warnings.some((warning) => holding.some((slot) => warning.includes(slot)));
    if (!saidIt) this.#say("serving", `${where}; the record of ${doer.workflowId} does not say that requests fail`);
  }

  // ---- edit -----------------------------------------------------------------------------------------------------

  #edits(): void {
    const { world, inspections } = this.#played;
    for (const write of world.writes) {
      const { before, after, by, at, sentAt, slot } = write;
      if (by.activity === undefined || before?.by.person === undefined) continue;
      if (crossed(write) || at - sentAt > 1_000) continue;
      const saw = inspections.some(
        (look) =>
          look.slot === slot &&
          look.at >= before.modified &&
          look.runId === by.runId &&
          look.inspection.held.id === before.keyId,
      );
      if (!saw)
        this.#say(
          "edit",
          `${by.activity} wrote ${after.keyId} over ${before.keyId}, which a person had put into ${slot}`,
        );
    }
  }

  // ---- record ---------------------------------------------------------------------------------------------------

  #record(chain: Chain, result: RotationResult): void {
    for (const step of result.steps) this.#step(chain, step);
    this.#times(chain, result);
    const lastRunId = chain.last.runId;
    const { world } = this.#played;
    const needs = (at: number, steps: string[], says: string): void => {
      const covered = result.steps.some(
        ({ step, started, ended, outcome }) =>
          outcome !== "skipped" &&
          steps.includes(step) &&
          Date.parse(started) <= at + 1_000 &&
          Date.parse(ended ?? started) >= at - 30_000,
      );
      if (!covered) this.#say("record", `${chain.workflowId}: ${says} at ${iso(at)}, and no step says so`);
    };
    // A request that landed late was sent within the step that says so.
    for (const { by, at, sentAt, after } of world.writes) {
      if (by.runId !== lastRunId || at > chain.closedAt) continue;
      needs(sentAt, ["installKey", "storeAgain", "restoreOldValue"], `${after.keyId} was written`);
    }
    for (const event of world.keyEvents) {
      const { by, at, keyId, what } = event;
      if (by.runId !== lastRunId || what === "made" || by.activity === "settleKeys" || at > chain.closedAt) continue;
      needs(this.#sentAt(event), changes[by.activity ?? ""] ?? [], `${keyId} is ${what} by ${by.activity}`);
    }
  }

  #step(chain: Chain, { step, started, ended, outcome, note = "" }: StepRecord): void {
    // The look at its provider is part of the end: one that failed may have come no further.
    const names = step === "revokeKey" && outcome === "failed" ? ["findCompromised", ...revokes] : calls[step];
    if (outcome === "running") this.#say("record", `${chain.workflowId}: step ${step} is still running in the result`);
    if (names === undefined || outcome === "skipped") return;
    if (chain.runs.length > 1 && Date.parse(started) < chain.last.startedAt) return;
    const { story } = this.#played;
    if (step === "awaitIdle" && /hurr|cut short/i.test(note)) return;
    if (step === "revokeKey" && story.flavour === "by-hand") return;
    // It begins with a wait, which an abort may end.
    if (step === "awaitPropagation" && outcome === "failed") return;
    if (step === "issueKey" && outcome === "failed" && (story.flavour === "hand-in" || story.flavour === "by-hand"))
      return;
    const from = Date.parse(started) - 1_000;
    const to = Date.parse(ended ?? started) + 1_000;
    const called = chain.calls.some(
      ({ name, scheduledAt, endedAt = Number.POSITIVE_INFINITY }) =>
        names.includes(name) && scheduledAt <= to && endedAt >= from,
    );
    if (!called) this.#say("record", `${chain.workflowId}: step ${step} (${outcome}: ${note}) has no call`);
  }

  #times(chain: Chain, { times, oldKey, newKey }: RotationResult): void {
    const { world } = this.#played;
    // A run hears of what was told as late as its worker is slow.
    const tolerance = 2_000 + this.#played.story.taskLatencyMs;
    const near = (at: string, moments: number[]): boolean =>
      moments.some((moment) => Math.abs(moment - Date.parse(at)) <= tolerance);
    if (times.installed !== undefined) {
      const landed = world.writes.filter(({ by, slot }) => slot === chain.slot && chain.runIds.has(by.runId ?? ""));
      if (
        !near(
          times.installed,
          landed.map(({ at }) => at),
        )
      ) {
        this.#say("record", `${chain.workflowId}: installed at ${times.installed}, and nothing was written then`);
      }
    }
    if (times.verified !== undefined) {
      const ends = chain.calls
        .filter(
          ({ name, order, outcome }) =>
            name === "verifyThroughGateway" && order["alias"] === "real" && outcome === "completed",
        )
        .map(({ endedAt = 0 }) => endedAt);
      const within = ends.some((end) => Math.abs(end - Date.parse(times.verified ?? "")) <= 2_000);
      if (!within)
        this.#say("record", `${chain.workflowId}: verified at ${times.verified}, and the slot did not answer then`);
    }
    for (const moment of ["cut", "revoked"] as const) {
      const at = times[moment];
      if (at === undefined || this.#played.story.flavour === "by-hand") continue;
      const ends = world.keyEvents.filter(({ what }) => what === "dead" || what === "off").map((event) => event.at);
      const answered = chain.calls.filter(toldOfAnEnd).map(({ endedAt = 0 }) => endedAt);
      if (!near(at, [...ends, ...answered]))
        this.#say("record", `${chain.workflowId}: ${moment} at ${at}, and no key ended then`);
    }
    if (times.confirmedDead !== undefined) {
      const seen = chain.calls.some(
        ({ name, outcome, result }) =>
          name === "confirmRevoked" && outcome === "completed" && (result as { deadAt?: string }).deadAt !== undefined,
      );
      if (!seen) this.#say("record", `${chain.workflowId}: confirmedDead at ${times.confirmedDead}, and nobody saw it`);
    }
    if (newKey !== null && !world.keys.has(newKey.id))
      this.#say("record", `${chain.workflowId}: newKey ${newKey.id} is no key`);
    const asked = JSON.stringify(chain.runs.map(({ input }) => input));
    if (oldKey !== null && !world.keys.has(oldKey.id) && !asked.includes(oldKey.id))
      this.#say("record", `${chain.workflowId}: oldKey ${oldKey.id} is no key`);
  }

  // ---- outcome --------------------------------------------------------------------------------------------------

  #outcome(chain: Chain): void {
    const { world, byPeople } = this.#played;
    const { last, result, heard } = chain;
    const where = `${chain.workflowId}`;
    if (last.status === "failed") {
      const type = last.failure?.type ?? "";
      if (!Object.hasOwn(failureTypes, type))
        this.#say("outcome", `${where} failed with ${type}: ${last.failure?.message}`);
      return;
    }
    if (last.status !== "completed") {
      this.#say("outcome", `${where} is ${last.status}`);
      return;
    }
    if (result === undefined) {
      this.#say("outcome", `${where} completed without a result`);
      return;
    }
    const content =
      world
        .slot(chain.slot)
        ?.past.findLast(({ content: was, until }) => was.modified <= chain.closedAt && until > chain.closedAt)
        ?.content ?? world.slot(chain.slot)?.content;
    const working = content !== undefined && world.stateAt(content.keyId, chain.closedAt) === "alive";
    const edited = byPeople.some(({ at }) => at >= chain.startedAt && at <= chain.closedAt);
    const toldOf = this.#told.some((told) => told.chain === chain);
    switch (result.outcome) {
      case "rotated": {
        const { newKey } = result;
        if (newKey === null) this.#say("outcome", `${where} is rotated and has no new key`);
        else if (content?.keyId !== newKey.id && !edited)
          this.#say("outcome", `${where} is rotated to ${newKey.id}, and the slot holds ${content?.keyId}`);
        break;
      }
      case "kept":
        this.#refused(chain, new Set(this.#saidTo(chain)));
        break;
      case "aborted": {
        const asked = heard.some(
          ({ what }) => what === "abortSignal" || what === "cancel" || what === "escalate" || what === "escalateSignal",
        );
        if (!asked) this.#say("outcome", `${where} is aborted, and nobody asked for it: ${result.reason}`);
        break;
      }
      case "cut": {
        if (!toldOf) this.#say("outcome", `${where} is cut, and no key was called compromised`);
        break;
      }
      case "joined":
        break;
      default:
        this.#say("outcome", `${where} has outcome ${String(result.outcome)}`);
    }
    // What decides the exit code: a live compromised key is named.
    const refused = refusedKeys(chain);
    for (const { keyId } of this.#told.filter((told) => told.chain === chain && !refused.includes(told.keyId))) {
      const entry = result.keys?.find(({ id }) => id === keyId);
      if (entry !== undefined && entry.role !== "compromised") {
        this.#say("outcome", `${where}: ${keyId} was called compromised and is ${entry.role} in the result`);
      }
    }
    const code = exitCodeOfResult(result);
    const alive = this.#told
      .filter((told) => told.chain === chain && world.stateAt(told.keyId, chain.closedAt) === "alive")
      .map(({ keyId }) => keyId)
      .filter((keyId) => !refused.includes(keyId));
    // A key that was dead before the run is not the run's to tell of.
    const before = content === undefined ? "dead" : world.stateAt(content.keyId, chain.startedAt);
    const died = !working && (before === "alive" || before === "unmade");
    const fits = result.outcome === "aborted" || alive.length > 0 || (result.outcome === "cut" && died) ? 1 : 0;
    // 1 may be said of what is well where the run could not see it: a sibling's cut, a slot that nobody can read.
    const cautious = code === 1 && (result.outcome === "cut" || namesCompromised(result));
    if (code !== fits && !cautious && !edited) {
      const why =
        alive.length > 0
          ? `${alive.join(", ")} is compromised and alive`
          : `the slot ${working ? "holds a" : "holds no"} working key`;
      this.#say("outcome", `${where}: ${result.outcome} exits ${code}, and ${why}`);
    }
    if (result.slot !== chain.slot) this.#say("outcome", `${where}: the result is of ${result.slot}`);
  }

  // ---- slot -----------------------------------------------------------------------------------------------------

  #slots(): void {
    const { world, byPeople, landedLate, ground } = this.#played;
    for (const slot of world.slots.values()) {
      const { content, name } = slot;
      if (content === undefined || world.works(content.keyId)) continue;
      if (byPeople.some(({ of, what }) => of === content.keyId || (what === "edit" && of === name))) continue;
      const late = landedLate.some(({ activity }) => ["installKey", "restoreOldValue"].includes(activity));
      const told = this.#chains.some(
        ({ result }) =>
          result?.outage !== undefined || result?.warnings?.some((warning) => warning.includes(name)) === true,
      );
      if (!late && !told)
        this.#say(
          "slot",
          `${name} holds ${content.keyId}, which is ${world.stateAt(content.keyId, ground.now)}, and no record tells of an outage`,
        );
    }
    for (const slot of world.slots.values()) {
      for (const [short, { madeBy }] of slot.aliases) {
        const chain = this.#chains.find(({ runIds }) => runIds.has(madeBy.runId ?? ""));
        if (chain === undefined || chain.last.status === "open") continue;
        if (landedLate.some(({ activity }) => activity === "stageAliases")) continue;
        const said = chain.result?.warnings?.some((warning) => /alias/i.test(warning)) === true;
        if (!said)
          this.#say("slot", `an alias kt-${short} of ${slot.name} stays, and ${chain.workflowId} does not say so`);
      }
    }
  }
}

/** Whether a person's edit came while the write was on its way: no look could have seen it. */
function crossed({ before, sentAt }: WriteEvent): boolean {
  return before?.by.person !== undefined && sentAt < before.modified;
}

/** Whether an answer told the run of the key. */
function sawKey({ calls: made }: Chain, id: string): boolean {
  return made.some(({ result }) => JSON.stringify(result ?? null).includes(`"${id}"`));
}

/** Whether the call may have told the run that a key has ended: by its own act, or by what it saw. */
function toldOfAnEnd({ name, outcome, result }: Call): boolean {
  if (outcome !== "completed") return false;
  if (name === "findCompromised") return (result as { state: string }[]).some(({ state }) => state === "dead");
  return ["cutKey", "revokeKey", "endCompromisedKey", "settleKeys"].includes(name);
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** The calls by which a key is ended for good. */
const revokes = ["revokeKey", "endCompromisedKey"];

/** Which calls a step of the record stands for. Steps that are waits alone have none. */
const calls: Record<string, string[]> = {
  inspectSlot: ["inspectSlot"],
  issueKey: ["issueKey", "acceptKey"],
  verifyAtProvider: ["verifyAtProvider"],
  stageAliases: ["stageAliases"],
  "verifyThroughGateway(new)": ["verifyThroughGateway"],
  installKey: ["installKey"],
  awaitPropagation: ["awaitPropagation"],
  "verifyThroughGateway(real)": ["verifyThroughGateway"],
  awaitIdle: ["checkIdle"],
  disableKey: ["disableKey"],
  revokeKey: revokes,
  confirmRevoked: ["confirmRevoked"],
  findCompromised: ["findCompromised", "planEmergency"],
  cutKey: ["cutKey", "endCompromisedKey", "findCompromised"],
  measureOutage: ["findLastRefusal"],
  gatherEvidence: ["gatherEvidence"],
  checkSaved: ["checkSaved"],
  tryDirectly: ["verifyAtProvider"],
  purgeCache: ["purgeCache"],
  storeAgain: ["installKey"],
  restoreOldValue: ["restoreOldValue"],
  finish: ["settleKeys", "removeAliases"],
};

/** Which steps of the record may say that an activity changed a key. */
const changes: Record<string, string[]> = {
  revokeKey: ["revokeKey"],
  endCompromisedKey: ["revokeKey", "cutKey"],
  cutKey: ["cutKey", "revokeKey"],
  disableKey: ["disableKey"],
  enableKey: ["disableKey"],
};

/** The keys that a chain was told of and refused, since nobody knows them. */
function refusedKeys(chain: Chain): string[] {
  return chain.calls.flatMap(({ failure }) => (failure?.details as { keyIds?: string[] } | undefined)?.keyIds ?? []);
}
