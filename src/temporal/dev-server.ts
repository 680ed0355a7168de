// Starts Temporal's dev server and test server as child processes that never outlive us.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Connection } from "@temporalio/client";
import { msToTs } from "@temporalio/common/lib/time.js";
import { type FoundBinary, findDevServer, findTestServer } from "./binaries.ts";

/** How to start the dev server; ports are chosen freely unless given. */
export interface DevServerOptions {
  port?: number;
  uiPort?: number;
  /** A file that keeps everything across restarts; without it, all is forgotten at the end. */
  dbFile?: string;
  /** Default: `default`. */
  namespace?: string;
  /** Search attributes to register, all of type Keyword. */
  searchAttributes?: readonly string[];
  /** Without the web UI. */
  headless?: boolean;
  /** Default: what `findDevServer` finds. */
  binary?: FoundBinary;
}

/** A running dev server. */
export interface DevServer {
  /** `host:port` of the frontend. */
  address: string;
  namespace: string;
  /** Address of the web UI; undefined when headless. */
  ui: string | undefined;
  pid: number;
  binary: FoundBinary;
  /** Ends the server and returns when it is gone. Safe to call again. */
  stop(): Promise<void>;
}

/** A running time-skipping test server. */
export type TestServer = Pick<DevServer, "address" | "pid" | "binary" | "stop">;

const readyWithinMs = 30_000;
const stopGraceMs = 5_000;
/** So long closed runs are kept: a year, more than twice the longest period that is usual. */
const retentionMs = 365 * 86_400_000;

/**
 * Starts Temporal's dev server and returns when its namespace and search attributes can be used. Throws with what the
 * server printed when it ends early or is not ready in 30 s. It ends with this process, however that ends.
 */
export async function startDevServer(options: DevServerOptions = {}): Promise<DevServer> {
  const binary = options.binary ?? (await findDevServer());
  return onFreePorts(options.port === undefined, async () => launchDevServer(binary, options));
}

async function launchDevServer(binary: FoundBinary, options: DevServerOptions): Promise<DevServer> {
  const namespace = options.namespace ?? "default";
  const attributes = options.searchAttributes ?? [];
  const port = options.port ?? (await freePort());
  const uiPort = options.headless === true ? undefined : (options.uiPort ?? (await freePort()));
  const address = `127.0.0.1:${port}`;
  const args = ["server", "start-dev", "--ip", "127.0.0.1", "--port", String(port)].concat(
    ["--namespace", namespace, "--log-level", "error"],
    uiPort === undefined ? ["--headless"] : ["--ui-port", String(uiPort)],
    options.dbFile === undefined ? [] : ["--db-filename", options.dbFile],
    attributes.flatMap((name) => ["--search-attribute", `${name}=Keyword`]),
  );
  const server = await start(binary, args, async () => {
    await usingConnection(address, async ({ workflowService, operatorService }) => {
      await workflowService.describeNamespace({ namespace });
      const { customAttributes } = await operatorService.listSearchAttributes({ namespace });
      const missing = attributes.filter((name) => !(name in customAttributes));
      if (missing.length > 0) throw new Error(`search attributes ${missing.join(", ")} are not there yet`);
      // A day where nobody says otherwise (temporal 1.5, 2026-11): the last result names keys that stayed behind.
      await workflowService.updateNamespace({
        namespace,
        config: { workflowExecutionRetentionTtl: msToTs(retentionMs) },
      });
    });
  });
  const ui = uiPort === undefined ? undefined : `http://127.0.0.1:${uiPort}`;
  return { address, namespace, ui, binary, ...server };
}

/** Starts the time-skipping test server, under the promises of {@link startDevServer}. */
export async function startTestServer(options: Pick<DevServerOptions, "port" | "binary"> = {}): Promise<TestServer> {
  const binary = options.binary ?? (await findTestServer());
  return onFreePorts(options.port === undefined, async () => {
    const port = options.port ?? (await freePort());
    const address = `127.0.0.1:${port}`;
    const server = await start(binary, [String(port)], async () => {
      await usingConnection(address, async () => undefined);
    });
    return { address, binary, ...server };
  });
}

/** A server that ends at once may have lost a race for a port that was free when we looked: try others. */
async function onFreePorts<T>(portIsOurs: boolean, launch: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await launch();
    } catch (error) {
      const again = portIsOurs && attempt < 3 && error instanceof EndedAtStart;
      if (!again) throw error;
    }
  }
}

