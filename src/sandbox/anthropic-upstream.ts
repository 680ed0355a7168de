/** Anthropic as the gateway reaches it: slug `anthropic`, the path as it is at Anthropic. */
import { anthropicWholesale } from "./anthropic-models.ts";
import { anthropicKeyOf } from "./anthropic.ts";
import type { Clock } from "./clock.ts";
import type { Service } from "./exchange.ts";
import type { Upstream } from "./gateway.ts";
import { asChat, messagesOf, mostTokens } from "./openai-shape.ts";

export const anthropicUpstream = (service: Service, clock: Clock): Upstream => ({
  slug: "anthropic",
  service,
  authorize(headers, key) {
    headers["x-api-key"] = key;
  },
  path: (rest) => `/${rest}`,
  keyOf: anthropicKeyOf,
  compat(body) {
    const messages = messagesOf(body);
    const system = messages.filter(({ role }) => role === "system").map(({ text }) => text);
    return {
      rest: "v1/messages",
      headers: { "anthropic-version": "2023-06-01" },
      body: {
        model: body["model"],
        max_tokens: mostTokens(body) ?? 4_096,
        ...(system.length === 0 ? {} : { system: system.join("\n") }),
        messages: messages.filter(({ role }) => role !== "system").map(({ role, text }) => ({ role, content: text })),
        ...(body["stream"] === true ? { stream: true } : {}),
      },
    };
  },
  fromCompat: (reply) => (reply.status >= 400 ? reply : asChat(reply, clock.now(), "pong")),
  paidByCloudflare: (request) => anthropicWholesale(request),
});
