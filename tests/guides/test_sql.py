"""docs/sql.md, in a real PostgreSQL with people in it."""

import re
import subprocess

import made_up
from compose import Postgres
from guided import Guided, trained
from place import ROOT

ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)


class Sql(Guided):
    name = "docs/sql.md"

    @classmethod
    def prepare(cls, stack):
        cls.guide.shell.run([f"ln -s '{trained()}' models"])
        postgres = Postgres()
        stack.callback(postgres.stop)
        address = f"127.0.0.1:{postgres.port}"
        cls.environment = {
            **cls.guide.environment,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres.port),
            "PGPASSWORD": postgres.password,
            "POLYREWARD_PASSWORD": "secret",
        }
        subprocess.run(["sh", ROOT / "docker/database.sh"], env=cls.environment, check=True, stdout=subprocess.DEVNULL)
        made_up.unfair(cls.folder / "people.jsonl", people=24, each=4)
        url = f"postgres://polyreward:secret@{address}/polyreward"
        cls.guide.shell.run(
            [f"export DATABASE_URL='{url}'", 'polyreward import people.jsonl --database-url "$DATABASE_URL"']
        )

    def test_each_group_has_a_row_in_the_order_of_accuracy(self):
        cells = [
            [cell.strip() for cell in line.split("|")] for line in self.guide.output("accuracy_by_group").splitlines()
        ]
        rows = [row for row in cells if row[0] in ("UK", "DE", "FR")]
        self.assertEqual({row[0]: row[1] for row in rows}, {"UK": "8", "DE": "8", "FR": "8"})
        accuracies = [float(row[3]) for row in rows]
        self.assertEqual(accuracies, sorted(accuracies))

    def test_every_view_and_column_that_is_told_of_is_there(self):
        views, columns = (ROOT / self.name).read_text().split("| column |")
        named = [re.findall(r"`(\w+)`", cells) for cells in ROW.findall(views)]
        self.assertGreaterEqual(sum(map(len, named)), 8)
        for view in sum(named, []):
            self.select("*", view)
        of_groups = sum((re.findall(r"`(\w+)`", cells) for cells in ROW.findall(columns)), [])
        self.assertIn("bt_accuracy", of_groups)
        self.select(", ".join(of_groups), "accuracy_by_group")

    def select(self, columns, view):
        statement = f"SELECT {columns} FROM {view} LIMIT 0"
        words = ["psql", "--username", "postgres", "--dbname", "polyreward", "--command", statement]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