class EndedAtStart extends Error {}

async function start(
  binary: FoundBinary,
  args: string[],
  probe: () => Promise<void>,
): Promise<{ pid: number; stop: () => Promise<void> }> {
  const child = spawn(binary.path, args, {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true, // Ctrl-C in a terminal is ours to act on: workers stop before their server does
  });
  const output = firstWords(child);
  const failed = new Promise<Error>((resolve) => child.on("error", resolve));
  const { pid } = child;
  if (pid === undefined) throw new Error(`${binary.line}: ${(await failed).message}`);
  const stop = keepOnLeash(child, pid);
  try {
    await untilReady(child, probe);
  } catch (error) {
    await stop();
    const reason = error instanceof Error ? error.message : String(error);
    const Kind = error instanceof EndedAtStart ? EndedAtStart : Error;
    throw new Kind(`${binary.line}: ${reason}${output()}`, { cause: error });
  }
  return { pid, stop };
}

/** Collects the beginning of what a process prints, for an error message: a Go panic says its cause first. */
function firstWords(child: ChildProcess): () => string {
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      text = (text + chunk).slice(0, 4_000);
    });
    if (stream instanceof Socket) stream.unref(); // a server nobody stopped must not keep us alive
  }
  return () => (text.trim() === "" ? "" : `; it printed:\n${text.trim()}`);
}

async function untilReady(child: ChildProcess, probe: () => Promise<void>): Promise<void> {
  const deadline = Date.now() + readyWithinMs;
  for (;;) {
    if (hasEnded(child)) {
      const how = child.signalCode ?? `exit code ${child.exitCode}`;
      throw new EndedAtStart(`ended at its start (${how})`);
    }
    try {
      await probe();
      return;
    } catch (error) {
      if (Date.now() > deadline) {
        throw new Error(`was not ready in ${readyWithinMs / 1000} s: ${String(error)}`, {
          cause: error,
        });
      }
    }
    await delay(50);
  }
}

async function usingConnection(address: string, use: (connection: Connection) => Promise<void>): Promise<void> {
  await reach(address); // gRPC waits a second after a refused connection
  const connection = await Connection.connect({ address, connectTimeout: 2_000 });
  try {
    await connection.withDeadline(Date.now() + 2_000, async () => use(connection));
  } finally {
    await connection.close();
  }
}

async function reach(address: string): Promise<void> {
  const [host, port] = address.split(":");
  const socket = connect({ host: host ?? "", port: Number(port) });
  try {
    await once(socket, "connect");
  } finally {
    socket.destroy();
  }
}

/**
 * Ties a child to our life and returns the function that ends it. Our normal exit ends it at once; for a sudden end
 * (SIGKILL) a shell waits on a pipe that only we hold open, and ends the child when the pipe closes.
 */
function keepOnLeash(child: ChildProcess, pid: number): () => Promise<void> {
  child.unref();
  const watchdog = spawn("/bin/sh", ["-c", `read -r word || kill -KILL ${pid}`], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  watchdog.on("error", () => undefined); // no /bin/sh, as on Windows: then only a normal exit is covered
  watchdog.stdin.on("error", () => undefined);
  watchdog.unref();

  const killNow = (): void => void child.kill("SIGKILL");
  process.on("exit", killNow);
  child.once("exit", () => {
    process.off("exit", killNow);
    watchdog.stdin.end("released\n");
  });
  return async () => {
    if (hasEnded(child)) return;
    child.ref();
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    const timer = setTimeout(killNow, stopGraceMs);
    await exited;
    clearTimeout(timer);
  };
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/**
 * A free TCP port of 127.0.0.1. One connection is made to it and closed from our side: while that lingers (TIME_WAIT),
 * the system gives the port to nobody who asks for any free one, such as the dev server for its inner services, yet it
 * can be bound by its number.
 */
async function freePort(): Promise<number> {
  const probe = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
  await once(probe, "listening");
  const address = probe.address();
  if (address === null || typeof address === "string") throw new Error("no free port");
  const socket = connect(address.port, "127.0.0.1").resume();
  await once(socket, "close");
  probe.close();
  await once(probe, "close");
  return address.port;
}
