import { z } from "zod";
import { RotationFailure } from "../domain/failure.ts";
import { keyShapes } from "../domain/key-shape.ts";
import { maskFits, maskTells } from "../domain/mark.ts";
import { answerOf, type Exchange, type Http, type Method, type QueryValue, readErrorFacts } from "../http.ts";
import type { Redacted } from "../redacted.ts";
import type { KeyEnd, KeySwitch } from "./key-end.ts";
import {
  type HandIn,
  type HandInFault,
  judgeHandedIn,
  type KeyRecord,
  type ManagedProvider,
  type Provider,
  type UsageBucket,
  type UsageQuery,
  type UsageReport,
} from "./provider.ts";

/*
 * Anthropic: keys of one workspace, through the Admin API.
 * platform.claude.com/docs: administration API, authentication, errors, usage and cost (2026-08 to 2026-10), and the
 * types of npm @anthropic-ai/sdk 1.12.0 (2026-11-20).
 *
 * Can: list keys, switch one off (`inactive`) and on again (`active`), end it for good (`archived`; it stays listed);
 * tell use by key and minute, with the time up to which the report is fresh.
 * Cannot: make keys (a person does, in the Console), show a value again, change an expiry, tell a key's last use.
 * Unknown: whether an archived key could come back (we never try), how soon a switched-off key is refused, the rate
 * limits of this API, and which of its details differ between the two API versions: both shapes are read.
 */

export interface AnthropicOptions {
  http: Http;
  /** What Anthropic's SDK takes: `https://api.anthropic.com`. */
  baseUrl: string;
  adminKey: Redacted;
  workspace: string;
}

/** The version the SDK sends since 1.0 (2026-10-21). */
const apiVersion = "2026-10-21";
/** Open to Console organisations since 2026-10-29; the report it replaces is asked where it is not to be had. */
const usageBeta = "analytics-usage-cost-2026-08-24";

const time = z.coerce.date();

/** A key with its workspace: null where it is scoped to none, nothing where the answer does not tell. */
interface Row {
  key: KeyRecord;
  workspace: string | null | undefined;
}

const keyRow = z
  .object({
    id: z.string(),
    name: z.string().nullish(),
    status: z.string(),
    created_at: time,
    expires_at: time.nullish(),
    partial_key_hint: z.string().nullish(),
    principal: z
      .object({ type: z.string(), service_account_id: z.string().nullish(), user_id: z.string().nullish() })
      .nullish()
      .catch(undefined),
    scope: z.object({ type: z.string(), workspace_id: z.string().nullish() }).nullish(),
    // In examples for version 2023-06-01; null there is the default workspace, or nothing told.
    workspace_id: z.string().nullish(),
  })
  .transform((row): Row => {
    const owner = ownerOf(row.principal?.service_account_id, row.principal?.user_id);
    return {
      workspace: row.scope?.workspace_id ?? row.workspace_id ?? (row.scope?.type === "organization" ? null : undefined),
      key: {
        id: row.id,
        name: row.name ?? "",
        state: stateOf(row.status, row.expires_at),
        createdAt: row.created_at,
        ...(row.partial_key_hint ? { maskedValue: row.partial_key_hint } : {}),
        ...(row.expires_at ? { expiresAt: row.expires_at } : {}),
        ...(owner === undefined ? {} : { owner }),
      },
    };
  });

function ownerOf(serviceAccount: string | null | undefined, user: string | null | undefined): KeyRecord["owner"] {
  if (serviceAccount) return { kind: "service account", id: serviceAccount };
  return user ? { kind: "user", id: user } : undefined;
}

/** A status nobody has told us of is taken for alive: a key is never called dead on a guess. */
function stateOf(status: string, expiresAt: Date | null | undefined): KeyRecord["state"] {
  if (status === "archived") return "revoked";
  if (status === "expired" || (expiresAt && expiresAt.getTime() <= Date.now())) return "expired";
  return status === "inactive" ? "disabled" : "active";
}

const keyPage = z.object({ data: z.array(keyRow), has_more: z.boolean(), last_id: z.string().nullish() });

const count = z.number().nullish();
const keyAndModel = { api_key_id: z.string().nullish(), model: z.string().nullish() };

const analyticsPage = z.object({
  data: z.array(
    z.object({
      starting_at: time,
      ending_at: time,
      group: z.object(keyAndModel).nullish(),
      usage: z.object({ requests: count, total_tokens: count }),
    }),
  ),
  has_more: z.boolean(),
  next_page: z.string().nullish(),
  data_refreshed_at: time.nullish(),
});

