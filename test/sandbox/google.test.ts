import { GoogleGenAI } from "@google/genai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { geminiLocation } from "../../src/sandbox/index.ts";
import type { Answer, Body, World } from "./world.ts";
import { answerSchema, departures, eventually, items, openApi, startWorld, text } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    timeScale: 60,
    googleSettleMs: 0,
    // Long enough here for what is asked meanwhile, on a busy machine too.
    googleDeathMs: 120_000,
    googleStandardDeathMs: { minMs: 30_000, maxMs: 60_000 },
    reviveMs: 30_000,
    operationMs: 3_000,
    usageLag: { google: { minMs: 180_000, jitterMs: 60_000 } },
  });
});
afterAll(() => world.close());

const email = "gw@my-project.iam.gserviceaccount.com";
const restrictions = { apiTargets: [{ service: "generativelanguage.googleapis.com" }] };
const contents = [{ role: "user", parts: [{ text: "ping" }] }];
const keysPath = "/v2/projects/my-project/locations/global/keys";

const bearer = (token = world.env["GOOGLE_OAUTH_ACCESS_TOKEN"]): Record<string, string> => ({
  authorization: `Bearer ${token}`,
});
const apiKeys = (method: string, path: string, body?: unknown, headers = bearer()): Promise<Answer> =>
  world.call(method, `${world.env["GOOGLE_APIKEYS_BASE_URL"]}${path}`, { body, headers });
const gemini = (path: string, headers: Record<string, string>, body?: unknown): Promise<Answer> =>
  world.call(body === undefined ? "GET" : "POST", `${world.env["GEMINI_BASE_URL"]}${path}`, { body, headers });
const models = (value: string): Promise<Answer> => gemini("/v1beta/models?pageSize=1", { "x-goog-api-key": value });
const done = async (answer: Answer): Promise<Body> => {
  expect(answer.status).toBe(200);
  const { body } = await eventually(
    () => apiKeys("GET", `/v2/${text(answer.body["name"])}`),
    (operation) => Boolean(operation.body["done"]),
  );
  return body["response"] ?? {};
};
const operationsTake = (operationMs: number): Promise<Answer> =>
  world.call("POST", `${world.control}/options`, { body: { operationMs } });
let lastKey = 0;
const issue = async (more: Record<string, unknown> = {}): Promise<Body> =>
  done(
    await apiKeys("POST", `${keysPath}?keyId=rot-${++lastKey}`, {
      displayName: "gw rot",
      serviceAccountEmail: email,
      annotations: { rotation: "8f3a" },
      restrictions,
      ...more,
    }),
  );
const pathOf = (key: Body): string => `/v2/${text(key["name"])}`;
const reason = ({ status, body }: Answer): unknown => [
  status,
  text(body["error"]?.["status"]),
  body["error"]?.["details"]?.[0]?.["reason"],
];

