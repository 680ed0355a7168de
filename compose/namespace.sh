#!/bin/sh
# Creates the namespace and the search attributes that rotations carry. Safe to run again.
set -eu
tries=60
until temporal operator cluster health >/dev/null 2>&1; do
  tries=$((tries - 1))
  if [ "$tries" = 0 ]; then echo "Temporal at $TEMPORAL_ADDRESS did not answer" >&2; exit 1; fi
  sleep 1
done

temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$NAMESPACE_RETENTION"

# A new namespace takes some seconds to be known everywhere, and until then this fails.
for name in KeyturnSlot KeyturnProvider KeyturnKind KeyturnPhase; do
  tries=30
  until temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE" 2>/dev/null | grep -qw "$name"; do
    tries=$((tries - 1))
    if [ "$tries" = 0 ]; then echo "search attribute $name could not be created" >&2; exit 1; fi
    temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$name" --type Keyword || true
    sleep 1
  done
done
