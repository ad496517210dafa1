"""Trains on the sample once for each set of inputs: `train_sample.py LINK INPUTS COMMAND...`.

    LINK                     a link to the folder that was trained last
    LINK-INPUTS              that folder; INPUTS names what it was made from
    LINK-training.*          a run that is not finished

COMMAND gets `--out` and a fresh folder, which takes its name only when it is whole. Of two runs at once the second
waits, and finds the folder that it wants. The folder that LINK led to before stays, as a server may be about to read
it; older ones, and what a killed run left, are removed.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setup_cache import locked


def train(link: Path, inputs: str, command: list[str], lock: int) -> None:
    trained = link.with_name(f"{link.name}-{inputs}")
    for stale in beside(link, "-training.*"):
        shutil.rmtree(stale)
    if not trained.is_dir():
        fresh = tempfile.mkdtemp(prefix=f"{link.name}-training.", dir=link.parent)
        # It inherits the lock: a training that outlives a killed run keeps the next one waiting.
        subprocess.run([*command, "--out", fresh], check=True, pass_fds=[lock])
        os.rename(fresh, trained)
    before = link.resolve()
    point(link, trained)
    for old in beside(link, "-*"):
        if old.resolve() not in (trained.resolve(), before):
            shutil.rmtree(old)


def beside(link: Path, ending: str) -> list[Path]:
    pattern = glob.escape(str(link)) + ending
    return [Path(path) for path in glob.glob(pattern) if os.path.isdir(path) and not os.path.islink(path)]


def point(link: Path, folder: Path) -> None:
    """Nobody ever finds no link."""
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)  # an earlier release trained in place
    staging = link.with_name(f"{link.name}.new")
    staging.unlink(missing_ok=True)
    staging.symlink_to(folder.name)
    staging.replace(link)


def main() -> int:
    if len(sys.argv) < 4:
        print("usage: train_sample.py LINK INPUTS COMMAND...", file=sys.stderr)
        return 2
    link = Path(os.path.abspath(sys.argv[1]))
    try:
        busy = f"another run is training {link.name}, waiting for it"
        with locked(link.with_name(f"{link.name}.lock"), busy) as lock:
            train(link, sys.argv[2], sys.argv[3:], lock)
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 1  # it has said why
    except OSError as error:
        print(f"train_sample.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
