import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { RotationFailure } from "../domain/failure.ts";
import { keyShapes } from "../domain/key-shape.ts";
import { answerOf, bearer, type Exchange, type Http, type Method, type QueryValue, readErrorFacts } from "../http.ts";
import { Redacted } from "../redacted.ts";
import type { GoogleAuth } from "./google-auth.ts";
import type { KeyEnd, KeySwitch } from "./key-end.ts";
import {
  type HandIn,
  type Identified,
  judgeHandedIn,
  type KeyIssuer,
  type KeyReader,
  type KeyRecord,
  type ManagedProvider,
  type Provider,
  type UsageBucket,
  type UsageQuery,
  type UsageReport,
} from "./provider.ts";

/*
 * Google Gemini: "auth" keys (`AQ.…`) of one Google Cloud project, each bound to a service account, through the API
 * Keys API v2; their use through Cloud Monitoring. Google's discovery document apikeys:v2 (revision 20260818),
 * ai.google.dev "Using Gemini API keys" (2026-09-25), docs.cloud.google.com/api-keys (2026-07).
 *
 * Can: make a key under an id of our choice, so that a lost answer loses nothing; show a value again; delete a key and,
 * within 30 days, undelete it; tell requests by key and minute, up to half an hour late.
 * Cannot: let keys expire, switch one off other than by deleting it, tell a key's last use, count tokens by key.
 * Unknown: whether usage names auth keys by their own id or by their service account (then their use is unknown), and
 * whether a deleted key keeps its id taken: an id is never used twice.
 *
 * A deleted key is `revoked` here, although `enableKey` can bring it back for 30 days: nobody is served by it. So
 * `disableKey` and `revokeKey` are one and the same. What they leave open is closed by Google after 30 days only;
 * whoever may undelete keys (`apikeys.keys.undelete`) can revive a compromised one until then.
 *
 * The id of a key here is the last part of its resource name, which every call takes: for keys of ours it is derived
 * from the name we give, for others it is a UUID. Usage is told by `uid`, which is looked up where it is needed.
 */

export interface GeminiOptions {
  http: Http;
  /** `https://apikeys.googleapis.com`. */
  apiKeysBaseUrl: string;
  /** `https://monitoring.googleapis.com`. */
  monitoringBaseUrl: string;
  /** What Google's SDK takes: `https://generativelanguage.googleapis.com`. */
  geminiBaseUrl: string;
  auth: GoogleAuth;
  project: string;
  /** The e-mail address of the account that new keys act as. It needs no roles for Gemini. */
  serviceAccount: string;
  /** Waits between looks at an operation; what it throws ends the call. Plain time where nothing is given. */
  pause?: (ms: number) => Promise<void>;
}

/** The API that our keys are for, and restricted to. */
const geminiService = "generativelanguage.googleapis.com";

/** The most characters a display name may have; the whole name stands in an annotation. */
const displayNameLength = 63;
const managedBy = "keyturn";

/** How long an operation is waited for, and how often it is looked at. Most are done at once. */
const operationMs = 60_000;
const firstPauseMs = 250;
const longestPauseMs = 2_000;

const time = z.coerce.date();

interface Row {
  key: KeyRecord;
  resource: string;
  uid: string;
  /** Made by keyturn under this very name. */
  ours: boolean;
}

/** `keyString` is not named here: where an answer holds one, it is dropped with the rest. */
const keyRow = z
  .object({
    name: z.string().min(1),
    uid: z.string().nullish(),
    displayName: z.string().nullish(),
    createTime: time,
    deleteTime: time.nullish(),
    serviceAccountEmail: z.string().nullish(),
    annotations: z.record(z.string(), z.string()).nullish(),
  })
  .transform((row): Row => {
    const id = lastPart(row.name);
    const ours = row.annotations?.["managed-by"] === managedBy;
    const named = ours ? row.annotations?.["keyturn-name"] : undefined;
    return {
      resource: row.name,
      uid: row.uid ?? id,
      ours,
      key: {
        id,
        name: named ?? row.displayName ?? "",
        state: row.deleteTime ? "revoked" : "active",
        createdAt: row.createTime,
        ...(row.serviceAccountEmail
          ? { owner: { kind: "service account", id: row.serviceAccountEmail } }
          : { standard: true }),
      },
    };
  });

const keyPage = z.object({ keys: z.array(keyRow).nullish(), nextPageToken: z.string().nullish() });

