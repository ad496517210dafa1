"""Runs the blocks of a guide in order, as a reader would: the real binary, the real client, in a folder of its own.

What is set up: the commands `polyreward`, `pip` and `python` are those under test, ports 8080 to 8082 are free ones,
the default backbone is the small encoder of the tests, and input files are made up. `polyreward serve` runs beside the
guide until the next one or the end, as in a terminal of its own. All else is what the guide says.
"""

import contextlib
import json
import os
import re
import select
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import with_postgres
from blocks import blocks_of, difference
from place import BACKBONE, ROOT, environment

BLOCK_S = 300
PORTS = 3
PORT = re.compile(r"\b808([0-2])\b")
SERVE = re.compile(r"^polyreward serve\b")
DEFAULT_BACKBONE = "all-minilm-l6-v2-int8"
# The package is installed as the guides say, without the network and beside the tests' own environment.
PIP = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class Guide:
    """A guide that is run in `folder`; its servers run until `close`."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = Path(folder)
        self.blocks = blocks_of(ROOT / name)
        self.port = free_ports(PORTS)
        self.url = f"http://127.0.0.1:{self.port}"
        self.played = [(SERVE, self.serve)]
        self.said = {}  # by position of the block
        self.server = None
        self.environment = self.make_environment()
        self.shell = Shell(self.folder, self.environment)

    def make_environment(self):
        commands = self.folder / "commands"
        commands.mkdir()
        (commands / "polyreward").symlink_to(Path(os.environ["TEST_BINARY"]).resolve())
        (self.folder / "clients").symlink_to(ROOT / "clients")
        packages = self.folder / "packages"
        # The Python whose environment holds what the package needs stands first, with its pip.
        path = [str(commands), str(Path(sys.executable).parent), os.environ["PATH"], str(with_postgres.find_server())]
        return {
            **environment(),
            **PIP,
            "PIP_TARGET": str(packages),
            "PYTHONPATH": str(packages),
            "PATH": os.pathsep.join(path),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def close(self):
        self.stop_serving()
        self.shell.close()

    # Blocks

    def run(self, after=()):
        """Every block; `after` gives what to do when the block with a text in it is done."""
        after = dict(after)
        for at, block in enumerate(self.blocks):
            if block.not_run:
                continue
            try:
                self.said[at] = self.run_block(at, block)
            except AssertionError as error:
                raise AssertionError(f"{self.name}:{block.line}: {error}") from None
            for fragment in [fragment for fragment in after if fragment in block.text]:
                after.pop(fragment)()
        if after:
            raise AssertionError(f"{self.name} has no block with {', '.join(after)}")

    def run_block(self, at, block):
        if block.language == "sh":
            return self.run_shell(block.text)
        if block.language == "python":
            return self.run_python(block.text)
        if block.language == "json":
            shown = json.loads(self.as_here(block.text))
            before = self.blocks[at - 1] if at else None
            # What a command answers stands right after it.
            if before and before.language == "sh" and not before.not_run:
                said = json_values(self.said[at - 1])
                what = difference(shown, said[-1]) if said else "nothing is said"
                if what:
                    raise AssertionError(f"the answer is not what is shown: {what}")
        return ""

    def run_shell(self, text):
        """Lines of a shell, but for those that are played here."""
        said, lines = [], []
        for line in self.as_here(text).splitlines():
            play = next((play for pattern, play in self.played if pattern.match(line)), None)
            if play is None:
                lines.append(line)
                continue
            said.append(self.shell.run(lines))
            lines = []
            said.append(play(shlex.split(line, comments=True)) or "")
        said.append(self.shell.run(lines))
        return "".join(said)

    def run_python(self, text):
        """A program of its own; what it prints."""
        done = subprocess.run(
            ["python", "-c", self.as_here(text)],
            cwd=self.folder,
            env={**self.environment, "POLYREWARD_URL": self.url},
            capture_output=True,
            text=True,
            timeout=BLOCK_S,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"a program failed: {done.stderr}")
        return done.stdout

    def as_here(self, text):
        text = PORT.sub(lambda found: str(self.port + int(found[1])), text)
        return text.replace(DEFAULT_BACKBONE, json.loads((BACKBONE / "backbone.json").read_text())["name"])

    def block(self, fragment):
        """The text of the one block in which something stands."""
        return self.blocks[self.position(fragment)].text

    def output(self, fragment):
        """What that block said."""
        return self.said[self.position(fragment)]

    def answers(self, fragment):
        """The JSON objects that it said."""
        return json_values(self.output(fragment))

    def position(self, fragment):
        found = [at for at, block in enumerate(self.blocks) if fragment in block.text]
        if len(found) != 1:
            raise AssertionError(f"{self.name} has {len(found)} blocks with {fragment}")
        return found[0]

    # The server

    def serve(self, words):
        """Runs a server beside the guide once it listens."""
        self.stop_serving()
        self.server = Server(
            words[1:], self.folder, {**self.environment, "POLYREWARD_SERVER__GRACE_SECONDS": "0"}, self.port
        )

    def stop_serving(self):
        if self.server:
            self.server.stop()
            self.server = None


class Server:
    """The binary, serving on a port."""

    def __init__(self, arguments, folder, environment, port):
        binary = Path(os.environ["TEST_BINARY"]).resolve()
        environment = {**environment, "POLYREWARD_SERVER__BIND": f"127.0.0.1:{port}"}
        self.log = folder / f"serve-{port}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [binary, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if "listening on " not in self.process.stdout.readline():
            self.stop()
            raise AssertionError(f"the server ended before it listened: {self.log.read_text()}")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Shell:
    """A shell that keeps its variables from one block to the next, and ends with the first command that fails."""

    def __init__(self, folder, environment):
        self.files = folder / "shell"
        self.files.mkdir()
        # Its own standard output only says how a block ended; what the block says goes to files.
        self.process = subprocess.Popen(
            ["sh", "-eu"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, lines):
        """What the lines say on their standard output."""
        if not any(line.strip() for line in lines):
            return ""
        text, out, err = (self.files / name for name in ("block", "out", "err"))
        text.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        names = [shlex.quote(str(name)) for name in (text, out, err)]
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(". {} </dev/null >{} 2>{}\necho done\n".format(*names))
            self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], BLOCK_S)
        if not ready:
            raise AssertionError(f"not done within {BLOCK_S} s: {lines}")
        if self.process.stdout.readline() != "done\n":
            raise AssertionError(f"a command failed: {err.read_text()}{out.read_text()}")
        return out.read_text(encoding="utf-8")

    def variables(self):
        """What it has exported."""
        return dict(line.split("=", 1) for line in self.run(["env"]).splitlines() if "=" in line)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def free_ports(count):
    """The first of some ports in a row that nobody listens on."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for more in range(1, count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + more))
            except (OSError, OverflowError):
                continue
            return port


def json_values(text):
    """The JSON objects in what was said, whatever stands around them."""
    decoder, values, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            values.append(value)
        except json.JSONDecodeError:
            end = at + 1
        at = text.find("{", end)
    return values
