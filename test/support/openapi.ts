import { existsSync, readFileSync } from "node:fs";
import type { VendorCall } from "./vendor.ts";

interface Schema {
  $ref?: string;
  type?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
}
interface Parameter {
  $ref?: string;
  name: string;
  in: string;
  required?: boolean;
}
interface Operation {
  parameters?: Parameter[];
  requestBody?: { content: Record<string, { schema: Schema }> };
}
interface Document {
  paths: Record<string, Record<string, Operation> & { parameters?: Parameter[] }>;
  components: { schemas: Record<string, Schema>; parameters?: Record<string, Parameter> };
}

/** The vendors' API descriptions, where the checkout has them beside it. */
const folder = new URL("../../../shared/reference/openapi/", import.meta.url);

export function openapiAt(name: string): Document | undefined {
  const file = new URL(name, folder);
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Document) : undefined;
}

/** What of a request the vendor's description does not know: nothing, when the request is right. */
export function strangersIn(document: Document, { method, path, query, body }: VendorCall): string[] {
  const template = Object.keys(document.paths)
    .filter((known) => document.paths[known]?.[method.toLowerCase()] !== undefined && fits(known, path))
    // The most literal one: `/models` before `/{anything}`.
    .toSorted((a, b) => a.split("{").length - b.split("{").length)[0];
  if (template === undefined) return [`${method} ${path}`];
  const item = document.paths[template];
  const operation = item?.[method.toLowerCase()] ?? {};
  const parameters = [...(operation.parameters ?? []), ...(item?.parameters ?? [])].map((one) =>
    one.$ref === undefined ? one : (document.components.parameters?.[last(one.$ref)] ?? one),
  );
  const queryNames = parameters.filter((one) => one.in === "query").map((one) => one.name);
  const sent = [...new Set(query.keys())];
  const strangers = sent
    // The SDK sends arrays in brackets; the description names them without.
    .filter((name) => !queryNames.includes(name) && !queryNames.includes(name.replace("[]", "")))
    .map((name) => `query ${name}`);
  const missing = parameters
    .filter((one) => one.in === "query" && one.required === true && !sent.includes(one.name))
    .map((one) => `missing query ${one.name}`);
  const schema = operation.requestBody?.content["application/json"]?.schema;
  if (body === undefined) return [...strangers, ...missing];
  if (schema === undefined) return [...strangers, ...missing, "a body"];
  return [...strangers, ...missing, ...strangeFields(document, schema, body, "body")];
}

function strangeFields(document: Document, given: Schema, value: unknown, at: string): string[] {
  const schema = given.$ref === undefined ? given : (document.components.schemas[last(given.$ref)] ?? {});
  if (Array.isArray(value)) {
    const { items } = schema;
    if (items === undefined) return [`${at} as an array`];
    return value.flatMap((one, index) => strangeFields(document, items, one, `${at}.${index}`));
  }
  if (value === null || typeof value !== "object" || schema.properties === undefined) return [];
  const { properties, required = [] } = schema;
  return [
    ...required.filter((name) => !(name in value)).map((name) => `missing ${at}.${name}`),
    ...Object.entries(value).flatMap(([name, inner]) => {
      const property = properties[name];
      return property === undefined ? [`${at}.${name}`] : strangeFields(document, property, inner, `${at}.${name}`);
    }),
  ];
}

function fits(template: string, path: string): boolean {
  const pattern = template
    .split(/\{[^}]+\}/)
    .map((literal) => literal.replaceAll(/[.*+?^$()|[\]\\]/g, String.raw`\$&`))
    .join("[^/]+");
  return new RegExp(`^${pattern}$`).test(path);
}

function last(reference: string): string {
  return reference.split("/").at(-1) ?? "";
}