describe("keys", () => {
  test("are made by an operation, under an id of ours, once", async () => {
    const body = { displayName: "once", serviceAccountEmail: email, restrictions };
    await operationsTake(120_000);
    const started = await apiKeys("POST", `${keysPath}?keyId=once`, body);
    await operationsTake(3_000);
    expect(started.body["done"]).toBe(false);
    expect((await apiKeys("GET", `${keysPath}/once`)).status).toBe(404);
    expect(reason(await apiKeys("POST", `${keysPath}?keyId=once`, body))).toEqual([409, "ALREADY_EXISTS", undefined]);
    const key = await done(started);
    const value = text(key["keyString"]);
    expect(value).toMatch(/^AQ\./);
    expect(text(key["name"])).toBe("projects/123456789012/locations/global/keys/once");
    const shown = await apiKeys("GET", `${keysPath}/once`);
    expect(shown.body).toMatchObject({ uid: key["uid"], displayName: "once", serviceAccountEmail: email });
    expect(JSON.stringify(shown.body)).not.toContain(value);
    expect((await apiKeys("GET", `${keysPath}/once/keyString`)).body).toEqual({ keyString: value });
    const looked = await apiKeys("GET", `/v2/keys:lookupKey?keyString=${value}`);
    expect(looked.body).toEqual({ parent: "projects/123456789012/locations/global", name: key["name"] });
    expect(JSON.stringify(await world.record())).not.toContain(value);
    expect((await models(value)).status).toBe(200);
  });

  test("have ids and names within bounds", async () => {
    for (const id of ["0abc", "Rot", "a".repeat(64), "b7ff1f9f-8275-410a-94dd-3855ee9b5dd2"]) {
      expect((await apiKeys("POST", `${keysPath}?keyId=${id}`, {})).status).toBe(400);
    }
    expect((await apiKeys("POST", `${keysPath}?keyId=ok`, { displayName: "x".repeat(64) })).status).toBe(400);
    expect((await apiKeys("POST", `${keysPath}?keyId=ok`, { serviceAccountEmail: "no@x" })).status).toBe(400);
  });

  test("are listed by pages, a little late, with the deleted ones when asked for", async () => {
    const [one, two] = [await issue(), await issue()];
    await apiKeys("DELETE", pathOf(one));
    const all = async (query: string): Promise<Body[]> => {
      const found: Body[] = [];
      for (let token = ""; ;) {
        const { body } = await apiKeys("GET", `${keysPath}?pageSize=1&pageToken=${token}&${query}`);
        found.push(...items(body["keys"] ?? ([] as unknown as Body)));
        if (body["nextPageToken"] === undefined) return found;
        token = text(body["nextPageToken"]);
      }
    };
    const has = (list: Body[], key: Body): boolean => list.some(({ name }) => name === key["name"]);
    await eventually(
      () => all(""),
      (list) => has(list, two) && !has(list, one),
    );
    const deleted = (await all("showDeleted=true")).find(({ name }) => name === one["name"]);
    expect(deleted?.["deleteTime"]).toBeDefined();
    expect(deleted?.["keyString"]).toBeUndefined();
  });

  test("change only in what may change, and not under a stale etag", async () => {
    const key = await issue();
    const mask = `${pathOf(key)}?updateMask=annotations`;
    const changed = await done(await apiKeys("PATCH", mask, { annotations: { a: "1" }, displayName: "ignored" }));
    expect(changed).toMatchObject({ annotations: { a: "1" }, displayName: "gw rot" });
    expect((await apiKeys("PATCH", `${pathOf(key)}?updateMask=uid`, {})).status).toBe(400);
    const stale = await apiKeys("DELETE", `${pathOf(key)}?etag=${encodeURIComponent(text(key["etag"]))}`);
    expect(reason(stale)).toEqual([409, "ABORTED", undefined]);
    const fresh = encodeURIComponent(text(changed["etag"]));
    expect((await apiKeys("DELETE", `${pathOf(key)}?etag=${fresh}`)).status).toBe(200);
  });

  test("go on working for a moment when deleted, and come back when undeleted", async () => {
    const key = await issue();
    const value = text(key["keyString"]);
    const gone = await done(await apiKeys("DELETE", pathOf(key)));
    expect(gone["deleteTime"]).toBeDefined();
    expect((await models(value)).status).toBe(200);
    expect((await apiKeys("DELETE", pathOf(key))).status).toBe(404);
    expect((await apiKeys("POST", `${keysPath}?keyId=rot-${lastKey}`, {})).status).toBe(409);
    const row = async (): Promise<Body | undefined> =>
      items((await world.record())["keys"]).find(({ uid }) => uid === key["uid"]);
    const revoked = await row();
    expect(revoked).toMatchObject({ id: `rot-${lastKey}`, provider: "google", state: "revoked" });
    await eventually(
      () => Promise.resolve(Date.now()),
      (now) => now > Date.parse(text(revoked?.["deadAt"])),
    );
    expect(reason(await models(value))).toEqual([401, "UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED"]);
    await done(await apiKeys("POST", `${pathOf(key)}:undelete`));
    await eventually(
      () => models(value),
      ({ status }) => status === 200,
    );
    expect(await row()).toMatchObject({ state: "active", revokedAt: null, deadAt: null });
  });

  test("of the standard kind are refused in other words, and unrestricted ones are not served", async () => {
    const key = await issue({ serviceAccountEmail: undefined });
    const value = text(key["keyString"]);
    expect(value).toMatch(/^AIza/);
    expect((await models(value)).status).toBe(200);
    await apiKeys("DELETE", pathOf(key));
    const refused = await eventually(
      () => models(value),
      ({ status }) => status !== 200,
    );
    expect(reason(refused)).toEqual([400, "INVALID_ARGUMENT", "API_KEY_INVALID"]);
    const open = await issue({ serviceAccountEmail: undefined, restrictions: {} });
    expect(reason(await models(text(open["keyString"])))).toEqual([
      403,
      "PERMISSION_DENIED",
      "API_KEY_SERVICE_BLOCKED",
    ]);
  });

  test("in use are spared on request", async () => {
    const key = await issue();
    const guarded = `${pathOf(key)}?checkExistingUsage=CHECK`;
    await models(text(key["keyString"]));
    expect(reason(await apiKeys("DELETE", guarded))).toEqual([400, "FAILED_PRECONDITION", undefined]);
    expect((await apiKeys("DELETE", `${pathOf(await issue())}?checkExistingUsage=CHECK`)).status).toBe(200);
  });

  test("need a token that may", async () => {
    const none = await world.call("GET", `${world.env["GOOGLE_APIKEYS_BASE_URL"]}${keysPath}`);
    expect(reason(none)).toEqual([401, "UNAUTHENTICATED", "CREDENTIALS_MISSING"]);
    expect((await apiKeys("GET", keysPath, undefined, bearer("ya29.no"))).status).toBe(401);
    const readOnly = bearer(world.seed["googleReadOnlyToken"]);
    expect((await apiKeys("GET", keysPath, undefined, readOnly)).status).toBe(200);
    expect((await apiKeys("POST", `${keysPath}?keyId=no`, {}, readOnly)).status).toBe(403);
    expect((await apiKeys("GET", `${keysPath}/gemini-prod-1/keyString`, undefined, readOnly)).status).toBe(403);
    expect((await apiKeys("GET", "/v2/projects/other/locations/global/keys")).status).toBe(403);
  });

  test("may be refused for long while they settle", async () => {
    const slow = await startWorld({ operationMs: 0, googleSettleMs: 60_000 });
    const made = await slow.call("POST", `${slow.env["GOOGLE_APIKEYS_BASE_URL"]}${keysPath}?keyId=fresh`, {
      body: { serviceAccountEmail: email, restrictions },
      headers: bearer(slow.env["GOOGLE_OAUTH_ACCESS_TOKEN"]),
    });
    expect(made.body["done"]).toBe(true);
    const value = text(made.body["response"]?.["keyString"]);
    const call = await slow.call("GET", `${slow.env["GEMINI_BASE_URL"]}/v1beta/models`, {
      headers: { "x-goog-api-key": value },
    });
    expect(call.status).toBe(401);
    await slow.close();
  });
});

