"""The sample data: what it must hold, and that a second run writes the same."""

import collections
import gzip
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class GenerateSample(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.files = [Path(cls.folder.name) / name for name in ("one.jsonl.gz", "two.jsonl.gz")]
        for file in cls.files:
            command = [sys.executable, str(ROOT / "tools/generate_sample.py"), "--out", str(file)]
            subprocess.run(command, check=True, capture_output=True)
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

    def test_every_prompt_has_five_or_six_answers(self):
        lines = (ROOT / "data/sample/prompts.jsonl").read_text(encoding="utf-8").splitlines()
        prompts = [json.loads(line) for line in lines]
        self.assertGreaterEqual(len(prompts), 80)
        self.assertTrue(all(len(prompt["responses"]) in (5, 6) for prompt in prompts))


if __name__ == "__main__":
    unittest.main()
