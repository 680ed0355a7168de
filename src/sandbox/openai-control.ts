/** What OpenAI's API cannot be told to do: a service account that loses its role, use of a key that no model call makes here. */
import type { Clock } from "./clock.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import type { Keys } from "./keys.ts";
import { ownerAccess } from "./openai-admin.ts";
import type { OpenAiState, ServiceAccount } from "./openai-state.ts";
import { detailOf } from "./openai-state.ts";
import { surfaces } from "./openai-usage.ts";
import type { Route } from "./routes.ts";
import { route } from "./routes.ts";
import type { Usage } from "./usage.ts";

const roles: readonly ServiceAccount["role"][] = ["owner", "member", "none"];

export function openAiControlRoutes(parts: {
  state: OpenAiState;
  usage: Usage;
  clock: Clock;
  keys: Keys;
}): Route<undefined>[] {
  const { state, usage, clock, keys } = parts;
  return [
    route("POST", "/openai/service-accounts/:account/role", undefined, ({ params, request }) => {
      const account = state.serviceAccounts.get(params["account"] ?? "");
      if (account === undefined) return json(404, { error: `no service account ${params["account"] ?? ""}` });
      const role = roles.find((known) => known === asObject(jsonBody(request))["role"]);
      if (role === undefined) return json(400, { error: `role must be one of ${roles.join(", ")}` });
      const changed = { ...account, role };
      state.serviceAccounts.set(account.id, changed, clock.now());
      return json(200, { ...changed, owner_project_access: ownerAccess(changed) });
    }),
    route("POST", "/openai/keys/:key/usage", undefined, ({ params, request }) => {
      const key = keys.byId(params["key"] ?? "");
      if (key === undefined || key.provider !== "openai") return json(404, { error: `no key ${params["key"] ?? ""}` });
      const { surface, model, tokensIn, tokensOut } = asObject(jsonBody(request));
      if (typeof surface !== "string" || !surfaces.includes(surface)) {
        return json(400, { error: `surface must be one of ${surfaces.join(", ")}` });
      }
      usage.add({
        surface,
        keyId: key.id,
        project: detailOf(key).projectId,
        model: typeof model === "string" ? model : "",
        tokensIn: Number(tokensIn ?? 0),
        tokensOut: Number(tokensOut ?? 0),
        costUsd: 0,
      });
      return json(201, { surface, keyId: key.id });
    }),
  ];
}