describe("Gemini", () => {
  test("takes one credential, in a header or the query, and no bearer", async () => {
    const value = text((await issue())["keyString"]);
    expect((await gemini("/v1beta/models", {})).status).toBe(403);
    expect((await gemini(`/v1beta/models?key=${value}`, {})).status).toBe(200);
    expect((await gemini(`/v1beta/models?key=${value}`, { "x-goog-api-key": value })).status).toBe(400);
    expect(reason(await gemini("/v1beta/models", bearer(value)))).toEqual([
      401,
      "UNAUTHENTICATED",
      "ACCESS_TOKEN_TYPE_UNSUPPORTED",
    ]);
    expect(reason(await models("AIzaNo"))).toEqual([400, "INVALID_ARGUMENT", "API_KEY_INVALID"]);
    expect(JSON.stringify(await world.record())).not.toContain(value);
  });

  test("refuses leaked keys, keys of a disabled service account, and places", async () => {
    const key = await issue();
    const value = text(key["keyString"]);
    const accounts = `${world.control}/google/service-accounts/${encodeURIComponent(email)}`;
    await world.call("POST", `${accounts}/disable`);
    await eventually(
      () => models(value),
      ({ status }) => status === 401,
    );
    await world.call("POST", `${accounts}/enable`);
    expect((await models(value)).status).toBe(200);
    await world.call("POST", `${world.control}/google/keys/rot-${lastKey}/leak`);
    const leaked = await models(value);
    expect([leaked.status, text(leaked.body["error"]?.["message"])]).toEqual([
      403,
      "Your API key was reported as leaked. Please use another API key.",
    ]);
    await world.fault({ service: "gemini", mode: "status", status: 400, body: geminiLocation, times: 1 });
    expect(reason(await models(value))).toEqual([400, "FAILED_PRECONDITION", undefined]);
    await world.fault({ service: "gemini", mode: "status", status: 429, times: 1 });
    expect(reason(await models(value))).toEqual([429, "RESOURCE_EXHAUSTED", undefined]);
  });

  test("is reached through the gateway, natively and by compat, with the stored key or the request's own", async () => {
    const path = "google-ai-studio/v1beta/models/gemini-2.5-flash:generateContent";
    const native = await world.chat({}, { path, body: { contents } });
    expect(native.body["candidates"]?.[0]?.["content"]).toMatchObject({ parts: [{ text: "pong" }] });
    for (const own of [{ "x-goog-api-key": "placeholder" }, { authorization: "Bearer placeholder" }]) {
      expect((await world.chat(own, { path, body: { contents } })).status).not.toBe(200);
    }
    expect((await world.chat({}, { path: `${path}?key=AIzaNo`, body: { contents } })).status).toBe(400);
    const chat = { model: "google-ai-studio/gemini-2.5-flash", messages: [{ role: "user", content: "ping" }] };
    const compat = await world.chat({}, { path: "compat/chat/completions", body: chat });
    expect(compat.body).toMatchObject({ object: "chat.completion", choices: [{ message: { content: "pong" } }] });
    const logs = await eventually(
      () => world.cloudflare("GET", "/ai-gateway/gateways/github-ai-agent-prod/logs"),
      ({ body }) => items(body["result"]).length === 5,
    );
    expect(new Set(items(logs.body["result"]).map(({ provider }) => text(provider)))).toEqual(
      new Set(["google-ai-studio"]),
    );
  });

  test("streams to its own SDK, and answers it", async () => {
    const apiKey = text((await issue())["keyString"]);
    const client = new GoogleGenAI({ apiKey, httpOptions: { baseUrl: world.env["GEMINI_BASE_URL"] ?? "" } });
    const model = "gemini-2.5-flash";
    const answer = await client.models.generateContent({ model, contents: "ping" });
    expect([answer.text, answer.usageMetadata?.candidatesTokenCount]).toEqual(["pong", 2]);
    let streamed = "";
    for await (const part of await client.models.generateContentStream({ model, contents: "ping" })) {
      streamed += part.text ?? "";
    }
    expect(streamed).toBe("pong");
    const names: string[] = [];
    for await (const one of await client.models.list({ config: { pageSize: 2 } })) names.push(one.name ?? "");
    expect(names).toContain("models/gemini-2.5-flash");
    await expect(client.models.get({ model: "no-such" })).rejects.toMatchObject({ status: 404 });
  });
});

