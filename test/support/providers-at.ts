import type { ProviderName } from "../../src/domain/slot.ts";
import type { Http } from "../../src/http.ts";
import { createGoogleAuth } from "../../src/providers/google-auth.ts";
import { createProvider, type ProviderOptions } from "../../src/providers/index.ts";
import type { KeyEnd, KeySwitch } from "../../src/providers/key-end.ts";
import { createKeyEnd } from "../../src/providers/key-ends.ts";
import type { ManagedProvider } from "../../src/providers/provider.ts";
import { Redacted } from "../../src/redacted.ts";

type Env = Record<string, string>;

/** A provider with what ends its keys, which the wiring keeps apart. */
export type WithEnd = ManagedProvider & KeyEnd & Partial<KeySwitch>;

/** The two in one. */
export function withEnd<Name extends keyof ProviderOptions>(name: Name, options: ProviderOptions[Name]): WithEnd {
  return { ...createProvider(name, options), ...createKeyEnd(name, options) };
}

/** The real client of a provider for the sandbox's production slot, with its own admin credential or another. */
export function providerAt(
  env: Env,
  name: ProviderName,
  { http, credential, ...more }: { http: Http; credential?: string | undefined; serviceAccount?: string },
): WithEnd {
  const from = (variable: string): string => env[variable] ?? "";
  const secret = (variable: string): Redacted => new Redacted(credential ?? from(variable));
  switch (name) {
    case "openai":
      return withEnd("openai", {
        http,
        baseUrl: from("OPENAI_BASE_URL"),
        adminKey: secret("OPENAI_ADMIN_KEY"),
        project: "proj_abc",
        serviceAccount: "svc_acct_1",
        ...more,
      });
    case "anthropic":
      return withEnd("anthropic", {
        http,
        baseUrl: from("ANTHROPIC_BASE_URL"),
        adminKey: secret("ANTHROPIC_ADMIN_KEY"),
        workspace: "wrkspc_1",
      });
    case "gemini":
      return withEnd("gemini", {
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
