"""What the routes of our own graphs take as the input of a run."""

from collections.abc import Iterator, Mapping
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

from core.texts import is_storable
from graphs.spec import GraphSpec


class Resume(BaseModel):
    """Continue a thread; LangServe has no other way to answer an interrupt than in place of an input.

    A value answers the pending interrupt; with several pending, ``{interrupt id: value}``. Null continues a
    run that failed or was stopped, from its last checkpoint.
    """

    model_config = ConfigDict(extra="forbid")

    resume: JsonValue


class _InputOrResume(BaseModel):
    """Lets an input model accept a :class:`Resume` too, and refuse fields that it does not have."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _validate_input_or_resume(cls, value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        require_storable(value)
        if isinstance(value, Mapping) and "resume" in value:
            return Resume.model_validate(value)
        return handler(value)


def build_served_input_schema(spec: GraphSpec) -> type[BaseModel]:
    """Return the graph's input schema, extended so that it accepts ``{"resume": ...}`` in its place."""
    return create_model(
        spec.input_schema.__name__,
        __base__=(_InputOrResume, spec.input_schema),
        __doc__=spec.input_schema.__doc__,
    )


def build_graph_input(spec: GraphSpec, values: Mapping[str, Any]) -> dict[str, Any] | Command[Any] | None:
    """Return what LangGraph is given for the values of a served input.

    Returns:
        The validated input with every default (see :meth:`graphs.spec.GraphSpec.validate_input`), a
        ``Command`` that answers interrupts, or ``None`` to continue.
    """
    if "resume" in values:
        return None if values["resume"] is None else Command(resume=values["resume"])
    return spec.validate_input(values)


def require_storable(value: Any) -> Any:
    """Return the value if Postgres can store every text in it.

    Raises:
        ValueError: A text holds NUL or half of a surrogate pair, which ``jsonb`` does not accept.
    """
    if not all(map(is_storable, _iter_texts(value))):
        raise ValueError("text must hold neither NUL nor half of a surrogate pair")
    return value


def _iter_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _iter_texts(key)
            yield from _iter_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _iter_texts(item)
