import { setTimeout as pause } from "node:timers/promises";

import type {
  Compromised,
  Cut,
  EmergencyPlan,
  Holders,
  IdleAnswer,
  Inspection,
  Installed,
  Issued,
  NewKey,
  Revoked,
  Settled,
  Staged,
  SwitchedOff,
} from "../../src/activities/contract.ts";
import { Custody } from "../../src/domain/custody.ts";
import { type Attempt, type Ground, type Name, type Outcome, prepare } from "./ground.ts";
import type { Deed, Scene, Story } from "./story.ts";
import type { Snapshot } from "./truth.ts";

/**
 * Plays one story: the activities in the order in which a run calls them, with attempts that are lost, repeated and at
 * work twice at once. Afterwards the world is compared with what the run would have said. Returns what was wrong.
 */
export async function playStory(story: Story): Promise<Played> {
  const ground = await prepare(story);
  try {
    const played = await new Run(ground, story).play();
    return played;
  } finally {
    await ground.close();
  }
}

export interface Played {
  violations: string[];
  /** What happened, line by line. */
  log: string[];
  /** What the story met, for counting. */
  met: string[];
}

/** The run stops here, as a workflow would. */
class Stopped extends Error {}

const soon = (ms: number): string => new Date(Date.now() + ms).toISOString();
const oneAnswer = { answers: 1, span: "0s" } as const;
const most = 6;
/** By then an attempt has mostly looked, and waits before its first write. */
const lookedMs = 150;
/** The policy's. */
const quietMs = 300;

class Run {
  readonly #ground: Ground;
  readonly #story: Story;
  readonly #custody = new Custody();
  readonly #met = new Set<string>();
  #step = 0;
  #old: string | undefined;
  #new: NewKey | undefined;
  #settledAt = 0;
  #removedAt = 0;
  #cut = false;
  #listsLied = false;
  #installedAt = "";

  constructor(ground: Ground, story: Story) {
    this.#ground = ground;
    this.#story = story;
    const short = ground.of.rotationId.replaceAll("-", "").slice(0, 8);
    const own = new RegExp(`^kt\\.acme\\.production\\.${story.provider}\\.default\\.${short}\\.(\\d+)-\\d+$`);
    ground.truth.ownName = (name) => {
      const ordinal = own.exec(name)?.[1];
      return ordinal !== undefined && Number(ordinal) <= this.#custody.carry().issued;
    };
  }

