/** Chats in OpenAI's shape, as `compat` speaks it with every provider. */
import { unixSeconds } from "./clock.ts";
import type { CallFacts, Reply } from "./exchange.ts";
import { asObject, json } from "./exchange.ts";
import { wordId } from "./random.ts";

export interface PlainMessage {
  role: "system" | "user" | "assistant";
  text: string;
}

/** The messages of a chat, whatever form their content has. */
export function messagesOf(body: Record<string, unknown>): PlainMessage[] {
  const messages = Array.isArray(body["messages"]) ? body["messages"] : [];
  return messages.map((message) => {
    const { role, content } = asObject(message);
    const parts = Array.isArray(content) ? content : [{ text: content }];
    const text = parts.map((part) => String(asObject(part)["text"] ?? "")).join("");
    if (role === "system" || role === "developer") return { role: "system", text };
    return { role: role === "assistant" ? "assistant" : "user", text };
  });
}

/** The most tokens a chat may cost, under any of its names. */
export const mostTokens = (body: Record<string, unknown>): unknown =>
  body["max_completion_tokens"] ?? body["max_tokens"];

/** A provider's good answer as a chat completion; streamed where the provider streamed. */
export function asChat(reply: Reply, now: number, text: string): Reply {
  const { model = "", tokensIn = 0, tokensOut = 0 }: CallFacts = reply.facts ?? {};
  const common = { id: `chatcmpl-${wordId(24)}`, created: unixSeconds(now), model };
  const { facts } = reply;
  if (reply.chunks !== undefined) {
    const chunk = (delta: unknown, finish: string | null): string =>
      `data: ${JSON.stringify({
        ...common,
        object: "chat.completion.chunk",
        choices: [{ index: 0, delta, finish_reason: finish }],
      })}\n\n`;
    const chunks = [
      chunk({ role: "assistant", content: "" }, null),
      chunk({ content: text }, null),
      chunk({}, "stop"),
      "data: [DONE]\n\n",
    ];
    return { ...reply, body: "", chunks };
  }
  const body = json(200, {
    ...common,
    object: "chat.completion",
    choices: [{ index: 0, message: { role: "assistant", content: text, refusal: null }, finish_reason: "stop" }],
    usage: { prompt_tokens: tokensIn, completion_tokens: tokensOut, total_tokens: tokensIn + tokensOut },
  });
  return { ...body, headers: { ...reply.headers, ...body.headers }, ...(facts === undefined ? {} : { facts }) };
}
