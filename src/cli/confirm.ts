import { createInterface } from "node:readline/promises";

import { RotationFailure } from "../domain/failure.ts";

/**
 * Goes on only after a typed `yes` at a terminal, or with `--yes`. Fails with `InvalidInput` where there is nobody to
 * ask, or the answer is another.
 */
export async function confirm({ yes }: { yes?: boolean | undefined }): Promise<void> {
  if (yes === true) return;
  requireTerminal();
  const line = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await line.question("type yes to go on: ");
    if (answer.trim().toLowerCase() === "yes") return;
  } finally {
    line.close();
  }
  throw new RotationFailure("InvalidInput", "not confirmed: nothing was done");
}

/** Fails with `InvalidInput` where nobody can be asked. */
export function requireTerminal(): void {
  if (process.stdin.isTTY && process.stderr.isTTY) return;
  throw new RotationFailure("InvalidInput", "there is no terminal to ask at: give --yes, and nothing is asked");
}
