"""`GET /accuracy/shots` and `/accuracy/timeline` against the same counting, point by point."""

import unittest
from datetime import datetime, timezone

import figures
from filler import DAY
from served import Served

COMPARED = "users n accuracy log_loss population_accuracy gain bt_accuracy".split()


class Curves(Served):
    made = {"seed": 7, "count": 300, "most": 40}

    def assert_curves(self, said, rows, key_of_point, column):
        """Each point's figures, and that no point with enough people is missing."""
        self.assert_points(said["overall"], rows, key_of_point, column)
        for curve in said["groups"]:
            of = rows[rows["country"] == (curve["group"]["country"] or "")]
            self.assert_points(curve["points"], of, key_of_point, column)
        self.assertGreater(len(said["groups"]), 3)

    def assert_points(self, points, rows, key_of_point, column):
        expected = {key: of for key, of in rows.groupby(column) if of["user_id"].nunique() >= figures.FLOOR}
        self.assertEqual([key_of_point(point) for point in points], sorted(expected))
        for point in points:
            key = key_of_point(point)
            self.assert_figures(point, expected[key], COMPARED, f"{column} {key}")

    def test_accuracy_against_numbers_of_examples_is_counted_by_their_classes(self):
        said = self.ask("/accuracy/shots", ["country"])
        begins = [0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128]
        rows = self.rows(["country"])
        rows["begins"] = rows["shot"].map(lambda shot: max(begin for begin in begins if begin <= shot))
        self.assert_curves(said, rows, lambda point: point["shots"]["from"], "begins")

    def test_accuracy_against_time_is_counted_by_days(self):
        said = self.ask("/accuracy/timeline", ["country"], step="day")
        rows = self.rows(["country"])
        rows["day"] = rows["at"] // DAY
        self.assert_curves(said, rows, day_of, "day")


def day_of(point):
    start = datetime.fromisoformat(point["start"].replace("Z", "+00:00"))
    return (start - datetime(1970, 1, 1, tzinfo=timezone.utc)).days


if __name__ == "__main__":
    unittest.main()
