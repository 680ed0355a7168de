/** How a command gets a secret: from a file, from standard input, or typed where nobody sees it. Never as an argument. */
import { readFileSync } from "node:fs";

import { RotationFailure } from "../domain/failure.ts";
import { Redacted } from "../redacted.ts";
import { ask } from "./output.ts";
import { exitCodes } from "./failures.ts";

/** The most a sealed value may be long is checked in the workflow; no provider's key comes near this. */
const longest = 4_096;

/** What stands around a value in files, and in no key: quotes, brackets, a name before it, signs that nobody sees. */
const aroundAKey = /["'`,;{}<>\\]|[^\x21-\x7E]|^[A-Za-z_]\w*[=:]./;

/**
 * Reads one key value and trims it. `file` names where from (`-` is standard input); without one it is typed hidden at
 * a terminal, else read from standard input. Fails with `InvalidInput`; no message quotes what was read.
 */
export async function readSecret({ file, what }: { file?: string | undefined; what: string }): Promise<Redacted> {
  const text = (await readFrom(file, what)).trim();
  if (text === "") throw invalid(`${what} is empty: nothing was sent`);
  if (aroundAKey.test(text) || text.length > longest) {
    throw invalid(`${what} is not one key: give its value alone, without quotes, a name or other lines`);
  }
  return new Redacted(text);
}

async function readFrom(file: string | undefined, what: string): Promise<string> {
  if (file !== undefined && file !== "-") {
    try {
      return readFileSync(file, "utf8");
    } catch (error) {
      // A message of the system's would quote the path, and somebody may have given the key in its place.
      throw invalid(`cannot read the file of ${what} (${(error as NodeJS.ErrnoException).code ?? "unknown error"})`);
    }
  }
  return process.stdin.isTTY ? typedHidden(what) : allOfStdin();
}

async function allOfStdin(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) {
    text += String(chunk);
    if (text.length > longest * 4) break;
  }
  return text;
}

/** Reads a line without echo. Ctrl-C ends the command. */
async function typedHidden(what: string): Promise<string> {
  const { stdin } = process;
  ask(`${what} (it is not shown): `);
  stdin.setEncoding("utf8").setRawMode(true).resume();
  try {
    return await new Promise<string>((resolve) => {
      let typed = "";
      stdin.on("data", (chunk: string) => {
        for (const letter of chunk) {
          if (letter === "\u0003") {
            stdin.setRawMode(false);
            process.exit(exitCodes.interrupted);
          }
          if (letter === "\r" || letter === "\n" || letter === "\u0004") resolve(typed);
          else typed = letter === "\u007F" || letter === "\b" ? typed.slice(0, -1) : typed + letter;
        }
      });
    });
  } finally {
    stdin.setRawMode(false).pause();
    stdin.removeAllListeners("data");
    ask("\n");
  }
}

function invalid(message: string): RotationFailure {
  return new RotationFailure("InvalidInput", message);
}
