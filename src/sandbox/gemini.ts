/**
 * The Gemini API: models, content, streams, token counts. The key comes as `x-goog-api-key` or `?key=`.
 * https://ai.google.dev/gemini-api/docs/api-key (2026-09-25); bodies of refusals as others saw them (2026-09).
 */
import type { CallFacts, Reply, Request, Service } from "./exchange.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import type { GoogleParts } from "./google-errors.ts";
import { googleError, googleFault } from "./google-errors.ts";
import { googleDetail, isAuthKey } from "./google-state.ts";
import { accepts } from "./key-life.ts";
import type { Key } from "./keys.ts";
import { wordId } from "./random.ts";

const models = [
  "gemini-3-pro",
  "gemini-3-flash",
  "gemini-2.5-pro",
  "gemini-2.5-flash",
  "gemini-2.5-flash-lite",
  "gemini-embedding-001",
];
const answer = "pong";
const usdPerToken = 0.000_001;
const gemini = "generativelanguage.googleapis.com";
const idPrefix = wordId(16);
let lastId = 0;

interface Path {
  version: string;
  /** Undefined for the list. */
  model: string | undefined;
  /** Undefined for reading. */
  action: string | undefined;
  query: URLSearchParams;
}

/** Splits `/v1beta/models/{model}:{action}?…`. */
function pathOf(path: string): Path | undefined {
  const [plain = "", query] = path.split("?");
  const found = /^\/(v1beta|v1)\/models(?:\/([^/:]+)(?::(\w+))?)?$/.exec(decodeURIComponent(plain));
  if (found === null) return undefined;
  const [, version = "", model, action] = found;
  return { version, model, action, query: new URLSearchParams(query) };
}

/** All credentials of a request, wherever they are. */
export function geminiCredentials(headers: Request["headers"], path: string): string[] {
  const found: string[] = [];
  const header = headers["x-goog-api-key"];
  if (header !== undefined) found.push(header);
  const bearer = headers["authorization"];
  if (bearer !== undefined) found.push(bearer.replace(/^Bearer /, ""));
  if (path.includes("key=")) {
    const inQuery = new URLSearchParams(path.split("?")[1]).get("key");
    if (inQuery !== null) found.push(inQuery);
  }
  return found;
}

/** What Gemini says of a key that is wrong, deleted, expired or too new: it depends on its kind. */
const refusedKey = (value: string): Reply =>
  isAuthKey(value)
    ? googleError(
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
        { reason: "ACCESS_TOKEN_TYPE_UNSUPPORTED" },
      )
    : googleError(400, "API key not valid. Please pass a valid API key.", { reason: "API_KEY_INVALID" });

export function createGemini(parts: GoogleParts): Service {
  const { state, settings, clock, keys, usage, chance } = parts;

  function works(key: Key): boolean {
    const { serviceAccountEmail } = googleDetail(key);
    const account = serviceAccountEmail === undefined ? undefined : state.serviceAccounts.get(serviceAccountEmail);
    if (account?.disabledAt !== undefined && clock.now() >= account.disabledAt + clock.span(settings.googleDeathMs)) {
      return false;
    }
    return accepts(key, clock.now(), chance, {
      settleMs: clock.span(settings.googleSettleMs),
      refusedFor: 0.25,
      worksFor: isAuthKey(key.value) ? 0.5 : 0.1,
    });
  }

  /** Why a working key may not call Gemini; undefined where it may. */
  function blocked(key: Key): Reply | undefined {
    const { restrictions, leaked } = googleDetail(key);
    if (leaked === true) {
      return googleError(403, "Your API key was reported as leaked. Please use another API key.");
    }
    const targets = Array.isArray(restrictions["apiTargets"]) ? restrictions["apiTargets"] : [];
    const open = targets.some((target) => String(asObject(target)["service"]).toLowerCase() === gemini);
    // Unrestricted standard keys are refused since 2026-06-19; in which words is unknown.
    if (open || (targets.length === 0 && isAuthKey(key.value))) return undefined;
    return googleError(403, `Requests to this API ${gemini} are blocked.`, { reason: "API_KEY_SERVICE_BLOCKED" });
  }

  async function answerTo(request: Request): Promise<Reply> {
    const credentials = geminiCredentials(request.headers, request.path);
    const [value] = credentials;
    if (value === undefined) {
      return googleError(
        403,
        "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API.",
      );
    }
    if (credentials.length > 1) {
      return googleError(400, "Multiple authentication credentials received. Please pass only one.");
    }
    if (request.headers["authorization"] !== undefined) return refusedKey("AQ.");
    const key = keys.byValue(value);
    if (key === undefined || key.provider !== "google" || !works(key)) {
      return { ...refusedKey(value), facts: { keyId: key?.id } };
    }
    const path = pathOf(request.path);
    const reply = blocked(key) ?? (await called(request, path));
    reply.facts = { ...reply.facts, keyId: key.id };
    if (path !== undefined) {
      keys.used(key);
      count(key, path, reply);
    }
    return reply;
  }

  /** Counts a call for Monitoring, the refused ones too. */
  function count(key: Key, path: Path, reply: Reply): void {
    const { uid, projectId } = googleDetail(key);
    const { tokensIn = 0, tokensOut = 0, costUsd = 0 } = reply.facts ?? {};
    usage.add({
      surface: `google.ai.generativelanguage.${path.version}.${rpcOf(path)} ${reply.status}`,
      keyId: uid,
      project: projectId,
      model: "",
      tokensIn,
      tokensOut,
      costUsd,
    });
  }

  async function called(request: Request, path: Path | undefined): Promise<Reply> {
    if (path === undefined) return googleError(404, "Requested entity was not found.");
    const reply = read(request, path);
    if (reply !== undefined) return reply;
    if (settings.modelLatencyMs > 0) await clock.sleep(settings.modelLatencyMs);
    return generated(request, path);
  }

  return {
    name: "gemini",
    async handle(request) {
      const reply = await answerTo(request);
      // A stream without `alt=sse` is a JSON array, and so are its errors.
      const listed = request.path.includes(":streamGenerateContent") && !request.path.includes("alt=sse");
      return reply.status >= 400 && listed ? { ...reply, body: `[${reply.body}]` } : reply;
    },
    errorBody: googleFault,
    recorded: (request) => request.viaGateway !== true,
  };
}

