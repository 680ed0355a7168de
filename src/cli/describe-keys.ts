import type { SeenKey, SlotKeys } from "../activities/contract.ts";
import { readableMs } from "../domain/duration.ts";
import type { Candidate } from "./failures.ts";
import { table } from "./output.ts";

/** A key in words by which an operator knows it: its ending, age, who made it, whether it lives and where it is held. */
export function describeKey(key: Candidate, now = Date.now()): string {
  const { ending, createdAt, madeBy, state, name, heldBy = [], heldUnknown = [], leftOver, what } = key;
  const age = createdAt === undefined ? "age unknown" : `${readableMs(Math.max(0, now - Date.parse(createdAt)))} old`;
  const parts = [
    ending === undefined ? "ending unknown" : `ends in ${ending}`,
    age,
    madeBy === undefined || madeBy === "unknown" ? "made by somebody unknown" : `made by ${madeBy}`,
    ...(name === undefined ? [] : [`named ${name}`]),
    ...(state === undefined || state === "alive"
      ? []
      : [state === "dead" ? "DEAD already" : "whether it lives is unknown"]),
    ...(what === undefined ? [] : [heldWords(heldBy, heldUnknown)]),
    ...(leftOver === undefined ? [] : [`left over: ${leftOver}`]),
  ];
  return parts.join(", ");
}

function heldWords(heldBy: string[], heldUnknown: string[]): string {
  const doubt = heldUnknown.length === 0 ? "" : `, perhaps by ${heldUnknown.join(", ")}`;
  return heldBy.length === 0
    ? `held by ${heldUnknown.length === 0 ? "no slot" : `no slot for certain${doubt}`}`
    : `held by ${heldBy.join(", ")}${doubt}`;
}

/** The live keys of a slot's project, one a row. */
export function describeSlotKeys({ slot, keys, unknown }: SlotKeys): string {
  const rows = keys
    .toSorted((a, b) => rank(a) - rank(b))
    .map((key): [string, string] => [what(key), `${key.id}: ${describeKey(key)}`]);
  const lines = [
    `${slot}: ${keys.length === 0 ? "no live key is seen" : `${keys.length} ${keys.length === 1 ? "key lives" : "keys live"}, as far as is seen`}`,
    table(rows),
    table(unknown.map((one): [string, string] => ["unknown", one])),
  ];
  return lines.filter((line) => line !== "").join("\n");
}

const order: SeenKey["what"][] = ["held", "left over", "ours", "unknown"];
const rank = ({ what: kind }: SeenKey): number => order.indexOf(kind);

function what({ what: kind, heldBy }: SeenKey): string {
  if (kind === "unknown") return heldBy.length > 0 ? "another slot's" : "not ours";
  return kind === "ours" ? "ours" : kind;
}
