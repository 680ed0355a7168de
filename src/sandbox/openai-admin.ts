/**
 * OpenAI's administration: projects, service accounts, keys, admin keys, audit logs.
 * https://developers.openai.com/api/reference (2026-08), and what npm `openai` 7.57.0 says has changed since.
 */
import type { Clock } from "./clock.ts";
import { unixSeconds } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import type { Key } from "./keys.ts";
import type { OpenAiParts } from "./openai-errors.ts";
import { openAiError } from "./openai-errors.ts";
import type { AdminKey, Project, ServiceAccount } from "./openai-state.ts";
import { detailOf } from "./openai-state.ts";
import { wordId } from "./random.ts";
import type { Call, Route } from "./routes.ts";
import { queryList, route } from "./routes.ts";

const maxLifeSeconds = 31_536_000;

/** As OpenAI masks a key: enough to tell two apart, not to use one. */
export const redacted = (value: string): string => `${value.slice(0, 6)}...${value.slice(-4)}`;

const notFound = (what: string): Reply => openAiError(404, { message: `No such ${what}` });

const seconds = (at: number | undefined): number | null => (at === undefined ? null : unixSeconds(at));

export function adminRoutes(parts: OpenAiParts): Route<undefined>[] {
  const { state, settings, clock, keys, lies } = parts;
  const projects = "/organization/projects";
  const accounts = `${projects}/:project/service_accounts`;
  const projectKeys = `${projects}/:project/api_keys`;
  const lagged = (): number => clock.now() - clock.span(settings.listLagMs);
  const on = (method: string, path: string, handle: (call: Call) => Reply): Route<undefined> =>
    route(method, path, undefined, handle);

  const audit = (call: Call, type: string, payload: Record<string, unknown>): void => {
    const value = call.request.headers["authorization"]?.replace(/^Bearer /, "") ?? "";
    state.audit.push({
      id: `audit_log-${wordId(20)}`,
      type,
      at: clock.now(),
      projectId: call.params["project"],
      actorKeyId: state.adminKeys.get(value)?.id ?? "",
      payload,
    });
  };

  const inProject =
    (work: (project: Project, call: Call) => Reply) =>
    (call: Call): Reply => {
      const project = state.projects.get(call.params["project"] ?? "");
      if (project === undefined) return notFound(`project: ${call.params["project"] ?? ""}`);
      if (project.archivedAt !== undefined && /service_accounts|api_keys/.test(call.request.path)) {
        return openAiError(400, { message: "Project is archived" });
      }
      return work(project, call);
    };
  const withAccount = (work: (account: ServiceAccount, call: Call) => Reply) =>
    inProject((project, call) => {
      const account = state.serviceAccounts.get(call.params["account"] ?? "");
      return account === undefined || account.projectId !== project.id
        ? notFound(`service account: ${call.params["account"] ?? ""}`)
        : work(account, call);
    });
  const withKey = (work: (key: Key, call: Call) => Reply) =>
    inProject((project, call) => {
      const id = call.params["key"] ?? "";
      const key = state.keyIds.get(id) === undefined ? undefined : keys.byId(id);
      return key === undefined || detailOf(key).projectId !== project.id ? notFound(`API key: ${id}`) : work(key, call);
    });

  const shownProject = (project: Project): Record<string, unknown> => ({
    id: project.id,
    object: "organization.project",
    name: project.name,
    created_at: unixSeconds(project.createdAt),
    archived_at: seconds(project.archivedAt),
    status: project.archivedAt === undefined ? "active" : "archived",
  });
  const shownAccount = (account: ServiceAccount): Record<string, unknown> => ({
    object: "organization.project.service_account",
    id: account.id,
    name: account.name,
    role: account.role,
    created_at: unixSeconds(account.createdAt),
  });
  /** The one answer with the value in it. */
  const shownNewKey = (key: Key): Record<string, unknown> => ({
    object: "organization.project.service_account.api_key",
    id: key.id,
    name: key.name,
    value: key.value,
    created_at: unixSeconds(key.createdAt),
    expires_at: seconds(key.expiresAt),
  });
  /** `expiresAt` as it was at a moment, by default as it is. */
  const shownKey = (key: Key, moment?: number): Record<string, unknown> => {
    const then = moment === undefined ? undefined : state.lives.at(key.id, moment);
    const account = state.serviceAccounts.get(detailOf(key).serviceAccountId);
    return {
      object: "organization.project.api_key",
      id: key.id,
      name: key.name,
      redacted_value: redacted(key.value),
      created_at: unixSeconds(key.createdAt),
      last_used_at: seconds(keys.lastUseSeen(key, clock.span(settings.lastUsedLagMs))),
      expires_at: seconds(then === undefined ? key.expiresAt : (then ?? undefined)),
      owner_project_access: ownerAccess(account),
      owner: {
        type: "service_account",
        ...(account === undefined ? {} : { service_account: ownerOf(account) }),
      },
    };
  };

  /** The wanted life in milliseconds, undefined for none, or why it is refused. */
  function lifeOf(given: Record<string, unknown>): number | undefined | Reply {
    const wanted = given["expires_in_seconds"];
    const most = settings.maxKeyLifeSeconds;
    const param = "expires_in_seconds";
    if (wanted === undefined || wanted === null) {
      if (most === 0) return undefined;
      return openAiError(400, {
        message: `expires_in_seconds is required: your organization allows at most ${most} seconds`,
        param,
      });
    }
    if (typeof wanted !== "number" || !Number.isInteger(wanted)) {
      return openAiError(400, { message: "expires_in_seconds must be an integer", param });
    }
    if (wanted < 1 || wanted > maxLifeSeconds || (most > 0 && wanted > most)) {
      const limit = most > 0 ? Math.min(most, maxLifeSeconds) : maxLifeSeconds;
      return openAiError(400, {
        message: `expires_in_seconds must be between 1 and ${limit}`,
        param,
      });
    }
    return wanted * 1_000;
  }

  function issue(account: ServiceAccount, given: Record<string, unknown>, name: string): Key | Reply {
    const life = lifeOf(given);
    if (typeof life === "object") return life;
    const scopes = given["scopes"];
    if (scopes !== undefined && !isStrings(scopes)) {
      return openAiError(400, { message: "scopes must be an array of strings", param: "scopes" });
    }
    const key = keys.add({
      id: `key_${wordId(16)}`,
      provider: "openai",
      name,
      value: `sk-svcacct-${wordId(70)}`,
      createdAt: clock.now(),
      expiresAt: life === undefined ? undefined : clock.now() + life,
      detail: {
        projectId: account.projectId,
        serviceAccountId: account.id,
        scopes: scopes ?? [],
      },
    });
    state.keyIds.set(key.id, key.id, clock.now());
    state.lives.set(key.id, key.expiresAt ?? null, clock.now());
    return key;
  }

  function end(key: Key): void {
    key.revokedAt ??= clock.now();
    key.deadAt ??= clock.now() + clock.span(settings.deathMs);
    state.keyIds.set(key.id, undefined, clock.now());
  }

  function createAccount(project: Project, call: Call): Reply {
    const given = asObject(jsonBody(call.request));
    const name = given["name"];
    if (typeof name !== "string" || name === "") {
      return openAiError(400, { message: "Missing required parameter: 'name'.", param: "name" });
    }
    const accountOnly = given["create_service_account_only"] === true;
    if (accountOnly && typeof given["expires_in_seconds"] === "number") {
      return openAiError(400, {
        message: "expires_in_seconds needs an API key to be created",
        param: "expires_in_seconds",
      });
    }
    const account: ServiceAccount = {
      id: `svc_acct_${wordId(16)}`,
      projectId: project.id,
      name,
      role: accountOnly ? "none" : "member",
      createdAt: clock.now(),
    };
    if (accountOnly) {
      state.serviceAccounts.set(account.id, account, clock.now());
      audit(call, "service_account.created", { id: account.id, data: { role: account.role } });
      return json(200, { ...shownAccount(account), api_key: null });
    }
    const key = issue(account, given, "Secret Key");
    if (!("value" in key)) return key;
    state.serviceAccounts.set(account.id, account, clock.now());
    audit(call, "service_account.created", { id: account.id, data: { role: account.role } });
    audit(call, "api_key.created", { id: key.id, data: { scopes: detailOf(key).scopes } });
    return json(200, { ...shownAccount(account), api_key: shownNewKey(key) });
  }

  function updateAccount(account: ServiceAccount, call: Call): Reply {
    const { name, role } = asObject(jsonBody(call.request));
    const changed = { ...account };
    if (typeof name === "string") changed.name = name;
    if (role === "member" || role === "owner") changed.role = role;
    state.serviceAccounts.set(account.id, changed, clock.now());
    audit(call, "service_account.updated", { id: account.id });
    return json(200, shownAccount(changed));
  }

  function removeAccount(account: ServiceAccount, call: Call): Reply {
    for (const key of keys.all()) {
      if (key.provider !== "openai" || detailOf(key).serviceAccountId !== account.id) continue;
      if (state.keyIds.get(key.id) !== undefined) end(key);
    }
    state.serviceAccounts.set(account.id, undefined, clock.now());
    audit(call, "service_account.deleted", { id: account.id });
    return json(200, {
      object: "organization.project.service_account.deleted",
      id: account.id,
      deleted: true,
    });
  }

  function createKey(account: ServiceAccount, call: Call): Reply {
    const body = call.request.body === "" ? {} : jsonBody(call.request);
    if (body === undefined) return openAiError(400, { message: "could not parse the JSON body" });
    const given = asObject(body);
    const name = typeof given["name"] === "string" ? given["name"] : "Secret Key";
    const key = issue(account, given, name);
    if (!("value" in key)) return key;
    audit(call, "api_key.created", { id: key.id, data: { scopes: detailOf(key).scopes } });
    return json(200, shownNewKey(key));
  }

  function updateKey(key: Key, call: Call): Reply {
    const given = asObject(jsonBody(call.request));
    const { scopes, expires_in_seconds: wanted } = given;
    if (scopes === undefined && wanted === undefined) {
      return openAiError(400, { message: "Provide expires_in_seconds or scopes" });
    }
    if (scopes === null || wanted === null) {
      return openAiError(400, { message: "expires_in_seconds and scopes may not be null" });
    }
    if (keys.stateOf(key) !== "active") {
      return openAiError(400, { message: "Expired API keys cannot be updated" });
    }
    if (scopes !== undefined && !isStrings(scopes)) {
      return openAiError(400, { message: "scopes must be an array of strings", param: "scopes" });
    }
    if (wanted !== undefined) {
      const life = lifeOf(given);
      if (typeof life === "object") return life;
      key.expiresAt = clock.now() + (life ?? 0);
      state.lives.set(key.id, key.expiresAt, clock.now());
    }
    if (scopes !== undefined) key.detail["scopes"] = scopes;
    audit(call, "api_key.updated", { id: key.id, data: { scopes: detailOf(key).scopes } });
    return json(200, shownKey(key));
  }

  function removeKey(key: Key, call: Call): Reply {
    end(key);
    audit(call, "api_key.deleted", { id: key.id });
    return json(200, { object: "organization.project.api_key.deleted", id: key.id, deleted: true });
  }

  function readKey(project: Project, call: Call): Reply {
    const id = call.params["key"] ?? "";
    const key = keys.byId(id);
    const at = lies.moment("openai-keys", key === undefined ? [id] : [id, key.name]);
    const known = at === undefined ? undefined : state.keyIds.at(id, at);
    return key === undefined || known === undefined || detailOf(key).projectId !== project.id
      ? notFound(`API key: ${id}`)
      : json(200, shownKey(key, Number.isFinite(at) ? at : undefined));
  }

  function listKeys(project: Project, { query }: Call): Reply {
    const access = query.get("owner_project_access");
    const listed = state.keyIds.list(lagged()).flatMap((id) => keys.byId(id) ?? []);
    const found = lies
      .shown("openai-keys", listed, ({ id, name }) => [id, name])
      .filter((key) => detailOf(key).projectId === project.id)
      .filter((key) => keys.stateOf(key) !== "expired")
      .map((key) => shownKey(key))
      // Without the parameter "existing visibility rules" may hide keys; here those of accounts without access.
      .filter((key) => access === "any" || key["owner_project_access"] === (access ?? "active"));
    return listPage(query, found);
  }

  return [
    on("GET", projects, ({ query }) =>
      listPage(
        query,
        state.projects
          .list(lagged())
          .filter((project) => project.archivedAt === undefined || query.get("include_archived") === "true")
          .map(shownProject),
      ),
    ),
    on("POST", projects, (call) => {
      const name = asObject(jsonBody(call.request))["name"];
      if (typeof name !== "string") return openAiError(400, { message: "Missing name" });
      const project = {
        id: `proj_${wordId(16)}`,
        name,
        createdAt: clock.now(),
        archivedAt: undefined,
      };
      state.projects.set(project.id, project, clock.now());
      audit(call, "project.created", { id: project.id });
      return json(200, shownProject(project));
    }),
    on(
      "GET",
      `${projects}/:project`,
      inProject((project) => json(200, shownProject(project))),
    ),
    on(
      "POST",
      `${projects}/:project/archive`,
      inProject((project, call) => {
        const archived = { ...project, archivedAt: clock.now() };
        state.projects.set(project.id, archived, clock.now());
        audit(call, "project.archived", { id: project.id });
        return json(200, shownProject(archived));
      }),
    ),
    on(
      "GET",
      accounts,
      inProject((project, { query }) =>
        listPage(
          query,
          state.serviceAccounts
            .list(lagged())
            .filter(({ projectId }) => projectId === project.id)
            .map(shownAccount),
        ),
      ),
    ),
    on("POST", accounts, inProject(createAccount)),
    on(
      "GET",
      `${accounts}/:account`,
      withAccount((account) => json(200, shownAccount(account))),
    ),
    on("POST", `${accounts}/:account`, withAccount(updateAccount)),
    on("DELETE", `${accounts}/:account`, withAccount(removeAccount)),
    on("POST", `${accounts}/:account/api_keys`, withAccount(createKey)),
    on("GET", projectKeys, inProject(listKeys)),
    on("GET", `${projectKeys}/:key`, inProject(readKey)),
    on("POST", `${projectKeys}/:key`, withKey(updateKey)),
    on("DELETE", `${projectKeys}/:key`, withKey(removeKey)),
    ...adminKeyRoutes(parts),
    on("GET", "/organization/audit_logs", ({ query }) => auditLogs(parts, query)),
  ];
}

