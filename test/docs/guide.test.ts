import { spawn, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { parseInventory } from "../../src/config.ts";
import { codeBlocks, readPage } from "../support/markdown.ts";
import { type Body, startWorld, text, type World } from "../sandbox/world.ts";

/** docs/guide.md, its calls really made against the sandbox in its dialect, and what it says they answer. */

const page = readPage("docs/guide.md");
const calls = codeBlocks(page).filter(({ language }) => language === "sh");
const variablesOfTable = [...page.matchAll(/^\| `([A-Z_]+)` /gm)].map(([, name = ""]) => name);

const standIn = fileURLToPath(new URL("../support/curl.mjs", import.meta.url));
const hasCurl = spawnSync("curl", ["--version"]).status === 0;
/** How `curl` is called, so that the status stands on the last line. */
const curls: Record<string, string> = {
  ...(hasCurl ? { "curl itself": `curl() { command curl -sS -w '\\n%{http_code}' "$@"; }` } : {}),
  // A bare machine has no curl: the page is run there too.
  "its stand-in": `curl() { "${process.execPath}" "${standIn}" "$@"; }`,
};

describe.each(Object.entries(curls))("with %s", (_, curl) => {
  let world: World;
  let variables: Record<string, string>;
  let newKeyId: string;

  beforeAll(async () => {
    const edges = [{ name: "one", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }];
    world = await startWorld({ dialect: "guide", logLagMs: 0, settleMs: 0, deathMs: 0, edges });
    const values = (await world.call("GET", `${world.control}/values`)).body["values"] as unknown as Body[];
    const old = values.find(({ id }) => text(id) === "key_prod_1");
    const made = await world.openai("POST", "/organization/projects/proj_abc/service_accounts/svc_acct_1/api_keys");
    newKeyId = text(made.body["id"]);
    variables = {
      ...world.env,
      CF_API_TOKEN: world.env["CLOUDFLARE_API_TOKEN"] ?? "",
      GATEWAY: "github-ai-agent-prod",
      SECRET_ID: "github-ai-agent-prod_openai_default",
      NEW_KEY: text(made.body["value"]),
      OLD_KEY: text(old?.["value"]),
    };
  });
  afterAll(() => world.close());

  /** What a person does in the provider's console before a call of the page. */
  const ends = async (id: string): Promise<void> =>
    void (await world.openai("DELETE", `/organization/projects/proj_abc/api_keys/${id}`));
  const before: Record<string, () => Promise<void>> = {
    "Is the old key gone? 2": () => ends("key_prod_1"),
    "Does another key step in? 1": () => ends(newKeyId),
  };

  const seen = new Map<string, number>();
  const named = calls.map((call) => {
    const time = (seen.get(call.heading) ?? 0) + 1;
    seen.set(call.heading, time);
    return { ...call, name: `${call.heading} ${time}` };
  });

  test.each(named)("$name", async ({ name, code, below }) => {
    await before[name]?.();
    const { status, stdout, stderr } = await sh(`set -eu\n${curl}\n${code}\n`, variables);
    expect(stderr).toBe("");
    expect(status).toBe(0);
    const lines = stdout.split("\n");
    const said = /^\*\*Answers\*\* `(\d+)` with(?<each>, on each line,)? (?<fields>.+)$/.exec(below);
    expect(`${lines.pop()} ${stdout}`).toMatch(new RegExp(`^${said?.[1] ?? "no Answers below the block"} `));
    const rows = said?.groups?.["each"] === undefined ? [lines.join("\n")] : lines.filter((line) => line !== "");
    expect(rows.length).toBeGreaterThan(0);
    const fields = [...(said?.groups?.["fields"] ?? "").matchAll(/`([^`]+)`/g)].map(([, field = ""]) => field);
    expect(fields.length).toBeGreaterThan(0);
    for (const row of rows) {
      for (const field of fields) {
        const [path = "", value] = field.split(": ");
        const found = path.split(".").reduce<Body | undefined>((body, part) => body?.[part], JSON.parse(row) as Body);
        expect(found, `${field} of ${row}`).toBeDefined();
        if (value !== undefined) expect(String(found)).toBe(value);
      }
    }
  });

  test("what a person does before a call belongs to a call that there is", () => {
    expect(Object.keys(before).filter((name) => !named.some((call) => call.name === name))).toEqual([]);
  });
});

test("its calls are the guide's: all of them, with shell variables, and without a content type", () => {
  const all = calls.map(({ code }) => code).join("\n");
  for (const part of [
    "-X PUT",
    "/ai-gateway/secrets/",
    "/models",
    "/compat/chat/completions",
    "/logs",
    "/cache/purge",
  ]) {
    expect(all).toContain(part);
  }
  expect(all).toContain("openai/gpt-4");
  expect(all).toContain("cf-aig-authorization");
  expect(all).not.toMatch(/content-type/i);
  const used = new Set([...all.matchAll(/\$([A-Z_]+)/g)].map(([, name = ""]) => name));
  expect([...used].filter((name) => !/_BASE_URL$|^CLOUDFLARE_ACCOUNT_ID$/.test(name)).toSorted()).toEqual(
    variablesOfTable.toSorted(),
  );
});

test("its part of an inventory is one", () => {
  const [yaml = ""] = codeBlocks(page).flatMap(({ language, code }) => (language === "yaml" ? [code] : []));
  const rest = `
installation: acme
account: "0123456789abcdef0123456789abcdef"
sealing: [{ kid: k, publicKey: { kty: EC, crv: P-256, x: a, y: b } }]
`;
  const { slots } = parseInventory(`${yaml}\n${rest}`, "keyturn.yaml", {});
  expect(slots["production/openai"]?.secretId).toBe("github-ai-agent-prod_openai_default");
});

/** Runs a script without blocking this process: the sandbox answers from it. */
async function sh(script: string, variables: Record<string, string>) {
  const child = spawn("sh", ["-c", script], { env: { PATH: process.env["PATH"] ?? "", ...variables } });
  const heard = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (part: string) => (heard.stdout += part));
  child.stderr.setEncoding("utf8").on("data", (part: string) => (heard.stderr += part));
  const status = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { status, ...heard };
}
