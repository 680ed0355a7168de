/**
 * Google's API Keys API v2: create, read, patch, delete, undelete, and the operations that report them.
 * Discovery document `apikeys:v2`, revision 20260818. Google publishes no answer for an id of a deleted key
 * (here 409), a stale etag (409 ABORTED) or a second delete (404); these follow https://google.aip.dev/154 and 164.
 */
import { randomUUID } from "node:crypto";
import { rfc3339 } from "./clock.ts";
import type { Reply, Request, Service } from "./exchange.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import type { GoogleParts } from "./google-errors.ts";
import { googleError, googleFault, refusedToken } from "./google-errors.ts";
import type { GoogleProject, ListedGoogleKey } from "./google-state.ts";
import { googleDetail, isAuthKey, keyResource, newGoogleValue, projectOf } from "./google-state.ts";
import { revive } from "./key-life.ts";
import type { Key } from "./keys.ts";
import type { Call, Route } from "./routes.ts";
import { match, route } from "./routes.ts";

const service = "apikeys.googleapis.com";
const prefix = "/v2";
const recentUseMs = 7 * 86_400_000;
const mutable = ["restrictions", "displayName", "annotations"];
const clientRestrictions = [
  "serverKeyRestrictions",
  "browserKeyRestrictions",
  "androidKeyRestrictions",
  "iosKeyRestrictions",
];
const keyIdPattern = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;
const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

type Access = "apikeys read" | "apikeys write";

const invalid = (message: string): Reply => googleError(400, message);

