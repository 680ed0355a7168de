import { z } from "zod";
import { RotationFailure } from "../domain/failure.ts";
import { keyShapes } from "../domain/key-shape.ts";
import { maskFits, maskTells } from "../domain/mark.ts";
import { quotaHome } from "../domain/provider-limits.ts";
import { answerOf, bearer, type Exchange, type Http, type Method, type QueryValue, readErrorFacts } from "../http.ts";
import { Redacted } from "../redacted.ts";
import type { KeyEnd } from "./key-end.ts";
import {
  type HandIn,
  judgeHandedIn,
  type KeyIssuer,
  KeyLifeTooLong,
  type KeyRecord,
  type ManagedProvider,
  type Provider,
  type UsageBucket,
  type UsageQuery,
  type UsageReport,
} from "./provider.ts";

/*
 * OpenAI: keys of one service account in one project, through the administration API.
 * github.com/openai/openai-openapi (2026-08-21) and the types of npm openai 7.57.0 (2026-11-13);
 * platform.openai.com/docs/api-reference/administration.
 *
 * Can: make several keys for a service account, each with an expiry (since 2026-09) that can be moved later
 * (2026-10-14); delete one key (2026-10-22); tell each key's last use, and use by key and minute.
 * Cannot: show a value again, take a name or id of ours as unique, switch a key off and on, or make "never expires" out
 * of an expiry. No idempotency header: a lost answer to a create leaves a key that only the list shows.
 * Unknown: how late usage and `last_used_at` are, how soon the list shows a new key, the rate limits of this API.
 */

export interface OpenAiOptions {
  http: Http;
  /** What OpenAI's SDK takes: `https://api.openai.com/v1`. */
  baseUrl: string;
  adminKey: Redacted;
  project: string;
  serviceAccount: string;
}

/** Unix seconds; not always whole, where a test's clock runs fast. */
const unixTime = z.number().transform((seconds) => new Date(seconds * 1000));

const keyRow = z
  .object({
    id: z.string(),
    name: z.string().nullish(),
    redacted_value: z.string().nullish(),
    created_at: unixTime,
    last_used_at: unixTime.nullish(),
    expires_at: unixTime.nullish(),
    owner_project_access: z.string().nullish(),
    owner: z
      .object({
        type: z.string().nullish(),
        service_account: z.object({ id: z.string() }).nullish(),
        user: z.object({ id: z.string() }).nullish(),
      })
      .nullish(),
  })
  .transform((row): KeyRecord => {
    const owner = ownerOf(row.owner?.service_account?.id, row.owner?.user?.id);
    return {
      id: row.id,
      name: row.name ?? "",
      state: row.expires_at && row.expires_at.getTime() <= Date.now() ? "expired" : "active",
      createdAt: row.created_at,
      ...(row.redacted_value ? { maskedValue: row.redacted_value } : {}),
      ...(row.expires_at ? { expiresAt: row.expires_at } : {}),
      ...(row.last_used_at ? { lastUsedAt: row.last_used_at } : {}),
      ...(owner === undefined ? {} : { owner }),
      ...(row.owner_project_access === "inactive" ? { flag: noAccess } : {}),
    };
  });

/**
 * `owner_project_access: inactive` is documented as an owner without access to the project. Keys of service accounts of
 * role `none` bear it and answer every call (2026-11): a flag, not a death.
 */
const noAccess = "openai says that its owner has no access to the project (owner_project_access: inactive)";

function ownerOf(serviceAccount: string | undefined, user: string | undefined): KeyRecord["owner"] {
  if (serviceAccount !== undefined) return { kind: "service account", id: serviceAccount };
  return user === undefined ? undefined : { kind: "user", id: user };
}

const keyPage = z.object({
  data: z.array(keyRow),
  has_more: z.boolean(),
  last_id: z.string().nullish(),
});

const madeKey = z.object({
  id: z.string(),
  name: z.string().nullish(),
  value: z
    .string()
    .min(1)
    .transform((value) => new Redacted(value)),
  created_at: unixTime,
  expires_at: unixTime.nullish(),
});

const usagePage = z.object({
  data: z.array(
    z.object({
      start_time: unixTime,
      end_time: unixTime,
      results: z.array(
        // Loose: each surface counts in fields of its own.
        z.looseObject({
          api_key_id: z.string().nullish(),
          model: z.string().nullish(),
          num_model_requests: z.number().nullish(),
          num_requests: z.number().nullish(),
          input_tokens: z.number().nullish(),
          output_tokens: z.number().nullish(),
        }),
      ),
    }),
  ),
  has_more: z.boolean(),
  next_page: z.string().nullish(),
});

