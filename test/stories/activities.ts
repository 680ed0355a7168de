import type {
  AcceptOrder,
  Compromised,
  CompromisedOrder,
  ConfirmOrder,
  CutOrder,
  EndOrder,
  EarlierKey,
  EmergencyPlan,
  EvidenceOrder,
  Holders,
  HoldersOrder,
  IdleAnswer,
  IdleOrder,
  InspectOrder,
  Inspection,
  InstallOrder,
  IssueOrder,
  LeakedFound,
  LeakedOrder,
  OfRotation,
  PlanOrder,
  RestoreOrder,
  RevokeOrder,
  SeenKey,
  SettleOrder,
  Settled,
  StageOrder,
  SwitchOn,
  UpdateOrder,
  VerifyAtProviderOrder,
  VerifyThroughGatewayOrder,
} from "../../src/activities/contract.ts";
import {
  type Attempt,
  type AttemptContext,
  type Ground,
  PlayedCancellation,
  PlayedFailure,
  type Pause,
  WorkerDied,
} from "./ground.ts";
import { defined } from "../../src/domain/defined.ts";
import type { Fault, Story } from "./story.ts";
import type { Content, Doer, ToyKey, ToySlot, World } from "./world.ts";

/**
 * Honest activities over the toy world, at the level of orders and results: each does what the contract says of it, with
 * what it can see. Faults of the story come between it and the world.
 */

/** How long a request waits for its answer. */
const httpTimeoutMs = 20_000;

/** A fault that met an attempt, for coverage and for what may be late because of it. */
export interface Met {
  at: number;
  activity: string;
  kind: Fault["kind"];
  runId: string;
  until: number;
}

export interface Stage {
  story: Story;
  world: World;
  ground: Ground;
  met: Met[];
  /** Effects that arrived after their attempt had failed, and when they had left. */
  landedLate: { at: number; sentAt: number; activity: string; keyId?: string }[];
  /** What earlier runs of a slot named, before the story. */
  former: Map<string, { id: string; why: string }[]>;
  /** Ends that a provider accepted and did not show at once. */
  unseen: Set<string>;
  /** Calls of which an attempt may have done what it was to do, and did not say so. */
  unsure: Set<string>;
  inspections: { at: number; runId: string; slot: string; inspection: Inspection }[];
}

const iso = (ms: number): string => new Date(ms).toISOString();

class Outside {
  readonly missing: boolean;
  readonly stale: boolean;
  sent = false;
  readonly #stage: Stage;
  readonly #context: AttemptContext;
  #late: number | undefined;

  constructor(stage: Stage, context: AttemptContext, fault: Fault | undefined) {
    this.#stage = stage;
    this.#context = context;
    this.missing = fault?.kind === "missing-rows";
    this.stale = fault?.kind === "stale";
    this.#late = fault?.kind === "late" ? fault.ms : undefined;
  }

  get now(): number {
    return this.#stage.ground.now;
  }

  /** Whether this attempt comes long after the look that the workflow made before it. */
  get isRepeated(): boolean {
    return this.#context.attempt > 1;
  }

  get doer(): Doer {
    const { name, run } = this.#context;
    return { activity: name, runId: run.runId, workflowId: run.workflowId };
  }

  stopIfCancelled(): void {
    if (this.#context.cancelled()) throw new PlayedCancellation();
  }

  *pause(ms: number): Generator<Pause, void> {
    for (let left = ms; left > 0; left -= 5_000) {
      yield Math.min(left, 5_000);
      this.stopIfCancelled();
    }
  }

  *until(time: number): Generator<Pause, void> {
    while (this.now < time) {
      yield Math.min(time - this.now, Math.max(5_000, (time - this.now) / 4));
      this.stopIfCancelled();
    }
  }

  /** A request that changes something: it is not sent once the attempt is cancelled or past its time. */
  *write<Result>(effect: (sentAt: number) => Result): Generator<Pause, Result> {
    this.stopIfCancelled();
    const { startedAt, timeoutMs, name } = this.#context;
    if (timeoutMs > 0 && this.now - startedAt >= timeoutMs) throw new WorkerDied();
    this.sent = true;
    const sentAt = this.now;
    if (this.#late !== undefined) {
      const ms = this.#late;
      this.#late = undefined;
      this.#stage.ground.after(ms, () => {
        const result = effect(sentAt);
        const keyId = (result as { keyId?: string; id?: string } | undefined)?.id;
        this.#stage.landedLate.push({
          at: this.now,
          sentAt,
          activity: name,
          ...(keyId === undefined ? {} : { keyId }),
        });
      });
      yield httpTimeoutMs;
      throw new PlayedFailure("Unavailable", "no answer in 20s", { retried: true });
    }
    yield 60;
    const result = effect(sentAt);
    yield 60;
    return result;
  }
}

