import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, onTestFinished, test } from "vitest";

import {
  type Environment,
  type Inventory,
  loadInventory,
  nearestName,
  parseInventory,
  readCredentials,
  readEnvironment,
  readHttpTimeoutMs,
  slotOf,
} from "../src/config.ts";
import type { RotationFailure } from "../src/domain/failure.ts";

const sealing = 'sealing: [{ kid: 2026-11, publicKey: { kty: EC, crv: P-256, x: "abc", y: "def" } }]';
/** The example of the documentation. */
const head = `
installation: acme            # part of the names of keys we make; the sweep touches no others
account: \${CLOUDFLARE_ACCOUNT_ID}
environments:                 # an environment may name its own account
  production: { gateway: github-ai-agent-prod }
  staging:    { gateway: github-ai-agent-staging }
slots:
  production/openai:    { openai: { project: proj_abc, serviceAccount: svc_acct_1 }, probeModel: gpt-5-mini }
  production/gemini:    { google: { project: my-project, serviceAccount: gw@my-project.iam.gserviceaccount.com } }
  production/anthropic: { anthropic: { workspace: wrkspc_1 } }
${sealing}
`;
const policyText = `
policy:                      # every value here is the default; a slot may override any
  every: 90d                 # scheduled rotation
  keyLife: 365d              # where keys can expire; doctor fails under 2 x every
  propagationWait: 30s
  propagationBudget: 2m
  goodAnswers: 5             # in a row
  probePath: native          # native | compat, for the real alias
  cacheInvalidationWait: 10m
  quietPeriod: 15m
  usageLag: { openai: 15m, anthropic: 10m, google: 35m }          # ours; OpenAI publishes none
  graceCeiling: { after: 24h, ifUnknown: revoke, ifUsed: ask }     # each: revoke | ask
  soak: 15m
  longestRequest: 15m        # streams, sockets: the least time between last possible use and the end of the old key
  personDeadline: 7d
  revokeAlertAfter: 1h
  alive: { openai: 5 over 10s, anthropic: 5 over 10s, google: 10 over 2m }
  dead: { openai: 5 over 30s, anthropic: 5 over 30s, google: 10 over 2m, google-standard: 10 over 30m }
  aliases: auto              # auto | always | never
  approval: never            # never | before-revoke | before-install
  emergency: { strategy: swap-first, installWithin: 5m, revokeWithin: 1h, atDeadline: revoke }
`;
const env: Environment = { CLOUDFLARE_ACCOUNT_ID: "acc_1" };
const parse = (text: string, more: Environment = env): Inventory => parseInventory(text, "keyturn.yaml", more);
const slotsOf = (slots: Record<string, unknown>, more: Record<string, unknown> = {}): string =>
  JSON.stringify({
    installation: "acme",
    account: "acc_1",
    environments: { production: { gateway: "gw-prod" }, staging: { gateway: "gw-staging" } },
    slots,
    sealing: [{ kid: "2026-11", publicKey: { kty: "EC", crv: "P-256", x: "abc", y: "def" } }],
    ...more,
  });
const openai = { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } };

/** The failure of something that must be refused, with nothing but its message of interest. */
function refusal(attempt: () => unknown): string {
  try {
    attempt();
  } catch (error) {
    expect(error).toMatchObject({ name: "RotationFailure", type: "InvalidInput", retried: false });
    return (error as RotationFailure).message;
  }
  return expect.fail("it was not refused");
}

