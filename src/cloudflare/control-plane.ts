import { z } from "zod";
import { RotationFailure } from "../domain/failure.ts";
import { bearer, type Exchange, type Http, type Method, type QueryValue } from "../http.ts";
import type { Redacted } from "../redacted.ts";

export interface ControlPlaneOptions {
  http: Http;
  /** `https://api.cloudflare.com/client/v4`, or what stands in for it. */
  baseUrl: string;
  accountId: string;
  token: Redacted;
}

/** What came of asking for something whose name may be in use. Taken is no failure: whoever looks first can lose a race. */
export type Creation<T> =
  | { kind: "created"; made: T }
  /** One of this name is there already, perhaps by our own earlier attempt: look at it. */
  | { kind: "taken" }
  /** The account may hold no more of them. */
  | { kind: "full" };

/** A made thing's row as a `Creation`. */
export const creationOf = <T>(row: z.ZodType<T>) => row.transform((made) => ({ kind: "created" as const, made }));

export interface Call {
  method: Method;
  /** After `/accounts/{account}`. */
  route: string;
  path?: Record<string, string>;
  query?: Record<string, QueryValue>;
  body?: unknown;
  doing: string;
  /** The permission the token needs for it, as Cloudflare's token page calls it. */
  right: string;
  /** Names a refusal; asked before the mapping all calls share. */
  failure?: (refusal: Exchange) => RotationFailure | undefined;
}

type Instead<T> = (refusal: Exchange) => { value: T } | undefined;

/** The most rows Cloudflare gives on a page of these lists, and a bound that no real list reaches. */
const pageSize = 100;
const maxPages = 1_000;

const resultInfo = z.object({ per_page: z.number().nullish() }).nullish();

/**
 * The envelope around each answer of Cloudflare's API and what all its refusals have in common:
 * developers.cloudflare.com/fundamentals/api/reference, seen 2026-11. `success` is looked at, not only the status.
 * 1,200 calls in five minutes per account; past it every call is blocked for the next five (page of 2026-04-20).
 */
export function createControlPlane({ http, baseUrl, accountId, token }: ControlPlaneOptions) {
  const send = <T>(call: Call, response: z.ZodType<T>, instead?: Instead<T>): Promise<T> =>
    http.send<T>({
      service: "cloudflare",
      method: call.method,
      baseUrl,
      route: `/accounts/{account}${call.route}`,
      path: { ...call.path, account: accountId },
      ...(call.query === undefined ? {} : { query: call.query }),
      headers: { authorization: bearer(token) },
      ...(call.body === undefined ? {} : { body: call.body }),
      doing: call.doing,
      response,
      instead: (refusal) => (isTransient(refusal) ? undefined : instead?.(refusal)),
      failure: (refusal) => {
        if (isTransient(refusal)) return undefined;
        return call.failure?.(refusal) ?? commonRefusal(call, accountId, refusal);
      },
    });

  /**
   * Returns the rows of as many pages as hold `atMost` of them and take no longer than `withinMs`, and whether these
   * were all. Asks on until a page comes short: `total_count` can be stale after deletes.
   */
  async function listSome<T>(
    call: Call,
    row: z.ZodType<T>,
    { perPage, atMost, withinMs = Infinity }: { perPage: number; atMost: number; withinMs?: number },
  ): Promise<{ rows: T[]; complete: boolean }> {
    const envelope = z.object({
      success: z.literal(true),
      result: z.array(row),
      result_info: resultInfo,
    });
    const rows: T[] = [];
    const begun = Date.now();
    for (let page = 1; ; page += 1) {
      const answer = await send({ ...call, query: { ...call.query, page, per_page: perPage } }, envelope);
      rows.push(...answer.result);
      const full = Math.min(perPage, answer.result_info?.per_page ?? perPage);
      if (answer.result.length === 0 || answer.result.length < full) return { rows, complete: true };
      if (rows.length >= atMost || Date.now() - begun >= withinMs) return { rows, complete: false };
    }
  }

  return {
    /** Makes one call and returns its `result`, or what `instead` makes of a refusal that is an answer. */
    async call<T, U = never>(call: Call, result: z.ZodType<T>, instead?: Instead<U>): Promise<T | U> {
      const envelope = z.object({ success: z.literal(true), result }).transform((body) => body.result);
      return send<T | U>(call, envelope, instead);
    },

    listSome,

    /** Makes one call whose answer says nothing but that it was taken on; an empty body will do. */
    async tell(call: Call, instead?: Instead<void>): Promise<void> {
      const envelope = z.object({ success: z.literal(true) }).optional();
      await send<void>(
        call,
        envelope.transform(() => {}),
        instead,
      );
    },

    /** Returns the rows of all pages. */
    async list<T>(call: Call, row: z.ZodType<T>): Promise<T[]> {
      const { rows, complete } = await listSome(call, row, { perPage: pageSize, atMost: pageSize * maxPages });
      if (complete) return rows;
      throw new RotationFailure("ResponseUnexpected", `cloudflare's list does not end ${call.doing}`);
    },
  };
}

export type ControlPlane = ReturnType<typeof createControlPlane>;

/**
 * Whether the refusal carries one of these codes and, where words are given, its message one of them. Both are
 * needed: Cloudflare shares 1001, 1003 and 7001 between unlike refusals.
 */
export function says(refusal: Exchange, code: number, words?: RegExp): boolean {
  return errorsOf(refusal).some((error) => error.code === code && (words === undefined || words.test(error.message)));
}

/** Whether any error of the refusal has these words, whatever its code. */
export function mentions(refusal: Exchange, words: RegExp): boolean {
  return errorsOf(refusal).some((error) => words.test(error.message));
}

const refusalBody = z.object({
  errors: z.array(z.object({ code: z.number().catch(0), message: z.string().catch("") })),
});

function errorsOf({ body }: Exchange): { code: number; message: string }[] {
  const read = refusalBody.safeParse(body);
  return read.success ? read.data.errors : [];
}

/** A limit or an outage: what the body says of it does not count. */
function isTransient({ status }: Exchange): boolean {
  return status === 429 || status === 408 || status >= 500;
}

function commonRefusal({ doing, right }: Call, accountId: string, refusal: Exchange): RotationFailure | undefined {
  if (refusal.status === 401 || refusal.status === 403 || says(refusal, 10000)) {
    return new RotationFailure(
      "AdminCredentialRejected",
      `cloudflare refused the token ${doing}: give the token in CLOUDFLARE_API_TOKEN the right "${right}" on account ${accountId}, or renew it${refusal.trace}`,
    );
  }
  if (says(refusal, 7003)) {
    return new RotationFailure(
      "SlotMissing",
      `cloudflare knows no account ${accountId} ${doing}: check CLOUDFLARE_ACCOUNT_ID${refusal.trace}`,
    );
  }
  return undefined;
}
