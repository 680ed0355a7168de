import type { Policy } from "../../src/domain/policy.ts";
import type { Progress } from "../../src/domain/rotation.ts";
import { durationMs, type Met, playing, type Stage } from "./activities.ts";
import { type Answer, type Call, Ground, type Run, TaskFailed, type workflowIsolate } from "./ground.ts";
import type { Anchor, Deed, Flavour, KeyRef, PolicyChoice, SlotRef, Story } from "./story.ts";
import { World } from "./world.ts";

/** Plays one story to its end, and keeps all that the judge looks at. */

type Isolate = Awaited<ReturnType<typeof workflowIsolate>>;

export interface Snapshot {
  at: number;
  workflowId: string;
  runId: string;
  progress: Progress | undefined;
}

export interface Played {
  story: Story;
  world: World;
  ground: Ground;
  met: Met[];
  landedLate: Stage["landedLate"];
  inspections: Stage["inspections"];
  former: Stage["former"];
  /** The names by which the story calls keys and slots. */
  names: { slots: Record<SlotRef, string>; keys: Map<KeyRef, string> };
  startedAt: number;
  /** What `progress` said a little past each revoke deadline. */
  snapshots: Snapshot[];
  /** Slots whose value a person changed, and keys that a person ended or switched off. */
  byPeople: { at: number; what: "edit" | "off" | "dead" | "approve-cut"; of: string }[];
  end: "over" | "late" | "busy";
  taskFailed?: string;
  differences: string[];
  deeds: { at: number; what: Deed; done: boolean }[];
}

export const slotNames: Record<Flavour, Record<SlotRef, string>> = {
  issue: { main: "production/openai", batch: "production/openai:batch", staging: "staging/openai" },
  "issue-disable": { main: "production/gemini", batch: "production/gemini:batch", staging: "staging/gemini" },
  "hand-in": { main: "production/anthropic", batch: "production/anthropic:batch", staging: "staging/anthropic" },
  "by-hand": { main: "production/openai", batch: "production/openai:batch", staging: "staging/openai" },
};

export const refs = ["main", "batch", "staging"] as const;

/** How long past a revoke deadline the state is looked at. */
export const slackMs = 4 * 60_000;

function policyOf(choice: PolicyChoice): Policy {
  const policy = {
    every: "90d",
    keyLife: "365d",
    settleBudget: "15m",
    alive: { answers: 5, span: "10s" },
    propagationWait: "30s",
    propagationBudget: "2m",
    goodAnswers: 5,
    probePath: "native",
    cacheInvalidationWait: "10m",
    quietPeriod: "15m",
    usageLag: "15m",
    graceCeiling: { after: choice.ceiling, ifUnknown: choice.ifUnknown, ifUsed: choice.ifUsed },
    soak: "15m",
    longestRequest: "15m",
    personDeadline: choice.personDeadline,
    revokeAlertAfter: "1h",
    dead: { answers: 5, span: "30s" },
    aliases: "auto",
    approval: choice.approval,
    emergency: {
      strategy: "swap-first",
      installWithin: "5m",
      revokeWithin: "1h",
      atDeadline: choice.atDeadline,
    },
  };
  return policy as unknown as Policy;
}

