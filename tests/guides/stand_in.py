"""`docker compose exec` of services that are processes: compose.py says where they are."""

import json
import os
import re
import sys
from pathlib import Path


def main(words):
    services = json.loads(Path(os.environ["GUIDES_SERVICES"]).read_text(encoding="utf-8"))
    if words[:2] == ["compose", "exec"]:
        return execute(services, words[2:])
    sys.exit(f"nothing here plays docker {' '.join(words)}")


def execute(services, words):
    """Replaces this process by a command as the service would run it."""
    if words[0] != "-T":
        sys.exit("exec without -T needs a terminal")
    service = services[words[1]]
    os.chdir(service["folder"])
    command = [there(service["mounts"], word) for word in words[2:]]
    os.execvpe(command[0], command, service["environment"])


def there(mounts, word):
    """A word of a command, with mounted paths where they lie."""
    for target, place in mounts.items():
        word = re.sub(rf"(?<![\w/]){re.escape(target)}(?![\w-])", lambda _, place=place: place, word)
    return word


if __name__ == "__main__":
    main(sys.argv[1:])