/** What a fault says where it refuses for good. */
const refusals: Record<string, string[]> = {
  inspectSlot: ["SlotMissing", "AdminCredentialRejected", "InvalidInput"],
  issueKey: ["KeyLimitReached", "AdminCredentialRejected"],
  acceptKey: ["InvalidInput"],
  verifyAtProvider: ["KeyRejected"],
  stageAliases: ["RequestInvalid", "SlotMissing"],
  verifyThroughGateway: ["KeyRejected", "SlotMissing"],
  installKey: ["KeyRejected", "SlotMissing", "AdminCredentialRejected"],
  revokeKey: ["AdminCredentialRejected"],
  endCompromisedKey: ["AdminCredentialRejected"],
  cutKey: ["AdminCredentialRejected"],
  settleKeys: ["AdminCredentialRejected", "ResponseUnexpected"],
  enableKey: ["KeyLimitReached"],
};

export function playing(stage: () => Stage): (context: AttemptContext, order: Record<string, unknown>) => Attempt {
  return function* play(context, order): Attempt {
    const here = stage();
    const meeting = here.story.faults.filter(
      ({ activity, nth, calls }) => activity === context.name && nth <= context.nth && context.nth < nth + calls,
    );
    const fault = meeting.find(({ attempts }) => context.attempt <= attempts);
    const out = new Outside(here, context, fault);
    const latency = 20 + ((context.nth * 37 + context.attempt * 11) % 130);
    if (fault !== undefined) {
      here.met.push({
        at: here.ground.now,
        activity: context.name,
        kind: fault.kind,
        runId: context.run.runId,
        until: here.ground.now + (fault.ms ?? 0) + 60_000,
      });
      here.world.note("fault", `${context.name} attempt ${context.attempt}: ${fault.kind}`);
    }
    // An attempt after one whose worker seemed dead begins no sooner than that one's request can have ended.
    const twice = meeting.some(({ kind }) => ["twice", "killed-before", "killed-after"].includes(kind));
    if (fault?.kind === "twice") {
      context.cutOff();
      // The next attempt is told of no end of this one.
      here.unsure.add(callOf(context));
    }
    if (twice && context.attempt > 1) yield httpTimeoutMs;
    yield latency;
    try {
      out.stopIfCancelled();
      switch (fault?.kind) {
        case "unavailable":
          throw new PlayedFailure("Unavailable", `${context.name}: no answer`, { retried: true });
        case "limited":
          throw new PlayedFailure("RateLimited", `${context.name}: too many requests`, {
            retried: true,
            nextRetryDelayMs: Math.min(fault.ms, 300_000),
          });
        case "refused": {
          const types = refusals[context.name] ?? ["ResponseUnexpected"];
          throw new PlayedFailure(types[fault.ms % types.length] ?? "ResponseUnexpected", `${context.name}: refused`);
        }
        case "killed-before":
          throw new WorkerDied();
        case "twice":
          // Cut off from Temporal, it goes on: its request is out before the next attempt's.
          yield 2_000 + (fault.ms % 20_000);
          break;
        case "slow":
          yield* out.pause(Math.min(fault.ms, 100_000));
          break;
        case "killed-after":
        case "lost-answer":
        case "late":
        case "missing-rows":
        case "stale":
        case undefined:
          break;
      }
      const body = bodies[context.name];
      if (body === undefined) throw new PlayedFailure("NotFound", `no activity is named ${context.name}`);
      const result = yield* body(here, out, order as never, context);
      if (fault?.kind === "killed-after") throw new WorkerDied();
      if (fault?.kind === "lost-answer") {
        throw new PlayedFailure("Unavailable", `${context.name}: the answer was lost`, { retried: true });
      }
      return result;
    } catch (error) {
      const details = detailsOf(here, context, { out, error });
      if (details === undefined) throw error;
      if (error instanceof PlayedCancellation) throw new PlayedCancellation(details);
      if (error instanceof PlayedFailure) {
        throw new PlayedFailure(error.type, error.message, {
          retried: !error.nonRetryable,
          details,
          ...(error.nextRetryDelayMs === undefined ? {} : { nextRetryDelayMs: error.nextRetryDelayMs }),
        });
      }
      throw error;
    }
  };
}

/** What the details of a failed attempt say of what it and those before it may have done. */
function detailsOf(
  { unsure }: Stage,
  context: AttemptContext,
  { out, error }: { out: Outside; error: unknown },
): unknown[] | undefined {
  if (context.name === "installKey") return [{ sent: out.sent || context.attempt > 1 }];
  if (context.name !== "cutKey") return undefined;
  const call = callOf(context);
  const isRefused = error instanceof PlayedFailure && error.type !== "Unavailable";
  // A worker that died told nobody how far it had come.
  if (error instanceof WorkerDied || (out.sent && !isRefused)) unsure.add(call);
  const [known] = error instanceof PlayedFailure ? (error.details ?? []) : [];
  return [{ ...(known as object | undefined), mayBeCut: unsure.has(call) }];
}

function callOf({ name, run, nth }: AttemptContext): string {
  return `${run.runId} ${name} ${nth}`;
}

type Body = (stage: Stage, out: Outside, order: never, context: AttemptContext) => Generator<Pause, unknown>;

function slotOf({ world }: Stage, name: string): ToySlot {
  const slot = world.slot(name);
  if (slot === undefined) throw new PlayedFailure("InvalidInput", `no slot ${name}`);
  return slot;
}

function contentOf(slot: ToySlot): Content {
  if (slot.content === undefined) throw new PlayedFailure("SlotMissing", `${slot.name} has no secret`);
  return slot.content;
}

