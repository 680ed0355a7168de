import { defaultPayloadConverter, type Payload, TypedSearchAttributes } from "@temporalio/common";
import { msToTs, optionalTsToMs } from "@temporalio/common/lib/time.js";
import proto, { type coresdk, type temporal } from "@temporalio/proto";
import type { Workflow } from "@temporalio/worker/lib/workflow/interface.js";
import { ReusableVMWorkflowCreator } from "@temporalio/worker/lib/workflow/reusable-vm.js";
import { globalHandlers } from "@temporalio/worker/lib/workflow/vm-shared.js";

/**
 * The ground that stories are played on: the real workflow code in the SDK's own workflow isolate, without a server. What
 * Temporal's server and the SDK's core do is played here over a virtual clock that jumps to the next event: activations
 * and their commands, attempts of activities with their timeouts and retries, timers, children, signals, updates,
 * cancellation, continue-as-new. Several executions run at once, on one clock.
 */

type Job = coresdk.workflow_activation.WorkflowActivationJob.$Properties;
type Command = coresdk.workflow_commands.WorkflowCommand.$Properties;
type Failure = temporal.api.failure.v1.Failure.$Properties;
type ScheduleActivity = coresdk.workflow_commands.ScheduleActivity.$Properties;

/** A failure as an activity's interceptor makes it. */
export class PlayedFailure extends Error {
  readonly type: string;
  readonly nonRetryable: boolean;
  readonly details: unknown[] | undefined;
  readonly nextRetryDelayMs: number | undefined;

  constructor(
    type: string,
    message: string,
    {
      retried = false,
      details,
      nextRetryDelayMs,
    }: { retried?: boolean; details?: unknown[]; nextRetryDelayMs?: number } = {},
  ) {
    super(message);
    this.type = type;
    this.nonRetryable = !retried;
    this.details = details;
    this.nextRetryDelayMs = nextRetryDelayMs;
  }
}

/** The attempt heard of its cancellation and stopped. */
export class PlayedCancellation extends Error {
  readonly details: unknown[] | undefined;

  constructor(details?: unknown[]) {
    super("cancelled");
    this.details = details;
  }
}

/** The worker died at this point of the attempt: nothing of it goes on. */
export class WorkerDied extends Error {}

/** Something to wait for that is opened elsewhere. */
export class Gate<Value = unknown> {
  value: Value | undefined;
  isOpen = false;
  #waiting: (() => void)[] = [];

