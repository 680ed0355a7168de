/**
 * The toy world of the stories: providers with keys, slots with secrets, people. It shares no code with keyturn, and knows
 * the truth of which the activities tell the workflows only what they could have seen. All times are milliseconds.
 */

/** Who did something: an attempt of an activity, a person, or nobody (an expiry). */
export interface Doer {
  activity?: string;
  runId?: string;
  workflowId?: string;
  person?: string;
}

export interface ToyKey {
  id: string;
  /** The project at the provider: through another project's slot it is not seen. */
  project: string;
  name: string;
  state: "alive" | "off" | "dead";
  madeAt: number;
  madeBy: Doer & { rotationId?: string; ordinal?: number; attempt?: number };
  /** Before it, the provider refuses the key though it is good. */
  acceptedFrom: number;
  /** The provider refuses it for ever. */
  bad: boolean;
  expiresAt?: number;
  /** Clients were ever given it by a slot. */
  given: boolean;
  offAt?: number;
  deadAt?: number;
}

export interface Content {
  keyId: string;
  mark?: { keyId: string; rotationId: string };
  modified: number;
  by: Doer;
}

export interface ToySlot {
  name: string;
  project: string;
  canIssue: boolean;
  canDisable: boolean;
  byHand: boolean;
  /** How long edges and caches may serve a value after it was replaced. */
  edgesMs: number;
  content: Content | undefined;
  /** Each content and when it was there. */
  past: { content: Content; until: number; by: Doer }[];
  aliases: Map<string, { new: string; prev: string | undefined; madeBy: Doer }>;
}

/** An end or a switch of a key, as it happened at the provider. */
export interface KeyEvent {
  at: number;
  keyId: string;
  what: "made" | "off" | "on" | "dead";
  by: Doer;
  /** Slots that served the key at that moment, and those whose secret held it. */
  serving: string[];
  holding: string[];
}

export interface WriteEvent {
  at: number;
  /** When the request left. */
  sentAt: number;
  slot: string;
  before: Content | undefined;
  after: Content;
  by: Doer;
}

export interface Note {
  at: number;
  who: string;
  what: string;
}

export class World {
  readonly keys = new Map<string, ToyKey>();
  readonly slots = new Map<string, ToySlot>();
  readonly keyEvents: KeyEvent[] = [];
  readonly writes: WriteEvent[] = [];
  readonly account: Note[] = [];
  readonly #now: () => number;
  #made = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  note(who: string, what: string): void {
    this.account.push({ at: this.#now(), who, what });
  }

  // ---- keys -----------------------------------------------------------------------------------------------------

  makeKey(key: Pick<ToyKey, "project" | "name" | "madeBy"> & Partial<ToyKey>): ToyKey {
    const made: ToyKey = {
      id: `key_${++this.#made}`,
      state: "alive",
      madeAt: this.#now(),
      acceptedFrom: this.#now(),
      bad: false,
      given: false,
      ...key,
    };
    this.keys.set(made.id, made);
    this.keyEvents.push({ at: this.#now(), keyId: made.id, what: "made", by: made.madeBy, serving: [], holding: [] });
    return made;
  }

  key(id: string): ToyKey | undefined {
    const key = this.keys.get(id);
    if (key?.expiresAt !== undefined && key.expiresAt <= this.#now() && key.state !== "dead") {
      this.#turn(key, "dead", { person: "its expiry" }, key.expiresAt);
    }
    return key;
  }

  works(id: string): boolean {
    const key = this.key(id);
    return key?.state === "alive" && !key.bad && key.acceptedFrom <= this.#now();
  }

  end(id: string, by: Doer): void {
    const key = this.key(id);
    if (key !== undefined && key.state !== "dead") this.#turn(key, "dead", by);
  }

  switchOff(id: string, by: Doer): void {
    const key = this.key(id);
    if (key?.state === "alive") this.#turn(key, "off", by);
  }

  switchOn(id: string, by: Doer): void {
    const key = this.key(id);
    if (key?.state === "off") this.#turn(key, "alive", by);
  }

  #turn(key: ToyKey, state: ToyKey["state"], by: Doer, at = this.#now()): void {
    key.state = state;
    if (state === "dead") key.deadAt = at;
    if (state === "off") key.offAt = at;
    if (state === "alive") delete key.offAt;
    const what = state === "alive" ? "on" : state;
    this.keyEvents.push({
      at,
      keyId: key.id,
      what,
      by,
      serving: this.servers(key.id),
      holding: this.holders(key.id),
    });
    this.note(by.person ?? `${by.activity}`, `${key.id} is ${what === "on" ? "on again" : what}`);
  }

  // ---- slots ----------------------------------------------------------------------------------------------------

  addSlot(slot: Omit<ToySlot, "past" | "aliases" | "content">, content: Content | undefined): ToySlot {
    const added: ToySlot = { ...slot, content, past: [], aliases: new Map() };
    this.slots.set(slot.name, added);
    const key = content === undefined ? undefined : this.keys.get(content.keyId);
    if (key !== undefined) key.given = true;
    return added;
  }

  slot(name: string): ToySlot | undefined {
    return this.slots.get(name);
  }

  write(name: string, content: Omit<Content, "modified">, sentAt: number = this.#now()): void {
    const slot = this.slots.get(name);
    if (slot === undefined) return;
    const after: Content = { ...content, modified: this.#now() };
    const key = this.keys.get(content.keyId);
    if (key !== undefined) key.given = true;
    this.writes.push({ at: this.#now(), sentAt, slot: name, before: slot.content, after, by: content.by });
    if (slot.content !== undefined) slot.past.push({ content: slot.content, until: this.#now(), by: content.by });
    slot.content = after;
    this.note(content.by.person ?? `${content.by.activity}`, `${name} holds ${content.keyId} now`);
  }

  /** Slots whose secret holds the key now. */
  holders(keyId: string): string[] {
    return [...this.slots.values()].filter(({ content }) => content?.keyId === keyId).map(({ name }) => name);
  }

  /**
   * Slots through which clients may be served by the key now: by the secret, or by edges that have the old value. What a
   * person replaced, that person answers for.
   */
  servers(keyId: string, at: number = this.#now()): string[] {
    return [...this.slots.values()]
      .filter(
        ({ content, past, edgesMs }) =>
          content?.keyId === keyId ||
          past.some((was) => was.content.keyId === keyId && was.until + edgesMs > at && was.by.person === undefined),
      )
      .map(({ name }) => name);
  }

  /** Whether the slot's secret held the key at any moment of the span. */
  heldWithin(name: string, keyId: string, from: number, to: number): boolean {
    const slot = this.slots.get(name);
    if (slot === undefined) return false;
    const spans = [
      ...slot.past.map(({ content, until }) => ({ content, from: content.modified, until })),
      ...(slot.content === undefined
        ? []
        : [{ content: slot.content, from: slot.content.modified, until: Number.POSITIVE_INFINITY }]),
    ];
    return spans.some((span) => span.content.keyId === keyId && span.from <= to && span.until >= from);
  }

  /** What the key was at that moment. */
  stateAt(keyId: string, at: number): "unmade" | ToyKey["state"] {
    let state: "unmade" | ToyKey["state"] = "unmade";
    for (const event of this.keyEvents) {
      if (event.keyId !== keyId || event.at > at) continue;
      state = event.what === "made" || event.what === "on" ? "alive" : event.what === "off" ? "off" : "dead";
    }
    return state;
  }
}
