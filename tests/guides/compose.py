"""What Docker Compose makes of docker/compose.yaml, with processes of this machine in place of containers.

A service's environment, command, volumes and ports are read from the file and from the Dockerfile, as an engine would.
A name of a service in an address becomes the address of its process, a mounted path the folder or file behind it.
PostgreSQL is a real one that this run starts; of Grafana, of which there is no program here, the mounts are checked.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import with_postgres
import yaml
from place import BACKBONE, ROOT
from running import Server
from stand_in import there

VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")
STAND_IN = Path(__file__).with_name("stand_in.py")
STEP_S = 60


class Postgres(with_postgres.Cluster):
    """A server with a superuser of a password alone, as the image's is before its scripts have run."""

    def create(self):
        initdb = [self.bin / "initdb", "--pgdata", self.data, "--username", "postgres", "--encoding", "UTF8"]
        self.command([*initdb, "--locale", "C", "--auth-local", "peer", "--auth-host", "scram-sha-256", "--no-sync"])
        password = f"ALTER ROLE postgres PASSWORD '{self.password}';\n"
        self.command([self.bin / "postgres", "--single", "-D", self.data, "postgres"], password)


class Compose:
    """The services of docker/ in a guide's folder, and a `docker` among its commands."""

    def __init__(self, guide):
        self.guide = guide
        self.folder = guide.folder
        self.volumes = self.folder / "volumes"
        self.volumes.mkdir()
        self.servers = []
        self.postgres = None
        self.plan = {}
        commands = self.folder / "commands"
        (commands / "docker").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n', encoding="utf-8")
        (commands / "docker").chmod(0o755)
        guide.played.append((re.compile(r"^docker compose (up|stop|down)\b"), self.play))
        self.state = self.folder / "services.json"
        guide.shell.run([f"export GUIDES_SERVICES='{self.state}'"])

    def close(self):
        self.stop()
        if self.postgres:
            self.postgres.stop()

    def play(self, words):
        verb, *options = words[2:]
        if verb == "up":
            return self.up(options)
        if (verb, options) not in [("stop", ["server"]), ("down", [])]:
            raise AssertionError(f"nothing here plays {' '.join(words)}")
        return self.stop()

    def read(self):
        """The services, with what the environment and docker/.env say of the variables in them."""
        variables = self.guide.shell.variables()
        place = self.folder / variables.get("COMPOSE_FILE", "no COMPOSE_FILE")
        lines = (place.parent / ".env").read_text(encoding="utf-8").splitlines()
        variables = {**dict(line.split("=", 1) for line in lines), **variables}
        document = yaml.safe_load(place.read_text(encoding="utf-8"))
        return interpolated(document, variables)

    def up(self, options):
        if "--detach" not in options:
            raise AssertionError("compose up would not come back")
        scale = next((int(word.split("=")[1]) for word in options if word.startswith("server=")), 1)
        document = self.read()
        self.plan = {name: Service(name, about, self) for name, about in document["services"].items()}
        if mounted := {name for service in self.plan.values() for name in service.volumes} ^ set(document["volumes"]):
            raise AssertionError(f"volumes that are mounted, but not there, or the other way round: {mounted}")
        self.check_mounts()
        self.stop()
        if not self.postgres:
            self.make_database()
        self.tell_stand_in()
        self.start_servers(scale)
        reader = self.plan["reader"]
        reader.run([there(reader.mounts, word) for word in reader.about["entrypoint"]])

    def check_mounts(self):
        """Whatever is mounted from the repository is there."""
        for service in self.plan.values():
            for target, source in service.mounts.items():
                if not Path(source).exists():
                    raise AssertionError(f"{service.name} mounts {source} at {target}, which is not there")

    def make_database(self):
        """The image's first start: the superuser's password, then its scripts in order."""
        self.postgres = Postgres()
        database = self.plan["database"]
        asked = database.environment["POSTGRES_PASSWORD"]
        change = {**database.surroundings(), "PGPASSWORD": self.postgres.password}
        command = ["psql", "--username", "postgres", "--quiet", "--command", f"ALTER ROLE postgres PASSWORD '{asked}'"]
        subprocess.run(command, env=change, check=True, timeout=STEP_S)
        for target, source in sorted(database.mounts.items()):
            if target.startswith("/docker-entrypoint-initdb.d/") and target.endswith(".sh"):
                database.run(["sh", source])
        database.run(database.about["healthcheck"]["test"][1:])

    def start_servers(self, scale):
        server = self.plan["server"]
        first, last = server.published()
        if scale > last - first + 1:
            raise AssertionError(f"{scale} servers do not fit the ports {first} to {last}")
        arguments = [there(server.mounts, word) for word in image()["CMD"]]
        # Every container listens on a port of its own; here it is the one that is published.
        at = arguments.index("--bind")
        for port in range(first, first + scale):
            arguments[at + 1] = f"127.0.0.1:{port}"
            self.servers.append(Server(arguments, server.folder, server.surroundings(), port))

    def tell_stand_in(self):
        """What `docker compose exec` needs to know."""
        services = {
            name: {"environment": service.surroundings(), "mounts": service.mounts, "folder": str(service.folder)}
            for name, service in self.plan.items()
        }
        self.state.write_text(json.dumps(services), encoding="utf-8")

    def stop(self):
        """Ends the servers. PostgreSQL stays, as its volume would."""
        while self.servers:
            self.servers.pop().stop()