  async play(): Promise<Played> {
    const { truth } = this.#ground;
    try {
      await this.#act();
      this.#met.add("went to its end");
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
      this.#say(`stopped: ${error.message}`);
    }
    await this.#end();
    await this.#ground.calm();
    await this.#judgeEnd();
    await this.#judgeSecrecy();
    return { violations: [...new Set(truth.violations)], log: truth.story, met: [...this.#met] };
  }

  async #act(): Promise<void> {
    const { kind, remedy } = this.#story;
    const ground = this.#ground;
    const { truth } = ground;
    if (kind === "ghost") return this.#ghost();
    const inspection = (await this.#do("inspectSlot", {})) as Inspection;
    truth.inspected();
    this.#old = inspection.held.id;
    const told = kind !== "normal";
    this.#custody.take(this.#old, told ? "compromised" : "old", { given: true });
    truth.may.add(this.#old);
    this.#checkHeld(inspection);
    this.#takeEarlier(inspection);
    let through = ground.slot;
    if (told) {
      await this.#plan();
      through = (await this.#findCompromised(this.#old))?.through ?? through;
    }
    if (kind === "cut-first") {
      const cut = (await this.#do("cutKey", { keyId: this.#old, through })) as Cut;
      this.#cut = true;
      await this.#requireDead(this.#old, `cutKey says ${cut.how}`, ["disabled", "revoked", "expired"]);
    }
    await this.#newKey();
    if (kind !== "cut-first") {
      const { inPlace } = (await this.#do("stageAliases", { key: this.#new })) as Staged;
      if (inPlace === undefined) {
        await this.#do("verifyThroughGateway", { alias: "new", goodAnswers: 1, until: soon(400) });
      } else this.#met.add("went in place");
    }
    await this.#install(inspection.secretModified);
    await this.#do("awaitPropagation", { until: soon(400) });
    await this.#inSlot();
    if (remedy === "store again") await this.#install(inspection.secretModified, true);
    if (remedy === "another key") {
      await this.#newKey();
      await this.#install(inspection.secretModified);
      await this.#inSlot();
    }
    if (remedy === "restore" && kind === "normal" && this.#new !== undefined) {
      await this.#do("restoreOldValue", { installedKeyId: this.#new.id, oldKeyId: this.#old });
      this.#met.add("old value put back");
      throw new Stopped("the old value was put back");
    }
    if (!told && this.#story.provider === "openai" && this.#story.world.use !== "none")
      await this.#untilIdle(this.#old);
    if (told) await this.#endCompromised(this.#old, through);
    else await this.#endOld(this.#old, inspection);
  }

  /** What an operator would be asked before a yes: the key that the slot holds, or which of several is meant. */
  async #plan(): Promise<void> {
    const { truth, slot } = this.#ground;
    const before = await truth.fresh();
    const done = await this.#try("planEmergency", {});
    if (!done.ok) return;
    const { keys, held } = done.value as EmergencyPlan;
    for (const { id, state } of [...keys, ...(held === undefined ? [] : [held])]) {
      await this.#checkState("planEmergency", { id, state });
      const after = await truth.fresh();
      // Somebody may edit it meanwhile.
      const holds = (at: Snapshot): boolean => truth.holders(truth.find(id, at)?.id ?? "", at).includes(slot);
      if (!holds(before) && !holds(after)) {
        this.#wrong(`planEmergency means ${id}, and ${slot} holds another`);
      }
    }
    this.#met.add(keys.length === 0 ? "asked which key is meant" : "meant the held key");
  }

  async #findCompromised(id: string): Promise<Compromised | undefined> {
    const done = await this.#try("findCompromised", { keyIds: [id] });
    if (!done.ok && done.type === "KeyUnknown" && this.#ground.truth.find(id)?.state === "active") {
      this.#wrong(`findCompromised knows no key ${id}, and it lives`);
    }
    if (!done.ok) throw new Stopped(`findCompromised: ${done.type} ${done.message}`);
    const [found] = done.value as Compromised[];
    if (found !== undefined) await this.#checkState("findCompromised", found);
    return found;
  }

  async #newKey(): Promise<void> {
    const { provider } = this.#story;
    const { truth } = this.#ground;
    if (provider === "anthropic") {
      const made = await this.#ground.keyByHand(`handed in ${this.#step}`);
      truth.may.add(made.id);
      this.#custody.take(made.id, "handed-in");
      const sealed = await this.#ground.seal(made.value);
      this.#new = (await this.#do("acceptKey", { sealed, openedAt: soon(-60_000) })) as NewKey;
    } else {
      const ordinal = this.#custody.expect();
      const issued = (await this.#do("issueKey", { ordinal, unprovenLife: "2h" })) as Issued;
      for (const id of issued.leftBehind) this.#custody.take(id, "new");
      this.#custody.take(issued.id, "new");
      this.#new = { id: issued.id, fingerprint: issued.fingerprint, sealed: issued.sealed };
    }
    truth.may.add(this.#new.id);
    await this.#do("verifyAtProvider", { key: this.#new, settleUntil: soon(600), rule: oneAnswer });
  }

  async #install(secretModified: string, again = false): Promise<void> {
    const key = this.#new;
    if (key === undefined) return;
    const done = await this.#try("installKey", { key, secretModified, ...(again ? { again } : {}) });
    if (done.ok) {
      this.#custody.give(key.id);
      this.#met.add("installed");
      const { at } = done.value as Installed;
      this.#installedAt = at;
      if (Number.isNaN(Date.parse(at))) this.#wrong(`installKey says ${at}`);
      return;
    }
    const sent = (done.details[0] as { sent?: boolean } | undefined)?.sent ?? true;
    if (sent) this.#custody.give(key.id);
    throw new Stopped(`installKey: ${done.type} ${done.message} (sent: ${sent})`);
  }

  async #inSlot(): Promise<void> {
    await this.#do("verifyThroughGateway", {
      alias: "real",
      goodAnswers: 1,
      until: soon(400),
      installedKeyId: this.#new?.id,
    });
  }

  /** Clients use the old key once more; then the provider is asked until it calls it idle. */
  async #untilIdle(old: string): Promise<void> {
    const ground = this.#ground;
    const usedAt = await ground.useKey(await ground.valueOf(ground.truth.find(old)?.id ?? ""));
    for (let look = 0; look < 10; look++) {
      await this.#inSlot();
      await pause(130);
      const order = {
        oldKeyId: old,
        newKeyId: this.#new?.id,
        installedAt: this.#installedAt,
        since: this.#installedAt,
      };
      const answer = (await this.#do("checkIdle", order)) as IdleAnswer;
      const horizon = Date.parse(answer.horizon ?? "");
      if (answer.kind === "idle" && usedAt <= horizon && usedAt > horizon - quietMs) {
        this.#wrong(
          `checkIdle calls ${old} idle until ${answer.horizon}, and a client used it at ${new Date(usedAt).toISOString()}`,
        );
      }
      if (answer.kind === "idle") {
        this.#met.add("seen idle");
        return;
      }
      this.#met.add(`idle? ${answer.kind}`);
    }
    throw new Stopped("the old key is not seen idle");
  }

  #takeEarlier({ earlier, unknown }: Inspection): void {
    const left = this.#ground.earlier;
    for (const { id } of earlier) {
      this.#custody.take(id, "earlier", { given: true });
      this.#met.add("earlier key taken over");
    }
    if (left !== undefined && unknown.length === 0 && !earlier.some(({ id }) => id === left)) {
      this.#wrong(`inspectSlot does not name ${left}, which the last run left alive`);
    }
    for (const { id, state } of earlier) {
      if (state === "dead" && this.#ground.truth.find(id)?.state === "active") {
        this.#wrong(`inspectSlot says that ${id} of the last run is dead, and it lives`);
      }
    }
  }

