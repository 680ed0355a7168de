/** Puts a service on a port of its own. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Exchange, Outcome, Reply, Request, Service } from "./exchange.ts";

export interface Listening {
  /** Without a trailing slash. */
  origin: string;
  close(): Promise<void>;
}

export async function listen(
  service: Service,
  exchange: Exchange,
  address: { host: string; port: number },
): Promise<Listening> {
  const connections = new WeakMap<Socket, number>();
  let lastConnection = -1;

  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const request: Request = {
      method: incoming.method ?? "GET",
      path: incoming.url ?? "/",
      headers: incoming.headers as Record<string, string | undefined>,
      body: await bodyOf(incoming),
      connection: connections.get(incoming.socket) ?? 0,
    };
    const outcome = await exchange.run(service, request);
    await send(outcome, outgoing);
    await exchange.answered(service, request);
  }

  const server = createServer((incoming, outgoing) => {
    serve(incoming, outgoing).catch(() => incoming.socket.destroy());
  });
  server.on("connection", (socket) => connections.set(socket, ++lastConnection));
  server.on("clientError", (_error, socket) => socket.destroy());
  // Never the side that closes an idle connection: that race would look like a failed request.
  server.keepAliveTimeout = 0;
  server.requestTimeout = 0;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(address.port, address.host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return { origin: `http://${address.host}:${port}`, close: () => closed(server) };
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

function bodyOf(incoming: IncomingMessage): Promise<string> {
  if (incoming.method === "GET") {
    incoming.resume();
    return Promise.resolve("");
  }
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    incoming.on("data", (part: Buffer) => parts.push(part));
    incoming.on("end", () => resolve(Buffer.concat(parts).toString("utf8")));
    incoming.on("error", reject);
  });
}

async function send(outcome: Outcome, outgoing: ServerResponse): Promise<void> {
  const socket = outgoing.req.socket;
  switch (outcome.kind) {
    case "reply":
      return sendReply(outcome.reply, outgoing);
    case "drop":
      socket.destroy();
      return;
    case "reset":
      socket.resetAndDestroy();
      return;
    case "hang":
      // Held until the client gives up or the sandbox closes.
      return;
    case "half": {
      const body = Buffer.from(outcome.reply.chunks?.join("") ?? outcome.reply.body);
      outgoing.writeHead(outcome.reply.status, {
        ...outcome.reply.headers,
        "content-length": body.length,
      });
      outgoing.write(body.subarray(0, Math.floor(body.length / 2)), () => socket.destroy());
      return;
    }
  }
}

async function sendReply(reply: Reply, outgoing: ServerResponse): Promise<void> {
  if (outgoing.destroyed) return;
  if (reply.chunks !== undefined) {
    outgoing.writeHead(reply.status, reply.headers);
    for (const chunk of reply.chunks) {
      outgoing.write(chunk);
      await new Promise(setImmediate);
    }
    outgoing.end();
    return;
  }
  outgoing.writeHead(reply.status, {
    ...reply.headers,
    "content-length": Buffer.byteLength(reply.body),
  });
  outgoing.end(reply.body);
}
