"""A server of generated people, and what is expected of every answer about them."""

import json
import tempfile
import unittest
import urllib.parse
from contextlib import ExitStack

import figures
import generated
from filler import fill
from place import OPENER, Place

CLOSE = 1e-6  # what is answered is rounded
MODEL = "pal-a"


class Served(unittest.TestCase):
    """One server for the tests of a class, with people made as `made` says."""

    made = {}

    @classmethod
    def setUpClass(cls):
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        place = Place(stack.enter_context(tempfile.TemporaryDirectory()))
        place.train("bt," + MODEL)
        cls.model = place.versions(MODEL)[0]
        cls.people = generated.people(cls.model, **cls.made)
        cls.database = place.migrate("people.db")
        fill(cls.database, cls.people)
        cls.url = stack.enter_context(place.serving("people.db"))

    def fetch(self, path, group_by, **query):
        query = {"model": MODEL, "group_by": ",".join(group_by), **query}
        with OPENER.open(f"{self.url}{path}?{urllib.parse.urlencode(query)}") as answer:
            return answer.read().decode()

    def ask(self, path, group_by, **query):
        return json.loads(self.fetch(path, group_by, **query))

    def rows(self, group_by):
        return generated.table(self.people, group_by)

    def assert_figures(self, said, rows, names, what):
        expected = figures.figures(rows)
        if "user_accuracy" in names:
            expected["user_accuracy"] = figures.user_accuracy(rows)
        for name in names:
            self.assertAlmostEqual(said[name], expected[name], delta=CLOSE, msg=f"{name} of {what}")