  async #endOld(old: string, { canDisable }: Inspection): Promise<void> {
    const order = { keyId: old, installedKeyId: this.#new?.id };
    if (canDisable) {
      const already = this.#ground.truth.find(old);
      const off = (await this.#do("disableKey", order)) as SwitchedOff;
      await this.#requireDead(old, "disableKey says it is off", ["disabled", "revoked", "expired"]);
      const byPerson = already !== undefined && this.#ground.truth.switchedOff.get(already.id) === "person";
      if (already?.state === "active" && off.wasOff && !byPerson) {
        this.#wrong(`disableKey says that somebody else switched ${old} off, and it was this run`);
      }
      if (!off.wasOff && this.#step % 3 === 0) await this.#do("enableKey", { keyId: old });
    }
    const revoked = (await this.#do("revokeKey", order)) as Revoked;
    await this.#requireDead(old, "revokeKey says it is revoked", ["revoked", "expired"]);
    this.#custody.settle(old, { fate: "ended", at: revoked.at, seen: revoked.seen });
    this.#met.add("old key revoked");
  }

  async #endCompromised(id: string, through: string): Promise<void> {
    const before = await this.#ground.truth.fresh();
    const [holders] = (await this.#do("lookAtHolders", { keyIds: [id] })) as Holders[];
    await this.#checkHolders(holders, before);
    const others = [...(holders?.yes ?? []), ...(holders?.unknown ?? []).map(({ slot }) => slot)];
    if (others.length > 0 && !this.#story.atDeadline) throw new Stopped(`${id} is held by ${others.join(", ")}`);
    const revoked = (await this.#do("endCompromisedKey", { keyId: id, through })) as Revoked;
    this.#cut = true;
    await this.#requireDead(id, "endCompromisedKey says it is ended", ["revoked", "expired"]);
    this.#custody.settle(id, { fate: "ended", at: revoked.at, seen: revoked.seen });
    this.#met.add("compromised key ended");
  }

  /** Ids that nobody knows, another project's key, a value in place of an id: nothing is cut, and nothing is said to be. */
  async #ghost(): Promise<void> {
    const { truth, slot } = this.#ground;
    const foreign = [...truth.now().keys.values()].find(({ id }) => /stg.1$/.test(id) && this.#isOwnProvider(id));
    const which = (["nobody's", "foreign", "value"] as const)[(this.#story.scenes[0]?.afterMs ?? 0) % 3] ?? "foreign";
    const ids = {
      "nobody's": "key_prod_l",
      foreign: foreign?.id ?? "",
      value: await this.#ground.valueOf(foreign?.id ?? ""),
    };
    const id = ids[which];
    const found = await this.#try("findCompromised", { keyIds: [id] });
    if (found.ok && which !== "foreign") this.#wrong(`findCompromised knows a key that is ${which}`);
    // What was never seen is not passed on; another project's key may be, by a slip.
    for (const name of which === "nobody's" ? [] : (["cutKey", "endCompromisedKey"] as const)) {
      const done = await this.#try(name, { keyId: id, through: slot });
      if (done.ok) this.#wrong(`${name} says that it ended, through ${slot}, a key that is ${which}`);
    }
    this.#met.add(`ghost ${which}`);
  }

  #isOwnProvider(id: string): boolean {
    return { openai: /^key_/, anthropic: /^apikey_/, gemini: /^gemini-/ }[this.#story.provider].test(id);
  }

  /** The one exit: aliases go, and what is open gets a fate. */
  async #end(): Promise<void> {
    const ground = this.#ground;
    // A run names what is compromised itself; if it is passed on all the same, it is named and not ended.
    const all = this.#story.atDeadline;
    let open = this.#custody.open().filter(({ role }) => all || role !== "compromised");
    this.#removedAt = performance.now();
    const removed = await this.#try("removeAliases", {}, { last: true });
    if (!removed.ok) this.#wrong(`removeAliases fails for good: ${removed.type} ${removed.message}`);
    this.#settledAt = Date.now();
    const settle = () =>
      this.#try(
        "settleKeys",
        { keys: open.map(({ id, role, given }) => ({ id, role, given })), ordinals: this.#custody.ordinals },
        { last: true },
      );
    let settled = await settle();
    // What was made without an answer is the run's before it is ended.
    for (let found = foundBy(settled); found.length > 0; found = foundBy(settled)) {
      for (const id of found) this.#custody.take(id, "new");
      open = [...open, ...this.#custody.open().filter(({ id }) => found.includes(id))];
      settled = await settle();
    }
    if (!settled.ok) {
      this.#wrong(`settleKeys fails for good: ${settled.type} ${settled.message}`);
      return;
    }
    const { keys } = settled.value as Settled;
    const then = await ground.truth.fresh();
    for (const { id, role, fate } of keys) {
      this.#custody.take(id, role);
      this.#custody.settle(id, fate);
      ground.truth.may.add(id);
      this.#met.add(`settled ${role} ${fate.fate}`);
      this.#say(`settled ${id} (${role}): ${JSON.stringify(fate)}`);
      if (fate.fate === "ended") await this.#requireDead(id, "settleKeys says it is ended", ["revoked", "expired"]);
      const holders = ground.truth.holders(ground.truth.find(id, then)?.id ?? "", then);
      if (fate.fate === "held" && !fate.by.split(", ").every((slot) => holders.includes(slot))) {
        this.#wrong(`settleKeys says that ${fate.by} holds ${id}, and it does not`);
      }
    }
    for (const { id } of open) {
      if (!keys.some((one) => one.id === id)) this.#wrong(`settleKeys drops ${id}`);
    }
    for (const { id, role } of this.#custody.open()) {
      if (role === "compromised") this.#custody.settle(id, { fate: "named", why: "the run stopped before it was cut" });
    }
  }

  // ---- steps, with what goes wrong around them ------------------------------------------------------------------

  /** A step that must succeed, or the run stops. */
  async #do(name: Name, order: object): Promise<unknown> {
    const done = await this.#try(name, order);
    if (done.ok) return done.value;
    throw new Stopped(`${name}: ${done.type} ${done.message}`);
  }

  async #try(name: Name, order: object, { last = false } = {}): Promise<Outcome> {
    const { scenes, stopAt } = this.#story;
    const at = this.#step++;
    if (!last && at >= stopAt) throw new Stopped(`aborted before ${name}`);
    const scene = scenes[at % scenes.length];
    if (scene === undefined) throw new Error("a story has scenes");
    // A run that ends is not disturbed by people: its last look has to be true, and they may come after it.
    if (!last) for (const deed of scene.deeds) await this.#deed(deed);
    await this.#ground.weather(scene);
    if (scene.faults.length + scene.lies.length > 0) {
      this.#say(`weather at ${name}: ${JSON.stringify({ faults: scene.faults, lies: scene.lies })}`);
    }
    if (name === "removeAliases") this.#listsLied = scene.lies.some(({ mode }) => mode === "missing");
    for (const { mode } of scene.faults) this.#met.add(`fault ${mode}`);
    for (const { about, mode } of scene.lies) this.#met.add(`lie ${about} ${mode}`);
    this.#met.add(`attempts ${scene.attempts}`);
    const done = await this.#attempts(name, order, scene, last);
    if (!done.ok) this.#say(`${name} fails: ${done.type} ${done.message}`);
    return done;
  }

  async #attempts(name: Name, order: object, scene: Scene, last: boolean): Promise<Outcome> {
    const { attempts: mode, afterMs } = scene;
    const ground = this.#ground;
    let attempt = 1;
    let zombie: Attempt | undefined;
    let former = ground.attempt(name, order, {
      attempt,
      ...(mode === "given up" ? { slow: scene.givenUp } : {}),
    });
    if (mode === "given up") {
      const ended = await Promise.race([former.outcome, former.underWay]);
      if (ended === undefined) {
        zombie = former;
        zombie.giveUp(scene.givenUp.hears);
        this.#met.add(`given up during a ${scene.givenUp.during}`);
        former = ground.attempt(name, order, { attempt: ++attempt, heartbeat: zombie.heartbeat() });
        // What the first look says is compared with what is so when it ends.
        if (!last && name !== "inspectSlot" && scene.givenUp.meanwhile.length > 0) {
          await Promise.race([former.outcome, pause(lookedMs + afterMs)]);
          for (const deed of scene.givenUp.meanwhile) await this.#deed(deed);
        }
      }
    }
    if (mode === "two at once") {
      // Given up on for want of heartbeats, and still at work.
      await Promise.race([former.outcome, pause(afterMs)]);
      former = ground.attempt(name, order, { attempt: ++attempt, heartbeat: former.heartbeat() });
    }
    if (mode === "cancelled" && !last) {
      const ended = await Promise.race([former.outcome, pause(afterMs)]);
      if (ended === undefined) {
        former.cancel();
        const done = await former.outcome;
        return done.ok ? done : { ...done, final: true };
      }
    }
    let done = await former.outcome;
    if (mode === "result lost" && done.ok) {
      former = ground.attempt(name, order, { attempt: ++attempt, heartbeat: former.heartbeat() });
      done = await former.outcome;
    }
    while (!done.ok && !done.final && attempt < most + (last ? 4 : 0)) {
      if (last && attempt > most) await ground.weather(undefined);
      await pause(25);
      const next: Attempt = ground.attempt(name, order, { attempt: ++attempt, heartbeat: former.heartbeat() });
      former = next;
      done = await next.outcome;
    }
    if (zombie !== undefined && done.ok) ground.truth.stepDone(zombie.id);
    return done;
  }

  async #deed(deed: Deed): Promise<void> {
    const ground = this.#ground;
    const { truth } = ground;
    const [old, made] = [this.#old, this.#new?.id].map((id) => (id === undefined ? undefined : truth.find(id)?.id));
    this.#met.add(deed);
    switch (deed) {
      case "edits the value":
      case "edits value and comment": {
        const { id, value } = await ground.keyByHand("by hand");
        truth.disturbed = true;
        this.#say(`a person puts ${id} into the slot`);
        // A new value under an old mark and an old preview shows nowhere for five minutes (design, "the mark").
        const quiet = deed === "edits the value" && this.#story.world.freshPreviews;
        await ground.edit(ground.secretOf(), quiet ? { value } : { value, comment: "by alice" });
        // Nor does it show while lists tell of the old preview.
        if (quiet) await pause(this.#story.world.listLagMs);
        return;
      }
      case "edits the comment":
        return ground.edit(ground.secretOf(), { comment: "please ask alice" });
      case "puts the old key into the neighbour":
      case "puts the new key into the neighbour": {
        const id = deed === "puts the old key into the neighbour" ? old : made;
        if (ground.neighbour === undefined || id === undefined) return;
        return ground.edit(ground.secretOf("batch"), { value: await ground.valueOf(id) });
      }
      case "ends the new key":
        if (made === undefined || truth.now().keys.get(made)?.state !== "active") return;
        truth.disturbed = true;
        return ground.endByHand(made);
      case "switches the old key off":
        if (old === undefined || truth.now().keys.get(old)?.state !== "active") return;
        truth.disturbed = true;
        return ground.switchOffByHand(old);
      case "fills the store":
        return ground.leaveRoom(0);
      case "makes keys of like names": {
        const name = `kt.acme.production.${this.#story.provider}.default.${ground.of.rotationId.replaceAll("-", "").slice(0, 8)}`;
        for (const end of [".1-1x", ".77-1", "0.1-1"]) await ground.keyByHand(`${name}${end}`);
        return;
      }
    }
  }

  // ---- what is judged -------------------------------------------------------------------------------------------

  async #judgeEnd(): Promise<void> {
    const { truth, slot } = this.#ground;
    const { keys, secrets } = truth.now();
    const entries = this.#custody.all();
    const known = (id: string) => entries.find((entry) => truth.find(entry.id)?.id === id);
    for (const { id, name, state, createdAt, expiresAt } of keys.values()) {
      const entry = known(id);
      if (entry === undefined && !truth.ownName(name)) continue;
      const alive = state === "active" || state === "disabled";
      if (!alive || truth.holders(id).length > 0) continue;
      if (entry?.fate?.fate === "named") continue;
      if (entry?.fate?.fate === "held") {
        this.#wrong(`${id} is said to be held by ${entry.fate.by}, lives, and no slot holds it in the end`);
        continue;
      }
      // Came after the last look: it ends by itself.
      const endsByItself = expiresAt !== undefined && expiresAt - createdAt < 3 * 3_600_000;
      if (entry === undefined && createdAt >= this.#settledAt && endsByItself) continue;
      this.#wrong(
        `${id} (${name}) lives and is named nowhere${entry === undefined ? "" : ` (${JSON.stringify(entry.fate)})`}`,
      );
    }
    for (const { id, fate } of entries) {
      if (fate?.fate === "ended") await this.#requireDead(id, "the run says it is ended", ["revoked", "expired"]);
    }
    const short = this.#ground.of.rotationId.replaceAll("-", "").slice(0, 8);
    // What a list missed at that moment is the sweep's to find.
    for (const name of this.#listsLied ? [] : secrets.keys()) {
      if (name.includes(`_kt-${short}-`) && truth.aliasWritten < this.#removedAt)
        this.#wrong(`alias ${name} stays behind`);
    }
    if (truth.disturbed || this.#cut) return;
    const held = secrets.get(this.#ground.secretOf());
    const state = held?.keyId === undefined ? "not there" : keys.get(held.keyId)?.state;
    if (state !== "active") this.#wrong(`${slot} is left with a key that is ${state}`);
  }

  async #judgeSecrecy(): Promise<void> {
    const { values } = (await this.#ground.control("/values")) as { values: { id: string; value: string }[] };
    for (const { activity, text } of this.#ground.answers) {
      for (const { id, value } of values) {
        if (text.includes(value)) this.#wrong(`${activity} tells the value of ${id}`);
      }
    }
  }

  #checkHeld({ held, sharedWith, unknown, warnings }: Inspection): void {
    const { truth, slot, neighbour } = this.#ground;
    const key = truth.find(held.id);
    if (
      key?.state === "active" &&
      warnings.some((warning) => warning.includes(`${held.id}, which the slot holds, is`))
    ) {
      this.#wrong(`inspectSlot says that ${held.id} is not alive, and it is`);
    }
    const holders = key === undefined ? [] : truth.holders(key.id);
    if (!holders.includes(slot)) this.#wrong(`inspectSlot says that ${slot} holds ${held.id}, and it holds another`);
    const said = neighbour !== undefined && [...sharedWith, ...unknown].some((text) => text.includes(neighbour));
    if (neighbour !== undefined && holders.includes(neighbour) && !said) {
      this.#wrong(`inspectSlot does not say that ${neighbour} holds ${held.id} too`);
    }
  }

  async #checkHolders(holders: Holders | undefined, before: Snapshot): Promise<void> {
    const { truth } = this.#ground;
    const after = await truth.fresh();
    const key = holders === undefined ? undefined : truth.find(holders.keyId, after);
    if (holders === undefined || key === undefined) return;
    const heldBefore = truth.holders(key.id, before);
    for (const slot of truth.holders(key.id, after).filter((one) => heldBefore.includes(one))) {
      if (holders.yes.includes(slot) || holders.unknown.some((one) => one.slot === slot)) continue;
      this.#wrong(`lookAtHolders says that ${slot} does not hold ${key.id}, and it does`);
    }
  }

  async #checkState(activity: string, { id, state }: Pick<Compromised, "id" | "state">): Promise<void> {
    const { truth } = this.#ground;
    const isAlive = ["active", "disabled"].includes(truth.find(id, await truth.fresh())?.state ?? "");
    if (state === "dead" && isAlive) this.#wrong(`${activity} says that ${id} is dead, and it lives`);
  }

  async #requireDead(id: string, said: string, states: string[]): Promise<void> {
    const { truth } = this.#ground;
    const key = truth.find(id, await truth.fresh());
    if (key === undefined) this.#wrong(`${said}, and nobody knows ${id}`);
    else if (!states.includes(key.state)) this.#wrong(`${said}, and ${id} is ${key.state}`);
  }

  #wrong(what: string): void {
    this.#ground.truth.violations.push(what);
    this.#say(`WRONG: ${what}`);
  }

  #say(what: string): void {
    this.#ground.truth.story.push(`       ${what}`);
  }
}

/** The keys that a clean-up found and its run did not know. */
function foundBy(settled: Outcome): string[] {
  return settled.ok ? ((settled.value as Settled).found ?? []) : [];
}
