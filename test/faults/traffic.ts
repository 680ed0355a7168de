import { Pool } from "undici";

import type { Subject } from "./subjects.ts";

/** A little traffic of clients: enough to see a request fail. */
export interface Traffic {
  served: number;
  failures: string[];
  stop(): Promise<void>;
}

const edges = ["lhr", "iad", "sin", "gru"];

export function startTraffic(env: Record<string, string>, { clientRequest }: Subject, perSecond: number): Traffic {
  const base = new URL(env["CLOUDFLARE_GATEWAY_BASE_URL"] ?? "");
  const pool = new Pool(base.origin, { connections: 4 });
  const open = new Set<Promise<void>>();
  const traffic: Traffic = {
    served: 0,
    failures: [],
    async stop() {
      clearInterval(ticks);
      await Promise.all(open);
      await pool.destroy();
    },
  };
  let turn = 0;
  const send = async (): Promise<void> => {
    try {
      const { statusCode, body } = await pool.request({
        path: `${base.pathname}/${env["CLOUDFLARE_ACCOUNT_ID"]}/github-ai-agent-prod${clientRequest.path}`,
        method: "POST",
        headers: {
          "content-type": "application/json",
          "x-sandbox-edge": edges[turn++ % edges.length],
          "cf-aig-authorization": `Bearer ${env["CLOUDFLARE_GATEWAY_TOKEN"]}`,
        },
        body: JSON.stringify(clientRequest.body),
      });
      const text = await body.text();
      if (statusCode === 200) traffic.served++;
      else traffic.failures.push(`${statusCode} ${text.slice(0, 200)}`);
    } catch (error) {
      traffic.failures.push(String(error));
    }
  };
  const ticks = setInterval(() => {
    const sent: Promise<void> = send().finally(() => open.delete(sent));
    open.add(sent);
  }, 1_000 / perSecond);
  return traffic;
}
