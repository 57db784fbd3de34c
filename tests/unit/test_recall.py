"""The numbers of the memory's evaluation mean what they say."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.data import DataMissing
from benchmarks.recall import Ranked, leave_one_out, percentile, recall
from benchmarks.retrieval import evaluate, messages_of, questions_of


def ranked(group: str, evidence: str, ids: str, *, answerable: bool = True) -> Ranked:
    return Ranked(
        group=group, answerable=answerable, evidence=frozenset(evidence.split()), ids=tuple(ids.split())
    )


def test_recall_is_the_mean_share_of_a_questions_evidence() -> None:
    found = [
        ranked("a", "x y", "x 1 2 3 4 y"),
        ranked("a", "z", "1 2 3"),
        ranked("a", "w", "w", answerable=False),
    ]
    measured = recall(found)
    assert measured.answerable == (25.0, 50.0, 50.0)
    assert measured.every == pytest.approx((50.0, 200 / 3, 200 / 3))
    assert measured.answerable_micro == pytest.approx((100 / 3, 200 / 3, 200 / 3))


def test_weights_are_never_fitted_on_what_they_are_tested_on() -> None:
    # In a, b and c the vector leg is right and the keyword leg wrong; in d it is the other way round.
    filler = " ".join(f"n{number}" for number in range(30))
    right, wrong = f"x {filler}", filler
    groups = ["a", "b", "c", "d"]
    legs = {
        "keyword": [ranked(group, "x", right if group == "d" else wrong) for group in groups],
        "vector": [ranked(group, "x", wrong if group == "d" else right) for group in groups],
        "trigram": [ranked(group, "x", wrong) for group in groups],
    }
    chosen, unseen = leave_one_out(legs)
    assert set(chosen) == set(groups)
    # What was best for a, b and c was used for d.
    assert not chosen["d"].startswith("vector 0.0")
    assert unseen.answerable[-1] == 100


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile([3, 1, 2], percent) for percent in (0, 50, 100)] == [1, 2, 3]
    assert percentile([], 95) == 0


def test_turns_become_messages_in_their_order() -> None:
    turns = [
        {"speaker": "Ana", "dia_id": f"D1:{number}", "text": "Hi", "blip_caption": "a cat"}
        for number in range(1, 12)
    ]
    sample = {
        "sample_id": "c",
        "qa": [
            {"question": "Who?", "category": 1, "evidence": ["D1:2; D1:3"]},
            {"question": "Why?", "category": 4, "evidence": []},
        ],
        "conversation": {
            "speaker_a": "Ana",
            "speaker_b": "Bo",
            "session_1": turns,
            "session_1_date_time": "1:56 pm on 8 May, 2023",
        },
    }
    messages = messages_of(sample)  # type: ignore[arg-type]  # as JSON has it
    assert [message.id for message in sorted(messages, key=lambda message: message.at)] == [
        turn["dia_id"] for turn in turns
    ]
    assert messages[0].text == "Ana: Hi [picture: a cat]"
    assert [question.evidence for question in questions_of(sample)] == [{"D1:2", "D1:3"}]  # type: ignore[arg-type]


async def test_data_that_is_not_there_or_something_else_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="does not exist"):
        await evaluate(tmp_path, Console())
    (tmp_path / "locomo-dev.json").write_text(json.dumps([{"qa": []}]))
    with pytest.raises(DataMissing, match="is not LoCoMo"):
        await evaluate(tmp_path, Console())
