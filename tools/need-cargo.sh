#!/bin/sh
# need-cargo.sh SUBCOMMAND VERSION ROOT: makes sure `cargo SUBCOMMAND` can be run; builds it into ROOT where it is missing.
set -eu
cargo "$1" --version >/dev/null 2>&1 && exit 0
case $1 in
fmt) component=rustfmt ;;
clippy) component=clippy ;;
*)
    echo "setup: building cargo-$1 $2, once, into $3"
    exec cargo install --quiet --locked "cargo-$1" --version "$2" --root "$3"
    ;;
esac
echo "setup: cargo $1 is missing; rustup component add $component" >&2
exit 1
