"""A trained folder appears whole, and the first of two runs keeps its name."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "publish_folder.py"


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "model").write_text(content)
    return path


class PublishFolder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)

    def publish(self, finished: Path, name: Path) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPT), str(finished), str(name)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_a_finished_folder_gets_its_name(self):
        finished, name = folder(self.root / "fresh", "first"), self.root / "models"
        self.assertEqual(self.publish(finished, name).returncode, 0)
        self.assertEqual((name / "model").read_text(), "first")
        self.assertFalse(finished.exists())

    def test_the_second_of_two_runs_keeps_the_first_ones_folder(self):
        name = folder(self.root / "models", "first")
        finished = folder(self.root / "fresh", "second")
        self.assertEqual(self.publish(finished, name).returncode, 0)
        self.assertEqual([entry.name for entry in self.root.iterdir()], ["models"])
        self.assertEqual([entry.name for entry in name.iterdir()], ["model"])
        self.assertEqual((name / "model").read_text(), "first")

    def test_any_other_failure_is_one_line_and_keeps_the_work(self):
        finished = folder(self.root / "fresh", "first")
        result = self.publish(finished, self.root / "nowhere" / "models")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(len(result.stderr.splitlines()), 1)
        self.assertEqual((finished / "model").read_text(), "first")


if __name__ == "__main__":
    unittest.main()
