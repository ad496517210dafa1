#!/usr/bin/env python3
"""Trains models, fills databases, and runs the tests beside this file in a real browser.

TEST_BINARY, TEST_NODE and TEST_CHROMIUM name the programs; the npm packages are those of POLYREWARD_CACHE. Arguments
are files of tests; without one all are run. Pictures of every page go to target/dashboard.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import stories
from filler import fill
from place import ROOT, Place

HERE = Path(__file__).resolve().parent
PICTURES = ROOT / "target" / "dashboard"
TEST_TIMEOUT_MS = 120_000


def prepare(folder):
    """Two versions of a model, the baseline, and a database for each story."""
    place = Place(folder)
    place.train("pal-a", seed=1)
    place.train("bt,pal-a")
    place.make_default("pal-a")
    models = place.versions("pal-a")
    for name, people in stories.all_of(*models).items():
        fill(place.migrate(name + ".db"), people)


def run_tests(folder, files):
    command = [os.environ["TEST_NODE"], "--test", f"--test-timeout={TEST_TIMEOUT_MS}", *files]
    return subprocess.run(command, env=environment(folder), check=False).returncode


def environment(folder):
    chromium = shutil.which(os.environ["TEST_CHROMIUM"])
    if not chromium:
        sys.exit(f"there is no {os.environ['TEST_CHROMIUM']}; make setup-test installs it")
    found = {
        "TEST_PLACE": folder,
        "TEST_BINARY": str(Path(os.environ["TEST_BINARY"]).resolve()),
        "TEST_CHROMIUM": chromium,
        "TEST_MODULES": str(Path(os.environ["POLYREWARD_CACHE"]).resolve() / "browser"),
        "TEST_BACKBONE": str(ROOT / "crates/backbone/tests/fixtures/tiny-encoder"),
        "TEST_PICTURES": str(PICTURES),
    }
    return {**os.environ, **found}


def main(arguments):
    files = arguments or sorted(str(file) for file in HERE.glob("*.test.mjs"))
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="polyreward-browser-") as folder:
        prepare(folder)
        return run_tests(folder, files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