/** Which slots hold a key: what a list does not show, or shows late, cannot be told. */
function holdersOf(stage: Stage, out: Outside, keyId: string, own: string): Omit<Holders, "keyId"> {
  const yes: string[] = [];
  const unknown: Holders["unknown"] = [];
  const left: Required<Holders>["left"] = [];
  const madeAt = stage.world.key(keyId)?.madeAt ?? 0;
  for (const slot of stage.world.slots.values()) {
    const edited = slot.content?.by.person !== undefined && slot.content.mark === undefined && slot.byHand;
    if (out.missing && slot.name !== own) unknown.push({ slot: slot.name, why: "a list does not show its secret" });
    else if (slot.content?.keyId === keyId) yes.push(slot.name);
    else if (edited) unknown.push({ slot: slot.name, why: "its secret was edited by hand" });
    else if (slot.content !== undefined && slot.content.modified >= madeAt) {
      // What lay there before cannot be told: it may have been this key.
      const until = slot.content.modified + slot.edgesMs;
      if (until > out.now) left.push({ slot: slot.name, until: iso(until) });
    }
  }
  return { yes, unknown, ...(left.length === 0 ? {} : { left }) };
}

/** Two reads some seconds apart must agree that the slot holds another key. */
function* requireInstalled(
  stage: Stage,
  out: Outside,
  { slot: name, rotationId }: OfRotation,
  keyId: string,
): Generator<Pause, ToySlot> {
  const slot = slotOf(stage, name);
  const fits = (): boolean => slot.content?.mark?.keyId === keyId && slot.content.mark.rotationId === rotationId;
  if (!fits() || out.stale) {
    yield 3_000;
    out.stopIfCancelled();
    if (!fits()) throw new PlayedFailure("SlotChanged", `${name} no longer holds ${keyId}`);
  }
  return slot;
}

/** What has to be true before a replaced key is switched off or revoked. */
function* requireReplaced(stage: Stage, out: Outside, order: RevokeOrder): Generator<Pause, void> {
  const slot = yield* requireInstalled(stage, out, order, order.installedKeyId);
  const { yes, unknown } = holdersOf(stage, out, order.keyId, slot.name);
  if (yes.length > 0) throw new PlayedFailure("SlotChanged", `${yes.join(", ")} holds ${order.keyId}`);
  if (unknown.length > 0) {
    throw new PlayedFailure("Unavailable", `whether a slot holds ${order.keyId} cannot be told`, { retried: true });
  }
}

function seenThrough(stage: Stage, keyId: string, through: string): ToyKey {
  const slot = slotOf(stage, through);
  const key = stage.world.key(keyId);
  if (slot.byHand)
    throw new PlayedFailure("InvalidInput", `only a person can end ${keyId}: ${through} has no admin credential`);
  if (key === undefined || key.project !== slot.project) {
    throw new PlayedFailure("KeyUnknown", `no provider knows ${keyId}`, { details: [{ keyIds: [keyId] }] });
  }
  return key;
}

function answerOfEnd(stage: Stage, out: Outside, keyId: string): { at: string; seen: boolean; note: string } {
  return { at: iso(out.now), seen: !stage.unseen.has(keyId), note: `${keyId} revoked` };
}

function earlierOf(stage: Stage, name: string, exceptRunId: string): EarlierKey[] {
  const closed = stage.ground.runs.filter(
    (run) =>
      run.workflowId === `keyturn/${name}` &&
      run.runId !== exceptRunId &&
      (run.status === "completed" || run.status === "failed"),
  );
  // A run that ended before it had looked took nothing over: what was named before it stands.
  const lookedLast = closed.findLastIndex(({ calls }) =>
    calls.some((call) => call.name === "inspectSlot" && call.outcome === "completed"),
  );
  const told = closed.slice(Math.max(0, lookedLast)).flatMap((run) => leftOverOf(run.result ?? run.failure?.details));
  if (lookedLast < 0) told.push(...(stage.former.get(name) ?? []));
  const whys = new Map(told.map(({ id, why }) => [id, why]));
  return [...whys].map(([id, why]) => ({ id, why, state: stateSeen(stage, id) }));
}

function leftOverOf(result: unknown): { id: string; why: string }[] {
  return (result as { leftOver?: { id: string; why: string }[] } | undefined)?.leftOver ?? [];
}

/** By each project, since a key that was named may be another slot's; gone from all of them is dead. */
function stateSeen({ world }: Stage, id: string): "alive" | "dead" | "unknown" {
  const slots = [...world.slots.values()];
  if (slots.some(({ byHand }) => byHand)) return "unknown";
  const key = world.key(id);
  const known = key !== undefined && slots.some(({ project }) => project === key.project);
  return known && key.state !== "dead" ? "alive" : "dead";
}

function shortId(rotationId: string): string {
  return rotationId.replaceAll("-", "").slice(0, 8);
}

function keyNameOf(slot: string, rotationId: string, ordinal: number, attempt: number): string {
  return `kt.toy.${slot.replaceAll("/", ".")}.${shortId(rotationId)}.${ordinal}-${attempt}`;
}