describe("the inventory", () => {
  test("reads the documented example", () => {
    const inventory = parse(head + policyText);
    expect(inventory).toMatchObject({
      installation: "acme",
      environments: { staging: { gateway: "github-ai-agent-staging", account: "acc_1" } },
      sealing: [{ kid: "2026-11" }],
    });
    expect(Object.keys(inventory.slots)).toEqual(["production/openai", "production/gemini", "production/anthropic"]);
    expect(inventory.slots["production/gemini"]).toMatchObject({
      slot: { environment: "production", provider: "gemini", alias: "default" },
      account: "acc_1",
      gateway: "github-ai-agent-prod",
      settings: { provider: "gemini", project: "my-project" },
    });
  });

  test("has the documented values as its defaults, for each provider", () => {
    expect(parse(head)).toEqual(parse(head + policyText));
  });

  test("keeps a rule of death of their own for Google's standard keys", () => {
    const { slots } = parse(head + policyText);
    const standard = Object.values(slots).map(({ policy: { deadStandard } }) => deadStandard?.span);
    expect(standard).toEqual([undefined, "30m", undefined]);
    const all = parse(`${head}policy: { dead: 7 over 1s }\n`).slots;
    expect(Object.values(all).map(({ policy: { deadStandard } }) => deadStandard?.span)).toContain("1s");
  });

  test("settles values by provider for each slot", () => {
    const { slots } = parse(head);
    const settled = Object.values(slots).map(({ policy: { usageLag, dead } }) => [usageLag, dead.answers, dead.span]);
    expect(settled).toEqual([
      ["15m", 5, "30s"],
      ["35m", 10, "2m"],
      ["10m", 5, "30s"],
    ]);
  });

  test("lets a slot override single values, deep ones too, and leaves the rest", () => {
    const { slots } = parse(
      slotsOf(
        {
          "production/openai": {
            ...openai,
            policy: { quietPeriod: "1h", graceCeiling: { ifUsed: "revoke" }, emergency: { installWithin: "1m" } },
          },
          "staging/openai": openai,
        },
        { policy: { every: "30d", graceCeiling: { after: "12h" } } },
      ),
    );
    expect(slots["production/openai"]?.policy).toMatchObject({
      every: "30d",
      quietPeriod: "1h",
      graceCeiling: { after: "12h", ifUnknown: "revoke", ifUsed: "revoke" },
      emergency: { strategy: "swap-first", installWithin: "1m", revokeWithin: "1h" },
    });
    expect(slots["staging/openai"]?.policy).toMatchObject({ quietPeriod: "15m", graceCeiling: { ifUsed: "ask" } });
  });

  test.each([
    ["a value by provider over one for all", { usageLag: "20m" }, { usageLag: { openai: "5m" } }, "5m"],
    ["a value for all over one by provider", { usageLag: { openai: "5m" } }, { usageLag: "20m" }, "20m"],
    ["another provider's value over one for all", { usageLag: "20m" }, { usageLag: { google: "5m" } }, "20m"],
    ["another provider's value over the default", {}, { usageLag: { google: "5m" } }, "15m"],
  ])("resolves %s", (_, policy, own, usageLag) => {
    const { slots } = parse(slotsOf({ "production/openai": { ...openai, policy: own } }, { policy }));
    expect(slots["production/openai"]?.policy.usageLag).toBe(usageLag);
  });

  test("resolves rules of death in the same way", () => {
    const own = { dead: { google: "3 over 1m" } };
    const text = slotsOf({ "production/openai": { ...openai, policy: own } }, { policy: { dead: "7 over 1s" } });
    expect(parse(text).slots["production/openai"]?.policy.dead).toEqual({ answers: 7, span: "1s" });
  });

  test("leaves the alias default out of a slot's name, and finds the slot under both", () => {
    const inventory = parse(slotsOf({ "production/openai:default": openai, "production/openai:batch": openai }));
    expect(Object.keys(inventory.slots)).toEqual(["production/openai", "production/openai:batch"]);
    expect(slotOf(inventory, "production/openai:default").name).toBe("production/openai");
  });

  test("lets an environment name its own account", () => {
    const text = slotsOf(
      { "production/openai": openai, "staging/openai": openai },
      { environments: { production: { gateway: "gw" }, staging: { gateway: "gw", account: "acc_2" } } },
    );
    expect(Object.values(parse(text).slots).map(({ account }) => account)).toEqual(["acc_1", "acc_2"]);
  });
});

