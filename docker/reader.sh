#!/bin/sh
# Run once the server has made its tables: a role that reads the views of accuracy of one tenant, and no text.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --host database --username postgres --dbname polyreward \
    --set password="$POLYREWARD_READER_PASSWORD" --set tenant="${POLYREWARD_TENANT:-default}" <<'SQL'
SELECT 'CREATE ROLE polyreward_reader LOGIN NOSUPERUSER NOBYPASSRLS'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'polyreward_reader') \gexec
ALTER ROLE polyreward_reader PASSWORD :'password';
ALTER ROLE polyreward_reader SET polyreward.tenant = :'tenant';
ALTER ROLE polyreward_reader SET default_transaction_read_only = on;
ALTER ROLE polyreward_reader SET statement_timeout = '30s';
GRANT SELECT ON accuracy_overall, accuracy_by_group, accuracy_by_shot, accuracy_by_group_and_shot, accuracy_by_day,
    accuracy_by_group_and_day, reliability TO polyreward_reader;
SQL
