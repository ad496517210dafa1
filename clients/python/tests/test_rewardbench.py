"""RewardBench's rules on toy files, and its pipeline on a real server."""

from __future__ import annotations

import gzip
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from people import PROMPT, answers

from polyreward import Client
from polyreward.integrations._rewardbench_rules import Row1, Row2, best_of, score_1, score_2, ties_score
from polyreward.integrations.rewardbench import RewardBenchPipeline, main

TEA, COFFEE = answers("tea"), answers("coffee")


def test_a_tie_is_a_miss_and_a_section_is_weighed_by_upstream_s_counts() -> None:
    """Three subsets; expected numbers by hand from upstream's `calculate_scores_per_section`."""
    rows = [
        Row1("alpacaeval-easy", 1.0, 0.0),
        Row1("alpacaeval-easy", 1.0, 1.0),
        Row1("mt-bench-easy", 1.0, 0.0),
        Row1("math-prm", 0.0, 1.0),
        Row1("hep-go", 1.0, 0.0),
        Row1("of our own", 0.3, 0.2),
    ]
    table = score_1(rows)
    assert {line.name: (line.n, line.score) for line in table.subsets} == {
        "alpacaeval-easy": (2, 0.5),
        "mt-bench-easy": (1, 1.0),
        "math-prm": (1, 0.0),
        "hep-go": (1, 1.0),
        "of our own": (1, 1.0),
    }
    chat, reasoning = (100 * 0.5 + 28 * 1.0) / 128, 164 / (984 + 164)
    sections = {line.name: line.score for line in table.sections}
    assert sections == {
        "Chat": pytest.approx(chat),
        "Reasoning": pytest.approx(reasoning),
        "Average": pytest.approx((chat + reasoning) / 2),
    }
    assert table.sections[-1].n == 5


def test_an_interval_is_wilson_s() -> None:
    """8 of 10: [0.490, 0.943] (Wilson 1927; Brown, Cai and DasGupta 2001)."""
    table = score_1([Row1("s", float(n < 8), 0.5) for n in range(10)])
    assert table.subsets[0].interval is not None
    assert list(table.subsets[0].interval) == pytest.approx([0.4901625, 0.9433178], abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([2.0, 1.0, 0.0], 1.0), ([1.0, 2.0, 0.0], 0.0), ([1.0, 1.0, 0.0], 0.5), ([1.0, 1.0, 1.0, 1.0], 0.25)],
)
def test_best_of_n_shares_a_hit_among_the_best(scores: list[float], expected: float) -> None:
    assert best_of(scores) == expected


def ties(*rows: tuple[str, int, list[float]]) -> list[Row2]:
    return [Row2(name, "Ties", right, scores) for name, right, scores in rows]


def test_the_subset_ties_has_upstream_s_score() -> None:
    """Numbers by hand from the formula of `process_single_model`: accuracy, margins, and the term that breaks ties."""
    rows = ties(
        ("ref:1", 1, [5.0, 1.0]),
        ("tied:1", 2, [4.0, 3.0, 1.0]),
        ("ref:2", 1, [1.0, 2.0]),
        ("tied:2", 2, [2.0, 1.0, 1.5]),
        ("tied:3", 2, [2.0, 1.0, 0.0]),
    )
    accuracy_tied, accuracy_ref = 2 / 3, 1 / 2
    preferred = preferred_hard = 1 / 2
    margin = (math.tanh(2.0 / 1.0 - 1) + math.tanh(-1.0 / 1.0 - 1)) / 2
    expected = 0.3 * accuracy_tied + 0.3 * accuracy_ref + 0.2 * preferred + 0.2 * preferred_hard + 0.01 * margin
    assert ties_score(rows) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("wrong", "margin"), [(1.0, 1.0), (2.0, 0.0), (3.0, -1.0)])
def test_answers_that_score_the_same_divide_by_nothing(wrong: float, margin: float) -> None:
    """NumPy's x/0 is infinite, whose tanh is 1; its 0/0 is counted as 0."""
    score = ties_score(ties(("ref:1", 1, [9.0, 0.0]), ("tied:1", 2, [2.0, 2.0, wrong])))
    right = float(wrong < 2.0)
    assert score == pytest.approx(0.3 * right + 0.3 + 0.2 * right + 0.2 * right + 0.01 * margin)


@pytest.mark.parametrize(
    "rows",
    [
        ties(("other:1", 1, [1.0, 0.0])),
        ties(("tied:1", 2, [1.0, 0.0])),
        ties(("ref:1", 1, [1.0, 0.0]), ("tied:2", 2, [1.0, 1.0, 0.0])),
    ],
)
def test_rows_that_are_none_of_the_subset_are_errors(rows: list[Row2]) -> None:
    with pytest.raises(ValueError, match=r"no row of|no prompt both"):
        ties_score(rows)


