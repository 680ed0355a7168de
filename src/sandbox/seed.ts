/** What is there when a sandbox starts: the two environments of the example inventory, keys issued long ago. */
import { randomUUID } from "node:crypto";
import { newGateway } from "./ai-gateway.ts";
import type { AnthropicState } from "./anthropic-state.ts";
import { newAnthropicAdminKey, newAnthropicValue } from "./anthropic-state.ts";
import type { CloudflareState, Permission } from "./cloudflare-state.ts";
import { preview, putConfig, putSecret, secretName } from "./cloudflare-state.ts";
import type { Clock } from "./clock.ts";
import type { Keys } from "./keys.ts";
import type { GooglePermission, GoogleState } from "./google-state.ts";
import { keyResource, newAccessToken, newGoogleValue } from "./google-state.ts";
import { newAdminKey } from "./openai-admin.ts";
import type { OpenAiState } from "./openai-state.ts";
import { hexId, wordId } from "./random.ts";

const day = 86_400_000;
const longAgoMs = 120 * day;

/** Tokens by what they are for; the values are in the environment or in `Sandbox.seed`. */
const tokens: Record<string, readonly Permission[]> = {
  control: ["secrets write", "gateway write", "gateway run"],
  run: ["gateway run"],
  noSecretsStore: ["gateway write", "gateway run"],
  readOnly: ["secrets read", "gateway read"],
};

interface Slot {
  gateway: string;
  project: string;
  serviceAccount: string;
  key: string;
  workspace: string;
  anthropicKey: string;
  google: { project: string; number: string; keyId: string };
}

/** OAuth tokens by what they are for. */
const accessTokens: Record<string, readonly GooglePermission[]> = {
  googleAccess: ["apikeys write", "monitoring read"],
  googleReadOnly: ["apikeys read", "monitoring read"],
  googleNoMonitoring: ["apikeys write"],
};

const slots: readonly Slot[] = [
  {
    gateway: "github-ai-agent-prod",
    project: "proj_abc",
    serviceAccount: "svc_acct_1",
    key: "key_prod_1",
    workspace: "wrkspc_1",
    anthropicKey: "apikey_prod_1",
    google: { project: "my-project", number: "123456789012", keyId: "gemini-prod-1" },
  },
  {
    gateway: "github-ai-agent-staging",
    project: "proj_stg",
    serviceAccount: "svc_acct_2",
    key: "key_stg_1",
    workspace: "wrkspc_2",
    anthropicKey: "apikey_stg_1",
    google: { project: "my-project-staging", number: "210987654321", keyId: "gemini-stg-1" },
  },
];

export interface SeedParts {
  cloudflare: CloudflareState;
  openai: OpenAiState;
  anthropic: AnthropicState;
  google: GoogleState;
  keys: Keys;
  clock: Clock;
}

