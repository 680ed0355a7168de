import { Socket } from "node:net";
import { Option } from "commander";

/** Ties a process to the one that started it: standard input ends when that is gone, however it went. */
export const onStdinEnd = {
  option: (): Option =>
    new Option("--until-stdin-ends", "stop when standard input ends: for programs that start this one").hideHelp(),
  run(stop: () => void): void {
    process.stdin.on("end", stop).on("close", stop).on("error", stop).resume();
    if (process.stdin instanceof Socket) process.stdin.unref();
  },
};