/** Repeatable numbers from 0 to 1. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export async function playStory(isolate: Isolate, drawn: Story, { replay = false } = {}): Promise<Played> {
  const story = structuredClone(drawn);
  const slots = slotNames[story.flavour];
  for (const ref of refs) story.slots[slots[ref]] = { policy: policyOf(story.policies[ref]) };
  const player = new Player(isolate, story, replay);
  return player.play();
}

class Player {
  readonly #story: Story;
  readonly #ground: Ground;
  readonly #world: World;
  readonly #stage: Stage;
  readonly #played: Played;
  readonly #slots: Record<SlotRef, string>;
  readonly #replay: boolean;
  #waits: string[] = [];
  #asked = new Map<string, number>();
  #asking = new Set<string>();
  #beside = 0;

  constructor(isolate: Isolate, story: Story, replay: boolean) {
    this.#story = story;
    this.#replay = replay;
    this.#slots = slotNames[story.flavour];
    const startedAt = Date.parse("2026-01-05T09:00:00Z");
    this.#ground = new Ground({
      isolate,
      play: playing(() => this.#stage),
      random: randomFrom(story.seed),
      start: startedAt,
      record: replay,
      listener: {
        scheduled: (call) => this.#anchored(call, "scheduled"),
        resolved: (call) => this.#anchored(call, "resolved"),
        phase: (run) => this.#phase(run),
        started: (run) => this.#started(run),
        heard: (run, what) => this.#heard(run, what),
        closed: (run) => this.#world.note(run.workflowId, `run ${run.number} ${run.status}: ${ending(run)}`),
      },
    });
    this.#ground.taskLatencyMs = story.taskLatencyMs;
    this.#world = new World(() => this.#ground.now);
    this.#stage = {
      story,
      world: this.#world,
      ground: this.#ground,
      met: [],
      landedLate: [],
      former: new Map(),
      unseen: new Set(),
      unsure: new Set(),
      inspections: [],
    };
    this.#played = {
      story,
      world: this.#world,
      ground: this.#ground,
      met: this.#stage.met,
      landedLate: this.#stage.landedLate,
      inspections: this.#stage.inspections,
      former: this.#stage.former,
      names: { slots: this.#slots, keys: new Map() },
      startedAt,
      snapshots: [],
      byPeople: [],
      end: "over",
      differences: [],
      deeds: [],
    };
  }

  async play(): Promise<Played> {
    this.#settle();
    for (const { when, what } of this.#story.deeds) {
      if ("at" in when) this.#ground.after(when.at, () => this.#do(what));
    }
    this.#begin();
    try {
      this.#played.end = await this.#ground.play({
        until: this.#played.startedAt + 45 * 86_400_000,
        most: 60_000,
        done: () => this.#ground.openRuns.length === 0 && this.#ground.runs.length > 0 && this.#quiet(),
      });
      if (this.#replay) this.#played.differences = await this.#ground.replays();
    } catch (error) {
      if (!(error instanceof TaskFailed)) throw error;
      this.#played.taskFailed = error.message;
    } finally {
      await this.#ground.stop();
    }
    return this.#played;
  }

  /** Some minutes after the last run has closed nothing that was late is still under way. */
  #closedAt = 0;
  #quiet(): boolean {
    this.#closedAt = Math.max(...this.#ground.runs.map(({ closedAt = 0 }) => closedAt));
    return this.#ground.now - this.#closedAt > 4 * 3_600_000;
  }

  // ---- how the world begins -------------------------------------------------------------------------------------

  #settle(): void {
    const { flavour, sharing, former, unseenEnds } = this.#story;
    const { keys } = this.#played.names;
    const past = this.#played.startedAt - 80 * 86_400_000;
    const seed = (project: string, name: string, madeAt = past): string => {
      const key = this.#world.makeKey({ project, name, madeBy: { person: "somebody" }, madeAt, acceptedFrom: madeAt });
      return key.id;
    };
    const held = seed("p1", "held");
    const own = { batch: seed("p1", "batch"), staging: seed("p2", "staging") };
    keys.set("held", held);
    keys.set("of-batch", sharing === "batch" || sharing === "both" ? held : own.batch);
    keys.set("of-staging", sharing === "staging" || sharing === "both" ? held : own.staging);
    keys.set("stray", seed("p1", "stray"));
    keys.set("nobody", "key_nobody");
    const holds: Record<SlotRef, string> = {
      main: held,
      batch: keys.get("of-batch") ?? held,
      staging: keys.get("of-staging") ?? held,
    };
    for (const ref of refs) {
      const name = this.#slots[ref];
      this.#world.addSlot(
        {
          name,
          project: ref === "staging" ? "p2" : "p1",
          canIssue: flavour === "issue" || flavour === "issue-disable",
          canDisable: flavour === "issue-disable" || flavour === "hand-in",
          byHand: flavour === "by-hand",
          edgesMs: 9 * 60_000,
        },
        {
          keyId: holds[ref],
          mark: { keyId: holds[ref], rotationId: "11111111-1111-4111-8111-111111111111" },
          modified: past,
          by: { activity: "installKey" },
        },
      );
    }
    if (former) {
      const id = seed("p1", "former");
      keys.set("former", id);
      this.#stage.former.set(this.#slots.main, [{ id, why: "clients may still use it" }]);
    }
    if (unseenEnds) for (const id of this.#world.keys.keys()) this.#stage.unseen.add(id);
  }

  #keyOf(ref: KeyRef): string | undefined {
    if (ref !== "new") return this.#played.names.keys.get(ref);
    const made = [...this.#world.keys.values()].findLast(
      ({ madeBy }) => madeBy.rotationId !== undefined || madeBy.person === "pat",
    );
    return made?.id;
  }

  #begin(): void {
    const { start } = this.#story;
    const slot = this.#slots.main;
    const workflowId = start.follower ? "schedule/main-2026-01-05" : `keyturn/${slot}`;
    if (start.kind === "normal") {
      this.#ground.start(workflowId, "normalRotation", { slot, ...(start.onlyIfDue ? { onlyIfDue: true } : {}) });
      return;
    }
    const ids = start.keys.flatMap((ref) => this.#keyOf(ref) ?? []);
    const strategy = start.strategy === "policy" ? {} : { strategy: start.strategy };
    const leakedId = ids[0] ?? this.#keyOf("held") ?? "";
    const unique = [...new Set(ids)];
    const [only] = unique;
    if (start.leaked === "alone") {
      const leaked = `leaked:${leakedId}`;
      this.#ground.start("keyturn/leaked/0123456789abcdef", "emergencyRotation", { leaked, ...strategy });
    } else if (start.leaked === "for-slot") {
      this.#ground.start(workflowId, "emergencyRotation", { slot, leaked: `leaked:${leakedId}`, ...strategy });
    } else {
      this.#ground.start(workflowId, "emergencyRotation", {
        slot,
        ...strategy,
        ...(unique.length === 1 && only !== undefined && this.#story.seed % 2 === 0
          ? { compromisedKeyId: only }
          : unique.length === 0
            ? {}
            : { compromisedKeyIds: unique }),
      });
    }
  }

  // ---- what people do -------------------------------------------------------------------------------------------

  #anchored(call: Call, edge: "scheduled" | "resolved"): void {
    for (const { when, what } of this.#story.deeds) {
      if (matches(when, call, edge)) this.#ground.after((when as { plus: number }).plus, () => this.#do(what));
    }
  }

  async #do(what: Deed): Promise<void> {
    const record = { at: this.#ground.now, what, done: true };
    this.#played.deeds.push(record);
    this.#world.note("deed", JSON.stringify(what));
    switch (what.do) {
      case "abort":
        record.done = this.#ground.signal(this.#idOf(what.slot), "abortSignal", { by: "ada" });
        return;
      case "cancel":
        record.done = this.#ground.cancel(this.#idOf(what.slot));
        return;
      case "compromise":
        record.done = this.#compromise(what);
        return;
      case "rotate":
        record.done =
          this.#ground.start(this.#idOf(what.slot), "normalRotation", { slot: this.#slots[what.slot] }) !== undefined;
        return;
      case "emergency":
        record.done =
          this.#ground.start(this.#idOf(what.slot), "emergencyRotation", {
            slot: this.#slots[what.slot],
            strategy: what.strategy,
          }) !== undefined;
        return;
      case "approve": {
        const [old = "w1"] = this.#waits;
        const wait = what.wait === "none" ? {} : { wait: what.wait === "old" ? old : (this.#waits.at(-1) ?? "w1") };
        const arg = { by: "ada", ...wait };
        await this.#noteCutNow(wait.wait);
        if (what.by === "signal") this.#ground.signal(this.#idOf("main"), "approveSignal", arg);
        else this.#ground.update(this.#idOf("main"), "approve", arg);
        return;
      }
      case "hand-in":
        this.#handIn(this.#slots.main, what.key, what.by);
        return;
      case "edit":
        this.#edit(what.slot);
        return;
      case "switch-off": {
        const id = this.#keyOf(what.key);
        if (id === undefined || this.#world.key(id)?.state !== "alive") return;
        this.#played.byPeople.push({ at: this.#ground.now, what: what.forGood ? "dead" : "off", of: id });
        if (what.forGood) this.#world.end(id, { person: "ada" });
        else this.#world.switchOff(id, { person: "ada" });
        return;
      }
      case "kill":
        this.#ground.killWorkers(what.ms);
        return;
      default:
        what satisfies never;
    }
  }

  /** An approval that is taken may be the word to cut now. */
  async #noteCutNow(wait: string | undefined): Promise<void> {
    const progress = (await this.#ground.query(this.#idOf("main"), "progress")) as Progress | undefined;
    const { id, asks } = progress?.waiting ?? {};
    if (progress === undefined || asks?.kind !== "approval" || asks.of !== "cut-now") return;
    if (wait === undefined || wait === id) {
      this.#played.byPeople.push({ at: this.#ground.now, what: "approve-cut", of: progress.slot });
    }
  }

  #idOf(ref: SlotRef): string {
    return `keyturn/${this.#slots[ref]}`;
  }

  /** A key is called compromised, by one of the ways there are. */
  #compromise({ key, how, slot, strategy }: Extract<Deed, { do: "compromise" }>): boolean {
    const id = this.#keyOf(key);
    if (id === undefined) return false;
    const workflowId = this.#idOf(slot);
    const running = this.#ground.find(workflowId)?.status === "open";
    const emergency = { slot: this.#slots[slot], compromisedKeyId: id, strategy };
    if (running && how === "escalate") {
      this.#ground.update(workflowId, "escalate", { compromisedKeyId: id, by: "ada" });
      return true;
    }
    if (running && how === "signal")
      return this.#ground.signal(workflowId, "escalateSignal", { compromisedKeyId: id, by: "ada" });
    if (running || how === "beside") {
      return this.#ground.start(`beside-${++this.#beside}`, "emergencyRotation", emergency) !== undefined;
    }
    return this.#ground.start(workflowId, "emergencyRotation", emergency) !== undefined;
  }

  #edit(ref: SlotRef): void {
    const name = this.#slots[ref];
    const project = ref === "staging" ? "p2" : "p1";
    const key = this.#world.makeKey({ project, name: "by ada", madeBy: { person: "ada" } });
    this.#played.byPeople.push({ at: this.#ground.now, what: "edit", of: name });
    this.#world.write(name, { keyId: key.id, by: { person: "ada" } });
  }

  #handIn(slot: string, which: Extract<Deed, { do: "hand-in" }>["key"], by: "update" | "signal"): void {
    const project = this.#world.slot(slot)?.project ?? "p1";
    const make = (changes = {}): string =>
      this.#world.makeKey({ project, name: "by pat", madeBy: { person: "pat" }, ...changes }).id;
    let id: string;
    if (which === "good") id = make();
    else if (which === "not-yet") id = make({ acceptedFrom: this.#ground.now + 5 * 60_000 });
    else if (which === "foreign") id = make({ project: "elsewhere" });
    else if (which === "held") id = this.#keyOf("of-batch") ?? "";
    else if (which === "dead") {
      id = make();
      this.#world.end(id, { person: "pat" });
    } else id = "garbage";
    const arg = { sealed: which === "garbage" ? "rubbish" : `sealed:${id}`, keyId: id, by: "pat" };
    if (by === "signal") this.#ground.signal(`keyturn/${slot}`, "submitKeySignal", arg);
    else this.#ground.update(`keyturn/${slot}`, "submitKey", arg);
  }

  // ---- people who watch -----------------------------------------------------------------------------------------

  #phase(run: Run): void {
    this.#world.note(run.workflowId, `phase ${run.phase}`);
    if (run.phase === "waiting-for-a-person") this.#askLater(run);
  }

  #askLater(run: Run): void {
    const { runId } = run;
    const times = this.#asked.get(runId) ?? 0;
    if (this.#asking.has(runId) || times > 25) return;
    this.#asked.set(runId, times + 1);
    this.#asking.add(runId);
    this.#ground.after(this.#story.people.actAfterMs, async () => {
      this.#asking.delete(runId);
      if (run.status !== "open" || run.phase !== "waiting-for-a-person") return;
      await this.#answerWait(run);
      this.#askLater(run);
    });
  }

  async #answerWait(run: Run): Promise<void> {
    const { people, seed } = this.#story;
    const progress = (await this.#ground.query(run.workflowId, "progress")) as Progress | undefined;
    const waiting = progress?.waiting;
    if (waiting?.asks === undefined || progress === undefined) return;
    this.#waits.push(waiting.id);
    const { asks } = waiting;
    this.#world.note("person", `${run.workflowId} asks for ${asks.kind}: ${waiting.for}`);
    const approve = (): Answer => this.#ground.update(run.workflowId, "approve", { by: "pat", wait: waiting.id });
    if (asks.kind === "key" && people.handsIn) {
      const times = this.#asked.get(run.runId) ?? 0;
      const bad = (["good", "garbage", "good", "dead", "not-yet", "good"] as const)[(seed + times) % 6] ?? "good";
      this.#handIn(progress.slot, bad, "update");
    } else if (asks.kind === "approval" && people.approves) {
      if (asks.of === "cut-now") {
        if (seed % 3 !== 0) return;
        this.#played.byPeople.push({ at: this.#ground.now, what: "approve-cut", of: progress.slot });
      }
      approve();
    } else if (asks.kind === "revocation" && people.revokes) {
      const lies = seed % 5 === 0;
      if (!lies) {
        this.#played.byPeople.push({ at: this.#ground.now, what: "dead", of: asks.keyId });
        this.#world.end(asks.keyId, { person: "pat" });
      }
      approve();
    }
  }

  // ---- looks at the deadline ------------------------------------------------------------------------------------

  #started(run: Run): void {
    this.#world.note(
      "temporal",
      `${run.type} ${run.workflowId} run ${run.number} starts: ${JSON.stringify(run.input)?.slice(0, 300)}`,
    );
    if (run.type === "emergencyRotation") this.#lookAtDeadline(run);
  }

  #heard(run: Run, what: string): void {
    if (what === "escalate" || what === "escalateSignal") this.#lookAtDeadline(run);
  }

  #lookAtDeadline({ workflowId }: Run): void {
    const revokeMs = durationMs("1h") + slackMs;
    this.#ground.after(revokeMs, async () => {
      const run = this.#ground.find(workflowId);
      if (run?.status !== "open") return;
      const progress = (await this.#ground.query(workflowId, "progress")) as Progress | undefined;
      this.#played.snapshots.push({ at: this.#ground.now, workflowId, runId: run.runId, progress });
    });
  }
}

function matches(when: Anchor, call: Call, edge: "scheduled" | "resolved"): boolean {
  return "activity" in when && when.activity === call.name && when.nth === call.nth && when.edge === edge;
}

function ending(run: Run): string {
  if (run.failure !== undefined) return `${run.failure.type}: ${run.failure.message}`;
  const { outcome, reason } = (run.result ?? {}) as { outcome?: string; reason?: string };
  return `${outcome ?? ""} ${reason ?? ""}`;
}
