"""Copies of people, in a database with the real schema."""

import io
import sqlite3
import sys
import tempfile
import unittest
from contextlib import closing, redirect_stdout
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOOLS))
import copy_people  # noqa: E402

MIGRATIONS = sorted((TOOLS.parent / "migrations" / "sqlite").glob("*.sql"))


class CopiesOfPeople(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "people.db"
        self.connection = sqlite3.connect(self.path)
        self.addCleanup(self.connection.close)
        for migration in MIGRATIONS:
            self.connection.executescript(migration.read_text(encoding="utf-8"))

    def add(self, user_id, examples):
        self.connection.execute(
            "INSERT INTO users VALUES ('default', ?, ?, ?, ?, 1, 1)", (user_id, examples, examples, examples)
        )
        for model in ("pal-a@1", "pal-b@1") if examples else ():
            self.connection.execute(
                "INSERT INTO user_states VALUES ('default', ?, ?, ?, ?, ?, ?, ?)",
                (user_id, model.encode(), model, examples, examples, user_id.encode(), b""),
            )
        self.connection.commit()

    def run_tool(self, *arguments):
        with redirect_stdout(io.StringIO()) as told:
            copy_people.main([str(self.path), *arguments])
        return told.getvalue()

    def all(self, query):
        with closing(self.connection.execute(query)) as rows:
            return rows.fetchall()

    def test_crowds_lie_in_one_another_and_everybody_has_states_of_their_own(self):
        self.add("ada", 2)
        self.add("ben", 3)
        self.add("nobody", 0)
        self.assertEqual(self.run_tool("--crowds", "1,5", "--model", "pal-a", "--beyond", "2"), "5 people\n")
        crowds = "SELECT key, count(*) FROM user_attributes WHERE value = 'in' GROUP BY key ORDER BY key"
        self.assertEqual(self.all(crowds), [("crowd-1", 1), ("crowd-5", 5)])
        states = "SELECT user_id, model, mean FROM user_states WHERE user_id LIKE 'copy-%' ORDER BY user_id, model"
        self.assertEqual(
            self.all(states),
            [
                ("copy-0", "pal-a@1", b"ada"),
                ("copy-0", "pal-b@1", b"ada"),
                ("copy-1", "pal-a@1", b"ben"),
                ("copy-1", "pal-b@1", b"ben"),
                ("copy-2", "pal-a@1", b"ada"),
                ("copy-3", "pal-a@1", b"ben"),
                ("copy-4", "pal-a@1", b"ada"),
            ],
        )
        versions = "SELECT state_version FROM users WHERE user_id LIKE 'copy-%' ORDER BY user_id"
        self.assertEqual(self.all(versions), [(2,), (3,), (2,), (3,), (2,)])

    def test_of_nobody_nobody_is_made(self):
        self.add("nobody", 0)
        with self.assertRaisesRegex(SystemExit, "nobody in the database has examples"):
            self.run_tool()
        self.assertEqual(self.all("SELECT count(*) FROM users"), [(1,)])

    def test_a_file_that_is_not_there_is_not_made(self):
        missing = self.path.with_name("other.db")
        with self.assertRaises(sqlite3.OperationalError):
            copy_people.main([str(missing)])
        self.assertFalse(missing.exists())


if __name__ == "__main__":
    unittest.main()
