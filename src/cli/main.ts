import { Command, CommanderError } from "commander";

import { RotationFailure } from "../domain/failure.ts";
import { containsKey } from "../domain/key-shape.ts";
import { version } from "../version.ts";
import { abortCommand } from "./abort.ts";
import { approveCommand } from "./approve.ts";
import { devCommand } from "./dev.ts";
import { doctorCommand } from "./doctor.ts";
import { emergencyCommand } from "./emergency.ts";
import { describeFailure, exitCodeOf, exitCodes } from "./failures.ts";
import { keysCommand } from "./keys.ts";
import { printFailure } from "./output.ts";
import { rotateCommand } from "./rotate.ts";
import { sandboxCommand } from "./sandbox.ts";
import { sealKeyCommand } from "./seal-key.ts";
import { statusCommand } from "./status.ts";
import { submitKeyCommand } from "./submit-key.ts";
import { sweepCommand } from "./sweep.ts";
import { workerCommand } from "./worker.ts";

/** The whole command line. Each command is a file beside this one. */
export function createProgram(): Command {
  const program = new Command("keyturn")
    .description("rotates the AI-provider keys that Cloudflare AI Gateway serves, without a failed request")
    .version(version, "-V, --version", "print the version")
    .helpCommand("help [command]", "print the help of a command")
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({ outputError: () => undefined }) // printed in `main`, as any other failure
    .addHelpText("after", "\nExit codes: 0 done, 1 failed, 2 wrong usage or input, 3 waiting for a person, 4 refused.");
  const commands = [
    rotateCommand(),
    emergencyCommand(),
    submitKeyCommand(),
    statusCommand(),
    keysCommand(),
    approveCommand(),
    abortCommand(),
    sweepCommand(),
    doctorCommand(),
    workerCommand(),
    sealKeyCommand(),
    devCommand(),
    sandboxCommand(),
  ];
  for (const command of commands) program.addCommand(command.copyInheritedSettings(program));
  return program;
}

/** Runs the command line and sets the exit code; never rejects. */
export async function main(args: string[]): Promise<void> {
  const program = createProgram();
  try {
    refuseSecrets(args);
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    process.exitCode = explain(error, args, program);
  }
  // A connection that still winds down must not keep a finished command alive.
  setTimeout(() => process.exit(), 2_000).unref();
}

/** Before anything is parsed, since a message about wrong usage may quote an argument. Fails with `InvalidInput`. */
function refuseSecrets(args: string[]): void {
  if (!args.some(containsKey)) return;
  throw new RotationFailure(
    "InvalidInput",
    "an argument is the value of a key: it stands in your shell's history now, so treat it as leaked; hand a value in by standard input, at the hidden prompt or in a file (submit-key --file, emergency --leaked-key-file)",
  );
}

function explain(error: unknown, args: string[], program: Command): number {
  const json = args.includes("--json");
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return exitCodes.done;
    if (error.code === "commander.help") {
      printFailure({ type: "InvalidInput", message: "say what to do: one of the commands above" }, json);
    } else {
      const said = error.message.replace(/^error: /, "").replaceAll(/\s*\n\s*/g, " ");
      const typed = args.find((arg) => !arg.startsWith("-"));
      const command = program.commands.find((one) => one.name() === typed);
      const help = command === undefined ? "keyturn --help" : `keyturn ${command.name()} --help`;
      printFailure({ type: "InvalidInput", message: `${said.replace(/\.$/, "")} (see ${help})` }, json);
    }
    return exitCodes.wrongInput;
  }
  const failure = describeFailure(error);
  printFailure(failure, json);
  return exitCodeOf(failure.type);
}
