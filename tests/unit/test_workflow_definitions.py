"""Faults of definitions are reported at once with step and field, and valid definitions are drawn."""

from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from core.errors import InvalidDefinition, StartupError
from tests.support.workflows import ask, build_definition, call
from workflows.diagram import render_mermaid
from workflows.loader import LIBRARY, LIBRARY_DIR, load_library, parse_definition
from workflows.outline import build_outline
from workflows.progress import compute_progress
from workflows.results import Record, RecordStatus
from workflows.validation import read_definition, read_input


def faults(*steps: Any, **fields: Any) -> dict[str, str]:
    """Return the message of each fault by its path."""
    with pytest.raises(InvalidDefinition) as rejected:
        read_definition({"name": "test", "steps": list(steps), **fields})
    return {fault["path"]: fault["message"] for fault in rejected.value.details["faults"]}


def count(step_id: str, source: str, **fields: Any) -> dict[str, Any]:
    return {"type": "data_processing", "id": step_id, "operation": "count", "source": source, **fields}


def parallel(*steps: Any) -> dict[str, Any]:
    return {"type": "parallel", "id": "p", "steps": list(steps)}


def loop(*steps: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "loop", "id": "l", "max_iterations": 2, "steps": list(steps), **fields}


def test_all_faults_are_reported_at_once() -> None:
    found = faults(
        count("a", "steps.z.output"),
        count("a", "input.q", extra=1),
        {"type": "loop", "id": "l", "steps": [count("b", "[")]},
        {"type": "nothing", "id": "n"},
        count("c", "steps.d.output"),
        count("d", "steps.d.output"),
        name="Not A Name",
    )

    assert found == {
        "name": "must match ^[a-z][a-z0-9_]{0,63}$",
        "steps.0.source": "there is no step 'z'",
        "steps.1.extra": "is not a field here",
        "steps.1.id": "'a' is the id of steps.0 too",
        "steps.2.max_iterations": "is missing",
        "steps.2.steps.0.source": "is incomplete: something is missing at its end",
        "steps.3": found["steps.3"],
        "steps.4.source": "'d' runs later",
        "steps.5.source": "'d' refers to itself",
    }
    assert "'nothing'; it may be 'sequential'" in found["steps.3"]


def test_a_fault_names_its_step_and_field() -> None:
    with pytest.raises(InvalidDefinition) as rejected:
        read_definition({"name": "test", "steps": [parallel(count("a", "[1]"), count("b", "input.nope"))]})

    assert rejected.value.details["faults"] == [
        {
            "path": "steps.0.steps.1.source",
            "step": "b",
            "field": "source",
            "message": "input.nope is not declared in inputs; there are: none",
        }
    ]


@pytest.mark.parametrize(
    ("steps", "path", "says"),
    [
        ([parallel(count("a", "[1]"), count("b", "steps.a.output"))], "steps.0.steps.1.source", "same time"),
        ([parallel(count("a", "steps.p.output"))], "steps.0.steps.0.source", "not finished while"),
        ([count("a", "iteration")], "steps.0.source", "inside a loop only"),
        ([call("a", body="{{ item }}")], "steps.0.body", "for_each only"),
        ([count("a", "steps")], "steps.0.source", "name the step"),
        ([count("a", "[1]"), count("b", "steps.a.result")], "steps.1.source", "status, output and error"),
        ([count("a", "secrets.key")], "steps.0.source", "'secrets' is unknown"),
        ([call("a", when={"type": "iteration_limit", "limit": 1})], "steps.0.when", "inside a loop only"),
        ([{"type": "agent", "id": "a", "graph": "workflow"}], "steps.0.graph", "cannot be a step of"),
        ([loop(loop(call("a"), max_iterations=9_999) | {"id": "m"}, max_iterations=9_999)],
         "limits.max_steps", "99980001 working steps"),
        ([call("a", body="{{ input.x")], "steps.0.body", "}}"),
        ([{"type": "database_query", "id": "q", "connection": "crm", "sql": "SELECT '{{ input.x }}'"}],
         "steps.0.sql", "a statement is not a template"),
        ([{"type": "database_query", "id": "q", "connection": "crm", "sql": "DROP TABLE contacts"}],
         "steps.0.sql", "must be one SELECT"),
    ],
)  # fmt: skip
def test_a_definition_that_cannot_work_is_rejected(steps: list[Any], path: str, says: str) -> None:
    found = faults(*steps)

    assert list(found) == [path]
    assert says in found[path]


