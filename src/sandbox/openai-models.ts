/** OpenAI's model calls: models, chat completions, responses, embeddings. The answers say little. */
import { unixSeconds } from "./clock.ts";
import type { CallFacts, Reply, Request } from "./exchange.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import type { Key } from "./keys.ts";
import type { OpenAiParts } from "./openai-errors.ts";
import { missingScopes, openAiError } from "./openai-errors.ts";
import { detailOf } from "./openai-state.ts";
import { wordId } from "./random.ts";

const models = [
  "gpt-5",
  "gpt-5-mini",
  "gpt-5-nano",
  "gpt-4o",
  "gpt-4o-mini",
  "gpt-4",
  "text-embedding-3-small",
  "text-embedding-3-large",
];
const modelBorn = 1_754_425_777;
const answer = "pong";
const usdPerToken = 0.000_001;
/** Makes ids unlike those of another sandbox without asking for randomness at each call. */
const idPrefix = wordId(12);
let lastId = 0;

const shownModel = (id: string): Record<string, unknown> => ({
  id,
  object: "model",
  created: modelBorn,
  owned_by: "openai",
});

/** Answers a call of a key that has been accepted. */
export async function modelCall(parts: OpenAiParts, request: Request, key: Key): Promise<Reply> {
  const path = request.path.split("?")[0] ?? "";
  const facts: CallFacts = { keyId: key.id };
  const lacks = (scope: string): Reply | undefined => {
    const { scopes } = detailOf(key);
    if (scopes.length === 0 || scopes.includes(scope)) return undefined;
    const all = scope.endsWith(".read") || scope === "api.model.read" ? "api.all.read" : "api.all.write";
    return scopes.includes(all) ? undefined : { ...missingScopes(scope), facts };
  };
  if (request.method === "GET" && (path === "/v1/models" || path.startsWith("/v1/models/"))) {
    const refused = lacks("api.model.read");
    if (refused !== undefined) return refused;
    const id = path.slice("/v1/models/".length);
    if (id === "") return { ...json(200, { object: "list", data: models.map(shownModel) }), facts };
    if (!models.includes(id)) return { ...noModel(id), facts };
    return { ...json(200, shownModel(id)), facts };
  }
  const call = request.method === "POST" ? calls[path] : undefined;
  if (call === undefined) {
    return { ...openAiError(404, { message: `Invalid URL (${request.method} ${path})` }), facts };
  }
  const refused = lacks(call.scope);
  if (refused !== undefined) return refused;
  const body = jsonBody(request);
  if (body === undefined) {
    const message = "We could not parse the JSON body of your request.";
    return { ...openAiError(400, { message }), facts };
  }
  const given = asObject(body);
  const model = given["model"];
  if (typeof model !== "string") {
    const message = "you must provide a model parameter";
    return { ...openAiError(400, { message }), facts };
  }
  if (!models.includes(model)) return { ...noModel(model), facts };
  if (given[call.input] === undefined) {
    const problem = { message: `Missing required parameter: '${call.input}'.`, param: call.input };
    return { ...openAiError(400, { ...problem, code: "missing_required_parameter" }), facts };
  }
  if (parts.settings.modelLatencyMs > 0) await parts.clock.sleep(parts.settings.modelLatencyMs);
  const used = spend(parts, call, key, model, given);
  return { ...call.reply(parts.clock.now(), model, used, given["stream"] === true), facts: used };
}

/** The same answer without any key of ours: Cloudflare's own credentials pay. */
export function wholesaleCall(now: number, request: Request): Reply {
  const path = request.path.split("?")[0] ?? "";
  const given = asObject(jsonBody(request));
  const model = String(given["model"] ?? "gpt-5-mini");
  const facts: CallFacts = { model, tokensIn: 9, tokensOut: 2, costUsd: 0 };
  const call = calls[path];
  if (call === undefined) {
    return { ...json(200, { object: "list", data: models.map(shownModel) }), facts };
  }
  return { ...call.reply(now, model, facts, given["stream"] === true), facts };
}

