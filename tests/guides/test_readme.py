"""README.md: from a server that knows nobody to Ada's own reward, the Python package, and data of one's own."""

import gzip
import json

from guided import Guided
from place import opposites


class Readme(Guided):
    name = "README.md"

    @classmethod
    def prepare(cls, stack):
        cls.serve_trained()
        lines = "".join(json.dumps(record) + "\n" for record in opposites())
        (cls.folder / "comparisons.jsonl.gz").write_bytes(gzip.compress(lines.encode()))

    @classmethod
    def after(cls):
        return {"users/ada/examples -H": cls.score_ada_again}

    @classmethod
    def score_ada_again(cls):
        cls.again = json.loads(cls.guide.run_shell(cls.guide.block("localhost:8080/score")))

    def test_the_same_request_gets_adas_own_reward_after_her_example(self):
        before = self.guide.answers("localhost:8080/score")[-1]
        self.assertEqual(self.again["user"], {"user_id": "ada", "examples": 1, "known": True})
        self.assertNotEqual(self.again["results"][0]["preference"], before["results"][0]["preference"])
        told = self.guide.answers("users/ada/examples -H")[-1]
        self.assertEqual({one["model"].split("@")[0] for one in told["predictions"]}, {"bt", "lore", "vpl"})

    def test_the_python_package_prints_rewards_of_both_responses(self):
        said = json.loads(self.guide.output("with Client("))
        self.assertEqual([type(reward) for reward in said], [float, float])

    def test_ones_own_data_is_trained_on_measured_imported_and_served(self):
        said = self.guide.output("polyreward eval")
        for head in "bt", "lore", "micro", "pal-a", "pal-b", "vpl":
            self.assertIn(head + "@", said)
        self.assertIn("stored      640\n", said)
        self.assertTrue((self.folder / "curves.svg").read_text().startswith("<svg"))
        self.assertEqual(len(self.ask("/models")["items"]), 6)
        known = self.ask("/users/person-1")
        self.assertEqual((known["examples"], known["attributes"]), (16, {"country": "DE"}))