const reportPage = z.object({
  data: z.array(
    z.object({
      starting_at: time,
      ending_at: time,
      results: z.array(
        z.object({
          ...keyAndModel,
          uncached_input_tokens: count,
          cache_read_input_tokens: count,
          cache_creation: z.record(z.string(), z.unknown()).nullish(),
          output_tokens: count,
        }),
      ),
    }),
  ),
  has_more: z.boolean(),
  next_page: z.string().nullish(),
});

const minuteMs = 60_000;
/** The most that one question may span in buckets of a minute. */
const dayMs = 86_400_000;

/** A bound that no real list reaches, so that one that does not end is noticed. */
const maxPages = 1_000;

const keys = "/v1/organizations/api_keys";

/** What needs no admin credential. */
export function anthropicByHand({
  http,
  baseUrl,
  workspace,
}: Omit<AnthropicOptions, "adminKey">): Provider & Pick<HandIn, "handInInstructions"> {
  return {
    name: "anthropic",

    async tryKey(value) {
      const exchange = await http.exchange({
        service: "anthropic",
        method: "GET",
        baseUrl,
        route: "/v1/models",
        query: { limit: 1 },
        headers: { "x-api-key": value, "anthropic-version": apiVersion },
        doing: "while trying a key on the list of models",
      });
      return answerOf(exchange);
    },

    /** `sk-ant-api03-` today, not promised; `sk-ant-admin01-` and `sk-ant-api01-` are other credentials. */
    looksLikeKey(value) {
      return keyShapes.anthropic.test(value.reveal());
    },

    handInInstructions({ name }) {
      return {
        where: "https://platform.claude.com/settings/keys",
        keyName: name,
        keyType: "a service account key (linked account: a service account), scoped to the workspace",
        belongsTo: `workspace ${workspace}`,
      };
    },
  };
}

interface Call<T> {
  method: Method;
  route: string;
  path?: Record<string, string>;
  query?: Record<string, QueryValue>;
  headers?: Record<string, string>;
  body?: unknown;
  doing: string;
  response: z.ZodType<T>;
  instead?: (refusal: Exchange) => { value: T } | undefined;
  failure?: (refusal: Exchange) => RotationFailure | undefined;
}

/** The Admin API as the provider and its key end both use it. */
function adminOf({ http, baseUrl, adminKey, workspace }: AnthropicOptions) {
  const admin = <T>({ failure, headers, ...call }: Call<T>): Promise<T> =>
    http.send<T>({
      ...call,
      service: "anthropic",
      baseUrl,
      headers: { ...headers, "x-api-key": adminKey, "anthropic-version": apiVersion },
      failure: (refusal) => failure?.(refusal) ?? credentialRefused(refusal, call.doing),
    });

  /** The admin key reaches the whole organisation. A workspace the answer does not tell cannot be held against a key. */
  const isElsewhere = ({ workspace: home }: Row): boolean => typeof home === "string" && home !== workspace;

  /** A key of another workspace is not the slot's to know: who is asked there knows it. */
  async function findKey(keyId: string): Promise<KeyRecord | undefined> {
    const row = await admin<Row | undefined>({
      method: "GET",
      route: `${keys}/{key}`,
      path: { key: keyId },
      doing: `while reading key ${keyId}`,
      response: keyRow,
      instead: gone,
    });
    return row === undefined || isElsewhere(row) ? undefined : row.key;
  }

  /** Every key of the organisation: a handed-in one can be in the wrong workspace. */
  async function listRows(): Promise<Row[]> {
    const found: Row[] = [];
    let after: string | undefined;
    for (let page = 0; page < maxPages; page += 1) {
      const { data, has_more, last_id } = await admin({
        method: "GET",
        route: keys,
        query: { limit: 100, after_id: after },
        doing: "while listing the keys of the organisation",
        response: keyPage,
      });
      found.push(...data);
      const last = last_id ?? data.at(-1)?.key.id;
      if (!has_more) return found;
      if (last === undefined || last === after) break;
      after = last;
    }
    throw endless("the list of keys");
  }

  return { admin, findKey, listRows, isElsewhere };
}

