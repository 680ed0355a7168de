/** Gemini as the gateway reaches it: slug `google-ai-studio`, the path as it is at Google. */
import type { Clock } from "./clock.ts";
import type { Service } from "./exchange.ts";
import type { Upstream } from "./gateway.ts";
import { geminiCredentials, geminiWholesale } from "./gemini.ts";
import { asChat, messagesOf, mostTokens } from "./openai-shape.ts";

export const geminiUpstream = (service: Service, clock: Clock): Upstream => ({
  slug: "google-ai-studio",
  service,
  authorize(headers, key) {
    headers["x-goog-api-key"] = key;
  },
  path: (rest) => `/${rest}`,
  keyOf: (headers, rest) => geminiCredentials(headers, rest)[0],
  compat(body) {
    const messages = messagesOf(body);
    const system = messages.filter(({ role }) => role === "system").map(({ text }) => ({ text }));
    const most = mostTokens(body);
    const action = body["stream"] === true ? "streamGenerateContent?alt=sse" : "generateContent";
    return {
      rest: `v1beta/models/${encodeURIComponent(String(body["model"]))}:${action}`,
      body: {
        contents: messages
          .filter(({ role }) => role !== "system")
          .map(({ role, text }) => ({ role: role === "assistant" ? "model" : "user", parts: [{ text }] })),
        ...(system.length === 0 ? {} : { systemInstruction: { parts: system } }),
        ...(most === undefined ? {} : { generationConfig: { maxOutputTokens: most } }),
      },
    };
  },
  fromCompat: (reply) => (reply.status >= 400 ? reply : asChat(reply, clock.now(), "pong")),
  paidByCloudflare: geminiWholesale,
});
