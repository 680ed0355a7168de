import { Client, Connection, isGrpcServiceError } from "@temporalio/client";
import { loadClientConnectConfig } from "@temporalio/envconfig";

import type { Environment } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";

/** A Temporal server as an operator's command sees it. */
export interface Temporal {
  client: Client;
  address: string;
  namespace: string;
}

type ConnectConfig = ReturnType<typeof loadClientConnectConfig>;

/** Temporal's own settings: `TEMPORAL_*` variables over the profile of its TOML file. Fails with `InvalidInput`. */
export function connectConfig(env: Environment): ConnectConfig {
  const variables = Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
  try {
    return loadClientConnectConfig({ overrideEnvVars: variables });
  } catch (error) {
    throw new RotationFailure(
      "InvalidInput",
      `Temporal's settings cannot be read: ${error instanceof Error ? error.message : String(error)}: look at TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE and that file`,
    );
  }
}

/** Which server and namespace a command talks to, for messages. */
export function temporalTarget(env: Environment): { address: string; namespace: string } {
  const { connectionOptions, namespace = "default" } = connectConfig(env);
  return { address: connectionOptions.address ?? "localhost:7233", namespace };
}

/** Connects, works, disconnects. Fails with `Unavailable`, naming the address, when no server answers in a few seconds. */
export async function withTemporal<Result>(
  env: Environment,
  work: (temporal: Temporal) => Promise<Result>,
): Promise<Result> {
  const { address, namespace } = temporalTarget(env);
  const { connectionOptions } = connectConfig(env);
  const connection = await connect(address, connectionOptions);
  try {
    return await work({ client: new Client({ connection, namespace }), address, namespace });
  } finally {
    await connection.close();
  }
}

const connectTimeoutMs = 4_000;

async function connect(address: string, options: ConnectConfig["connectionOptions"]): Promise<Connection> {
  const { tls, apiKey, metadata } = options;
  try {
    return await Connection.connect({
      address,
      connectTimeout: connectTimeoutMs,
      ...(tls === undefined ? {} : { tls }),
      ...(apiKey === undefined ? {} : { apiKey }),
      ...(metadata === undefined ? {} : { metadata }),
    });
  } catch (error) {
    throw new RotationFailure(
      "Unavailable",
      `no Temporal server answers at ${address}${isGrpcServiceError(error) && error.code !== 14 && error.code !== 4 ? ` (${error.details})` : ""}: start one (keyturn dev, docker compose up), or set TEMPORAL_ADDRESS`,
    );
  }
}