/** `response` is not named here: it carries the key's value. */
const operation = z.object({
  name: z.string().nullish(),
  done: z.boolean().nullish(),
  error: z.object({ code: z.number().nullish(), message: z.string().nullish() }).nullish(),
});
type Operation = z.infer<typeof operation>;

const keyString = z.object({
  keyString: z
    .string()
    .min(1)
    .transform((value) => new Redacted(value)),
});

const seriesPage = z.object({
  timeSeries: z
    .array(
      z.object({
        resource: z.object({ labels: z.record(z.string(), z.string()).nullish() }).nullish(),
        points: z
          .array(
            z.object({
              interval: z.object({ startTime: time.nullish(), endTime: time }),
              value: z.object({
                int64Value: z.union([z.string(), z.number()]).nullish(),
                doubleValue: z.number().nullish(),
              }),
            }),
          )
          .nullish(),
      }),
    )
    .nullish(),
  nextPageToken: z.string().nullish(),
  /** Where there are any, series may be missing. */
  executionErrors: z.array(z.unknown()).nullish(),
});
type Series = NonNullable<z.infer<typeof seriesPage>["timeSeries"]>[number];

const minuteMs = 60_000;

/** A bound that no real list reaches, so that one that does not end is noticed. */
const maxPages = 1_000;

const keysRoute = "/v2/projects/{project}/locations/global/keys";
const keyRoute = `${keysRoute}/{key}`;

