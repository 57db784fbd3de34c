"""Execute one tool call and report its outcome in a form that the model can act on."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypeAlias
from uuid import UUID, uuid5

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool, ToolException
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from core.errors import CrmError, CrmRefused, MemoryRefused, MemoryUnavailable, TextRefused
from core.memory import Scope, StrategyName
from core.metrics import current_meter
from core.texts import make_printable

FailureKind: TypeAlias = Literal["unknown_tool", "bad_arguments", "refused", "rejected", "unavailable"]

# Longer than all attempts of the CRM client together: it only stops a tool that hangs.
TOOL_TIMEOUT_SECONDS = 60.0

# What a model is shown, and what a checkpoint stores, of one call.
MAX_RESULT_CHARACTERS = 30_000
MAX_MESSAGE_CHARACTERS = 2_000

_KEY_NAMESPACE = UUID("6f2c1f0e-8d0b-4c57-9a57-1d0a6b6b9f51")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """What the run passes to a tool beside the model's arguments; the model neither sees nor writes it.

    Attributes:
        contact_id: The contact the run is about. A tool acts on this contact and on no other.
        idempotency_key: The same each time this call is repeated after a crash or a retry.
        tenant: Whose data the run may access.
        strategy: The calling agent's retrieval strategy, by which search results are ranked.
        agent: The calling agent; notes are written in its name.
        time_zone: IANA name of the contact's time zone; empty: unknown.
    """

    contact_id: str
    idempotency_key: str
    tenant: str = "default"
    strategy: StrategyName = "general"
    agent: str = "agent"
    time_zone: str = ""

    @property
    def scope(self) -> Scope:
        """The part of memory that the call may read and write."""
        return Scope(self.tenant, self.contact_id)


class Failure(TypedDict):
    """Why a call failed: its kind, and a message the model can act on."""

    kind: FailureKind
    message: str


class Observation(TypedDict):
    """The outcome of a call. ``result`` is JSON-able and present on success, ``error`` on failure.

    A result over :data:`MAX_RESULT_CHARACTERS` is the beginning of its JSON, as text.
    """

    success: bool
    result: NotRequired[Any]
    error: NotRequired[Failure]


def derive_idempotency_key(thread_id: str, message_id: str, call_id: str) -> str:
    """Return the key of an effect, from the thread, the message that requested it and the call in it.

    All three are in the checkpoint before the effect is attempted, so a resumed run derives the same key.
    """
    return str(uuid5(_KEY_NAMESPACE, f"{thread_id}\n{message_id}\n{call_id}"))


async def execute(tools: Mapping[str, BaseTool], call: ToolCall, context: CallContext) -> ToolMessage:
    """Execute a call.

    Failures that the model can act on (an unknown tool, bad arguments, a refusal) and those it cannot (an
    API that was unavailable through its client's retries) are both returned as observations; neither raises.

    Args:
        tools: The tools the model was offered, by name.
        call: The model's call.
        context: Identity and key; it replaces anything the model wrote under that name.

    Returns:
        The message for the model; its ``artifact`` is the :class:`Observation`.
    """
    started_at = time.perf_counter()
    observation = await _observe(tools, call, context)
    kind = observation["error"]["kind"] if "error" in observation else "success"
    # A name that no tool has is the model's invention: metric labels must stay bounded.
    name = call["name"] if call["name"] in tools else "unknown"
    current_meter().record_tool_call(name, kind, time.perf_counter() - started_at)
    return _build_message(call, observation)


def build_rejection(call: ToolCall, reason: str) -> ToolMessage:
    """Return the message for the model about a call that a person rejected."""
    return _build_message(call, _build_failure("rejected", f"a person rejected this: {reason}"))


def _build_message(call: ToolCall, observation: Observation) -> ToolMessage:
    return ToolMessage(
        content=json.dumps(observation, ensure_ascii=False),
        artifact=observation,
        tool_call_id=call["id"] or "",
        name=call["name"],
        status="success" if observation["success"] else "error",
    )


async def _observe(tools: Mapping[str, BaseTool], call: ToolCall, context: CallContext) -> Observation:
    tool = tools.get(call["name"])
    if tool is None:
        return _build_failure(
            "unknown_tool", f"there is no tool {call['name']!r}; there are: {', '.join(tools)}"
        )
    arguments = _select_arguments(tool, call["args"], context)
    try:
        async with asyncio.timeout(TOOL_TIMEOUT_SECONDS):
            result = await tool.ainvoke(arguments)
    except ValidationError as error:
        return _build_failure("bad_arguments", _describe_errors(error))
    except (CrmRefused, MemoryRefused, TextRefused, ToolException) as error:
        return _build_failure("refused", str(error))
    except (CrmError, MemoryUnavailable, TimeoutError) as error:
        return _build_failure("unavailable", str(error) or "the tool did not answer in time")
    return Observation(success=True, result=_to_json_value(result))


def _select_arguments(tool: BaseTool, arguments: Mapping[str, Any], context: CallContext) -> dict[str, Any]:
    """Return the arguments the model may write, with the run's context.

    All others are dropped: LangChain reads arguments with ``"type": "tool_call"`` as a whole call, whose own
    arguments would then replace these.
    """
    allowed = {name: value for name, value in arguments.items() if name in tool.args}
    takes_context = "context" in tool.get_input_schema().__annotations__
    return {**allowed, "context": context} if takes_context else allowed


def _to_json_value(result: Any) -> Any:
    """Return the result as plain JSON values, or the beginning of its JSON when it is too long."""
    value = to_jsonable_python(result, fallback=str, inf_nan_mode="null", bytes_mode="base64")
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= MAX_RESULT_CHARACTERS:
        return value
    return f"{text[:MAX_RESULT_CHARACTERS]}… (cut: the result has {len(text)} characters)"


def _build_failure(kind: FailureKind, message: str) -> Observation:
    # The CRM's message may contain lone surrogates, which can be neither sent nor stored.
    text = make_printable(message)[:MAX_MESSAGE_CHARACTERS]
    return Observation(success=False, error=Failure(kind=kind, message=text))


def _describe_errors(error: ValidationError) -> str:
    """Return one line that names each wrong argument."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    )
