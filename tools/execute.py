"""Carry out one tool call and say what became of it, in a form the model can act on."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypeAlias

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool, ToolException
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from core.errors import CrmError, CrmRefused, MemoryRefused, MemoryUnavailable
from core.metrics import meter
from core.texts import printable
from tools.execution import CallContext

FailureKind: TypeAlias = Literal["unknown_tool", "bad_arguments", "refused", "rejected", "unavailable"]

# Longer than the CRM client's own attempts together: this only catches a tool that hangs.
TOOL_TIMEOUT_SECONDS = 60.0

# What a model reads at once, and what a checkpoint keeps of one call.
MAX_RESULT_CHARACTERS = 30_000
MAX_MESSAGE_CHARACTERS = 2_000


class Failure(TypedDict):
    """Why a call failed: its kind, and words the model can act on."""

    kind: FailureKind
    message: str


class Observation(TypedDict):
    """What became of a call. ``result`` is JSON-able and present on success, ``error`` on failure.

    Of a result over :data:`MAX_RESULT_CHARACTERS` there is the beginning of its JSON, as text.
    """

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
    started = time.perf_counter()
    observation = await _observe(tools, call, context)
    kind = observation["error"]["kind"] if "error" in observation else "success"
    # A name that no tool has is the model's own: as a label it would have no bound.
    name = call["name"] if call["name"] in tools else "unknown"
    meter().tool_call(name, kind, time.perf_counter() - started)
    return _message(call, observation)


def rejected(call: ToolCall, reason: str) -> ToolMessage:
    """What the model is told of a call that a person rejected."""
    return _message(call, _failed("rejected", f"a person rejected this: {reason}"))


def _message(call: ToolCall, observation: Observation) -> ToolMessage:
    return ToolMessage(
        content=json.dumps(observation, ensure_ascii=False),
        artifact=observation,
        tool_call_id=call["id"] or "",
        name=call["name"],
        status="success" if observation["success"] else "error",
    )


async def _observe(tools: Mapping[str, BaseTool], call: ToolCall, context: CallContext) -> Observation:
    chosen = tools.get(call["name"])
    if chosen is None:
        return _failed("unknown_tool", f"there is no tool {call['name']!r}; there are: {', '.join(tools)}")
    arguments = _arguments(chosen, call["args"], context)
    try:
        async with asyncio.timeout(TOOL_TIMEOUT_SECONDS):
            result = await chosen.ainvoke(arguments)
    except ValidationError as error:
        return _failed("bad_arguments", _faults(error))
    except (CrmRefused, MemoryRefused, ToolException) as error:
        return _failed("refused", str(error))
    except (CrmError, MemoryUnavailable, TimeoutError) as error:
        return _failed("unavailable", str(error) or "the tool did not answer in time")
    return Observation(success=True, result=_readable(result))


def _arguments(chosen: BaseTool, written: Mapping[str, Any], context: CallContext) -> dict[str, Any]:
    """What the model was offered to write, and the run's context.

    Nothing else gets through: a tool reads arguments with ``"type": "tool_call"`` as a whole call, whose
    arguments would then stand in place of these.
    """
    arguments = {name: value for name, value in written.items() if name in chosen.args}
    takes_context = "context" in chosen.get_input_schema().__annotations__
    return {**arguments, "context": context} if takes_context else arguments


def _readable(result: Any) -> Any:
    """The result as plain JSON values, or the beginning of its JSON where it is too long."""
    plain = to_jsonable_python(result, fallback=str, inf_nan_mode="null", bytes_mode="base64")
    text = json.dumps(plain, ensure_ascii=False)
    if len(text) <= MAX_RESULT_CHARACTERS:
        return plain
    return f"{text[:MAX_RESULT_CHARACTERS]}… (cut: the result has {len(text)} characters)"


def _failed(kind: FailureKind, message: str) -> Observation:
    # The CRM's words may hold halves of characters, which can be neither sent nor stored.
    words = printable(message)[:MAX_MESSAGE_CHARACTERS]
    return Observation(success=False, error=Failure(kind=kind, message=words))


def _faults(error: ValidationError) -> str:
    """One line naming each wrong argument."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    )
