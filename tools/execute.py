"""Carry out one tool call and say what became of it, in a form the model can act on."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypeAlias

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool, ToolException
from pydantic import ValidationError
from typing_extensions import TypedDict

from core.errors import CrmError, CrmRefused
from tools.call import CallContext

FailureKind: TypeAlias = Literal["unknown_tool", "bad_arguments", "refused", "unavailable"]

# Longer than the CRM client's own attempts together: this only catches a tool that hangs.
TOOL_TIMEOUT_SECONDS = 60.0


class Failure(TypedDict):
    """Why a call failed: its kind, and words the model can act on."""

    kind: FailureKind
    message: str


class Observation(TypedDict):
    """What became of a call. ``result`` is JSON-able and present on success, ``error`` on failure."""

    success: bool
    result: NotRequired[Any]
    error: NotRequired[Failure]


async def execute(tools: Mapping[str, BaseTool], call: ToolCall, context: CallContext) -> ToolMessage:
    """Carry out a call.

    What the model can mend (an unknown tool, bad arguments, a refusal) and what it cannot (an API that
    stayed down through its client's retries) both come back as an observation; nothing is raised for them.

    Args:
        tools: The tools the model was offered, by name.
        call: What the model asked for.
        context: Identity and key, put in place of anything the model wrote under that name.

    Returns:
        The message for the model; its ``artifact`` is the :class:`Observation`.
    """
    observation = await _observe(tools, call, context)
    return ToolMessage(
        content=json.dumps(observation, ensure_ascii=False, default=str),
        artifact=json.loads(json.dumps(observation, default=str)),
        tool_call_id=call["id"] or "",
        name=call["name"],
        status="success" if observation["success"] else "error",
    )


async def _observe(tools: Mapping[str, BaseTool], call: ToolCall, context: CallContext) -> Observation:
    chosen = tools.get(call["name"])
    if chosen is None:
        return _failed("unknown_tool", f"there is no tool {call['name']!r}; there are: {', '.join(tools)}")
    arguments = {**call["args"], "context": context} if _takes_context(chosen) else call["args"]
    try:
        async with asyncio.timeout(TOOL_TIMEOUT_SECONDS):
            result = await chosen.ainvoke(arguments)
    except ValidationError as error:
        return _failed("bad_arguments", _faults(error))
    except (CrmRefused, ToolException) as error:
        return _failed("refused", str(error))
    except (CrmError, TimeoutError) as error:
        return _failed("unavailable", str(error) or "the tool did not answer in time")
    return Observation(success=True, result=result)


def _takes_context(chosen: BaseTool) -> bool:
    return "context" in chosen.get_input_schema().__annotations__


def _failed(kind: FailureKind, message: str) -> Observation:
    return Observation(success=False, error=Failure(kind=kind, message=message))


def _faults(error: ValidationError) -> str:
    """One line naming each wrong argument."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    )