/** `inactive`: the key's service account has no role in the project. */
export const ownerAccess = (account: ServiceAccount | undefined): "active" | "inactive" =>
  account === undefined || account.role === "none" ? "inactive" : "active";

const ownerOf = (account: ServiceAccount): Record<string, unknown> => ({
  id: account.id,
  name: account.name,
  role: account.role,
  created_at: unixSeconds(account.createdAt),
});

const isStrings = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => typeof item === "string");

/** `limit` and `after`, as all of OpenAI's lists page. */
function listPage(query: URLSearchParams, items: Record<string, unknown>[]): Reply {
  const limit = Number(query.get("limit") ?? 20);
  if (!Number.isInteger(limit) || limit < 1 || limit > 100) {
    const message = "Invalid 'limit': must be between 1 and 100";
    return openAiError(400, { message, param: "limit" });
  }
  const after = query.get("after");
  const start = after === null ? 0 : items.findIndex(({ id }) => id === after) + 1;
  const data = items.slice(start, start + limit);
  return json(200, {
    object: "list",
    data,
    first_id: data[0]?.["id"] ?? null,
    last_id: data.at(-1)?.["id"] ?? null,
    has_more: start + limit < items.length,
  });
}

function adminKeyRoutes({ state, clock }: OpenAiParts): Route<undefined>[] {
  const base = "/organization/admin_api_keys";
  const shown = (key: AdminKey): Record<string, unknown> => ({
    object: "organization.admin_api_key",
    id: key.id,
    name: key.name,
    redacted_value: `sk-admin...${key.value.slice(-4)}`,
    created_at: unixSeconds(key.createdAt),
    expires_at: seconds(key.expiresAt),
    last_used_at: seconds(key.lastUsedAt),
    owner: {
      type: "user",
      object: "organization.user",
      id: "user_1",
      name: "Sandbox Owner",
      created_at: unixSeconds(key.createdAt),
      role: "owner",
    },
  });
  const byId = (call: Call): AdminKey | undefined =>
    [...state.adminKeys.values()].find(({ id }) => id === call.params["key"]);
  return [
    route("GET", base, undefined, ({ query }) => listPage(query, [...state.adminKeys.values()].map(shown))),
    route("POST", base, undefined, ({ request }) => {
      const given = asObject(jsonBody(request));
      const life = given["expires_in_seconds"];
      const key = newAdminKey(clock, String(given["name"] ?? ""));
      if (typeof life === "number") key.expiresAt = clock.now() + life * 1_000;
      state.adminKeys.set(key.value, key);
      return json(200, { ...shown(key), value: key.value });
    }),
    route("GET", `${base}/:key`, undefined, (call) => {
      const key = byId(call);
      return key === undefined ? notFound("admin API key") : json(200, shown(key));
    }),
    route("DELETE", `${base}/:key`, undefined, (call) => {
      const key = byId(call);
      if (key === undefined) return notFound("admin API key");
      state.adminKeys.delete(key.value);
      return json(200, { object: "organization.admin_api_key.deleted", id: key.id, deleted: true });
    }),
  ];
}

