#!/bin/sh
# need.sh COMMAND PACKAGE [FOLDERS]: makes sure COMMAND can be run, or is in one of FOLDERS, a pattern: Debian keeps the
# commands of a PostgreSQL server outside of PATH. Root on Debian gets PACKAGE installed; others are told.
set -eu
is_there() {
    command -v "$1" >/dev/null 2>&1 && return
    for folder in ${3-}; do
        [ -x "$folder/$1" ] && return
    done
    return 1
}
is_there "$@" && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # Of two runs at once the second waits here and finds the command. apt-get inherits the lock, so that one which
    # outlives a killed run keeps it.
    exec 9>"${APT_LOCK:-/var/lib/apt/polyreward.lock}"
    flock 9
    is_there "$@" && exit 0
    echo "setup: installing $2"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -qq -y --no-install-recommends "$2" >/dev/null && exit 0
fi
echo "setup: $1 is missing; install it first (Debian: sudo apt-get install $2)" >&2
exit 1
