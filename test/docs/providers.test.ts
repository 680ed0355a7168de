import { existsSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import type { RotationFailure } from "../../src/domain/failure.ts";
import { keyShapes } from "../../src/domain/key-shape.ts";
import { policyDefaults } from "../../src/domain/policy.ts";
import { keyLifeOf, quotaHome } from "../../src/domain/provider-limits.ts";
import { type ProviderName, providerNames } from "../../src/domain/slot.ts";
import { createHttp } from "../../src/http.ts";
import { canSwitch } from "../../src/providers/key-end.ts";
import { canDisable, canHandIn, canIssue, type KeyRecord } from "../../src/providers/provider.ts";
import { maskSecrets, Redacted } from "../../src/redacted.ts";
import { failureOf } from "../providers/support.ts";
import { eventually, items, startWorld, text, type World } from "../sandbox/world.ts";
import { readPage, rows, section, table } from "../support/markdown.ts";
import { providerAt, type WithEnd } from "../support/providers-at.ts";

/**
 * docs/providers.md, table by table and row by row: each row is shown by what the real clients do against the sandbox, or by
 * the values of the code. A row that nothing here shows fails. The tables of answers are held in answers.test.ts and
 * test/domain/answer.test.ts.
 */

const page = readPage("docs/providers.md");

test("every table of the page is read by a test", () => {
  const withTables = page
    .split(/^## /m)
    .slice(1)
    .filter((part) => rows(part).length > 0)
    .map((part) => part.slice(0, part.indexOf("\n")));
  expect(withTables).toEqual([
    "What each can do",
    "Without an admin credential",
    "Key formats",
    "What a provider's answer means",
    "What the gateway's own answer means",
    "What a management API's refusal means",
    "Sources", // dates and addresses: nothing that the code does
  ]);
});

const http = createHttp({ timeoutMs: 5_000, userAgent: "keyturn/0.0.0" });
let world: World;

beforeAll(async () => {
  const edges = [{ name: "one", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }];
  const lag = { minMs: 0, jitterMs: 0 };
  world = await startWorld({
    settleMs: 0,
    deathMs: 0,
    anthropicSettleMs: 0,
    anthropicDeathMs: 0,
    googleSettleMs: 0,
    googleDeathMs: 0,
    operationMs: 0,
    listLagMs: 0,
    lastUsedLagMs: 0,
    reviveMs: 0,
    usageDisorder: false,
    edges,
    // So that a bucket ends while a test waits.
    timeScale: 120,
    usageLag: { openai: lag, anthropic: lag, google: lag },
  });
});
afterAll(() => world.close());
afterEach(async () => {
  await world.call("DELETE", `${world.control}/faults`);
});

type PerProvider<Value> = Record<ProviderName, Value>;
type Cells = PerProvider<string>;

const settled: PerProvider<string> = { openai: "key_prod_1", anthropic: "apikey_prod_1", gemini: "gemini-prod-1" };
const provider = (name: ProviderName, credential?: string): WithEnd =>
  providerAt(world.env, name, { http, credential });
const valueOf = async (keyId: string): Promise<Redacted> => {
  const { body } = await world.call("GET", `${world.control}/values`);
  return new Redacted(text(items(body["values"]).find(({ id }) => text(id) === keyId)?.["value"]));
};
const requests = async (): Promise<string[]> =>
  items((await world.record())["requests"]).map(({ method, path }) => `${text(method)} ${text(path)}`);
/** What these calls ask for. */
async function asked(call: () => Promise<unknown>): Promise<string[]> {
  const before = (await requests()).length;
  await call();
  return (await requests()).slice(before);
}
let made = 0;
async function issue(
  name: "openai" | "gemini",
  label = `kt.page.${++made}`,
): Promise<{ key: KeyRecord; value: Redacted }> {
  const issuer = provider(name);
  if (!canIssue(issuer)) throw new Error(`${name} issues no keys`);
  return issuer.issueKey({ name: label, lifeMs: 7_200_000 });
}
async function byHand(): Promise<string> {
  const { body } = await world.call("POST", `${world.control}/anthropic/keys`, { body: { name: `page ${++made}` } });
  return text(body["id"]);
}
const expendable: PerProvider<() => Promise<string>> = {
  openai: async () => (await issue("openai")).key.id,
  anthropic: byHand,
  gemini: async () => (await issue("gemini")).key.id,
};
const yes = (cell: string): boolean => /^\**yes\b/.test(cell);
const use = async (): Promise<void> => {
  const headers = { authorization: `Bearer ${(await valueOf("key_prod_1")).reveal()}` };
  const messages = [{ role: "user", content: "ping" }];
  const openai = { headers, body: { model: "gpt-5-mini", messages } };
  await world.call("POST", `${world.env["OPENAI_BASE_URL"]}/chat/completions`, openai);
  const anthropic = { "x-api-key": (await valueOf("apikey_prod_1")).reveal(), "anthropic-version": "2023-06-01" };
  const order = { model: "claude-haiku-4-5", max_tokens: 16, messages };
  await world.call("POST", `${world.env["ANTHROPIC_BASE_URL"]}/v1/messages`, { headers: anthropic, body: order });
  await world.call("POST", `${world.env["GEMINI_BASE_URL"]}/v1beta/models/gemini-2.5-flash:generateContent`, {
    headers: { "x-goog-api-key": (await valueOf("gemini-prod-1")).reveal() },
    body: { contents: [{ role: "user", parts: [{ text: "ping" }] }] },
  });
};
const report = (name: ProviderName, keyId = settled[name]) =>
  provider(name).readUsage({ keyIds: [keyId], from: new Date(Date.now() - 60_000), to: new Date() });

/** How each row of "What each can do" is shown. */
const shows: Record<string, (cells: Cells) => void | Promise<void>> = {
  client(cells) {
    for (const name of providerNames) {
      expect(cells[name]).toContain(`src/providers/${name}.ts`);
      for (const file of cells[name].split(", ")) {
        expect(existsSync(file.includes("/") ? file : `src/providers/${file}`)).toBe(true);
      }
    }
  },
  "a key belongs to"(cells) {
    for (const name of providerNames) {
      const one = provider(name);
      const [what = ""] = canHandIn(one) ? one.handInInstructions({ name: "x" }).belongsTo.split(" ") : [];
      expect(cells[name]).toContain(what);
    }
  },
  create(cells) {
    for (const name of providerNames) expect([name, yes(cells[name])]).toEqual([name, canIssue(provider(name))]);
  },
  async "id of ours"(cells) {
    const ids = async (name: "openai" | "gemini") => [
      await issue(name, `kt.twice.${name}`),
      await issue(name, `kt.twice.${name}`),
    ];
    const [openai = [], gemini = []] = [await ids("openai"), await ids("gemini")].map((twice) =>
      twice.map(({ key }) => key.id),
    );
    expect([openai[0] === openai[1], gemini[0] === gemini[1]]).toEqual([yes(cells.openai), yes(cells.gemini)]);
  },
  async "read the value again"(cells) {
    for (const name of ["openai", "gemini"] as const) {
      const [one, other] = [await issue(name, `kt.again.${name}`), await issue(name, `kt.again.${name}`)];
      expect(one.value.reveal() === other.value.reveal()).toBe(yes(cells[name]));
    }
    expect(cells.anthropic).toBe("no");
  },
  async "handed-in key known by"() {
    for (const name of providerNames) {
      const one = provider(name);
      const value = await valueOf(settled[name]);
      const found = canHandIn(one) ? await one.identifyKey(value, { openedAt: new Date(0) }) : undefined;
      expect(found).toMatchObject({ kind: "identified", key: { id: settled[name] } });
    }
    const lookUp = await asked(async () => {
      const gemini = provider("gemini");
      if (canHandIn(gemini)) await gemini.identifyKey(await valueOf(settled.gemini), { openedAt: new Date(0) });
    });
    expect(lookUp.some((line) => line.includes("keys:lookupKey"))).toBe(true);
  },
  async "switch off and on"(cells) {
    for (const name of providerNames) {
      const one = provider(name);
      expect([name, cells[name] !== "no"]).toEqual([name, canDisable(one)]);
      if (!canSwitch(one)) continue;
      const id = await expendable[name]();
      await one.disableKey(id);
      await one.enableKey(id);
      await eventually(
        () => one.findKey(id),
        (key) => key?.state === "active",
      );
    }
  },
  async revoke(cells) {
    for (const name of providerNames) {
      const id = await expendable[name]();
      await provider(name).revokeKey(id);
      const after = await provider(name).findKey(id);
      expect([name, after?.state]).toEqual([name, cells[name].includes("shows no more") ? undefined : "revoked"]);
    }
  },
  async "time to death"(cells) {
    const usual = await startWorld();
    const { body: options } = await usual.call("GET", `${usual.control}/options`);
    await usual.close();
    expect(cells.openai).toContain("a few seconds");
    expect(Number(options["deathMs"])).toBeLessThan(10_000);
    const { minMs, maxMs } = options["googleStandardDeathMs"] as unknown as { minMs: number; maxMs: number };
    expect(cells.gemini).toContain(
      `about ${Number(options["googleDeathMs"]) / 60_000} min, AIza keys ${minMs / 60_000} to ${maxMs / 60_000} min`,
    );
  },
  "dead after"(cells) {
    const { dead } = policyDefaults;
    expect(cells.openai).toBe(dead.openai);
    expect(cells.anthropic).toBe(dead.anthropic);
    expect(cells.gemini).toBe(`${dead.google}, standard keys ${dead["google-standard"]}`);
  },
  "a new key may be refused"(cells) {
    const { openai, anthropic, google } = policyDefaults.settleBudget;
    const said = (length: string): string => length.replace(/m$/, " min");
    expect(cells.openai).toContain(said(openai));
    expect(cells.anthropic).toContain(`${said(anthropic)} allowed`);
    expect(cells.gemini).toContain(`${said(google)} allowed`);
  },
  async expiry(cells) {
    const openai = provider("openai");
    const { key } = await issue("openai");
    expect(key.expiresAt).toBeInstanceOf(Date);
    const later = canIssue(openai) ? await openai.setKeyLife(key.id, 86_400_000) : undefined;
    expect(later?.getTime()).toBeGreaterThan(key.expiresAt?.getTime() ?? Infinity);
    expect(cells.openai).toContain("movable later");
    expect([cells.anthropic.includes("never movable"), canIssue(provider("anthropic"))]).toEqual([true, false]);
    expect([cells.gemini, (await issue("gemini")).key.expiresAt]).toEqual(["none", undefined]);
  },
  "how long a key can live"(cells) {
    expect(cells).toEqual(keyLifeOf);
  },
  async "last use of a key"(cells) {
    await use();
    for (const name of providerNames) {
      const key = await provider(name).findKey(settled[name]);
      expect([name, cells[name] !== "no"]).toEqual([name, key?.lastUsedAt !== undefined]);
    }
  },
  async "use per key"(cells) {
    await use();
    for (const name of providerNames) {
      const told = await eventually(
        () => report(name),
        ({ buckets }) => buckets.length > 0,
        10_000,
      );
      const tokens = told.buckets.reduce((sum, bucket) => sum + bucket.tokens, 0);
      expect([name, tokens === 0]).toEqual([name, cells[name].includes("no tokens")]);
      expect([name, told.refreshedAt !== undefined]).toEqual([name, cells[name].includes("the time up to which")]);
    }
    const { unknownSurfaces } = await report("openai");
    for (const surface of unknownSurfaces) expect(cells.openai).toContain(surface.split("_").slice(0, 2).join(" "));
    const surfaces = new Set((await asked(() => report("openai"))).map((line) => /usage\/(\w+)/.exec(line)?.[1]));
    expect(cells.openai).toContain(`on ${surfaces.size} surfaces`);
  },
  "usage is late by"(cells) {
    const { openai, anthropic, google } = policyDefaults.usageLag;
    for (const [cell, lag] of [
      [cells.openai, openai],
      [cells.anthropic, anthropic],
      [cells.gemini, google],
    ]) {
      expect(cell).toContain(`usageLag ${lag?.replace(/m$/, " min")}`);
    }
  },
  async "use per key is unknown"(cells) {
    await world.call("POST", `${world.control}/options`, { body: { monitoringNamesServiceAccount: true } });
    await use();
    const told = await eventually(
      () => report("gemini"),
      ({ perKey }) => perKey === false,
      10_000,
    );
    await world.call("POST", `${world.control}/options`, { body: { monitoringNamesServiceAccount: false } });
    expect(told.perKey).toBe(false);
    expect(cells.gemini).toContain("listed by service account");
    for (const name of ["openai", "anthropic"] as const) {
      expect([cells[name].startsWith("never"), (await report(name)).perKey]).toEqual([true, undefined]);
    }
  },
  async "admin credential"(cells) {
    for (const name of providerNames) {
      const refused = await failureOf(provider(name, "made-up-credential").checkAdminCredential(), []);
      expect(refused.type).toBe("AdminCredentialRejected");
      const credentials = cells[name].match(/[A-Z]+(?:_[A-Z]+)+|application default credentials/g) ?? [];
      expect(credentials.some((credential) => refused.message.includes(credential))).toBe(true);
    }
  },
  async rights(cells) {
    const openai = provider("openai", world.seed["openaiReadOnlyAdminKey"]);
    const gemini = provider("gemini", world.seed["googleReadOnlyToken"]);
    const anthropic = provider("anthropic", world.seed["anthropicReadOnlyAdminKey"]);
    const order = { name: "kt.page.right", lifeMs: 3_600_000 };
    const refusals = [
      canIssue(openai) ? await failureOf(openai.issueKey(order), []) : undefined,
      canIssue(gemini) ? await failureOf(gemini.issueKey(order), []) : undefined,
      canSwitch(anthropic) ? await failureOf(anthropic.disableKey(await byHand()), []) : undefined,
    ];
    expect(refusals.map((refusal) => refusal?.type)).toEqual(
      Array.from({ length: 3 }, () => "AdminCredentialRejected"),
    );
    const blind = provider("gemini", world.seed["googleNoMonitoringToken"]);
    const unread = await failureOf(
      blind.readUsage({ keyIds: [settled.gemini], from: new Date(0), to: new Date() }),
      [],
    );
    for (const role of cells.gemini.split(", ")) expect(`${refusals[1]?.message} ${unread.message}`).toContain(role);
    expect(refusals[2]?.message).toContain(cells.anthropic);
  },
  "where quota lives"(cells) {
    expect(cells).toEqual(quotaHome);
  },
  async "how many keys"(cells) {
    const anthropic = provider("anthropic");
    const id = await byHand();
    if (canSwitch(anthropic)) await anthropic.disableKey(id);
    await world.call("POST", `${world.control}/options`, {
      body: { anthropicKeyLimit: { organization: 1, workspace: 0 } },
    });
    const refused = canSwitch(anthropic) ? await failureOf(anthropic.enableKey(id), []) : undefined;
    await world.call("POST", `${world.control}/options`, {
      body: { anthropicKeyLimit: { organization: 0, workspace: 0 } },
    });
    expect(refused).toMatchObject({
      type: "KeyLimitReached",
      message: expect.stringContaining("the organisation may have"),
    });
    expect(cells.anthropic).toContain("_api_key_limit_exceeded");
    const { body: options } = await world.call("GET", `${world.control}/options`);
    const { reads, writes } = options["googleQuota"] as unknown as { reads: number; writes: number };
    expect(cells.gemini).toContain(`${reads} reads and ${writes} writes a minute`);
    expect(cells.openai).toBe("not published");
  },
  async "a key is tried with"(cells) {
    for (const name of providerNames) {
      const value = await valueOf(settled[name]);
      const [line = ""] = await asked(() => provider(name).tryKey(value));
      const [said = ""] = cells[name].split(", ");
      expect(line.replace("/v1/models", name === "openai" ? "/models" : "/v1/models")).toBe(said);
    }
  },
  "a person does once"(cells) {
    for (const name of providerNames) {
      expect([name, cells[name].includes("each new key")]).toEqual([name, !canIssue(provider(name))]);
    }
  },
};

describe("what each can do", () => {
  const told = rows(section(page, "What each can do"));

  test("has the providers for its columns, and a proof for each row", () => {
    expect(told[0]).toEqual(["", "OpenAI", "Anthropic", "Google Gemini"]);
    expect(told.slice(1).map(([name]) => name)).toEqual(Object.keys(shows));
  });

  test.each(told.slice(1))("%s", async (name, openai, anthropic, gemini) => {
    await shows[name ?? ""]?.({ openai: openai ?? "", anthropic: anthropic ?? "", gemini: gemini ?? "" });
  });
});

/** The tests that show a rotation without an admin credential, by the row. */
const shownByHand: Record<string, { file: string; test: string }> = {
  "the held key": { file: "test/activities/by-hand.test.ts", test: "finds the held key by its ending" },
  "a new key": { file: "test/e2e/by-hand.test.ts", test: "puts in the key that a person made" },
  "project, age, life": { file: "test/e2e/by-hand.test.ts", test: "says what nobody could check" },
  use: { file: "test/activities/by-hand.test.ts", test: "checkIdle says that use is unknown" },
  revoked: { file: "test/e2e/by-hand.test.ts", test: "nobody who revokes the old key in time stops the rotation" },
  "leftovers, orphans": { file: "test/activities/by-hand.test.ts", test: "the sweep ends nothing" },
  emergencies: { file: "test/e2e/by-hand.test.ts", test: "an emergency cannot cut by itself" },
};

describe("without an admin credential", () => {
  const told = rows(section(page, "Without an admin credential"));

  test("each row has a test that shows it", () => {
    expect(told.slice(1).map(([name]) => name)).toEqual(Object.keys(shownByHand));
    for (const { file, test: title } of Object.values(shownByHand)) expect(readPage(file)).toContain(`test("${title}`);
  });
});

describe("key formats", () => {
  const letters = (count: number): string => "aB3_".repeat(count).slice(0, count);
  /** Made-up values of each row's shape, and whose keys they look like. */
  const samples: Record<string, [values: string[], ProviderName | undefined]> = {
    "OpenAI service account key": [[`sk-svcacct-${letters(70)}`, `sk-proj-${letters(70)}`], "openai"],
    "OpenAI admin key": [[`sk-admin-${letters(70)}`], undefined],
    "OpenAI older user key": [[`sk-${letters(48).replaceAll("_", "4")}`], "openai"],
    "Anthropic key": [[`sk-ant-api03-${letters(90)}`], "anthropic"],
    "Anthropic admin key": [[`sk-ant-admin01-${letters(90)}`], undefined],
    "Anthropic compliance key": [[`sk-ant-api01-${letters(90)}`], undefined],
    "Google auth key": [[`AQ.${letters(50)}`], "gemini"],
    "Google standard key": [[`AIza${letters(35)}`], "gemini"],
  };
  const told = table(section(page, "Key formats"));

  test("have a sample for each row, which begins as the row says", () => {
    expect(told.map((row) => row["credential"])).toEqual(Object.keys(samples));
    for (const row of told) {
      const beginnings = row["shape"]?.match(/(?:sk-[\w-]*-|sk-|AQ\.|AIza)/g) ?? [];
      const values = samples[row["credential"] ?? ""]?.[0] ?? [];
      expect(values.map((value, index) => value.startsWith(beginnings[index] ?? "?"))).toEqual(values.map(() => true));
    }
  });

  test.each(Object.entries(samples))("%s", (_, [values, owner]) => {
    for (const value of values) {
      expect(providerNames.filter((name) => keyShapes[name].test(value))).toEqual(owner === undefined ? [] : [owner]);
      expect(maskSecrets(`a log line with ${value} in it`)).not.toContain(value);
    }
  });
});

describe("what a management API's refusal means", () => {
  const told = table(section(page, "What a management API's refusal means"));
  const openai = (more = {}) => providerAt(world.env, "openai", { http, ...more });
  const meets = (service: string, fault: Record<string, unknown>) =>
    world.fault({ service, method: "*", path: "", mode: "status", times: 1, ...fault });
  const issueFails = async (name: "openai" | "gemini", more = {}): Promise<RotationFailure> => {
    const issuer = providerAt(world.env, name, { http, ...more });
    if (!canIssue(issuer)) throw new Error(`${name} issues no keys`);
    return failureOf(issuer.issueKey({ name: `kt.refused.${++made}`, lifeMs: 7_200_000 }), []);
  };
  const openAiSays = (status: number, message: string) => ({ method: "POST", status, body: { error: { message } } });
  const googleSays = (code: number, message: string, more: Record<string, unknown> = {}) => ({
    method: "POST",
    status: code,
    body: { error: { code, message, ...more } },
  });

  /** What each row's reply leads to; `undefined` where it is no failure. */
  type Outcome = RotationFailure | undefined;
  const brought: Record<string, () => Promise<Outcome>[] | Promise<Outcome>> = {
    "all 401, 403": () =>
      providerNames.flatMap((name) =>
        [401, 403].map(async (status) => {
          const refusing = await startWorld();
          await refusing.fault({
            service: name === "gemini" ? "apikeys" : name,
            method: "*",
            path: "",
            mode: "status",
            status,
          });
          const failure = await failureOf(providerAt(refusing.env, name, { http }).listKeys(), []);
          await refusing.close();
          return failure;
        }),
      ),
    "all 429": async () => {
      await meets("openai", { status: 429, retryAfter: 7 });
      const failure = await failureOf(openai().listKeys(), []);
      expect(failure.retryAfterMs).toBe(7_000);
      return failure;
    },
    "all 5xx, no whole answer": async () => {
      await meets("openai", { status: 500, method: "POST" });
      expect((await issueFails("openai")).type).toBe("Unavailable");
      await meets("openai", { mode: "lost-answer", method: "POST" });
      return issueFails("openai");
    },
    "openai 400 that speaks of expires_in_seconds or a lifetime": async () => {
      const strict: World = await startWorld({ maxKeyLifeSeconds: 3_600 });
      const issuer = providerAt(strict.env, "openai", { http });
      const failure = canIssue(issuer)
        ? await failureOf(issuer.issueKey({ name: "kt.long", lifeMs: 7_200_000 }), [])
        : undefined;
      await strict.close();
      if (failure === undefined) throw new Error("openai issues keys");
      expect(failure.constructor.name).toBe("KeyLifeTooLong");
      return failure;
    },
    "openai 400 or 403 that speaks of a maximum of keys": async () => {
      await meets("openai", openAiSays(403, "You have reached the maximum number of API keys"));
      const failure = await issueFails("openai");
      expect(failure.message).toContain(quotaHome.openai);
      return failure;
    },
    "openai 404 for the service account": () => issueFails("openai", { serviceAccount: "svc_acct_none" }),
    "anthropic 400 org_api_key_limit_exceeded, workspace_api_key_limit_exceeded": async () => {
      const limited: World = await startWorld({ anthropicKeyLimit: { organization: 0, workspace: 1 } });
      const anthropic = providerAt(limited.env, "anthropic", { http });
      if (!canSwitch(anthropic)) throw new Error("anthropic switches keys");
      await anthropic.disableKey("apikey_prod_1");
      await limited.call("POST", `${limited.control}/anthropic/keys`, { body: { name: "in its place" } });
      const failure = await failureOf(anthropic.enableKey("apikey_prod_1"), []);
      await limited.close();
      return failure;
    },
    "anthropic 404 for the organisation": async () => {
      await meets("anthropic", { status: 404 });
      return failureOf(provider("anthropic").checkAdminCredential(), []);
    },
    "gemini disableServiceAccountApiKeyCreation, FLOW_APIKEY_SERVICE_ACCOUNT_…": async () => {
      await meets("apikeys", googleSays(403, "constraints/iam.managed.disableServiceAccountApiKeyCreation"));
      expect((await issueFails("gemini")).type).toBe("RequestInvalid");
      await meets("apikeys", googleSays(400, "FLOW_APIKEY_SERVICE_ACCOUNT_BINDING_PERMISSION_ERROR"));
      return issueFails("gemini");
    },
    "gemini 400 FAILED_PRECONDITION": async () => {
      await meets("apikeys", googleSays(400, "no", { status: "FAILED_PRECONDITION" }));
      return issueFails("gemini");
    },
    "gemini 403 SERVICE_DISABLED": async () => {
      const details = [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "SERVICE_DISABLED" }];
      await meets("apikeys", googleSays(403, "not enabled", { status: "PERMISSION_DENIED", details }));
      return issueFails("gemini");
    },
    "gemini 409 ALREADY_EXISTS on a create": async () => {
      const [one, other] = [await issue("gemini", "kt.exists"), await issue("gemini", "kt.exists")];
      expect(other.value.reveal()).toBe(one.value.reveal());
      return undefined;
    },
    "gemini 409 ABORTED": async () => {
      await meets("apikeys", googleSays(409, "stale", { status: "ABORTED" }));
      return issueFails("gemini");
    },
    "gemini 403 on the look-up of a handed-in value": async () => {
      await meets("apikeys", { status: 403, method: "GET", path: ":lookupKey" });
      const gemini = provider("gemini");
      const found =
        canHandIn(gemini) && (await gemini.identifyKey(await valueOf(settled.gemini), { openedAt: new Date(0) }));
      expect(found).toMatchObject({ kind: "unknown" });
      return undefined;
    },
  };
  const nameOf = (row: Record<string, string>): string => `${row["provider"]} ${row["reply"]}`;

  test("has a proof for each row", () => {
    expect(told.map(nameOf)).toEqual(Object.keys(brought));
  });

  test.each(told.map((row) => ({ row, name: nameOf(row) })))("$name", async ({ row, name }) => {
    const brings = brought[name]?.() ?? [];
    const outcomes = await Promise.all(Array.isArray(brings) ? brings : [brings]);
    expect(outcomes.length).toBeGreaterThan(0);
    for (const outcome of outcomes) {
      expect(outcome?.type ?? "none").toBe(/^\w+/.exec(row["failure"] ?? "")?.[0]);
    }
  });
});
