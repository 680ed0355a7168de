import { Pool } from "undici";

import type { ProviderName } from "../../src/domain/slot.ts";

/** Steady requests through the gateway, as clients send them. */
export interface Traffic {
  served: number;
  failed: number;
  failures: string[];
  stop(): Promise<void>;
}

/** The gateway that production's slots are served from. */
export const productionGateway = "github-ai-agent-prod";

const connections = 16;
/** The sandbox's own; a client of a real gateway reaches the one that is near. */
const edges = ["lhr", "iad", "sin", "gru"];

/** What a client sends through the gateway, by provider: the path behind the gateway's name, and the body. */
const clientRequests: Record<ProviderName, { path: string; body: Record<string, unknown> }> = {
  openai: {
    path: "openai/chat/completions",
    body: { model: "gpt-5-mini", messages: [{ role: "user", content: "hello" }] },
  },
  anthropic: {
    path: "anthropic/v1/messages",
    body: { model: "claude-haiku-4-5", max_tokens: 16, messages: [{ role: "user", content: "hello" }] },
  },
  gemini: {
    path: "google-ai-studio/v1beta/models/gemini-2.5-flash:generateContent",
    body: { contents: [{ role: "user", parts: [{ text: "hello" }] }] },
  },
};

export function startTraffic(
  env: Record<string, string>,
  perSecond: number,
  provider: ProviderName,
  alias = "default",
): Traffic {
  const request = clientRequests[provider];
  const base = new URL(env["CLOUDFLARE_GATEWAY_BASE_URL"] ?? "");
  const pool = new Pool(base.origin, { connections, pipelining: 1 });
  const path = `${base.pathname}/${env["CLOUDFLARE_ACCOUNT_ID"]}/${productionGateway}/${request.path}`;
  const body = JSON.stringify(request.body);
  const open = new Set<Promise<void>>();
  let turn = 0;
  let stopped: Promise<void> | undefined;
  const traffic: Traffic = {
    served: 0,
    failed: 0,
    failures: [],
    stop: () => {
      clearInterval(ticks);
      return (stopped ??= Promise.all(open).then(() => pool.close()));
    },
  };
  const send = async (): Promise<void> => {
    try {
      const { statusCode, body: answer } = await pool.request({
        path,
        method: "POST",
        headers: {
          "content-type": "application/json",
          // Anthropic wants it from each client; the others don't mind.
          "anthropic-version": "2023-06-01",
          "x-sandbox-edge": edges[turn++ % edges.length],
          ...(alias === "default" ? {} : { "cf-aig-byok-alias": alias }),
          "cf-aig-authorization": `Bearer ${env["CLOUDFLARE_GATEWAY_TOKEN"]}`,
        },
        body,
      });
      const text = await answer.text();
      if (statusCode === 200) traffic.served++;
      else {
        traffic.failed++;
        traffic.failures.push(`${statusCode} ${text.slice(0, 100)}`);
      }
    } catch (error) {
      traffic.failed++;
      traffic.failures.push(String(error));
    }
  };
  let due = performance.now();
  const ticks = setInterval(() => {
    for (; due <= performance.now(); due += 1_000 / perSecond) {
      const sent: Promise<void> = send().finally(() => open.delete(sent));
      open.add(sent);
    }
  }, 10);
  return traffic;
}
