import { RotationFailure } from "../domain/failure.ts";

/** What a check found: good, worth a look, in the way of a rotation or dangerous, or not to be told from here. */
export type Level = "ok" | "warning" | "problem" | "unknown";

export interface Finding {
  check: string;
  /** The slot, or what of the installation it is about. */
  about: string;
  level: Level;
  message: string;
  /** The next move; nothing where all is well. */
  remedy?: string;
}

/** A finding before the table puts its check's name on it. Without a remedy of its own it has its check's. */
export type Found = Omit<Finding, "check">;

export const ok = (about: string, message: string): Found => ({ about, level: "ok", message });

const finding =
  (level: Exclude<Level, "ok">) =>
  (about: string, message: string, remedy?: string): Found => ({
    about,
    level,
    message,
    ...(remedy === undefined ? {} : { remedy }),
  });
export const warning = finding("warning");
export const problem = finding("problem");
export const unknown = finding("unknown");

/** What may pass by itself says nothing about what was looked at. */
const passing = new Set(["Unavailable", "RateLimited", "NotYetPropagated"]);

/** The finding of a check whose question failed: its failure names the object and the next move. */
export function ofFailure(about: string, error: unknown): Found {
  if (!(error instanceof RotationFailure)) throw error;
  if (error.name === "VariableMissing") {
    return unknown(about, error.message, "set what the finding environment names, then look again");
  }
  return passing.has(error.type)
    ? unknown(about, error.message, "try again; look at the network and the service's status page")
    : problem(about, error.message);
}

/** The finding of a check that needs what another one already found missing. */
export function ofMissing(about: string, what: string): Found {
  return unknown(about, `${what} is not looked at`, "mend what the other findings name, then look again");
}

/** What a fact is, or that it could not be had. */
export async function orMissing<T>(fact: () => Promise<T>): Promise<T | undefined> {
  try {
    return await fact();
  } catch (error) {
    if (error instanceof RotationFailure) return undefined;
    throw error;
  }
}
