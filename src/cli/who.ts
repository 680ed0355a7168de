import { hostname, userInfo } from "node:os";

/** Who types, for the record: `user@host`. */
export function whoTypes(): string {
  return `${process.env["USER"] ?? userName()}@${hostname()}`;
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return "somebody"; // a container's user need not have a name
  }
}
