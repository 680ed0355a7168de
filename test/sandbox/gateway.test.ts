import { Agent, request } from "node:http";
import { describe, expect, test } from "vitest";
import type { SandboxOptions } from "../../src/sandbox/index.ts";
import type { Answer, Body, World } from "./world.ts";
import { eventually, items, ping, startWorld, text } from "./world.ts";

/** Runs a test in a world of its own. */
const inWorld = (options: SandboxOptions, work: (world: World) => Promise<void>) => async (): Promise<void> => {
  const world = await startWorld(options);
  try {
    await work(world);
  } finally {
    await world.close();
  }
};

const slotSecret = async (world: World): Promise<string> => {
  const path = `/secrets_store/stores/${world.seed["storeId"]}/secrets`;
  const { body } = await world.cloudflare("GET", `${path}?search=github-ai-agent-prod_openai`);
  return `${path}/${text(body["result"]?.[0]?.["id"])}`;
};
const issue = async (world: World): Promise<Body> =>
  (await world.openai("POST", "/organization/projects/proj_abc/service_accounts/svc_acct_1/api_keys")).body;
const failureOf = ({ status, body }: Answer): unknown => [status, text(body["name"]), Number(body["internalCode"])];

describe("edges", () => {
  test(
    "send the old key for a while after a write, even once the secret is active; an isolate for almost its whole TTL",
    inWorld(
      {
        activationMs: 0,
        settleMs: 0,
        edges: [
          { name: "near", propagationMs: 0, cacheTtlMs: 400, isolates: 4 },
          { name: "far", propagationMs: 300, cacheTtlMs: 400, isolates: 4 },
        ],
      },
      async (world) => {
        const key = await issue(world);
        const held = await slotSecret(world);
        const written = performance.now();
        const patched = await world.cloudflare("PATCH", held, { value: text(key["value"]) });
        expect(patched.body["result"]).toMatchObject({ status: "active" });
        const views = async (edge: string): Promise<Record<string, number>> => {
          const { body } = await world.call("GET", `${world.control}/slots`);
          const slot = items(body["slots"]).find(({ gateway }) => text(gateway) === "github-ai-agent-prod");
          const view = items(slot?.["edges"]).find((one) => text(one["edge"]) === edge);
          return view?.["isolates"] as unknown as Record<string, number>;
        };
        expect((await views("far"))["key_prod_1"]).toBe(4);
        const allNew = (isolates: Record<string, number>): boolean => isolates["key_prod_1"] === undefined;
        await eventually(() => views("near"), allNew);
        expect(performance.now() - written).toBeGreaterThan(290);
        expect((await views("far"))["key_prod_1"]).toBeGreaterThan(0);
        await eventually(() => views("far"), allNew);
        expect(performance.now() - written).toBeGreaterThan(590);
      },
    ),
  );

  test(
    "fail a client whose stale edge sends a key that was revoked, and the record names it",
    inWorld(
      {
        settleMs: 0,
        deathMs: 0,
        edges: [
          { name: "near", propagationMs: 0, cacheTtlMs: 0, isolates: 1 },
          { name: "stale", propagationMs: 60_000, cacheTtlMs: 60_000, isolates: 1 },
        ],
      },
      async (world) => {
        const key = await issue(world);
        await world.cloudflare("PATCH", await slotSecret(world), { value: text(key["value"]) });
        await world.openai("DELETE", "/organization/projects/proj_abc/api_keys/key_prod_1");
        const good = await world.chat({ "x-sandbox-edge": "near" });
        const bad = await world.chat({ "x-sandbox-edge": "stale" });
        expect([good.status, good.headers.get("x-sandbox-edge")]).toEqual([200, "near"]);
        expect([bad.status, bad.body["error"]?.["code"]]).toEqual([401, "invalid_api_key"]);
        const { traffic, keys } = await world.record();
        expect(traffic).toMatchObject({ served: 1, failed: 1, byEdge: { stale: { failed: 1 } } });
        expect(traffic?.["failures"]).toMatchObject([
          { edge: "stale", keyId: "key_prod_1", status: 401, source: "key" },
        ]);
        expect(items(keys).find(({ id }) => id === key["id"])?.["lastUsedAt"]).not.toBeNull();
      },
    ),
  );

  test(
    "keep a connection, and share connections out in turn",
    inWorld({}, async (world) => {
      const base = new URL(world.env["CLOUDFLARE_GATEWAY_BASE_URL"] ?? "");
      const edgeOf = (agent: Agent): Promise<string> =>
        new Promise((resolve, reject) => {
          const sent = request(base, { agent }, (answer) => {
            answer.resume();
            answer.on("end", () => resolve(String(answer.headers["x-sandbox-edge"])));
          });
          sent.on("error", reject);
          sent.end();
        });
      const agents = Array.from({ length: 4 }, () => new Agent({ keepAlive: true, maxSockets: 1 }));
      const seen: string[] = [];
      for (const agent of agents) {
        const edge = await edgeOf(agent);
        expect(await edgeOf(agent)).toBe(edge);
        seen.push(edge);
      }
      expect(seen.toSorted()).toEqual(["gru", "iad", "lhr", "sin"]);
      for (const agent of agents) agent.destroy();
    }),
  );
});