export const newAdminKey = (clock: Clock, name: string): AdminKey => ({
  id: `key_${wordId(16)}`,
  name,
  value: `sk-admin-${wordId(60)}`,
  scopes: ["read", "write"],
  createdAt: clock.now(),
  expiresAt: undefined,
  lastUsedAt: undefined,
});

function auditLogs({ state, settings, clock }: OpenAiParts, query: URLSearchParams): Reply {
  const types = queryList(query, "event_types");
  const projectIds = queryList(query, "project_ids");
  const bound = (name: string): number | undefined => {
    const value = query.get(`effective_at[${name}]`);
    return value === null ? undefined : Number(value) * 1_000;
  };
  const [gte, gt, lte, lt] = [bound("gte"), bound("gt"), bound("lte"), bound("lt")];
  const horizon = clock.now() - clock.span(settings.auditLagMs);
  const found = state.audit
    .filter(({ at }) => at <= horizon)
    .filter(({ at }) => (gte === undefined || at >= gte) && (gt === undefined || at > gt))
    .filter(({ at }) => (lte === undefined || at <= lte) && (lt === undefined || at < lt))
    .filter(({ type }) => types.length === 0 || types.includes(type))
    .filter(({ projectId }) => projectIds.length === 0 || (projectId !== undefined && projectIds.includes(projectId)))
    .toReversed()
    .map((event) => ({
      id: event.id,
      type: event.type,
      effective_at: unixSeconds(event.at),
      ...(event.projectId === undefined ? {} : { project: { id: event.projectId } }),
      actor: { type: "api_key", api_key: { id: event.actorKeyId, type: "user" } },
      [event.type]: event.payload,
    }));
  return listPage(query, found);
}
