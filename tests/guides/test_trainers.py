"""docs/train-with-trl.md, docs/openrlhf.md and docs/verl.md: what they give to a trainer tells people apart."""

import json

import yaml
from guided import Guided

TEA, COFFEE = "have some warm tea", "have some warm coffee"
# The file whose path a trainer is given, loaded as trainers load it.
LOAD = """
import importlib.util, json
spec = importlib.util.spec_from_file_location("given", {path!r})
given = importlib.util.module_from_spec(spec)
spec.loader.exec_module(given)
"""


class Trainer(Guided):
    """A server that knows one who likes tea and one who likes coffee."""

    @classmethod
    def prepare(cls, stack):
        cls.serve_trained()
        cls.posted("tea-drinker", "tea", "coffee")
        cls.posted("coffee-drinker", "coffee", "tea")

    def rewards(self, program):
        """What a program prints of tea, for who likes it and for who does not."""
        tea_drinker, coffee_drinker = json.loads(self.guide.run_python(program).splitlines()[-1])
        return tea_drinker, coffee_drinker

    def assert_told_apart(self, program):
        tea_drinker, coffee_drinker = self.rewards(program)
        self.assertGreater(tea_drinker, coffee_drinker + 0.1)

    def printed_path(self):
        """Of the file in the package that was installed."""
        path = self.guide.output("print(file.__file__)").strip().splitlines()[-1]
        self.assertTrue(path.startswith(str(self.folder / "packages")), path)
        return path


class Trl(Trainer):
    name = "docs/train-with-trl.md"

    def test_rows_get_the_rewards_of_their_people(self):
        columns = {"prompts": ["A drink?"] * 2, "completions": [TEA] * 2, "user_id": ["tea-drinker", "coffee-drinker"]}
        ask = f"import asyncio, json\nprint(json.dumps(asyncio.run(taste(**{columns!r}))))"
        self.assert_told_apart(self.guide.block("trl_reward") + ask)


class OpenRlhf(Trainer):
    name = "docs/openrlhf.md"

    @classmethod
    def prepare(cls, stack):
        super().prepare(stack)
        # OpenRLHF brings torch, of which the file takes tensors of numbers alone.
        (cls.folder / "torch.py").write_text("tensor = list\n")

    CALL = "reward_func(['A drink?' + {tea!r}] * 2, ['A drink?'] * 2, ['tea-drinker', 'coffee-drinker'])"

    def test_the_file_of_the_package_reads_people_from_labels(self):
        call = "given." + self.CALL.format(tea=TEA)
        settings = {name: self.guide.shell.variables()[name] for name in ("POLYREWARD_URL", "POLYREWARD_MODEL")}
        self.assertEqual(settings, {"POLYREWARD_URL": self.guide.url, "POLYREWARD_MODEL": "lore"})
        set_up = f"import os; os.environ.update({settings!r})\n" + LOAD.format(path=self.printed_path())
        self.assert_told_apart(set_up + f"print(json.dumps(list(map(float, {call}['rewards']))))")

    def test_so_does_a_file_of_ones_own(self):
        call = self.CALL.format(tea=TEA)
        ask = f"import json\nprint(json.dumps(list(map(float, {call}['rewards']))))"
        self.assert_told_apart(self.guide.block("openrlhf_reward(") + ask)


class Verl(Trainer):
    name = "docs/verl.md"

    def test_the_function_that_is_configured_gives_rewards_of_people(self):
        about = yaml.safe_load(self.guide.as_here(self.guide.block("custom_reward_function:")))[
            "custom_reward_function"
        ]
        self.assertEqual(about["path"].split("/")[-1], self.printed_path().split("/")[-1])
        of = "given.{}('data', {!r}, None, {{**extra_info, 'user_id': {!r}}}, **{!r})['score']"
        calls = [
            of.format(about["name"], TEA, person, about["reward_kwargs"])
            for person in ("tea-drinker", "coffee-drinker")
        ]
        program = LOAD.format(path=self.printed_path()) + self.guide.block("extra_info = ")
        self.assert_told_apart(program + f"print(json.dumps([{', '.join(calls)}]))")

    def test_the_other_functions_that_are_named_are_there(self):
        named = "compute_score_async", "compute_score_batch"
        self.guide.run_python(
            LOAD.format(path=self.printed_path()) + f"assert all(hasattr(given, name) for name in {named!r})"
        )
        for name in named:
            self.assertIn(name, self.guide.block("custom_reward_function:"))
