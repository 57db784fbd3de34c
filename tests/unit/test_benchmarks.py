"""``make eval``: what it says of data that is not there, and that it measures what it says."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import evaluate
from benchmarks.data import DataMissing
from benchmarks.routing import calibration_error, recall_outside

WORDS = {"billing": "invoice refund", "order": "parcel delivery", "meeting": "calendar monday"}


def write(folder: Path, content: Any) -> None:
    (folder / "clinc150-dev.json").write_text(json.dumps(content))


async def test_a_folder_without_the_data_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"does not exist; name the folder .*make eval DATA="):
        await evaluate.evaluate([], tmp_path, Console())


@pytest.mark.parametrize(
    "content", [[], {"train": []}, {"train": [["a"]], "val": [], "oos_train": [], "oos_val": []}]
)
async def test_a_file_with_something_else_is_said(tmp_path: Path, content: Any) -> None:
    write(tmp_path, content)
    with pytest.raises(DataMissing, match="is not CLINC150"):
        await evaluate.evaluate(["routing"], tmp_path, Console())


async def test_the_table_names_the_model_and_has_the_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", "lexical:hashed-ngrams")
    labelled = [(f"{words} number {n}", name) for name, words in WORDS.items() for n in range(14)]
    outside = [(f"zebra {n} grazes", "oos") for n in range(6)]
    write(
        tmp_path, {"train": labelled, "val": labelled[::3], "oos_train": outside[:3], "oos_val": outside[3:]}
    )
    console = Console(record=True, width=160, file=io.StringIO())
    await evaluate.evaluate(["routing"], tmp_path, console)
    shown = console.export_text()
    assert "lexical:hashed-ngrams" in shown
    assert "100.0 ± 0.0" in shown


def test_the_metrics_are_those_of_their_papers() -> None:
    inside = np.linspace(0.0, 1.0, 101)
    assert recall_outside(inside, np.array([0.05, 0.09, 0.5, 0.9]), kept=0.9) == 0.5
    confidences = np.array([0.9] * 10 + [0.3] * 10)
    right = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    assert calibration_error(confidences, right) == pytest.approx(0.1)
