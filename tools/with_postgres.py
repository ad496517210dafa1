#!/usr/bin/env python3
"""Runs a command beside a PostgreSQL server of its own: with_postgres.py -- COMMAND...

The server lives in a temporary folder, listens on loopback alone, and is gone with its folder once the command has
ended, however it or this script ends. The command finds it in TEST_POSTGRES_URL, as a role that may make
databases and is no superuser, and PostgreSQL's own commands at the end of its PATH. Nothing waits for the disk: what
the server holds is not to be kept.
"""

import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIABLE = "TEST_POSTGRES_URL"
OLDEST = 14
PLACES = ["/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"]
MISSING = (
    f"with_postgres: PostgreSQL {OLDEST} or newer is missing; install its server first "
    "(Debian: sudo apt-get install postgresql)"
)
ROLE = "polyreward"
STARTS = 5
START_S = 60
# Runs apart from this script until its standard input ends: that happens too when this script is
# killed. Then it stops the server and removes what it left. A server that ended by itself keeps its folder for the log.
KEEPER = """
import json, select, shutil, signal, subprocess, sys
folder, log, user, *command = sys.argv[1:]
with open(log, "wb") as out:
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", **json.loads(user))
while not select.select([sys.stdin], [], [], 0.1)[0]:
    if server.poll() is not None:
        sys.exit(1)
for stop in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
    server.send_signal(stop)
    try:
        server.wait(10)
        break
    except subprocess.TimeoutExpired:
        pass
shutil.rmtree(folder, ignore_errors=True)
"""


class Failure(Exception):
    """What to tell, in one line."""


def version_of(folder):
    """The major version of the server in a folder; none where there is no whole one."""
    if not all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
        return None
    result = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r" (\d+)", result.stdout)
    return int(found[1]) if found else None


def find_server():
    """The folder with the newest server's commands."""
    folders = []
    if initdb := shutil.which("initdb"):
        folders.append(Path(initdb).resolve().parent)
    if config := shutil.which("pg_config"):
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(told.stdout.strip()))
    folders += [folder for place in PLACES for folder in sorted(Path("/").glob(place.lstrip("/")))]
    versions = [(version, folder) for folder in folders if (version := version_of(folder)) is not None]
    version, folder = max(versions, default=(0, None))
    if version < OLDEST:
        raise Failure(MISSING)
    return folder


def server_user():
    """What makes a process run as somebody whom PostgreSQL accepts: it refuses root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise Failure("with_postgres: PostgreSQL does not run as root, and there is no user postgres or nobody")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A server with a role and no databases but its own."""

    def __init__(self):
        self.bin = find_server()
        self.user = server_user()
        self.folder = Path(tempfile.mkdtemp(prefix="polyreward-postgres-"))
        self.keeper = None
        try:
            if self.user:
                os.chown(self.folder, self.user["user"], self.user["group"])
            self.data = self.folder / "data"
            self.log = self.folder / "log"
            self.password = secrets.token_hex(16)
            self.create()
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self):
        return f"postgres://{ROLE}:{self.password}@127.0.0.1:{self.port}/postgres"

    def create(self):
        initdb = [self.bin / "initdb", "--pgdata", self.data, "--username", "postgres", "--encoding", "UTF8"]
        self.command([*initdb, "--locale", "C", "--auth-local", "peer", "--auth-host", "scram-sha-256", "--no-sync"])
        # In one process without a socket: so no other command is needed, and nobody else is let in meanwhile.
        role = f"CREATE ROLE {ROLE} LOGIN CREATEDB NOSUPERUSER PASSWORD '{self.password}';\n"
        self.command([self.bin / "postgres", "--single", "-D", self.data, "postgres"], role)

    def command(self, command, given=""):
        result = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, cwd=self.folder, **self.user
        )
        if result.returncode != 0:
            raise Failure(f"with_postgres: {command[0]} failed: {result.stderr.strip()}")

    def start(self):
        for _ in range(STARTS):
            self.port = free_port()
            self.launch()
            if self.is_ready():
                return
            told = self.log.read_text(errors="replace")
            # Somebody may have taken the port meanwhile.
            if "could not bind" not in told:
                break
        raise Failure(f"with_postgres: PostgreSQL does not start: {told.strip()}")

    def launch(self):
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "max_connections": 200,
            "fsync": "off",
            "full_page_writes": "off",
            "timezone": "UTC",
        }
        command = [self.bin / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self.keeper = subprocess.Popen(
            [sys.executable, "-c", KEEPER, self.folder, self.log, json.dumps(self.user), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def is_ready(self):
        """Waits until the server takes connections, or has ended."""
        state = self.data / "postmaster.pid"
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self.keeper.poll() is not None:
                return False
            lines = state.read_text().splitlines() if state.exists() else []
            if len(lines) > 7 and lines[7].strip() == "ready":
                return True
            time.sleep(0.02)
        return False

    def stop(self):
        if self.keeper:
            self.keeper.stdin.close()
            self.keeper.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def run(command, cluster):
    """The command's exit code; signals that ask this script to end are passed on to it."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(cluster.bin)])
    # A signal that comes while the command is being started is kept until there is somebody to pass it on to.
    children, early = [], []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: children[0].send_signal(number) if children else early.append(number))
    children.append(subprocess.Popen(command, env={**os.environ, "PATH": path, VARIABLE: cluster.url}))
    for number in early:
        children[0].send_signal(number)
    code = children[0].wait()
    return code if code >= 0 else 128 - code


def main(arguments):
    if arguments[:1] != ["--"] or len(arguments) < 2:
        print("usage: with_postgres.py -- COMMAND...", file=sys.stderr)
        return 2
    # Until the command runs, a request to end is an exception, so that nothing stays.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        cluster = Cluster()
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    try:
        return run(arguments[1:], cluster)
    except FileNotFoundError:
        print(f"with_postgres: there is no command {arguments[1]}", file=sys.stderr)
        return 127
    finally:
        cluster.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
