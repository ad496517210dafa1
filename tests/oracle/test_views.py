"""The views of the database say what the API says."""

import math
import sqlite3
import unittest
from contextlib import closing

from filler import DAY
from served import CLOSE, Served
from test_curves import day_of

FIGURES = "users n accuracy user_accuracy log_loss ece population_accuracy gain bt_accuracy".split()
POINT = "users n accuracy log_loss population_accuracy gain bt_accuracy".split()


class Views(Served):
    made = {"seed": 8}

    def select(self, view, names, where="TRUE"):
        """Rows of a view, of the model alone, by name."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            connection.create_function("ln", 1, math.log)
            connection.row_factory = sqlite3.Row
            query = f"SELECT {', '.join(names)} FROM {view} WHERE model = ? AND {where}"
            return [dict(row) for row in connection.execute(query, (self.model,))]

    def assert_same(self, row, said, names, what):
        for name in names:
            self.assertAlmostEqual(row[name], said[name], delta=CLOSE, msg=f"{name} of {what}")

    def test_everybodys_figures_are_those_of_the_answer(self):
        (row,) = self.select("accuracy_overall", FIGURES)
        self.assert_same(row, self.ask("/accuracy", ["country"])["overall"], FIGURES, "everybody")

    def test_figures_of_groups_are_those_of_the_answer(self):
        for attribute in ("country", "age"):
            rows = self.select("accuracy_by_group", [*FIGURES, "value"], f"attribute = '{attribute}'")
            found = {row["value"]: row for row in rows}
            groups = self.ask("/accuracy", [attribute])["groups"]
            known = [group for group in groups if group["group"][attribute] is not None]
            self.assertGreater(len(known), 3)
            for group in known:
                value = group["group"][attribute]
                self.assert_same(found[value], group, FIGURES, value)

    def test_points_by_number_of_examples_and_by_day_are_those_of_the_answers(self):
        by_shot = {row["shot"]: row for row in self.select("accuracy_by_shot", [*POINT, "shot"])}
        for point in self.ask("/accuracy/shots", ["country"])["overall"]:
            self.assert_same(by_shot[point["shots"]["from"]], point, POINT, point["shots"])
        by_day = {row["day"] // DAY: row for row in self.select("accuracy_by_day", [*POINT, "day"])}
        for point in self.ask("/accuracy/timeline", ["country"], step="day")["overall"]:
            self.assert_same(by_day[day_of(point)], point, POINT, point["start"])

    def test_reliability_is_that_of_the_answer(self):
        names = ["n", "confidence", "accuracy"]
        rows = self.select("reliability", ["confidence_from", "confidence_to", *names])
        found = {(round(row["confidence_from"], 1), round(row["confidence_to"], 1)): row for row in rows}
        classes = self.ask("/accuracy", ["country"])["overall"]["reliability"]
        self.assertEqual([(of["from"], of["to"]) for of in classes], sorted(found))
        self.assertEqual(len(classes), 6)
        for of in classes:
            self.assert_same(found[of["from"], of["to"]], of, names, of["from"])


if __name__ == "__main__":
    unittest.main()
