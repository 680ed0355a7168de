import OpenAI from "openai";

type Environment = Record<string, string | undefined>;

/** The gateway of each environment. Which key serves is the gateway's business: the application has none. */
const gateways: Record<string, string> = {
  production: "github-ai-agent-prod",
  staging: "github-ai-agent-staging",
};

export function connect(path: "openai" | "compat", env: Environment = process.env): OpenAI {
  const name = env["NODE_ENV"] ?? "";
  const gateway = gateways[name];
  if (gateway === undefined) {
    throw new Error(`no gateway for NODE_ENV "${name}": set it to one of ${Object.keys(gateways).join(", ")}`);
  }
  const base = env["CLOUDFLARE_GATEWAY_BASE_URL"] ?? "https://gateway.ai.cloudflare.com/v1";
  return new OpenAI({
    baseURL: `${base}/${env["CLOUDFLARE_ACCOUNT_ID"]}/${gateway}/${path}`,
    apiKey: "the SDK wants one", // and the next line takes it off: it would be used instead of the stored key
    defaultHeaders: {
      Authorization: null,
      "cf-aig-authorization": `Bearer ${env["CLOUDFLARE_GATEWAY_TOKEN"]}`,
    },
  });
}

/** Asks the next provider where one fails. The gateway does not do this for anybody. */
export async function ask(question: string, env: Environment = process.env): Promise<string> {
  const client = connect("compat", env);
  let failure: unknown;
  for (const model of ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]) {
    try {
      const answer = await client.chat.completions.create({
        model,
        messages: [{ role: "user", content: question }],
      });
      return answer.choices[0]?.message.content ?? "";
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