/** The slot whose run gave a key its name; undefined where no run did. */
function makerOf(stage: Stage, keyId: string): string | undefined {
  const { name = "" } = stage.world.key(keyId) ?? {};
  return [...stage.world.slots.keys()].find((slot) => name.startsWith(`kt.toy.${slot.replaceAll("/", ".")}.`));
}

/** The project of a slot knows a key by its id, through any slot of that project. */
function knower(
  stage: Stage,
  keyId: string,
  own: string,
): { through: string; state: "alive" | "dead" | "unknown" } | undefined {
  const key = stage.world.key(keyId);
  if (key === undefined) return undefined;
  const slots = [...stage.world.slots.values()].toSorted((a, b) => Number(b.name === own) - Number(a.name === own));
  const through = slots.find(({ project, byHand }) => project === key.project && !byHand);
  if (through !== undefined) return { through: through.name, state: key.state === "dead" ? "dead" : "alive" };
  const marked = slots.find(({ content }) => content?.keyId === keyId);
  return marked === undefined ? undefined : { through: marked.name, state: "unknown" };
}

function seenKey(stage: Stage, keyId: string, own: string, what: SeenKey["what"]): SeenKey {
  const known = knower(stage, keyId, own);
  const key = stage.world.key(keyId);
  return {
    id: keyId,
    ending: keyId.slice(-4),
    ...(key === undefined ? {} : { createdAt: iso(key.madeAt) }),
    madeBy: "somebody",
    state: known?.state ?? "unknown",
    what,
    heldBy: stage.world.holders(keyId),
    heldUnknown: [],
    through: known?.through ?? own,
  };
}

function unseal(sealed: string): string {
  const [, id] = /^(?:sealed|leaked):(.+)$/.exec(sealed) ?? [];
  if (id === undefined) throw new PlayedFailure("SealUnreadable", "no key opens this");
  return id;
}

