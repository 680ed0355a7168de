/** A sandbox for one test file, and short ways to call it. */
import { readFileSync } from "node:fs";
import type { Sandbox, SandboxOptions } from "../../src/sandbox/index.ts";
import { startSandbox } from "../../src/sandbox/index.ts";

export interface Answer {
  status: number;
  headers: Headers;
  body: Body;
}

/** A JSON answer that a test reads without ceremony. */
export interface Body {
  readonly [name: string]: Body | undefined;
}

/** A member of an answer as a list. */
export const items = (body: Body | undefined): Body[] => body as unknown as Body[];

/** A member of an answer as text. */
export const text = (body: Body | undefined): string => body as unknown as string;

export interface World extends Sandbox {
  call(method: string, url: string, more?: { body?: unknown; headers?: Record<string, string> }): Promise<Answer>;
  /** Calls Cloudflare's control plane below the account. */
  cloudflare(method: string, path: string, body?: unknown, token?: string): Promise<Answer>;
  /** Calls OpenAI with the admin key, or the key given. */
  openai(method: string, path: string, body?: unknown, key?: string): Promise<Answer>;
  /** Sends a chat through the production gateway. */
  chat(headers?: Record<string, string>, more?: { path?: string; body?: unknown }): Promise<Answer>;
  fault(fault: Record<string, unknown>): Promise<Answer>;
  record(): Promise<Body>;
}

export const ping = { model: "gpt-5-mini", messages: [{ role: "user", content: "ping" }] };

export async function startWorld(options: SandboxOptions = {}): Promise<World> {
  const sandbox = await startSandbox(options);
  const env = (name: string): string => sandbox.env[name] ?? "";
  const call: World["call"] = async (method, url, { body, headers } = {}) => {
    const response = await fetch(url, {
      method,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const { status, headers: answered } = response;
    return { status, headers: answered, body: parsed(await response.text()) };
  };
  const account = env("CLOUDFLARE_ACCOUNT_ID");
  return {
    ...sandbox,
    call,
    cloudflare: (method, path, body, token = env("CLOUDFLARE_API_TOKEN")) =>
      call(method, `${env("CLOUDFLARE_API_BASE_URL")}/accounts/${account}${path}`, {
        body,
        headers: { authorization: `Bearer ${token}` },
      }),
    openai: (method, path, body, key = env("OPENAI_ADMIN_KEY")) =>
      call(method, `${env("OPENAI_BASE_URL")}${path}`, {
        body,
        headers: { authorization: `Bearer ${key}` },
      }),
    chat: (headers, { path = "openai/chat/completions", body = ping } = {}) =>
      call("POST", `${env("CLOUDFLARE_GATEWAY_BASE_URL")}/${account}/github-ai-agent-prod/${path}`, {
        body,
        headers: {
          "cf-aig-authorization": `Bearer ${env("CLOUDFLARE_GATEWAY_TOKEN")}`,
          ...headers,
        },
      }),
    fault: (fault) => call("POST", `${sandbox.control}/faults`, { body: fault }),
    record: async () => (await call("GET", `${sandbox.control}/record`)).body,
  };
}

function parsed(raw: string): Body {
  try {
    return JSON.parse(raw) as Body;
  } catch {
    return raw as unknown as Body;
  }
}

/** Asks again and again until the answer is wanted; fails after `withinMs`. */
export async function eventually<Value>(
  ask: () => Promise<Value>,
  wanted: (value: Value) => boolean,
  withinMs = 15_000,
): Promise<Value> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const value = await ask();
    if (wanted(value)) return value;
    if (performance.now() > deadline) throw new Error(`still ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** One of the published schemas' subsets, or undefined where they are not at hand. */
export function openApi(name: string): OpenApi | undefined {
  try {
    const file = new URL(`../../../shared/reference/openapi/${name}`, import.meta.url);
    return JSON.parse(readFileSync(file, "utf8")) as OpenApi;
  } catch {
    return undefined;
  }
}

export interface OpenApi {
  paths: Record<
    string,
    Record<string, { responses: Record<string, { content?: { "application/json"?: { schema: Schema } } }> }>
  >;
  components: { schemas: Record<string, Schema> };
}

export interface Schema {
  $ref?: string;
  type?: string | string[];
  nullable?: boolean;
  enum?: unknown[];
  required?: string[];
  properties?: Record<string, Schema>;
  items?: Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
}

/** Where a value departs from a schema: types, enums, required members. Extra members are fine. */
export function departures(api: OpenApi, schema: Schema, value: unknown, at = "$"): string[] {
  if (schema.$ref !== undefined) {
    const target = api.components.schemas[schema.$ref.split("/").at(-1) ?? ""];
    return target === undefined ? [] : departures(api, target, value, at);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices !== undefined) {
    const found = choices.map((choice) => departures(api, choice, value, at));
    return found.some((list) => list.length === 0) ? [] : (found[0] ?? []);
  }
  const problems = (schema.allOf ?? []).flatMap((part) => departures(api, part, value, at));
  if (value === null) {
    const types = [schema.type].flat();
    if (schema.nullable === true || types.includes("null") || types[0] === undefined) return problems;
    return [...problems, `${at} is null`];
  }
  if (schema.enum !== undefined && !schema.enum.includes(value)) {
    problems.push(`${at} is ${JSON.stringify(value)}`);
  }
  const type = [schema.type].flat().find((name) => name !== "null");
  if (type === "array" || schema.items !== undefined) {
    if (!Array.isArray(value)) return [...problems, `${at} is no array`];
    const { items } = schema;
    if (items !== undefined) {
      problems.push(...value.flatMap((item, index) => departures(api, items, item, `${at}[${index}]`)));
    }
    return problems;
  }
  if (type === "object" || schema.properties !== undefined) {
    if (typeof value !== "object") return [...problems, `${at} is no object`];
    const members = value as Record<string, unknown>;
    for (const name of schema.required ?? []) {
      if (!(name in members)) problems.push(`${at}.${name} is missing`);
    }
    for (const [name, part] of Object.entries(schema.properties ?? {})) {
      if (name in members) problems.push(...departures(api, part, members[name], `${at}.${name}`));
    }
    return problems;
  }
  const expected = type === "integer" ? "number" : type;
  if (expected !== undefined && typeof value !== expected) {
    problems.push(`${at} is a ${typeof value}, not a ${expected}`);
  }
  return problems;
}

export const answerSchema = (api: OpenApi, path: string, method: string, status = "200"): Schema => {
  const schema = api.paths[path]?.[method]?.responses[status]?.content?.["application/json"]?.schema;
  if (schema === undefined) throw new Error(`no schema for ${method} ${path}`);
  return schema;
};
