"""RewardBench over HTTP: a pipeline for its own scripts, and `polyreward-rewardbench FILE.jsonl` for its rows.

The scores are the server's raw rewards at full precision, as a tie counts as wrong.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from polyreward._client import Client
from polyreward.errors import PolyrewardError
from polyreward.integrations._chat import messages_of, prompt_of
from polyreward.integrations._rewardbench_rules import Row1, Row2, Table, score_1, score_2
from polyreward.integrations._rewards import shared_client
from polyreward.types import Item


class RewardBenchPipeline:
    """What RewardBench builds as `Pipeline(task, model=..., tokenizer=...)` and calls with a batch.

    A text is scored as it is; with `custom_dialogue` a sample is a list of messages, of which the last is the response.

    Args:
        task: Ignored, as are a local `model` and further arguments.
        model: Ignored; the server has the model.
        tokenizer: Given back as `.tokenizer`, which RewardBench looks at.
        base_url: Where the server is; by default `POLYREWARD_URL`.
        reward_model: The server's model.
        user_id: Whose rewards; by default the population's.
    """

    def __init__(
        self,
        task: str = "text-classification",
        model: Any = None,
        tokenizer: Any = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        reward_model: str | None = None,
        user_id: str | None = None,
        client: Client | None = None,
        **others: Any,
    ) -> None:
        self.task = task
        self.tokenizer = tokenizer
        pad = getattr(tokenizer, "pad_token_id", None)
        self.model = SimpleNamespace(config=SimpleNamespace(pad_token_id=0 if pad is None else pad))
        self._client = client or shared_client(base_url, api_key)
        self._reward_model = reward_model
        self._user_id = user_id

    def __call__(self, samples: Sequence[Any], **others: Any) -> list[dict[str, float]]:
        """A score a sample, in their order."""
        items = [_item(sample) for sample in samples]
        if not items:
            return []
        reply = self._client.score(items=items, user_id=self._user_id, model=self._reward_model)
        return [{"score": result.rewards[0]} for result in reply.results]


def _item(sample: Any) -> Item:
    if isinstance(sample, str):
        return {"prompt": "", "responses": [sample]}
    messages = messages_of(sample)
    if not messages:
        raise ValueError("a sample has no message")
    *before, last = messages
    return {"prompt": before or "", "responses": [last["content"]]}


def evaluate(rows: Sequence[Mapping[str, Any]], client: Client, model: str | None, user_id: str | None) -> Table:
    """Scores rows of RewardBench 1 (`chosen` is a text) or 2 (a list), and applies its rules.

    Raises:
        ValueError: a row is of neither, or there are rows of both.
    """
    second = [isinstance(row.get("chosen"), list) and isinstance(row.get("num_correct"), int) for row in rows]
    if not rows or any(second) != all(second):
        raise ValueError("expected rows of RewardBench 1 or of RewardBench 2")
    items = [_row_item(at, row, second[0]) for at, row in enumerate(rows)]
    reply = client.score(items=items, user_id=user_id, model=model)
    scores = [result.rewards for result in reply.results]
    if second[0]:
        return score_2([Row2(str(row["id"]), row["subset"], row["num_correct"], of) for row, of in zip(rows, scores)])
    return score_1([Row1(row["subset"], chosen, rejected) for row, (chosen, rejected) in zip(rows, scores)])


def _row_item(at: int, row: Mapping[str, Any], second: bool) -> Item:
    try:
        chosen, rejected = row["chosen"], row["rejected"]
        responses = [*chosen, *rejected] if second else [_response(chosen), _response(rejected)]
        prompt = row["prompt"] if "prompt" in row else chosen[:-1]
        return {"prompt": prompt_of(prompt), "responses": responses}
    except (KeyError, TypeError) as error:
        raise ValueError(f"row {at + 1} is no row of RewardBench ({error})") from error


def _response(answer: Any) -> str:
    """A text, or the last message of a conversation."""
    return answer if isinstance(answer, str) else messages_of(answer)[-1]["content"]


def main(arguments: Sequence[str] | None = None, out: TextIO = sys.stdout) -> int:
    """`polyreward-rewardbench`: prints accuracy by subset and section with 95 % intervals."""
    parser = argparse.ArgumentParser(prog="polyreward-rewardbench", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="rows of RewardBench 1 or 2, one a line (.gz is read too)")
    parser.add_argument("--url", help="where the server is; by default POLYREWARD_URL")
    parser.add_argument("--model", help="the server's model")
    parser.add_argument("--user", metavar="ID", help="whose rewards; by default the population's")
    given = parser.parse_args(arguments)
    try:
        with Client(given.url) as client:
            table = evaluate(list(_lines(given.file)), client, given.model, given.user)
    except (OSError, ValueError, PolyrewardError) as error:
        print(f"polyreward-rewardbench: {error}", file=sys.stderr)
        return 1
    for line in table.lines():
        print(line, file=out)
    return 0


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} of {path} is not JSON") from error
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} of {path} is no JSON object")
                yield row


if __name__ == "__main__":
    sys.exit(main())
