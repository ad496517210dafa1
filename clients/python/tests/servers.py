"""A real server with small models, started once for all tests and stopped at their end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from people import people_of_two_tastes

from polyreward import Client, Retry

REPOSITORY = Path(__file__).resolve().parents[3]
BACKBONE = REPOSITORY / "crates/backbone/tests/fixtures/tiny-encoder"


def binary() -> Path:
    """The server to test against."""
    path = Path(os.environ.get("POLYREWARD_BINARY") or REPOSITORY / "target/release/polyreward")
    if not path.is_file():
        pytest.exit(f"{path} is not there: `make build`, or name a server in POLYREWARD_BINARY", returncode=2)
    return path


def environment(**settings: str) -> dict[str, str]:
    """The environment of a server: nothing of ours, which it would refuse."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLYREWARD_")}
    return {**kept, "POLYREWARD_BACKBONE__PATH": str(BACKBONE), **settings}


class Server:
    """A running server; its database is a file in `folder`."""

    def __init__(self, folder: Path, models: Path, settings: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "server.log").open("wb")
        self._process = subprocess.Popen(
            [binary(), "serve", "--bind", "127.0.0.1:0", "--models", models],
            cwd=folder,
            env=environment(POLYREWARD_SERVER__GRACE_SECONDS="0", **(settings or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "listening on " not in line:
            self.stop()
            pytest.fail(f"the server did not start: {(folder / 'server.log').read_text()}")
        self.url = line.split("listening on ")[1].strip()

    def stop(self) -> None:
        """Asks it to stop, and waits."""
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


@pytest.fixture(scope="session", autouse=True)
def own_environment() -> Iterator[None]:
    """Loopback is asked directly, and no key or address of the person who runs the tests is used."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("POLYREWARD_API_KEY", "POLYREWARD_KEY", "POLYREWARD_URL"):
            patch.delenv(name, raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of people half of whom prefer tea, and half coffee."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "people.jsonl").write_text(people_of_two_tastes(40), encoding="utf-8")
    command = [str(binary()), "train", "--data", "people.jsonl", "--heads", "bt,lore", "--out", "models"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "models"


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes eight texts at once, so that ordinary calls are divided."""
    running = Server(tmp_path_factory.mktemp("server"), models, {"POLYREWARD_SERVER__MAX_BATCH": "8"})
    yield running
    running.stop()


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, retry=Retry.never()) as made:
        yield made
