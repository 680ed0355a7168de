/** The outside world, played: one process, real HTTP, real state, the wall clock. See docs/sandbox.md. */
import { createAnthropicState } from "./anthropic-state.ts";
import { anthropicUpstream } from "./anthropic-upstream.ts";
import { createAnthropic } from "./anthropic.ts";
import { createClock } from "./clock.ts";
import { bindingAt, createCloudflareState } from "./cloudflare-state.ts";
import { createCloudflare } from "./cloudflare.ts";
import { createControl } from "./control.ts";
import { createEdges } from "./edges.ts";
import type { Exchange, Service } from "./exchange.ts";
import { createExchange } from "./exchange.ts";
import { createFaults } from "./faults.ts";
import { createGateway } from "./gateway.ts";
import { geminiUpstream } from "./gemini-upstream.ts";
import { createGemini } from "./gemini.ts";
import { createApiKeys } from "./google-apikeys.ts";
import { createMonitoring } from "./google-monitoring.ts";
import { createGoogleState } from "./google-state.ts";
import { createKeys } from "./keys.ts";
import { createLies } from "./lies.ts";
import { createOpenAiState } from "./openai-state.ts";
import { openAiUpstream } from "./openai-upstream.ts";
import { createOpenAi } from "./openai.ts";
import type { SandboxOptions } from "./options.ts";
import { settingsOf } from "./options.ts";
import { chance, hexId } from "./random.ts";
import { createRecorder } from "./record.ts";
import { plant } from "./seed.ts";
import type { Listening } from "./server.ts";
import { listen } from "./server.ts";
import { createUsage } from "./usage.ts";

export type { EdgeOptions, SandboxOptions, UsageLag } from "./options.ts";
export type { ExchangeEvent, ExchangeHook } from "./exchange.ts";
export { anthropicSpendLimit } from "./anthropic-errors.ts";
export { geminiLocation } from "./google-errors.ts";
export { insufficientQuota } from "./openai.ts";

export interface Sandbox {
  /** Address of the control calls. */
  control: string;
  /** Points keyturn, or a vendor's SDK, at the sandbox. Holds credentials. */
  env: Record<string, string>;
  /** Ids and further credentials of what is there at the start. */
  seed: Record<string, string>;
  /** Closes all ports and connections; safe to call again. */
  close(): Promise<void>;
}

/** Starts the sandbox on free ports (or those of `options.ports`); rejects where a port is taken. */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const settings = settingsOf(options);
  const clock = createClock(settings.timeScale);
  const keys = createKeys(clock);
  const faults = createFaults();
  const lies = createLies(clock, chance(settings.seed));
  const record = createRecorder({ clock, keys, trafficLog: settings.trafficLog });
  const exchange = createExchange({ faults, record, clock, hook: settings.hooks });
  const state = createCloudflareState(hexId());
  const openaiState = createOpenAiState();
  const anthropicState = createAnthropicState();
  const googleState = createGoogleState();
  const seed = plant({
    cloudflare: state,
    openai: openaiState,
    anthropic: anthropicState,
    google: googleState,
    keys,
    clock,
  });

  const openaiUsage = createUsage({ clock, settings, provider: "openai" });
  const openai = createOpenAi({
    state: openaiState,
    settings,
    clock,
    keys,
    lies,
    usage: openaiUsage,
    chance: chance(settings.seed),
  });
  const anthropic = createAnthropic({
    state: anthropicState,
    settings,
    clock,
    keys,
    lies,
    usage: createUsage({ clock, settings, provider: "anthropic" }),
    chance: chance(settings.seed),
  });
  const googleParts = {
    state: googleState,
    settings,
    clock,
    keys,
    lies,
    usage: createUsage({ clock, settings, provider: "google" }),
    chance: chance(settings.seed),
  };
  const gemini = createGemini(googleParts);
  const edges = createEdges(settings.edges, clock, (name, moment) =>
    bindingAt(state, settings.configNeeded, name, moment),
  );
  const gateway = createGateway({
    state,
    settings,
    clock,
    edges,
    exchange,
    keys,
    record,
    upstreams: [openAiUpstream(openai, clock), anthropicUpstream(anthropic, clock), geminiUpstream(gemini, clock)],
  });

  const open: Listening[] = [];
  const close = async (): Promise<void> => {
    clock.stop();
    await Promise.all(open.map((listening) => listening.close()));
  };
  const start = async (service: Service, through: Exchange): Promise<string> => {
    const port = settings.ports[service.name] ?? 0;
    const listening = await listen(service, through, { host: settings.host, port });
    open.push(listening);
    return listening.origin;
  };
  // The control address meets no faults and tells no hooks.
  const plain = createExchange({ faults: createFaults(), record, clock, hook: undefined });
  const env: Record<string, string> = {};
  try {
    const gatewayOrigin = await start(gateway, exchange);
    const cloudflareOrigin = await start(
      createCloudflare({ state, settings, clock, edges, lies, gatewayOrigin: () => gatewayOrigin }),
      exchange,
    );
    const openaiOrigin = await start(openai, exchange);
    const anthropicOrigin = await start(anthropic, exchange);
    const apiKeysOrigin = await start(createApiKeys(googleParts), exchange);
    const geminiOrigin = await start(gemini, exchange);
    const monitoringOrigin = await start(createMonitoring(googleParts), exchange);
    Object.assign(env, {
      CLOUDFLARE_ACCOUNT_ID: state.accountId,
      CLOUDFLARE_API_TOKEN: seed["controlToken"],
      CLOUDFLARE_GATEWAY_TOKEN: seed["runToken"],
      CLOUDFLARE_API_BASE_URL: `${cloudflareOrigin}/client/v4`,
      CLOUDFLARE_BASE_URL: `${cloudflareOrigin}/client/v4`,
      CLOUDFLARE_GATEWAY_BASE_URL: `${gatewayOrigin}/v1`,
      OPENAI_ADMIN_KEY: seed["openaiAdminKey"],
      OPENAI_BASE_URL: `${openaiOrigin}/v1`,
      ANTHROPIC_ADMIN_KEY: seed["anthropicAdminKey"],
      ANTHROPIC_BASE_URL: anthropicOrigin,
      GOOGLE_OAUTH_ACCESS_TOKEN: seed["googleAccessToken"],
      GOOGLE_CLOUD_PROJECT: seed["productionGoogleProject"],
      GOOGLE_APIKEYS_BASE_URL: apiKeysOrigin,
      GOOGLE_MONITORING_BASE_URL: monitoringOrigin,
      GEMINI_BASE_URL: geminiOrigin,
    });
    const control = await start(
      createControl({
        state,
        openai: openaiState,
        openaiUsage,
        anthropic: anthropicState,
        google: googleState,
        settings,
        clock,
        edges,
        faults,
        lies,
        keys,
        record,
        env,
        seed,
      }),
      plain,
    );
    return { control, env, seed, close };
  } catch (error) {
    await close();
    throw error;
  }
}
