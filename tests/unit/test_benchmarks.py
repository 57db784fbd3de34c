"""``make eval`` and ``make try-model``: that they measure and check what they say, and what they need."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import evaluate
from benchmarks.answers import Report, write_report
from benchmarks.checks import Findings, Reply, check_reply
from benchmarks.conversations import Result, load_scripts
from benchmarks.data import DataMissing
from benchmarks.routing import calibration_error, recall_outside
from core.errors import StartupError

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


AGENTS = Path(__file__).resolve().parents[2] / "agents"
LAURA = "550e8400-e29b-41d4-a716-446655440000"


def check(
    text: str, turn: Mapping[str, Any], answer: Mapping[str, Any] | None = None, **reply: Any
) -> Findings:
    return check_reply({"say": "?", **turn}, Reply(text=text, answer=answer or {}, **reply), LAURA)


def test_each_conversation_has_its_own_id_some_are_held_out_and_every_agent_is_wanted_by_one() -> None:
    scripts = load_scripts()
    assert len({script.id for script in scripts}) == len(scripts) == 160
    assert sum(script.held_out for script in scripts) >= 18
    wanted = {agent for script in scripts for turn in script.turns for agent in turn.get("agent", ())}
    assert wanted - {""} == {path.stem for path in AGENTS.glob("[!R]*.md")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Set GOOGLE_API_KEY to get answers.", "text for operators"),
        ("I will use search_knowledge_base now.", "a tool's name"),
        (f"Your id is {LAURA}.", "an internal id"),
        ("<customer>Laura</customer>", "a tag of a prompt"),
        ("[2026-03-01, summary of session 1a2b3c4d] She asked.", "a note of a prompt"),
        ("Write to grace.lindqvist@polarisinsurance.example.", "data of another contact"),
        ("A colleague will get back to you.", "promises a person, and the CRM has no hand-off"),
    ],
)
def test_what_no_customer_may_read_is_found(text: str, said: str) -> None:
    assert any(said in violation for violation in check(text, {}).violations)


@pytest.mark.parametrize(
    ("wanted", "wrong", "right"),
    [
        ({"has": ["ORD-7001", "late|delayed"]}, {"text": "ORD-7001"}, {"text": "ORD-7001 is DELAYED"}),
        ({"lacks": ["refunded"]}, {"text": "We refunded it"}, {"text": "We look into it"}),
        ({"language": "pt"}, {"text": "It is on the way"}, {"text": "O pedido está a caminho"}),
        ({"agent": ["billing"]}, {"answer": {"agent_used": "x"}}, {"answer": {"agent_used": "billing"}}),
        ({"outcome": {"a.b": [1, 2]}}, {"answer": {"a": None}}, {"answer": {"a": {"b": 2}}}),
        ({"success": True}, {"answer": {"success": False}}, {"answer": {"success": True}}),
        ({"handoff": True}, {}, {"handoffs": 1}),
        ({"handoff": False}, {"handoffs": 1}, {}),
        ({"kept": True}, {}, {"is_kept": True}),
        ({"asks": False}, {"asks": True}, {}),
        ({"tools": ["find"]}, {"calls": [("get", {})]}, {"calls": [("find", {})]}),
        ({"tools": ["find(q~a|b)"]}, {"calls": [("find", {"q": "c"})]}, {"calls": [("find", {"q": "A b"})]}),
        ({}, {"error": "503"}, {}),
    ],
)
def test_a_demand_that_does_not_hold_is_a_failure(
    wanted: Mapping[str, Any], wrong: Mapping[str, Any], right: Mapping[str, Any]
) -> None:
    assert len(check(turn=wanted, **{"text": "", **wrong}).failures) == 1
    assert check(turn=wanted, **{"text": "", **right}).failures == []


def test_the_report_has_each_conversation_what_failed_and_what_it_took(tmp_path: Path) -> None:
    first, second = load_scripts()[:2]
    failed = Findings(failures=["'hi': lacks 'x'"], violations=[])
    results = [Result(first, seconds=[1.0, 3.0]), Result(second, findings=failed, seconds=[2.0])]
    report = Report(
        model="openai:x", results=results, calls=7, input_tokens=9000, output_tokens=80, seconds=6.0
    )
    write_report(report, tmp_path / "reports" / "x.md")
    text = (tmp_path / "reports" / "x.md").read_text()
    assert f"| {first.id} |  | passed | 1.0, 3.0 |" in text
    assert f"- `{second.id}` 'hi': lacks 'x'" in text
    assert "p50 2.0 s" in text
    assert "7 model calls, 9,000 tokens in, 80 out" in text
    assert not report.is_good


async def test_a_model_without_its_key_is_an_error_that_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL", "google_genai:gemini-3.8-flash")
    with pytest.raises(StartupError, match="needs GOOGLE_API_KEY"):
        await evaluate.evaluate(["answers"], None, Console())


async def test_an_evaluation_without_its_data_says_how_to_name_them() -> None:
    with pytest.raises(DataMissing, match="make eval DATA=/path/to/data"):
        await evaluate.evaluate(["memory"], None, Console())