export function anthropicKeyEnd(options: AnthropicOptions): KeyEnd & KeySwitch {
  const { admin, findKey, listRows, isElsewhere } = adminOf(options);

  /** A read that does not find the key is no proof: only one that no list shows either is unknown. */
  async function seen(keyId: string): Promise<KeyRecord | undefined> {
    const found = await findKey(keyId);
    if (found !== undefined) return found;
    return (await listRows()).find((row) => row.key.id === keyId && !isElsewhere(row))?.key;
  }

  /** Setting the same status again changes nothing. Returns nothing where the key is gone. */
  async function setStatus(keyId: string, status: "active" | "inactive" | "archived"): Promise<KeyRecord | undefined> {
    const doing = `while setting key ${keyId} to ${status}`;
    const row = await admin<Row | undefined>({
      method: "POST",
      route: `${keys}/{key}`,
      path: { key: keyId },
      body: { status },
      doing,
      response: keyRow,
      instead: gone,
      failure: (refusal) => limitReached(refusal, keyId, options.workspace),
    });
    return row?.key;
  }

  const stillActive = (keyId: string): RotationFailure =>
    new RotationFailure("Unavailable", `anthropic took the request and still shows key ${keyId} as active; try again`);

  return {
    /** Archives the key, which stays listed. An expired key is dead already and cannot come back. */
    async revokeKey(keyId) {
      const before = await seen(keyId);
      if (before === undefined) throw unknown(keyId);
      if (before.state === "revoked" || before.state === "expired") return;
      const after = await setStatus(keyId, "archived");
      if (after?.state === "active" || after?.state === "disabled") throw stillActive(keyId);
    },

    /** Looks first: an archived key must not come back to life as a merely inactive one. */
    async disableKey(keyId) {
      const before = await seen(keyId);
      if (before === undefined) throw unknown(keyId);
      if (before.state !== "active") return;
      const after = await setStatus(keyId, "inactive");
      if (after?.state === "active") throw stillActive(keyId);
    },

    /** Fails with `KeyLimitReached` where workspace or organisation may have no more active keys. */
    async enableKey(keyId) {
      const before = await seen(keyId);
      if (before?.state === "active") return;
      if (before?.state !== "disabled") {
        throw new RotationFailure(
          "RequestInvalid",
          `key ${keyId} is ${before?.state ?? "gone"} and cannot be switched on again: make a new key`,
        );
      }
      await setStatus(keyId, "active");
    },
  };
}

