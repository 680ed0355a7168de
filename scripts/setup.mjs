#!/usr/bin/env node
// Makes a checkout ready to run: dependencies, then the build. Runs before `npm run demo`, `npm test` and the rest, so
// it uses nothing but Node, says one line for each thing it does, on stderr, and nothing when there is nothing to do.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as delay } from "node:timers/promises";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const inRoot = (...parts) => join(root, ...parts);
const say = (line) => process.stderr.write(`set-up: ${line}\n`);

/** What the build reads; a change to any of these makes `dist` old. */
const sources = [
  "src",
  "scripts",
  "test/support",
  "test/mutants",
  "test/stories",
  "test/stories2",
  "package-lock.json",
  "tsconfig.json",
  "tsconfig.build.json",
];
const buildStamp = inRoot("dist", ".built");

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  throw new Error(
    `keyturn needs Node 20.19 or newer; this is ${process.versions.node}. Install a newer Node and run this again`,
  );
}

/**
 * True when node_modules holds what package-lock.json names, by npm's own record of it. Compared by content, since a
 * person's `npm install` must not make the next run throw the folder away.
 */
function dependenciesAreInstalled() {
  const wanted = readJson(inRoot("package-lock.json"))?.packages ?? {};
  const installed = readJson(inRoot("node_modules", ".package-lock.json"))?.packages;
  if (installed === undefined) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    const there = installed[path];
    if (path === "" || (there === undefined && entry.optional)) return true;
    return there?.version === entry.version && there?.integrity === entry.integrity;
  });
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

/** The newest modification time under a path, in milliseconds; folders count too, so that a deletion is seen. */
function newestMs(path) {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return 0;
  if (!stats.isDirectory()) return stats.mtimeMs;
  return readdirSync(path).reduce((newest, name) => Math.max(newest, newestMs(join(path, name))), stats.mtimeMs);
}

function buildIsFresh() {
  if (!existsSync(buildStamp)) return false;
  const builtMs = Number(readFileSync(buildStamp, "utf8"));
  return sources.every((source) => newestMs(inRoot(source)) <= builtMs);
}

/** Runs npm and shows what it printed only when it failed. */
function npm(...args) {
  const cli = process.env.npm_execpath;
  const isNpm = cli !== undefined && /npm-cli\.[cm]?js$/.test(cli);
  const [command, first] = isNpm ? [process.execPath, [cli]] : ["npm", []];
  const result = spawnSync(command, [...first, ...args], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
    shell: !isNpm && process.platform === "win32",
  });
  if (result.status === 0) return;
  process.stderr.write(`${result.stdout ?? ""}${result.stderr ?? ""}`);
  throw new Error(
    `npm ${args[0]} ${args[1] ?? ""} failed (${result.error?.message ?? `exit code ${result.status}`}); its output is above`,
  );
}

const lock = inRoot(".keyturn", "setup.lock");

/** One set-up of a checkout at a time; a lock whose owner is gone is taken over. */
async function withLock(work) {
  mkdirSync(dirname(lock), { recursive: true });
  let told = false;
  for (;;) {
    try {
      // `wx` fails when the file is there, and the owner is in it from the first moment anybody can see it as stale.
      writeFileSync(lock, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (takeOverStaleLock()) continue;
    if (!told) say("waiting for another set-up of this checkout");
    told = true;
    await delay(200);
  }
  try {
    await work();
  } finally {
    rmSync(lock, { force: true });
  }
}

function takeOverStaleLock() {
  const owner = readLock(lock);
  if (owner === undefined || isAlive(owner)) return false;
  // Moved aside rather than removed: only one of two waiters gets it, and a lock that was renewed meanwhile goes back.
  const aside = `${lock}.${process.pid}`;
  try {
    renameSync(lock, aside);
  } catch {
    return true;
  }
  if (readLock(aside) !== owner) renameSync(aside, lock);
  else rmSync(aside, { force: true });
  return true;
}

/** The process id in a lock; undefined when it is gone, or so new that nothing is in it yet. */
function readLock(path) {
  try {
    const text = readFileSync(path, "utf8");
    if (text !== "") return Number(text);
    return Date.now() - statSync(path).mtimeMs > 10_000 ? 0 : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(pid) {
  if (pid === 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

const isReady = () => dependenciesAreInstalled() && buildIsFresh();

try {
  checkNode();
  if (!isReady()) {
    await withLock(() => {
      if (!dependenciesAreInstalled()) {
        say("installing dependencies (npm ci)");
        // No package we use needs its install script: @swc/core's only looks for its binary, protobufjs's only warns.
        npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error");
      }
      if (!buildIsFresh()) {
        say("building (npm run build)");
        const startedMs = Date.now();
        npm("run", "build", "--silent");
        // The start, so that what was edited during the build is seen next time.
        writeFileSync(buildStamp, String(startedMs));
      }
    });
  }
} catch (error) {
  say(error.message);
  process.exitCode = 1;
}