def test_version_2_is_averaged_over_subsets() -> None:
    rows = [
        Row2("1", "Factuality", 1, [2.0, 1.0]),
        Row2("2", "Factuality", 1, [1.0, 1.0]),
        Row2("3", "Focus", 1, [0.0, 1.0]),
        *ties(("ref:1", 1, [9.0, 0.0]), ("tied:1", 2, [2.0, 1.5, 0.0])),
    ]
    table = score_2(rows)
    of = {line.name: line.score for line in table.subsets}
    assert (of["Factuality"], of["Focus"]) == (0.75, 0.0)
    assert table.sections[0].score == pytest.approx((0.75 + 0.0 + of["Ties"]) / 3)


def rows_1() -> list[dict[str, object]]:
    chat = [{"role": "user", "content": PROMPT}]
    return [
        {"prompt": PROMPT, "chosen": TEA[0], "rejected": COFFEE[0], "subset": "alpacaeval-easy"},
        {"prompt": PROMPT, "chosen": TEA[1], "rejected": TEA[1], "subset": "alpacaeval-easy"},
        {"prompt": PROMPT, "chosen": COFFEE[2], "rejected": TEA[2], "subset": "hep-go"},
        {
            "chosen": [*chat, {"role": "assistant", "content": TEA[3]}],
            "rejected": [*chat, {"role": "assistant", "content": COFFEE[3]}],
            "subset": "llmbar-natural",
        },
    ]


def test_the_command_prints_accuracy_by_subset(client: Client, url: str, tmp_path: Path) -> None:
    client.add_examples(
        "rb-tea", [{"prompt": PROMPT, "chosen": tea, "rejected": coffee} for tea, coffee in zip(TEA[:4], COFFEE[:4])]
    )
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows_1())
    out = io.StringIO()
    assert main([str(file), "--url", url, "--model", "lore", "--user", "rb-tea"], out) == 0
    printed = {line.split()[0]: line.split()[1:] for line in out.getvalue().splitlines()}
    assert printed["alpacaeval-easy"][:2] == ["2", "0.5000"]
    assert printed["hep-go"][:2] == ["1", "0.0000"]
    assert printed["llmbar-natural"][:2] == ["1", "1.0000"]
    assert printed["Average"][:2] == ["4", "0.5000"]


def test_the_command_reads_rows_of_version_2(url: str, tmp_path: Path) -> None:
    rows = [
        {"id": "1", "subset": "Focus", "prompt": PROMPT, "chosen": TEA[:1], "rejected": COFFEE[:3], "num_correct": 1},
        {
            "id": "ref:1",
            "subset": "Ties",
            "prompt": PROMPT,
            "chosen": TEA[:1],
            "rejected": COFFEE[:2],
            "num_correct": 1,
        },
        {
            "id": "tied:1",
            "subset": "Ties",
            "prompt": PROMPT,
            "chosen": TEA[:2],
            "rejected": COFFEE[:2],
            "num_correct": 2,
        },
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    out = io.StringIO()
    assert main([str(file), "--url", url, "--model", "lore"], out) == 0
    assert [line.split()[:2] for line in out.getvalue().splitlines()] == [
        ["Focus", "1"],
        ["Ties", "2"],
        ["Average", "3"],
    ]


@pytest.mark.parametrize(
    "text", ["not json", "{}", '{"subset": "s", "prompt": "p", "chosen": "c"}', "", json.dumps([1]), None]
)
def test_the_command_says_what_is_wrong(
    text: str | None, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert main([str(file), "--url", url]) == 1
    assert capsys.readouterr().err.startswith("polyreward-rewardbench: ")


def test_the_pipeline_is_what_rewardbench_builds_and_calls(client: Client, url: str) -> None:
    tokenizer = SimpleNamespace(pad_token_id=7)
    pipeline = RewardBenchPipeline(
        "text-classification", model=object(), tokenizer=tokenizer, client=client, reward_model="lore", user_id="nobody"
    )
    assert pipeline.model.config.pad_token_id == 7
    assert pipeline.tokenizer is tokenizer
    chat = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": TEA[0]}]
    found = pipeline([*TEA[:11], chat], batch_size=4, truncation=True)
    texts = client.score(items=[{"prompt": "", "responses": [text]} for text in TEA[:11]], model="lore")
    dialogue = client.score(
        items=[{"prompt": [{"role": "user", "content": PROMPT}], "responses": [TEA[0]]}], model="lore"
    )
    expected = [result.rewards[0] for result in (*texts.results, *dialogue.results)]
    assert [row["score"] for row in found] == pytest.approx(expected, abs=1e-4)
    assert pipeline([]) == []
