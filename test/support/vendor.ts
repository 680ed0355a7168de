import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One request as it arrived. */
export interface VendorCall {
  method: string;
  /** Without the query. */
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  body: unknown;
}

/** One answer, or the way it fails to come. */
export interface VendorReply {
  status?: number;
  headers?: Record<string, string>;
  /** Sent as JSON; text is sent as it is. */
  body?: unknown;
  fault?: "never answers" | "resets" | "stops half way";
}

/** A vendor that says what it is told to, in order, and keeps what it was asked. */
export interface Vendor {
  url: string;
  calls: VendorCall[];
  replies(...replies: VendorReply[]): void;
  close(): Promise<void>;
}

export async function startVendor(): Promise<Vendor> {
  const calls: VendorCall[] = [];
  const queue: VendorReply[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const url = new URL(request.url ?? "/", "http://vendor");
      const text = Buffer.concat(chunks).toString("utf8");
      calls.push({
        method: request.method ?? "",
        path: url.pathname,
        query: url.searchParams,
        headers: request.headers,
        body: text === "" ? undefined : readBody(text),
      });
      answer(response, queue.shift() ?? { status: 599, body: { error: "nothing was prepared" } });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    replies: (...replies) => void queue.push(...replies),
    close: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** JSON, or the text itself where it is none (a form). */
function readBody(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function answer(response: ServerResponse, { status = 200, headers = {}, body, fault }: VendorReply): void {
  if (fault === "never answers") return;
  if (fault === "resets") {
    response.socket?.resetAndDestroy();
    return;
  }
  const text = typeof body === "string" ? body : body === undefined ? "" : JSON.stringify(body);
  response.writeHead(status, { "content-type": "application/json", ...headers });
  if (fault === "stops half way") {
    response.write(text.slice(0, Math.ceil(text.length / 2)), () => response.socket?.destroy());
    return;
  }
  response.end(text);
}
