"""docs/postgresql-with-compose.md, with processes in place of containers."""

import subprocess
import urllib.error

import made_up
from compose import Compose
from guided import Guided
from place import ROOT, opposites


class PostgresqlWithCompose(Guided):
    name = "docs/postgresql-with-compose.md"

    @classmethod
    def prepare(cls, stack):
        cls.guide.shell.run([f"cp -R '{ROOT}/docker' docker"])
        cls.compose = Compose(cls.guide)
        stack.callback(cls.compose.close)
        made_up.jsonl(cls.folder / "comparisons.jsonl", opposites())

    @classmethod
    def sql(cls, statement, user="postgres", password="POSTGRES_PASSWORD", **settings):
        """What psql says, as a user whose password docker/.env has."""
        database = cls.compose.plan["database"].surroundings()
        words = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--username", user, "--dbname", "polyreward"]
        environment = {**database, "PGPASSWORD": cls.secrets()[password], **settings}
        done = subprocess.run(
            [*words, "--command", statement], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else done.stderr

    @classmethod
    def secrets(cls):
        return dict(line.split("=", 1) for line in (cls.folder / "docker/.env").read_text().splitlines())

    @classmethod
    def after(cls):
        cls.seen = {}
        return {
            '"user_id": "ada", "items"': lambda: cls.see("reward"),
            "pg_dump": cls.post_after_the_dump,
            "pg_restore": lambda: cls.see("restored"),
            "SELECT at, action": lambda: cls.see("erased"),
            "for port in 8080": lambda: cls.see("replicas"),
        }

    @classmethod
    def see(cls, moment):
        """Keeps what the server knows at some moment of the guide."""
        cls.seen[moment] = {
            "people": [user["user_id"] for user in cls.keyed("/users")["items"]],
            "examples": cls.sql("SELECT count(*) FROM examples"),
            "ada": cls.reward_of("ada"),
            "nobody": cls.reward_of("nobody"),
        }
        if moment == "replicas":
            cls.see_replicas()

    @classmethod
    def post_after_the_dump(cls):
        """What the restored database must have forgotten."""
        body = {"examples": [{"prompt": "A drink?", "chosen": "some tea", "rejected": "some coffee"}]}
        cls.keyed("/users/late/examples", body)
        cls.see("dumped")

    @classmethod
    def see_replicas(cls):
        """One server learns, each other one is asked."""
        likes_coffee = {"prompt": "A drink?", "chosen": "have some warm coffee", "rejected": "have some warm tea"}
        cls.keyed("/users/bob/examples", {"examples": [likes_coffee]})
        of_each = []
        for port in range(cls.guide.port, cls.guide.port + 3):
            url, cls.guide.url = cls.guide.url, f"http://127.0.0.1:{port}"
            of_each.append(cls.reward_of("bob"))
            # The last one started after the key was made; a server that runs already hears of its first key within 5 s.
            cls.without_a_key = cls.status_without_a_key()
            cls.guide.url = url
        cls.seen["of each"] = of_each

    @classmethod
    def keyed(cls, path, body=None):
        key = cls.guide.shell.variables()["POLYREWARD_KEY"]
        return cls.ask(path, body, authorization=f"Bearer {key}")

    @classmethod
    def status_without_a_key(cls):
        try:
            return cls.ask("/users") and 200
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    @classmethod
    def reward_of(cls, person):
        items = [{"prompt": "A drink?", "responses": ["have some warm tea", "have some warm coffee"]}]
        answer = cls.keyed("/score", {"model": "lore", "user_id": person, "items": items})
        tea, coffee = answer["results"][0]["rewards"]
        return round(tea - coffee, 6)

    def test_the_secrets_are_long_and_different_and_nobody_else_reads_them(self):
        values = self.secrets()
        self.assertEqual(len(set(values.values())), 4)
        self.assertTrue(all(len(value) == 48 for value in values.values()))
        self.assertEqual((self.folder / "docker/.env").stat().st_mode & 0o077, 0)

    def test_without_a_secret_nothing_starts_and_the_message_names_it(self):
        env = self.folder / "docker/.env"
        kept = env.read_text()
        self.addCleanup(env.write_text, kept)
        env.write_text(kept.replace("POLYREWARD_READER_PASSWORD", "ANOTHER"))
        with self.assertRaisesRegex(AssertionError, "set POLYREWARD_READER_PASSWORD in docker/.env"):
            self.compose.read()

    def test_once_there_is_a_key_nobody_asks_without_one(self):
        self.assertEqual(self.without_a_key, 401)

    def test_models_trained_in_the_volume_are_loaded_without_a_restart(self):
        reloaded = self.guide.answers("models/reload")[-1]
        self.assertEqual(sorted(name.split("@")[0] for name in reloaded["added"]), ["bt", "lore"])
        self.assertFalse((self.compose.volumes / "state/comparisons.jsonl").exists())

    def test_the_reward_is_of_the_person(self):
        learned, scored = self.guide.answers('"user_id": "ada", "items"')
        self.assertEqual(learned["accepted"], 1)
        self.assertTrue(scored["user"]["known"])
        self.assertGreater(self.seen["reward"]["ada"], self.seen["reward"]["nobody"])

    def test_a_restored_dump_is_as_it_was(self):
        self.assertEqual(self.seen["dumped"]["people"], ["ada", "late"])
        self.assertEqual(self.seen["restored"], self.seen["reward"])

    def test_the_copy_of_the_models_has_them(self):
        names = subprocess.run(["tar", "-tf", self.folder / "models.tar"], capture_output=True, text=True, check=True)
        self.assertIn("/head.safetensors", names.stdout)

    def test_the_servers_role_cannot_dump_as_the_guide_says(self):
        self.assertIn("row-level security", self.dump_as_the_server())

    def dump_as_the_server(self):
        environment = {
            **self.compose.plan["database"].surroundings(),
            "PGPASSWORD": self.secrets()["POLYREWARD_PASSWORD"],
        }
        done = subprocess.run(
            ["pg_dump", "--username", "polyreward", "polyreward"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertNotEqual(done.returncode, 0)
        return done.stderr

    def test_figures_are_of_every_model(self):
        rows = [
            line.split("|")[0].strip().split("@")[0]
            for line in self.guide.output("accuracy_overall").splitlines()
            if "@" in line
        ]
        self.assertEqual(rows, ["bt", "lore"])

    def test_the_reader_sees_figures_and_no_text_after_the_restore_too(self):
        reader = {"user": "polyreward_reader", "password": "POLYREWARD_READER_PASSWORD"}
        self.assertEqual(self.sql("SELECT count(*) FROM accuracy_overall", **reader), "2")
        self.assertIn("permission denied", self.sql("SELECT prompt FROM examples", **reader))

    def test_nothing_is_left_of_an_erased_person(self):
        self.assertEqual(self.seen["erased"]["people"], [])
        self.assertEqual(self.seen["erased"]["examples"], "0")
        self.assertEqual(self.seen["erased"]["ada"], self.seen["erased"]["nobody"])
        self.assertRegex(self.guide.output("SELECT at, action"), r"\| user\.erased \| +1\n")

    def test_what_one_server_learns_the_others_know(self):
        self.assertEqual(len(self.guide.answers("for port in 8080")), 3)
        self.assertEqual(len(set(self.seen["of each"])), 1)
        self.assertLess(self.seen["of each"][0], self.seen["replicas"]["nobody"])
