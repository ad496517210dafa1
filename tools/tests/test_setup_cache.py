"""Tests of setup_cache.py on temporary folders; nothing is downloaded."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest
import zipfile
from pathlib import Path
from unittest import mock

TOOLS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOOLS))

from handshake import Handshake  # noqa: E402

import setup_cache  # noqa: E402


class CacheTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cache = Path(folder.name)
        for module, name in ((setup_cache, "say"), (os, "fsync")):
            patch = mock.patch.object(module, name)
            patch.start()
            self.addCleanup(patch.stop)

    def script(self, body):
        """Starts Python with `setup_cache` imported and `cache` set."""
        start = f"import sys; sys.path.insert(0, {str(TOOLS)!r})\nimport setup_cache\nfrom pathlib import Path\n"
        start += f"cache = Path({str(self.cache)!r})\n"
        process = subprocess.Popen(
            [sys.executable, "-c", start + textwrap.dedent(body)], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


class LockTest(CacheTest):
    """Says that it holds the lock, and waits until it is let go."""

    WAIT = """
        def wait(cache):
            (cache / "held").write_text("hello")
            (cache / "let-go").read_text()
            (cache / "done").touch()
    """
    HOLD = """
        with setup_cache.locked_cache(cache):
            wait(cache)
    """
    TAKE = """
        with setup_cache.locked_cache(cache):
            print("after the first:", (cache / "done").exists())
    """
    INSTALL = """
        with setup_cache.locked_cache(cache) as lock:
            setup_cache.run([sys.executable, "-c", installer, cache], lock, "installing")
    """

    def hold(self, body):
        self.handshake = Handshake(self.cache)
        self.addCleanup(self.handshake.close)
        wait = textwrap.dedent(self.WAIT)
        installer = f"import sys\nfrom pathlib import Path\n{wait}\nwait(Path(sys.argv[1]))"
        first = self.script(f"{wait}\ninstaller = {installer!r}\n{textwrap.dedent(body)}")
        self.handshake.hello()
        return first

    def take_after_waiting(self):
        """The second run says that it waits, and starts when the first lets go."""
        second = self.script(self.TAKE)
        self.assertIn("another run is filling", second.stdout.readline())
        self.assertIsNone(second.poll())
        self.handshake.go_on()
        self.assertEqual(second.stdout.readline(), "after the first: True\n")

    def test_the_second_run_waits_for_the_first(self):
        self.hold(self.HOLD)
        self.take_after_waiting()

    def test_a_killed_run_gives_the_lock_back(self):
        first = self.hold(self.HOLD)
        first.kill()
        first.wait()
        self.assertEqual(self.script(self.TAKE).stdout.readline(), "after the first: False\n")

    def test_an_installer_that_outlives_a_killed_run_keeps_the_lock(self):
        first = self.hold(self.INSTALL)
        first.kill()
        first.wait()
        self.take_after_waiting()


class StampTest(CacheTest):
    def setUp(self):
        super().setUp()
        self.file = self.cache / "file"
        self.file.write_text("contents", encoding="utf-8")
        setup_cache.write_stamp(self.cache, "part", "key", ["file"])

    def test_a_part_is_current_while_key_and_files_are_the_same(self):
        self.assertTrue(setup_cache.is_current(self.cache, "part", "key"))
        self.assertFalse(setup_cache.is_current(self.cache, "part", "another key"))
        self.assertFalse(setup_cache.is_current(self.cache, "another part", "key"))

    def test_a_file_that_was_only_touched_is_current(self):
        os.utime(self.file, (1, 1))
        self.assertTrue(setup_cache.is_current(self.cache, "part", "key"))

    def test_a_changed_or_missing_file_is_not_current(self):
        self.file.write_text("CONTENTS", encoding="utf-8")
        os.utime(self.file, (1, 1))
        self.assertFalse(setup_cache.is_current(self.cache, "part", "key"))
        self.file.unlink()
        self.assertFalse(setup_cache.is_current(self.cache, "part", "key"))

    def test_verify_sees_a_change_that_kept_size_and_time(self):
        status = self.file.stat()
        self.file.write_text("CONTENTS", encoding="utf-8")
        os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assertTrue(setup_cache.is_current(self.cache, "part", "key"))
        self.assertFalse(setup_cache.is_current(self.cache, "part", "key", verify=True))

    def test_a_damaged_stamp_is_not_current(self):
        for text in ("", "{", "[]", "{}", '{"key": "key", "files": []}'):
            (self.cache / "stamps" / "part.json").write_text(text, encoding="utf-8")
            self.assertFalse(setup_cache.is_current(self.cache, "part", "key"), text)

    def test_a_key_depends_on_every_part_and_on_where_one_ends(self):
        self.assertNotEqual(setup_cache.key_of("ab", "c"), setup_cache.key_of("a", "bc"))
        before = setup_cache.key_of("a", self.file)
        self.file.write_text("other", encoding="utf-8")
        self.assertNotEqual(before, setup_cache.key_of("a", self.file))


class FakeSetup(setup_cache.Setup):
    """Two parts that write a file each; `keys` are what they are made from."""

    keys = {"one": "1", "two": "1"}
    fail_on = None

    def parts(self):
        for part, key in self.keys.items():
            yield part, key, lambda part=part: self.build(part)

    def build(self, part):
        built = self.scratch / part
        built.mkdir()
        (built / "half").touch()
        if part == self.fail_on:
            raise setup_cache.SetupError("no network")
        (built / "whole").touch()
        setup_cache.put_in_place(built, self.cache / part, self.scratch)
        return [part + "/whole"]


class RunTest(CacheTest):
    def setup(self, **changes):
        setup = FakeSetup(self.cache, lock=0)
        for name, value in changes.items():
            setattr(setup, name, value)
        return setup

    def test_the_second_run_makes_nothing(self):
        self.assertEqual(self.setup().run(), ["one", "two"])
        self.assertEqual(self.setup().run(), [])

    def test_a_change_makes_only_its_part_again(self):
        self.setup().run()
        self.assertEqual(self.setup(keys={"one": "1", "two": "2"}).run(), ["two"])

    def test_a_failed_run_keeps_what_was_finished_and_leaves_no_scratch(self):
        with self.assertRaises(setup_cache.SetupError):
            self.setup(fail_on="two").run()
        self.assertFalse((self.cache / "two").exists())
        self.assertFalse((self.cache / "tmp").exists())
        self.assertEqual(self.setup().run(), ["two"])

    def test_a_run_killed_anywhere_is_made_good_by_the_next(self):
        killed = 0
        for stop_at in range(1, 400, 7):
            child = os.fork()
            if child == 0:
                self.run_until(stop_at)
            _, status = os.waitpid(child, 0)
            killed += os.WIFSIGNALED(status)
            self.setup().run()
            for part in ("one", "two"):
                self.assertEqual(sorted(os.listdir(self.cache / part)), ["half", "whole"])
            self.assertEqual(self.setup().run(), [])
            for part in ("one", "two"):
                setup_cache.forget(self.cache, part)
        self.assertGreater(killed, 10)

    def run_until(self, stop_at):
        """Runs in this process, which it kills at its `stop_at`th line of setup_cache.py, or ends."""
        lines = 0

        def count(frame, event, _):
            nonlocal lines
            lines += event == "line" and frame.f_code.co_filename == setup_cache.__file__
            if lines == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return count

        sys.settrace(count)
        try:
            self.setup().run()
        finally:
            os._exit(0)


class InstallTest(CacheTest):
    def test_ruff_is_made_only_where_it_is_asked_for(self):
        parts = [[part for part, _, _ in setup_cache.Setup(self.cache, 0, ruff=ruff).parts()] for ruff in (False, True)]
        self.assertEqual(parts[1], [*parts[0], "ruff"])

    def test_what_only_tests_need_is_made_only_where_it_is_asked_for(self):
        parts = [[part for part, _, _ in setup_cache.Setup(self.cache, 0, tests=of).parts()] for of in (False, True)]
        self.assertEqual(parts[1], [*parts[0], "oracle", "node", "browser"])

    def test_the_browser_packages_depend_on_their_lock_file(self):
        folder = self.cache / "browser-tests"
        shutil.copytree(setup_cache.BROWSER_TESTS, folder)
        with mock.patch.object(setup_cache, "BROWSER_TESTS", folder):
            before = self.keys()
            with open(folder / "package-lock.json", "a", encoding="utf-8") as file:
                file.write("\n")
            after = self.keys()
        self.assertEqual([part for part in before if before[part] != after[part]], ["browser"])

    def keys(self):
        return {part: key for part, key, _ in setup_cache.Setup(self.cache, 0, tests=True).parts()}

    def test_every_npm_package_has_a_hash_and_names_no_address(self):
        text = (setup_cache.BROWSER_TESTS / "package-lock.json").read_text(encoding="utf-8")
        self.assertNotIn("://", text)
        packages = json.loads(text)["packages"]
        self.assertEqual(setup_cache.npm_packages(), ["axe-core", "playwright-core"])
        for name in setup_cache.npm_packages():
            self.assertRegex(packages["node_modules/" + name]["integrity"], r"^sha512-[A-Za-z0-9+/]{86}==$")

    def test_environments_are_made_only_where_they_are_asked_for(self):
        for option, part in (("client", "client-venv"), ("trl", "trl-venv"), ("export", "export-venv")):
            less = [name for name, _, _ in setup_cache.Setup(self.cache, 0).parts()]
            more = [name for name, _, _ in setup_cache.Setup(self.cache, 0, **{option: True}).parts()]
            self.assertEqual(more, [*less, part])

    def test_a_package_with_another_hash_is_refused(self):
        wheel = self.cache / "small-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("small.py", "")
            file.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
            file.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr("small-1.0.dist-info/RECORD", "")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-index", "--no-deps", "--require-hashes"]
        pip += ["--find-links", self.cache, "--dest", self.cache / "out"]
        requirements = self.cache / "requirements.txt"
        right = setup_cache.sha256_of(wheel)
        with setup_cache.locked_cache(self.cache) as lock:
            for digest, accepted in ((right, True), ("0" * 64, False)):
                requirements.write_text(f"small==1.0 --hash=sha256:{digest}\n", encoding="utf-8")
                command = [*pip, "-r", requirements]
                if accepted:
                    setup_cache.run(command, lock, "pip")
                else:
                    with mock.patch("sys.stderr"), self.assertRaisesRegex(setup_cache.SetupError, "pip failed"):
                        setup_cache.run(command, lock, "pip")

    def test_every_pin_has_a_hash_and_names_no_address(self):
        for file in sorted(TOOLS.glob("*.txt")):
            text = file.read_text(encoding="utf-8")
            self.assertNotIn("://", text)
            for requirement in text.replace("\\\n", " ").splitlines():
                self.assertRegex(requirement, r"^[a-z0-9-]+==\S+.* --hash=sha256:[0-9a-f]{64}", file.name)

    def test_an_old_python_is_refused_in_one_line(self):
        with mock.patch.object(sys, "version_info", (3, 9, 18)):
            with self.assertRaisesRegex(
                setup_cache.SetupError, r"^Python 3\.10 or later is needed[^\n]*apt-get install"
            ):
                setup_cache.check_python()

    def test_exporting_needs_a_python_that_onnx_runtime_has_a_wheel_for(self):
        with mock.patch.object(sys, "version_info", (3, 10, 12)):
            setup_cache.check_python()
            with self.assertRaisesRegex(setup_cache.SetupError, r"^Python 3\.11 or later is needed"):
                setup_cache.Setup(self.cache, 0, export=True).build_export_venv()

    def test_a_missing_venv_module_is_named_with_the_command_that_installs_it(self):
        with (
            mock.patch.object(setup_cache.importlib.util, "find_spec", return_value=None),
            mock.patch.object(sys, "executable", "/usr/bin/python3"),
            mock.patch.object(setup_cache.shutil, "which", return_value="/usr/bin/apt-get"),
            mock.patch.object(os, "geteuid", return_value=1000),
            self.assertRaisesRegex(
                setup_cache.SetupError, r"^venv is missing: sudo apt-get install python3\.\d+-venv$"
            ),
        ):
            setup_cache.ensure_venv_module()


if __name__ == "__main__":
    unittest.main()
