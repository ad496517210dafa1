"""`GET /accuracy` against packages that others wrote, on generated people."""

import csv
import io
import unittest
from datetime import datetime, timedelta, timezone

import figures
from filler import DAY, START
from served import CLOSE, Served

COMPARED = "users n accuracy user_accuracy log_loss ece population_accuracy gain bt_accuracy".split()
# An interval is bounded by quantiles of random draws. Of 500 draws that mean the same each bound varies with a standard
# deviation of 3 % of the interval's width, and by steps of one judgement.
BAND = 0.12


class PointValues(Served):
    made = {"seed": 5}

    def accuracy(self, group_by, **query):
        return self.ask("/accuracy", group_by, **query)

    def assert_answer(self, said, rows, group_by):
        """Overall figures, the groups' and what is said of them, of the answer for these rows."""
        self.assert_figures(said["overall"], rows, COMPARED, "everybody")
        visible, suppressed = figures.shown(rows, group_by)
        self.assertEqual(said["suppressed_groups"], suppressed)
        groups = {tuple(group["group"][key] or "" for key in group_by): group for group in said["groups"]}
        expected = {figures.key_of(key): of for key, of in visible.groupby(group_by)}
        self.assertEqual(set(groups), set(expected))
        for key, of in expected.items():
            self.assert_figures(groups[key], of, COMPARED, key)
        frame = figures.accuracies(visible, group_by)
        self.assertAlmostEqual(said["gap"]["value"], frame.difference()["accuracy"], delta=CLOSE)
        self.assertAlmostEqual(said["worst_group"]["accuracy"], frame.group_min()["accuracy"], delta=CLOSE)
        worst = tuple(said["worst_group"]["group"][key] or "" for key in group_by)
        self.assertEqual(worst, figures.key_of(frame.by_group["accuracy"].idxmin()))

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
            text = self.fetch("/accuracy", group_by, format="csv")
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
        said = self.ask("/accuracy", ["country"])
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
