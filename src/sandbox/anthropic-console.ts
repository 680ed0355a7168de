/**
 * What a person does in Anthropic's Console, on the control address: a small page that makes a key and
 * shows its value once, and the same as a call for scripts.
 */
import { issueByHand } from "./anthropic-admin.ts";
import type { AnthropicState } from "./anthropic-state.ts";
import type { Clock } from "./clock.ts";
import { rfc3339 } from "./clock.ts";
import type { Reply } from "./exchange.ts";
import { asObject, json, jsonBody } from "./exchange.ts";
import type { Key, Keys } from "./keys.ts";
import type { Route } from "./routes.ts";
import { route } from "./routes.ts";

export interface ConsoleParts {
  state: AnthropicState;
  clock: Clock;
  keys: Keys;
}

export function anthropicConsoleRoutes(parts: ConsoleParts): Route<undefined>[] {
  const { state } = parts;
  return [
    route("POST", "/anthropic/keys", undefined, ({ request }) => {
      const given = asObject(jsonBody(request));
      const { name, workspaceId, expiresInSeconds, unscoped } = given;
      const only = state.workspaces.list()[0]?.id;
      const made = issueByHand(parts, {
        name: String(name ?? ""),
        workspaceId: unscoped === true ? undefined : String(workspaceId ?? only),
        expiresInSeconds: expiresInSeconds === undefined ? undefined : Number(expiresInSeconds),
      });
      return typeof made === "string" ? json(400, { error: made }) : json(201, shown(made));
    }),
    route("GET", "/console/anthropic", undefined, () => page(200, form(state))),
    route("POST", "/console/anthropic", undefined, ({ request }) => {
      const given = new URLSearchParams(request.body);
      const [workspaceId, life] = [given.get("workspace") ?? "", given.get("expires") ?? ""];
      const made = issueByHand(parts, {
        name: given.get("name") ?? "",
        workspaceId: workspaceId === "" ? undefined : workspaceId,
        expiresInSeconds: life === "" ? undefined : Number(life),
      });
      if (typeof made === "string") return page(400, `<p role="alert">${escaped(made)}</p>${form(state)}`);
      return page(
        201,
        `<p>Key <b>${escaped(made.name)}</b> (${made.id}) is made. Copy its value now: it is shown this once.</p>
<pre id="value">${escaped(made.value)}</pre>
<p><a href="/console/anthropic">Back</a></p>`,
      );
    }),
  ];
}

const shown = (key: Key): Record<string, unknown> => ({
  id: key.id,
  name: key.name,
  value: key.value,
  workspaceId: key.detail["workspaceId"] ?? null,
  createdAt: rfc3339(key.createdAt),
  expiresAt: key.expiresAt === undefined ? null : rfc3339(key.expiresAt),
});

const lives: [string, string][] = [
  ["", "Never"],
  ["10800", "3 hours"],
  ["86400", "1 day"],
  ["604800", "7 days"],
  ["2592000", "30 days"],
  ["31536000", "365 days"],
];

function form(state: AnthropicState): string {
  const options = (pairs: [string, string][]): string =>
    pairs.map(([value, label]) => `<option value="${escaped(value)}">${escaped(label)}</option>`).join("");
  const workspaces = state.workspaces.list().map(({ id, name }): [string, string] => [id, `${name} (${id})`]);
  return `<form method="post" action="/console/anthropic">
<p><label>Name <input name="name" required autofocus size="50"></label></p>
<p><label>Workspace <select name="workspace">${options([...workspaces, ["", "None: every workspace"]])}</select></label></p>
<p><label>Expires <select name="expires">${options(lives)}</select></label></p>
<p><button>Create key</button></p>
</form>`;
}

const page = (status: number, body: string): Reply => ({
  status,
  headers: { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" },
  body: `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Anthropic Console, played</title>
<style>body{font:16px system-ui;max-width:44rem;margin:3rem auto;padding:0 1rem}pre{overflow-wrap:anywhere;white-space:pre-wrap}</style>
<h1>API keys</h1>
${body}
</html>
`,
});

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (letter) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[letter] ?? "");
