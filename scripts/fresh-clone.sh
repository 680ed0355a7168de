#!/usr/bin/env bash
# Does what a newcomer does: clones this repository's HEAD into an empty folder, with an empty home and empty caches,
# types one command, and looks whether anything is left running.
#
#   scripts/fresh-clone.sh demo [-- arguments]     KEEP=1 keeps the folder
#   scripts/fresh-clone.sh test [-- arguments]
#
# Only what is committed is cloned. Exits as the command does, or with 1 when it left a process behind.
set -euo pipefail

case "${1:-}" in
  demo) command=(npm run demo) ;;
  test) command=(npm test) ;;
  *)
    echo "usage: scripts/fresh-clone.sh demo|test [-- arguments]" >&2
    exit 2
    ;;
esac
shift
if [ "$#" -gt 0 ]; then command+=("$@"); fi

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d "${TMPDIR:-/tmp}/keyturn-fresh.XXXXXX")
mkdir "$folder/home"
clean_up() {
  if [ "${KEEP:-}" = 1 ]; then echo "fresh clone: kept $folder" >&2; else rm -rf "$folder"; fi
}
trap clean_up EXIT

git clone --quiet --no-checkout "$repository" "$folder/keyturn"
git -C "$folder/keyturn" checkout --quiet --detach "$(git -C "$repository" rev-parse HEAD)"

# What the machine's owner set up for npm and pip (a mirror, a proxy, a certificate) is part of the machine.
userconfig=${npm_config_userconfig:-$HOME/.npmrc}
for pip_config in "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "$HOME/.pip/pip.conf"; do
  if [ -z "${PIP_CONFIG_FILE:-}" ] && [ -f "$pip_config" ]; then export PIP_CONFIG_FILE=$pip_config; fi
done
# pyenv's shims look for their Pythons in the home.
if [ -z "${PYENV_ROOT:-}" ] && [ -d "$HOME/.pyenv" ]; then export PYENV_ROOT=$HOME/.pyenv; fi

export KEYTURN_FRESH_CLONE=$folder
# Set by an npm that runs this script; they would point the inner npm at the outer checkout.
unset npm_config_local_prefix npm_package_json INIT_CWD npm_lifecycle_event npm_lifecycle_script npm_command
export HOME=$folder/home XDG_CACHE_HOME=$folder/cache PIP_CACHE_DIR=$folder/cache/pip
export npm_config_cache=$folder/cache/npm npm_config_userconfig=$userconfig
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME

# Processes that carry our mark in their environment (Linux) or our folder in their command line; zombies are over.
left_behind() {
  local pid
  for pid in $(ps -A -o pid=,stat= | awk '$2 !~ /^Z/ { print $1 }'); do
    [ "$pid" != "$$" ] || continue
    if grep -qsF "KEYTURN_FRESH_CLONE=$folder" "/proc/$pid/environ" ||
      ps -o command= -p "$pid" 2>/dev/null | grep -qF "$folder/"; then
      # Neither this script's own children (this loop) nor what has ended since.
      [ "$(ps -o ppid= -p "$pid" | tr -d ' ')" != "$$" ] && ps -o pid=,command= -p "$pid" || true
    fi
  done
}

cd "$folder/keyturn"
echo "fresh clone: $(git log -1 --format='%h %s'): ${command[*]}" >&2

started=$SECONDS
status=0
"${command[@]}" || status=$?
echo "fresh clone: ${command[*]} took $((SECONDS - started)) s, exit code $status" >&2

# A process that was told to stop gets a moment for it.
for _ in 1 2 3 4 5 6 7 8 9 10; do
  alive=$(left_behind)
  [ -n "$alive" ] || break
  sleep 0.5
done
if [ -n "$alive" ]; then
  printf 'fresh clone: still running:\n%s\n' "$alive" >&2
  [ "$status" != 0 ] || status=1
else
  echo "fresh clone: nothing left running" >&2
fi
exit "$status"