const bodies: Record<string, Body> = {
  *readPolicy({ story }, _out, order: { slot: string }) {
    yield 5;
    const policy = story.slots[order.slot]?.policy;
    if (policy === undefined) throw new PlayedFailure("InvalidInput", `no slot ${order.slot}`);
    return policy;
  },

  *inspectSlot(stage, out, order: InspectOrder, { run }): Generator<Pause, Inspection> {
    const slot = slotOf(stage, order.slot);
    const policy = stage.story.slots[order.slot]?.policy;
    if (policy === undefined) throw new PlayedFailure("InvalidInput", `no slot ${order.slot}`);
    yield 200;
    const content = contentOf(slot);
    const unreadable = content.by.person !== undefined && stage.story.edits.unreadable && content.mark === undefined;
    if (unreadable && order.heldKeyId === undefined) {
      throw new PlayedFailure("InvalidInput", `what ${order.slot} holds cannot be told: say it with heldKeyId`);
    }
    if (order.heldKeyId !== undefined && order.heldKeyId !== content.keyId) {
      throw new PlayedFailure("InvalidInput", `${order.slot} does not hold ${order.heldKeyId}`);
    }
    const held = stage.world.key(content.keyId);
    const others = holdersOf(stage, out, content.keyId, slot.name);
    const due = order.onlyIfDue !== true || stage.story.due;
    const inspection: Inspection = {
      policy,
      due: { due, reason: due ? "asked for" : "the key is young" },
      held: {
        id: content.keyId,
        how: content.mark === undefined ? (order.heldKeyId === undefined ? "preview" : "operator") : "mark",
        since: iso(held?.madeAt ?? content.modified),
      },
      sharedWith: others.yes.filter((name) => name !== slot.name),
      earlier: earlierOf(stage, slot.name, run.runId),
      unknown: others.unknown.map(({ slot: name }) => `whether ${name} holds ${content.keyId}`),
      secretModified: iso(content.modified),
      staged: stage.story.staged,
      canIssue: slot.canIssue,
      canDisable: slot.canDisable,
      canPurge: stage.story.canPurge,
      ...(slot.byHand
        ? {
            byHand: {
              missing: "ADMIN_KEY is not set",
              oldKey: content.keyId,
              where: "the console",
              unknown: ["keys of earlier rotations"],
            },
          }
        : {}),
      ...(slot.canIssue
        ? {}
        : { handIn: { where: "the console", keyName: "kt.toy", keyType: "a key", belongsTo: slot.project } }),
      warnings: [],
    };
    stage.inspections.push({ at: out.now, runId: run.runId, slot: slot.name, inspection });
    return inspection;
  },

  *issueKey(stage, out, order: IssueOrder, { attempt }) {
    const { world, story } = stage;
    const slot = slotOf(stage, order.slot);
    yield 150;
    out.stopIfCancelled();
    const leftBehind = out.missing
      ? []
      : [...world.keys.values()]
          .filter(({ id }) => world.key(id)?.state !== "dead")
          .filter(({ name }) =>
            Array.from({ length: attempt - 1 }, (_, i) =>
              keyNameOf(slot.name, order.rotationId, order.ordinal, i + 1),
            ).includes(name),
          )
          .map(({ id }) => id);
    const key = yield* out.write(() =>
      world.makeKey({
        project: slot.project,
        name: keyNameOf(slot.name, order.rotationId, order.ordinal, attempt),
        madeBy: { ...out.doer, rotationId: order.rotationId, ordinal: order.ordinal, attempt },
        acceptedFrom: out.now + story.settlesMs,
        bad: story.badKeys.includes(order.ordinal),
        ...(slot.canDisable ? {} : { expiresAt: out.now + durationMs(order.unprovenLife) }),
      }),
    );
    return { id: key.id, fingerprint: "0123456789abcdef", sealed: `sealed:${key.id}`, leftBehind };
  },

  *acceptKey(stage, out, order: AcceptOrder) {
    const { world } = stage;
    const slot = slotOf(stage, order.slot);
    yield 100;
    const id = unseal(order.sealed);
    const key = world.key(id);
    if (key === undefined || key.project !== slot.project) {
      throw new PlayedFailure("InvalidInput", "this is no key of the slot's project");
    }
    const heldBy = world.holders(id);
    const refuse = (why: string): never => {
      throw new PlayedFailure("InvalidInput", why, { details: [{ handedIn: { id, heldBy } }] });
    };
    if (key.madeAt < Date.parse(order.openedAt) - 60_000) refuse(`${id} is older than the request`);
    if (key.state !== "alive") refuse(`${id} is not alive`);
    if (heldBy.length > 0) refuse(`${heldBy.join(", ")} holds ${id}`);
    yield* out.pause(200);
    return { id, fingerprint: "0123456789abcdef", sealed: order.sealed };
  },

  *verifyAtProvider({ world }, out, order: VerifyAtProviderOrder) {
    const id = unseal(order.key.sealed);
    const until = Date.parse(order.settleUntil);
    yield 200;
    while (!world.works(id)) {
      if (out.now >= until || world.key(id)?.state !== "alive") {
        throw new PlayedFailure("KeyRejected", `its provider refuses ${id}`);
      }
      yield* out.until(Math.min(until, Math.max(out.now + 5_000, world.key(id)?.acceptedFrom ?? until)));
    }
    yield* out.pause(durationMs(order.rule.span));
    if (!world.works(id)) throw new PlayedFailure("KeyRejected", `its provider refuses ${id}`);
    return { probes: 0, warnings: [] };
  },

  *stageAliases(stage, out, order: StageOrder) {
    const slot = slotOf(stage, order.slot);
    yield 100;
    yield* out.write(() => {
      const prev = slot.content?.mark?.rotationId === order.rotationId ? undefined : slot.content?.keyId;
      const known = slot.aliases.get(shortId(order.rotationId));
      slot.aliases.set(shortId(order.rotationId), {
        new: order.key.id,
        prev: known?.prev ?? prev,
        madeBy: out.doer,
      });
    });
    return {};
  },

  *seePrevAnswer(stage, _out, order: OfRotation) {
    const prev = slotOf(stage, order.slot).aliases.get(shortId(order.rotationId))?.prev;
    yield 300;
    const answered = prev !== undefined && stage.world.works(prev);
    return { answered, note: answered ? "prev answered" : "prev did not answer" };
  },

  *verifyThroughGateway(stage, out, order: VerifyThroughGatewayOrder) {
    const slot = slotOf(stage, order.slot);
    const until = Date.parse(order.until);
    if (order.alias === "real" && order.installedKeyId !== undefined) {
      yield* requireInstalled(stage, out, order, order.installedKeyId);
    }
    const served = (): string | undefined => {
      if (order.alias === "real") return slot.content?.keyId;
      const aliases = slot.aliases.get(shortId(order.rotationId));
      return order.alias === "new" ? aliases?.new : aliases?.prev;
    };
    yield 200;
    const stubborn = order.alias === "real" && stage.story.gatewayRefusesReal > 0;
    if (stubborn) stage.story.gatewayRefusesReal--;
    while (stubborn || !stage.world.works(served() ?? "")) {
      if (out.now >= until) throw new PlayedFailure("KeyRejected", `${order.alias} answers with a refused key`);
      yield* out.until(Math.min(until, out.now + 10_000));
    }
    yield* out.pause(order.goodAnswers * 200);
    return { at: iso(out.now), probes: order.goodAnswers, warnings: [] };
  },

  *installKey(stage, out, order: InstallOrder) {
    const { world } = stage;
    const slot = slotOf(stage, order.slot);
    const id = unseal(order.key.sealed);
    yield 150;
    const mine = (): boolean => slot.content?.mark?.rotationId === order.rotationId && slot.content.mark.keyId === id;
    const look = (): Content => {
      const content = contentOf(slot);
      const ours = content.mark?.rotationId === order.rotationId;
      if (!ours && iso(content.modified) !== order.secretModified) {
        throw new PlayedFailure("SlotChanged", `${slot.name} was changed by somebody else`);
      }
      return content;
    };
    const content = look();
    if (mine() && order.again !== true) return { at: iso(content.modified), expiresAt: iso(out.now + 3.15e10) };
    const key = world.key(id);
    if (key?.state !== "alive") throw new PlayedFailure("KeyRejected", `${id} is not alive`);
    yield* out.pause(100);
    const { expiresAt } = key;
    if (expiresAt !== undefined) key.expiresAt = out.now + 365 * 86_400_000;
    look();
    yield* out.write((sentAt) =>
      world.write(slot.name, { keyId: id, mark: { keyId: id, rotationId: order.rotationId }, by: out.doer }, sentAt),
    );
    if (!mine()) throw new PlayedFailure("SlotChanged", `${slot.name} was changed by somebody else`);
    return { at: iso(slot.content?.modified ?? out.now) };
  },

  *restoreOldValue(stage, out, order: RestoreOrder) {
    const slot = yield* requireInstalled(stage, out, order, order.installedKeyId);
    const prev = slot.aliases.get(shortId(order.rotationId))?.prev;
    if (prev === undefined) throw new PlayedFailure("SlotMissing", "prev is not there");
    yield* requireInstalled(stage, out, order, order.installedKeyId);
    yield* out.write((sentAt) => stage.world.write(slot.name, { keyId: prev, by: out.doer }, sentAt));
  },

  *checkSaved(stage, out, order: OfRotation & { installedKeyId: string }) {
    yield* requireInstalled(stage, out, order, order.installedKeyId);
    return { note: `saved: the mark names ${order.installedKeyId}` };
  },

  *purgeCache() {
    yield 100;
  },

  *removeAliases(stage, out, order: OfRotation) {
    const slot = slotOf(stage, order.slot);
    yield* out.write(() => slot.aliases.delete(shortId(order.rotationId)));
  },

  *awaitPropagation() {
    yield 500;
    return { note: "active" };
  },

  *confirmRevoked(stage, out, order: ConfirmOrder) {
    const until = Date.parse(order.until);
    yield 200;
    const key = stage.world.key(order.keyId);
    if (!order.throughPrev && order.leaked === undefined) return { note: "nothing can be asked with the key" };
    while (key === undefined || key.state === "alive") {
      if (out.now >= until) return { note: "it still answered" };
      yield* out.until(Math.min(until, out.now + 15_000));
    }
    const deadAt = iso(out.now);
    yield* out.pause(durationMs(order.rule.span));
    return key.state === "dead" || key.state === "off"
      ? { deadAt, note: "refusals in a row" }
      : { note: "it answered" };
  },

  *checkIdle(stage, out, order: IdleOrder): Generator<Pause, IdleAnswer> {
    const { idle } = stage.story;
    const policy = stage.story.slots[order.slot]?.policy;
    const quietMs = durationMs(policy?.quietPeriod ?? "15m");
    const lagMs = durationMs(policy?.usageLag ?? "15m");
    yield 300;
    const since = Date.parse(order.since);
    const horizon = out.now - lagMs;
    const usedUntil = Math.max(Date.parse(order.installedAt), since - 60_000) + idle.clientsLingerMs;
    const lastUsed = Math.min(usedUntil, horizon);
    const shown = {
      newKeyRequests: idle.newKeyNeverReported ? 0 : 100,
      ...(idle.newKeyNeverReported ? { newKeyNeverReported: true as const } : {}),
      clientsBefore: idle.clientsBefore,
      ...(idle.unknownSurfaces ? { unknownSurfaces: ["vector_stores"] } : {}),
    };
    if (idle.unknown) return { kind: "unknown", note: "no use is reported by key", ...shown };
    const earliest = Math.max(lastUsed, since) + quietMs;
    if (horizon < since + quietMs) {
      return {
        kind: "too early",
        note: "the data has not come that far",
        probeAt: iso(since + quietMs),
        askAt: iso(since + quietMs + lagMs + 60_000),
        ...shown,
      };
    }
    if (horizon >= usedUntil + quietMs) {
      return { kind: "idle", note: "no use seen", lastUsed: iso(usedUntil), horizon: iso(horizon), ...shown };
    }
    return {
      kind: "used",
      note: `used at ${iso(lastUsed)}`,
      lastUsed: iso(lastUsed),
      horizon: iso(horizon),
      probeAt: iso(Math.max(earliest, out.now + 60_000)),
      askAt: iso(Math.max(earliest, out.now + 60_000) + lagMs + 60_000),
      ...shown,
    };
  },

  *revokeKey(stage, out, order: RevokeOrder) {
    yield* requireReplaced(stage, out, order);
    seenThrough(stage, order.keyId, order.slot);
    return yield* out.write(() => {
      stage.world.end(order.keyId, out.doer);
      return answerOfEnd(stage, out, order.keyId);
    });
  },

  *endCompromisedKey(stage, out, order: EndOrder) {
    yield 100;
    const key = seenThrough(stage, order.keyId, order.through);
    if (out.isRepeated && out.now < Date.parse(order.unheldUntil ?? "") && key.state !== "dead") {
      const { yes, unknown } = holdersOf(stage, out, order.keyId, order.slot);
      if (yes.length > 0) throw new PlayedFailure("SlotChanged", `${yes.join(", ")} holds ${order.keyId}`);
      if (unknown.length > 0) throw new PlayedFailure("NotYetPropagated", `who holds ${order.keyId} cannot be told`);
    }
    return yield* out.write(() => {
      stage.world.end(order.keyId, out.doer);
      return answerOfEnd(stage, out, order.keyId);
    });
  },

  *cutKey(stage, out, order: CutOrder) {
    yield 100;
    const key = seenThrough(stage, order.keyId, order.through);
    if (key.state === "dead") return { at: iso(key.deadAt ?? out.now), how: "dead already" };
    const { canDisable } = slotOf(stage, order.through);
    return yield* out.write(() => {
      if (canDisable) stage.world.switchOff(order.keyId, out.doer);
      else stage.world.end(order.keyId, out.doer);
      return { at: iso(out.now), how: canDisable ? "disabled" : "revoked" };
    });
  },

  *disableKey(stage, out, order: RevokeOrder) {
    yield* requireReplaced(stage, out, order);
    const key = seenThrough(stage, order.keyId, order.slot);
    if (key.state !== "alive") return { at: iso(out.now), wasOff: true };
    return yield* out.write(() => {
      stage.world.switchOff(order.keyId, out.doer);
      return { at: iso(out.now), wasOff: false };
    });
  },

  *enableKey(stage, out, order: SwitchOn) {
    seenThrough(stage, order.keyId, order.slot);
    yield* out.write(() => stage.world.switchOn(order.keyId, out.doer));
  },

  *lookBeforeRevoking(stage, out, order: RevokeOrder) {
    yield* requireReplaced(stage, out, order);
  },

  *settleKeys(stage, out, order: SettleOrder): Generator<Pause, Settled> {
    const { world } = stage;
    const slot = slotOf(stage, order.slot);
    yield 300;
    out.stopIfCancelled();
    if (slot.byHand && slot.canIssue && order.ordinals.length > 0) {
      throw new PlayedFailure("Unavailable", "no admin credential here", { retried: true });
    }
    const keys: Settled["keys"] = [];
    const warnings: string[] = [];
    const named = new RegExp(
      `^${keyNameOf(slot.name, order.rotationId, 0, 0).replaceAll(".", "\\.").replace(/0-0$/, "(\\d+)-\\d+")}$`,
    );
    const byName = [...world.keys.values()].filter(({ name }) => {
      const ordinal = named.exec(name)?.[1];
      return ordinal !== undefined && order.ordinals.includes(Number(ordinal));
    });
    const found = (slot.byHand || out.missing ? [] : byName)
      .filter(({ id, state }) => state !== "dead" && !order.keys.some((key) => key.id === id))
      .filter(({ id }) => order.known?.includes(id) !== true)
      .map(({ id }) => id);
    if (out.missing && byName.length > 0) {
      throw new PlayedFailure("Unavailable", "the list is not whole", { retried: true });
    }
    if (found.length > 0) return { keys, found, warnings };
    let ends = 0;
    const notHeld: string[] = [];
    for (const { id, role, given } of order.keys) {
      yield 50;
      const key = world.key(id);
      const { yes, unknown } = holdersOf(stage, out, id, slot.name);
      if (given && ![...yes, ...unknown.map((one) => one.slot)].includes(slot.name)) notHeld.push(id);
      const known = !slot.byHand && key !== undefined && key.project === slot.project;
      const name = (why: string): void => void keys.push({ id, role, fate: { fate: "named", why } });
      const dead = known && key.state === "dead";
      const [holder] = yes;
      if (dead) keys.push({ id, role, fate: { fate: "ended", at: iso(key.deadAt ?? out.now), seen: true } });
      else if (holder !== undefined && role !== "compromised")
        keys.push({ id, role, fate: { fate: "held", by: holder } });
      else if (role !== "new") name(`${id} stays alive: end it by hand when nobody uses it`);
      else if (given) name(`${id} may be in use: revoke it when idle`);
      else if (unknown.length > 0) name("whether a slot holds it cannot be told");
      else if (!known) name("nobody can ask its provider");
      else if (++ends > 10) name("more than ten keys to end: the next run ends it");
      else {
        yield* out.write(() => world.end(id, out.doer));
        keys.push({ id, role, fate: { fate: "ended", at: iso(out.now), seen: true } });
      }
    }
    return { keys, warnings, notHeld };
  },

  *revokeOrphan() {
    yield 10;
    return { kind: "ended" };
  },
  *findOrphans() {
    yield 10;
    return { installation: "toy", orphans: [], spared: [], blocked: [], unknown: [] };
  },
  *removeOrphanAlias() {
    yield 10;
    return { kind: "ended" };
  },

  *lookAtHolders(stage, out, order: HoldersOrder) {
    yield 300;
    return order.keyIds.map((keyId) => ({ keyId, ...holdersOf(stage, out, keyId, order.slot) }));
  },

  *findCompromised(stage, out, order: CompromisedOrder): Generator<Pause, Compromised[]> {
    yield 200;
    const ids = [...order.keyIds, ...(order.leaked === undefined ? [] : [unseal(order.leaked)])];
    const known = ids.map((id) => ({ id, known: knower(stage, id, order.slot) }));
    const strange = known.filter((key) => key.known === undefined).map(({ id }) => id);
    if (strange.length > 0 || ids.length === 0) {
      throw new PlayedFailure("KeyUnknown", `nobody knows ${strange.join(", ")}`, { details: [{ keyIds: strange }] });
    }
    return known.map(({ id, known: by }) => {
      const holders: Omit<Holders, "keyId"> = order.providerOnly
        ? { yes: [], unknown: [] }
        : holdersOf(stage, out, id, order.slot);
      const madeAt = stage.world.key(id)?.madeAt;
      return {
        id,
        how: order.keyIds.includes(id) ? ("id" as const) : ("fingerprint" as const),
        state: by?.state ?? "unknown",
        through: by?.through ?? order.slot,
        ending: id.slice(-4),
        ...(madeAt === undefined ? {} : { createdAt: iso(madeAt) }),
        heldBy: holders.yes,
        unknown: holders.unknown,
        ...defined({ left: holders.left, madeFor: makerOf(stage, id) }),
      };
    });
  },

  *lookForErrors({ story }) {
    yield 200;
    const newErrors = story.soakErrors > 0 ? 1 : 0;
    if (story.soakErrors > 0) story.soakErrors--;
    return { newErrors, note: `${newErrors} refused requests since, 0 before` };
  },

  *findLastRefusal() {
    yield 100;
    return {};
  },

  *gatherEvidence(_stage, _out, order: EvidenceOrder) {
    yield 500;
    return {
      from: order.from,
      to: order.to,
      providerRequests: 5,
      providerTokens: 50,
      gatewayRequests: 5,
      strangers: [],
      strangeModels: [],
      notes: [],
    };
  },

  *planEmergency(stage, _out, order: PlanOrder, { run }): Generator<Pause, EmergencyPlan> {
    const slot = slotOf(stage, order.slot);
    yield 300;
    const held = slot.content?.keyId;
    const named = [...(order.keyIds ?? []), ...(order.leaked === undefined ? [] : [unseal(order.leaked)])];
    const strange = named.filter((id) => knower(stage, id, slot.name) === undefined);
    if (strange.length > 0) {
      throw new PlayedFailure("KeyUnknown", `nobody knows ${strange.join(", ")}`, { details: [{ keyIds: strange }] });
    }
    const plan: Omit<EmergencyPlan, "keys"> = {
      slot: slot.name,
      account: "toy",
      gateway: "gw",
      ...(held === undefined ? {} : { held: seenKey(stage, held, slot.name, "held") }),
      ...(slot.byHand ? { byHand: "ADMIN_KEY" } : {}),
      unknown: [],
      warnings: [],
    };
    if (named.length > 0) {
      return { ...plan, keys: named.map((id) => seenKey(stage, id, slot.name, id === held ? "held" : "unknown")) };
    }
    if (held === undefined) throw new PlayedFailure("SlotMissing", `${slot.name} has no secret`);
    const former = new Set([
      ...earlierOf(stage, slot.name, order.ownRunId ?? run.runId).map(({ id }) => id),
      ...slot.past.map(({ content }) => content.keyId),
    ]);
    const live = [...former].filter((id) => id !== held && stage.world.key(id)?.state === "alive");
    const young = order.since !== undefined && (stage.world.key(held)?.madeAt ?? 0) > Date.parse(order.since);
    if (live.length > 0 || young) {
      const candidates = [held, ...live].map((id) => seenKey(stage, id, slot.name, id === held ? "held" : "left over"));
      return { ...plan, keys: [], ambiguous: { why: "a former key of the slot is alive", candidates } };
    }
    return { ...plan, keys: [seenKey(stage, held, slot.name, "held")] };
  },

  *listSlotKeys(_stage, _out, order: { slot: string }) {
    yield 100;
    return { slot: order.slot, keys: [], unknown: [] };
  },

  *findLeaked(stage, _out, order: LeakedOrder): Generator<Pause, LeakedFound> {
    yield 300;
    const id = unseal(order.leaked);
    const known = knower(stage, id, "");
    if (known === undefined) throw new PlayedFailure("KeyUnknown", "nobody knows this value");
    const holders = stage.world.holders(id);
    const held = holders.length > 0;
    return {
      matches: [{ keyId: id, how: "fingerprint", slots: held ? holders : [known.through], held }],
      unknown: [],
    };
  },

  *findRun(stage, _out, order: { workflowId: string }) {
    yield 50;
    const run = stage.ground.find(order.workflowId);
    if (run === undefined) throw new PlayedFailure("SlotMissing", `no run of ${order.workflowId}`);
    // It answers for what it made and what it replaced.
    const made = [...stage.world.keys.values()].filter(({ madeBy }) => madeBy.runId === run.runId);
    const replaced = stage.world.writes.filter(({ by }) => by.runId === run.runId).map(({ before }) => before?.keyId);
    const ids = [...made.map(({ id }) => id), ...replaced].filter((id) => id !== undefined);
    const progress = { keys: ids.map((id) => ({ id, fate: "open" })) };
    return { workflowId: run.workflowId, runId: run.runId, progress };
  },

  *updateRun(stage, out, order: UpdateOrder) {
    yield 50;
    out.stopIfCancelled();
    const gate = stage.ground.update(order.workflowId, order.update, order.arg, order.runId);
    yield gate;
    const { value, failure } = gate.value ?? {};
    if (failure === undefined) return value;
    throw new PlayedFailure(failure.type === "NotFound" ? "SlotMissing" : failure.type, failure.message);
  },
};

/** Reads a duration of the policy: number and unit. */
export function durationMs(text: string): number {
  const [, amount = "0", unit = "ms"] = /^([\d.]+)(ms|s|m|h|d)$/.exec(text) ?? [];
  return Number(amount) * { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as "ms"];
}

/** Names of all activities that are played. */
export const activityNames = Object.keys(bodies);
