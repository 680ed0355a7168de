import { setTimeout as pause } from "node:timers/promises";
import { ApplicationFailure, CancelledFailure } from "@temporalio/common";
import { MockActivityEnvironment } from "@temporalio/testing";
import { DefaultLogger } from "@temporalio/worker";

import type { OfRotation } from "../../src/activities/contract.ts";
import type { ClosedRun } from "../../src/activities/dependencies.ts";
import { failureInterceptor } from "../../src/activities/failures.ts";
import { fenceInterceptor, mayWrite } from "../../src/activities/fence.ts";
import { heartbeatInterceptor } from "../../src/activities/heartbeat.ts";
import { createActivities, type RotationActivities } from "../../src/activities/index.ts";
import { parseInventory, readCredentials } from "../../src/config.ts";
import { RotationFailure } from "../../src/domain/failure.ts";
import type { RotationResult } from "../../src/domain/rotation.ts";
import { createHttp } from "../../src/http.ts";
import { Redacted } from "../../src/redacted.ts";
import { type ExchangeEvent, type Sandbox, startSandbox } from "../../src/sandbox/index.ts";
import { createSealing, generateSealingKey } from "../../src/sealing.ts";
import { plugEndings, plugTogether } from "../../src/worker.ts";
import { type GivenUp, requestMs, type Scene, type Story } from "./story.ts";
import { type Truth, watch } from "./truth.ts";

/** The sandbox with a slot in it, people, and attempts of the real activities, each under a name of its own. */

export const gateway = "github-ai-agent-prod";

/** What differs by provider: how a slot is written, and where the sandbox keeps its keys. */
const providers = {
  openai: {
    slug: "openai",
    about: "openai-keys",
    service: "openai",
    settings: { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } },
    staging: { openai: { project: "proj_stg", serviceAccount: "svc_acct_2" } },
  },
  anthropic: {
    slug: "anthropic",
    about: "anthropic-keys",
    service: "anthropic",
    settings: { anthropic: { workspace: "wrkspc_1" } },
    staging: { anthropic: { workspace: "wrkspc_2" } },
  },
  gemini: {
    slug: "google-ai-studio",
    about: "google-keys",
    service: "apikeys",
    settings: { google: { project: "my-project", serviceAccount: "gw@my-project.iam.gserviceaccount.com" } },
    staging: {
      google: { project: "my-project-staging", serviceAccount: "gw@my-project-staging.iam.gserviceaccount.com" },
    },
  },
} as const;

export type Name = keyof RotationActivities;

/** How one attempt, or a step with all its attempts, ended. */
export type Outcome =
  | { ok: true; value: unknown }
  | { ok: false; type: string; final: boolean; message: string; details: unknown[]; cancelled: boolean };

export interface Ground {
  of: OfRotation;
  slot: string;
  neighbour: string | undefined;
  truth: Truth;
  /** One attempt. `former` says how the one before it ended. */
  attempt(name: Name, order: object, which: Which): Attempt;
  /** Sets faults and lies; what was set before is over. */
  weather(scene: Pick<Scene, "faults" | "lies"> | undefined): Promise<void>;
  /** What the services hold, asked of the sandbox itself. */
  control(path: string, body?: unknown): Promise<unknown>;
  /** The value of a key, sealed for this rotation. */
  seal(value: string): Promise<string>;
  /** A key that a person makes at the provider. */
  keyByHand(name: string): Promise<{ id: string; value: string }>;
  /** What a person does at the provider to a key. */
  endByHand(id: string): Promise<void>;
  switchOffByHand(id: string): Promise<void>;
  /** What a person writes into a secret, in the dashboard. */
  edit(secret: string, change: { value?: string; comment?: string }): Promise<void>;
  valueOf(id: string): Promise<string>;
  /** Leaves room for so many more secrets. */
  leaveRoom(secrets: number): Promise<void>;
  /** A client that still has the key uses it. Says when. */
  useKey(value: string): Promise<number>;
  /** The key that an earlier run left alive. */
  earlier: string | undefined;
  secretOf(alias?: string): string;
  /** Everything that activities answered, for a search for key values. */
  answers: { activity: string; text: string }[];
  /** What the slot's last run said, for the next one. */
  lastClosed: ClosedRun | undefined;
  /** Waits for attempts that nobody waited for, and for requests that land late. */
  calm(): Promise<void>;
  close(): Promise<void>;
}

