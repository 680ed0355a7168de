import type { ProviderName } from "../../src/domain/slot.ts";
import type { Http } from "../../src/http.ts";
import { createGoogleAuth } from "../../src/providers/google-auth.ts";
import { createProvider } from "../../src/providers/index.ts";
import type { ManagedProvider } from "../../src/providers/provider.ts";
import { Redacted } from "../../src/redacted.ts";

type Env = Record<string, string>;

/** The real client of a provider for the sandbox's production slot, with its own admin credential or another. */
export function providerAt(
  env: Env,
  name: ProviderName,
  { http, credential, ...more }: { http: Http; credential?: string | undefined; serviceAccount?: string },
): ManagedProvider {
  const from = (variable: string): string => env[variable] ?? "";
  const secret = (variable: string): Redacted => new Redacted(credential ?? from(variable));
  switch (name) {
    case "openai":
      return createProvider("openai", {
        http,
        baseUrl: from("OPENAI_BASE_URL"),
        adminKey: secret("OPENAI_ADMIN_KEY"),
        project: "proj_abc",
        serviceAccount: "svc_acct_1",
        ...more,
      });
    case "anthropic":
      return createProvider("anthropic", {
        http,
        baseUrl: from("ANTHROPIC_BASE_URL"),
        adminKey: secret("ANTHROPIC_ADMIN_KEY"),
        workspace: "wrkspc_1",
      });
    case "gemini":
      return createProvider("gemini", {
        http,
        apiKeysBaseUrl: from("GOOGLE_APIKEYS_BASE_URL"),
        monitoringBaseUrl: from("GOOGLE_MONITORING_BASE_URL"),
        geminiBaseUrl: from("GEMINI_BASE_URL"),
        auth: createGoogleAuth({ accessToken: secret("GOOGLE_OAUTH_ACCESS_TOKEN") }),
        project: "my-project",
        serviceAccount: "gw@my-project.iam.gserviceaccount.com",
        ...more,
      });
  }
}