describe("what is refused at once, with what to do (promise 11)", () => {
  test.each([
    ["at the top", slotsOf({}, { polcy: {} }), "unknown field polcy: did you mean policy?"],
    [
      "in an environment",
      slotsOf({}, { environments: { production: { gatway: "x", gateway: "x" } } }),
      "unknown field environments.production.gatway: did you mean gateway?",
    ],
    [
      "in a slot",
      slotsOf({ "production/openai": { ...openai, probeModl: "x" } }),
      "unknown field slots.production/openai.probeModl: did you mean probeModel?",
    ],
    [
      "in a slot's provider",
      slotsOf({ "production/openai": { openai: { ...openai.openai, serviceAcount: "x" } } }),
      "unknown field slots.production/openai.openai.serviceAcount: did you mean serviceAccount?",
    ],
    [
      "in the policy",
      slotsOf({}, { policy: { quitePeriod: "1m" } }),
      "unknown field policy.quitePeriod: did you mean quietPeriod?",
    ],
    [
      "deep in a slot's policy",
      slotsOf({ "production/openai": { ...openai, policy: { graceCeiling: { ifUnkown: "ask" } } } }),
      "unknown field slots.production/openai.policy.graceCeiling.ifUnkown: did you mean ifUnknown?",
    ],
    [
      "among values by provider",
      slotsOf({}, { policy: { usageLag: { opnai: "1m" } } }),
      "unknown field policy.usageLag.opnai: did you mean openai?",
    ],
    ["like nothing we know", slotsOf({}, { colour: "red" }), "unknown field colour"],
    ["known elsewhere", slotsOf({}, { quietPeriod: "1m" }), "unknown field quietPeriod: it belongs in another place"],
  ])("an unknown field %s", (_, text, message) => {
    expect(refusal(() => parse(text))).toBe(`keyturn.yaml: ${message}`);
  });

  test.each([
    ["without a unit", { every: 90 }, "policy.every: a length of time with its unit"],
    ["with an unknown unit", { every: "2w" }, "policy.every: a length of time with its unit"],
    ["by provider, without a unit", { usageLag: 15 }, "policy.usageLag: a length of time with its unit"],
    ["in a rule of death", { dead: "5 times" }, "policy.dead: answers in a row and the time they span"],
    ["of nothing", { soak: null }, "policy.soak: a length of time with its unit"],
    [
      "in words that are not allowed",
      { aliases: "sometimes" },
      'policy.aliases: expected one of "auto"|"always"|"never"',
    ],
    ["out of bounds", { goodAnswers: 0 }, "policy.goodAnswers: Too small"],
  ])("a value %s", (_, policy, message) => {
    expect(refusal(() => parse(slotsOf({}, { policy })))).toContain(`keyturn.yaml: ${message}`);
  });

  test.each([
    [
      "no slot",
      { "production/google": openai },
      /"production\/google" is not a slot: .* one of openai, gemini, anthropic/,
    ],
    ["an environment nobody named", { "prod/openai": openai }, /environment prod is none of production, staging/],
    [
      "another provider's settings",
      { "production/openai": { anthropic: { workspace: "w" } } },
      /has anthropic: for a slot of openai, give only openai/,
    ],
    ["no settings", { "production/openai": {} }, /openai is missing/],
    ["half its settings", { "production/openai": { openai: { project: "p" } } }, /openai\.serviceAccount: is missing/],
    [
      "itself twice, once with its alias",
      { "production/openai": openai, "production/openai:default": openai },
      /are one physical secret/,
    ],
  ])("a slot that has %s", (_, slots, message) => {
    expect(refusal(() => parse(slotsOf(slots)))).toMatch(message);
  });

  test("two slots with one physical target (promise 7)", () => {
    const twins = slotsOf(
      { "production/openai": openai, "staging/openai": openai },
      { environments: { production: { gateway: "gw" }, staging: { gateway: "gw" } } },
    );
    expect(refusal(() => parse(twins))).toBe(
      "keyturn.yaml: slots production/openai and staging/openai are one physical secret: keep one of them",
    );
  });

  test("an environment without an account, named with the line that mends it", () => {
    const message = refusal(() => parse(slotsOf({}, { account: undefined })));
    expect(message).toMatch(/no account for environment production: set account: \$\{CLOUDFLARE_ACCOUNT_ID\}/);
  });

  test("a variable that is not set or empty", () => {
    for (const more of [{}, { CLOUDFLARE_ACCOUNT_ID: "" }]) {
      expect(refusal(() => parse(head, more))).toMatch(/takes \$\{CLOUDFLARE_ACCOUNT_ID\} from the environment/);
    }
  });

  test("a default environment that is none", () => {
    expect(refusal(() => parse(slotsOf({}, { defaultEnvironment: "dev" })))).toContain(
      "defaultEnvironment dev is none of production, staging",
    );
  });

  test("a name that is none, with what names look like", () => {
    const message = refusal(() => parse(slotsOf({}, { environments: { Prod: { gateway: "gw" } } })));
    expect(message).toBe("keyturn.yaml: environments.Prod: lower-case letters, digits and hyphens, at most 32");
    expect(refusal(() => parse(slotsOf({}, { installation: "my.acme" })))).toContain("installation: lower-case");
  });

  test.each([
    ["broken", "slots: {production/openai: {", /keyturn\.yaml is not YAML: .*line 1/],
    ["with a field twice", "installation: a\ninstallation: b", /is not YAML: .*unique/],
    ["with an unknown anchor", "account: *nope", /is not YAML: /],
    ["empty", "", /keyturn\.yaml is empty: copy keyturn\.example\.yaml/],
    ["a list", "- a", /the whole: expected object/],
  ])("a file that is %s", (_, text, message) => {
    expect(refusal(() => parse(text))).toMatch(message);
  });

  test("a slot that is not there, with its neighbours and the nearest", () => {
    const inventory = parse(slotsOf({ "production/openai": openai, "staging/openai": openai }));
    expect(refusal(() => slotOf(inventory, "prodution/openai"))).toBe(
      "no slot prodution/openai in keyturn.yaml: did you mean production/openai? (slots: production/openai, staging/openai)",
    );
    expect(refusal(() => slotOf(parse(slotsOf({})), "nothing"))).toBe(
      "no slot nothing in keyturn.yaml (a slot is written environment/provider or environment/provider:alias; slots: none)",
    );
  });

  test("more than three faults are told three at a time", () => {
    const message = refusal(() => parse(slotsOf({}, { policy: { every: 1, soak: 1, quietPeriod: 1, keyLife: 1 } })));
    expect(message.split(";")).toHaveLength(3);
  });
});

