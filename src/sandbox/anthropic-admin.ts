/**
 * Anthropic's Admin API: the organisation, workspaces, keys. Keys are listed and changed here, never made.
 * https://platform.claude.com/docs/en/api/admin-api (2026-10), npm `@anthropic-ai/sdk` 1.12.0.
 */
import type { AnthropicParts } from "./anthropic-errors.ts";
import { anthropicError } from "./anthropic-errors.ts";
import type { ListedKey, Workspace } from "./anthropic-state.ts";
import { anthropicDetail, newAnthropicId, newAnthropicValue } from "./anthropic-state.ts";
import { rfc3339 } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import { revive } from "./key-life.ts";
import type { Key } from "./keys.ts";
import type { Call, Route } from "./routes.ts";
import { route } from "./routes.ts";

const statuses = ["active", "inactive", "archived"] as const;
const userId = "user_01SandboxPerson";

const namesOf = ({ id, name }: ListedKey): string[] => [id, name];

/** A hint that shows few characters: three after the prefix, four at the end. */
const hint = (value: string): string => `${value.slice(0, 16)}...${value.slice(-4)}`;

export interface NewKey {
  name: string;
  workspaceId: string | undefined;
  expiresInSeconds: number | undefined;
}

/** What a person does in the Console: makes a key and sees its value, once. A string says why not. */
export function issueByHand(
  { state, clock, keys }: Pick<AnthropicParts, "state" | "clock" | "keys">,
  { name, workspaceId, expiresInSeconds }: NewKey,
): Key | string {
  if (name === "") return "name is missing";
  if (workspaceId !== undefined) {
    const workspace = state.workspaces.get(workspaceId);
    if (workspace === undefined || workspace.archivedAt !== undefined) return `no workspace ${workspaceId}`;
  }
  const life = expiresInSeconds;
  if (life !== undefined && !(life > 0)) return "expiresInSeconds must be above 0";
  const now = clock.now();
  const key = keys.add({
    id: newAnthropicId("apikey"),
    provider: "anthropic",
    name,
    value: newAnthropicValue(),
    createdAt: now,
    expiresAt: life === undefined ? undefined : now + life * 1_000,
    detail: { workspaceId, serviceAccountId: "svac_01Gateway", createdBy: userId },
  });
  state.listed.set(key.id, { id: key.id, status: "active", name }, now);
  return key;
}

/** A page by `limit`, `after_id` and `before_id`, as all of Anthropic's older lists page. */
export function idPage(query: URLSearchParams, found: Record<string, unknown>[]): Reply {
  const limit = Number(query.get("limit") ?? 20);
  if (!Number.isInteger(limit) || limit < 1 || limit > 1_000) {
    return anthropicError(400, "limit: Input should be between 1 and 1000");
  }
  const place = (name: string): number => found.findIndex(({ id }) => id === query.get(name));
  const [after, before] = [query.get("after_id"), query.get("before_id")];
  if (after !== null && before !== null) return anthropicError(400, "only one of after_id and before_id may be given");
  let first = after === null ? 0 : place("after_id") + 1;
  let end = first + limit;
  if (before !== null) {
    end = Math.max(0, place("before_id"));
    first = Math.max(0, end - limit);
  }
  const data = found.slice(first, end);
  return json(200, {
    data,
    has_more: before === null ? end < found.length : first > 0,
    first_id: data[0]?.["id"] ?? null,
    last_id: data.at(-1)?.["id"] ?? null,
  });
}

