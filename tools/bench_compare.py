#!/usr/bin/env python3
"""Builds the server of another commit beside this one: bench_compare.py COMMIT OUT

Checks the commit out into a worktree of its own below target/bench, builds its server with this tree's folder of builds
(so that dependencies which are the same are not built twice), and leaves it as OUT. The worktree is gone afterwards.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def build(commit, out):
    target = ROOT / "target"
    worktree = target / "bench" / "base"
    out.parent.mkdir(parents=True, exist_ok=True)
    # One that was left by a run that was killed.
    if worktree.exists():
        git("worktree", "remove", "--force", worktree)
    git("worktree", "prune")
    git("worktree", "add", "--detach", worktree, commit)
    try:
        environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        command = ["cargo", "build", "--release", "--locked", "--bin", "polyreward"]
        subprocess.run(command, check=True, cwd=worktree, env=environment)
        # Not a link: the next build writes to the same name.
        shutil.copy2(target / "release" / "polyreward", out)
    finally:
        git("worktree", "remove", "--force", worktree)


def main(arguments):
    if len(arguments) != 2:
        print("usage: bench_compare.py COMMIT OUT", file=sys.stderr)
        return 2
    try:
        commit = git("rev-parse", "--verify", "--end-of-options", f"{arguments[0]}^{{commit}}")
    except subprocess.CalledProcessError:
        print(f"bench_compare: {arguments[0]} is no commit; BASE=<commit> names one", file=sys.stderr)
        return 2
    try:
        build(commit, Path(arguments[1]).resolve())
    except subprocess.CalledProcessError as error:
        told = f": {error.stderr.strip()}" if error.stderr else ""
        print(f"bench_compare: {' '.join(map(str, error.cmd))} failed{told}", file=sys.stderr)
        return 1
    print(commit)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
