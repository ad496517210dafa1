"""need.sh with `apt-get`, `id` and `flock` of our own on its PATH; nothing is installed."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from handshake import Handshake

SCRIPT = Path(__file__).resolve().parents[1] / "need.sh"
APT_GET = """
echo "apt-get $*" >>"$ROOT/log"
if [ "$1" = install ]; then
    [ -p "$ROOT/held" ] && { echo hello >"$ROOT/held"; read _ <"$ROOT/let-go"; }
    printf '#!/bin/sh\\n' >"$ROOT/bin/tool"
    chmod +x "$ROOT/bin/tool"
fi
"""
# Says on which descriptor it is about to wait.
FLOCK = 'echo "locking $1" && exec "$REAL_FLOCK" "$@"'


class Need(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        (self.root / "bin").mkdir()
        for command in ("chmod",):
            (self.root / "bin" / command).symlink_to(shutil.which(command))
        self.stub("id", "echo 0")
        self.stub("apt-get", APT_GET)
        self.stub("flock", FLOCK)
        self.environment = {
            "PATH": str(self.root / "bin"),
            "ROOT": str(self.root),
            "APT_LOCK": str(self.root / "lock"),
            "REAL_FLOCK": shutil.which("flock"),
        }

    def stub(self, name, body):
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def command(self, *folders):
        return ["/bin/sh", str(SCRIPT), "tool", "package", *folders]

    def need(self, *folders):
        return subprocess.run(self.command(*folders), env=self.environment, capture_output=True, text=True, check=False)

    def log(self):
        log = self.root / "log"
        return log.read_text().splitlines() if log.exists() else []

    def test_root_on_debian_gets_the_package(self):
        result = self.need()
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(self.log(), ["apt-get update -qq", "apt-get install -qq -y --no-install-recommends package"])

    def test_nothing_is_done_where_the_command_is(self):
        self.stub("tool", "exit 0")
        result = self.need()
        self.assertEqual((result.returncode, result.stdout, self.log()), (0, "", []))

    def test_a_command_may_be_in_a_folder_outside_of_the_path(self):
        folders = str(self.root / "lib" / "*" / "bin")
        (self.root / "lib" / "15" / "bin").mkdir(parents=True)
        self.need(folders)
        self.assertIn("apt-get install -qq -y --no-install-recommends package", self.log())
        (self.root / "log").unlink()
        (self.root / "bin" / "tool").rename(self.root / "lib" / "15" / "bin" / "tool")
        result = self.need(folders)
        self.assertEqual((result.returncode, result.stdout, self.log()), (0, "", []))

    def test_others_are_told_what_to_install(self):
        self.stub("id", "echo 1000")
        result = self.need()
        self.assertEqual((result.returncode, self.log()), (1, []))
        self.assertRegex(result.stderr, r"^setup: tool is missing; [^\n]*sudo apt-get install package\)\n$")

    def test_a_failed_installation_is_said(self):
        self.stub("apt-get", "exit 100")
        result = self.need()
        self.assertEqual(result.returncode, 1)
        self.assertIn("tool is missing", result.stderr)

    def test_of_two_runs_at_once_only_one_installs(self):
        handshake = Handshake(self.root)
        self.addCleanup(handshake.close)
        first = subprocess.Popen(self.command(), env=self.environment, stdout=subprocess.DEVNULL)
        self.addCleanup(first.wait)
        handshake.hello()  # it holds the lock, and has not installed yet
        second = subprocess.Popen(self.command(), env=self.environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(second.stdout.close)
        self.addCleanup(second.wait)
        self.assertEqual(second.stdout.readline(), "locking 9\n")
        self.assertEqual(len(self.log()), 2)
        handshake.go_on()
        self.assertEqual((first.wait(), second.wait()), (0, 0))
        self.assertEqual(second.stdout.read(), "")
        self.assertEqual(len(self.log()), 2)
        self.assertTrue(os.access(self.root / "bin" / "tool", os.X_OK))


if __name__ == "__main__":
    unittest.main()