/** What needs no admin credential. */
export function geminiByHand({
  http,
  geminiBaseUrl,
  project,
  serviceAccount,
}: Pick<GeminiOptions, "http" | "geminiBaseUrl" | "project" | "serviceAccount">): Provider &
  Pick<HandIn, "handInInstructions"> {
  return {
    name: "gemini",

    /** The key in this one header: in two places, or as a bearer token, it is refused whatever it is. */
    async tryKey(value) {
      const exchange = await http.exchange({
        service: "gemini",
        method: "GET",
        baseUrl: geminiBaseUrl,
        route: "/v1beta/models",
        query: { pageSize: 1 },
        headers: { "x-goog-api-key": value },
        doing: "while trying a key on the list of models",
      });
      return answerOf(exchange);
    },

    /** `AQ.` and about 50 characters, or `AIza` and 35 for the older standard keys; neither is promised. */
    looksLikeKey(value) {
      return keyShapes.gemini.test(value.reveal());
    },

    handInInstructions({ name }) {
      return {
        where: `https://console.cloud.google.com/apis/credentials?project=${encodeURIComponent(project)}`,
        keyName: name.slice(0, displayNameLength),
        keyType: `an API key that authenticates through service account ${serviceAccount}, restricted to the Gemini API`,
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
  /** What the credential needs for it, for whoever has to grant it. */
  right: string;
  response: z.ZodType<T>;
  instead?: (refusal: Exchange) => { value: T } | undefined;
}

/** The API Keys API as the provider and its key end both use it. */
function adminOf({ http, apiKeysBaseUrl, auth, project, pause = (ms) => sleep(ms) }: GeminiOptions) {
  async function admin<T>({ right, ...call }: Call<T>, baseUrl = apiKeysBaseUrl): Promise<T> {
    const token = await auth.token();
    return http.send<T>({
      ...call,
      service: "google",
      baseUrl,
      headers: { authorization: bearer(token), "x-goog-user-project": project },
      failure: (refusal) => refused(refusal, { doing: call.doing, right, project }),
    });
  }

  async function findRow(keyId: string): Promise<Row | undefined> {
    return admin<Row | undefined>({
      method: "GET",
      route: keyRoute,
      path: { project, key: keyId },
      doing: `while reading key ${keyId}`,
      right: "apikeys.keys.get",
      response: keyRow,
      instead: ({ status }) => (status === 404 ? { value: undefined } : undefined),
    });
  }

  /** Waits for the operation's end, in time for the step that waits for it. Its result is looked up, never taken from it. */
  async function finished(started: Operation, doing: string): Promise<Operation> {
    let state = started;
    const { name } = started;
    let pauseMs = firstPauseMs;
    for (let waitedMs = 0; state.done !== true; waitedMs += pauseMs, pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      if (!name || waitedMs >= operationMs) {
        throw new RotationFailure("Unavailable", `google has not finished ${doing}; look before trying again`);
      }
      await pause(pauseMs);
      state = await admin({
        method: "GET",
        route: "/v2/operations/{operation}",
        path: { operation: name.replace(/^operations\//, "") },
        doing: `while waiting for an operation ${doing}`,
        right: "apikeys.keys.get",
        response: operation,
      });
    }
    return state;
  }

  return { admin, findRow, finished };
}

export function geminiKeyEnd(options: GeminiOptions): KeyEnd & KeySwitch {
  const { project } = options;
  const { admin, findRow, finished } = adminOf(options);

  async function change(call: Omit<Call<Operation>, "response">): Promise<void> {
    const { error } = await finished(await admin({ ...call, response: operation }), call.doing);
    if (error) throw operationFailed(error, { doing: call.doing, right: call.right, project });
  }

  /**
   * Succeeds also when the key is deleted, as long as Google shows it. A read that does not find it is no proof: it is
   * unknown only where the deletion does not find it either.
   */
  async function deleteKey(keyId: string): Promise<void> {
    const row = await findRow(keyId);
    if (row?.key.state === "revoked") return;
    let found = true;
    await change({
      method: "DELETE",
      route: keyRoute,
      path: { project, key: keyId },
      // Without `checkExistingUsage`: it refuses every key that was used within a week.
      doing: `while deleting key ${keyId}`,
      right: "apikeys.keys.delete",
      instead: ({ status }) => {
        if (status !== 404) return undefined;
        found = false;
        return { value: { done: true } };
      },
    });
    if (found || row !== undefined) return;
    throw new RotationFailure(
      "KeyUnknown",
      `google knows no key ${keyId} in project ${project}: nothing was changed; check the id, and whose project it is of`,
    );
  }

  return {
    revokeKey: deleteKey,
    disableKey: deleteKey,

    /** Within 30 days of the deletion; later the key is gone. */
    async enableKey(keyId) {
      const row = await findRow(keyId);
      if (row?.key.state === "active") return;
      const doing = `while undeleting key ${keyId}`;
      let found = true;
      await change({
        method: "POST",
        route: `${keyRoute}:undelete`,
        path: { project, key: keyId },
        body: {},
        doing,
        right: "apikeys.keys.undelete",
        instead: ({ status }) => {
          if (status !== 404) return undefined;
          found = false;
          return { value: { done: true } };
        },
      });
      if (found) return;
      throw new RotationFailure("RequestInvalid", `google has purged key ${keyId} ${doing}: make a new key`);
    },
  };
}

export function createGemini(options: GeminiOptions): ManagedProvider & KeyIssuer & KeyReader & HandIn {
  const { monitoringBaseUrl, project, serviceAccount } = options;
  const { admin, findRow, finished } = adminOf(options);

  async function listRows(): Promise<Row[]> {
    const found: Row[] = [];
    let pageToken: string | undefined;
    for (let page = 0; page < maxPages; page += 1) {
      const { keys, nextPageToken } = await admin({
        method: "GET",
        route: keysRoute,
        path: { project },
        query: { pageSize: 100, pageToken, showDeleted: true },
        doing: `while listing the keys of project ${project}`,
        right: "apikeys.keys.list",
        response: keyPage,
      });
      found.push(...(keys ?? []));
      if (!nextPageToken) return found;
      if (nextPageToken === pageToken) break;
      pageToken = nextPageToken;
    }
    throw endless(`the keys of project ${project}`);
  }

  /** A key of ours under this name: what an earlier attempt with a lost answer left, or what was made just now. */
  async function takeOurs({ key, ours }: Row, name: string): Promise<{ key: KeyRecord; value: Redacted }> {
    if (!ours || key.name !== name) {
      throw new RotationFailure(
        "RequestInvalid",
        `key ${key.id} of project ${project} is there and not ours: look who made it, and delete it`,
      );
    }
    if (key.state !== "active") {
      throw new RotationFailure(
        "Unavailable",
        `key id ${key.id} belongs to a deleted key; the next attempt takes another one`,
      );
    }
    const { keyString: value } = await admin({
      method: "GET",
      route: `${keyRoute}/keyString`,
      path: { project, key: key.id },
      doing: `while reading the value of key ${key.id}`,
      right: "apikeys.keys.getKeyString",
      response: keyString,
    });
    return { key, value };
  }

  async function readSeries(query: UsageQuery, label?: string): Promise<Series[]> {
    const found: Series[] = [];
    let pageToken: string | undefined;
    const filter = [
      'metric.type="serviceruntime.googleapis.com/api/request_count"',
      'resource.type="consumed_api"',
      `resource.labels.service="${geminiService}"`,
      ...(label === undefined ? [] : [`resource.labels.credential_id="${label}"`]),
    ].join(" AND ");
    const start = Math.floor(query.from.getTime() / 1000) * 1000;
    const end = Math.max(Math.ceil(query.to.getTime() / 1000) * 1000, start + 1000);
    for (let page = 0; page < maxPages; page += 1) {
      const answer = await admin(
        {
          method: "GET",
          route: "/v3/projects/{project}/timeSeries",
          path: { project },
          query: {
            filter,
            "interval.startTime": new Date(start).toISOString(),
            "interval.endTime": new Date(end).toISOString(),
            "aggregation.alignmentPeriod": "60s",
            "aggregation.perSeriesAligner": "ALIGN_SUM",
            pageSize: 10_000,
            pageToken,
          },
          doing: `while reading the usage of project ${project}`,
          right: "monitoring.timeSeries.list (role roles/monitoring.viewer)",
          response: seriesPage,
        },
        monitoringBaseUrl,
      );
      if ((answer.executionErrors ?? []).length > 0) {
        throw new RotationFailure("Unavailable", `google's usage of project ${project} is incomplete; try again`);
      }
      found.push(...(answer.timeSeries ?? []));
      if (!answer.nextPageToken) return found;
      if (answer.nextPageToken === pageToken) break;
      pageToken = answer.nextPageToken;
    }
    throw endless(`the usage of project ${project}`);
  }

  /**
   * Whether usage is told under the names of keys. It is not where something else is named and no key bound to a
   * service account is: the documentation leaves open what auth keys are called there (2026-09).
   */
  async function isToldByKey(query: UsageQuery): Promise<boolean> {
    const series = await readSeries(query);
    const labels = new Set(series.flatMap(({ resource }) => resource?.labels?.["credential_id"] ?? []));
    if (labels.size === 0) return true;
    const rows = await listRows();
    const bound = rows.some(({ uid, key }) => key.owner !== undefined && labels.has(labelOf(uid)));
    const known = new Set(rows.map(({ uid }) => labelOf(uid)));
    return bound || [...labels].every((label) => known.has(label));
  }

  return {
    ...geminiByHand(options),
    switchable: true,

    /** Reads keys and usage with it. Whether it may make and bind keys, only doing so shows. */
    async checkAdminCredential() {
      await admin({
        method: "GET",
        route: keysRoute,
        path: { project },
        query: { pageSize: 1 },
        doing: `while listing the keys of project ${project}`,
        right: "apikeys.keys.list",
        response: keyPage,
      });
      await readSeries({ keyIds: [], from: new Date(Date.now() - minuteMs), to: new Date() });
    },

    /**
     * Google shows a live key's value again to whoever may read it (`getKeyString`, discovery document apikeys:v2,
     * revision 20260818); a credential without that right leaves it unknown.
     */
    async readValue(keyId) {
      return admin<Redacted | undefined>({
        method: "GET",
        route: `${keyRoute}/keyString`,
        path: { project, key: keyId },
        doing: `while reading the value of key ${keyId}`,
        right: "apikeys.keys.getKeyString",
        response: keyString.transform((answer) => answer.keyString),
        instead: ({ status }) => ([400, 403, 404].includes(status) ? { value: undefined } : undefined),
      });
    },

    standingOf({ owner }) {
      if (owner === undefined) return "unbound";
      return owner.id === serviceAccount ? "own" : "foreign";
    },

    /** All keys of the project, those deleted within 30 days included. */
    async listKeys() {
      return (await listRows()).map(({ key }) => key);
    },

    async findKey(keyId) {
      return (await findRow(keyId))?.key;
    },

    /**
     * Makes the key under an id derived from its name. Where one of that name is there already, it is ours from an
     * earlier attempt, and its value is read: nothing is lost, nothing is made twice. Keys of Google do not expire.
     */
    async issueKey({ name }) {
      const id = keyIdOf(name);
      const earlier = await findRow(id);
      if (earlier !== undefined) return takeOurs(earlier, name);
      const doing = `while issuing key ${name}`;
      const right = "apikeys.keys.create and, for the binding, iam.serviceAccountApiKeyBindings.create";
      const started = await admin({
        method: "POST",
        route: keysRoute,
        path: { project },
        query: { keyId: id },
        body: {
          displayName: name.slice(0, displayNameLength),
          serviceAccountEmail: serviceAccount,
          annotations: { "managed-by": managedBy, "keyturn-name": name },
          restrictions: { apiTargets: [{ service: geminiService }] },
        },
        doing,
        right,
        response: operation,
        // Made meanwhile, by an attempt whose answer was lost.
        instead: (refusal) => (refusal.status === 409 && isTaken(refusal) ? { value: { done: true } } : undefined),
      });
      const { error } = await finished(started, doing);
      if (error && error.code !== grpc.alreadyExists) throw operationFailed(error, { doing, right, project });
      const made = await findRow(id);
      if (made === undefined) {
        throw new RotationFailure("Unavailable", `google made key ${name} and does not show it yet; look again`);
      }
      return takeOurs(made, name);
    },

    /** Keys of this API have no expiry (v2, 2026-08): nothing to set, no end to tell. */
    async setKeyLife() {
      return undefined;
    },

    /** Requests only; each key by the label its `uid` gives, all series and pages. */
    async readUsage(query): Promise<UsageReport> {
      const buckets: UsageBucket[] = [];
      let bucketMs = 0;
      let seen = false;
      const notShown: string[] = [];
      for (const keyId of query.keyIds) {
        const uid = (await findRow(keyId))?.uid;
        if (uid === undefined) notShown.push(keyId);
        const series = await readSeries(query, labelOf(uid ?? keyId));
        seen ||= series.length > 0;
        const use = bucketsOf(keyId, series);
        buckets.push(...use.buckets);
        bucketMs = Math.max(bucketMs, use.bucketMs);
      }
      const perKey = seen || (await isToldByKey(query));
      return {
        buckets,
        // No bucket at all: the width that was asked for.
        bucketMs: bucketMs === 0 ? minuteMs : bucketMs,
        unknownSurfaces: [],
        ...(perKey ? {} : { perKey }),
        ...(notShown.length === 0 ? {} : { notShown }),
      };
    },

    /** Google itself looks the value up, so there is nothing to guess. */
    async identifyKey(value, { openedAt }): Promise<Identified> {
      try {
        const found = await admin<{ name?: string | null | undefined } | "not told" | undefined>({
          method: "GET",
          route: "/v2/keys:lookupKey",
          query: { keyString: value },
          doing: "while looking up a key by its value",
          right: "apikeys.keys.lookup",
          response: z.object({ name: z.string().nullish() }),
          instead: ({ status }) => {
            if (status === 403) return { value: "not told" };
            return status === 404 || status === 400 ? { value: undefined } : undefined;
          },
        });
        if (found === "not told") {
          return {
            kind: "unknown",
            message: `google does not say whose key this is: it is none of project ${project}'s, or our credential lacks apikeys.keys.lookup`,
          };
        }
        if (!found?.name) return judgeHandedIn([], { openedAt, stranger: () => undefined });
        const row = await findRow(lastPart(found.name));
        if (row?.resource !== found.name) {
          return {
            kind: "refused",
            fault: "wrong project",
            message: `this key belongs to another project than ${project}: make one where the instructions say`,
          };
        }
        return judgeHandedIn([row.key], { openedAt, stranger: () => undefined });
      } catch (error) {
        if (!(error instanceof RotationFailure) || error.type !== "AdminCredentialRejected") throw error;
        return { kind: "unknown", message: error.message };
      }
    },
  };
}

/**
 * A key id that says what it is and is the same for the same name: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`, no UUID. The hash
 * keeps apart names that look alike once cut.
 */
export function keyIdOf(name: string): string {
  const hash = createHash("sha256").update(name, "utf8").digest("hex").slice(0, 10);
  const words = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-+|-+$/g, "");
  return `${/^[a-z]/.test(words) ? "" : "k-"}${words}`.slice(0, 52).replace(/-+$/, "") + `-${hash}`;
}

function lastPart(resource: string): string {
  return resource.slice(resource.lastIndexOf("/") + 1);
}

/** As usage names a key. A resource label, not a metric label. */
function labelOf(uid: string): string {
  return `apikey:${uid}`;
}

/** The series of one key (by method, by response) as one row of buckets. */
function bucketsOf(keyId: string, series: Series[]): { buckets: UsageBucket[]; bucketMs: number } {
  const byTime = new Map<string, UsageBucket>();
  let bucketMs = 0;
  for (const { interval, value } of series.flatMap(({ points }) => points ?? [])) {
    const to = interval.endTime;
    // A point without a begin, or of no length, covers the minute before it.
    const widthMs = to.getTime() - (interval.startTime ?? to).getTime() || minuteMs;
    const from = new Date(to.getTime() - widthMs);
    bucketMs = Math.max(bucketMs, widthMs);
    // A point that counts in a form we do not know is use: it does not say zero.
    const requests = Number(value.int64Value ?? value.doubleValue ?? 1);
    if (requests === 0) continue;
    const at = `${from.getTime()} ${to.getTime()}`;
    const bucket = byTime.get(at) ?? { keyId, from, to, requests: 0, tokens: 0 };
    bucket.requests += requests;
    byTime.set(at, bucket);
  }
  return { buckets: [...byTime.values()], bucketMs };
}

interface Doing {
  doing: string;
  right: string;
  project: string;
}

/** What a refusal of the management APIs asks for; nothing leaves it to the default mapping. */
function refused(refusal: Exchange, asked: Doing): RotationFailure | undefined {
  const { status, trace } = refusal;
  if (status === 429 || status === 408 || status >= 500) return undefined;
  const { status: word = "", reason = "", message = "" } = readErrorFacts(refusal.body) ?? {};
  if (isPolicy(`${reason} ${message}`)) return policyForbids(asked, trace);
  if (status === 401)
    return credentialRejected(asked, "renew the application default credentials, or GOOGLE_OAUTH_ACCESS_TOKEN", trace);
  if (status === 403 && reason === "SERVICE_DISABLED") {
    return credentialRejected(asked, "enable the API Keys, Generative Language and Monitoring APIs in it", trace);
  }
  if (status === 403) return credentialRejected(asked, grantOf(asked), trace);
  if (status === 404) {
    return new RotationFailure(
      "SlotMissing",
      `google knows no such thing in project ${asked.project} ${asked.doing}: check project and service account in the inventory${trace}`,
    );
  }
  if (status === 409 && word === "ABORTED") {
    return new RotationFailure("Unavailable", `google was changing the same key ${asked.doing}; try again${trace}`);
  }
  return word === "FAILED_PRECONDITION" ? preconditionFailed(asked, trace) : undefined;
}

/** Codes of google.rpc.Code. */
const grpc = {
  deadlineExceeded: 4,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
};

/** An operation that ended badly; its message may echo what was asked and is matched in memory only. */
function operationFailed({ code, message }: NonNullable<Operation["error"]>, asked: Doing): RotationFailure {
  if (isPolicy(message ?? "")) return policyForbids(asked, "");
  switch (code) {
    case grpc.permissionDenied:
    case grpc.unauthenticated:
      return credentialRejected(asked, grantOf(asked), "");
    case grpc.resourceExhausted:
      return new RotationFailure("RateLimited", `google limits our requests ${asked.doing}`);
    case grpc.failedPrecondition:
      return preconditionFailed(asked, "");
    case grpc.deadlineExceeded:
    case grpc.aborted:
    case grpc.internal:
    case grpc.unavailable:
      return new RotationFailure("Unavailable", `google failed ${asked.doing}; look before trying again`);
    case null:
    case undefined:
    default:
      return new RotationFailure(
        "RequestInvalid",
        `google refused the operation ${asked.doing} with code ${code ?? "unknown"}; report it as our bug`,
      );
  }
}

function isTaken(refusal: Exchange): boolean {
  return readErrorFacts(refusal.body)?.status !== "ABORTED";
}

/** The default policy against keys bound to service accounts, as users have met it (public repositories, 2026). */
function isPolicy(words: string): boolean {
  return /disableServiceAccountApiKeyCreation|FLOW_APIKEY_SERVICE_ACCOUNT_BINDING|org(?:anization)? policy|constraints\//i.test(
    words,
  );
}

function policyForbids({ doing, project }: Doing, trace: string): RotationFailure {
  return new RotationFailure(
    "RequestInvalid",
    `an organization policy forbids it in project ${project} ${doing}: exempt the project from constraints/iam.managed.disableServiceAccountApiKeyCreation${trace}`,
  );
}

function preconditionFailed({ doing, project }: Doing, trace: string): RotationFailure {
  return new RotationFailure(
    "RequestInvalid",
    `google finds project ${project} not in the state for it ${doing}: look at its billing, its service account and its organization's policies${trace}`,
  );
}

function grantOf({ right, project }: Doing): string {
  return `grant ${right} in project ${project} (roles/serviceusage.apiKeysAdmin has those for keys)`;
}

function credentialRejected({ doing, project }: Doing, next: string, trace: string): RotationFailure {
  return new RotationFailure(
    "AdminCredentialRejected",
    `google refused the admin credential for project ${project} ${doing}: ${next}${trace}`,
  );
}

function endless(what: string): RotationFailure {
  return new RotationFailure("ResponseUnexpected", `google's pages do not end for ${what}; report it as our bug`);
}
