import { expect } from "vitest";
import { RotationFailure } from "../../src/domain/failure.ts";
import { createHttp } from "../../src/http.ts";
import { Redacted } from "../../src/redacted.ts";
import { openapiAt, strangersIn } from "../support/openapi.ts";
import type { Vendor, VendorReply } from "../support/vendor.ts";

export const http = createHttp({ timeoutMs: 2_000, userAgent: "keyturn/0.0.0" });
export const account = "0123456789abcdef0123456789abcdef";
export const token = "cf-made-up-token-0123456789";
export const key = "sk-svcacct-made-up-0123456789abcdef";

/** The same for all of Cloudflare's control plane. */
export const controlPlane = (vendor: Vendor) => ({
  http,
  baseUrl: vendor.url,
  accountId: account,
  token: new Redacted(token),
});

export function ok(result: unknown, resultInfo?: object): VendorReply {
  return { body: { success: true, errors: [], messages: [], result, result_info: resultInfo } };
}

export function refused(status: number, code: number, message: string): VendorReply {
  return {
    status,
    headers: { "cf-ray": "8c2f00-FRA" },
    // A vendor that echoes what it was sent: none of it may show in a message.
    body: {
      success: false,
      errors: [{ code, message: `${message} ${key} ${token}` }],
      messages: [],
      result: null,
    },
  };
}

export async function failureOf(attempt: Promise<unknown>): Promise<RotationFailure> {
  const error = await attempt.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RotationFailure)) throw new Error("it did not fail as a rotation failure", { cause: error });
  for (const secret of [key, token]) expect(`${error.message} ${error.stack}`).not.toContain(secret);
  return error;
}

const document = openapiAt("cloudflare-subset.json");

/** What of the requests made so far Cloudflare's published schema does not know; nothing where it is not at hand. */
export function strangers(vendor: Vendor): string[] {
  return document === undefined ? [] : vendor.calls.flatMap((call) => strangersIn(document, call));
}
