import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseEnv } from "node:util";

import { maskFits, maskTells, parseMark } from "../domain/mark.ts";
import { Redacted } from "../redacted.ts";
import { type Found, ok, orMissing, problem, unknown, warning } from "./finding.ts";
import type { Ground, SlotGround } from "./ground.ts";

/** What lies about on this machine: `.dev.vars`, and what git keeps. Values are compared here and never shown. */

const file = ".dev.vars";

export async function devVarsMode({ directory }: Ground): Promise<Found[]> {
  const mode = await stat(join(directory, file)).then(
    (found) => found.mode,
    () => undefined,
  );
  if (mode === undefined) return [ok(file, `there is no ${file} in ${directory}`)];
  if (process.platform === "win32") return [unknown(file, `who may read ${file} is not told by this system`)];
  return (mode & 0o077) === 0
    ? [ok(file, `only its owner may read ${file}`)]
    : [problem(file, `others may read ${file} (mode ${(mode & 0o777).toString(8)})`)];
}

export async function devVarsIgnored({ directory }: Ground): Promise<Found[]> {
  if (!(await inGit(directory))) return [ok(file, `${directory} is no git checkout`)];
  const { code } = await git(directory, ["check-ignore", "--quiet", "--no-index", file]);
  if (code === 0) return [ok(file, `git ignores ${file}`)];
  return code === 1
    ? [problem(file, `git does not ignore ${file}: the next git add may commit it`)]
    : [unknown(file, `whether git ignores ${file} it did not say`)];
}

export async function devVarsCommitted({ directory }: Ground): Promise<Found[]> {
  if (!(await inGit(directory))) return [ok(file, `${directory} is no git checkout`)];
  const tracked = await git(directory, ["ls-files", "--", file]);
  if (tracked.stdout.trim() !== "") {
    return [problem(file, `git tracks ${file}: everybody with the repository has what is in it`)];
  }
  const log = await git(directory, ["log", "--all", "--format=%h", "-n", "1", "--", file]);
  const commit = log.stdout.trim();
  if (commit !== "") {
    return [problem(file, `${file} was committed once (${commit}): everybody with the repository has what was in it`)];
  }
  const shallow = await git(directory, ["rev-parse", "--is-shallow-repository"]);
  // A repository without a commit has no log.
  if (log.code !== 0 && (await git(directory, ["rev-parse", "--verify", "--quiet", "HEAD"])).code === 0) {
    return [unknown(file, `whether ${file} was ever committed git did not say`)];
  }
  return shallow.stdout.trim() === "true"
    ? [
        unknown(
          file,
          `${file} is not in the part of the history that is here, and the rest is not`,
          "git fetch --unshallow",
        ),
      ]
    : [ok(file, `${file} is not in git, now or in its history`)];
}

/** The shapes of provider keys, admin credentials apart. reference: docs/providers.md, "key formats". */
const providerKey = /^(?:sk-(?!admin-|ant-(?:admin|api01-))[\w-]{16,}|AIza[\w-]{30,}|AQ\.[\w.-]{20,})$/;
/** The same for `git grep -E`, wider: what it finds is looked at again. */
const providerKeyInText = "(sk-|AIza|AQ\\.)[A-Za-z0-9_.-]{16,}";

