#!/bin/sh
# Run once by the image, on an empty volume. The server's role is no superuser, so that row-level security binds it.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username postgres --set password="$POLYREWARD_PASSWORD" <<'SQL'
CREATE ROLE polyreward LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE polyreward OWNER polyreward;
SQL
