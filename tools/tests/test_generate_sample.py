"""The sample data: what it must hold, and that a second run writes the same."""

import collections
import gzip
import itertools
import json
import math
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import generate_sample  # noqa: E402


def gain_of(group, prompt, first, second):
    """How much more a group's ordinary member likes the first response than the second."""
    taste = group.topic_taste.get(prompt.topic, group.taste)
    return sum(weight * (first.axes[axis] - second.axes[axis]) for axis, weight in taste.items())


class GenerateSample(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.files = [Path(cls.folder.name) / name for name in ("one.jsonl.gz", "two.jsonl.gz")]
        for file in cls.files:
            command = [sys.executable, str(ROOT / "tools/generate_sample.py"), "--out", str(file)]
            subprocess.run(command, check=True, capture_output=True)
        data = ROOT / "data/sample"
        cls.population = generate_sample.load_population(data / "people.json")
        cls.prompts = generate_sample.load_prompts(data / "prompts.jsonl", cls.population.axes)
        cls.people = list(generate_sample.make_people(cls.population, cls.population.seed))
        with gzip.open(cls.files[0], "rt", encoding="utf-8") as lines:
            cls.rows = [json.loads(line) for line in lines]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_two_runs_write_the_same(self):
        self.assertEqual(*(gzip.decompress(file.read_bytes()) for file in self.files))

    def test_there_are_300_people_of_40_comparisons_in_six_groups(self):
        people = collections.Counter(row["user_id"] for row in self.rows)
        self.assertEqual(len(people), 300)
        self.assertEqual(set(people.values()), {40})
        self.assertEqual(len({row["attributes"]["group"] for row in self.rows}), 6)

    def test_queries_are_of_unseen_people_on_unseen_prompts(self):
        def values(key, splits):
            return {row[key] for row in self.rows if row["split"] in splits}

        self.assertFalse(values("user_id", {"train"}) & values("user_id", {"context", "query"}))
        self.assertFalse(values("prompt", {"train", "context"}) & values("prompt", {"query"}))

    def test_an_unseen_person_shows_24_comparisons_and_is_asked_16(self):
        of_person = collections.defaultdict(collections.Counter)
        for row in self.rows:
            of_person[row["user_id"]][row["split"]] += 1
        splits = collections.Counter(tuple(sorted(counts.items())) for counts in of_person.values())
        seen = sum(group.seen for group in self.population.groups)
        unseen = (("context", 24), ("query", 16))
        self.assertEqual(splits, {(("train", 40),): seen, unseen: 300 - seen})

    def advantages(self, split):
        """For each comparison of a split, how much more the person likes what is chosen than what is rejected."""
        people = {person.id: person for person in self.people}
        prompts = {prompt.text: prompt for prompt in self.prompts}
        for row in self.rows:
            if row["split"] == split:
                prompt = prompts[row["prompt"]]
                answers = {response.text: response for response in prompt.responses}
                pair = generate_sample.Pair(prompt, answers[row["chosen"]], answers[row["rejected"]])
                yield generate_sample.advantage(people[row["user_id"]], pair)

    def test_one_label_in_twenty_is_a_slip_and_no_query_is(self):
        self.assertEqual(self.population.label_noise, 0.05)
        # Where one answer is better by far, the choice itself errs in less than 2 %; the rest of what is wrong is
        # slips. Without them, or with twice as many, it would be 5 points off.
        sure = [gain for gain in self.advantages("train") if abs(gain) >= 5.0]
        chance = [1.0 / (1.0 + math.exp(-self.population.sharpness * abs(gain))) for gain in sure]
        noise = self.population.label_noise
        expected = sum((1.0 - p) * (1.0 - noise) + p * noise for p in chance) / len(sure)
        wrong = sum(gain < 0.0 for gain in sure) / len(sure)
        self.assertGreater(len(sure), 1000)
        self.assertAlmostEqual(wrong, expected, delta=0.01)
        self.assertTrue(all(gain > 0.0 for gain in self.advantages("query")))

    def test_the_minority_likes_the_opposite_on_the_topics_where_it_differs(self):
        *majority, minority = self.population.groups
        size = minority.seen + minority.unseen
        self.assertLessEqual(size, 300 // 20)
        self.assertTrue(minority.topic_taste)
        weights = [group.seen + group.unseen for group in majority]
        disagree = collections.Counter()
        for prompt in self.prompts:
            if prompt.topic not in minority.topic_taste:
                continue
            for first, second in itertools.combinations(prompt.responses, 2):
                gains = [gain_of(group, prompt, first, second) for group in majority]
                of_majority = sum(weight * gain for weight, gain in zip(weights, gains))
                of_minority = gain_of(minority, prompt, first, second)
                disagree[of_majority * of_minority < 0.0] += 1
        self.assertGreater(disagree[True] / disagree.total(), 0.7, disagree)

    def test_every_prompt_has_five_or_six_answers(self):
        lines = (ROOT / "data/sample/prompts.jsonl").read_text(encoding="utf-8").splitlines()
        prompts = [json.loads(line) for line in lines]
        self.assertGreaterEqual(len(prompts), 80)
        self.assertTrue(all(len(prompt["responses"]) in (5, 6) for prompt in prompts))


if __name__ == "__main__":
    unittest.main()