export function createAnthropic(options: AnthropicOptions): ManagedProvider & HandIn {
  const { admin, findKey, listRows, isElsewhere } = adminOf(options);

  /** One window of the beta report, or nothing where this organisation does not have it. */
  async function readAnalytics(keyIds: string[], window: Window): Promise<Use | undefined> {
    const use = emptyUse();
    for await (const answer of pages(window, (page) =>
      admin<z.infer<typeof analyticsPage> | undefined>({
        method: "GET",
        route: "/v1/organizations/analytics/usage",
        query: {
          ...window.query,
          time_bucket_width: "1m",
          "api_key_ids[]": keyIds,
          "group_by[]": ["api_key_id", "model"],
          order_by: "time",
          order: "asc",
          limit: 1_000,
          page,
        },
        headers: { "anthropic-beta": usageBeta },
        doing: `while reading the usage of keys ${keyIds.join(", ")}`,
        response: analyticsPage,
        instead: (refusal) => (isNotOffered(refusal) ? { value: undefined } : undefined),
      }),
    )) {
      if (answer === undefined) return undefined;
      use.refreshedAt = earlier(use.refreshedAt, answer.data_refreshed_at ?? undefined);
      for (const { starting_at, ending_at, group, usage } of answer.data) {
        add(use, keyIds, {
          span: [starting_at, ending_at],
          of: group ?? {},
          requests: usage.requests ?? undefined,
          tokens: usage.total_tokens ?? undefined,
        });
      }
    }
    return use;
  }

  /** The report that was there before: tokens only, and no word on how fresh it is. */
  async function readMessagesReport(keyIds: string[], window: Window): Promise<Use> {
    const use = emptyUse();
    for await (const answer of pages(window, (page) =>
      admin({
        method: "GET",
        route: "/v1/organizations/usage_report/messages",
        query: {
          ...window.query,
          bucket_width: "1m",
          "api_key_ids[]": keyIds,
          "group_by[]": ["api_key_id", "model"],
          limit: 1_440,
          page,
        },
        doing: `while reading the usage report of keys ${keyIds.join(", ")}`,
        response: reportPage,
      }),
    )) {
      for (const { starting_at, ending_at, results } of answer.data) {
        use.bucketMs = Math.max(use.bucketMs, ending_at.getTime() - starting_at.getTime());
        for (const result of results) {
          const created = Object.values(result.cache_creation ?? {}).filter((value) => typeof value === "number");
          const tokens = [
            result.uncached_input_tokens,
            result.cache_read_input_tokens,
            result.output_tokens,
            ...created,
          ].reduce<number>((sum, value) => sum + (value ?? 0), 0);
          add(use, keyIds, { span: [starting_at, ending_at], of: result, requests: undefined, tokens });
        }
      }
    }
    return use;
  }

  return {
    ...anthropicByHand(options),
    switchable: true,

    /** Proves that the credential is an organisation's admin key; whether it may write, only a write shows. */
    async checkAdminCredential() {
      await admin({
        method: "GET",
        route: "/v1/organizations/me",
        doing: "while reading the organisation of the admin key",
        response: z.object({ id: z.string() }),
        // The Admin API is not there for individual accounts (docs, 2026-08).
        failure: (refusal) => (refusal.status === 404 ? noAdminApi(refusal) : undefined),
      });
    },

    /** Keys of the slot's workspace, and those whose workspace the answer does not tell: the slot may hold one. */
    async listKeys() {
      const rows = await listRows();
      return rows.filter((row) => !isElsewhere(row)).map(({ key }) => key);
    },

    findKey,

    /** The beta report, in windows of a day; the older one where this organisation does not have it. */
    async readUsage(query): Promise<UsageReport> {
      const windows = windowsOf(query);
      const report: UsageReport = { buckets: [], bucketMs: 0, unknownSurfaces: [] };
      let refreshedAt: Date | undefined;
      let beta = true;
      for (const window of windows) {
        let use: Use | undefined = beta ? await readAnalytics(query.keyIds, window) : undefined;
        beta = use !== undefined;
        use ??= await readMessagesReport(query.keyIds, window);
        report.buckets.push(...use.buckets);
        report.bucketMs = Math.max(report.bucketMs, use.bucketMs);
        refreshedAt = earlier(refreshedAt, use.refreshedAt);
      }
      // No bucket at all: the width that was asked for.
      if (report.bucketMs === 0) report.bucketMs = minuteMs;
      return beta && refreshedAt !== undefined ? { ...report, refreshedAt } : report;
    },

    /** By the hint: three characters of the key's own beginning and four of its end, so exactly one key must fit. */
    async identifyKey(value, { openedAt }) {
      let rows: Row[];
      try {
        rows = await listRows();
      } catch (error) {
        if (!(error instanceof RotationFailure) || error.type !== "AdminCredentialRejected") throw error;
        return { kind: "unknown", message: error.message };
      }
      const fits = ({ maskedValue }: KeyRecord): boolean =>
        maskedValue !== undefined && maskTells(maskedValue) && maskFits(maskedValue, value.reveal());
      const fitting = rows.filter(({ key }) => fits(key));
      const faults = new Map(fitting.map((row) => [row.key, faultOf(row)]));
      return judgeHandedIn([...faults.keys()], { openedAt, stranger: (key) => faults.get(key) });
    },
  };

  /** A workspace the answer does not tell cannot be held against a key. */
  function faultOf(row: Row): HandInFault | undefined {
    if (row.workspace === null) return "unscoped";
    return isElsewhere(row) ? "wrong workspace" : undefined;
  }
}

function unknown(keyId: string): RotationFailure {
  return new RotationFailure(
    "KeyUnknown",
    `anthropic knows no key ${keyId} in this workspace: nothing was changed; check the id, and whose workspace it is of`,
  );
}

interface Window {
  query: { starting_at: string; ending_at: string };
}

/** The span in pieces of at most a day. Inner borders are whole minutes, so that no bucket lies across one. */
function windowsOf({ from, to }: UsageQuery): Window[] {
  const windows: Window[] = [];
  const start = Math.floor(from.getTime() / 1000) * 1000;
  const end = Math.max(Math.ceil(to.getTime() / 1000) * 1000, start + 1000);
  for (let at = start; at < end;) {
    const next = end - at <= dayMs ? end : Math.floor((at + dayMs) / minuteMs) * minuteMs;
    windows.push({
      query: { starting_at: new Date(at).toISOString(), ending_at: new Date(next).toISOString() },
    });
    at = next;
  }
  return windows;
}

