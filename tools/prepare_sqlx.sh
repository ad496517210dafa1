#!/bin/sh
# prepare_sqlx.sh [--check] CRATE [URL]: writes crates/CRATE/.sqlx, what the macros learned of each query from a database.
#
# CRATE is storage-sqlite or storage-postgres. Without the URL of a database that has the migrations, SQLite gets an empty
# file made of them, and PostgreSQL a server of its own (tools/with_postgres.py). With --check nothing is written: it fails where what is committed is out of date.
set -eu
cd "$(dirname "$0")/.."

again="$*"
check=false
if [ "${1-}" = --check ]; then check=true && shift; fi
crate=${1?usage: prepare_sqlx.sh [--check] CRATE [URL]}
variable=$(sed -n 's/^database-url-var = "\(.*\)"$/\1/p' "crates/$crate/sqlx.toml")
committed=crates/$crate/.sqlx

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

url=${2-}
if [ -z "$url" ] && [ "$crate" = storage-postgres ]; then
    if [ -z "${TEST_POSTGRES_URL-}" ]; then
        # shellcheck disable=SC2086 # words without spaces
        "${PYTHON:-python3}" tools/with_postgres.py -- sh tools/prepare_sqlx.sh $again
        exit
    fi
    psql --quiet --set ON_ERROR_STOP=1 "$TEST_POSTGRES_URL" <<'SQL'
SET client_min_messages = warning;
DROP DATABASE IF EXISTS migrated;
CREATE DATABASE migrated;
SQL
    url=${TEST_POSTGRES_URL%/*}/migrated
    for migration in migrations/postgres/*.sql; do
        psql --quiet --single-transaction --set ON_ERROR_STOP=1 --file "$migration" "$url"
    done
elif [ -z "$url" ]; then
    "${PYTHON:-python3}" - "$scratch/empty.db" migrations/sqlite/*.sql <<'PYTHON'
import pathlib, sqlite3, sys

with sqlite3.connect(sys.argv[1]) as database:
    for migration in sys.argv[2:]:
        database.executescript(pathlib.Path(migration).read_text(encoding="utf-8"))
PYTHON
    url=sqlite:$scratch/empty.db
fi

# The macros run, and write, only when the compiler does.
mkdir "$scratch/queries"
touch "crates/$crate/src/lib.rs"
env "$variable=$url" SQLX_OFFLINE=false "SQLX_OFFLINE_DIR=$scratch/queries" \
    cargo check --quiet --locked --package "polyreward-$crate"

if $check; then
    diff -r "$committed" "$scratch/queries" ||
        { echo "$committed is out of date: sh tools/prepare_sqlx.sh $crate" >&2 && exit 1; }
else
    rm -rf "$committed"
    mv "$scratch/queries" "$committed"
fi
