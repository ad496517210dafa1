"""The server of another commit, with a cargo that only copies a file."""

import io
import os
import subprocess
import sys
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

TOOLS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOOLS))
import bench_compare  # noqa: E402

CARGO = """#!/bin/sh
[ -f broken ] && exit 101
mkdir -p "$CARGO_TARGET_DIR/release" && cp code "$CARGO_TARGET_DIR/release/polyreward"
"""


class TheServerOfAnotherCommit(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name) / "tree"
        self.out = self.root / "target" / "bench" / "polyreward-base"
        bin_folder = Path(folder.name) / "bin"
        bin_folder.mkdir()
        cargo = bin_folder / "cargo"
        cargo.write_text(CARGO)
        cargo.chmod(0o755)
        self.root.mkdir()
        self.git("init", "--quiet")
        (self.root / ".gitignore").write_text("/target\n")
        self.commit("code", "old")
        self.commit("code", "new")
        environment = {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
        for patch in (mock.patch.object(bench_compare, "ROOT", self.root), mock.patch.dict(os.environ, environment)):
            patch.start()
            self.addCleanup(patch.stop)

    def git(self, *arguments):
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        command = ["git", "-C", self.root, *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, name, text):
        (self.root / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", text)

    def run_tool(self, *arguments):
        with redirect_stdout(io.StringIO()) as told, redirect_stderr(io.StringIO()) as complained:
            code = bench_compare.main([*arguments])
        return code, told.getvalue().strip(), complained.getvalue()

    def test_it_is_built_beside_this_one_and_its_worktree_is_gone(self):
        for _ in range(2):
            code, told, _complained = self.run_tool("HEAD~1", str(self.out))
            self.assertEqual((code, told), (0, self.git("rev-parse", "HEAD~1")))
            self.assertEqual(self.out.read_text(), "old")
        self.assertEqual((self.root / "code").read_text(), "new")
        self.assertEqual(len(self.git("worktree", "list").splitlines()), 1)

    def test_one_that_a_killed_run_left_is_no_hindrance(self):
        left = self.root / "target" / "bench" / "base"
        self.git("worktree", "add", "--detach", str(left), "HEAD")
        self.assertEqual(self.run_tool("HEAD~1", str(self.out))[0], 0)
        self.assertEqual(self.out.read_text(), "old")

    def test_what_is_no_commit_is_named(self):
        for name in ("nothing", "--help"):
            code, _told, complained = self.run_tool(name, str(self.out))
            self.assertEqual(code, 2)
            self.assertIn(f"{name} is no commit", complained)

    def test_a_build_that_fails_leaves_no_worktree(self):
        self.commit("broken", "yes")
        code, _told, complained = self.run_tool("HEAD", str(self.out))
        self.assertEqual(code, 1)
        self.assertIn("cargo build", complained)
        self.assertFalse(self.out.exists())
        self.assertEqual(len(self.git("worktree", "list").splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
