// Stands in for curl where a machine has none: the options that docs/guide.md uses, and the status on a line of its own
// after the body, as `curl --write-out '\n%{http_code}'` puts it.
const order = { method: undefined, headers: {}, body: undefined, url: undefined };
const args = process.argv.slice(2);
while (args.length > 0) {
  const arg = args.shift();
  if (arg === "-X") order.method = args.shift();
  else if (arg === "-H") {
    const [, name, value] = /^([^:]+): (.*)$/.exec(args.shift() ?? "") ?? [];
    order.headers[name] = value;
  } else if (arg === "-d") order.body = args.shift();
  else if (arg.startsWith("-") || order.url !== undefined)
    throw new Error(`the stand-in for curl does not know ${arg}`);
  else order.url = arg;
}
const { method = order.body === undefined ? "GET" : "POST", headers, body, url } = order;
const said = { "content-type": "application/x-www-form-urlencoded", ...headers };
const answer = await fetch(url, { method, headers: body === undefined ? headers : said, body });
process.stdout.write(`${await answer.text()}\n${answer.status}`);
