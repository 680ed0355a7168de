import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { RotationFailure } from "../src/domain/failure.ts";
import { bearer, createHttp, readErrorFacts, type SendRequest, type Traffic } from "../src/http.ts";
import { Redacted } from "../src/redacted.ts";
import { startVendor, type Vendor } from "./support/vendor.ts";

const key = "sk-svcacct-made-up-0123456789abcdef";
const Thing = z.object({ id: z.string() });

let vendor: Vendor;
let traffic: Traffic[];

beforeEach(async () => {
  vendor = await startVendor();
  traffic = [];
});
afterEach(() => vendor.close());

function http(timeoutMs = 2_000) {
  return createHttp({
    timeoutMs,
    userAgent: "keyturn/0.0.0",
    onResponse: (one) => traffic.push(one),
  });
}

function wanted(more: Partial<SendRequest<{ id: string }>> = {}): SendRequest<{ id: string }> {
  return {
    service: "acme",
    method: "GET",
    baseUrl: vendor.url,
    route: "/things/{thing}",
    path: { thing: "a/b" },
    headers: { authorization: bearer(new Redacted(key)) },
    doing: "while reading thing 1",
    response: Thing,
    ...more,
  };
}

async function failureOf(attempt: Promise<unknown>): Promise<RotationFailure> {
  const error = await attempt.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RotationFailure)) throw new Error("it did not fail as a rotation failure", { cause: error });
  expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`).not.toContain(key);
  return error;
}

describe("a request", () => {
  test("reveals secrets on the wire, escapes path parts, and repeats array parameters", async () => {
    vendor.replies({ body: { id: "thing-1", extra: true } });

    const thing = await http().send(
      wanted({
        method: "POST",
        query: { limit: 2, "ids[]": ["x", "y"], after: undefined },
        body: [{ value: new Redacted(key), note: null }],
      }),
    );

    expect(thing).toEqual({ id: "thing-1" });
    const [call] = vendor.calls;
    expect(call?.path).toBe("/things/a%2Fb");
    expect(call?.query.toString()).toBe("limit=2&ids%5B%5D=x&ids%5B%5D=y");
    expect(call?.headers).toMatchObject({
      "user-agent": "keyturn/0.0.0",
      authorization: `Bearer ${key}`,
      "content-type": "application/json",
    });
    expect(call?.body).toEqual([{ value: key, note: null }]);
  });

  test("takes a base address with or without a slash at its end", async () => {
    vendor.replies({ body: { id: "1" } });
    await http().send(wanted({ baseUrl: `${vendor.url}/v1/` }));
    expect(vendor.calls[0]?.path).toBe("/v1/things/a%2Fb");
  });

  test("is told for metrics, without its variable parts", async () => {
    vendor.replies({ body: { id: "1" } }, { fault: "resets" });
    await http().send(wanted());
    await failureOf(http().send(wanted()));
    expect(traffic).toEqual([
      {
        service: "acme",
        method: "GET",
        route: "/things/{thing}",
        status: 200,
        ms: expect.any(Number),
      },
      {
        service: "acme",
        method: "GET",
        route: "/things/{thing}",
        status: undefined,
        ms: expect.any(Number),
      },
    ]);
  });

  test("is made once", async () => {
    vendor.replies({ status: 503 }, { body: { id: "1" } });
    await failureOf(http().send(wanted()));
    expect(vendor.calls).toHaveLength(1);
  });

  test("ends with the reason of the signal that cancels it", async () => {
    vendor.replies({ fault: "never answers" });
    const cancel = new AbortController();
    const attempt = http().send(wanted({ signal: cancel.signal }));
    const reason = new Error("cancelled by the operator");
    setTimeout(() => cancel.abort(reason), 10);
    await expect(attempt).rejects.toBe(reason);
  });

  test("is not made when it is cancelled already", async () => {
    const reason = new Error("cancelled before");
    await expect(http().send(wanted({ signal: AbortSignal.abort(reason) }))).rejects.toBe(reason);
    expect(vendor.calls).toEqual([]);
  });
});

describe("a refusal becomes", () => {
  const echoed = { error: { message: `Incorrect API key provided: ${key}` } };
  const rows: [number, string, boolean][] = [
    [400, "RequestInvalid", false],
    [401, "RequestInvalid", false],
    [404, "RequestInvalid", false],
    [408, "Unavailable", true],
    [409, "RequestInvalid", false],
    [429, "RateLimited", true],
    [500, "Unavailable", true],
    [503, "Unavailable", true],
    [529, "Unavailable", true],
    [302, "ResponseUnexpected", false],
  ];
  test.each(rows)("%d: %s", async (status, type, retried) => {
    vendor.replies({
      status,
      headers: { "x-request-id": "req_123", location: "/elsewhere" },
      body: echoed,
    });
    const failure = await failureOf(http().send(wanted()));
    expect(failure).toMatchObject({ type, retried });
    expect(failure.message).toContain("acme");
    expect(failure.message).toContain("while reading thing 1");
    expect(failure.message).toContain("(request req_123)");
    expect(failure.message[0]).toMatch(/[a-z]/);
    expect(vendor.calls).toHaveLength(1);
  });

  test("what the caller makes of it first", async () => {
    vendor.replies({
      status: 409,
      headers: { "cf-ray": "8c2f-FRA" },
      body: { error: { code: "busy" } },
    });
    const failure = await failureOf(
      http().send(
        wanted({
          failure: ({ status, body, trace }) =>
            status === 409 && readErrorFacts(body)?.code === "busy"
              ? new RotationFailure("SlotBusy", `taken${trace}`)
              : undefined,
        }),
      ),
    );
    expect(failure).toMatchObject({ type: "SlotBusy", message: "taken (request 8c2f-FRA)" });
  });

  test("a result where the caller says so", async () => {
    vendor.replies({ status: 404 });
    const instead = ({ status }: { status: number }) => (status === 404 ? { value: { id: "none" } } : undefined);
    expect(await http().send(wanted({ instead }))).toEqual({ id: "none" });
  });

  test("a message whose request id cannot break a log line", async () => {
    vendor.replies({ status: 500, headers: { "x-request-id": "req_1 forged line" } });
    expect((await failureOf(http().send(wanted()))).message).toContain("(request req_1)");
  });
});

describe("no answer, or half of one, is Unavailable", () => {
  test("when it does not come in time", async () => {
    vendor.replies({ fault: "never answers" });
    const failure = await failureOf(http(50).send(wanted()));
    expect(failure.type).toBe("Unavailable");
    expect(failure.message).toContain("no answer within 50 ms");
  });

  test("when the connection is reset, and a write says that it may have taken effect", async () => {
    vendor.replies({ fault: "resets" }, { fault: "resets" });
    expect((await failureOf(http().send(wanted()))).message).toMatch(/try again$/);
    const write = await failureOf(http().send(wanted({ method: "POST", body: {} })));
    expect(write.type).toBe("Unavailable");
    expect(write.message).toContain("it may have taken effect: look before trying again");
  });

  test("when nobody listens there", async () => {
    const failure = await failureOf(http().send(wanted({ baseUrl: "http://127.0.0.1:1" })));
    expect(failure.type).toBe("Unavailable");
    expect(failure.message).toContain("127.0.0.1:1");
  });

  test("when the body stops half way, with and without a length", async () => {
    const body = JSON.stringify({ id: key.repeat(10) });
    vendor.replies(
      { fault: "stops half way", body },
      { fault: "stops half way", body, headers: { "content-length": String(body.length) } },
      {
        fault: "stops half way",
        body,
        headers: { connection: "close", "transfer-encoding": "identity" },
      },
    );
    for (let count = 0; count < 3; count += 1) {
      expect((await failureOf(http().send(wanted()))).type).toBe("Unavailable");
    }
  });

  test("when a proxy answers 200 with a page", async () => {
    vendor.replies({ body: `<html>${key}</html>` });
    expect((await failureOf(http().send(wanted()))).type).toBe("Unavailable");
  });
});

test("a body off its schema is ResponseUnexpected and names the place, not the value", async () => {
  vendor.replies({ headers: { "request-id": "req_9" }, body: { id: { secret: key } } });
  const failure = await failureOf(http().send(wanted()));
  expect(failure).toMatchObject({ type: "ResponseUnexpected", retried: false });
  expect(failure.message).toContain("at id");
  expect(failure.message).toContain("(request req_9)");
});

test("a credential that no header can carry is RequestInvalid, not tried again", async () => {
  const failure = await failureOf(http().send(wanted({ headers: { authorization: new Redacted(`${key}\n`) } })));
  expect(failure).toMatchObject({ type: "RequestInvalid", retried: false });
});

describe("the wait a service asks for", () => {
  const forms: [string, Record<string, string>, number | undefined][] = [
    ["seconds", { "retry-after": "7" }, 7_000],
    ["part of a second", { "retry-after": "0.25" }, 250],
    ["milliseconds, which win", { "retry-after": "7", "retry-after-ms": "120" }, 120],
    ["a date gone by", { "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT" }, 0],
    ["Cloudflare's Ratelimit, spent", { ratelimit: '"default";r=0;t=30' }, 30_000],
    ["Cloudflare's Ratelimit, one of two spent", { ratelimit: '"burst";r=5;t=90, "default";r=0;t=12' }, 12_000],
    ["Cloudflare's Ratelimit, not spent", { ratelimit: '"default";r=50;t=30' }, undefined],
    ["nothing readable", { "retry-after": "soon" }, undefined],
    ["nothing", {}, undefined],
  ];
  test.each(forms)("as %s", async (_, headers, ms) => {
    vendor.replies({ status: 429, headers });
    const failure = await failureOf(http().send(wanted()));
    expect(failure.type).toBe("RateLimited");
    expect(failure.retryAfterMs).toBe(ms);
  });

  test("as a date to come", async () => {
    vendor.replies({
      status: 503,
      headers: { "retry-after": new Date(Date.now() + 60_000).toUTCString() },
    });
    const { type, retryAfterMs = 0 } = await failureOf(http().send(wanted()));
    expect(type).toBe("Unavailable");
    expect(retryAfterMs).toBeGreaterThan(50_000);
    expect(retryAfterMs).toBeLessThanOrEqual(60_000);
  });
});

describe("an exchange", () => {
  test("gives a refusal back instead of failing", async () => {
    vendor.replies({
      status: 401,
      headers: { "x-request-id": "req_1", "retry-after": "2" },
      body: {
        error: {
          code: "invalid_api_key",
          type: "invalid_request_error",
          param: null,
          message: "no",
        },
      },
    });
    const answer = await http().exchange(wanted());
    expect(answer).toMatchObject({ status: 401, requestId: "req_1", retryAfterMs: 2_000 });
    expect(readErrorFacts(answer.body)).toEqual({
      code: "invalid_api_key",
      type: "invalid_request_error",
      message: "no",
    });
  });

  test("gives a page of a proxy back as a refusal without a body", async () => {
    vendor.replies({ status: 403, body: "<html>blocked</html>" });
    expect(await http().exchange(wanted())).toMatchObject({ status: 403, body: undefined });
  });

  test("fails when half a refusal came as if it were whole: its reason is missing", async () => {
    vendor.replies({ status: 409, body: '{"success":false,"errors":[{"code":' });
    expect((await failureOf(http().exchange(wanted()))).type).toBe("Unavailable");
  });

  test("still fails when no whole answer came", async () => {
    vendor.replies({ status: 401, fault: "stops half way", body: { error: key } });
    expect((await failureOf(http().exchange(wanted()))).type).toBe("Unavailable");
  });
});

describe("the error of", () => {
  test("Anthropic is read", () => {
    const body = {
      type: "error",
      error: {
        type: "invalid_request_error",
        message: "m",
        details: { error_code: "org_api_key_limit_exceeded" },
      },
    };
    expect(readErrorFacts(body)).toEqual({
      code: "org_api_key_limit_exceeded",
      type: "invalid_request_error",
      message: "m",
    });
  });

  test("Google is read, also inside an array", () => {
    const error = {
      code: 400,
      status: "INVALID_ARGUMENT",
      message: "m",
      details: [{ "@type": "x" }, { reason: "API_KEY_INVALID" }],
    };
    const facts = { status: "INVALID_ARGUMENT", reason: "API_KEY_INVALID", message: "m" };
    expect(readErrorFacts({ error })).toEqual(facts);
    expect(readErrorFacts([{ error }])).toEqual(facts);
  });

  test("anything else is nothing", () => {
    for (const body of [undefined, null, "x", [], { error: "text" }, { error: [{ code: 1 }] }]) {
      expect(readErrorFacts(body)).toBeUndefined();
    }
  });
});
