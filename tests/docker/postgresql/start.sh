#!/bin/sh
# Make the database at the first start, as the official image does, and run the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  umask 077
  printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
  initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust > /dev/null
  rm /tmp/password
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl start --wait --options="-c listen_addresses=''" > /dev/null
  createdb --username="$POSTGRES_USER" "$POSTGRES_DB" 2> /dev/null || true
  pg_ctl stop --wait --mode=fast > /dev/null
fi
exec postgres -c listen_addresses='*'
