"""docs/fairness-report.md, with people of three countries, those of one of whom answer at random."""

import csv
import json
import re

import made_up
from guided import Guided
from place import OPENER, ROOT

COUNTRIES = ["DE", "FR", "UK"]


class FairnessReport(Guided):
    name = "docs/fairness-report.md"

    @classmethod
    def prepare(cls, stack):
        made_up.unfair(cls.folder / "comparisons.jsonl")

    def records(self, name):
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def report(self):
        return json.loads((self.folder / "accuracy.json").read_text())

    def test_nobody_is_on_both_sides_and_nothing_is_lost(self):
        train, measure, every = map(self.records, ("train.jsonl", "measure.jsonl", "comparisons.jsonl"))
        people = [{record["user_id"] for record in records} for records in (train, measure)]
        self.assertFalse(people[0] & people[1])
        self.assertEqual(len(train) + len(measure), len(every))

    def test_every_comparison_of_the_measured_is_counted_in_its_group(self):
        measured = self.records("measure.jsonl")
        report = self.report()
        self.assertEqual([group["group"] for group in report["groups"]], [{"country": name} for name in COUNTRIES])
        for group in [*report["groups"], report["overall"]]:
            country = group.get("group", {}).get("country")
            of = [record for record in measured if country in (None, record["attributes"]["country"])]
            self.assertEqual(group["n"], len({(r["user_id"], r["chosen"], r["rejected"]) for r in of}))
            self.assertEqual(group["users"], len({record["user_id"] for record in of}))

    def test_the_group_that_is_served_worst_is_found_and_said_to_differ(self):
        report = self.report()
        self.assertEqual(report["worst_group"]["group"], {"country": "FR"})
        self.assertGreater(report["gap"]["ci"][0], 0.05)
        said = self.guide.output('accuracy.json") as file').splitlines()
        self.assertEqual([line.split(":")[0] for line in said[:3]], COUNTRIES)
        self.assertRegex(said[3], r"^gap 0\.\d\d \(0\.\d\d to 0\.\d\d\), p 0\.001: groups differ$")
        self.assertRegex(said[4], r"^not shown: 0 groups; agreement: ")

    def test_where_groups_are_alike_they_are_not_shown_to_differ(self):
        report = self.ask("/accuracy?model=lore&group_by=hand")
        (self.folder / "accuracy.json").rename(self.folder / "by-country.json")
        self.addCleanup((self.folder / "by-country.json").rename, self.folder / "accuracy.json")
        of_hands = json.dumps(report).replace('"hand"', '"country"')
        (self.folder / "accuracy.json").write_text(of_hands)
        said = self.guide.run_python(self.guide.block('accuracy.json") as file'))
        self.assertEqual(report["gap"]["ci"][0], 0)
        self.assertIn("groups are not shown to differ", said)

    def test_the_dashboard_draws_the_same_at_the_address_that_is_told(self):
        told = re.search(r"`http://127\.0\.0\.1:8080(/\S+)`", (ROOT / self.name).read_text())[1]
        with OPENER.open(self.guide.url + told) as answer:
            page = answer.read().decode()
        for country in COUNTRIES:
            self.assertIn(country, page)

    def test_the_table_says_the_same(self):
        rows = self.table("accuracy.csv")
        self.assertEqual([row["country"] for row in rows if row["row"] == "group"], COUNTRIES)
        for row, group in zip(rows[1:], self.report()["groups"]):
            self.assertEqual(float(row["accuracy"]), group["accuracy"])

    def test_a_known_person_gains_with_examples_where_tastes_are_steady(self):
        points = [row for row in self.table("shots.csv") if row["country"] == "UK"]
        self.assertEqual(points[0]["shots_from"], "0")
        self.assertGreater(float(points[-1]["accuracy"]), float(points[0]["accuracy"]) + 0.2)

    def test_every_rule_of_the_tournament_answers(self):
        answer = json.loads((self.folder / "tournament.json").read_text())
        self.assertEqual(len(answer["borda"]), 3)
        winners = set(answer["winners"].values())
        self.assertEqual(answer["unanimous"], len(winners) == 1)

    def table(self, name):
        with open(self.folder / name, newline="") as file:
            return list(csv.DictReader(file))
