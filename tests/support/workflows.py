"""Working steps whose outcome a test says, and what runs them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import JsonValue

from core.concurrency import FairSemaphore
from core.errors import StepFailed
from nodes.workflow.data_processing import process_data
from nodes.workflow.executors import request_approval
from workflows.ports import Engine, Executor, StepCall
from workflows.schema import Definition
from workflows.steps import ApiCall
from workflows.validation import read_definition

Json = dict[str, Any]


class Outside:
    """Stands for the API that ``api_call`` steps ask: says what each call comes to, and counts them.

    Attributes:
        failing: Ids of the steps that fail.
        retryable: Whether trying again may help.
        calls: How often each idempotency key came.
        before: Called before each answer.
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


def engine(outside: Executor[Any], slots: FairSemaphore | None = None, **other: Any) -> Engine:
    """An engine over it, which waits for no backoff."""

    async def at_once(_: float) -> None:
        return

    executors = {"api_call": outside, "data_processing": process_data, "approval": request_approval}
    return Engine(executors=executors, slots=slots or FairSemaphore(100), **{"pause": at_once, **other})


def call(step_id: str, **fields: Any) -> Json:
    """A working step."""
    return {"type": "api_call", "id": step_id, "url": "https://example.com/", **fields}


def ask(step_id: str) -> Json:
    """A step that asks a person."""
    return {"type": "approval", "id": step_id, "question": "May it go on?"}


def definition(*steps: Json, **fields: Any) -> Definition:
    """A workflow of these steps, whose input may have a list ``items``."""
    inputs: Any = {"items": {"type": "array", "required": False, "default": []}}
    return read_definition({"name": "test", "inputs": inputs, "steps": list(steps), **fields})


def statuses(results: Mapping[str, Any]) -> dict[str, str]:
    """The status of each record."""
    return {key: record["status"] for key, record in results.items()}
