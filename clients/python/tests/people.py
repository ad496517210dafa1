"""People who like tea or coffee, and what they say about it."""

from __future__ import annotations

import json

from polyreward.types import Example

WAYS = ["in the morning", "by the window", "with an old friend", "after a long walk", "when it rains"]
WORDS = ["warm", "fresh", "strong", "sweet", "quiet", "small", "good"]
PROMPT = "A drink?"


def answers(drink: str, count: int = 35) -> list[str]:
    """Distinct answers about a drink; at most 35."""
    return [f"have some {WORDS[n % 7]} {drink} {WAYS[n % 5]} {WORDS[(n // 7) % 7]}" for n in range(count)]


def people_of_two_tastes(count: int) -> str:
    """Lines of comparisons: every second person prefers coffee, nine times of ten; the last quarter are unseen."""
    tea, coffee = answers("tea"), answers("coffee")
    lines = []
    for person in range(count):
        unseen = person >= count - count // 4
        for n in range(16):
            chosen, rejected = tea[(person * 5 + n) % 35], coffee[(person * 3 + n * 2) % 35]
            if ((person + n) % 10 == 0) != (person % 2 == 1):
                chosen, rejected = rejected, chosen
            line = {
                "user_id": f"person-{person}",
                "attributes": {"country": "DE" if person % 2 else "UK"},
                "split": "train" if not unseen else "context" if n < 8 else "query",
                "prompt": PROMPT,
                "chosen": chosen,
                "rejected": rejected,
            }
            lines.append(json.dumps(line))
    return "\n".join(lines) + "\n"


def likes(drink: str, count: int = 4) -> list[Example]:
    """Comparisons of somebody who prefers a drink to the other one."""
    other = "coffee" if drink == "tea" else "tea"
    return [
        {"prompt": PROMPT, "chosen": liked, "rejected": not_liked}
        for liked, not_liked in zip(answers(drink, count), answers(other, count))
    ]
