"""Bind tools and schemas to chat models once: with each binding, LangChain builds their JSON schemas anew."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from pydantic import BaseModel

# An agent has a set of tools; runs of POST /runs may name others.
_MOST_BINDINGS: Final = 256

# By the identities of a model and of what it is bound to, which each entry holds, so that they stay theirs.
_bindings: OrderedDict[tuple[int, ...], tuple[tuple[object, ...], Any]] = OrderedDict()


def bind_tools(chat: BaseChatModel, tools: Sequence[BaseTool]) -> Any:
    """Return the model with tools that it may call."""
    return _bind((chat, *tools), lambda: chat.bind_tools(tools))


def bind_schema(chat: BaseChatModel, schema: type[BaseModel]) -> Any:
    """Return the model with the schema of its reply, which it returns with the raw message."""
    return _bind((chat, schema), lambda: chat.with_structured_output(schema, include_raw=True))


def _bind(parts: tuple[object, ...], bind: Callable[[], Any]) -> Any:
    key = tuple(map(id, parts))
    if key not in _bindings:
        _bindings[key] = parts, bind()
        if len(_bindings) > _MOST_BINDINGS:
            _bindings.popitem(last=False)
    _bindings.move_to_end(key)
    return _bindings[key][1]
