"""A test case that runs a guide once, and then looks at what came of it."""

import functools
import json
import tempfile
import unittest
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from place import OPENER, Place
from running import Guide


@functools.cache
def trained():
    """A folder of models of people half of whom prefer tea and half coffee, for all tests of this process."""
    folder = tempfile.TemporaryDirectory(prefix="polyreward-guides-")
    Place(folder.name).train("bt,lore,vpl")
    trained.folder = folder  # removed with the process
    return Path(folder.name) / "models"


class Guided(unittest.TestCase):
    """A guide, run whole before the first test."""

    name = None

    @classmethod
    def setUpClass(cls):
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        cls.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="polyreward-guide-")))
        cls.guide = Guide(cls.name, cls.folder)
        stack.callback(cls.guide.close)
        cls.prepare(stack)
        cls.guide.run(cls.after())

    @classmethod
    def prepare(cls, stack):
        """Makes the files and the servers that a guide takes as given."""

    @classmethod
    def after(cls):
        """What to do after the block that has a text."""
        return {}

    @classmethod
    def serve_trained(cls):
        """The server that a guide takes as given."""
        cls.guide.serve(["polyreward", "serve", "--models", str(trained()), "--database-url", "sqlite:given.db"])

    @classmethod
    def ask(cls, path, body=None, **headers):
        """What the guide's server answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        with OPENER.open(urllib.request.Request(cls.guide.url + path, data, headers)) as answer:
            return json.loads(answer.read() or "null")

    @classmethod
    def posted(cls, user_id, liked, other):
        """Somebody with examples, of whom the server knows from then on."""
        examples = [
            {"prompt": "A drink?", "chosen": f"have some {way} {liked}", "rejected": f"have some {way} {other}"}
            for way in ("warm", "fresh", "strong", "sweet")
        ]
        return cls.ask(f"/users/{user_id}/examples", {"attributes": {"country": "UK"}, "examples": examples})