describe("credentials", () => {
  test(
    "are the request's own before the stored key before Cloudflare's",
    inWorld({ settleMs: 0 }, async (world) => {
      const placeholder = await world.chat({ authorization: "Bearer placeholder" });
      expect([placeholder.status, placeholder.body["error"]?.["code"]]).toEqual([401, "invalid_api_key"]);
      expect((await world.chat()).status).toBe(200);
      const configs = "/ai-gateway/gateways/github-ai-agent-prod/provider_configs";
      const { body } = await world.cloudflare("GET", configs);
      await world.cloudflare("DELETE", `${configs}/${text(body["result"]?.[0]?.["id"])}`);
      const staging = await startWorld({
        edges: [{ name: "one", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }],
      });
      const list = await staging.cloudflare("GET", configs);
      await staging.cloudflare("DELETE", `${configs}/${text(list.body["result"]?.[0]?.["id"])}`);
      expect((await staging.chat()).status).toBe(200);
      expect((await staging.record())["traffic"]?.["bySource"]).toEqual({ cloudflare: 1 });
      expect((await staging.chat({ "cf-aig-no-wholesale": "true" })).status).toBe(400);
      await staging.call("POST", `${staging.control}/options`, { body: { unifiedBilling: false } });
      expect(failureOf(await staging.chat())).toEqual([402, "AiGatewayError", 2021]);
      await staging.close();
    }),
  );

  test(
    "need the gateway's token, a known alias, and a secret behind the config",
    inWorld({ edges: [{ name: "one", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }] }, async (world) => {
      expect(failureOf(await world.chat({ "cf-aig-authorization": "Bearer no" }))).toEqual([
        401,
        "AiGatewayError",
        2009,
      ]);
      const unknown = await world.chat({ "cf-aig-byok-alias": "nope" });
      expect(failureOf(unknown)).toEqual([400, "AiGatewayError", 2040]);
      expect(text(unknown.body["message"])).toBe(
        "Provider 'openai' has no BYOK credential named 'nope'. Configured aliases: default",
      );
      await world.cloudflare("DELETE", await slotSecret(world));
      expect(text((await world.chat()).body["message"])).toBe("Configured BYOK credentials are unavailable");
    }),
  );
});

test(
  "answers from its cache when it may, whatever the key",
  inWorld({}, async (world) => {
    const cached = { "cf-aig-cache-ttl": "60" };
    expect((await world.chat(cached)).headers.get("cf-aig-cache-status")).toBe("MISS");
    expect((await world.chat(cached)).headers.get("cf-aig-cache-status")).toBe("HIT");
    const skipped = await world.chat({ ...cached, "cf-aig-skip-cache": "true" });
    expect(skipped.headers.get("cf-aig-cache-status")).toBe("MISS");
    expect(skipped.headers.get("cf-aig-log-id")).not.toBeNull();
  }),
);

test(
  "speaks compat, and streams",
  inWorld({}, async (world) => {
    const path = "compat/chat/completions";
    const body = { ...ping, model: "openai/gpt-5-mini" };
    expect((await world.chat({}, { path, body })).body["object"]).toBe("chat.completion");
    const streamed = await world.chat({}, { path, body: { ...body, stream: true } });
    expect(streamed.headers.get("content-type")).toContain("text/event-stream");
    expect(String(streamed.body)).toMatch(/data: \[DONE\]/);
  }),
);

test(
  "does not count keyturn's own probes as clients",
  inWorld({}, async (world) => {
    await world.chat({ "cf-aig-metadata": '{"keyturn":"rot-1"}' });
    await world.chat({ "cf-aig-byok-alias": "kt-12345678-new" });
    const before = await world.record();
    expect([before["traffic"]?.["served"], before["traffic"]?.["failed"]]).toEqual([0, 0]);
    expect(before["probes"]).toMatchObject({ served: 1, failed: 1 });
    expect(before["keys"]?.[0]).toMatchObject({ id: "key_prod_1", lastUsedAt: null });
    await world.chat();
    const after = await world.record();
    expect(after["traffic"]).toMatchObject({ served: 1, failed: 0 });
    expect(after["keys"]?.[0]?.["lastUsedAt"]).not.toBeNull();
  }),
);
