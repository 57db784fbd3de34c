"""Definitions of working steps, and an engine that runs them against a fake API."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import JsonValue

from core.concurrency import FairSemaphore
from core.errors import StepFailed
from nodes.workflow.data_processing import process_data
from nodes.workflow.executors import request_approval, wait
from workflows.ports import Engine, Executor, StepCall
from workflows.schema import Definition
from workflows.steps import ApiCall
from workflows.validation import read_definition

Json = dict[str, Any]


class FakeApi:
    """Executes ``api_call`` steps without HTTP: decides the outcome of each call and counts the calls.

    Attributes:
        failing: Ids of the steps that fail.
        retryable: Whether their failures are retryable.
        calls: Number of calls per idempotency key.
        before: Called before each response; an awaitable that it returns is awaited.
    """

    def __init__(self, failing: Iterable[str] = (), *, retryable: bool = True) -> None:
        self.failing = set(failing)
        self.retryable = retryable
        self.calls: Counter[str] = Counter()
        self.before: Callable[[StepCall], Any] = lambda _: None

    async def __call__(self, step: ApiCall, call: StepCall) -> JsonValue:
        self.calls[call.idempotency_key] += 1
        awaited = self.before(call)
        if awaited is not None:
            await awaited
        if step.id in self.failing:
            raise StepFailed(f"no {step.id}", retryable=self.retryable)
        return call.idempotency_key.partition(":")[2]


def build_engine(api: Executor[Any], slots: FairSemaphore | None = None, **other: Any) -> Engine:
    """Return an engine that calls the fake API and does not wait between attempts."""

    async def skip_pause(_: float) -> None:
        return

    executors = {"api_call": api, "data_processing": process_data, "approval": request_approval, "wait": wait}
    return Engine(executors=executors, slots=slots or FairSemaphore(100), **{"pause": skip_pause, **other})


def call(step_id: str, **fields: Any) -> Json:
    """Return an ``api_call`` step."""
    return {"type": "api_call", "id": step_id, "url": "https://example.com/", **fields}


def ask(step_id: str) -> Json:
    """Return an ``approval`` step."""
    return {"type": "approval", "id": step_id, "question": "May it go on?"}


def build_definition(*steps: Json, **fields: Any) -> Definition:
    """Return a workflow of these steps with an optional input ``items``, a list."""
    inputs: Any = {"items": {"type": "array", "required": False, "default": []}}
    return read_definition({"name": "test", "inputs": inputs, "steps": list(steps), **fields})


def statuses(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the status of each record."""
    return {key: record["status"] for key, record in results.items()}