  open(value: Value): void {
    if (this.isOpen) return;
    this.isOpen = true;
    this.value = value;
    for (const go of this.#waiting.splice(0)) go();
  }

  then(go: () => void): void {
    if (this.isOpen) go();
    else this.#waiting.push(go);
  }
}

/** What an attempt waits for: milliseconds, or a gate. */
export type Pause = number | Gate;
export type Attempt = Generator<Pause, unknown, undefined>;

export interface AttemptContext {
  name: string;
  run: Run;
  /** From 1. */
  attempt: number;
  /** Counts the executions of this activity over the whole story, from 1. */
  nth: number;
  scheduledAt: number;
  startedAt: number;
  timeoutMs: number;
  /** Whether the worker heard that the activity is cancelled. */
  cancelled(): boolean;
  /** Cuts the worker of this attempt off: Temporal takes it for dead, and it goes on. */
  cutOff(): void;
}

export type PlayActivity = (context: AttemptContext, order: Record<string, unknown>) => Attempt;

export interface GroundListener {
  scheduled?(call: Call): void;
  attemptStarted?(call: Call): void;
  resolved?(call: Call): void;
  closed?(run: Run): void;
  started?(run: Run): void;
  phase?(run: Run): void;
  heard?(run: Run, what: string, arg: unknown): void;
}

/** One execution of an activity, for the account and the judge. */
export interface Call {
  name: string;
  run: Run;
  nth: number;
  order: Record<string, unknown>;
  scheduledAt: number;
  attempts: number;
  endedAt?: number;
  outcome?: "completed" | "failed" | "cancelled";
  result?: unknown;
  failure?: { type: string; message: string; details?: unknown };
}

interface Activity extends Call {
  seq: number;
  command: ScheduleActivity;
  cancelRequested: boolean;
  current: LiveAttempt | undefined;
  /** Told to the workflow: nothing of the attempts matters to it any more. */
  done: boolean;
  lastFailure: Failure | undefined;
  epoch: number;
}

interface LiveAttempt {
  generator: Attempt;
  /** The worker is gone: it is not driven any more. */
  dead: boolean;
  /** Temporal no longer listens to it. */
  ignored: boolean;
  cancelled: boolean;
  noticedAfterMs: number;
}

/** How an update was answered. */
export type Answer = Gate<{ value?: unknown; failure?: { type: string; message: string; details?: unknown } }>;

interface Update {
  id: string;
  name: string;
  gate: Answer;
}

/** One run of one workflow execution. */
export interface Run {
  workflowId: string;
  runId: string;
  type: string;
  input: unknown;
  number: number;
  startedAt: number;
  closedAt?: number;
  status: "open" | "completed" | "failed" | "cancelled" | "continued" | "terminated";
  result?: unknown;
  failure?: { type: string; message: string; details?: unknown };
  parent?: { run: Run; seq: number; policy: number; cancellation: number };
  firstRunId: string;
  continuedFrom?: Run;
  phase?: string;
  phases: string[];
  upserts: number;
  calls: Call[];
  /** When a signal, update or cancellation reached the workflow. */
  heard: { at: number; what: string; arg: unknown; answer?: Answer }[];
}

interface Live extends Run {
  workflow: Workflow | undefined;
  init: coresdk.workflow_activation.InitializeWorkflow.$Properties;
  seed: number;
  jobs: Job[];
  due: boolean;
  busy: boolean;
  timers: Map<number, Event>;
  activities: Map<number, Activity>;
  updates: Map<string, Update>;
  failureProto?: Failure;
  resultPayload?: Payload;
  history: number;
  recorded?: { jobs: Job[]; at: number; history: number; commands: string }[];
}

interface Event {
  at: number;
  order: number;
  go: (() => void | Promise<void>) | undefined;
}

const toPayload = (value: unknown): Payload => defaultPayloadConverter.toPayload(value);
const fromPayload = (payload: Payload | null | undefined): unknown =>
  payload == null ? undefined : defaultPayloadConverter.fromPayload(payload);

/** Compiles the bundle once; the isolate is reused by all executions, as the SDK's worker does it. */
export async function workflowIsolate(code: string): Promise<ReusableVMWorkflowCreator> {
  // Stacks by promise cost much, and no story reads them; a timeout would start a thread for each call.
  globalHandlers.installed = true;
  const sourceMap = { version: 3, file: "workflows.js", sources: [], names: [], mappings: "" };
  const bundle = {
    code: code.replace(/\n\/\/# sourceMappingURL=data:.*\s*$/, ""),
    filename: "/workflows.js",
    sourceMap,
  };
  return ReusableVMWorkflowCreator.create(bundle as never, undefined as never, new Set<string>());
}

export class TaskFailed extends Error {}

export class Ground {
  now: number;
  readonly runs: Live[] = [];
  readonly calls: Call[] = [];
  /** Times in which no worker lives. */
  readonly outages: { from: number; to: number }[] = [];
  readonly #isolate: ReusableVMWorkflowCreator;
  readonly #play: PlayActivity;
  readonly #random: () => number;
  readonly #listener: GroundListener;
  readonly #record: boolean;
  #heap: Event[] = [];
  #order = 0;
  #nth = new Map<string, number>();
  #dirty: Live[] = [];
  /** How long a workflow task may wait for a worker, at most: then more comes in one activation. */
  taskLatencyMs = 20;

  constructor({
    isolate,
    play,
    random,
    start,
    listener = {},
    record = false,
  }: {
    isolate: ReusableVMWorkflowCreator;
    play: PlayActivity;
    random: () => number;
    start: number;
    listener?: GroundListener;
    record?: boolean;
  }) {
    this.#isolate = isolate;
    this.#play = play;
    this.#random = random;
    this.#listener = listener;
    this.#record = record;
    this.now = start;
  }

  // ---- the clock ----------------------------------------------------------------------------------------------

  at(time: number, go: () => void | Promise<void>): Event {
    const event: Event = { at: Math.max(time, this.now), order: this.#order++, go };
    const heap = this.#heap;
    heap.push(event);
    for (let i = heap.length - 1; i > 0;) {
      const up = (i - 1) >> 1;
      if (!before(heap[i] as Event, heap[up] as Event)) break;
      [heap[i], heap[up]] = [heap[up] as Event, heap[i] as Event];
      i = up;
    }
    return event;
  }

  after(ms: number, go: () => void | Promise<void>): Event {
    return this.at(this.now + ms, go);
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    heap[0] = last;
    for (let i = 0; ;) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2]) {
        if (child < heap.length && before(heap[child] as Event, heap[least] as Event)) least = child;
      }
      if (least === i) break;
      [heap[i], heap[least]] = [heap[least] as Event, heap[i] as Event];
      i = least;
    }
    return top;
  }

  get openRuns(): Run[] {
    return this.runs.filter(({ status }) => status === "open");
  }

  /** Plays until nothing is left to happen, `done` says so, or the time is up. */
  async play({
    until,
    most,
    done,
  }: {
    until: number;
    most: number;
    done?: () => boolean;
  }): Promise<"over" | "late" | "busy"> {
    for (let events = 0; ; events++) {
      if (done?.() === true) return "over";
      const event = this.#pop();
      if (event === undefined) return "over";
      if (event.at > until) {
        this.now = until;
        return "late";
      }
      if (events > most) return "busy";
      this.now = event.at;
      await event.go?.();
      while (this.#dirty.length > 0) {
        const live = this.#dirty.shift() as Live;
        await this.#activate(live);
      }
    }
  }