/** The usage reports that can be split by key, and by what else. `decisions` is in the SDK (7.57.0), not in the document. */
const surfacesByKey = {
  completions: ["api_key_id", "model"],
  embeddings: ["api_key_id", "model"],
  moderations: ["api_key_id", "model"],
  images: ["api_key_id", "model"],
  audio_speeches: ["api_key_id", "model"],
  audio_transcriptions: ["api_key_id", "model"],
  file_search_calls: ["api_key_id"],
  web_search_calls: ["api_key_id", "model"],
  decisions: ["api_key_id", "model"],
} as const;

/** These can be grouped by project only. */
const surfacesByProject = ["vector_stores", "code_interpreter_sessions"];

/** The width asked for, what it is called, and how many such buckets a page may hold. */
const minuteMs = 60_000;
const minuteBuckets = { bucket_width: "1m", limit: 1_440 };

/** A bound that no real list reaches, so that one that does not end is noticed. */
const maxPages = 1_000;

const keys = "/organization/projects/{project}/api_keys";

/** What needs no admin credential. */
export function openAiByHand({
  http,
  baseUrl,
  project,
  serviceAccount,
}: Omit<OpenAiOptions, "adminKey">): Provider & Pick<HandIn, "handInInstructions"> {
  return {
    name: "openai",

    /** One row of `GET /models` is free and needs no project right but the key's own. */
    async tryKey(value) {
      const exchange = await http.exchange({
        service: "openai",
        method: "GET",
        baseUrl,
        route: "/models",
        headers: { authorization: bearer(value) },
        doing: "while trying a key on the list of models",
      });
      return answerOf(exchange);
    },

    /** `sk-proj-`, `sk-svcacct-` and older `sk-` keys have been seen; none is promised. `sk-ant-` and `sk-admin-` are others. */
    looksLikeKey(value) {
      return keyShapes.openai.test(value.reveal());
    },

    handInInstructions({ name }) {
      return {
        where: "https://platform.openai.com/api-keys",
        keyName: name,
        keyType: `a key of service account ${serviceAccount}`,
        belongsTo: `project ${project}`,
      };
    },
  };
}

interface Call<T> {
  method: Method;
  route: string;
  path?: Record<string, string>;
  query?: Record<string, QueryValue>;
  body?: unknown;
  doing: string;
  response: z.ZodType<T>;
  instead?: (refusal: Exchange) => { value: T } | undefined;
  failure?: (refusal: Exchange) => RotationFailure | undefined;
}

/** The administration API as the provider and its key end both use it. */
function adminOf({ http, baseUrl, adminKey, project, serviceAccount }: OpenAiOptions) {
  const admin = <T>({ failure, ...call }: Call<T>): Promise<T> =>
    http.send<T>({
      ...call,
      service: "openai",
      baseUrl,
      headers: { authorization: bearer(adminKey) },
      failure: (refusal) => failure?.(refusal) ?? credentialRefused(refusal, call.doing),
    });

  const slotMissing = (refusal: Exchange): RotationFailure | undefined =>
    refusal.status === 404
      ? new RotationFailure(
          "SlotMissing",
          `openai knows no service account ${serviceAccount} in project ${project}: check the inventory${refusal.trace}`,
        )
      : undefined;

  async function listKeys(): Promise<KeyRecord[]> {
    const found: KeyRecord[] = [];
    let after: string | undefined;
    for (let page = 0; page < maxPages; page += 1) {
      const { data, has_more, last_id } = await admin({
        method: "GET",
        route: keys,
        path: { project },
        // Without `any`, keys that work may be left out (the document of 2026-08-21).
        query: { limit: 100, after, owner_project_access: "any" },
        doing: `while listing the keys of project ${project}`,
        response: keyPage,
        failure: slotMissing,
      });
      found.push(...data);
      const last = last_id ?? data.at(-1)?.id;
      if (!has_more) return found;
      if (last === undefined || last === after) break;
      after = last;
    }
    throw endless(`the list of keys of project ${project}`);
  }

  return { admin, slotMissing, listKeys };
}

export function openAiKeyEnd(options: OpenAiOptions): KeyEnd {
  const { project } = options;
  const { admin, listKeys } = adminOf(options);
  return {
    /**
     * Deletes one key; its service account and other keys stay. What a second delete answers is not known (2026-11),
     * so a 404 is believed only where the list does not show the key either.
     */
    async revokeKey(keyId) {
      const doing = `while deleting key ${keyId}`;
      const { deleted } = await admin<{ deleted: boolean }>({
        method: "DELETE",
        route: `${keys}/{key}`,
        path: { project, key: keyId },
        doing,
        response: z.object({ deleted: z.boolean() }),
        instead: ({ status }) => (status === 404 ? { value: { deleted: false } } : undefined),
      });
      if (deleted) return;
      if ((await listKeys()).some(({ id }) => id === keyId)) {
        throw new RotationFailure("Unavailable", `openai still lists key ${keyId} ${doing}; try again`);
      }
      throw new RotationFailure(
        "KeyUnknown",
        `openai knows no key ${keyId} in project ${project}: nothing was ended; check the id, and whose project it is of`,
      );
    },
  };
}

