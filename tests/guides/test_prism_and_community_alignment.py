"""docs/import-prism-and-community-alignment.md, with made-up files of their layout."""

import json

import made_up
from guided import Guided

NEW = "community-new.jsonl"


class PrismAndCommunityAlignment(Guided):
    name = "docs/import-prism-and-community-alignment.md"

    @classmethod
    def prepare(cls, stack):
        made_up.prism(cls.folder / "prism")
        made_up.community_alignment(cls.folder / "community/community_alignment.csv")

    def records(self, name):
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def test_both_sets_are_read_whole(self):
        said = self.guide.output("--format community-alignment")
        prism, community = said.split("rows ")[1:]
        # 80 people with 3 conversations of two turns: of four responses, of which one ties, and of two.
        self.assertIn("people      80\n", prism)
        self.assertIn("rejected    0\n", prism)
        self.assertIn(f"skipped     {80 * 3} ties\n", prism)
        self.assertIn("skipped     4 people who only answered the survey\n", prism)
        self.assertIn("people      72\n", community)
        self.assertIn(f"stored      {72 * 4 * 2 * 3}\n", community)
        self.assertIn("rejected    0\n", community)
        self.assertNotIn("not read", said)

    def test_what_is_kept_is_asked_for_and_nobody_is_on_both_sides(self):
        for name in "prism", "community":
            train, new = self.records(f"{name}-train.jsonl"), self.records(f"{name}-new.jsonl")
            people = [{record["user_id"] for record in records} for records in (train, new)]
            self.assertFalse(people[0] & people[1])
            self.assertGreaterEqual(len(people[1]), 10)
            for record in train + new:
                self.assertEqual(set(record["attributes"]), {"country", "gender", "age", "dataset"})
        read = {record["user_id"] for record in self.records("community-train.jsonl") + self.records(NEW)}
        self.assertEqual(len(read), 60, "of 72 annotators twelve wrote Hindi")

    def test_accuracy_counts_every_comparison_of_the_new_people(self):
        by_dataset = self.guide.answers("group_by=dataset")[-1]
        self.assertEqual([group["group"]["dataset"] for group in by_dataset["groups"]], ["community", "prism"])
        for group in by_dataset["groups"]:
            records = self.records(f"{group['group']['dataset']}-new.jsonl")
            self.assertEqual(group["users"], len({record["user_id"] for record in records}))
            self.assertEqual(group["n"], len(records))
            self.assertGreater(group["gain"], 0.1, "people differ, and are known")
        rows = self.guide.output("group_by=country").splitlines()
        countries = {
            record["attributes"]["country"]
            for name in ("prism", "community")
            for record in self.records(f"{name}-new.jsonl")
        }
        said = {row.split(",")[1] for row in rows if row.startswith("group,")}
        self.assertLessEqual(said, countries)
        self.assertGreaterEqual(len(said), 3)

    def test_a_new_person_has_a_reward_of_their_own(self):
        body = {
            "model": "lore",
            "items": [{"prompt": "A drink?", "responses": ["have some warm tea", "have some warm coffee"]}],
        }
        people = [record["user_id"] for record in self.records("prism-new.jsonl")]
        tea, coffee = (next(one for one in people if int(one[4:]) % 2 == odd) for odd in (1, 0))
        rewards = [self.ask("/score", {**body, "user_id": one})["results"][0]["rewards"] for one in (tea, coffee)]
        self.assertGreater(rewards[0][0] - rewards[0][1], rewards[1][0] - rewards[1][1])