/** Fills the world and returns ids and credentials by name. */
export function plant({ cloudflare, openai, anthropic, google, keys, clock }: SeedParts): Record<string, string> {
  const at = clock.now() - longAgoMs;
  const seed: Record<string, string> = { accountId: cloudflare.accountId };
  for (const [name, permissions] of Object.entries(tokens)) {
    const value = wordId(40);
    cloudflare.tokens.set(value, { name, value, permissions: new Set(permissions) });
    seed[`${name}Token`] = value;
  }
  const storeId = hexId();
  seed["storeId"] = storeId;
  cloudflare.stores.set(storeId, { id: storeId, name: "default_secrets_store", createdAt: at }, at);

  const admin = newAdminKey(clock, "keyturn");
  const readOnly = { ...newAdminKey(clock, "read only"), scopes: ["read"] };
  openai.adminKeys.set(admin.value, admin).set(readOnly.value, readOnly);
  seed["openaiAdminKey"] = admin.value;
  seed["openaiReadOnlyAdminKey"] = readOnly.value;

  for (const slot of slots) {
    const { gateway, project, serviceAccount } = slot;
    openai.projects.set(project, { id: project, name: gateway, createdAt: at, archivedAt: undefined }, at);
    openai.serviceAccounts.set(
      serviceAccount,
      { id: serviceAccount, projectId: project, name: gateway, role: "member", createdAt: at },
      at,
    );
    const key = keys.add({
      id: slot.key,
      provider: "openai",
      name: "made by hand",
      value: `sk-svcacct-${wordId(70)}`,
      createdAt: at,
      detail: { projectId: project, serviceAccountId: serviceAccount, scopes: [] },
    });
    openai.keyIds.set(key.id, key.id, at);
    serve(cloudflare, { gateway, storeId, slug: "openai", value: key.value }, at);
    const label = labelOf(gateway);
    seed[`${label}Gateway`] = gateway;
    seed[`${label}OpenaiKeyId`] = key.id;
    seed[`${label}OpenaiProject`] = project;
    seed[`${label}OpenaiServiceAccount`] = serviceAccount;
  }

  const anthropicAdmin = newAnthropicAdminKey(["read", "write"]);
  const anthropicReadOnly = newAnthropicAdminKey(["read"]);
  anthropic.adminKeys.set(anthropicAdmin.value, anthropicAdmin).set(anthropicReadOnly.value, anthropicReadOnly);
  seed["anthropicAdminKey"] = anthropicAdmin.value;
  seed["anthropicReadOnlyAdminKey"] = anthropicReadOnly.value;
  for (const { gateway, workspace, anthropicKey } of slots) {
    anthropic.workspaces.set(workspace, { id: workspace, name: gateway, createdAt: at, archivedAt: undefined }, at);
    const key = keys.add({
      id: anthropicKey,
      provider: "anthropic",
      name: "made by hand",
      value: newAnthropicValue(),
      createdAt: at,
      detail: { workspaceId: workspace, serviceAccountId: "svac_01Gateway", createdBy: "user_01SandboxPerson" },
    });
    anthropic.listed.set(key.id, { id: key.id, status: "active", name: key.name }, at);
    serve(cloudflare, { gateway, storeId, slug: "anthropic", value: key.value }, at);
    seed[`${labelOf(gateway)}AnthropicKeyId`] = key.id;
    seed[`${labelOf(gateway)}AnthropicWorkspace`] = workspace;
  }

  for (const [name, permissions] of Object.entries(accessTokens)) {
    const value = newAccessToken();
    google.tokens.set(value, new Set(permissions));
    seed[`${name}Token`] = value;
  }
  for (const slot of slots) {
    const { gateway } = slot;
    const { project, number, keyId } = slot.google;
    const email = `gw@${project}.iam.gserviceaccount.com`;
    google.projects.push({ id: project, number });
    google.serviceAccounts.set(email, {
      email,
      projectId: project,
      uniqueId: `1${number}00000000`,
      disabledAt: undefined,
    });
    const resource = keyResource({ id: project, number }, keyId);
    const key = keys.add({
      id: keyId,
      provider: "google",
      name: "made by hand",
      value: newGoogleValue(true),
      createdAt: at,
      detail: {
        projectId: project,
        keyId,
        resource,
        uid: randomUUID(),
        serviceAccountEmail: email,
        annotations: {},
        restrictions: { apiTargets: [{ service: "generativelanguage.googleapis.com" }] },
        updatedAt: at,
        version: 1,
      },
    });
    google.listed.set(resource, { id: key.id, deletedAt: undefined }, at);
    serve(cloudflare, { gateway, storeId, slug: "google-ai-studio", value: key.value }, at);
    seed[`${labelOf(gateway)}GoogleKeyId`] = keyId;
    seed[`${labelOf(gateway)}GoogleProject`] = project;
    seed[`${labelOf(gateway)}GoogleServiceAccount`] = email;
  }
  return seed;
}

const labelOf = (gateway: string): string => (gateway.endsWith("-prod") ? "production" : "staging");

/** Puts a key into a gateway under alias `default`, as done by hand long ago; makes the gateway if need be. */
export function serve(
  state: CloudflareState,
  slot: { gateway: string; storeId: string; slug: string; value: string },
  at: number,
): void {
  const { gateway, storeId, slug, value } = slot;
  if (state.gateways.get(gateway) === undefined) {
    const fields = { authentication: true, store_id: storeId };
    state.gateways.set(gateway, newGateway(gateway, fields, at), at);
  }
  const secretId = hexId();
  putSecret(
    state,
    {
      id: secretId,
      storeId,
      name: secretName(gateway, slug, "default"),
      value,
      scopes: ["ai_gateway"],
      comment: null,
      createdAt: at,
      modifiedAt: at,
      activeAt: at,
    },
    at,
  );
  putConfig(
    state,
    {
      id: hexId(),
      gatewayId: gateway,
      slug,
      alias: "default",
      defaultConfig: true,
      secretId,
      preview: preview(value),
      modifiedAt: at,
      rateLimit: undefined,
      rateLimitPeriod: undefined,
    },
    at,
  );
}