test.each([
  ["quitePeriod", "quietPeriod"],
  ["QUIETPERIOD", "quietPeriod"],
  ["slot", "slots"],
  ["x", undefined],
  ["colour", undefined],
])("the nearest name to %s is %s", (name, nearest) => {
  expect(nearestName(name, ["quietPeriod", "slots", "every"])).toBe(nearest);
});

describe("files", () => {
  const directory = mkdtempSync(join(tmpdir(), "keyturn-config-"));
  afterAll(() => rmSync(directory, { recursive: true }));

  test("the inventory is the file that KEYTURN_CONFIG names", () => {
    const path = join(directory, "mine.yaml");
    writeFileSync(path, head);
    expect(loadInventory({ ...env, KEYTURN_CONFIG: path }).path).toBe(path);
    expect(refusal(() => loadInventory({ KEYTURN_CONFIG: join(directory, "none.yaml") }))).toMatch(
      /no inventory at .*none\.yaml: copy keyturn\.example\.yaml there/,
    );
    expect(refusal(() => loadInventory({ KEYTURN_CONFIG: directory }))).toMatch(/cannot read/);
  });

  test("an empty KEYTURN_CONFIG is none", () => {
    const name = (config: string | undefined): string => {
      try {
        return loadInventory({ ...env, KEYTURN_CONFIG: config }).path;
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(name("")).toBe(name(undefined));
  });

  test("what is set wins over .dev.vars, and what is empty does not", () => {
    writeFileSync(join(directory, ".dev.vars"), 'A=file\nB="file b"\n# C=no\nD=file\n');
    const read = readEnvironment({ A: "set", B: "", E: "set" }, directory);
    expect(read).toEqual({ A: "set", B: "file b", D: "file", E: "set" });
    expect(readEnvironment({ A: "set" }, join(directory, "nowhere"))).toEqual({ A: "set" });
  });
});

describe("credentials and addresses", () => {
  const token = { CLOUDFLARE_API_TOKEN: "cf-token-1" };

  test("the guide's CF_API_TOKEN is taken too, after CLOUDFLARE_API_TOKEN", () => {
    expect(readCredentials({ CF_API_TOKEN: "cf-token-2" }).cloudflareToken.reveal()).toBe("cf-token-2");
    expect(readCredentials({ ...token, CF_API_TOKEN: "cf-token-2" }).cloudflareToken.reveal()).toBe("cf-token-1");
  });

  test("without a Cloudflare token it says which rights one needs", () => {
    for (const none of [{}, { CLOUDFLARE_API_TOKEN: " " }]) {
      expect(refusal(() => readCredentials(none))).toMatch(/CLOUDFLARE_API_TOKEN is not set: .*Secrets Store Write/);
    }
  });

  test("the gateway's token is the API token where there is no other, and line breaks at the end are dropped", () => {
    expect(readCredentials(token).gatewayToken.reveal()).toBe("cf-token-1");
    const both = readCredentials({ ...token, CLOUDFLARE_GATEWAY_TOKEN: "run\n", OPENAI_ADMIN_KEY: " made-up\n" });
    expect(both.gatewayToken.reveal()).toBe("run");
    expect(both.openaiAdminKey?.reveal()).toBe("made-up");
    expect(both.anthropicAdminKey).toBeUndefined();
  });

  test("google's credentials are set in any of the places where its tools look, and else not", () => {
    const set = (env: Record<string, string>): boolean =>
      readCredentials({ ...token, METADATA_SERVER_DETECTION: "none", ...env }).googleConfigured;
    const home = mkdtempSync(join(tmpdir(), "keyturn-home-"));
    onTestFinished(() => rmSync(home, { recursive: true, force: true }));
    expect(set({})).toBe(false);
    expect(set({ HOME: home, GOOGLE_OAUTH_ACCESS_TOKEN: " " })).toBe(false);
    expect(set({ GOOGLE_OAUTH_ACCESS_TOKEN: "ya29.made-up" })).toBe(true);
    expect(set({ GOOGLE_APPLICATION_CREDENTIALS: "/somewhere/else.json" })).toBe(true);
    expect(set({ K_SERVICE: "keyturn" })).toBe(true);
    mkdirSync(join(home, ".config", "gcloud"), { recursive: true });
    writeFileSync(join(home, ".config", "gcloud", "application_default_credentials.json"), "{}");
    expect(set({ HOME: home })).toBe(true);
    expect(set({ CLOUDSDK_CONFIG: join(home, ".config", "gcloud") })).toBe(true);
  });

  test("addresses are those of the vendors' SDKs unless they are set", () => {
    expect(readCredentials(token).baseUrls).toEqual({
      cloudflareApi: "https://api.cloudflare.com/client/v4",
      cloudflareGateway: "https://gateway.ai.cloudflare.com/v1",
      openai: "https://api.openai.com/v1",
      anthropic: "https://api.anthropic.com",
      googleApiKeys: "https://apikeys.googleapis.com",
      googleMonitoring: "https://monitoring.googleapis.com",
      gemini: "https://generativelanguage.googleapis.com",
    });
    const { baseUrls } = readCredentials({
      ...token,
      OPENAI_BASE_URL: "http://127.0.0.1:8080/v1//",
      GEMINI_BASE_URL: "",
    });
    expect(baseUrls).toMatchObject({
      openai: "http://127.0.0.1:8080/v1",
      gemini: "https://generativelanguage.googleapis.com",
    });
  });

  test.each(["api.openai.com/v1", "ftp://api.openai.com", "https://", "localhost:1234"])(
    "%s is no address",
    (address) => {
      expect(refusal(() => readCredentials({ ...token, OPENAI_BASE_URL: address }))).toBe(
        `OPENAI_BASE_URL is not an address: "${address}" should look like https://api.openai.com/v1`,
      );
    },
  );

  test("a key where an address belongs is not repeated (promise 4)", () => {
    const message = refusal(() => readCredentials({ ...token, OPENAI_BASE_URL: "sk-admin-MadeUpMadeUpMadeUp1234" }));
    expect(message).not.toContain("MadeUp");
  });

  test("nothing of it can be printed by accident (promise 4)", () => {
    expect(() => JSON.stringify(readCredentials(token))).toThrow(TypeError);
  });
});

describe("the dialect guide", () => {
  const text = (environment: string, slot: string, top = ""): string => `
installation: acme
account: acc
${top}
environments: { production: { gateway: gw${environment} }, staging: { gateway: gw2 } }
slots:
  production/openai: { openai: { project: p, serviceAccount: s }${slot} }
${sealing}
`;
  const read = (...parts: [string, string, string?]): Inventory => parseInventory(text(...parts), "keyturn.yaml", {});

  test("is spoken where an environment or the account says so, and then names each slot's secret", () => {
    expect(read(", dialect: guide", ", secretId: s1").slots["production/openai"]?.secretId).toBe("s1");
    expect(read("", ", secretId: s1", "dialect: guide").slots["production/openai"]?.secretId).toBe("s1");
    expect(read(", dialect: secrets-store", "", "dialect: guide").slots["production/openai"]).not.toHaveProperty(
      "secretId",
    );
    expect(read("", "").slots["production/openai"]).not.toHaveProperty("secretId");
  });

  test.each([
    [", dialect: guide", "", "", "secretId is missing"],
    ["", ", secretId: s1", "", "secretId is only for dialect: guide"],
    [", dialect: guide", ", secretId: s1, policy: { aliases: always }", "", "aliases: always needs aliases"],
    [", dialect: guide", ", secretId: s1", "policy: { aliases: always }", "aliases: always needs aliases"],
    [", dialect: manual", "", "", "dialect"],
    ["", "", "dialetc: guide", "did you mean dialect?"],
  ])("refuses what does not fit it (%#)", (environment, slot, top, words) => {
    expect(() => read(environment, slot, top)).toThrow(words);
  });

  test("refuses two slots with one secret", () => {
    const two = text("", ", secretId: s1", "dialect: guide").replace(
      "slots:",
      "slots:\n  staging/openai: { openai: { project: p, serviceAccount: s }, secretId: s1 }",
    );
    expect(() => parseInventory(two, "keyturn.yaml", {})).toThrow("one physical secret");
  });
});

describe("KEYTURN_HTTP_TIMEOUT", () => {
  test("is a length of time; without it the client decides", () => {
    expect(readHttpTimeoutMs({ KEYTURN_HTTP_TIMEOUT: "1500ms" })).toBe(1_500);
    expect(readHttpTimeoutMs({ KEYTURN_HTTP_TIMEOUT: "" })).toBeUndefined();
    expect(readHttpTimeoutMs({})).toBeUndefined();
  });

  test.each(["20", "soon", "0s"])("refuses %s", (text) => {
    expect(() => readHttpTimeoutMs({ KEYTURN_HTTP_TIMEOUT: text })).toThrow("KEYTURN_HTTP_TIMEOUT");
  });
});
