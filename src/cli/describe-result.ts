import type { KeyEntry } from "../domain/custody.ts";
import { readableMs } from "../domain/duration.ts";
import type { Clocks, Incident, LeakedResult, RotationResult } from "../domain/rotation.ts";
import { table } from "./output.ts";
import { clock, describeClocks } from "./watch.ts";

type Row = [string, string | undefined];

/** The result of a rotation for people: keys, times, and whatever is not as it should be. */
export function describeResult(result: RotationResult): string {
  const { times } = result;
  const time = (at: string | undefined): string | undefined => (at === undefined ? undefined : clock(at));
  const rows: Row[] = [
    [oldKeyLabel(result), result.oldKey?.id],
    ["new key", result.newKey?.id],
    ["started", time(times.started)],
    ["issued", time(times.issued)],
    ["installed", time(times.installed)],
    ["verified", time(times.verified)],
    ["old key last used", time(times.lastUsed)],
    ["cut", time(times.cut)],
    ["revoked", time(times.revoked)],
    ["confirmed dead", time(times.confirmedDead)],
    ["finished", time(times.finished)],
    ...(result.clocks === undefined ? [] : clockRows(result.clocks, result)),
    ["requests could fail", result.outage === undefined ? undefined : describeOutage(result.outage)],
    ...(result.incident === undefined ? [] : incidentRows(result.incident)),
    ["next due", result.nextDue?.slice(0, 10)],
    ["unknown", result.unknown.length === 0 ? undefined : result.unknown.join("; ")],
    ...result.keys.map(keyRow),
    ["to do", toDo(result)],
    ...result.warnings.map((warning): [string, string] => ["warning", warning]),
  ];
  return `${result.slot}: ${headline(result)}\n${table(rows)}`;
}

/** A key that a run named stays named until it is seen dead. */
function toDo({ slot, keys }: RotationResult): string | undefined {
  const named = keys.filter(({ fate }) => fate === "named" || fate === "open");
  if (named.length === 0) return undefined;
  const cut = named.filter(({ role }) => role === "compromised").map(({ id }) => ` --key ${id}`);
  const look = `keyturn keys ${slot} says what still lives`;
  return cut.length === 0 ? look : `keyturn emergency ${slot}${cut.join("")}; ${look}`;
}

/** Where a key is that the run answered for. */
function keyRow({ id, role, fate, at, seen, why }: KeyEntry): Row {
  const words = role === "compromised" ? "COMPROMISED" : `${role} key`;
  switch (fate) {
    case "held":
      return ["held", `${id} (${words})${why === undefined ? "" : `: ${why}`}`];
    case "ended": {
      const when = at === undefined ? "" : ` at ${clock(at)}`;
      return [
        "ended",
        `${id} (${words})${when}: ${seen === true ? "seen dead" : "its provider accepted it; that it is dead was not seen"}`,
      ];
    }
    case "named":
    case "open": {
      const alive = role === "compromised" ? "COMPROMISED, AND MAY BE ALIVE" : words;
      return ["left over", `${id} (${alive})${why === undefined ? "" : `: ${why}`}`];
    }
  }
}

function headline({ slot, outcome, reason, keys }: RotationResult): string {
  switch (outcome) {
    case "rotated":
      return `rotated (${reason})`;
    case "cut": {
      const own = keys.find(({ fate, why }) => fate === "held" && why?.startsWith(`${slot} `) === true);
      return own === undefined
        ? `the compromised key is cut; the slot got no new key (${reason})`
        : `the compromised key is cut; the slot keeps ${own.id} (${reason})`;
    }
    case "kept":
      return `not rotated: ${reason}`;
    case "aborted":
      return `stopped: ${reason}`;
    case "joined":
      return `joined the rotation that was running (${reason})`;
  }
}

/** An emergency that stopped before it found the compromised key knows only which one the slot holds. */
function oldKeyLabel({ kind, steps }: RotationResult): string {
  if (kind === "normal") return "old key";
  const found = steps.some(
    ({ step, outcome }) => (step === "findCompromised" || step === "cutKey") && outcome === "done",
  );
  return found ? "compromised key" : "held key";
}

function clockRows(clocks: Clocks, { times: { finished }, newKey, steps }: RotationResult): Row[] {
  const swaps = newKey !== null || steps.some(({ step }) => step === "issueKey");
  return [["clocks", describeClocks(clocks, { finished, swaps }).replace(/^clocks: /, "")]];
}

export function describeOutage({ from, until }: NonNullable<RotationResult["outage"]>): string {
  if (until === undefined) return `since ${clock(from)}, and THEY STILL CAN: no working key is in`;
  return `from ${clock(from)} until ${clock(until)} (${readableMs(Date.parse(until) - Date.parse(from))})`;
}

/** The incident report: what the key was used for, as far as provider and gateway tell. */
function incidentRows(incident: Incident): Row[] {
  const { asked, from, to, providerRequests, providerTokens, gatewayRequests, ...rest } = incident;
  const { compromisedKey, strangers, strangeModels, notes } = rest;
  const byStrangers = strangers.reduce((sum, { requests }) => sum + requests, 0);
  const told = gatewayRequests !== undefined;
  return [
    ["asked about", asked === undefined ? undefined : `${compromisedKey.id} since ${clock(asked)}`],
    [
      "looked at",
      `${compromisedKey.id}, ${clock(from)} to ${clock(to)}${shorter(asked, from) ? ": LESS THAN WAS ASKED" : ""}`,
    ],
    ["provider counts", `${providerRequests} requests with the key, ${providerTokens} tokens`],
    ["gateway sent", told ? `${gatewayRequests} requests to the provider, with whichever key` : "unknown"],
    [
      "use by others",
      told
        ? byStrangers === 0
          ? "none seen"
          : `at least ${byStrangers} requests that the gateway did not send`
        : "unknown: see the notes",
    ],
    ...strangers.map(({ from: start, to: end, requests, models }): Row => [
      "  stranger",
      `${clock(start)} to ${clock(end)}: ${requests} requests${models.length === 0 ? "" : ` (${models.join(", ")})`}`,
    ]),
    ["models not ours", strangeModels.length === 0 ? undefined : strangeModels.join(", ")],
    ...notes.map((note): Row => ["note", note]),
  ];
}

function shorter(asked: string | undefined, from: string): boolean {
  return asked !== undefined && Date.parse(from) - Date.parse(asked) > 60_000;
}

/** How an emergency ended that was known by a leaked value alone. */
export function describeLeaked({ keyIds, results, failed, unknown }: LeakedResult): string {
  return [
    `the leaked value is that of ${keyIds.join(", ")}`,
    ...results.map(describeResult),
    ...failed.map(({ slot, type, message }) => `${slot}: ${type}: ${message}`),
    ...unknown.map((what) => `unknown: ${what}`),
  ].join("\n\n");
}