function spend(
  { usage }: OpenAiParts,
  call: ModelCall,
  key: Key,
  model: string,
  given: Record<string, unknown>,
): CallFacts {
  const tokensIn = 5 + Math.ceil(JSON.stringify(given[call.input]).length / 4);
  const tokensOut = call.surface === "embeddings" ? 0 : 2;
  const costUsd = (tokensIn + tokensOut) * usdPerToken;
  const { projectId } = detailOf(key);
  usage.add({
    surface: call.surface,
    keyId: key.id,
    project: projectId,
    model,
    tokensIn,
    tokensOut,
    costUsd,
  });
  return { keyId: key.id, model, tokensIn, tokensOut, costUsd };
}

const noModel = (id: string): Reply =>
  openAiError(404, {
    message: `The model \`${id}\` does not exist or you do not have access to it.`,
    code: "model_not_found",
  });

interface ModelCall {
  scope: string;
  /** The usage report it counts in. */
  surface: string;
  /** The required parameter that carries the prompt. */
  input: string;
  reply(now: number, model: string, used: CallFacts, stream: boolean): Reply;
}

const calls: Record<string, ModelCall> = {
  "/v1/chat/completions": {
    scope: "api.model.request",
    surface: "completions",
    input: "messages",
    reply: chat,
  },
  "/v1/responses": {
    scope: "api.responses.write",
    surface: "completions",
    input: "input",
    reply: response,
  },
  "/v1/embeddings": {
    scope: "api.model.request",
    surface: "embeddings",
    input: "input",
    reply: (_now, model, { tokensIn = 0 }) =>
      json(200, {
        object: "list",
        data: [{ object: "embedding", index: 0, embedding: [0.1, -0.2, 0.3] }],
        model,
        usage: { prompt_tokens: tokensIn, total_tokens: tokensIn },
      }),
  },
};

const newId = (start: string): string => `${start}${idPrefix}${(++lastId).toString(36)}`;

function chat(now: number, model: string, used: CallFacts, stream: boolean): Reply {
  const { tokensIn = 0, tokensOut = 0 } = used;
  const common = { id: newId("chatcmpl-"), created: unixSeconds(now), model };
  if (stream) {
    const chunk = (delta: unknown, finish: string | null): string =>
      `data: ${JSON.stringify({
        ...common,
        object: "chat.completion.chunk",
        choices: [{ index: 0, delta, finish_reason: finish }],
      })}\n\n`;
    return events([
      chunk({ role: "assistant", content: "" }, null),
      ...[...answer].map((letter) => chunk({ content: letter }, null)),
      chunk({}, "stop"),
      "data: [DONE]\n\n",
    ]);
  }
  return json(200, {
    ...common,
    object: "chat.completion",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: answer, refusal: null },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: {
      prompt_tokens: tokensIn,
      completion_tokens: tokensOut,
      total_tokens: tokensIn + tokensOut,
    },
    service_tier: "default",
  });
}

function response(now: number, model: string, used: CallFacts, stream: boolean): Reply {
  const { tokensIn = 0, tokensOut = 0 } = used;
  const whole = {
    id: newId("resp_"),
    object: "response",
    created_at: unixSeconds(now),
    status: "completed",
    error: null,
    incomplete_details: null,
    model,
    output: [
      {
        type: "message",
        id: newId("msg_"),
        status: "completed",
        role: "assistant",
        content: [{ type: "output_text", text: answer, annotations: [] }],
      },
    ],
    usage: {
      input_tokens: tokensIn,
      output_tokens: tokensOut,
      total_tokens: tokensIn + tokensOut,
    },
  };
  if (!stream) return json(200, whole);
  const event = (type: string, more: Record<string, unknown>): string =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`;
  return events([
    event("response.created", { response: { ...whole, status: "in_progress", output: [] } }),
    event("response.output_text.delta", { output_index: 0, content_index: 0, delta: answer }),
    event("response.completed", { response: whole }),
  ]);
}

const events = (chunks: string[]): Reply => ({
  status: 200,
  headers: { "content-type": "text/event-stream; charset=utf-8" },
  body: "",
  chunks,
});
