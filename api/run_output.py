"""What every answer says beside the graph's own output: the thread, and who answered."""

from dataclasses import asdict
from typing import Any, get_type_hints

from pydantic import BaseModel, Field, create_model

from core.models import ModelInfo
from graphs.spec import GraphSpec


class RunMetadata(BaseModel):
    """Which model answered. ``is_language_model`` is false for the offline model, and ``why`` says so."""

    model: str
    reasoning_model: str
    fallback_model: str | None
    is_language_model: bool
    why: str


class ServedOutput(BaseModel):
    """Added to each graph's output over HTTP."""

    thread_id: str = Field(description="Give it back as configurable.thread_id to go on with the thread")
    metadata: RunMetadata = Field(description="Which model answered, and why it")


def served_output_schema(spec: GraphSpec) -> type[BaseModel]:
    """The graph's output schema with what HTTP adds."""
    fields: dict[str, Any] = {
        name: (annotation, ...)
        for name, annotation in get_type_hints(spec.output_schema, include_extras=True).items()
    }
    return create_model(
        spec.output_schema.__name__, __base__=ServedOutput, __doc__=spec.output_schema.__doc__, **fields
    )


def served_output(output: dict[str, Any], thread_id: str, model: ModelInfo) -> dict[str, Any]:
    """The graph's output with what HTTP adds."""
    return {**output, "thread_id": thread_id, "metadata": asdict(model)}
