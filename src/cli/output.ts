import pc from "picocolors";

/**
 * Everything the command line prints. Results go to standard output, as text or as one JSON document; progress and
 * failures go to standard error. Colours and the live line are for terminals only.
 */

export interface Output {
  readonly json: boolean;
  /** Colours for lines on standard error. */
  readonly paint: Colours;
  /** A line of progress. */
  say(line: string): void;
  /** The line below the others that says what is going on right now, until the next line; nothing without a terminal. */
  live(line: string | undefined): void;
  /** The result, once: the document with `--json`, else the text. */
  result(document: unknown, text: string): void;
}

type Colours = ReturnType<typeof pc.createColors>;

export function createOutput({ json = false }: { json?: boolean | undefined } = {}): Output {
  const terminal = process.stderr.isTTY === true && process.env["TERM"] !== "dumb";
  const paint = coloursFor(process.stderr);
  let shown = "";
  const clear = (): void => {
    if (shown !== "") process.stderr.write("\r\u001B[2K");
    shown = "";
  };
  return {
    json,
    paint,
    say(line) {
      clear();
      process.stderr.write(`${line}\n`);
    },
    live(line) {
      if (!terminal) return;
      clear();
      if (line === undefined) return;
      shown = cut(line, process.stderr.columns || 80);
      process.stderr.write(paint.dim(shown));
    },
    result(document, text) {
      clear();
      process.stdout.write(json ? `${JSON.stringify(document)}\n` : `${text}\n`);
    },
  };
}

/** A question on standard error, the answer to which is typed on the same line. */
export function ask(question: string): void {
  process.stderr.write(question);
}

/** Colours where the stream is a terminal and nobody asked for none (no-color.org). */
export function coloursFor(stream: { isTTY?: boolean }): Colours {
  const { NO_COLOR = "", FORCE_COLOR = "", TERM = "" } = process.env;
  const forced = FORCE_COLOR !== "" && FORCE_COLOR !== "0";
  return pc.createColors(NO_COLOR === "" && (forced || (stream.isTTY === true && TERM !== "dumb")));
}

/** A failure: one sentence on standard error, with `--json` a document on standard output as well. */
export function printFailure(
  { type, message, ...rest }: { type: string; message: string; result?: unknown },
  json: boolean,
): void {
  if (json) process.stdout.write(`${JSON.stringify({ error: { type, message }, ...rest })}\n`);
  process.stderr.write(`${coloursFor(process.stderr).red("keyturn:")} ${message}\n`);
}

/** Rows of a label and a value, the values in one column; rows without a value are left out. */
export function table(rows: [string, string | undefined][], indent = "  "): string {
  const given = rows.filter((row): row is [string, string] => row[1] !== undefined);
  const width = Math.max(0, ...given.map(([label]) => label.length));
  return given.map(([label, value]) => `${indent}${label.padEnd(width)}  ${value}`).join("\n");
}

function cut(line: string, columns: number): string {
  return line.length < columns ? line : `${line.slice(0, columns - 2)}…`;
}
