"""The commands of docs/bring-your-own-backbone.md, one after another, on a small random model."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import tiny_models
from place import ROOT

GUIDE = ROOT / "docs" / "bring-your-own-backbone.md"
ADDRESS = "127.0.0.1:8080"


def blocks():
    """The guide's commands, a block at a time."""
    return re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


class GuideTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="polyreward-guide-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        # Where the commands are run looks like the repository after `make setup build`, and keeps what they write.
        (self.folder / "tools").symlink_to(ROOT / "tools")
        (self.folder / ".cache").symlink_to(Path(os.environ["POLYREWARD_CACHE"]).resolve())
        (self.folder / "target" / "release").mkdir(parents=True)
        (self.folder / "target" / "release" / "polyreward").symlink_to(Path(os.environ["TEST_BINARY"]).resolve())
        kept = {name: value for name, value in os.environ.items() if not name.startswith("POLYREWARD_")}
        self.environment = {**kept, "POLYREWARD_CACHE": str(self.folder / ".cache")}

    def run_block(self, block):
        done = subprocess.run(
            ["sh", "-euc", block], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, f"{block}\n{done.stderr}")
        return done.stdout

    def test_every_command_works(self):
        tiny_models.llama(self.folder / "model")
        variables, export, train, serve, score = blocks()
        variables, named = re.subn(r"(?m)^export MODEL=\S+", "export MODEL=model", variables)
        self.assertEqual(named, 1)

        said = self.run_block(variables + export)
        self.assertIn("backbones/mine is ready", said)
        self.assertRegex(said, r"(?m)^name +model$")

        said = self.run_block(variables + train)
        self.assertRegex(said, r"(?m)^bt@[0-9a-f]{8} ")
        model = json.loads(next((self.folder / "models-mine/bt").glob("*/model.json")).read_text(encoding="utf-8"))
        self.assertEqual(model["backbone"]["name"], "model")

        self.assertEqual((serve.count(ADDRESS), score.count(ADDRESS)), (1, 1))
        server = subprocess.Popen(
            ["sh", "-euc", f"{variables} exec {serve.replace(ADDRESS, '127.0.0.1:0')}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with server:
            try:
                line = server.stdout.readline()
                self.assertIn("listening on http://", line)
                url = line.split("listening on http://")[1].strip()
                answer = json.loads(self.run_block(score.replace(ADDRESS, url)))
            finally:
                server.terminate()
        self.assertEqual(answer["backbone"], "model")
        (result,) = answer["results"]
        self.assertNotEqual(result["reward_a"], result["reward_b"])
        self.assertTrue(0 < result["preference"] < 1)

    def test_the_guide_names_every_option(self):
        command = [ROOT / "tools" / "export-backbone", "--help"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        options = set(re.findall(r"(?m)^  (--[a-z-]+)", said)) - {"--out"}
        self.assertGreater(len(options), 5)
        text = GUIDE.read_text(encoding="utf-8")
        self.assertEqual([option for option in sorted(options) if f"`{option}" not in text], [])


if __name__ == "__main__":
    unittest.main()
