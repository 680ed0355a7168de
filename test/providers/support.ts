import { expect } from "vitest";

import { RotationFailure } from "../../src/domain/failure.ts";
import { createHttp } from "../../src/http.ts";

export const http = createHttp({ timeoutMs: 2_000, userAgent: "keyturn/0.0.0" });

/** The failure of an attempt, after a look that none of these secrets stands in it. */
export async function failureOf(attempt: Promise<unknown>, secrets: readonly string[]): Promise<RotationFailure> {
  const error = await attempt.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RotationFailure)) return expect.fail(`it was to fail as a rotation failure: ${String(error)}`);
  for (const secret of secrets) {
    if (`${error.message} ${error.stack}`.includes(secret)) throw new Error("a secret stands in the failure");
  }
  return error;
}
