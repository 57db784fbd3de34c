"""What every answer says beside the graph's own output: the thread, open questions, and who answered."""

from dataclasses import asdict
from typing import Any, get_type_hints

from langgraph.types import Interrupt
from pydantic import BaseModel, Field, JsonValue, create_model

from core.models import ModelInfo
from graphs.spec import GraphSpec
from service.runs.executor import RunExecutor
from service.runs.request import RunPart, RunRequest


class RunMetadata(BaseModel):
    """Which model answered. ``is_language_model`` is false for the offline model, and ``why`` says so."""

    model: str
    reasoning_model: str
    fallback_model: str | None
    is_language_model: bool
    why: str


class PendingInterrupt(BaseModel):
    """A question the run waits with."""

    id: str = Field(description="Names the question in {'resume': {id: answer}}")
    value: JsonValue = Field(description="The question, with what is needed to decide")
    response_schema: dict[str, JsonValue] | None = Field(description="JSON schema of the answer")


class ServedOutput(BaseModel):
    """Added to each graph's output over HTTP."""

    thread_id: str = Field(description="Give it back as configurable.thread_id to go on with the thread")
    interrupts: list[PendingInterrupt] = Field(
        description="Questions the run waits with; answer with the input {'resume': answer} on this thread"
    )
    metadata: RunMetadata = Field(description="Which model answered, and why it")


class RunResult:
    """What a run has come to, gathered from its parts."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._interrupts: dict[str, Interrupt] = {}

    def take(self, part: RunPart) -> None:
        """Take a part in; only ``values`` parts matter."""
        if part["type"] == "values" and not part["ns"]:
            self.values = part["data"]
            self._interrupts.update({pending.id: pending for pending in part["interrupts"]})

    @property
    def interrupts(self) -> list[dict[str, Any]]:
        """The open questions, as JSON."""
        return [interrupt_json(pending) for pending in self._interrupts.values()]

    def output(self, thread_id: str, model: ModelInfo) -> dict[str, Any]:
        """The graph's output with what HTTP adds."""
        added = {"thread_id": thread_id, "interrupts": self.interrupts, "metadata": asdict(model)}
        return {**self.values, **added}


async def finished(runs: RunExecutor, request: RunRequest) -> RunResult:
    """Run to the end, or to the next question.

    Raises:
        ServiceError: As :meth:`service.runs.executor.RunExecutor.stream`.
    """
    result = RunResult()
    async for part in runs.stream(request):
        result.take(part)
    return result


def interrupt_json(pending: Interrupt) -> dict[str, Any]:
    """A question as JSON (:class:`PendingInterrupt`)."""
    return {"id": pending.id, "value": pending.value, "response_schema": pending.response_schema}


def served_output_schema(spec: GraphSpec) -> type[BaseModel]:
    """The graph's output schema with what HTTP adds."""
    fields: dict[str, Any] = {
        name: (annotation, ...)
        for name, annotation in get_type_hints(spec.output_schema, include_extras=True).items()
    }
    return create_model(
        spec.output_schema.__name__, __base__=ServedOutput, __doc__=spec.output_schema.__doc__, **fields
    )