  workersUp(at: number): number {
    for (const { from, to } of this.outages) if (at >= from && at < to) return this.workersUp(to);
    return at;
  }

  /** All workers die now and are back later. */
  killWorkers(ms: number): void {
    this.outages.push({ from: this.now, to: this.now + ms });
    for (const live of this.runs) {
      for (const activity of live.activities.values()) {
        if (activity.current !== undefined) this.#died(activity, activity.current);
      }
    }
  }

  // ---- what clients do ----------------------------------------------------------------------------------------

  /** The open run of the id, else the last one. */
  find(workflowId: string): Run | undefined {
    return this.#find(workflowId);
  }

  #find(workflowId: string): Live | undefined {
    let last: Live | undefined;
    for (const live of this.runs) {
      if (live.workflowId !== workflowId) continue;
      if (live.status === "open") return live;
      last = live;
    }
    return last;
  }

  /** Starts a workflow; nothing where the id is taken. */
  start(workflowId: string, type: string, input: unknown): Run | undefined {
    if (this.#find(workflowId)?.status === "open") return undefined;
    return this.#start({ workflowId, type, args: [toPayload(input)] });
  }

  #start({
    workflowId,
    type,
    args,
    parent,
    continuedFrom,
  }: {
    workflowId: string;
    type: string;
    args: Payload[];
    parent?: Run["parent"] | undefined;
    continuedFrom?: Live | undefined;
  }): Live {
    const number = this.runs.length + 1;
    const runId = `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
    const firstRunId = continuedFrom?.firstRunId ?? runId;
    const live: Live = {
      workflowId,
      runId,
      type,
      input: fromPayload(args[0]),
      number,
      startedAt: this.now,
      status: "open",
      ...(parent === undefined ? {} : { parent }),
      firstRunId,
      ...(continuedFrom === undefined ? {} : { continuedFrom }),
      phases: [],
      upserts: 0,
      calls: [],
      heard: [],
      workflow: undefined,
      seed: Math.floor(this.#random() * 2 ** 31) + number,
      init: {
        workflowType: type,
        workflowId,
        arguments: args,
        headers: {},
        identity: "story",
        firstExecutionRunId: firstRunId,
        originalExecutionRunId: runId,
        attempt: 1,
        startTime: msToTs(this.now),
        workflowTaskTimeout: msToTs(10_000),
        ...(continuedFrom === undefined ? {} : { continuedFromExecutionRunId: continuedFrom.runId }),
        ...(parent === undefined
          ? {}
          : {
              parentWorkflowInfo: {
                namespace: "default",
                workflowId: parent.run.workflowId,
                runId: parent.run.runId,
              },
            }),
      },
      jobs: [],
      due: false,
      busy: false,
      timers: new Map(),
      activities: new Map(),
      updates: new Map(),
      history: 3,
      ...(this.#record ? { recorded: [] } : {}),
    };
    this.runs.push(live);
    this.#listener.started?.(live);
    this.#add(live, { initializeWorkflow: live.init });
    return live;
  }

  signal(workflowId: string, name: string, arg: unknown): boolean {
    const live = this.#find(workflowId);
    if (live?.status !== "open") return false;
    this.#add(live, { signalWorkflow: { signalName: name, input: [toPayload(arg)], headers: {}, identity: "story" } });
    this.#hear(live, { what: name, arg });
    return true;
  }

  cancel(workflowId: string): boolean {
    const live = this.#find(workflowId);
    if (live?.status !== "open") return false;
    this.#add(live, { cancelWorkflow: { reason: "story" } });
    this.#hear(live, { what: "cancel", arg: undefined });
    return true;
  }

  /** Sends an update; the gate opens with its value, its failure, or the news that the run is gone. */
  update(workflowId: string, name: string, arg: unknown, runId?: string): Answer {
    const gate: Answer = new Gate();
    const live = this.#find(workflowId);
    if (live?.status !== "open" || (runId !== undefined && live.runId !== runId)) {
      gate.open({ failure: { type: "NotFound", message: `no open run of ${workflowId}` } });
      return gate;
    }
    const id = `update-${this.#order++}`;
    live.updates.set(id, { id, name, gate });
    this.#hear(live, { what: name, arg, answer: gate });
    this.#add(live, {
      doUpdate: {
        id,
        protocolInstanceId: id,
        name,
        input: [toPayload(arg)],
        headers: {},
        meta: { identity: "story", updateId: id },
        runValidator: true,
      },
    });
    return gate;
  }

  #hear(live: Live, heard: { what: string; arg: unknown; answer?: Answer }): void {
    live.heard.push({ at: this.now, ...heard });
    this.#listener.heard?.(live, heard.what, heard.arg);
  }

  /** Asks a query of the run as it stands now; nothing where it fails. */
  async query(workflowId: string, name: string): Promise<unknown> {
    const live = this.#find(workflowId);
    if (live?.workflow === undefined) return undefined;
    const activation = proto.coresdk.workflow_activation.WorkflowActivation.fromObject({
      runId: live.runId,
      timestamp: msToTs(this.now),
      isReplaying: false,
      historyLength: live.history,
      jobs: [{ queryWorkflow: { queryId: "q", queryType: name, arguments: [], headers: {} } }],
    });
    const completion = await live.workflow.activate(activation);
    for (const command of completion.successful?.commands ?? []) {
      const answer = command.respondToQuery?.succeeded;
      if (answer != null) return fromPayload(answer.response as Payload);
    }
    return undefined;
  }

  // ---- activations --------------------------------------------------------------------------------------------

  #add(live: Live, job: Job): void {
    if (live.status !== "open") return;
    live.jobs.push(job);
    live.history += 2;
    if (live.due) return;
    live.due = true;
    const latency = Math.floor(this.#random() * this.taskLatencyMs);
    this.at(this.workersUp(this.now + latency), () => {
      const up = this.workersUp(this.now);
      const go = (): void => {
        live.due = false;
        this.#dirty.push(live);
      };
      if (up === this.now) go();
      else this.at(up, go);
    });
  }

  async #activate(live: Live): Promise<void> {
    if (live.status !== "open" || live.jobs.length === 0) return;
    const jobs = inOrder(live.jobs);
    live.jobs = [];
    live.workflow ??= await this.#isolate.createWorkflow(this.#options(live));
    const completion = await live.workflow.activate(activationOf(live, jobs, this.now, live.history));
    if (completion.failed != null) {
      throw new TaskFailed(
        `a workflow task of ${live.workflowId} fails for ever: ${completion.failed.failure?.message} ${completion.failed.failure?.stackTrace}`,
      );
    }
    const commands = completion.successful?.commands ?? [];
    live.recorded?.push({ jobs, at: this.now, history: live.history, commands: comparable(commands) });
    live.history += commands.length;
    for (const command of commands) await this.#carryOut(live, command);
  }

  #options(live: Live): Parameters<ReusableVMWorkflowCreator["createWorkflow"]>[0] {
    const { parent } = live;
    const of = { namespace: "default" };
    const options = {
      info: {
        workflowId: live.workflowId,
        runId: live.runId,
        workflowType: live.type,
        searchAttributes: {},
        typedSearchAttributes: new TypedSearchAttributes(),
        parent:
          parent === undefined ? undefined : { ...of, workflowId: parent.run.workflowId, runId: parent.run.runId },
        root: undefined,
        taskQueue: "keyturn",
        namespace: "default",
        firstExecutionRunId: live.firstRunId,
        originalExecutionRunId: live.runId,
        continuedFromExecutionRunId: live.continuedFrom?.runId,
        startTime: new Date(live.startedAt),
        runStartTime: new Date(live.startedAt),
        executionTimeoutMs: undefined,
        executionExpirationTime: undefined,
        runTimeoutMs: undefined,
        taskTimeoutMs: 10_000,
        retryPolicy: undefined,
        attempt: 1,
        cronSchedule: undefined,
        cronScheduleToScheduleInterval: undefined,
        historyLength: 3,
        historySize: 0,
        continueAsNewSuggested: false,
        targetWorkerDeploymentVersionChanged: false,
        suggestedContinueAsNewReasons: [],
        currentBuildId: "",
        currentDeploymentVersion: undefined,
        unsafe: {
          now: () => this.now,
          isReplaying: false,
          isReplayingHistoryEvents: false,
          random: { random: () => 0.5 },
        },
        priority: {},
      },
      randomnessSeed: [live.seed & 255, (live.seed >> 8) & 255, (live.seed >> 16) & 255, live.number & 255, 0, 0, 0, 1],
      now: this.now,
      showStackTraceSources: false,
      failureExceptionTypeNames: [],
    };
    return options as unknown as Parameters<ReusableVMWorkflowCreator["createWorkflow"]>[0];
  }

  async #carryOut(live: Live, command: Command): Promise<void> {
    const {
      startTimer,
      cancelTimer,
      scheduleActivity,
      requestCancelActivity,
      startChildWorkflowExecution,
      cancelChildWorkflowExecution,
      signalExternalWorkflowExecution,
      requestCancelExternalWorkflowExecution,
      upsertWorkflowSearchAttributes,
      updateResponse,
    } = command;
    if (startTimer != null) {
      const seq = startTimer.seq ?? 0;
      const ms = optionalTsToMs(startTimer.startToFireTimeout) ?? 0;
      live.timers.set(
        seq,
        this.after(ms, () => {
          live.timers.delete(seq);
          this.#add(live, { fireTimer: { seq } });
        }),
      );
    } else if (cancelTimer != null) {
      const seq = cancelTimer.seq ?? 0;
      const event = live.timers.get(seq);
      if (event !== undefined) event.go = undefined;
      live.timers.delete(seq);
      live.jobs = live.jobs.filter(({ fireTimer }) => fireTimer?.seq !== seq);
    } else if (scheduleActivity != null) this.#schedule(live, scheduleActivity);
    else if (requestCancelActivity != null) this.#cancelActivity(live, requestCancelActivity.seq ?? 0);
    else if (startChildWorkflowExecution != null) this.#startChild(live, startChildWorkflowExecution);
    else if (cancelChildWorkflowExecution != null)
      this.#cancelChild(live, cancelChildWorkflowExecution.childWorkflowSeq ?? 0);
    else if (signalExternalWorkflowExecution != null) {
      const { seq, workflowExecution, childWorkflowId, signalName, args } = signalExternalWorkflowExecution;
      const workflowId = childWorkflowId || workflowExecution?.workflowId || "";
      this.after(1 + Math.floor(this.#random() * 20), () => {
        const reached = this.signal(workflowId, signalName ?? "", fromPayload(args?.[0] as Payload));
        const failure = reached
          ? {}
          : { failure: application("ExternalWorkflowExecutionNotFound", `no open run of ${workflowId}`, true) };
        this.#add(live, { resolveSignalExternalWorkflow: { seq: seq ?? 0, ...failure } });
      });
    } else if (requestCancelExternalWorkflowExecution != null) {
      const { seq, workflowExecution } = requestCancelExternalWorkflowExecution;
      this.after(5, () => {
        this.cancel(workflowExecution?.workflowId ?? "");
        this.#add(live, { resolveRequestCancelExternalWorkflow: { seq: seq ?? 0 } });
      });
    } else if (upsertWorkflowSearchAttributes != null) {
      live.upserts++;
      const fields = upsertWorkflowSearchAttributes.searchAttributes as
        | { indexedFields?: Record<string, Payload>; [name: string]: unknown }
        | undefined;
      const phase = fields?.indexedFields?.["KeyturnPhase"] ?? (fields?.["KeyturnPhase"] as Payload | undefined);
      const said = fromPayload(phase);
      if (said !== undefined) {
        live.phase = String(Array.isArray(said) ? said[0] : said);
        live.phases.push(live.phase);
        this.#listener.phase?.(live);
      }
    } else if (updateResponse != null) {
      const id = updateResponse.protocolInstanceId ?? "";
      const update = live.updates.get(id);
      if (update !== undefined && updateResponse.accepted == null) {
        live.updates.delete(id);
        if (updateResponse.rejected != null) update.gate.open({ failure: readFailure(updateResponse.rejected) });
        else update.gate.open({ value: fromPayload(updateResponse.completed as Payload) });
      }
    } else if (command.completeWorkflowExecution != null) {
      const { result } = command.completeWorkflowExecution;
      if (result != null) live.resultPayload = result as Payload;
      live.result = fromPayload(result as Payload);
      await this.#close(live, "completed");
    } else if (command.failWorkflowExecution != null) {
      const { failure } = command.failWorkflowExecution;
      live.failureProto = failure ?? {};
      live.failure = readFailure(failure);
      await this.#close(live, "failed");
    } else if (command.cancelWorkflowExecution != null) await this.#close(live, "cancelled");
    else if (command.continueAsNewWorkflowExecution != null) {
      const { workflowType, arguments: args } = command.continueAsNewWorkflowExecution;
      await this.#close(live, "continued");
      this.#start({
        workflowId: live.workflowId,
        type: workflowType || live.type,
        args: (args ?? []) as Payload[],
        parent: live.parent,
        continuedFrom: live,
      });
    }
  }

  async #close(live: Live, status: Run["status"]): Promise<void> {
    if (live.status !== "open") return;
    live.status = status;
    live.closedAt = this.now;
    for (const event of live.timers.values()) event.go = undefined;
    for (const activity of live.activities.values()) {
      activity.done = true;
      if (activity.current !== undefined) {
        activity.current.ignored = true;
        this.#tellCancelled(activity.current);
      }
    }
    for (const { gate } of live.updates.values()) {
      gate.open({ failure: { type: "AcceptedUpdateCompletedWorkflow", message: "the run ended before the update" } });
    }
    await live.workflow?.dispose();
    live.workflow = undefined;
    this.#listener.closed?.(live);
    if (status === "continued") return;
    for (const child of this.runs) {
      if (child.parent?.run !== live || child.status !== "open") continue;
      if (child.parent.policy === 1) await this.#close(child, "terminated");
      else if (child.parent.policy === 3) this.cancel(child.workflowId);
    }
    const { parent } = live;
    if (parent === undefined) return;
    // The parent may itself have gone on as new: then it no longer waits.
    this.after(1 + Math.floor(this.#random() * 10), () =>
      this.#add(parent.run as Live, {
        resolveChildWorkflowExecution: { seq: parent.seq, result: childResult(live) },
      }),
    );
  }

  // ---- children -----------------------------------------------------------------------------------------------

  #startChild(live: Live, command: coresdk.workflow_commands.StartChildWorkflowExecution.$Properties): void {
    const { seq, workflowId, workflowType, input, parentClosePolicy, cancellationType } = command;
    this.after(1 + Math.floor(this.#random() * 20), () => {
      if (live.status !== "open") return;
      const taken = this.#find(workflowId ?? "");
      if (taken?.status === "open") {
        this.#add(live, {
          resolveChildWorkflowExecutionStart: {
            seq: seq ?? 0,
            failed: { workflowId: workflowId ?? "", workflowType: workflowType ?? "", cause: 1 },
          },
        });
        return;
      }
      const child = this.#start({
        workflowId: workflowId ?? "",
        type: workflowType ?? "",
        args: (input ?? []) as Payload[],
        parent: { run: live, seq: seq ?? 0, policy: parentClosePolicy ?? 1, cancellation: cancellationType ?? 2 },
      });
      this.#add(live, { resolveChildWorkflowExecutionStart: { seq: seq ?? 0, succeeded: { runId: child.runId } } });
    });
  }

  #cancelChild(live: Live, seq: number): void {
    const child = this.runs.find(
      ({ parent, status }) => parent?.run === live && parent.seq === seq && status === "open",
    );
    if (child === undefined) return;
    const cancellation = child.parent?.cancellation;
    if (cancellation !== 0) this.cancel(child.workflowId);
    if (cancellation === 0 || cancellation === 1) {
      delete (child as Run).parent;
      this.#add(live, {
        resolveChildWorkflowExecution: {
          seq,
          result: {
            cancelled: {
              failure: {
                message: "Child Workflow execution cancelled",
                cause: { message: "cancelled", canceledFailureInfo: {} },
                childWorkflowExecutionFailureInfo: {},
              },
            },
          },
        },
      });
    }
  }

  // ---- activities ---------------------------------------------------------------------------------------------

  #schedule(live: Live, command: ScheduleActivity): void {
    const name = command.activityType ?? "";
    const nth = (this.#nth.get(name) ?? 0) + 1;
    this.#nth.set(name, nth);
    const activity: Activity = {
      name,
      run: live,
      nth,
      order: (fromPayload((command.arguments ?? [])[0] as Payload) ?? {}) as Record<string, unknown>,
      scheduledAt: this.now,
      attempts: 0,
      seq: command.seq ?? 0,
      command,
      cancelRequested: false,
      current: undefined,
      done: false,
      lastFailure: undefined,
      epoch: 0,
    };
    live.activities.set(activity.seq, activity);
    live.calls.push(activity);
    this.calls.push(activity);
    this.#listener.scheduled?.(activity);
    const closeMs = optionalTsToMs(command.scheduleToCloseTimeout) ?? 0;
    if (closeMs > 0) this.after(closeMs, () => this.#timeOut(activity, 2));
    this.after(1 + Math.floor(this.#random() * 15), () => this.#attempt(activity, activity.epoch));
  }

  #attempt(activity: Activity, epoch: number): void {
    if (activity.done || activity.epoch !== epoch) return;
    const up = this.workersUp(this.now);
    if (up > this.now) {
      this.at(up + Math.floor(this.#random() * 500), () => this.#attempt(activity, epoch));
      return;
    }
    activity.attempts++;
    const timeoutMs =
      (optionalTsToMs(activity.command.startToCloseTimeout) ?? 0) ||
      (optionalTsToMs(activity.command.scheduleToCloseTimeout) ?? 0);
    const heartbeatMs = optionalTsToMs(activity.command.heartbeatTimeout) ?? 0;
    const live: LiveAttempt = {
      generator: undefined as never,
      dead: false,
      ignored: false,
      cancelled: false,
      noticedAfterMs: heartbeatMs || timeoutMs,
    };
    activity.current = live;
    const { attempts } = activity;
    const context: AttemptContext = {
      name: activity.name,
      run: activity.run,
      attempt: attempts,
      nth: activity.nth,
      scheduledAt: activity.scheduledAt,
      startedAt: this.now,
      timeoutMs,
      cancelled: () => live.cancelled,
      cutOff: () => {
        live.ignored = true;
        this.after(heartbeatMs || timeoutMs, () => {
          if (activity.current === live) this.#attemptTimedOut(activity, live, heartbeatMs > 0 ? 4 : 1);
        });
      },
    };
    this.#listener.attemptStarted?.(activity);
    live.generator = this.#play(context, activity.order);
    if (timeoutMs > 0) {
      this.after(timeoutMs, () => {
        if (activity.current === live) this.#attemptTimedOut(activity, live, 1);
      });
    }
    this.#drive(activity, live);
  }

  /** The worker of the attempt is dead; Temporal sees it when its sign of life is missed. */
  #died(activity: Activity, live: LiveAttempt): void {
    if (live.dead) return;
    live.dead = true;
    if (live.ignored) return;
    this.after(live.noticedAfterMs, () => {
      if (activity.current === live) this.#attemptTimedOut(activity, live, 4);
    });
  }

  #drive(activity: Activity, live: LiveAttempt): void {
    if (live.dead) return;
    let next: IteratorResult<Pause, unknown>;
    try {
      next = live.generator.next();
    } catch (error) {
      if (error instanceof WorkerDied) {
        this.#died(activity, live);
        return;
      }
      if (!live.ignored && activity.current === live) this.#attemptFailed(activity, live, error);
      return;
    }
    if (next.done === true) {
      if (!live.ignored && activity.current === live) this.#finish(activity, { completed: next.value });
      return;
    }
    if (typeof next.value === "number") this.after(next.value, () => this.#drive(activity, live));
    else next.value.then(() => this.after(1, () => this.#drive(activity, live)));
  }

  #attemptTimedOut(activity: Activity, live: LiveAttempt, timeoutType: number): void {
    if (activity.done) return;
    live.ignored = true;
    activity.current = undefined;
    this.#tellCancelled(live);
    this.#retryOr(activity, { message: "activity timed out", timeoutFailureInfo: { timeoutType } }, undefined);
  }

  /** The worker of an attempt that Temporal gave up on hears of it with its next sign of life, if it can. */
  #tellCancelled(live: LiveAttempt): void {
    this.after(2_000, () => {
      live.cancelled = true;
    });
  }

  #attemptFailed(activity: Activity, live: LiveAttempt, error: unknown): void {
    activity.current = undefined;
    if (error instanceof PlayedCancellation && (activity.cancelRequested || live.cancelled)) {
      this.#finish(activity, { cancelled: error.details ?? [] });
      return;
    }
    if (!(error instanceof PlayedFailure)) throw error;
    const failure = application(error.type, error.message, error.nonRetryable, error.details);
    if (error.nonRetryable) this.#finish(activity, { failed: failure });
    else this.#retryOr(activity, failure, error.nextRetryDelayMs);
  }

  #retryOr(activity: Activity, failure: Failure, delayMs: number | undefined): void {
    const policy = activity.command.retryPolicy ?? {};
    const most = policy.maximumAttempts ?? 0;
    const initial = optionalTsToMs(policy.initialInterval) || 1_000;
    const coefficient = policy.backoffCoefficient || 2;
    const longest = optionalTsToMs(policy.maximumInterval) || initial * 100;
    const type = failure.applicationFailureInfo?.type ?? "";
    const timedOut = failure.timeoutFailureInfo != null;
    const wrapped =
      timedOut && activity.lastFailure !== undefined ? { ...failure, cause: activity.lastFailure } : failure;
    if (!timedOut) activity.lastFailure = failure;
    if (
      activity.cancelRequested ||
      (most > 0 && activity.attempts >= most) ||
      (policy.nonRetryableErrorTypes ?? []).includes(type)
    ) {
      this.#finish(activity, { failed: wrapped });
      return;
    }
    const ms = delayMs ?? Math.min(initial * coefficient ** (activity.attempts - 1), longest);
    const closeMs = optionalTsToMs(activity.command.scheduleToCloseTimeout) ?? 0;
    if (closeMs > 0 && this.now + ms > activity.scheduledAt + closeMs) {
      this.#finish(activity, {
        failed: {
          message: "Not enough time to schedule next retry before activity ScheduleToClose timeout, giving up retrying",
          timeoutFailureInfo: { timeoutType: 2 },
          cause: wrapped,
        },
      });
      return;
    }
    const epoch = ++activity.epoch;
    this.after(Math.max(1, ms), () => this.#attempt(activity, epoch));
  }

  #timeOut(activity: Activity, timeoutType: number): void {
    if (activity.done) return;
    if (activity.current !== undefined) {
      activity.current.ignored = true;
      this.#tellCancelled(activity.current);
    }
    const cause = activity.lastFailure === undefined ? {} : { cause: activity.lastFailure };
    this.#finish(activity, {
      failed: { message: "activity timed out", timeoutFailureInfo: { timeoutType }, ...cause },
    });
  }

  #cancelActivity(live: Live, seq: number): void {
    const activity = live.activities.get(seq);
    if (activity === undefined || activity.done || activity.cancelRequested) return;
    activity.cancelRequested = true;
    const { current } = activity;
    const type = activity.command.cancellationType ?? 0;
    if (current !== undefined) {
      // The worker hears of it with its next sign of life.
      this.after(500 + Math.floor(this.#random() * 1_500), () => {
        current.cancelled = true;
      });
    }
    if (type === 0 || type === 2) {
      if (current !== undefined) current.ignored = true;
      this.#finish(activity, { cancelled: [] });
    } else if (current === undefined) {
      this.after(3, () => {
        if (!activity.done) this.#finish(activity, { cancelled: [] });
      });
    }
  }

  #finish(activity: Activity, end: { completed: unknown } | { failed: Failure } | { cancelled: unknown[] }): void {
    if (activity.done) return;
    activity.done = true;
    activity.current = undefined;
    activity.epoch++;
    activity.endedAt = this.now;
    const info = {
      activityFailureInfo: {
        activityType: { name: activity.name },
        activityId: activity.command.activityId ?? "",
        identity: "story",
      },
    };
    let result: coresdk.activity_result.ActivityResolution.$Properties;
    if ("completed" in end) {
      activity.outcome = "completed";
      activity.result = end.completed;
      result = { completed: end.completed === undefined ? {} : { result: toPayload(end.completed) } };
    } else if ("failed" in end) {
      activity.outcome = "failed";
      activity.failure = readFailure(end.failed);
      result = { failed: { failure: { message: "Activity task failed", cause: end.failed, ...info } } };
    } else {
      activity.outcome = "cancelled";
      const details = end.cancelled.length === 0 ? {} : { details: { payloads: end.cancelled.map(toPayload) } };
      if (end.cancelled.length > 0)
        activity.failure = { type: "Cancelled", message: "cancelled", details: end.cancelled };
      const cause = { message: "Activity cancelled", canceledFailureInfo: details };
      result = { cancelled: { failure: { message: "Activity cancelled", cause, ...info } } };
    }
    this.#listener.resolved?.(activity);
    this.#add(activity.run as Live, { resolveActivity: { seq: activity.seq, result } });
  }

  // ---- determinism --------------------------------------------------------------------------------------------

  /** Replays what each run was told in another isolate; says where the commands differ. */
  async replays(): Promise<string[]> {
    const differences: string[] = [];
    for (const live of this.runs) {
      if (live.recorded === undefined || live.recorded.length === 0) continue;
      const now = this.now;
      this.now = live.recorded[0]?.at ?? now;
      const workflow = await this.#isolate.createWorkflow(this.#options(live));
      this.now = now;
      for (const [index, { jobs, at, history, commands }] of live.recorded.entries()) {
        const completion = await workflow.activate(activationOf(live, jobs, at, history));
        const again = comparable(completion.successful?.commands ?? []);
        if (again === commands) continue;
        differences.push(`${live.workflowId}: activation ${index} differs in replay`);
        break;
      }
      await workflow.dispose();
    }
    return differences;
  }

  async stop(): Promise<void> {
    for (const live of this.runs) {
      await live.workflow?.dispose();
      live.workflow = undefined;
    }
  }
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Core's order of jobs: the start, then what was said, then what came back. */
function inOrder(jobs: Job[]): Job[] {
  const rank = ({ initializeWorkflow, signalWorkflow, doUpdate }: Job): number =>
    initializeWorkflow != null ? 0 : signalWorkflow != null || doUpdate != null ? 1 : 2;
  return jobs
    .map((job, index) => ({ job, index }))
    .toSorted((a, b) => rank(a.job) - rank(b.job) || a.index - b.index)
    .map(({ job }) => job);
}

