/** OpenAI as the gateway reaches it: slug `openai`, what follows `/v1/` at OpenAI. */
import type { Clock } from "./clock.ts";
import type { Service } from "./exchange.ts";
import type { Upstream } from "./gateway.ts";
import { wholesaleCall } from "./openai-models.ts";

export const openAiUpstream = (service: Service, clock: Clock): Upstream => ({
  slug: "openai",
  service,
  authorize(headers, key) {
    headers["authorization"] = `Bearer ${key}`;
  },
  path: (rest) => `/v1/${rest}`,
  keyOf: (headers) => headers["authorization"]?.replace(/^Bearer /, ""),
  compat: (body) => ({ rest: "chat/completions", body }),
  fromCompat: (reply) => reply,
  paidByCloudflare: (request) => wholesaleCall(clock.now(), request),
});
