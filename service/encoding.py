"""JSON as LangGraph's clients read it: messages, models and whatever else a state or an event holds."""

import json
from collections.abc import Mapping
from typing import Any

import orjson
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel

_OPTIONS = orjson.OPT_NON_STR_KEYS


def dump_json(value: Any) -> bytes:
    """Return JSON; what has no JSON form is shown as text."""
    try:
        return orjson.dumps(value, default=to_jsonable, option=_OPTIONS)
    except TypeError:
        # A model may write a number of more than 64 bits into a tool call, which orjson refuses.
        return json.dumps(value, ensure_ascii=False, default=to_jsonable).encode()


def to_plain(value: Any) -> Any:
    """Return a value as it would be read from its JSON."""
    return orjson.loads(dump_json(value))


def to_jsonable(value: Any) -> Any:  # noqa: PLR0911 - one return for each kind
    """Return the JSON form of a value that orjson does not know."""
    match value:
        case Interrupt():
            return {"value": value.value, "id": value.id, **_show_schema(value)}
        case BaseModel():
            return value.model_dump()
        case Command():
            return {name: getattr(value, name) for name in ("update", "resume", "goto")}
        case Send():
            return {"node": value.node, "input": value.arg}
        case Mapping():
            return dict(value)
        case set() | frozenset() | tuple():
            return list(value)
        case BaseException():
            return {"error": type(value).__name__, "message": str(value)}
        case _:
            return repr(value)


def _show_schema(interrupt: Interrupt) -> dict[str, Any]:
    return {"response_schema": interrupt.response_schema} if interrupt.response_schema else {}
