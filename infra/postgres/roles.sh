#!/bin/sh
# Makes the database and its two roles on a new server: the one that owns the read models, and the one that may read what `projectors migrate`
# lets it. Neither may do anything else.
set -eu

psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username postgres --dbname postgres \
  --set owner_password="$POSTGRES_PASSWORD_PROJECTORS" --set reader_password="$POSTGRES_PASSWORD_QUERY" <<'SQL'
CREATE ROLE contrail_projectors LOGIN PASSWORD :'owner_password';
CREATE ROLE contrail_query LOGIN PASSWORD :'reader_password';
CREATE DATABASE contrail OWNER contrail_projectors;
REVOKE ALL ON DATABASE contrail FROM PUBLIC;
GRANT CONNECT ON DATABASE contrail TO contrail_query;
SQL