def test_a_step_may_refer_to_steps_that_have_run() -> None:
    inside = loop(count("a", "[1]"), break_condition={"type": "expression", "expression": "steps.a.output"})
    read_definition({"name": "test", "steps": [inside, count("after", "[steps.a.output, steps.l.output]")]})


@pytest.mark.parametrize("depth", [13, 1_000])
def test_definitions_nested_too_deeply_are_rejected(depth: int) -> None:
    step = call("deepest")
    for level in range(depth):
        step = {"type": "sequential", "id": f"s{level}", "steps": [step]}

    assert any("nested deeper" in message for message in faults(step).values())


def test_thousands_of_steps_may_run_in_parallel_but_not_in_sequence() -> None:
    many = [call(f"s{number}") for number in range(1_001)]
    read_definition({"name": "test", "steps": [parallel(*many)]})

    assert "maximum is 1000" in next(
        iter(faults({"type": "sequential", "id": "s", "steps": many[1:]}).values())
    )


def test_an_invalid_input_is_rejected_with_all_reasons() -> None:
    inputs: Any = {"who": {"type": "string"}, "many": {"type": "integer", "required": False, "default": 3}}
    workflow = read_definition({"name": "test", "inputs": inputs, "steps": [call("a")]})
    assert read_input(workflow, {"who": "you"}) == {"who": "you", "many": 3}

    with pytest.raises(InvalidDefinition) as rejected:
        read_input(workflow, {"many": True, "more": 1})

    messages = {fault["path"]: fault["message"] for fault in rejected.value.details["faults"]}
    assert messages == {
        "input.many": "must be of type integer",
        "input.more": "is not an input of this workflow",
        "input.who": "is missing",
    }


def test_loading_the_library_reports_every_file_with_faults(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: other\nsteps: [{type: api_call, id: a, url: 'crm:/x'}]")
    (tmp_path / "two.json").write_text('{"name": "two", "steps": []}')
    (tmp_path / "three.yml").write_text("name: &a three\nsteps: *a")

    with pytest.raises(StartupError) as rejected:
        load_library(tmp_path)

    assert str(rejected.value).splitlines()[1:] == [
        "one.yaml: its name must be the file's, 'one'",
        "three.yml: is neither YAML nor JSON: line 2: aliases (*name) are not allowed",
        "two.json: steps: list should have at least 1 item after validation, not 0",
    ]
    with pytest.raises(InvalidDefinition, match="write dates in quotes"):
        parse_definition("name: a\nsteps: 2026-01-01")


def test_the_diagram_shows_the_state_of_each_step(snapshot: SnapshotAssertion) -> None:
    each = {
        "type": "fan_out_fan_in",
        "id": "each",
        "for_each": "input.items",
        "fan_out_steps": [call("work")],
    }
    choice = {
        "type": "conditional",
        "id": "choice",
        "name": 'All "right"? [x](y)',
        "condition": {"type": "expression", "expression": "steps.each.output"},
        "then": [ask("may")],
        "otherwise": [loop(call("again"))],
    }
    workflow = build_definition(each, choice, parallel(call("left"), call("right")))
    results = {
        "each": _record("succeeded", {"items": 2}),
        "work[0]": _record("succeeded"),
        "work[1]": _record("skipped"),
        "choice": _record("succeeded", {"branch": "otherwise"}),
        "again[1]": _record("succeeded"),
        "again[2]": _record("failed"),
    }
    found = compute_progress(workflow, build_outline(workflow), results, running={"may"})

    assert (found.done, found.total) == (4, 6)
    assert render_mermaid(workflow, found.steps) == snapshot


def _record(status: RecordStatus, output: Any = None) -> Record:
    return Record(status=status, output=output, error="", started=1, finished=2, seconds=1, attempts=1)


def test_the_diagram_of_a_workflow_that_has_not_run_shows_pending_steps() -> None:
    for workflow in LIBRARY.values():
        assert ":::pending" in render_mermaid(workflow)


def test_the_readme_example_is_valid() -> None:
    written = (LIBRARY_DIR.parent / "README.md").read_text("utf-8")
    example = written.partition("```yaml\n")[2].partition("```")[0]

    assert parse_definition(example).name == "overdue_invoices"
