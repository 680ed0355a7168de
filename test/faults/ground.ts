import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Client, Connection, type WorkflowHandle } from "@temporalio/client";

import type { SealingPublicKey } from "../../src/config.ts";
import { parseMark } from "../../src/domain/mark.ts";
import { type Progress, type RotationResult, slotWorkflowId, taskQueue } from "../../src/domain/rotation.ts";
import { gatewaySlugs } from "../../src/domain/slot.ts";
import { type ExchangeEvent, type Sandbox, type SandboxOptions, startSandbox } from "../../src/sandbox/index.ts";
import { generateSealingKey } from "../../src/sealing.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { addSearchAttributes, searchAttributeNames } from "../../src/temporal/search-attributes.ts";
import { keyturnScript } from "../cli/run.ts";
import { allSlots, makeAnthropicKey } from "../support/providers.ts";
import { productionGateway, startTraffic, type Traffic } from "../support/traffic.ts";
import { scaledPolicy } from "../support/world.ts";
import { handInWhenAsked, type Person } from "../support/person.ts";
import { Numbering, type Phase, type Point, same } from "./points.ts";
import type { Subject } from "./subjects.ts";

/** How many times faster than life. At this scale a rotation with all its waits takes a few seconds. */
export const timeScale = 600;

export interface GroundOptions {
  temporal: Pick<DevServer, "address">;
  /** A namespace of its own: workers of several grounds take from one task queue by name. */
  namespace: string;
  /** What is rotated here, one at a time: the first to begin with. */
  subjects: Subject[];
  /** Default: 15 s, since a busy machine may be slow. */
  httpTimeout?: string;
  sandbox?: SandboxOptions;
  policy?: Record<string, unknown>;
}

/** Of clients, all the time: enough to see a request fail. */
const requestsPerSecond = 5;

/**
 * Where an emergency is played, caches drop a key within the documented cache wait: it waits no longer, while a normal
 * rotation waits for the old key to be idle.
 */
const shortCaches = [
  { name: "lhr", propagationMs: 2_000, cacheTtlMs: 60_000, isolates: 8 },
  { name: "iad", propagationMs: 8_000, cacheTtlMs: 180_000, isolates: 8 },
  { name: "sin", propagationMs: 20_000, cacheTtlMs: 300_000, isolates: 8 },
  { name: "gru", propagationMs: 45_000, cacheTtlMs: 400_000, isolates: 8 },
];

/** What happens at a point: awaited there. A rejection keeps the request from being executed. */
export type Trap = { point: Point; phase: Phase; spring: () => Promise<void> };

export interface PlayedKey {
  id: string;
  provider: string;
  projectId: string;
  workspaceId?: string;
  state: string;
  revokedAt: string | null;
}

export interface Ended {
  /** Nothing where the run failed without one. */
  result: RotationResult | undefined;
  failure: { type: string; message: string } | undefined;
  history: string;
}

interface PlayedSlot {
  gateway: string;
  provider: string;
  alias: string;
  keyId: string | null;
  edges: { isolates: Record<string, number> }[];
}

/** A sandbox, an inventory, and a worker that is a process of its own; a client to start rotations with. */
export class Ground {
  readonly sandbox: Sandbox;
  /** The key that the slot held when the last rotation began. */
  heldBefore = "none";
  /** The keys there were when the last rotation began. */
  keysBefore: string[] = [];
  /** Keys that were called compromised while it ran. */
  told: string[] = [];
  trap: Trap | undefined;
  /** Whether the trap's point came. */
  sprung = false;
  /** What was killed, on its way back. */
  revived: Promise<void> = Promise.resolve();
  numbering = new Numbering();
  said = "";
  readonly #options: GroundOptions;
  readonly #directory: string;
  readonly #env: Record<string, string>;
  readonly #sealing: SealingPublicKey;
  readonly #closing = new AbortController();
  /** Until the person who hands keys in has gone home. */
  #attended: Promise<void> = Promise.resolve();
  #subject: Subject;
  #traffic: Traffic | undefined;
  /** Of the other slot's clients, where the subject has one. */
  #otherTraffic: Traffic | undefined;
  #worker: ChildProcess | undefined;
  #connection: Connection | undefined;

