"""What the README shows runs, and the package can be installed. The guides are run by tests/guides."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from frameworks import frameworks
from servers import REPOSITORY

import polyreward

__all__ = ["frameworks"]

PACKAGE = REPOSITORY / "clients/python"
README = PACKAGE / "README.md"


def snippets(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


SNIPPETS = [pytest.param(text, id=str(n)) for n, text in enumerate(snippets(README))]


@pytest.mark.usefixtures("frameworks")
@pytest.mark.parametrize("text", SNIPPETS)
def test_what_a_document_shows_runs(text: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYREWARD_URL", url)
    names: dict[str, object] = {}
    exec(compile(text, "document", "exec"), names)
    client = names.get("client")
    if isinstance(client, polyreward.Client):
        client.close()


def test_the_five_lines_print_rewards(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLYREWARD_URL", url)
    five = snippets(README)[0]
    assert len(five.strip().replace("\n\n", "\n").splitlines()) == 5
    names: dict[str, object] = {}
    exec(compile(five, "README.md", "exec"), names)
    assert re.fullmatch(r"\[-?\d[\d.e-]*, -?\d[\d.e-]*\]\n", capsys.readouterr().out)
    client = names["client"]
    assert isinstance(client, polyreward.Client)
    client.close()


def test_the_package_can_be_installed(tmp_path: Path) -> None:
    """Its wheel has the version, the types' marker and the command; nothing is fetched."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [*pip, "--disable-pip-version-check", "--target", str(tmp_path), str(PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "polyreward/py.typed").is_file()
    assert (tmp_path / "bin/polyreward-rewardbench").is_file()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import polyreward as p; print(p.__version__, p.__file__)"
    )
    check = [sys.executable, "-I", "-c", code]
    printed = subprocess.run(check, capture_output=True, text=True, check=True).stdout.split()
    assert printed == [polyreward.__version__, str(tmp_path / "polyreward/__init__.py")]


def test_the_version_is_the_server_s() -> None:
    cargo = (REPOSITORY / "Cargo.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', cargo, re.MULTILINE)
    assert found is not None
    assert found[1] == polyreward.__version__