/** The same answer without any key of ours: Cloudflare's own credentials pay. */
export function geminiWholesale(request: Request): Reply {
  const path = pathOf(request.path);
  if (path === undefined) return googleError(404, "Requested entity was not found.");
  const reply = read(request, path) ?? generated(request, path);
  return { ...reply, facts: { ...reply.facts, costUsd: 0 } };
}

function rpcOf({ model, action }: Path): string {
  if (action === undefined) return `ModelService.${model === undefined ? "ListModels" : "GetModel"}`;
  return `GenerativeService.${action.charAt(0).toUpperCase()}${action.slice(1)}`;
}

const shownModel = (id: string): Record<string, unknown> => ({
  name: `models/${id}`,
  version: "001",
  displayName: id,
  inputTokenLimit: 1_048_576,
  outputTokenLimit: 65_536,
  supportedGenerationMethods: id.includes("embedding") ? ["embedContent"] : ["generateContent", "countTokens"],
});

/** Answers what costs no time: lists, models, and what is wrong with a request. */
function read(request: Request, { version, model, action, query }: Path): Reply | undefined {
  const method = action === undefined ? "GET" : "POST";
  if (request.method !== method) return googleError(404, "Requested entity was not found.");
  if (model === undefined) {
    const size = Math.min(Number(query.get("pageSize") ?? 50) || 50, 1_000);
    const first = Number(query.get("pageToken") ?? 0) || 0;
    const more = first + size < models.length;
    return json(200, {
      models: models.slice(first, first + size).map(shownModel),
      ...(more ? { nextPageToken: String(first + size) } : {}),
    });
  }
  if (!models.includes(model)) {
    return googleError(
      404,
      `models/${model} is not found for API version ${version}, or is not supported for ${action ?? "getModel"}. Call ListModels to see the list of available models and their supported methods.`,
    );
  }
  if (action === undefined) return json(200, shownModel(model));
  const body = jsonBody(request);
  if (body === undefined) return googleError(400, "Invalid JSON payload received. Unexpected end of string.");
  const given = asObject(body);
  switch (action) {
    case "generateContent":
    case "streamGenerateContent":
      return Array.isArray(given["contents"]) && given["contents"].length > 0
        ? undefined
        : googleError(400, "* GenerateContentRequest.contents: contents is not specified\n");
    case "countTokens":
      return json(200, { totalTokens: tokensOf(given) });
    case "embedContent":
      return json(200, { embedding: { values: [0.1, -0.2, 0.3] } });
    default:
      return googleError(404, "Requested entity was not found.");
  }
}

const tokensOf = (given: Record<string, unknown>): number =>
  5 + Math.ceil(JSON.stringify(given["contents"] ?? "").length / 4);

function generated(request: Request, { model = "", action, query }: Path): Reply {
  const tokensIn = tokensOf(asObject(jsonBody(request)));
  const tokensOut = 2;
  const facts: CallFacts = { model, tokensIn, tokensOut, costUsd: (tokensIn + tokensOut) * usdPerToken };
  const part = (text: string, finishReason?: string): Record<string, unknown> => ({
    candidates: [
      {
        content: { parts: [{ text }], role: "model" },
        ...(finishReason === undefined ? {} : { finishReason }),
        index: 0,
      },
    ],
    usageMetadata: {
      promptTokenCount: tokensIn,
      candidatesTokenCount: tokensOut,
      totalTokenCount: tokensIn + tokensOut,
    },
    modelVersion: model,
    responseId: `${idPrefix}${(++lastId).toString(36)}`,
  });
  if (action !== "streamGenerateContent") return { ...json(200, part(answer, "STOP")), facts };
  const letters = [...answer].map((letter, index) =>
    JSON.stringify(part(letter, index === answer.length - 1 ? "STOP" : undefined)),
  );
  const sse = query.get("alt") === "sse";
  return {
    status: 200,
    headers: { "content-type": sse ? "text/event-stream" : "application/json; charset=UTF-8" },
    body: "",
    chunks: letters.map((letter, index) => {
      if (sse) return `data: ${letter}\r\n\r\n`;
      return `${index === 0 ? "[" : ",\r\n"}${letter}${index === letters.length - 1 ? "]" : ""}`;
    }),
    facts,
  };
}
