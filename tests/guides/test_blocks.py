"""Every guide is run by a test of this folder, and no block of one is left out unseen."""

import json
import tempfile
import unittest
from pathlib import Path

from blocks import COMMAND, blocks_of, difference
from place import ROOT

GUIDES = [
    "README.md",
    "docs/compatibility.md",
    "docs/fairness-report.md",
    "docs/import-prism-and-community-alignment.md",
    "docs/openrlhf.md",
    "docs/postgresql-with-compose.md",
    "docs/sql.md",
    "docs/train-with-trl.md",
    "docs/verl.md",
]
# One has a test of its own, the other no command in a block: its figures come from `make bench`.
ELSEWHERE = {"docs/bring-your-own-backbone.md", "docs/performance.md"}
NOT_RUN = {
    ("README.md", "make demo     # fetch, build, train, serve, and play held-out people against the server"),
    ("docs/import-prism-and-community-alignment.md", "pip install huggingface_hub"),
    ("docs/postgresql-with-compose.md", "git pull"),
    ("docs/train-with-trl.md", "pip install trl"),
}
LANGUAGES = {"", "sh", "python", "json", "toml", "yaml"}


class Blocks(unittest.TestCase):
    def test_every_guide_is_known_here(self):
        found = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} | {"README.md"}
        self.assertEqual(found - ELSEWHERE, set(GUIDES))

    def test_blocks_that_are_not_run_are_these_and_say_why(self):
        not_run = {(name, block.text.splitlines()[0]) for name in GUIDES for block in of(name) if block.not_run}
        self.assertEqual(not_run, NOT_RUN)

    def test_a_command_stands_in_a_block_that_is_run(self):
        for name in GUIDES:
            for block in of(name):
                self.assertIn(block.language, LANGUAGES, f"{name}:{block.line}")
                if not block.language:
                    self.assertIsNone(COMMAND.search(block.text), f"{name}:{block.line} is in no language")
                if block.language == "json":
                    json.loads(block.text)

    def test_a_mark_and_a_language_are_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "guide.md"
            path.write_text("a\n<!-- not run by the tests: costs -->\n```sh\nb\n```\n\n```\nc\n```\n")
            marked, plain = blocks_of(path)
            self.assertEqual((marked.language, marked.text, marked.line, marked.not_run), ("sh", "b\n", 4, "costs"))
            self.assertEqual((plain.language, plain.text, plain.not_run), ("", "c\n", None))
            path.write_text("```sh\nb\n")
            with self.assertRaises(AssertionError):
                blocks_of(path)

    def test_an_answer_may_differ_in_numbers_and_versions_alone(self):
        shown = {"model": "vpl@59c5", "n": 1, "known": False, "list": [1.5, "a"]}
        self.assertIsNone(difference(shown, {"model": "vpl@0a1b", "n": 2.5, "known": False, "list": [0, "a"]}))
        for other in [{"known": True}, {"model": "bt@59c5"}, {"n": None}, {"n": True}, {"list": [1]}, {"more": 1}]:
            self.assertIsNotNone(difference(shown, {**shown, **other}), other)


def of(name):
    return blocks_of(ROOT / name)