describe("monitoring", () => {
  const service =
    'metric.type="serviceruntime.googleapis.com/api/request_count" AND resource.type="consumed_api" AND resource.labels.service="generativelanguage.googleapis.com"';
  const series = (filter: string, more = ""): Promise<Answer> => {
    const query = new URLSearchParams({
      filter,
      "interval.startTime": new Date(Date.now() - 60_000).toISOString(),
      "interval.endTime": new Date().toISOString(),
      "aggregation.alignmentPeriod": "60s",
      "aggregation.perSeriesAligner": "ALIGN_SUM",
    });
    const url = `${world.env["GOOGLE_MONITORING_BASE_URL"]}/v3/projects/my-project/timeSeries?${query.toString()}${more}`;
    return world.call("GET", url, { headers: bearer() });
  };
  const points = (body: Body): Body[] =>
    items(body["timeSeries"] ?? ([] as unknown as Body)).flatMap((one) => items(one["points"]));
  const total = (body: Body): number =>
    points(body).reduce((sum, point) => sum + Number(point["value"]?.["int64Value"]), 0);

  test("counts requests of a key, late, in aligned points, page by page", async () => {
    const key = await issue();
    const value = text(key["keyString"]);
    const sent = Date.now();
    const generate = "/v1beta/models/gemini-2.5-flash:generateContent";
    for (let call = 0; call < 3; call++) await gemini(generate, { "x-goog-api-key": value }, { contents });
    await gemini(generate, { "x-goog-api-key": value }, {});
    const filter = `${service} AND resource.labels.credential_id="apikey:${text(key["uid"])}"`;
    expect((await series(filter)).body).toEqual({});
    const { body } = await eventually(
      () => series(filter),
      (answer) => total(answer.body) === 4,
      30_000,
    );
    expect(Date.now() - sent).toBeGreaterThan(3_000);
    const codes = items(body["timeSeries"]).map((one) => text(one["metric"]?.["labels"]?.["response_code"]));
    expect(codes.toSorted()).toEqual(["200", "400"]);
    const interval = points(body)[0]?.["interval"];
    expect(Date.parse(text(interval?.["endTime"])) - Date.parse(text(interval?.["startTime"]))).toBe(1_000);
    const failed = await series(`${filter} AND metric.labels.response_code!="200"`);
    expect(total(failed.body)).toBe(1);
    const page = await series(filter, "&pageSize=1");
    const rest = await series(filter, `&pageSize=100&pageToken=${text(page.body["nextPageToken"])}`);
    expect(total(page.body) + total(rest.body)).toBe(4);
  });

  test("reads no other filter as this one, and needs its own permission", async () => {
    expect((await series('resource.type="consumed_api"')).status).toBe(400);
    expect((await series(`${service} OR nonsense`)).status).toBe(400);
    expect((await series('metric.type="other.googleapis.com/x"')).body).toEqual({});
    const url = `${world.env["GOOGLE_MONITORING_BASE_URL"]}/v3/projects/my-project/timeSeries`;
    const refused = await world.call("GET", url, { headers: bearer(world.seed["googleNoMonitoringToken"]) });
    expect(refused.status).toBe(403);
  });
});

const api = openApi("google-apikeys-v2.openapi.json");
test.skipIf(api === undefined)("answers as the discovery document says", async () => {
  if (api === undefined) return;
  const { name } = await issue();
  const key = `/v2/${text(name)}`;
  const keys = "/v2/projects/{projectsId}/locations/{locationsId}/keys";
  const calls: [string, string, string, unknown?][] = [
    ["get", keys, keysPath],
    ["post", keys, `${keysPath}?keyId=by-schema`, { displayName: "by schema" }],
    ["get", `${keys}/{keysId}`, key],
    ["get", `${keys}/{keysId}/keyString`, `${key}/keyString`],
    ["patch", `${keys}/{keysId}`, `${key}?updateMask=displayName`, { displayName: "x" }],
    ["delete", `${keys}/{keysId}`, key],
    ["post", `${keys}/{keysId}:undelete`, `${key}:undelete`, {}],
  ];
  for (const [method, template, path, body] of calls) {
    const answer = await apiKeys(method.toUpperCase(), path, body);
    expect([path, answer.status]).toEqual([path, 200]);
    expect([path, departures(api, answerSchema(api, template, method), answer.body)]).toEqual([path, []]);
  }
});
