import { defined } from "./defined.ts";
import type { RotationResult } from "./rotation.ts";

/** From when until when requests could fail in a slot, RFC 3339; without `slot`, in each that holds the key. */
export interface Outage {
  slot?: string;
  from: string;
  until?: string;
}

type Span = Pick<Outage, "from" | "until">;

/** When requests could fail, since a key was cut that a slot served: each slot by itself, since each moves by itself. */
export class Outages {
  #all: Outage[];

  constructor(carried: Outage[] = []) {
    this.#all = carried.map((outage) => ({ ...outage }));
  }

  /** Requests fail in these slots from then on; undefined if nobody could look in which. */
  open(slots: string[] | undefined, at: string): void {
    for (const slot of slots ?? [undefined]) {
      if (this.isOpen(slot)) continue;
      const { until = at } = this.lastOf(slot) ?? {};
      this.#all.push({ ...defined({ slot }), from: later(at, until) });
    }
  }

  /** Requests failed in these slots; what is known of that time already stays. */
  was(slots: string[] | undefined, { from, until = from }: Span): void {
    for (const slot of slots ?? [undefined]) {
      const last = slot === undefined ? this.#all.at(-1) : this.lastOf(slot);
      if (last !== undefined && (last.until ?? from) >= from) continue;
      this.#all.push({ ...defined({ slot }), from, until: later(from, until) });
    }
  }

  /** It was over in these slots by then. */
  close(slots: (string | undefined)[], at: string): void {
    for (const outage of this.#all) {
      if (slots.includes(outage.slot)) outage.until ??= later(outage.from, at);
    }
  }

  /** Nobody could look before: these are the slots. */
  locate(slots: string[]): void {
    const untold = this.#all.filter(({ slot }) => slot === undefined);
    this.#all = this.#all.filter(({ slot }) => slot !== undefined);
    for (const { from, until } of untold) {
      for (const slot of slots) {
        const known = this.#all.find((outage) => outage.slot === slot && outage.until === undefined);
        if (known === undefined) this.#all.push({ slot, from, ...defined({ until }) });
        else if (from < known.from) known.from = from;
      }
    }
  }

  /** Whether it is not known of one in which slots it was. */
  get isUntold(): boolean {
    return this.#all.some(({ slot }) => slot === undefined);
  }

  get openSlots(): (string | undefined)[] {
    return this.#all.filter(({ until }) => until === undefined).map(({ slot }) => slot);
  }

  isOpen(slot: string | undefined): boolean {
    return this.openSlots.includes(slot);
  }

  lastOf(slot: string | undefined): Outage | undefined {
    return this.#all.findLast((outage) => outage.slot === slot);
  }

  /** As one: where requests still fail, or where and when they did. */
  get shown(): RotationResult["outage"] {
    const open = this.#all.filter(({ until }) => until === undefined);
    return asOne(open.length > 0 ? open : this.#all);
  }

  /** One of each time that differs. */
  each(): NonNullable<RotationResult["outage"]>[] {
    const timeOf = ({ from, until }: Outage): string => `${from} ${until}`;
    const times = new Set(this.#all.map(timeOf));
    return [...times].flatMap((time) => asOne(this.#all.filter((outage) => timeOf(outage) === time)) ?? []);
  }

  carry(): Outage[] {
    return this.#all.map((outage) => ({ ...outage }));
  }
}

function asOne(outages: Outage[]): RotationResult["outage"] {
  const [first] = outages;
  if (first === undefined) return undefined;
  const from = outages.reduce((least, outage) => (outage.from < least ? outage.from : least), first.from);
  const ends = outages.flatMap(({ until }) => until ?? []);
  const slots = outages.flatMap(({ slot }) => slot ?? []);
  return {
    from,
    ...(ends.length < outages.length ? {} : { until: ends.reduce(later) }),
    ...(slots.length < outages.length ? {} : { slots: [...new Set(slots)] }),
  };
}

function later(one: string, other: string): string {
  return one > other ? one : other;
}