  private constructor(
    options: GroundOptions,
    sandbox: Sandbox,
    place: { directory: string; env: Record<string, string>; sealing: SealingPublicKey },
  ) {
    const [first] = options.subjects;
    if (first === undefined) throw new Error("nothing to rotate");
    this.#options = options;
    this.#subject = first;
    this.sandbox = sandbox;
    this.#directory = place.directory;
    this.#env = place.env;
    this.#sealing = place.sealing;
  }

  static async prepare(options: GroundOptions): Promise<Ground> {
    const self: { ground?: Ground } = {};
    const sandbox = await startSandbox({
      timeScale,
      ...(options.subjects.some(({ workflow }) => workflow === "emergencyRotation") ? { edges: shortCaches } : {}),
      ...options.sandbox,
      hooks: (event) => self.ground?.hook(event),
    });
    const directory = await mkdtemp(join(tmpdir(), "keyturn-fault-"));
    const { publicKey, privateKey } = await generateSealingKey("2026-11");
    const inventory = {
      installation: "acme",
      account: sandbox.env["CLOUDFLARE_ACCOUNT_ID"],
      environments: { production: { gateway: productionGateway } },
      slots: Object.fromEntries(
        options.subjects.flatMap(({ of: { slot }, sharedWith }) =>
          [slot, ...(sharedWith === undefined ? [] : [sharedWith])].map((name) => [name, allSlots[slot]]),
        ),
      ),
      sealing: [publicKey],
      policy: scaledPolicy(timeScale, {
        propagationBudget: "60s",
        settleBudget: "60s",
        // Scaled, the hour would be over before a killed worker is back; it is long enough for what goes right in the end.
        emergency: { installWithin: "30s", revokeWithin: "40s" },
        ...options.policy,
      }),
    };
    await writeFile(join(directory, "keyturn.yaml"), JSON.stringify(inventory));
    await writeFile(join(directory, "sealing.json"), JSON.stringify({ keys: [privateKey] }), { mode: 0o600 });
    const env = {
      PATH: process.env["PATH"] ?? "",
      TEMPORAL_CONFIG_FILE: join(directory, "no-such.toml"),
      TEMPORAL_ADDRESS: options.temporal.address,
      TEMPORAL_NAMESPACE: options.namespace,
      KEYTURN_CONFIG: join(directory, "keyturn.yaml"),
      KEYTURN_SEALING_KEY_FILE: join(directory, "sealing.json"),
      KEYTURN_HTTP_TIMEOUT: options.httpTimeout ?? "15s",
      ...sandbox.env,
    };
    const ground = new Ground(options, sandbox, { directory, env, sealing: publicKey });
    self.ground = ground;
    ground.#connection = await Connection.connect({ address: options.temporal.address });
    await ground.#makeNamespace();
    await ground.startWorker();
    await ground.turnTo(ground.subject);
    return ground;
  }

  get subject(): Subject {
    return this.#subject;
  }

