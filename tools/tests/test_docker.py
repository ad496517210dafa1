"""What docker/ repeats of the rest of the repository."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Docker(unittest.TestCase):
    def test_the_image_builds_with_its_own_toolchain_which_is_the_repositorys(self):
        toolchain = (ROOT / "rust-toolchain.toml").read_text(encoding="utf-8")
        channel = re.search(r'^channel = "([0-9.]+)"$', toolchain, re.MULTILINE).group(1)
        dockerfile = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
        self.assertIn(f"FROM rust:{channel}-", dockerfile)
        self.assertIn(f"ENV RUSTUP_TOOLCHAIN={channel}\n", dockerfile)

    def test_the_server_waits_for_its_database_and_is_no_superuser_of_it(self):
        compose = (ROOT / "docker/compose.yaml").read_text(encoding="utf-8")
        self.assertIn("condition: service_healthy", compose)
        url = re.search(r"POLYREWARD_DATABASE__URL: \"postgres://(\w+):", compose).group(1)
        roles = (ROOT / "docker/database.sh").read_text(encoding="utf-8")
        self.assertIn(f"CREATE ROLE {url} LOGIN NOSUPERUSER NOBYPASSRLS", roles)


if __name__ == "__main__":
    unittest.main()