/** No slot's key lies in `.dev.vars` or a tracked file: by fingerprint, where the mark gives one, else by masked value. */
export async function keysInFiles({ directory, slots }: Ground): Promise<Found[]> {
  const traces = (await Promise.all(slots.map(traceOf))).filter((trace) => trace !== undefined);
  const found: Found[] = [];
  const lying = (where: string, value: string): void => {
    for (const trace of traces) {
      const how = matches(trace, value);
      if (how !== undefined) found.push(problem(where, `${where} holds ${how} ${trace.slot}`));
    }
  };
  for (const [name, value] of Object.entries(await devVars(directory))) lying(`${file}, ${name}`, value);
  const grep = await git(directory, ["grep", "-I", "-n", "-o", "-E", providerKeyInText, "--", ":/"]);
  for (const line of grep.stdout.split("\n")) {
    const [, path, number, value] = /^(.*?):(\d+):(.*)$/.exec(line) ?? [];
    if (path !== undefined && number !== undefined && value !== undefined) lying(`${path}, line ${number}`, value);
  }
  const blind = slots.filter(({ name }) => !traces.some(({ slot }) => slot === name)).map(({ name }) => name);
  if (blind.length > 0) {
    found.push(unknown("files", `${blind.join(", ")}: nothing tells what its key looks like, so it is not looked for`));
  }
  if (found.length === 0) found.push(ok("files", `no key of a slot lies in ${file} or in a file that git tracks`));
  return found;
}

/** The credentials are apart: no provider key beside the Cloudflare token, and a gateway token that cannot write. */
export async function credentialsApart({ directory, credentials }: Ground): Promise<Found[]> {
  const found: Found[] = [];
  for (const [name, value] of Object.entries(await devVars(directory))) {
    if (providerKey.test(value)) {
      found.push(
        problem(file, `${name} in ${file} has the shape of a provider's API key, beside the Cloudflare API token`),
      );
    }
  }
  const { cloudflareToken, gatewayToken } = credentials;
  if (providerKey.test(cloudflareToken.reveal())) {
    found.push(problem("environment", "CLOUDFLARE_API_TOKEN has the shape of a provider's API key"));
  }
  if (cloudflareToken.fingerprint() === gatewayToken.fingerprint()) {
    found.push(
      warning(
        "environment",
        "the Cloudflare API token, which writes secrets, is sent to gateways as well",
        "give CLOUDFLARE_GATEWAY_TOKEN a token with AI Gateway Run only",
      ),
    );
  }
  return found.length > 0
    ? found
    : [ok("environment", "the Cloudflare API token is apart from provider keys and the gateway token")];
}

/** What is known of the value of a slot's key. */
interface Trace {
  slot: string;
  fingerprint?: string;
  masks: string[];
}

async function traceOf({ name, content, held, keys }: SlotGround): Promise<Trace | undefined> {
  const lies = await orMissing(content);
  const mark = parseMark(lies?.comment);
  const id = (await orMissing(held))?.id;
  const listed = id === undefined ? undefined : (await orMissing(keys))?.find((key) => key.id === id);
  const masks = [listed?.maskedValue, lies?.preview].filter((mask) => mask !== undefined && maskTells(mask));
  if (mark === undefined && masks.length === 0) return undefined;
  return { slot: name, masks: masks as string[], ...(mark === undefined ? {} : { fingerprint: mark.fingerprint }) };
}

const shortestKey = 20;

function matches({ fingerprint, masks }: Trace, value: string): string | undefined {
  if (new Redacted(value).fingerprint() === fingerprint) return "the key of";
  const alike = value.length >= shortestKey && masks.length > 0 && masks.every((mask) => maskFits(mask, value));
  return alike ? "what looks like the key of" : undefined;
}

async function devVars(directory: string): Promise<Record<string, string>> {
  const text = await readFile(join(directory, file), "utf8").catch(() => "");
  return Object.fromEntries(
    Object.entries(parseEnv(text)).flatMap(([name, value]) => (value === undefined ? [] : [[name, value.trim()]])),
  );
}

async function inGit(directory: string): Promise<boolean> {
  return (await git(directory, ["rev-parse", "--is-inside-work-tree"])).stdout.trim() === "true";
}

/** Runs git, which only reads here. Without git, or outside a checkout, nothing is found. */
async function git(cwd: string, args: string[]): Promise<{ code: number | undefined; stdout: string }> {
  return new Promise((resolve) => {
    execFile("git", args, { cwd, maxBuffer: 64 << 20, timeout: 30_000 }, (error, stdout) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : undefined;
      resolve({ code, stdout });
    });
  });
}