export interface Which {
  attempt: number;
  /** What the attempt before let know with its last heartbeat. */
  heartbeat?: unknown;
  /** Which of its requests takes long on its way. */
  slow?: Pick<GivenUp, "during" | "skip" | "delayMs">;
}

export interface Attempt {
  id: string;
  outcome: Promise<Outcome>;
  /** Told when its slow request is on its way. */
  underWay: Promise<void>;
  cancel(): void;
  /** Temporal waits for it no longer: it hears so, or its time is over by its own clock as well. */
  giveUp(hears: boolean): void;
  /** What it let know so far. */
  heartbeat(): unknown;
}

const heartbeatTimeoutMs = 10_000;
/** Pauses of seconds between two looks are shortened, so that stories are told in seconds. */
const longPauseMs = 900;
const shortened = 12;

export async function prepare(story: Story): Promise<Ground> {
  const kind = providers[story.provider];
  const { world } = story;
  let hook: Truth["hear"] | undefined;
  const onTheWay = new Map<string, (event: ExchangeEvent) => Promise<void>>();
  const sandbox: Sandbox = await startSandbox({
    timeScale: 600,
    edges: [{ name: "near", propagationMs: 0, cacheTtlMs: 0, isolates: 1 }],
    listLagMs: world.listLagMs * 600,
    settleMs: 0,
    deathMs: 0,
    anthropicSettleMs: 0,
    anthropicDeathMs: 0,
    googleSettleMs: 0,
    googleDeathMs: 0,
    googleStandardDeathMs: { minMs: 0, maxMs: 0 },
    operationMs: 0,
    reviveMs: 0,
    activationMs: 0,
    configNeeded: world.configNeeded,
    patchRefreshesPreview: world.freshPreviews,
    usageDisorder: false,
    usageLag: { openai: { minMs: 60_000, jitterMs: 0 } },
    lastUsedLagMs: 60_000,
    usageRequests: world.use === "none" ? "told" : world.use,
    rateLimit: { calls: 100_000, windowMs: 300_000 },
    googleQuota: { reads: 100_000, writes: 100_000 },
    hooks: async (event) => {
      await hook?.(event);
      await onTheWay.get(event.userAgent ?? "")?.(event);
    },
  });
  const slot = `production/${story.provider}`;
  const neighbour = world.neighbour === "none" ? undefined : `${slot}:batch`;
  const { publicKey, privateKey } = await generateSealingKey("2026-11");
  const inventory = parseInventory(
    JSON.stringify({
      installation: "acme",
      account: sandbox.env["CLOUDFLARE_ACCOUNT_ID"],
      environments: { production: { gateway }, staging: { gateway: "github-ai-agent-staging" } },
      slots: {
        [slot]: kind.settings,
        [`staging/${story.provider}`]: kind.staging,
        ...(neighbour === undefined ? {} : { [neighbour]: kind.settings }),
      },
      sealing: [publicKey],
      policy: { dead: "2 over 40ms", quietPeriod: "300ms", usageLag: "50ms" },
    }),
    "keyturn.yaml",
    sandbox.env,
  );
  const sealing = createSealing(inventory.sealing, [privateKey]);
  const credentials = readCredentials(sandbox.env);
  const of: OfRotation = { slot, rotationId: crypto.randomUUID() };

  const control: Ground["control"] = async (path, body) => {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const response = await fetch(`${sandbox.control}${path}`, init);
    if (!response.ok) throw new Error(`the sandbox answered ${response.status} to ${path}`);
    return response.json();
  };
  const forget = async (path: string): Promise<void> => {
    await (await fetch(`${sandbox.control}${path}`, { method: "DELETE" })).text();
  };
  const call = async (method: string, url: string, headers: Record<string, string>, body: unknown) => {
    const response = await fetch(url, {
      method,
      headers: { "content-type": "application/json", "user-agent": "a person", ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`);
    return text === "" ? undefined : (JSON.parse(text) as unknown);
  };
  const env = (name: string): string => sandbox.env[name] ?? "";
  const cloudflare = (method: string, path: string, body?: unknown) =>
    call(
      method,
      `${env("CLOUDFLARE_API_BASE_URL")}/accounts/${env("CLOUDFLARE_ACCOUNT_ID")}${path}`,
      { authorization: `Bearer ${env("CLOUDFLARE_API_TOKEN")}` },
      body,
    );
  const google = (method: string, path: string, body?: unknown) =>
    call(
      method,
      `${env("GOOGLE_APIKEYS_BASE_URL")}/v2/projects/my-project/locations/global/keys${path}`,
      { authorization: `Bearer ${env("GOOGLE_OAUTH_ACCESS_TOKEN")}` },
      body,
    );
  const anthropic = (id: string, status: string) =>
    call(
      "POST",
      `${env("ANTHROPIC_BASE_URL")}/v1/organizations/api_keys/${id}`,
      { "x-api-key": env("ANTHROPIC_ADMIN_KEY"), "anthropic-version": "2026-10-21" },
      { status },
    );
  const openai = (method: string, path: string, body?: unknown) =>
    call(
      method,
      `${env("OPENAI_BASE_URL")}/organization/projects/proj_abc${path}`,
      { authorization: `Bearer ${env("OPENAI_ADMIN_KEY")}` },
      body,
    );

  const secretOf = (alias = "default"): string => `${gateway}_${kind.slug}_${alias}`;
  const truth = watch({
    control,
    short: of.rotationId.replaceAll("-", "").slice(0, 8),
    configNeeded: world.configNeeded,
    slots: new Map([
      [secretOf(), slot],
      ...(neighbour === undefined ? [] : ([[secretOf("batch"), neighbour]] as const)),
      [`github-ai-agent-staging_${kind.slug}_default`, `staging/${story.provider}`],
    ]),
  });
  hook = truth.hear;

  let furnishedAt = 0;
  let running = 0;
  let lastAttempt = 0;
  const answers: Ground["answers"] = [];
  const ground: Ground = {
    of,
    slot,
    neighbour,
    truth,
    answers,
    lastClosed: undefined,
    control,
    secretOf,
    seal: (value) => sealing.seal(new Redacted(value), of),

    attempt(name, order, { attempt, heartbeat, slow }) {
      const id = `${name}#${++lastAttempt}`;
      const userAgent = slow === undefined ? `keyturn/story ${id}` : `keyturn/story ${id} slow`;
      const underWay = new Promise<void>((tell) => {
        if (slow !== undefined) onTheWay.set(userAgent, slowedDown(slow, tell));
      });
      const http = createHttp({ userAgent, mayWrite, timeoutMs: requestMs });
      const parts = {
        inventory,
        credentials,
        sealing,
        http,
        runs: {
          find: () => Promise.reject(new RotationFailure("SlotMissing", "no run")),
          update: () => Promise.reject(new RotationFailure("SlotMissing", "no run")),
          lastClosed: () => Promise.resolve(ground.lastClosed),
          lastInstalledKey: () => Promise.resolve(undefined),
          openRotations: () => Promise.resolve([]),
        },
      };
      const activities = createActivities(plugTogether(parts), plugEndings(parts));
      const environment = new MockActivityEnvironment(
        {
          attempt,
          activityType: name,
          heartbeatTimeoutMs,
          heartbeatDetails: heartbeat,
          startToCloseTimeoutMs: 120_000,
        },
        {
          interceptors: [
            // In the worker's order: the fence asks the heart.
            (context) => ({ inbound: heartbeatInterceptor(context) }),
            (context) => ({ inbound: fenceInterceptor(context, requestMs) }),
            () => ({ inbound: failureInterceptor() }),
          ],
          logger: new DefaultLogger("ERROR", () => undefined),
        },
      );
      let last = heartbeat;
      environment.on("heartbeat", (details: unknown) => (last = details));
      const { sleep } = environment.context;
      Object.assign(environment.context, {
        sleep: (ms: number | string) =>
          sleep.call(environment.context, typeof ms === "number" && ms > longPauseMs ? ms / shortened : (ms as number)),
      });
      const beganAt = performance.now();
      const giveUp = (hears: boolean): void => {
        truth.gaveUp(id);
        if (hears) environment.cancel();
        else Object.assign(environment.context.info, { startToCloseTimeoutMs: performance.now() - beganAt });
      };
      truth.began(id);
      running += 1;
      const outcome = environment
        .run(activities[name] as (order: object) => Promise<unknown>, { ...of, ...order })
        .then(
          (value): Outcome => {
            answers.push({ activity: id, text: JSON.stringify(value) ?? "" });
            return { ok: true, value };
          },
          (error: unknown): Outcome => {
            const failure = outcomeOf(error);
            answers.push({ activity: id, text: JSON.stringify(failure) + String((error as Error).stack) });
            return failure;
          },
        )
        .finally(() => {
          running -= 1;
          truth.over(id);
        });
      return { id, outcome, underWay, cancel: () => environment.cancel(), giveUp, heartbeat: () => last };
    },

    async weather(scene) {
      await Promise.all([forget("/faults"), forget("/lies")]);
      if (scene === undefined) return;
      for (const { at, method, mode, delayMs, skip } of scene.faults) {
        await control("/faults", {
          service: at === "cloudflare" ? "cloudflare" : kind.service,
          method,
          mode,
          status: 503,
          delayMs,
          skip,
          times: 1,
          // A write that is slow already lands in its time: nothing slows it down further.
          when: { "user-agent": method === "GET" ? "^keyturn/story" : "^keyturn/story \\S+$" },
        });
      }
      for (const { about, mode, which, agoMs, skip } of scene.lies) {
        const name = which === "slot" ? secretOf() : which === "neighbour" ? secretOf("batch") : undefined;
        await control("/lies", {
          about: about === "keys" ? kind.about : about,
          mode,
          ...(name === undefined || about === "keys" ? {} : { which: `^${name}$` }),
          // What the run finds was there long before it: no read is older.
          agoMs: Math.min(agoMs, Math.floor(performance.now() - furnishedAt)),
          skip,
          times: 1,
        });
      }
    },

    async keyByHand(name) {
      switch (story.provider) {
        case "openai":
          return (await openai("POST", "/service_accounts/svc_acct_1/api_keys", { name })) as {
            id: string;
            value: string;
          };
        case "anthropic": {
          // Each ends in AA, so that two endings are alike once in 3,844 times, and a preview then fits both: told apart
          // here, since what a preview cannot tell nobody can.
          for (;;) {
            const made = (await control("/anthropic/keys", { name, workspaceId: "wrkspc_1" })) as {
              id: string;
              value: string;
            };
            const { values } = (await control("/values")) as { values: { id: string; value: string }[] };
            const alike = values.filter(({ value }) => value.slice(-4) === made.value.slice(-4));
            if (alike.length === 1) return made;
          }
        }
        case "gemini": {
          const made = (await google("POST", "", {
            displayName: name,
            serviceAccountEmail: "gw@my-project.iam.gserviceaccount.com",
          })) as { response: { name: string; keyString: string } };
          return { id: made.response.name.split("/").at(-1) ?? "", value: made.response.keyString };
        }
      }
    },
    async endByHand(id) {
      truth.personEnds(id);
      if (story.provider === "openai") await openai("DELETE", `/api_keys/${id}`);
      else if (story.provider === "anthropic") await anthropic(id, "archived");
      else await google("DELETE", `/${id}`);
      await truth.person(`ends ${id}`);
    },
    async switchOffByHand(id) {
      if (story.provider === "openai") return;
      truth.personEnds(id);
      if (story.provider === "anthropic") await anthropic(id, "inactive");
      else await google("DELETE", `/${id}`);
      await truth.person(`switches ${id} off`);
    },
    async edit(secret, change) {
      const found = (await truth.look()).secrets.get(secret);
      if (found === undefined) return;
      await cloudflare("PATCH", `/secrets_store/stores/${sandbox.seed["storeId"]}/secrets/${found.id}`, change);
      await truth.person(`edits ${secret}`, secret);
    },
    async valueOf(id) {
      const { values } = (await control("/values")) as { values: { id: string; value: string }[] };
      return values.find((one) => one.id === id)?.value ?? "";
    },
    earlier: undefined,
    leaveRoom: async (room) =>
      void (await control("/options", { secretQuota: (await truth.fresh()).secrets.size + room })),
    async useKey(value) {
      const at = Date.now();
      await call(
        "POST",
        `${env("OPENAI_BASE_URL")}/chat/completions`,
        { authorization: `Bearer ${value}` },
        {
          model: "gpt-5-mini",
          messages: [{ role: "user", content: "hello" }],
        },
      );
      return at;
    },
    async calm() {
      await ground.weather(undefined);
      const deadline = performance.now() + 60_000;
      while (running > 0 && performance.now() < deadline) await pause(20);
      await pause(requestMs);
      await truth.look();
    },
    close: () => sandbox.close(),
  };

  await furnish();
  return ground;

  /** What is there before the run: the neighbour, another installation's things, a service account without a role. */
  async function furnish(): Promise<void> {
    const keys = (await truth.look()).keys;
    const own = [...keys.values()].find(({ id }) => /prod.1$/.test(id) && idOfProvider(id));
    const stores = `/secrets_store/stores/${sandbox.seed["storeId"]}/secrets`;
    const value =
      world.neighbour === "own"
        ? (await ground.keyByHand("batch, by hand")).value
        : await ground.valueOf(own?.id ?? "");
    if (neighbour !== undefined) {
      if (world.neighbour === "shares without config") {
        await cloudflare("POST", stores, [{ name: secretOf("batch"), value, scopes: ["ai_gateway"] }]);
      } else {
        await cloudflare("POST", `/ai-gateway/gateways/${gateway}/provider_configs`, {
          alias: "batch",
          provider_slug: kind.slug,
          default_config: false,
          secret: value,
        });
      }
    }
    const foreign = await ground.keyByHand(`kt.other.production.${story.provider}.default.0badcafe.1-1`);
    await cloudflare("POST", stores, [
      {
        name: secretOf("kt-0badcafe-new"),
        value: foreign.value,
        scopes: ["ai_gateway"],
        comment: "keyturn/1 alias of=other rot=0badcafe",
      },
    ]);
    if (world.inactive && story.provider === "openai") {
      await control("/openai/service-accounts/svc_acct_1/role", { role: "none" });
    }
    if (world.earlier) {
      const left = await ground.keyByHand(`kt.acme.production.${story.provider}.default.0ld0ld00.1-1`);
      ground.earlier = left.id;
      ground.lastClosed = { runId: "an-earlier-run", status: "COMPLETED", result: resultThatNamed(slot, left.id) };
    }
    if (world.room !== "plenty") await ground.leaveRoom(world.room === "one" ? 1 : 0);
    await pause(world.listLagMs);
    await truth.look();
    furnishedAt = performance.now();
  }
  function idOfProvider(id: string): boolean {
    return { openai: /^key_/, anthropic: /^apikey_/, gemini: /^gemini-/ }[story.provider].test(id);
  }
}

/** Stops one request of an attempt on its way for a while, and tells when it does. */
function slowedDown({ during, skip, delayMs }: NonNullable<Which["slow"]>, tell: () => void) {
  let seen = 0;
  return async ({ phase, method }: ExchangeEvent): Promise<void> => {
    if (phase !== "received" || (method === "GET") !== (during === "look") || seen++ !== skip) return;
    tell();
    await pause(delayMs);
  };
}

/** What a run said that ended and left one key alive. */
function resultThatNamed(slot: string, id: string): RotationResult {
  const why = "clients may still use it: revoke it when it is idle";
  return {
    slot,
    kind: "normal",
    outcome: "aborted",
    reason: "aborted by a person",
    rotationId: "0ld0ld00-0000-4000-8000-000000000000",
    oldKey: { id },
    newKey: null,
    times: { started: new Date().toISOString() },
    keys: [{ id, role: "old", fate: "named", why }],
    unknown: [],
    leftOver: [{ id, why }],
    warnings: [],
    steps: [],
  };
}

function outcomeOf(error: unknown): Outcome & { ok: false } {
  const cancelled = error instanceof CancelledFailure;
  if (error instanceof ApplicationFailure) {
    return {
      ok: false,
      type: error.type ?? "",
      final: error.nonRetryable === true,
      message: error.message,
      details: error.details ?? [],
      cancelled,
    };
  }
  if (cancelled) {
    return {
      ok: false,
      type: "cancelled",
      final: true,
      message: error.message,
      details: [...(error.details ?? [])],
      cancelled,
    };
  }
  // What is not ours is repeated, as Temporal repeats it.
  return { ok: false, type: "", final: false, message: String(error), details: [], cancelled };
}