async function* pages<Page extends { has_more: boolean; next_page?: string | null | undefined } | undefined>(
  { query }: Window,
  ask: (page: string | undefined) => Promise<Page>,
): AsyncGenerator<Page> {
  let page: string | undefined;
  for (let count = 0; count < maxPages; count += 1) {
    const answer = await ask(page);
    yield answer;
    if (answer === undefined || !answer.has_more) return;
    if (!answer.next_page || answer.next_page === page) break;
    page = answer.next_page;
  }
  throw endless(`the usage from ${query.starting_at}`);
}

interface Use {
  buckets: UsageBucket[];
  bucketMs: number;
  refreshedAt: Date | undefined;
}

function emptyUse(): Use {
  return { buckets: [], bucketMs: 0, refreshedAt: undefined };
}

function add(
  use: Use,
  keyIds: string[],
  row: {
    span: [Date, Date];
    of: { api_key_id?: string | null | undefined; model?: string | null | undefined };
    requests: number | undefined;
    tokens: number | undefined;
  },
): void {
  const [from, to] = row.span;
  use.bucketMs = Math.max(use.bucketMs, to.getTime() - from.getTime());
  const { tokens = 0 } = row;
  // A row is use unless it says zero.
  const used = tokens > 0 || (row.requests === undefined && row.tokens === undefined);
  const requests = Math.max(row.requests ?? 0, used ? 1 : 0);
  const { api_key_id: keyId, model } = row.of;
  if (!keyId) {
    // Use that no key is named for could be any key's: reading on would call a busy key idle.
    if ((row.requests ?? 0) === 0 && tokens === 0) return;
    throw new RotationFailure(
      "ResponseUnexpected",
      "anthropic reported usage without naming the key; the api, or a proxy before it, may have changed",
    );
  }
  if (!keyIds.includes(keyId)) return;
  use.buckets.push({ keyId, from, to, requests, tokens, ...(model ? { model } : {}) });
}

function earlier(one: Date | undefined, other: Date | undefined): Date | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return one < other ? one : other;
}

function gone({ status }: Exchange): { value: undefined } | undefined {
  return status === 404 ? { value: undefined } : undefined;
}

/** A report that is not open to this organisation answers as if it, or its beta header, were not there. */
function isNotOffered(refusal: Exchange): boolean {
  if (refusal.status === 404 || refusal.status === 403) return true;
  return refusal.status === 400 && /beta|not (?:yet )?(?:available|enabled|supported)/i.test(wordsOf(refusal));
}

function credentialRefused({ status, trace }: Exchange, doing: string): RotationFailure | undefined {
  if (status !== 401 && status !== 403) return undefined;
  return new RotationFailure(
    "AdminCredentialRejected",
    `anthropic refused the admin credential ${doing}: renew ANTHROPIC_ADMIN_KEY with an admin key of the organisation${trace}`,
  );
}

function noAdminApi({ trace }: Exchange): RotationFailure {
  return new RotationFailure(
    "AdminCredentialRejected",
    `anthropic has no admin api for the account of ANTHROPIC_ADMIN_KEY: use an organisation's key, individual accounts have none${trace}`,
  );
}

/** `error.details.error_code`, typed by the SDK (1.12.0). */
function limitReached(refusal: Exchange, keyId: string, workspace: string): RotationFailure | undefined {
  const code = readErrorFacts(refusal.body)?.code ?? "";
  if (refusal.status >= 500 || !/^(?:org|workspace)_api_key_limit_exceeded$/.test(code)) return undefined;
  const who = code.startsWith("org") ? "the organisation" : `workspace ${workspace}`;
  return new RotationFailure(
    "KeyLimitReached",
    `anthropic cannot switch on key ${keyId}: ${who} may have no more active keys; run keyturn sweep, or have its limit raised${refusal.trace}`,
  );
}

/** What the refusal says, to be matched in memory only. */
function wordsOf({ body }: Exchange): string {
  const { code = "", type = "", message = "" } = readErrorFacts(body) ?? {};
  return `${code} ${type} ${message}`;
}

function endless(what: string): RotationFailure {
  return new RotationFailure("ResponseUnexpected", `anthropic's pages do not end for ${what}; report it as our bug`);
}
