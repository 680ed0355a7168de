import { createGoogleAuth } from "../../src/providers/google-auth.ts";
import { Redacted } from "../../src/redacted.ts";
import { startSandbox } from "../../src/sandbox/index.ts";
import { type WithEnd, withEnd } from "../support/providers-at.ts";
import { providerContract } from "./contract.ts";
import { http } from "./support.ts";

type Env = Record<string, string>;

interface Vendor {
  make(env: Env, credential: Redacted | undefined): WithEnd;
  /** One model request, as a client of the provider sends it. */
  request(env: Env, value: string): [url: string, headers: Record<string, string>, body: object];
  settledId: string;
  madeUp: string;
}

const from = (env: Env, name: string): string => env[name] ?? "";

const vendors: Record<string, Vendor> = {
  openai: {
    make: (env, credential) =>
      withEnd("openai", {
        http,
        baseUrl: from(env, "OPENAI_BASE_URL"),
        adminKey: credential ?? new Redacted(from(env, "OPENAI_ADMIN_KEY")),
        project: "proj_abc",
        serviceAccount: "svc_acct_1",
      }),
    request: (env, value) => [
      `${from(env, "OPENAI_BASE_URL")}/chat/completions`,
      { authorization: `Bearer ${value}` },
      { model: "gpt-5-mini", messages: [{ role: "user", content: "hello" }] },
    ],
    settledId: "key_prod_1",
    madeUp: "sk-svcacct-made-up-0123456789abcdef",
  },
  anthropic: {
    make: (env, credential) =>
      withEnd("anthropic", {
        http,
        baseUrl: from(env, "ANTHROPIC_BASE_URL"),
        adminKey: credential ?? new Redacted(from(env, "ANTHROPIC_ADMIN_KEY")),
        workspace: "wrkspc_1",
      }),
    request: (env, value) => [
      `${from(env, "ANTHROPIC_BASE_URL")}/v1/messages`,
      { "x-api-key": value, "anthropic-version": "2023-06-01" },
      { model: "claude-haiku-4-5", max_tokens: 16, messages: [{ role: "user", content: "hello" }] },
    ],
    settledId: "apikey_prod_1",
    madeUp: "sk-ant-api03-made-up-0123456789abcdef-zzzz",
  },
  gemini: {
    make: (env, credential) =>
      withEnd("gemini", {
        http,
        apiKeysBaseUrl: from(env, "GOOGLE_APIKEYS_BASE_URL"),
        monitoringBaseUrl: from(env, "GOOGLE_MONITORING_BASE_URL"),
        geminiBaseUrl: from(env, "GEMINI_BASE_URL"),
        auth: createGoogleAuth({ accessToken: credential ?? new Redacted(from(env, "GOOGLE_OAUTH_ACCESS_TOKEN")) }),
        project: "my-project",
        serviceAccount: "gw@my-project.iam.gserviceaccount.com",
      }),
    request: (env, value) => [
      `${from(env, "GEMINI_BASE_URL")}/v1beta/models/gemini-2.5-flash:generateContent`,
      { "x-goog-api-key": value },
      { contents: [{ role: "user", parts: [{ text: "hello" }] }] },
    ],
    settledId: "gemini-prod-1",
    madeUp: "AQ.made-up-0123456789-abcdef-0123456789",
  },
};

for (const [name, { make, request, settledId, madeUp }] of Object.entries(vendors)) {
  providerContract(name, async () => {
    const sandbox = await startSandbox({ timeScale: 600 });
    const provider = make(sandbox.env, undefined);
    return {
      provider,
      impostor: make(sandbox.env, new Redacted("made-up-credential-0123456789")),
      settled: { id: settledId, value: await valueOf(sandbox.control, settledId) },
      madeUp: new Redacted(madeUp),
      use: async (value) => {
        const [url, headers, body] = request(sandbox.env, value.reveal());
        const answer = await fetch(url, {
          method: "POST",
          headers: { ...headers, "content-type": "application/json" },
          body: JSON.stringify(body),
        });
        await answer.text();
        if (!answer.ok) throw new Error(`the sandbox answered ${answer.status} to a model request`);
      },
      stop: () => sandbox.close(),
    };
  });
}

async function valueOf(control: string, keyId: string): Promise<Redacted> {
  const { values } = (await (await fetch(`${control}/values`)).json()) as { values: { id: string; value: string }[] };
  const found = values.find(({ id }) => id === keyId);
  if (found === undefined) throw new Error(`the sandbox has no key ${keyId}`);
  return new Redacted(found.value);
}
