"""`GET /accuracy` against packages that others wrote, on generated people."""

import csv
import io
import json
import tempfile
import unittest
import urllib.parse
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone

import figures
import generated
from filler import DAY, START, fill
from place import OPENER, Place

CLOSE = 1e-6  # what is answered is rounded
MODEL = "pal-a"
COMPARED = "users n accuracy user_accuracy log_loss ece population_accuracy gain bt_accuracy".split()
# An interval is bounded by quantiles of random draws. Of 500 draws that mean the same each bound varies with a standard
# deviation of 3 % of the interval's width, and by steps of one judgement.
BAND = 0.12


class Served(unittest.TestCase):
    """A server of generated people."""

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

    def fetch(self, path, **query):
        address = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with OPENER.open(address) as answer:
            return answer.read().decode()

    def accuracy(self, group_by, **query):
        query = {"model": MODEL, "group_by": ",".join(group_by), **query}
        return json.loads(self.fetch("/accuracy", **query))

    def rows(self, group_by):
        return generated.table(self.people, group_by)

    def assert_figures(self, said, rows, what):
        expected = figures.figures(rows)
        for name in COMPARED:
            self.assertAlmostEqual(said[name], expected[name], delta=CLOSE, msg=f"{name} of {what}")

    def assert_answer(self, said, rows, group_by):
        """Overall figures, the groups' and what is said of them, of the answer for these rows."""
        self.assert_figures(said["overall"], rows, "everybody")
        visible, suppressed = figures.shown(rows, group_by)
        self.assertEqual(said["suppressed_groups"], suppressed)
        groups = {tuple(group["group"][key] or "" for key in group_by): group for group in said["groups"]}
        expected = {figures.key_of(key): of for key, of in visible.groupby(group_by)}
        self.assertEqual(set(groups), set(expected))
        for key, of in expected.items():
            self.assert_figures(groups[key], of, key)
        frame = figures.accuracies(visible, group_by)
        self.assertAlmostEqual(said["gap"]["value"], frame.difference()["accuracy"], delta=CLOSE)
        self.assertAlmostEqual(said["worst_group"]["accuracy"], frame.group_min()["accuracy"], delta=CLOSE)
        worst = tuple(said["worst_group"]["group"][key] or "" for key in group_by)
        self.assertEqual(worst, figures.key_of(frame.by_group["accuracy"].idxmin()))


class PointValues(Served):
    made = {"seed": 5}

    def test_figures_by_one_attribute_are_those_of_fairlearn(self):
        for key in ("country", "age"):
            said = self.accuracy([key])
            self.assertEqual(said["model"], self.model)
            self.assert_answer(said, self.rows([key]), [key])

    def test_figures_by_two_attributes_are_those_of_fairlearn(self):
        both = ["country", "age"]
        self.assert_answer(self.accuracy(both), self.rows(both), both)

    def test_only_predictions_of_the_time_that_is_asked_for_count(self):
        first, after = START + 10 * DAY, START + 25 * DAY
        said = self.accuracy(["country"], **{"from": moment(first), "to": moment(after)})
        rows = self.rows(["country"])
        self.assert_answer(said, rows[(rows["at"] >= first) & (rows["at"] < after)], ["country"])

    def test_a_csv_has_the_figures_of_the_json(self):
        for group_by in (["country"], ["country", "age"]):
            said = self.accuracy(group_by)
            text = self.fetch("/accuracy", model=MODEL, group_by=",".join(group_by), format="csv")
            lines = list(csv.DictReader(io.StringIO(text)))
            self.assertEqual([line["row"] for line in lines], ["overall"] + ["group"] * len(said["groups"]))
            for line, figures_said in zip(lines, [said["overall"], *said["groups"]]):
                group = figures_said.get("group", {})
                self.assertEqual([line[key] for key in group_by], [group.get(key) or "" for key in group_by])
                for name in COMPARED:
                    self.assertEqual(float(line[name]), figures_said[name], f"{name} of {group}")

    def test_agreement_is_that_of_the_package_krippendorff(self):
        said = self.accuracy(["country"])["disagreement"]
        taken = figures.votes(self.rows(["country"]), ["country"])
        self.assertAlmostEqual(said["alpha"], figures.alpha(taken), delta=CLOSE)
        self.assertAlmostEqual(said["within_groups"], figures.alpha_within(taken), delta=CLOSE)
        low, high = said["alpha_ci"]
        self.assertTrue(low < said["alpha"] < high)


class OneJudgementEach(Served):
    """Of people with one judgement each, Fairlearn's draws of judgements are the server's draws of people."""

    made = {"seed": 6, "count": 1200, "most": 1}

    def test_intervals_lie_where_those_of_fairlearn_do(self):
        said = self.accuracy(["country"])
        rows, _ = figures.shown(self.rows(["country"]), ["country"])
        frame = figures.drawn(rows, ["country"])
        low, high = frame.by_group_ci
        for group in said["groups"]:
            key = group["group"]["country"] or ""
            self.assert_band(group["accuracy_ci"], (low.loc[key], high.loc[key]), group["n"], key)

    def assert_band(self, said, drawn, n, what):
        tolerance = BAND * (drawn[1] - drawn[0]) + 1.0 / n
        for mine, theirs in zip(said, drawn):
            self.assertAlmostEqual(mine, theirs, delta=tolerance, msg=f"{what}: {said}, drawn {drawn}")


def moment(micros):
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    unittest.main()