export function createApiKeys(parts: GoogleParts): Service {
  const { state, settings, clock, keys, chance, lies } = parts;
  const base = "/projects/:project/locations/:location/keys";
  const lagged = (): number => clock.now() - clock.span(settings.listLagMs);
  const quota = createQuota(parts);

  const etag = (key: Key): string => `W/"${Buffer.from(`${key.id} ${googleDetail(key).version}`).toString("base64")}"`;

  function shown(key: Key, { deletedAt }: ListedGoogleKey): Record<string, unknown> {
    const { resource, uid, annotations, restrictions, serviceAccountEmail, updatedAt } = googleDetail(key);
    return {
      name: resource,
      uid,
      displayName: key.name,
      createTime: rfc3339(key.createdAt),
      updateTime: rfc3339(updatedAt),
      ...(deletedAt === undefined ? {} : { deleteTime: rfc3339(deletedAt) }),
      ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
      ...(Object.keys(restrictions).length === 0 ? {} : { restrictions }),
      ...(serviceAccountEmail === undefined ? {} : { serviceAccountEmail }),
      etag: etag(key),
    };
  }

  /** Starts an operation that is done after a moment. */
  function operation(project: GoogleProject, outcome: () => Record<string, unknown>): Reply {
    const name = `operations/akmf.p7-${project.number}-${randomUUID()}`;
    const readyAt = clock.now() + clock.span(settings.operationMs);
    state.operations.set(name, { name, readyAt, outcome });
    return json(200, shownOperation(name));
  }
  function shownOperation(name: string): Record<string, unknown> {
    const found = state.operations.get(name);
    if (found === undefined || clock.now() < found.readyAt) return { name, done: false };
    return { name, done: true, ...found.outcome() };
  }
  /** Replies of create, delete and undelete carry the key string. */
  const keyOutcome = (key: Key, withString: boolean) => {
    const resource = googleDetail(key).resource;
    return (): Record<string, unknown> => ({
      response: {
        "@type": "type.googleapis.com/google.api.apikeys.v2.Key",
        ...shown(key, state.listed.get(resource) ?? { id: key.id, deletedAt: undefined }),
        ...(withString ? { keyString: key.value } : {}),
      },
    });
  };

  const inProject =
    (work: (project: GoogleProject, call: Call) => Reply) =>
    (call: Call): Reply => {
      const named = call.params["project"] ?? "";
      const project = projectOf(state, named);
      if (project === undefined) {
        return googleError(403, `Permission denied on resource project ${named}.`, {
          reason: "CONSUMER_INVALID",
          service,
        });
      }
      if (call.params["location"] !== "global") return invalid("Location must be global.");
      return quota(project, call.request) ?? work(project, call);
    };
  const withKey = (work: (key: Key, listed: ListedGoogleKey, project: GoogleProject, call: Call) => Reply) =>
    inProject((project, call) => {
      const resource = keyResource(project, (call.params["key"] ?? "").replace(/:undelete$/, ""));
      const listed = state.listed.get(resource);
      const key = listed === undefined ? undefined : keys.byId(listed.id);
      if (key === undefined || listed === undefined)
        return googleError(404, `Requested entity was not found: ${resource}`);
      return work(key, listed, project, call);
    });

  function problemOf(given: Record<string, unknown>): string | undefined {
    const { displayName, annotations, restrictions } = given;
    if (displayName !== undefined && (typeof displayName !== "string" || displayName.length > 63)) {
      return "displayName must be a string of at most 63 characters";
    }
    const notes = Object.values(asObject(annotations));
    if (notes.some((note) => typeof note !== "string")) return "annotations must be strings";
    const kinds = clientRestrictions.filter((kind) => asObject(restrictions)[kind] !== undefined);
    return kinds.length > 1 ? "only one kind of client restriction may be set" : undefined;
  }

  function create(project: GoogleProject, { request, query }: Call): Reply {
    const body = jsonBody(request);
    if (request.body !== "" && body === undefined) return invalid("Invalid JSON payload received.");
    const given = asObject(body);
    const keyId = query.get("keyId") ?? randomUUID();
    if (query.get("keyId") !== null && (!keyIdPattern.test(keyId) || uuidPattern.test(keyId))) {
      return invalid(`Invalid key id ${keyId}: it must match ${keyIdPattern.source} and may not be a UUID`);
    }
    const problem = problemOf(given);
    if (problem !== undefined) return invalid(problem);
    const email = given["serviceAccountEmail"];
    const account = typeof email === "string" ? state.serviceAccounts.get(email) : undefined;
    if (email !== undefined && account?.projectId !== project.id) {
      return invalid(`Service account ${String(email)} does not exist in this project.`);
    }
    const resource = keyResource(project, keyId);
    if (state.listed.get(resource) !== undefined || state.pending.has(resource)) {
      return googleError(409, `Requested entity already exists: ${resource}`);
    }
    const value = newGoogleValue(account !== undefined);
    const uid = randomUUID();
    // Until the operation is done the key cannot be read, but its id is taken.
    state.pending.add(resource);
    let key: Key | undefined;
    const finish = (): Key => {
      if (key !== undefined) return key;
      const now = clock.now();
      key = keys.add({
        id: keys.byId(keyId) === undefined ? keyId : `${project.id}/${keyId}`,
        provider: "google",
        name: String(given["displayName"] ?? ""),
        value,
        createdAt: now,
        detail: {
          projectId: project.id,
          keyId,
          resource,
          uid,
          serviceAccountEmail: account?.email,
          annotations: asObject(given["annotations"]),
          restrictions: asObject(given["restrictions"]),
          updatedAt: now,
          version: 1,
        },
      });
      state.pending.delete(resource);
      state.listed.set(resource, { id: key.id, deletedAt: undefined }, now);
      return key;
    };
    const reply = operation(project, () => keyOutcome(finish(), true)());
    if (settings.operationMs > 0) clock.later(clock.span(settings.operationMs), finish);
    else finish();
    return reply;
  }

  /** Why a guarded change is refused: the key was used in the last 7 days. */
  function inUse(key: Key, query: URLSearchParams): Reply | undefined {
    if (query.get("checkExistingUsage") !== "CHECK") return undefined;
    const last = keys.lastUseSeen(key, 0);
    if (last === undefined || clock.now() - last > recentUseMs) return undefined;
    return googleError(400, "The key was used in the last 7 days.", { status: "FAILED_PRECONDITION" });
  }
  const stale = (key: Key, given: unknown): Reply | undefined =>
    given === null || given === undefined || given === "" || given === etag(key)
      ? undefined
      : googleError(409, "The etag provided does not match the etag of the key.", { status: "ABORTED" });

  function patch(key: Key, listed: ListedGoogleKey, project: GoogleProject, { request, query }: Call): Reply {
    const body = jsonBody(request);
    if (body === undefined) return invalid("Invalid JSON payload received.");
    const given = asObject(body);
    const mask = query.get("updateMask");
    const fields =
      mask === null || mask === "" || mask === "*"
        ? mutable.filter((name) => mask === "*" || given[name] !== undefined)
        : mask.split(",").map((name) => name.trim().replace("display_name", "displayName"));
    const unknown = fields.find((name) => !mutable.includes(name));
    if (unknown !== undefined) return invalid(`Field ${unknown} in updateMask cannot be updated.`);
    if (listed.deletedAt !== undefined)
      return googleError(400, "The key is deleted.", { status: "FAILED_PRECONDITION" });
    const problem = problemOf(given);
    if (problem !== undefined) return invalid(problem);
    const refused = stale(key, given["etag"]) ?? inUse(key, query);
    if (refused !== undefined) return refused;
    const detail = googleDetail(key);
    if (fields.includes("displayName")) key.name = String(given["displayName"] ?? "");
    if (fields.includes("annotations")) detail.annotations = asObject(given["annotations"]) as Record<string, string>;
    if (fields.includes("restrictions")) detail.restrictions = asObject(given["restrictions"]);
    touch(key);
    return operation(project, keyOutcome(key, false));
  }

  function remove(key: Key, listed: ListedGoogleKey, project: GoogleProject, { query }: Call): Reply {
    if (listed.deletedAt !== undefined) return googleError(404, "Requested entity was not found.");
    const refused = stale(key, query.get("etag")) ?? inUse(key, query);
    if (refused !== undefined) return refused;
    const now = clock.now();
    const { minMs, maxMs } = settings.googleStandardDeathMs;
    key.revokedAt = now;
    key.deadAt = now + clock.span(isAuthKey(key.value) ? settings.googleDeathMs : minMs + chance() * (maxMs - minMs));
    touch(key);
    state.listed.set(googleDetail(key).resource, { id: key.id, deletedAt: now }, now);
    return operation(project, keyOutcome(key, true));
  }

  function undelete(key: Key, listed: ListedGoogleKey, project: GoogleProject): Reply {
    if (listed.deletedAt === undefined) return googleError(409, "The key is not deleted.");
    const now = clock.now();
    revive(key, now, clock.span(settings.reviveMs));
    touch(key);
    state.listed.set(googleDetail(key).resource, { id: key.id, deletedAt: undefined }, now);
    return operation(project, keyOutcome(key, true));
  }

  function touch(key: Key): void {
    const detail = googleDetail(key);
    detail.updatedAt = clock.now();
    detail.version++;
  }

  function readKey(project: GoogleProject, { params }: Call): Reply {
    const resource = keyResource(project, params["key"] ?? "");
    const listed = lies.read("google-keys", state.listed, resource, ({ id }) => [id, resource]);
    const key = listed === undefined ? undefined : keys.byId(listed.id);
    return key === undefined || listed === undefined
      ? googleError(404, `Requested entity was not found: ${resource}`)
      : json(200, shown(key, listed));
  }

  function list(project: GoogleProject, { query }: Call): Reply {
    const pageSize = Number(query.get("pageSize") ?? 0);
    if (!Number.isInteger(pageSize) || pageSize < 0) return invalid("pageSize must not be negative.");
    const size = Math.min(pageSize === 0 ? 50 : pageSize, 300);
    const token = query.get("pageToken");
    const first = token === null || token === "" ? 0 : Number(Buffer.from(token, "base64url").toString());
    if (!Number.isInteger(first)) return invalid("pageToken is invalid.");
    const rows = lies.shown("google-keys", state.listed.list(lagged()), ({ id }) => [id]);
    const found = rows.flatMap((listed) => {
      const key = keys.byId(listed.id);
      const wanted = listed.deletedAt === undefined || query.get("showDeleted") === "true";
      return key !== undefined && wanted && googleDetail(key).projectId === project.id ? [shown(key, listed)] : [];
    });
    const shownKeys = found.slice(first, first + size);
    const more = first + size < found.length;
    return json(200, {
      ...(shownKeys.length === 0 ? {} : { keys: shownKeys }),
      ...(more ? { nextPageToken: Buffer.from(String(first + size)).toString("base64url") } : {}),
    });
  }

  function lookup({ query }: Call): Reply {
    const key = keys.byValue(query.get("keyString") ?? "");
    if (key === undefined || key.provider !== "google") return googleError(403, "Permission denied on the key string.");
    const { resource } = googleDetail(key);
    return json(200, { parent: resource.split("/").slice(0, 4).join("/"), name: resource });
  }

  const read: Access = "apikeys read";
  const write: Access = "apikeys write";
  const routes: Route<Access>[] = [
    route("GET", "/keys:lookupKey", read, lookup),
    route("GET", "/operations/:operation", read, ({ params }) => {
      const name = `operations/${params["operation"] ?? ""}`;
      return state.operations.has(name)
        ? json(200, shownOperation(name))
        : googleError(404, `Operation ${name} was not found.`);
    }),
    route("GET", base, read, inProject(list)),
    route("POST", base, write, inProject(create)),
    route("GET", `${base}/:key`, read, inProject(readKey)),
    // The key string is a secret: the read-only scope does not give it here.
    route(
      "GET",
      `${base}/:key/keyString`,
      write,
      withKey((key) => json(200, { keyString: key.value })),
    ),
    route("PATCH", `${base}/:key`, write, withKey(patch)),
    route("DELETE", `${base}/:key`, write, withKey(remove)),
    route("POST", `${base}/:key`, write, (call) =>
      call.params["key"]?.endsWith(":undelete") === true
        ? withKey(undelete)(call)
        : googleError(404, "Requested entity was not found."),
    ),
  ];

  return {
    name: "apikeys",
    handle(request) {
      const found = match(routes, prefix, request);
      const needed = found.kind === "found" ? found.route.extra : read;
      const refused = refusedToken(state, request, needed, service);
      if (refused !== undefined) return refused;
      return found.kind === "found" ? found.route.handle(found.call) : googleError(404, "Method not found.");
    },
    errorBody: googleFault,
    recorded: () => true,
  };
}

/** Reads and writes of each project a minute, in fixed windows. */
function createQuota({
  settings,
  clock,
}: GoogleParts): (project: GoogleProject, request: Request) => Reply | undefined {
  const windows = new Map<string, { startedAt: number; calls: number }>();
  return (project, request) => {
    const kind = request.method === "GET" ? "reads" : "writes";
    const now = clock.now();
    const name = `${project.id} ${kind}`;
    let window = windows.get(name);
    if (window === undefined || now - window.startedAt >= clock.span(60_000)) {
      windows.set(name, (window = { startedAt: now, calls: 0 }));
    }
    window.calls++;
    if (window.calls <= settings.googleQuota[kind]) return undefined;
    return googleError(429, `Quota exceeded for quota metric '${kind}' of service '${service}'.`, {
      reason: "RATE_LIMIT_EXCEEDED",
      service,
    });
  };
}
