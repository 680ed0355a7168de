/** Anthropic's model calls: models, messages, token counts. The answers say little. */
import { idPage } from "./anthropic-admin.ts";
import type { AnthropicParts } from "./anthropic-errors.ts";
import { anthropicError } from "./anthropic-errors.ts";
import { anthropicDetail } from "./anthropic-state.ts";
import type { CallFacts, Reply, Request } from "./exchange.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import type { Key } from "./keys.ts";
import { wordId } from "./random.ts";

const models = [
  "claude-opus-5-5",
  "claude-sonnet-5-5",
  "claude-haiku-5-5",
  "claude-opus-4-6",
  "claude-sonnet-4-6",
  "claude-haiku-4-5",
  "claude-haiku-4-5-20251001",
];
const answer = "pong";
const usdPerToken = 0.000_002;
const idPrefix = wordId(16);
let lastId = 0;

const shownModel = (id: string): Record<string, unknown> => ({
  type: "model",
  id,
  display_name: id.replace("claude-", "Claude "),
  created_at: "2026-01-01T00:00:00Z",
  deprecated_at: null,
  lifecycle: "active",
  capabilities: null,
});

/** Answers a call of a key that has been accepted. */
export async function anthropicModelCall(parts: AnthropicParts, request: Request, key: Key): Promise<Reply> {
  const facts: CallFacts = { keyId: key.id };
  const [path = "", query] = request.path.split("?");
  if (request.method === "GET" && path === "/v1/models") {
    return { ...idPage(new URLSearchParams(query), models.map(shownModel)), facts };
  }
  if (request.method === "GET" && path.startsWith("/v1/models/")) {
    const id = decodeURIComponent(path.slice("/v1/models/".length));
    return { ...(models.includes(id) ? json(200, shownModel(id)) : noModel(id)), facts };
  }
  if (path !== "/v1/messages" && path !== "/v1/messages/count_tokens") {
    return { ...anthropicError(404, "Not Found"), facts };
  }
  if (request.method !== "POST") return { ...anthropicError(405, "Method Not Allowed"), facts };
  const body = jsonBody(request);
  if (body === undefined) return { ...anthropicError(400, "The request body is not valid JSON."), facts };
  const given = asObject(body);
  const counting = path.endsWith("/count_tokens");
  for (const name of ["model", "messages", ...(counting ? [] : ["max_tokens"])]) {
    if (given[name] === undefined) return { ...anthropicError(400, `${name}: Field required`), facts };
  }
  const model = String(given["model"]);
  if (!models.includes(model)) return { ...noModel(model), facts };
  const tokensIn = 5 + Math.ceil(JSON.stringify(given["messages"]).length / 4);
  if (counting) return { ...json(200, { input_tokens: tokensIn }), facts };
  if (parts.settings.modelLatencyMs > 0) await parts.clock.sleep(parts.settings.modelLatencyMs);
  const tokensOut = 4;
  const costUsd = (tokensIn + tokensOut) * usdPerToken;
  parts.usage.add({
    surface: "messages",
    keyId: key.id,
    project: anthropicDetail(key).workspaceId ?? request.headers["anthropic-workspace-id"] ?? "",
    model,
    tokensIn,
    tokensOut,
    costUsd,
  });
  return message(model, given["stream"] === true, { keyId: key.id, model, tokensIn, tokensOut, costUsd });
}

/** The same answer without any key of ours: Cloudflare's own credentials pay. */
export function anthropicWholesale(request: Request): Reply {
  const given = asObject(jsonBody(request));
  const facts: CallFacts = { model: String(given["model"] ?? models[0]), tokensIn: 9, tokensOut: 4, costUsd: 0 };
  if (!request.path.startsWith("/v1/messages")) {
    return { ...idPage(new URLSearchParams(), models.map(shownModel)), facts };
  }
  return message(facts.model ?? "", given["stream"] === true, facts);
}

const noModel = (id: string): Reply => anthropicError(404, `model: ${id}`);

function message(model: string, stream: boolean, facts: CallFacts): Reply {
  const { tokensIn = 0, tokensOut = 0 } = facts;
  const whole = {
    id: `msg_01${idPrefix}${(++lastId).toString(36)}`,
    type: "message",
    role: "assistant",
    model,
    content: [{ type: "text", text: answer }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: {
      input_tokens: tokensIn,
      output_tokens: tokensOut,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
      service_tier: "standard",
    },
  };
  if (!stream) return { ...json(200, whole), facts };
  const event = (type: string, more: Record<string, unknown> = {}): string =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`;
  const begun = { ...whole, content: [], stop_reason: null, usage: { ...whole.usage, output_tokens: 1 } };
  return {
    status: 200,
    headers: { "content-type": "text/event-stream; charset=utf-8" },
    body: "",
    chunks: [
      event("message_start", { message: begun }),
      event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
      event("ping"),
      ...[...answer].map((letter) =>
        event("content_block_delta", { index: 0, delta: { type: "text_delta", text: letter } }),
      ),
      event("content_block_stop", { index: 0 }),
      event("message_delta", {
        delta: { stop_reason: "end_turn", stop_sequence: null },
        usage: { output_tokens: tokensOut },
      }),
      event("message_stop"),
    ],
    facts,
  };
}
