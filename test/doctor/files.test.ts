import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

import { prod, type Stage, startStage } from "../support/activities.ts";
import { emptyDirectory, git, visit } from "../support/doctor.ts";

let stage: Stage;
/** A checkout with these files; those named in `commit` are committed. */
async function checkout(files: Record<string, string>, commit: string[] = []): Promise<string> {
  const directory = await emptyDirectory();
  git(directory, "init", "--quiet");
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(directory, name, ".."), { recursive: true });
    await writeFile(join(directory, name), text, { mode: 0o600 });
  }
  for (const name of commit) {
    git(directory, "add", "--force", "--", name);
    git(directory, "commit", "--quiet", "--message", `add ${name}`);
  }
  return directory;
}
const look = async (directory: string, env: Record<string, string> = {}) => {
  stage = await startStage();
  return visit(stage, { directory, env, only: [prod] });
};
const vars = ".dev.vars";

describe(".dev.vars", () => {
  test("kept as it should be is ok", async () => {
    const directory = await checkout({ [vars]: "A=b\n", ".gitignore": `${vars}\n` }, [".gitignore"]);
    const { said } = await look(directory);
    for (const check of ["dev-vars-mode", "dev-vars-ignored", "dev-vars-committed", "keys-in-files"]) {
      expect(said(check).join()).toMatch(/^ok/);
    }
  });

  test("that is not there, in no checkout, is ok", async () => {
    const { said } = await look(await emptyDirectory());
    expect([...said("dev-vars-mode"), ...said("dev-vars-ignored"), ...said("dev-vars-committed")].join()).not.toMatch(
      /problem|unknown/,
    );
  });

  test("that others may read is a problem", async () => {
    const directory = await checkout({ [vars]: "A=b\n" });
    await chmod(join(directory, vars), 0o644);
    const { of } = await look(directory);
    expect(of("dev-vars-mode")).toMatchObject([
      { level: "problem", message: expect.stringContaining("mode 644"), remedy: "chmod 600 .dev.vars" },
    ]);
  });

  test("that git does not ignore is a problem", async () => {
    expect((await look(await checkout({ [vars]: "A=b\n" }))).said("dev-vars-ignored").join()).toMatch(/^problem/);
  });

  test("that git tracks is a problem, ignored or not", async () => {
    const directory = await checkout({ [vars]: "A=b\n", ".gitignore": `${vars}\n` }, [vars, ".gitignore"]);
    expect((await look(directory)).said("dev-vars-committed").join()).toMatch(/^problem: git tracks/);
  });

  test("that was committed once is a problem, also when it is gone, on any branch", async () => {
    const directory = await checkout({ [vars]: "A=b\n", other: "x" }, ["other"]);
    git(directory, "checkout", "--quiet", "-b", "side");
    git(directory, "add", vars);
    git(directory, "commit", "--quiet", "--message", "add it");
    git(directory, "rm", "--quiet", vars);
    git(directory, "commit", "--quiet", "--message", "remove it");
    git(directory, "checkout", "--quiet", "-");
    expect((await look(directory)).said("dev-vars-committed").join()).toMatch(/^problem: .*committed once/);
  });
});

describe("a key of a slot that lies about", () => {
  const lying = async (place: (value: string) => Promise<string>, marked: boolean) => {
    const world = await startStage();
    let id = "key_prod_1";
    if (marked) {
      const { key } = await world.installed();
      await world.run("removeAliases", {});
      id = key.id;
    }
    const value = await world.valueOf(id);
    const visited = await visit(world, { directory: await place(value), only: [prod] });
    expect(JSON.stringify(visited.findings)).not.toContain(value);
    return visited;
  };

  test.each([
    ["by its fingerprint", true, "the key of"],
    ["by its masked value", false, "what looks like the key of"],
  ])("in .dev.vars is found %s", async (_, marked, how) => {
    const { said, healthy } = await lying((value) => checkout({ [vars]: `SOMETHING="${value}"\n` }), marked);
    expect(said("keys-in-files")).toEqual([`problem: .dev.vars, SOMETHING holds ${how} ${prod}`]);
    expect(healthy).toBe(false);
  });

  test.each([true, false])("in a tracked file is found (marked: %s), with its line", async (marked) => {
    const { said } = await lying(
      (value) => checkout({ "src/deep/client.ts": `// a comment\nconst key = "${value}";\n` }, ["src/deep/client.ts"]),
      marked,
    );
    expect(said("keys-in-files").join()).toMatch(/^problem: src\/deep\/client\.ts, line 2 holds .*production\/openai$/);
  });

  test("that is another key is none of it", async () => {
    const other = `sk-proj-${"MadeUp".repeat(6)}`;
    const { said } = await lying(() => checkout({ "a.txt": other }, ["a.txt"]), false);
    expect(said("keys-in-files").join()).toMatch(/^ok/);
  });
});

describe("credentials", () => {
  test.each([`sk-proj-${"MadeUp".repeat(6)}`, `AIza${"MadeUpKey".repeat(4)}`, `AQ.${"MadeUp".repeat(6)}`])(
    "a provider's key in .dev.vars, beside the Cloudflare token, is a problem: %s",
    async (value) => {
      const { said, findings } = await look(await checkout({ [vars]: `SOME_API_KEY=${value}\n` }));
      expect(said("credentials-apart").join()).toMatch(/^problem: SOME_API_KEY in \.dev\.vars has the shape/);
      expect(JSON.stringify(findings)).not.toContain(value);
    },
  );

  test("an admin key belongs there", async () => {
    const text = `OPENAI_ADMIN_KEY=sk-admin-${"MadeUp".repeat(6)}\nANTHROPIC_ADMIN_KEY=sk-ant-admin01-${"MadeUp".repeat(6)}\n`;
    expect((await look(await checkout({ [vars]: text }))).said("credentials-apart").join()).toMatch(/^ok/);
  });

  test("one token for the API and for gateways is a warning", async () => {
    const { said } = await look(await emptyDirectory(), { CLOUDFLARE_GATEWAY_TOKEN: "" });
    expect(said("credentials-apart").join()).toMatch(/^warning: the Cloudflare API token, which writes secrets/);
  });

  test("a provider's key in place of the Cloudflare token is a problem", async () => {
    const { said } = await look(await emptyDirectory(), {
      CLOUDFLARE_API_TOKEN: `sk-proj-${"MadeUp".repeat(6)}`,
      CLOUDFLARE_GATEWAY_TOKEN: "made-up",
    });
    expect(said("credentials-apart").join()).toMatch(/^problem: CLOUDFLARE_API_TOKEN has the shape/);
  });
});