export function createOpenAi(options: OpenAiOptions): ManagedProvider & KeyIssuer & HandIn {
  const { project, serviceAccount } = options;
  const { admin, slotMissing, listKeys } = adminOf(options);

  async function readSurface(surface: keyof typeof surfacesByKey, query: UsageQuery): Promise<SurfaceUse> {
    const known = new Set(query.keyIds);
    const buckets: UsageBucket[] = [];
    let bucketMs = 0;
    let page: string | undefined;
    for (let pages = 0; pages < maxPages; pages += 1) {
      const answer = await admin<z.infer<typeof usagePage> | undefined>({
        method: "GET",
        route: `/organization/usage/${surface}`,
        query: {
          // Whole seconds, the start inclusive, the end not: wide enough for all that was asked.
          start_time: Math.floor(query.from.getTime() / 1000),
          end_time: Math.max(Math.ceil(query.to.getTime() / 1000), Math.floor(query.from.getTime() / 1000) + 1),
          ...minuteBuckets,
          "api_key_ids[]": query.keyIds,
          "group_by[]": surfacesByKey[surface],
          page,
        },
        doing: `while reading the ${surface} usage of keys ${query.keyIds.join(", ")}`,
        response: usagePage,
        // All organisations have completions; a report this one has not is unknown to us, not empty.
        instead: ({ status }) => (status === 404 && surface !== "completions" ? { value: undefined } : undefined),
      });
      if (answer === undefined) return { buckets: [], bucketMs: 0, known: false };
      for (const { start_time: from, end_time: to, results } of answer.data) {
        bucketMs = Math.max(bucketMs, to.getTime() - from.getTime());
        for (const result of results) {
          const counts = Object.values(result).filter((value) => typeof value === "number");
          const used = counts.some((count) => count > 0);
          const tokens = (result.input_tokens ?? 0) + (result.output_tokens ?? 0);
          const keyId = result.api_key_id;
          if (typeof keyId !== "string") {
            // Use that no key is named for could be any key's: reading on would call a busy key idle.
            if (!used) continue;
            throw new RotationFailure(
              "ResponseUnexpected",
              `openai reported ${surface} usage without naming the key; the api, or a proxy before it, may have changed`,
            );
          }
          if (!known.has(keyId)) continue;
          const counted = Math.max(result.num_model_requests ?? 0, result.num_requests ?? 0);
          // A row that names the key is use unless it says zero: it may count in fields that we do not know.
          const requests = used || counts.length === 0 ? Math.max(1, counted) : 0;
          buckets.push({
            keyId,
            from,
            to,
            requests,
            tokens,
            ...(result.model ? { model: result.model } : {}),
          });
        }
      }
      if (!answer.has_more) return { buckets, bucketMs, known: true };
      if (!answer.next_page || answer.next_page === page) break;
      page = answer.next_page;
    }
    throw endless(`the ${surface} usage`);
  }

  return {
    ...openAiByHand(options),

    /** Proves that the credential may read the service account; whether it may write, only a write shows. */
    async checkAdminCredential() {
      await admin({
        method: "GET",
        route: "/organization/projects/{project}/service_accounts/{account}",
        path: { project, account: serviceAccount },
        doing: `while reading service account ${serviceAccount} of project ${project}`,
        response: z.object({ id: z.string() }),
        failure: slotMissing,
      });
    },

    /** All keys of the project, whoever owns them: the slot may hold one that is not our service account's. */
    listKeys,

    async findKey(keyId) {
      return admin<KeyRecord | undefined>({
        method: "GET",
        route: `${keys}/{key}`,
        path: { project, key: keyId },
        doing: `while reading key ${keyId}`,
        response: keyRow,
        instead: ({ status }) => (status === 404 ? { value: undefined } : undefined),
      });
    },

    async issueKey({ name, lifeMs }) {
      const made = await admin({
        method: "POST",
        route: "/organization/projects/{project}/service_accounts/{account}/api_keys",
        path: { project, account: serviceAccount },
        body: { name, expires_in_seconds: seconds(lifeMs) },
        doing: `while issuing key ${name}`,
        response: madeKey,
        failure: (refusal) =>
          lifeTooLong(refusal, `key ${name}`, lifeMs) ?? limitReached(refusal, serviceAccount) ?? slotMissing(refusal),
      });
      const key: KeyRecord = {
        id: made.id,
        name: made.name ?? name,
        state: "active",
        createdAt: made.created_at,
        ...(made.expires_at ? { expiresAt: made.expires_at } : {}),
        owner: { kind: "service account", id: serviceAccount },
      };
      return { key, value: made.value };
    },

    /** The end counts from this request; the answer tells it. An expired key cannot be changed any more. */
    async setKeyLife(keyId, lifeMs) {
      const { expiresAt } = await admin({
        method: "POST",
        route: `${keys}/{key}`,
        path: { project, key: keyId },
        // Never `scopes` here: an empty list would lift every restriction.
        body: { expires_in_seconds: seconds(lifeMs) },
        doing: `while setting the life of key ${keyId}`,
        response: keyRow,
        failure: (refusal) => lifeTooLong(refusal, `key ${keyId}`, lifeMs),
      });
      return expiresAt;
    },

    /** One request per surface and page. Days of minutes are many pages: ask for what is needed. */
    async readUsage(query): Promise<UsageReport> {
      const report: UsageReport = {
        buckets: [],
        bucketMs: 0,
        unknownSurfaces: [...surfacesByProject],
      };
      for (const surface of Object.keys(surfacesByKey) as (keyof typeof surfacesByKey)[]) {
        const use = await readSurface(surface, query);
        report.buckets.push(...use.buckets);
        report.bucketMs = Math.max(report.bucketMs, use.bucketMs);
        if (!use.known) report.unknownSurfaces.push(surface);
      }
      // No bucket at all: the width that was asked for.
      if (report.bucketMs === 0) report.bucketMs = minuteMs;
      return report;
    },

    /** By the redacted value, among the project's keys: one of another project shows as none. */
    async identifyKey(value, { openedAt }) {
      let found: KeyRecord[];
      try {
        found = await listKeys();
      } catch (error) {
        if (!(error instanceof RotationFailure) || error.type !== "AdminCredentialRejected") throw error;
        return { kind: "unknown", message: error.message };
      }
      const fitting = found.filter(
        ({ maskedValue }) =>
          maskedValue !== undefined && maskTells(maskedValue) && maskFits(maskedValue, value.reveal()),
      );
      return judgeHandedIn(fitting, { openedAt, stranger: () => undefined });
    },
  };
}

