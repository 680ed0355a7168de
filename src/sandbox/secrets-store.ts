/**
 * Secrets Store: stores, secrets, quota. Values go in and never come out.
 * https://developers.cloudflare.com/api/resources/secrets_store (SDK 7.3.0, 2026-10); error words as caught
 * by others in live tests. HTTP statuses of errors other than 409 `store_not_empty` are our guess.
 */
import type { CloudflareParts, Needs } from "./cloudflare-envelope.ts";
import { failure, page, success } from "./cloudflare-envelope.ts";
import type { Secret, Store } from "./cloudflare-state.ts";
import { preview, putConfig, putSecret, removeSecret, secretKey } from "./cloudflare-state.ts";
import { rfc3339 } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { asObject, jsonBody } from "./exchange.ts";
import { hexId } from "./random.ts";
import type { Call, Route } from "./routes.ts";
import { queryList, route } from "./routes.ts";

const read: Needs = ["secrets read"];
const write: Needs = ["secrets write"];
const maxValueBytes = 65_536;
const knownScopes = ["workers", "ai_gateway", "dex", "access", "containers", "websearch"];
const orders: Record<string, keyof Secret> = {
  name: "name",
  comment: "comment",
  created: "createdAt",
  modified: "modifiedAt",
  status: "activeAt",
};

const namesOf = ({ id, name }: Secret): string[] => [id, name];

const noSecret = (): Reply => failure(404, { code: 1001, message: "secret_not_found" });
const bad = (word: string): Reply => failure(400, { code: 1001, message: word });
const taken = (): Reply => failure(409, { code: 1003, message: "secret_name_already_exists" });