function activationOf(live: Run, jobs: Job[], at: number, historyLength: number) {
  return proto.coresdk.workflow_activation.WorkflowActivation.create({
    runId: live.runId,
    timestamp: msToTs(at),
    isReplaying: false,
    historyLength,
    jobs,
  });
}

function comparable(commands: Command[]): string {
  return JSON.stringify(commands, (key, value: unknown) =>
    key === "stackTrace" ? undefined : value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value,
  );
}

function application(type: string, message: string, nonRetryable: boolean, details?: unknown[]): Failure {
  return {
    message,
    source: "TypeScriptSDK",
    applicationFailureInfo: {
      type,
      nonRetryable,
      ...(details === undefined ? {} : { details: { payloads: details.map(toPayload) } }),
    },
  };
}

function readFailure(failure: Failure | null | undefined): { type: string; message: string; details?: unknown } {
  let inner = failure ?? {};
  while (inner.cause != null && inner.applicationFailureInfo == null && inner.timeoutFailureInfo == null)
    inner = inner.cause;
  const info = inner.applicationFailureInfo;
  const type = info?.type ?? (inner.timeoutFailureInfo == null ? "Unexpected" : "Timeout");
  const [details] = (info?.details?.payloads ?? []) as Payload[];
  return { type, message: inner.message ?? "", ...(details === undefined ? {} : { details: fromPayload(details) }) };
}

function childResult(live: Live): coresdk.child_workflow.ChildWorkflowResult.$Properties {
  const info = {
    childWorkflowExecutionFailureInfo: {
      namespace: "default",
      workflowExecution: { workflowId: live.workflowId, runId: live.runId },
      workflowType: { name: live.type },
    },
  };
  switch (live.status) {
    case "completed":
      return { completed: live.resultPayload === undefined ? {} : { result: live.resultPayload } };
    case "failed":
      return {
        failed: {
          failure: { message: "Child Workflow execution failed", cause: live.failureProto ?? {}, ...info },
        },
      };
    case "cancelled":
      return {
        cancelled: {
          failure: {
            message: "Child Workflow execution cancelled",
            cause: { message: "cancelled", canceledFailureInfo: {} },
            ...info,
          },
        },
      };
    case "open":
    case "continued":
    case "terminated":
      return {
        failed: {
          failure: {
            message: "Child Workflow execution failed",
            cause: { message: "terminated", terminatedFailureInfo: {} },
            ...info,
          },
        },
      };
  }
}
