"""A server for a command, gone with its folder whoever ends first."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "with_postgres.py"
URL = "TEST_POSTGRES_URL"
# Says where the server is and who it is itself, and waits to be ended.
TELL_AND_WAIT = f'trap "echo ended; exit 9" INT TERM; echo "${URL} $$"; while :; do sleep 0.1; done'
PATIENCE_S = 30


class WithPostgres(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.root.chmod(0o755)
        self.environment = {**os.environ, "TMPDIR": str(self.root)}
        # Whoever runs the tests in the background lets them inherit that SIGINT is ignored, which no shell can trap.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)

    def command(self, script):
        return [sys.executable, SCRIPT, "--", "sh", "-c", script]

    def run_with(self, script, **environment):
        return subprocess.run(
            self.command(script),
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def started(self):
        """A script whose command runs, that command's process and the server's."""
        running = subprocess.Popen(self.command(TELL_AND_WAIT), env=self.environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(running.stdout.close)
        url, command = running.stdout.readline().split()
        self.assertRegex(url, r"^postgres://polyreward:\w+@127.0.0.1:\d+/postgres$")
        (folder,) = self.root.iterdir()
        server = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        return running, int(command), server

    def assert_gone(self, server):
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                os.kill(server, 0)
            except ProcessLookupError:
                if not list(self.root.iterdir()):
                    return
            time.sleep(0.05)
        self.fail("the server or its folder is still there")

    def test_the_command_has_a_role_that_may_make_databases_and_is_no_superuser(self):
        ask = "SELECT current_user, rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        result = self.run_with(f'psql --no-align --tuples-only --command "{ask}" "${URL}"')
        self.assertEqual((result.returncode, result.stdout), (0, "polyreward|f|t\n"))
        self.assertEqual(list(self.root.iterdir()), [])

    def test_the_commands_exit_code_is_passed_on(self):
        self.assertEqual(self.run_with("exit 7").returncode, 7)
        self.assertEqual(self.run_with("kill -9 $$").returncode, 128 + signal.SIGKILL)
        self.assertEqual(list(self.root.iterdir()), [])

    def test_a_request_to_end_reaches_the_command_and_the_server(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            running, _, server = self.started()
            running.send_signal(number)
            self.assertEqual(running.wait(PATIENCE_S), 9)
            self.assertEqual(running.stdout.read(), "ended\n")
            self.assert_gone(server)

    def test_the_server_does_not_outlive_a_killed_script(self):
        running, command, server = self.started()
        running.kill()
        running.wait()
        os.kill(command, signal.SIGKILL)
        self.assert_gone(server)

    def test_without_postgresql_one_line_says_what_to_install(self):
        program = (
            "import runpy, sys; sys.argv = ['with_postgres.py', '--', 'true']; "
            f"script = runpy.run_path({str(SCRIPT)!r}); main = script['main']; "
            "main.__globals__['find_server'].__globals__['PLACES'].clear(); sys.exit(main(['--', 'true']))"
        )
        result = subprocess.run(
            [sys.executable, "-c", program],
            env={**self.environment, "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(result.returncode, 1)
        self.assertRegex(
            result.stderr, r"^with_postgres: PostgreSQL 14 or newer is missing[^\n]*install postgresql\)\n$"
        )


if __name__ == "__main__":
    unittest.main()
