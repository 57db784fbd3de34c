"""The models of working steps reject invalid fields with the reason."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from core.errors import InvalidRequest
from graphs.workflow import compile_workflow
from nodes.workflow.registry_graph import RunWorkflowNodes, RunWorkflowState
from tests.support.workflows import FakeApi, build_engine
from workflows.schema import Step
from workflows.steps import ApiCall

STEPS: TypeAdapter[Step] = TypeAdapter(Step)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"type": "api_call", "url": "https://{{ input.host }}/x"}, "must begin with https://host/"),
        ({"type": "api_call", "url": "https://user:key@host/x"}, "must begin with https://host/"),
        ({"type": "api_call", "url": "https://host{{ input.x }}/y"}, "must begin with https://host/"),
        ({"type": "api_call", "url": "file:///etc/passwd"}, "must begin with https://host/"),
        ({"type": "api_call", "url": "https://h/", "headers": {"Authorization": "x"}}, "WORKFLOW_SECRETS"),
        (
            {"type": "api_call", "url": "https://h/", "headers": {"Idempotency-Key": "x"}},
            "set by the service",
        ),
        ({"type": "api_call", "url": "https://h/", "headers": {"A\r\nB": "x"}}, "should match pattern"),
        ({"type": "database_query", "connection": "c", "sql": "DELETE FROM x"}, "must be one SELECT"),
        (
            {"type": "database_query", "connection": "c", "sql": "/* SELECT */ DROP TABLE x"},
            "must be one SELECT",
        ),
        ({"type": "database_query", "connection": "c", "sql": "SELECT '{{ input.x }}'"}, "not a template"),
        ({"type": "database_query", "connection": "c", "sql": "SELECT 1 % 2"}, "percent sign as %%"),
        ({"type": "database_query", "connection": "c", "sql": "SELECT %(a)s"}, "missing a"),
        (
            {"type": "database_query", "connection": "c", "sql": "SELECT 1", "parameters": {"a": 1}},
            "not named",
        ),
        ({"type": "data_processing", "operation": "filter", "source": "input.x"}, "filter needs where"),
        ({"type": "data_processing", "operation": "sum", "source": "a", "by": "b"}, "sum does not take by"),
        ({"type": "data_processing", "operation": "eval", "source": "a"}, "Input should be"),
        ({"type": "wait"}, "either duration_seconds or signal"),
        ({"type": "wait", "duration_seconds": 1, "within_seconds": 1}, "goes with signal"),
        ({"type": "agent", "graph": "no such name"}, "should match pattern"),
        ({"type": "approval", "question": ""}, "question\n  Value should have at least 1 item"),
        ({"type": "approval", "question": "x", "surprise": 1}, "Extra inputs"),
    ],
)
def test_a_step_that_cannot_work_is_rejected_with_the_reason(step: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        STEPS.validate_python({"id": "a", **step})
    assert why in str(caught.value)


def test_comments_may_precede_a_statement() -> None:
    step = {"id": "a", "type": "database_query", "connection": "c"}
    sql = "-- the newest\n/* of them */ select * from x where a = %(a)s and b like '%%x'"
    STEPS.validate_python({**step, "sql": sql, "parameters": {"a": "{{ input.a }}"}})


def test_the_time_limit_of_an_api_call_covers_all_attempts_and_pauses() -> None:
    step = ApiCall(id="a", type="api_call", url="https://h/", attempts=3, timeout_seconds=5)
    assert step.max_seconds == 3 * 5 + 2 * 30
    assert step.model_copy(update={"attempts": 1}).max_seconds == 5


async def test_the_graph_workflow_rejects_a_definition_with_waits() -> None:
    nodes = RunWorkflowNodes(lambda definition: compile_workflow(definition, build_engine(FakeApi())))
    wait = {"type": "wait", "id": "paid", "signal": "paid"}
    waits: dict[str, Any] = {"name": "w", "steps": [{"type": "parallel", "id": "p", "steps": [wait]}]}
    with pytest.raises(InvalidRequest, match=r"paid.*/v1/workflows"):
        await nodes.prepare(RunWorkflowState(definition=waits))
