import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { createAiGateway } from "../../src/cloudflare/ai-gateway.ts";
import { createGuideSecrets } from "../../src/cloudflare/guide.ts";
import { createSecretsStore } from "../../src/cloudflare/secrets-store.ts";
import { createSlotSecrets, type Place } from "../../src/cloudflare/slot-secrets.ts";
import { Redacted } from "../../src/redacted.ts";
import { startSandbox } from "../../src/sandbox/index.ts";
import { type DialectWorld, slotSecretsContract } from "./slot-secrets.contract.ts";
import { failureOf, http } from "./support.ts";

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

describe("what lists do not show, and what lies there without a provider config", () => {
  const stores = async () => {
    const sandbox = await startSandbox({ timeScale: 600, listLagMs: 0, secretQuota: 300 });
    onTestFinished(() => sandbox.close());
    const baseUrl = sandbox.env["CLOUDFLARE_API_BASE_URL"] ?? "";
    const accountId = sandbox.env["CLOUDFLARE_ACCOUNT_ID"] ?? "";
    const token = new Redacted(sandbox.env["CLOUDFLARE_API_TOKEN"] ?? "");
    const account = { http, baseUrl, accountId, token };
    const store = createSecretsStore(account);
    const secrets = createSlotSecrets({ store, gateways: createAiGateway(account) });
    const fault = async (path: string, more: Record<string, unknown> = {}): Promise<void> => {
      const body = { success: true, errors: [], messages: [], result: [] };
      const given = { service: "cloudflare", method: "GET", path, mode: "status", status: 200, body, ...more };
      await fetch(`${sandbox.control}/faults`, { method: "POST", body: JSON.stringify(given) });
    };
    const lie = async (told: Record<string, unknown>): Promise<void> => {
      await fetch(`${sandbox.control}/lies`, { method: "POST", body: JSON.stringify(told) });
    };
    return { store, secrets, fault, lie, storeId: sandbox.seed["storeId"] ?? "" };
  };
  const value = new Redacted("sk-svcacct-madeUpMadeUpMadeUp0001");

  test("a secret alone is looked at, read with others, and said to be without a config; alone it is not read", async () => {
    const { store, secrets, storeId } = await stores();
    const alone: Place = { ...place, alias: "alone" };
    const name = `${place.gateway}_openai_alone`;
    await store.createSecret(storeId, { name, value, scopes: ["ai_gateway"], comment: "by a script" });
    const byId = await secrets.look(alone);
    expect(byId).toMatchObject({ withoutConfig: true, comment: "by a script", secret: { storeId } });
    // A value that was just written may become active between the two.
    const [fromList] = await secrets.readAll([alone]);
    expect(fromList).toEqual({ ...byId, status: expect.any(String) });
    expect((await failureOf(secrets.read(alone))).message).toContain("provider config for alias alone");
  });

  test("a secret that the list misses is found by the id that its provider config records", async () => {
    const { secrets, fault } = await stores();
    const held = await secrets.read(place);
    await fault("/secrets\\?");
    expect(await secrets.look(place)).toEqual(held);
    expect(await secrets.read(place)).toEqual(held);
    expect(await secrets.readAll([place])).toEqual([undefined]);
    await secrets.makeCopy({ ...place, alias: "kt-0a1b2c3d-prev" }, place, "a copy");
    await secrets.write(place, { value, comment: "written" });
    expect(await secrets.read(place)).toMatchObject({ comment: "written" });
  });

  test("what was just read is written to though no list shows it by then", async () => {
    const { secrets, fault } = await stores();
    const seen = await secrets.read(place);
    await fault("/secrets\\?");
    await fault("/provider_configs");
    await secrets.write(place, { value, comment: "written" }, { seen });
    expect(await secrets.look(place, seen)).toMatchObject({ comment: "written" });
  });

  test("a read that is older than what a list shows is not believed", async () => {
    const { secrets, lie } = await stores();
    await pause(1_100); // times are in whole seconds
    await secrets.write(place, { value, comment: "written" });
    const [listed] = await secrets.readAll([place]);
    for (const look of [() => secrets.read(place), () => secrets.look(place), () => secrets.look(place, listed)]) {
      await lie({ about: "secrets", mode: "stale", times: 1, agoMs: 1_000 });
      expect(await look()).toMatchObject({ comment: "written", modified: listed?.modified });
    }
  });

  test("a secret that was made anew is found although its former id is gone, and has another", async () => {
    const { store, secrets, storeId } = await stores();
    const before = await secrets.read(place);
    await store.deleteSecret(storeId, before.secret?.id ?? "");
    const name = `${place.gateway}_openai_default`;
    await store.createSecret(storeId, { name, value, scopes: ["ai_gateway"], comment: "made anew" });
    const after = await secrets.look(place, before);
    expect(after).toMatchObject({ comment: "made anew" });
    expect(after?.secret?.id).not.toBe(before.secret?.id);
  });

  test("what a list shows is removed although a read by id does not find it, and what a list misses by its config", async () => {
    const { store, secrets, fault, storeId } = await stores();
    const [one, other] = ["kt-0a1b2c3d-new", "kt-0a1b2c3d-prev"].map((alias): Place => ({ ...place, alias }));
    for (const made of [one, other]) await secrets.make(made ?? place, { value, comment: "ours" });
    await fault("/secrets\\?", { times: 1 });
    await secrets.remove(other ?? place);
    const body = { success: false, errors: [{ code: 1001, message: "secret_not_found" }], messages: [], result: null };
    await fault("/secrets/[0-9a-f]{32}$", { status: 404, body, times: 1 });
    await secrets.remove(one ?? place);
    const left = (await store.listSecrets(storeId)).filter(({ name }) => name.includes("kt-0a1b2c3d"));
    expect(left).toEqual([]);
  });

  test("an alias is listed with the comment of its secret", async () => {
    const { secrets } = await stores();
    const alias = "kt-0a1b2c3d-new";
    await secrets.make({ ...place, alias }, { value, comment: "whose it is" });
    expect(await secrets.listAliases(place.gateway, "openai")).toContainEqual(
      expect.objectContaining({ alias, comment: "whose it is" }),
    );
  });
});
