import { createAiGateway } from "../../src/cloudflare/ai-gateway.ts";
import { createGuideSecrets } from "../../src/cloudflare/guide.ts";
import { createSecretsStore } from "../../src/cloudflare/secrets-store.ts";
import { createSlotSecrets, type Place } from "../../src/cloudflare/slot-secrets.ts";
import { Redacted } from "../../src/redacted.ts";
import { startSandbox } from "../../src/sandbox/index.ts";
import { type DialectWorld, slotSecretsContract } from "./slot-secrets.contract.ts";
import { http } from "./support.ts";

const place: Place = { gateway: "github-ai-agent-prod", provider: "openai", alias: "default" };

const worldOf = (dialect: "secrets-store" | "guide") => async (): Promise<DialectWorld> => {
  const sandbox = await startSandbox({ timeScale: 600 });
  const ask = async (path: string): Promise<unknown> => (await fetch(`${sandbox.control}${path}`)).json();
  const { values } = (await ask("/values")) as { values: { id: string; value: string }[] };
  const valueOf = (id: string | undefined): string | undefined => values.find((key) => key.id === id)?.value;
  const account = {
    http,
    baseUrl: sandbox.env["CLOUDFLARE_API_BASE_URL"] ?? "",
    accountId: sandbox.env["CLOUDFLARE_ACCOUNT_ID"] ?? "",
    token: new Redacted(sandbox.env["CLOUDFLARE_API_TOKEN"] ?? ""),
  };
  return {
    secrets:
      dialect === "guide"
        ? createGuideSecrets({ ...account, place, secretId: "github-ai-agent-prod_openai_default" })
        : createSlotSecrets({ store: createSecretsStore(account), gateways: createAiGateway(account) }),
    place,
    values: [new Redacted(valueOf("key_stg_1") ?? ""), new Redacted(valueOf("key_prod_1") ?? "")],
    async valueIn({ gateway, alias }) {
      const { slots } = (await ask("/slots")) as {
        slots: { gateway: string; alias: string; provider: string; keyId: string }[];
      };
      const slot = slots.find((one) => one.gateway === gateway && one.provider === "openai" && one.alias === alias);
      return valueOf(slot?.keyId);
    },
    stop: () => sandbox.close(),
  };
};

slotSecretsContract("secrets-store", worldOf("secrets-store"));
slotSecretsContract("guide", worldOf("guide"));