  get traffic(): Traffic {
    if (this.#traffic === undefined) throw new Error("no traffic");
    return this.#traffic;
  }

  /** Rotates this from now on, and lets its clients come. */
  async turnTo(subject: Subject): Promise<void> {
    const { provider } = subject.of;
    if (this.#traffic === undefined || provider !== this.#subject.of.provider) {
      await this.#traffic?.stop();
      this.#traffic = startTraffic(this.sandbox.env, requestsPerSecond, provider);
    }
    await this.#otherTraffic?.stop();
    this.#otherTraffic = undefined;
    this.#subject = subject;
    if (subject.sharedWith === undefined) return;
    await this.#share();
    this.#otherTraffic = startTraffic(this.sandbox.env, requestsPerSecond, provider, this.#alias(subject.sharedWith));
  }

  /** Puts the slot's key into the other slot as well, as somebody does in the dashboard, and waits until it serves there. */
  async #share(): Promise<void> {
    const { sharedWith } = this.subject;
    if (sharedWith === undefined) return;
    const held = await this.heldKey();
    if ((await this.heldKey(sharedWith)) === held) return;
    const { values } = (await this.control("/values")) as { values: { id: string; value: string }[] };
    const value = values.find(({ id }) => id === held)?.value ?? "";
    const alias = this.#alias(sharedWith);
    if ((await this.heldKey(sharedWith)) === "none") {
      await this.#cloudflare("POST", `/ai-gateway/gateways/${productionGateway}/provider_configs`, {
        alias,
        provider_slug: gatewaySlugs[this.subject.of.provider],
        default_config: false,
        secret: value,
      });
    } else await this.editSecret((await this.slotSecret(sharedWith)).id, { value, comment: "shared by hand" });
    await until(`${sharedWith} serves ${held}`, async () => (await this.served(sharedWith)).join() === held);
    await this.endOtherKeys();
  }

  #alias(slot: string): string {
    return slot.split(":")[1] ?? "default";
  }

  /** The slots of this ground that may hold keys of the subject's project. */
  get slots(): string[] {
    const { slot } = this.subject.of;
    const others = this.#options.subjects.flatMap(({ of, sharedWith }) =>
      of.slot === slot && sharedWith !== undefined ? [sharedWith] : [],
    );
    return [slot, ...new Set(others)];
  }

  /** The clients' requests that failed, in all of its slots, and forgets them. */
  takeFailures(): string[] {
    return [this.#traffic, this.#otherTraffic].flatMap((traffic) => traffic?.failures.splice(0) ?? []);
  }

  get failed(): number {
    return (this.#traffic?.failed ?? 0) + (this.#otherTraffic?.failed ?? 0);
  }

  get client(): Client {
    const connection = this.#connection;
    if (connection === undefined) throw new Error("no connection");
    return new Client({ connection, namespace: this.#options.namespace });
  }

  get workerPid(): number {
    return this.#worker?.pid ?? 0;
  }

  get workerAlive(): boolean {
    return this.#worker !== undefined && this.#worker.exitCode === null && this.#worker.signalCode === null;
  }

  async hook(event: ExchangeEvent): Promise<void> {
    if (event.service === "control") return;
    const point = this.numbering.pointOf(event);
    const { trap } = this;
    if (trap === undefined || this.sprung || event.phase !== trap.phase || !same(trap.point, point)) return;
    this.sprung = true;
    await trap.spring();
  }

  /** Starts the worker as an operator does, and returns when it is ready. */
  async startWorker(): Promise<void> {
    const child = spawn(process.execPath, [keyturnScript, "worker", "--json", "--until-stdin-ends"], {
      cwd: this.#directory,
      env: this.#env,
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#worker = child;
    let ready: () => void;
    const isReady = new Promise<void>((resolve) => (ready = resolve));
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.said += text;
        if (text.includes('"ready":true')) ready();
      });
    }
    const ended = once(child, "exit").then(() => {
      throw new Error(`the worker ended at its start: ${this.said.slice(-2_000)}`);
    });
    await Promise.race([isReady, ended]);
    ended.catch(() => undefined);
  }

  /** SIGKILL: nothing of it says goodbye. */
  async killWorker(): Promise<void> {
    const child = this.#worker;
    if (child === undefined || !this.workerAlive) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  async #makeNamespace(): Promise<void> {
    const { namespace } = this.#options;
    const connection = this.#connection;
    if (connection === undefined) return;
    await connection.workflowService.registerNamespace({
      namespace,
      workflowExecutionRetentionPeriod: { seconds: 86_400 as never },
    });
    await until(`namespace ${namespace} is there`, async () => {
      await connection.workflowService.describeNamespace({ namespace });
      const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
      if (customAttributes?.[searchAttributeNames[0] ?? ""] != null) return true;
      await addSearchAttributes(connection, namespace, searchAttributeNames);
      return false;
    });
    await until("namespace takes starts", async () => {
      await this.client.workflow.count();
      return true;
    });
  }

  async start(more: Record<string, unknown> = {}): Promise<WorkflowHandle> {
    this.numbering = new Numbering();
    this.sprung = false;
    const { workflow } = this.subject;
    const { slot } = this.subject.of;
    if (!this.workerAlive) await this.startWorker();
    await this.#share();
    this.heldBefore = await this.heldKey();
    this.keysBefore = (await this.keys()).map(({ id }) => id);
    this.told = workflow === "emergencyRotation" ? [this.heldBefore] : [];
    const args = [{ slot, ...this.subject.says, ...(await this.#told()), ...more }];
    const start = async (): Promise<WorkflowHandle> =>
      this.client.workflow.start(workflow, { taskQueue, workflowId: slotWorkflowId(slot), args });
    let handle: WorkflowHandle | undefined;
    await until("the rotation starts", async () => {
      handle = await start();
      return true;
    });
    const started = handle as unknown as WorkflowHandle;
    if (this.subject.of.madeByHand) this.#attended = handInWhenAsked(started, this.#person());
    return started;
  }

  /** Rotates each slot whose key is dead, as an operator does after a cut. */
  async rotateDeadSlots(): Promise<Ended[]> {
    const ends: Ended[] = [];
    for (const slot of this.slots) {
      const held = await this.heldKey(slot);
      const key = (await this.keys()).find(({ id }) => id === held);
      if (key === undefined || key.state === "active") continue;
      const args = [{ slot, heldKeyId: held }];
      const options = { taskQueue, workflowId: slotWorkflowId(slot), args };
      const handle = await this.client.workflow.start("normalRotation", options);
      if (this.subject.of.madeByHand) this.#attended = handInWhenAsked(handle, this.#person());
      ends.push(await this.endOf(handle));
    }
    return ends;
  }

  /** What nobody but the operator knows: which key is compromised, and which one a slot holds that shows neither mark nor preview. */
  async #told(): Promise<Record<string, unknown>> {
    const { of, cutsFirst, workflow } = this.subject;
    const unmarked =
      of.told.heldKeyId !== undefined && parseMark((await this.slotSecret()).comment ?? undefined) === undefined;
    return {
      // A day in buckets of the sandbox's is a million of them.
      ...(workflow === "emergencyRotation" ? { since: new Date(Date.now() - 1_000).toISOString() } : {}),
      ...(cutsFirst ? { compromisedKeyId: this.heldBefore } : {}),
      ...(unmarked ? { heldKeyId: this.heldBefore } : {}),
    };
  }

  #person(): Person {
    const ask = (path: string, body?: unknown): Promise<unknown> => this.control(path, body);
    return {
      sealing: this.#sealing,
      make: (name) => makeAnthropicKey({ ask }, { name, workspaceId: "wrkspc_1" }),
      leave: this.#closing.signal,
    };
  }

  /** Waits for the end of a run, whatever the server is doing meanwhile. */
  async endOf(handle: WorkflowHandle, { what = "the rotation", withinMs = 180_000 } = {}): Promise<Ended> {
    let ended: Ended | undefined;
    const look = async (): Promise<boolean> => {
      const { events = [] } = await handle.fetchHistory();
      const last = events?.at(-1);
      const done = last?.workflowExecutionCompletedEventAttributes;
      const failed = last?.workflowExecutionFailedEventAttributes?.failure;
      if (done == null && failed == null) return false;
      const payload = (done?.result ?? failed?.applicationFailureInfo?.details)?.payloads?.[0]?.data;
      ended = {
        result: payload == null ? undefined : (JSON.parse(Buffer.from(payload).toString()) as RotationResult),
        failure:
          failed == null
            ? undefined
            : { type: failed.applicationFailureInfo?.type ?? "none", message: failed.message ?? "" },
        history: JSON.stringify(events, (key, value: unknown) =>
          key === "data" && typeof value === "string" ? Buffer.from(value, "base64").toString("utf8") : value,
        ),
      };
      return true;
    };
    const running = async (): Promise<boolean> => (await handle.describe()).status.name !== "RUNNING";
    await until(`${what} ends`, running, withinMs).catch(async (error: unknown) => {
      const { raw } = await handle.describe();
      const pending = JSON.stringify(
        raw.pendingActivities?.map(({ activityType, attempt, lastFailure, state }) => [
          activityType?.name,
          attempt,
          state,
          lastFailure?.message,
        ]),
      );
      const waiting = await handle.query<Progress>("progress").then(
        (progress) => JSON.stringify([progress.phase, progress.waiting?.for]),
        () => "no answer",
      );
      throw new Error(
        `${String(error)}; pending: ${pending}; it waits for ${waiting}; the worker said: ${this.said.slice(-1_500)}`,
      );
    });
    await until("its history is there", look);
    return ended as unknown as Ended;
  }

  /** The ends of the emergencies that the run started in other slots. */
  async endOfOthers(): Promise<Ended[]> {
    const { sharedWith } = this.subject;
    if (sharedWith === undefined) return [];
    const handle = this.client.workflow.getHandle(slotWorkflowId(sharedWith));
    const started = await handle.describe().catch(() => undefined);
    return started === undefined ? [] : [await this.endOf(handle)];
  }

  async keys(): Promise<PlayedKey[]> {
    const { keys } = (await this.control("/record")) as { keys: PlayedKey[] };
    return keys.filter((key) => this.subject.of.owns(key));
  }

  async #played(slot: string): Promise<PlayedSlot | undefined> {
    const { slots } = (await this.control("/slots")) as { slots: PlayedSlot[] };
    const slug = gatewaySlugs[this.subject.of.provider];
    const alias = this.#alias(slot);
    return slots.find((row) => row.gateway === productionGateway && row.provider === slug && row.alias === alias);
  }

  /** Ids of the keys that any isolate of any edge sends now for the slot. */
  async served(slot = this.subject.of.slot): Promise<string[]> {
    const ours = await this.#played(slot);
    return [...new Set(ours?.edges.flatMap(({ isolates }) => Object.keys(isolates)))];
  }

  async secrets(): Promise<{ id: string; name: string; comment: string | null }[]> {
    const rows = await this.#cloudflare("GET", `${this.#store}/secrets?per_page=100`);
    return rows as { id: string; name: string; comment: string | null }[];
  }

  get #store(): string {
    return `/secrets_store/stores/${this.sandbox.seed["storeId"]}`;
  }

  /** A call as somebody makes it by hand. */
  async #cloudflare(method: string, path: string, body?: unknown): Promise<unknown> {
    const { env } = this.sandbox;
    const response = await fetch(`${env["CLOUDFLARE_API_BASE_URL"]}/accounts/${env["CLOUDFLARE_ACCOUNT_ID"]}${path}`, {
      method,
      headers: { authorization: `Bearer ${env["CLOUDFLARE_API_TOKEN"]}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path} by hand was answered with ${response.status}`);
    return ((await response.json()) as { result: unknown }).result;
  }

  /** The slot's own secret in the store. */
  async slotSecret(slot = this.subject.of.slot): Promise<{ id: string; comment: string | null }> {
    const own = `${productionGateway}_${gatewaySlugs[this.subject.of.provider]}_${this.#alias(slot)}`;
    const found = (await this.secrets()).find(({ name }) => name === own);
    if (found === undefined) throw new Error("the slot's secret is not there");
    return found;
  }

  /** Edits a secret as somebody does in the dashboard. */
  async editSecret(id: string, change: { value?: string; comment?: string }): Promise<void> {
    await this.#cloudflare("PATCH", `${this.#store}/secrets/${id}`, change);
  }

  /** The key whose value the slot's secret holds, as the sandbox knows it. */
  async heldKey(slot = this.subject.of.slot): Promise<string> {
    return (await this.#played(slot))?.keyId ?? "none";
  }

  /** The keys that they hold. */
  async heldKeys(): Promise<string[]> {
    const held = await Promise.all(this.slots.map((slot) => this.heldKey(slot)));
    return held.filter((id) => id !== "none");
  }

  /** Ends the live keys that no slot holds, so that the next rotation here begins like a first one. */
  async endOtherKeys(): Promise<void> {
    const held = await this.heldKeys();
    for (const { id, state } of await this.keys()) {
      if (!held.includes(id) && state !== "revoked") await this.control(`/keys/${encodeURIComponent(id)}/expire`, {});
    }
  }

  /** The key that the run made or was handed last, where it is alive and in no slot yet or in the slot. */
  async newestKey(): Promise<string | undefined> {
    return (await this.keys()).filter(({ id, state }) => state === "active" && !this.keysBefore.includes(id)).at(-1)
      ?.id;
  }

  async values(): Promise<string[]> {
    return ((await this.control("/values")) as { values: { value: string }[] }).values.map(({ value }) => value);
  }

  async faults(faults: Record<string, unknown>[]): Promise<void> {
    await this.control("/faults", faults);
  }

  async clearFaults(): Promise<void> {
    for (const what of ["faults", "lies"]) await fetch(`${this.sandbox.control}/${what}`, { method: "DELETE" });
  }

  async control(path: string, body?: unknown): Promise<unknown> {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const response = await fetch(`${this.sandbox.control}${path}`, init);
    if (!response.ok) throw new Error(`the sandbox answered ${response.status} to ${path}: ${await response.text()}`);
    return response.json();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#attended;
    await this.#traffic?.stop();
    await this.#otherTraffic?.stop();
    await this.killWorker();
    await this.#connection?.close();
    await this.sandbox.close();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Asks until it is so; what is thrown meanwhile counts as not yet. */
export async function until(what: string, condition: () => Promise<boolean>, withinMs = 30_000): Promise<void> {
  let last: unknown;
  for (const deadline = Date.now() + withinMs; ; await delay(100)) {
    try {
      if (await condition()) return;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`, { cause: last });
  }
}
