#!/bin/sh
# prepare_sqlx.sh [--check] CRATE [URL]: writes crates/CRATE/.sqlx, what the macros learned of each query from a database.
#
# CRATE is storage-sqlite or storage-postgres. SQLite gets an empty file made of its migrations; PostgreSQL needs the URL
# of a database that has them. With --check nothing is written: it fails where what is committed is out of date.
set -eu
cd "$(dirname "$0")/.."

check=false
if [ "${1-}" = --check ]; then check=true && shift; fi
crate=${1?usage: prepare_sqlx.sh [--check] CRATE [URL]}
variable=$(sed -n 's/^database-url-var = "\(.*\)"$/\1/p' "crates/$crate/sqlx.toml")
committed=crates/$crate/.sqlx

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

url=${2-}
if [ -z "$url" ]; then
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
