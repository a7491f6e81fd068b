#!/bin/sh
# Once, when the volume is empty: an ordinary role that owns its database, since row-level security binds no superuser.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$(cat /run/secrets/database_password)" --username postgres <<'SQL'
CREATE ROLE textllm LOGIN PASSWORD :'password';
CREATE DATABASE textllm OWNER textllm;
SQL