export function anthropicAdminRoutes(parts: AnthropicParts): Route<undefined>[] {
  const { state, settings, clock, keys, lies } = parts;
  const base = "/organizations/api_keys";
  const lagged = (): number => clock.now() - clock.span(settings.listLagMs);
  const on = (method: string, path: string, handle: (call: Call) => Reply): Route<undefined> =>
    route(method, path, undefined, handle);

  const statusOf = (key: Key, listed: ListedKey): string =>
    listed.status !== "archived" && keys.stateOf(key) === "expired" ? "expired" : listed.status;

  function shown(key: Key, listed: ListedKey, { request }: Call): Record<string, unknown> {
    const { workspaceId, serviceAccountId, createdBy } = anthropicDetail(key);
    return {
      id: key.id,
      type: "api_key",
      name: listed.name,
      created_at: rfc3339(key.createdAt),
      created_by: { id: createdBy, type: "user" },
      expires_at: key.expiresAt === undefined ? null : rfc3339(key.expiresAt),
      partial_key_hint: hint(key.value),
      principal: { type: "service_account_actor", service_account_id: serviceAccountId },
      scope: workspaceId === undefined ? { type: "organization" } : { type: "workspace", workspace_id: workspaceId },
      status: statusOf(key, listed),
      ...(request.headers["anthropic-version"] === "2023-06-01" ? { workspace_id: workspaceId ?? null } : {}),
    };
  }

  const shownWorkspace = (workspace: Workspace): Record<string, unknown> => ({
    id: workspace.id,
    type: "workspace",
    name: workspace.name,
    created_at: rfc3339(workspace.createdAt),
    archived_at: workspace.archivedAt === undefined ? null : rfc3339(workspace.archivedAt),
    display_color: "#6C5BB9",
    compartment_id: workspace.id.replace("wrkspc", "cmpt"),
    data_residency: { allowed_inference_geos: "unrestricted", default_inference_geo: "global", workspace_geo: "us" },
    external_key_id: null,
    tags: {},
    user_profile_id: null,
  });

  const withKey =
    (work: (key: Key, listed: ListedKey, call: Call) => Reply) =>
    (call: Call): Reply => {
      const id = call.params["key"] ?? "";
      const [key, listed] = [keys.byId(id), state.listed.get(id)];
      return key === undefined || listed === undefined
        ? anthropicError(404, "API key not found")
        : work(key, listed, call);
    };

  /** The error of a limit that one more active key would pass. */
  function pastLimit(key: Key): Reply | undefined {
    const { organization, workspace } = settings.anthropicKeyLimit;
    const active = keys.all().filter((one) => one.provider === "anthropic" && keys.stateOf(one) === "active");
    if (organization > 0 && active.length >= organization) {
      return anthropicError(400, "The organization has reached its limit of active API keys.", {
        error_code: "org_api_key_limit_exceeded",
      });
    }
    const { workspaceId } = anthropicDetail(key);
    const inWorkspace = active.filter((one) => anthropicDetail(one).workspaceId === workspaceId);
    if (workspaceId !== undefined && workspace > 0 && inWorkspace.length >= workspace) {
      return anthropicError(400, "The workspace has reached its limit of active API keys.", {
        error_code: "workspace_api_key_limit_exceeded",
      });
    }
    return undefined;
  }

  function update(key: Key, listed: ListedKey, call: Call): Reply {
    const body = jsonBody(call.request);
    if (body === undefined) return anthropicError(400, "The request body is not valid JSON.");
    const given = asObject(body);
    const name = given["name"] ?? listed.name;
    if (typeof name !== "string" || name === "") return anthropicError(400, "name: Input should be a valid string");
    const wanted = given["status"] ?? listed.status;
    const status = statuses.find((known) => known === wanted);
    if (status === undefined) {
      return anthropicError(400, "status: Input should be 'active', 'inactive' or 'archived'");
    }
    if (status !== listed.status || name !== listed.name) {
      if (listed.status === "archived") return anthropicError(400, "Archived API keys cannot be updated.");
      if (statusOf(key, listed) === "expired" && status !== "archived") {
        return anthropicError(400, "Expired API keys can only be archived.");
      }
    }
    const now = clock.now();
    const deadAt = now + clock.span(settings.anthropicDeathMs);
    if (status !== listed.status) {
      if (status === "active") {
        const refused = pastLimit(key);
        if (refused !== undefined) return refused;
        revive(key, now, clock.span(settings.reviveMs));
      } else {
        if (status === "inactive") key.disabledAt = now;
        else key.revokedAt = now;
        key.deadAt ??= deadAt;
      }
    }
    key.name = name;
    const changed: ListedKey = { id: key.id, status, name };
    state.listed.set(key.id, changed, now);
    return json(200, shown(key, changed, call));
  }

  function list(call: Call): Reply {
    const { query } = call;
    const status = query.get("status");
    if (status !== null && ![...statuses, "expired"].includes(status)) {
      return anthropicError(400, "status: Input should be 'active', 'inactive', 'archived' or 'expired'");
    }
    const workspaceId = query.get("workspace_id");
    const creator = query.get("created_by_user_id");
    const found = lies
      .shown("anthropic-keys", state.listed.list(lagged()), namesOf)
      .toReversed()
      .flatMap((listed) => {
        const key = keys.byId(listed.id);
        return key === undefined ? [] : [{ key, listed }];
      })
      .filter(({ key, listed }) => status === null || statusOf(key, listed) === status)
      .filter(({ key }) => workspaceId === null || anthropicDetail(key).workspaceId === workspaceId)
      .filter(({ key }) => creator === null || anthropicDetail(key).createdBy === creator)
      .map(({ key, listed }) => shown(key, listed, call));
    return idPage(query, found);
  }

  return [
    on("GET", "/organizations/me", () =>
      json(200, { id: state.organizationId, type: "organization", name: "Sandbox" }),
    ),
    on("GET", base, list),
    on("GET", `${base}/:key`, (call) => {
      const id = call.params["key"] ?? "";
      const [key, listed] = [keys.byId(id), lies.read("anthropic-keys", state.listed, id, namesOf)];
      return key === undefined || listed === undefined
        ? anthropicError(404, "API key not found")
        : json(200, shown(key, listed, call));
    }),
    on("POST", `${base}/:key`, withKey(update)),
    on("GET", "/organizations/workspaces", ({ query }) =>
      idPage(
        query,
        state.workspaces
          .list(lagged())
          .filter(({ archivedAt }) => archivedAt === undefined || query.get("include_archived") === "true")
          .map(shownWorkspace),
      ),
    ),
    on("GET", "/organizations/workspaces/:workspace", ({ params }) => {
      const workspace = state.workspaces.get(params["workspace"] ?? "");
      return workspace === undefined
        ? anthropicError(404, "Workspace not found")
        : json(200, shownWorkspace(workspace));
    }),
  ];
}
