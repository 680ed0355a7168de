#!/bin/sh
# Creates Temporal's two databases and brings their schemas up to the version of this image. Safe to run again: what is
# there is left as it is. SQL_PASSWORD comes from the environment.
set -eu
sql() {
  database=$1
  shift
  temporal-sql-tool --plugin postgres12 --ep postgres --port 5432 --user "$POSTGRES_USER" --db "$database" "$@"
}
for pair in temporal:temporal temporal_visibility:visibility; do
  database=${pair%%:*}
  sql "$database" create
  sql "$database" setup-schema -v 0.0
  sql "$database" update-schema -d "/etc/temporal/schema/postgresql/v12/${pair##*:}/versioned"
done
