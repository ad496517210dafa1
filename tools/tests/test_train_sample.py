"""One training for each set of inputs, whatever is killed and whoever runs at once."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from handshake import Handshake

SCRIPT = Path(__file__).resolve().parents[1] / "train_sample.py"
# Called as `sh -c TRAIN sh FILE --out FOLDER`.
TRAIN = 'echo trained >"$3/model" && echo "$3" >>"$1"'
SLOW = 'echo hello >"$1/held" && read _ <"$1/let-go" && echo slow >"$3/model"'


class TrainSample(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.link = self.root / "models"
        self.log = self.root / "log"

    def command(self, inputs, script=TRAIN, argument=None):
        return [sys.executable, SCRIPT, self.link, inputs, "sh", "-c", script, "sh", argument or self.log]

    def train(self, inputs, script=TRAIN):
        return subprocess.run(self.command(inputs, script), capture_output=True, text=True, check=False)

    def folders(self):
        return sorted(path.name for path in self.root.glob("models-*"))

    def test_equal_inputs_are_trained_once(self):
        for _ in range(2):
            self.assertEqual(self.train("1").returncode, 0)
        self.assertEqual(len(self.log.read_text().splitlines()), 1)
        self.assertEqual((self.link / "model").read_text(), "trained\n")
        self.assertEqual(self.folders(), ["models-1"])

    def test_the_folder_before_stays_and_older_ones_go(self):
        for inputs in ("1", "2", "3"):
            self.assertEqual(self.train(inputs).returncode, 0)
        self.assertEqual(self.folders(), ["models-2", "models-3"])
        self.assertEqual(self.link.resolve().name, "models-3")

    def test_a_failed_training_keeps_the_link_and_its_rest_goes_with_the_next(self):
        self.train("1")
        self.assertEqual(self.train("2", 'touch "$3/half"; exit 3').returncode, 3)
        self.assertEqual(self.link.resolve().name, "models-1")
        self.assertEqual(len(self.folders()), 2)
        self.train("1")
        self.assertEqual(self.folders(), ["models-1"])

    def test_a_folder_in_the_links_place_is_replaced(self):
        self.link.mkdir()
        self.assertEqual(self.train("1").returncode, 0)
        self.assertTrue(self.link.is_symlink())

    def test_the_second_of_two_runs_waits_and_finds_the_firsts_folder(self):
        handshake = Handshake(self.root)
        self.addCleanup(handshake.close)
        first = subprocess.Popen(self.command("1", SLOW, self.root))
        self.addCleanup(first.wait)
        handshake.hello()
        second = subprocess.Popen(self.command("1"), stdout=subprocess.PIPE, text=True)
        self.addCleanup(second.stdout.close)
        self.addCleanup(second.wait)
        self.assertIn("waiting", second.stdout.readline())
        handshake.go_on()
        self.assertEqual((first.wait(), second.wait()), (0, 0))
        self.assertEqual((self.link / "model").read_text(), "slow\n")
        self.assertFalse(self.log.exists())


if __name__ == "__main__":
    unittest.main()