export function secretsStoreRoutes(parts: CloudflareParts): Route<Needs>[] {
  const { state, settings, clock, lies } = parts;
  const base = "/accounts/:account/secrets_store";
  const lagged = (): number => clock.now() - clock.span(settings.listLagMs);

  const shownStore = (store: Store): Record<string, unknown> => ({
    id: store.id,
    name: store.name,
    created: rfc3339(store.createdAt),
    modified: rfc3339(store.createdAt),
    account_id: state.accountId,
  });
  const shown = (secret: Secret): Record<string, unknown> => ({
    id: secret.id,
    store_id: secret.storeId,
    name: secret.name,
    comment: secret.comment,
    scopes: secret.scopes,
    status: clock.now() < secret.activeAt ? "pending" : "active",
    created: rfc3339(secret.createdAt),
    modified: rfc3339(secret.modifiedAt),
  });

  /** Runs `work` with the store of the path, or answers that there is none. */
  const inStore =
    (work: (store: Store, call: Call) => Reply) =>
    (call: Call): Reply => {
      const store = state.stores.get(call.params["store"] ?? "");
      if (store === undefined) return failure(404, { code: 1001, message: "store_not_found" });
      return work(store, call);
    };
  const withSecret = (work: (secret: Secret, call: Call) => Reply): ((call: Call) => Reply) =>
    inStore((store, call) => {
      const secret = state.secrets.get(call.params["secret"] ?? "");
      return secret === undefined || secret.storeId !== store.id ? noSecret() : work(secret, call);
    });

  function create(store: Store, { request }: Call): Reply {
    const items = jsonBody(request);
    if (!Array.isArray(items) || items.length === 0) return bad("invalid_json_body");
    const now = clock.now();
    const made: Secret[] = [];
    for (const item of items) {
      const given = asObject(item);
      const problem = problemOf(given, true);
      if (problem !== undefined) return problem;
      const name = String(given["name"]);
      if (
        state.secretsByName.get(secretKey(store.id, name)) !== undefined ||
        made.some((other) => other.name === name)
      ) {
        return taken();
      }
      made.push({
        id: hexId(),
        storeId: store.id,
        name,
        value: String(given["value"]),
        scopes: given["scopes"] as string[],
        comment: typeof given["comment"] === "string" ? given["comment"] : null,
        createdAt: now,
        modifiedAt: now,
        activeAt: now + clock.span(settings.activationMs),
      });
    }
    if (state.secrets.list().length + made.length > settings.secretQuota) return full();
    for (const secret of made) putSecret(state, secret, now);
    return success(made.map(shown));
  }

  function patch(secret: Secret, { request }: Call): Reply {
    const body = jsonBody(request);
    if (body === undefined) return bad("invalid_json_body");
    const given = asObject(body);
    const problem = problemOf(given, false);
    if (problem !== undefined) return problem;
    const now = clock.now();
    const value = typeof given["value"] === "string" ? given["value"] : undefined;
    const changed: Secret = {
      ...secret,
      value: value ?? secret.value,
      scopes: (given["scopes"] as string[] | undefined) ?? secret.scopes,
      comment: commentOf(given, secret.comment),
      modifiedAt: now,
      activeAt: value === undefined ? secret.activeAt : now + clock.span(settings.activationMs),
    };
    putSecret(state, changed, now);
    if (value !== undefined && settings.patchRefreshesPreview) {
      for (const config of state.configs.list()) {
        if (config.secretId !== secret.id) continue;
        putConfig(state, { ...config, preview: preview(value), modifiedAt: now }, now);
      }
    }
    return success(shown(changed));
  }

  function duplicate(secret: Secret, { request }: Call): Reply {
    const given = asObject(jsonBody(request));
    const problem = problemOf({ ...given, value: "carried over" }, true);
    if (problem !== undefined) return problem;
    const name = String(given["name"]);
    if (state.secretsByName.get(secretKey(secret.storeId, name)) !== undefined) return taken();
    if (state.secrets.list().length + 1 > settings.secretQuota) return full();
    const now = clock.now();
    const copy: Secret = {
      ...secret,
      id: hexId(),
      name,
      scopes: given["scopes"] as string[],
      comment: commentOf(given, null),
      createdAt: now,
      modifiedAt: now,
      activeAt: now + clock.span(settings.activationMs),
    };
    putSecret(state, copy, now);
    return success(shown(copy));
  }

  function remove(secret: Secret): Reply {
    removeSecret(state, secret, clock.now());
    return success(null, {}, 202);
  }

  function removeMany(store: Store, { request }: Call): Reply {
    const ids = asObject(jsonBody(request))["ids"];
    if (!Array.isArray(ids)) return bad("invalid_json_body");
    const secrets = ids.map((id) => state.secrets.get(String(id)));
    for (const secret of secrets) {
      if (secret === undefined || secret.storeId !== store.id) return noSecret();
    }
    for (const secret of secrets) {
      if (secret !== undefined) removeSecret(state, secret, clock.now());
    }
    return success(null, {}, 202);
  }

  function list(store: Store, { query }: Call): Reply {
    const search = query.get("search")?.toLowerCase();
    const scopes = queryList(query, "scopes").flatMap((scope) => scope.split(","));
    const order = orders[query.get("order") ?? "created"] ?? "createdAt";
    const sign = query.get("direction") === "desc" ? -1 : 1;
    const secrets = lies
      .shown("secrets", state.secrets.list(lagged()), namesOf)
      .filter((secret) => secret.storeId === store.id)
      .filter(
        (secret) =>
          search === undefined ||
          secret.name.toLowerCase().includes(search) ||
          (secret.comment ?? "").toLowerCase().includes(search),
      )
      .filter((secret) => scopes.every((scope) => secret.scopes.includes(scope)))
      .sort((one, other) => sign * compare(one[order], other[order]));
    return page(query, secrets.map(shown), 100);
  }

  /** The code of a full quota is unknown; this one is made up. */
  const full = (): Reply => failure(400, { code: 1003, message: "maximum_secrets_exceeded" });

  return [
    route("GET", `${base}/quota`, read, () =>
      success({ secrets: { quota: settings.secretQuota, usage: state.secrets.list().length } }),
    ),
    route("GET", `${base}/stores`, read, ({ query }) => page(query, state.stores.list(lagged()).map(shownStore), 100)),
    route("POST", `${base}/stores`, write, ({ request }) => {
      const name = asObject(jsonBody(request))["name"];
      if (typeof name !== "string" || name === "") return bad("store_name_empty");
      if (state.stores.list().length > 0) {
        return failure(409, { code: 1003, message: "maximum_stores_exceeded" });
      }
      const store = { id: hexId(), name, createdAt: clock.now() };
      state.stores.set(store.id, store, clock.now());
      return success(shownStore(store));
    }),
    route(
      "GET",
      `${base}/stores/:store`,
      read,
      inStore((store) => success(shownStore(store))),
    ),
    route(
      "DELETE",
      `${base}/stores/:store`,
      write,
      inStore((store, { query }) => {
        const secrets = state.secrets.list().filter((secret) => secret.storeId === store.id);
        if (secrets.length > 0 && query.get("force") !== "true") {
          return failure(409, { code: 1003, message: "store_not_empty" });
        }
        for (const secret of secrets) removeSecret(state, secret, clock.now());
        state.stores.set(store.id, undefined, clock.now());
        return success(shownStore(store));
      }),
    ),
    route("GET", `${base}/stores/:store/secrets`, read, inStore(list)),
    route("POST", `${base}/stores/:store/secrets`, write, inStore(create)),
    route("DELETE", `${base}/stores/:store/secrets`, write, inStore(removeMany)),
    route(
      "GET",
      `${base}/stores/:store/secrets/:secret`,
      read,
      inStore((store, call) => {
        const secret = lies.read("secrets", state.secrets, call.params["secret"] ?? "", namesOf);
        return secret === undefined || secret.storeId !== store.id ? noSecret() : success(shown(secret));
      }),
    ),
    route("PATCH", `${base}/stores/:store/secrets/:secret`, write, withSecret(patch)),
    route("DELETE", `${base}/stores/:store/secrets/:secret`, write, withSecret(remove)),
    route("POST", `${base}/stores/:store/secrets/:secret/duplicate`, write, withSecret(duplicate)),
  ];
}

function commentOf(given: Record<string, unknown>, otherwise: string | null): string | null {
  const comment = given["comment"];
  if (comment === undefined) return otherwise;
  return typeof comment === "string" && comment !== "" ? comment : null;
}

/** What is wrong with the fields of a new (`whole`) or changed secret. */
function problemOf(given: Record<string, unknown>, whole: boolean): Reply | undefined {
  const { name, value, scopes } = given as { name?: unknown; value?: unknown; scopes?: unknown };
  if (whole && (typeof name !== "string" || name === "")) return bad("secret_name_empty");
  if (typeof name === "string" && /\s/.test(name)) return bad("secret_name_invalid");
  if (whole || value !== undefined) {
    if (typeof value !== "string" || value === "") return bad("secret_value_empty");
    if (Buffer.byteLength(value) > maxValueBytes) return bad("secret_value_too_large");
  }
  if (whole || scopes !== undefined) {
    if (!Array.isArray(scopes) || scopes.length === 0) return bad("secret_scopes_empty");
    if (!scopes.every((scope) => knownScopes.includes(String(scope)))) {
      return bad("secret_scope_invalid");
    }
  }
  return undefined;
}

function compare(one: unknown, other: unknown): number {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other));
}