interface SurfaceUse {
  buckets: UsageBucket[];
  bucketMs: number;
  known: boolean;
}

function seconds(lifeMs: number): number {
  return Math.max(1, Math.floor(lifeMs / 1000));
}

function credentialRefused({ status, trace }: Exchange, doing: string): RotationFailure | undefined {
  if (status !== 401 && status !== 403) return undefined;
  return new RotationFailure(
    "AdminCredentialRejected",
    `openai refused the admin credential ${doing}: renew OPENAI_ADMIN_KEY, or give it the right to manage the project's keys${trace}`,
  );
}

/** The code of this refusal is not published (2026-11), so its words must do. An expired key's refusal has others. */
function lifeTooLong(refusal: Exchange, key: string, lifeMs: number): KeyLifeTooLong | undefined {
  if (
    !isPlainRefusal(refusal) ||
    !/expires_in_seconds|expires_at|expiration|lifetime|life[_ ]?time/i.test(wordsOf(refusal))
  ) {
    return undefined;
  }
  return new KeyLifeTooLong(
    `openai lets ${key} not live ${seconds(lifeMs)} s: lower keyLife, or raise the organisation's maximum${refusal.trace}`,
  );
}

/** Likewise: its code is not published. */
function limitReached(refusal: Exchange, serviceAccount: string): RotationFailure | undefined {
  if (
    !isPlainRefusal(refusal) ||
    !/(keys?\b|api_keys?).*(limit|maximum|too many)|(limit|maximum|too[ _]many).*key/i.test(wordsOf(refusal))
  ) {
    return undefined;
  }
  return new RotationFailure(
    "KeyLimitReached",
    `openai allows service account ${serviceAccount} no more keys: run keyturn sweep, or have the limit of ${quotaHome.openai} raised${refusal.trace}`,
  );
}

/** Not a limit on requests, nor an outage: what the body says is about what was asked. */
function isPlainRefusal({ status }: Exchange): boolean {
  return status >= 400 && status < 500 && status !== 401 && status !== 408 && status !== 429;
}

/** What the refusal says, to be matched in memory only. */
function wordsOf({ body }: Exchange): string {
  const { code = "", type = "", message = "", param = "" } = readErrorFacts(body) ?? {};
  return `${code} ${type} ${param} ${message}`;
}

function endless(what: string): RotationFailure {
  return new RotationFailure("ResponseUnexpected", `openai's pages do not end for ${what}; report it as our bug`);
}
