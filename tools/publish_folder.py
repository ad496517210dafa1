"""Gives a finished folder its name: `publish_folder.py FINISHED NAME`.

The folder appears whole or not at all. When NAME is there already (another run was faster), that one stays and
FINISHED is removed: `mv` would put it *inside* the other.
"""

import errno
import os
import shutil
import sys
from pathlib import Path


def publish(finished: Path, name: Path) -> None:
    try:
        os.rename(finished, name)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(finished)


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: publish_folder.py FINISHED NAME", file=sys.stderr)
        return 2
    try:
        publish(Path(sys.argv[1]), Path(sys.argv[2]))
    except OSError as error:
        print(f"publish_folder.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