class Service:
    """A service of the file."""

    def __init__(self, name, about, compose):
        self.name, self.about, self.compose = name, about, compose
        self.environment = {key: str(value) for key, value in about.get("environment", {}).items()}
        self.volumes, self.mounts = set(), {}
        for mount in about.get("volumes", []):
            source, target = mount.split(":")[:2]
            if source.startswith("."):
                self.mounts[target] = str((compose.folder / "docker" / source).resolve())
            else:
                self.volumes.add(source)
                (compose.volumes / source).mkdir(exist_ok=True)
                self.mounts[target] = str(compose.volumes / source)
        self.folder = compose.volumes / "state"

    def surroundings(self):
        """The environment of its processes."""
        postgres = self.compose.postgres
        given = {key: self.address(value) for key, value in self.environment.items()}
        kept = {
            name: value for name, value in self.compose.guide.environment.items() if not name.startswith("POLYREWARD_")
        }
        # A name of a host is resolved to this machine, and the image's superuser needs no password on its own.
        given |= {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(postgres.port)}
        if self.name == "database":
            given |= {"PGHOST": "database", "PGPASSWORD": self.environment["POSTGRES_PASSWORD"]}
        if self.name == "server":
            # What the Dockerfile puts into the image, where it lies on this machine.
            given |= {"POLYREWARD_BACKBONE__PATH": str(BACKBONE), "POLYREWARD_SERVER__GRACE_SECONDS": "0"}
        return {**kept, **given}

    def address(self, value):
        return value.replace("@database/", f"@127.0.0.1:{self.compose.postgres.port}/")

    def run(self, command):
        done = subprocess.run(
            command, env=self.surroundings(), capture_output=True, text=True, timeout=STEP_S, check=False
        )
        if done.returncode:
            raise AssertionError(f"{self.name}: {command} failed: {done.stderr}{done.stdout}")

    def published(self):
        """The first and the last port of the host for the container's 8080."""
        for port in self.about["ports"]:
            host, ports, inside = port.split(":")
            if (host, inside) == ("127.0.0.1", "8080"):
                first, _, last = self.compose.guide.as_here(ports).partition("-")
                return int(first), int(last or first)
        raise AssertionError("the server's port is not published on loopback")


def interpolated(value, variables):
    """A document with its variables put in; one that must be set and is not fails, as compose does."""
    if isinstance(value, dict):
        return {key: interpolated(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, variables) for inner in value]
    if not isinstance(value, str):
        return value

    def put(found):
        name, how, other = found.groups()
        if variables.get(name):
            return variables[name]
        if how == ":-":
            return other
        raise AssertionError(other or f"{name} is not set")

    return VARIABLE.sub(put, value)


def image():
    """What the Dockerfile's last instructions in JSON say, by their names."""
    found = {}
    for line in (ROOT / "docker/Dockerfile").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(" ")
        if rest.startswith("["):
            found[name] = json.loads(rest)
    if found.get("ENTRYPOINT") != ["polyreward"]:
        raise AssertionError("the image's entry point is not the binary")
    return found
