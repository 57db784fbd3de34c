"""``{"resume": ...}`` in place of a graph's input: LangServe has no other way to answer an interrupt."""

from collections.abc import Mapping
from typing import Any

from langgraph.types import Command
from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    ModelWrapValidatorHandler,
    create_model,
    model_validator,
)

from graphs.spec import GraphSpec
from service.runs.request import require_storable


class Resume(BaseModel):
    """Go on with a thread.

    A value answers its pending interrupt; with several pending, ``{interrupt id: value}``. Null continues a
    run that failed or was stopped, from its last checkpoint.
    """

    model_config = ConfigDict(extra="forbid")

    resume: JsonValue


class _OrResume(BaseModel):
    """Lets an input model take a :class:`Resume` too; its JSON schema stays the input's."""

    @model_validator(mode="wrap")
    @classmethod
    def _or_resume(cls, value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        require_storable(value)
        if isinstance(value, Mapping) and "resume" in value:
            return Resume.model_validate(value)
        return handler(value)


def served_input_schema(spec: GraphSpec) -> type[BaseModel]:
    """The graph's input schema, which takes ``{"resume": ...}`` in its place."""
    return create_model(
        spec.input_schema.__name__,
        __base__=(_OrResume, spec.input_schema),
        __doc__=spec.input_schema.__doc__,
    )


def resume_request(graph: str, thread_id: str) -> dict[str, JsonValue]:
    """What to send to go on with a thread whose run was stopped, from its last checkpoint."""
    return {
        "method": "POST",
        "path": f"/{graph}/invoke",
        "body": {"input": {"resume": None}, "config": {"configurable": {"thread_id": thread_id}}},
    }


def graph_input(values: Mapping[str, Any]) -> Any:
    """What LangGraph is given: the values, a ``Command`` that answers interrupts, or ``None`` to continue."""
    if "resume" not in values:
        return values
    return None if values["resume"] is None else Command(resume=values["resume"])
