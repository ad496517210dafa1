"""docs/compatibility.md: its table has the routes that there are, and the query string says whose reward it is."""

import re
import urllib.parse

from guided import Guided
from place import ROOT

ROUTE = re.compile(r"`(GET |POST )?(/[\w/]+)`")


class Compatibility(Guided):
    name = "docs/compatibility.md"

    @classmethod
    def prepare(cls, stack):
        cls.serve_trained()
        cls.posted("tea-drinker", "tea", "coffee")

    def test_its_table_has_every_route_of_other_servers_and_no_other(self):
        paths = self.ask("/openapi.json")["paths"]
        served = {
            path
            for path, methods in paths.items()
            if any("compatibility" in of.get("tags", ()) for of in methods.values())
        }
        table = (ROOT / self.name).read_text().split("## Whose reward")[0]
        first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
        told = {path for cell in first_cells for _, path in ROUTE.findall(cell)}
        self.assertLessEqual(served, told)
        self.assertLessEqual(told, set(paths))

    def test_the_query_string_says_whose_reward_it_is(self):
        text = "A drink? have some warm tea"

        def reward(**query):
            query = urllib.parse.urlencode({"model": "lore", **query})
            return self.ask(f"/get_reward?{query}", {"query": [text], "prompts": ["A drink?"]})["rewards"][0]

        population = reward()
        self.assertGreater(reward(user_id="tea-drinker"), population)
        self.assertEqual(reward(group="country:UK", aggregate="mean"), reward(user_id="tea-drinker"))
        self.assertEqual(reward(user_id="nobody"), population)
