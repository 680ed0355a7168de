/** What happens to Google's keys outside the API Keys API: leaks that Google finds, service accounts that IAM disables. */
import type { Clock } from "./clock.ts";
import { rfc3339 } from "./clock.ts";
import { json } from "./exchange.ts";
import type { GoogleState } from "./google-state.ts";
import type { Keys } from "./keys.ts";
import type { Route } from "./routes.ts";
import { route } from "./routes.ts";

export function googleControlRoutes(parts: { state: GoogleState; clock: Clock; keys: Keys }): Route<undefined>[] {
  const { state, clock, keys } = parts;
  return [
    route("POST", "/google/keys/:key/leak", undefined, ({ params }) => {
      const key = keys.byId(params["key"] ?? "");
      if (key === undefined || key.provider !== "google") return json(404, { error: `no key ${params["key"] ?? ""}` });
      key.detail["leaked"] = true;
      return json(200, keys.describe(key));
    }),
    ...(["disable", "enable"] as const).map((action) =>
      route("POST", `/google/service-accounts/:email/${action}`, undefined, ({ params }) => {
        const account = state.serviceAccounts.get(params["email"] ?? "");
        if (account === undefined) return json(404, { error: `no service account ${params["email"] ?? ""}` });
        account.disabledAt = action === "disable" ? clock.now() : undefined;
        const { disabledAt } = account;
        return json(200, { ...account, disabledAt: disabledAt === undefined ? null : rfc3339(disabledAt) });
      }),
    ),
  ];
}
