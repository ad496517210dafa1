"""A folder with trained models, a database and a server: the binary that TEST_BINARY names, on a small encoder."""

import contextlib
import json
import os
import subprocess
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BACKBONE = ROOT / "crates/backbone/tests/fixtures/tiny-encoder"
WAYS = ["in the morning", "by the window", "with an old friend", "after a long walk", "when it rains"]
WORDS = ["warm", "fresh", "strong", "sweet", "quiet", "small", "good"]
PEOPLE = 40
COMPARISONS = 16

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # for loopback, whatever proxy there is


def answers(drink):
    """Distinct answers about a drink."""
    return [f"have some {WORDS[n % 7]} {drink} {WAYS[n % 5]} {WORDS[n // 7 % 7]}" for n in range(35)]


def opposites():
    """Comparisons of people half of whom prefer tea and half coffee, nine times of ten; the last quarter are unseen."""
    tea, coffee = answers("tea"), answers("coffee")
    for person in range(PEOPLE):
        unseen = person >= PEOPLE - PEOPLE // 4
        for n in range(COMPARISONS):
            pair = [tea[(person * 5 + n) % 35], coffee[(person * 3 + n * 2) % 35]]
            if ((person + n) % 10 == 0) != (person % 2 == 1):
                pair.reverse()
            yield {
                "user_id": f"person-{person}",
                "attributes": {"country": "DE" if person % 2 else "UK"},
                "split": "train" if not unseen else "context" if n < COMPARISONS // 2 else "query",
                "prompt": "A drink?",
                "chosen": pair[0],
                "rejected": pair[1],
            }


def environment(backbone=BACKBONE):
    """That of this process, with a backbone and no other setting of the server's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLYREWARD_")}
    return {**kept, "POLYREWARD_BACKBONE__PATH": str(backbone)}


class Place:
    """Runs the binary in a folder, on the small encoder or another backbone."""

    def __init__(self, folder, backbone=BACKBONE):
        self.folder = Path(folder)
        self.environment = environment(backbone)
        self.binary = Path(os.environ["TEST_BINARY"]).resolve()

    def run(self, *arguments):
        """What it says on its standard output."""
        done = subprocess.run(
            [self.binary, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"polyreward {arguments[0]} failed: {done.stderr}")
        return done.stdout

    def train(self, heads, seed=0):
        """Trains on people of opposite tastes; another seed is another version."""
        lines = (json.dumps(comparison) + "\n" for comparison in opposites())
        (self.folder / "people.jsonl").write_text("".join(lines), encoding="utf-8")
        self.run("train", "--data", "people.jsonl", "--heads", heads, "--out", "models", "--seed", str(seed))

    def versions(self, head):
        """The full names of a head's models, the oldest first."""
        folders = sorted((self.folder / "models" / head).iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
        return [f"{head}@{folder.name}" for folder in folders]

    def make_default(self, name):
        """Has the newest model of a name answer where none is named, whatever server of this folder is asked."""
        self.migrate("default.db")
        with self.serving("default.db") as url:
            body = json.dumps({"model": name}).encode()
            headers = {"content-type": "application/json"}
            OPENER.open(urllib.request.Request(url + "/models/default", body, headers, method="PUT")).close()

    def migrate(self, database):
        """Makes a database, and gives its path."""
        self.run("migrate", "--database-url", f"sqlite:{database}")
        return self.folder / database

    @contextlib.contextmanager
    def serving(self, database):
        """The address of a server that runs meanwhile."""
        command = [self.binary, "serve", "--bind", "127.0.0.1:0", "--models", "models"]
        command += ["--database-url", f"sqlite:{database}"]
        server = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            line = server.stdout.readline()
            if "listening on " not in line:
                raise AssertionError("the server ended before it listened")
            yield line.split("listening on ")[1].strip()
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()
