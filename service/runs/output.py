"""Turn the stream of a run into what HTTP answers: a result, or named events for streaming clients."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypeAlias, get_type_hints

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langgraph.types import Interrupt
from pydantic import BaseModel, Field, JsonValue, create_model

from core.models import ModelInfo
from graphs.spec import GraphSpec
from service.runs.request import RunPart

# The name of an event and its data, as JSON.
RunEvent: TypeAlias = tuple[str, Any]

# LangGraph's name for the update that holds interrupts.
INTERRUPT_UPDATE = "__interrupt__"
# The field of structured replies whose text is streamed while the model writes it.
ANSWER_FIELD = "final_answer"
# The coordinator's node in which agents work.
SPECIALIST_NODE = "specialist"
# The node that summarises for later agents, not for the customer.
SUMMARISE_NODE = "summarise"

# Between the interrupt's id, which is hexadecimal, and the thread's.
_APPROVAL_ID_SEPARATOR = "."
# A character of a JSON string, or an escaped one; of a surrogate pair, both halves (RFC 8259, section 7).
_JSON_CHARACTER = re.compile(
    r'[^\\]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[\da-fA-F]{4}'
    r"|\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}",
    re.DOTALL,
)


class RunMetadata(BaseModel):
    """Which model answered. ``is_language_model`` is false for the offline model, and ``why`` says so."""

    model: str
    reasoning_model: str
    fallback_model: str | None
    is_language_model: bool
    why: str
    prompts: str = Field(description="Version of all prompts: changes when a prompt or an agent's file does")


class PendingInterrupt(BaseModel):
    """A question the run waits with."""

    id: str = Field(description="Names the question in {'resume': {id: answer}}")
    value: JsonValue = Field(description="The question, with what is needed to decide")
    response_schema: dict[str, JsonValue] | None = Field(description="JSON schema of the answer")


class ServedOutput(BaseModel):
    """Added to each graph's output over HTTP."""

    thread_id: str = Field(description="Give it back as configurable.thread_id to continue the thread")
    interrupts: list[PendingInterrupt] = Field(
        description="Questions the run waits with; answer with the input {'resume': answer} on this thread"
    )
    metadata: RunMetadata = Field(description="Which model answered, and why that one")


def build_served_output_schema(spec: GraphSpec) -> type[BaseModel]:
    """Return the graph's output schema with the fields that HTTP adds."""
    fields: dict[str, Any] = {
        name: (annotation, ...)
        for name, annotation in get_type_hints(spec.output_schema, include_extras=True).items()
    }
    return create_model(
        spec.output_schema.__name__, __base__=ServedOutput, __doc__=spec.output_schema.__doc__, **fields
    )


class RunResult:
    """The output of a run, collected from its parts.

    Attributes:
        values: The graph's output.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._interrupts: dict[str, Interrupt] = {}

    def take(self, part: RunPart) -> None:
        """Collect a part; only ``values`` parts of the graph itself matter."""
        if part["type"] == "values" and not part["ns"]:
            self.values = part["data"]
            self._interrupts.update({pending.id: pending for pending in part["interrupts"]})

    @property
    def interrupts(self) -> list[dict[str, Any]]:
        """The pending interrupts, as JSON."""
        return [interrupt_to_dict(pending) for pending in self._interrupts.values()]

    def to_output(self, thread_id: str, model: ModelInfo) -> dict[str, Any]:
        """Return the graph's output with the fields that HTTP adds."""
        added = {"thread_id": thread_id, "interrupts": self.interrupts, "metadata": asdict(model)}
        return {**self.values, **added}


def interrupt_to_dict(pending: Interrupt) -> dict[str, Any]:
    """Return an interrupt as JSON (:class:`PendingInterrupt`)."""
    return {"id": pending.id, "value": pending.value, "response_schema": pending.response_schema}


def format_approval_id(interrupt_id: str, thread_id: str) -> str:
    """Return the id of an interrupt at ``/v1/approvals/{id}``."""
    return f"{interrupt_id}{_APPROVAL_ID_SEPARATOR}{thread_id}"


def parse_approval_id(approval_id: str) -> tuple[str, str]:
    """Return the interrupt's id and the thread's; a missing one is empty."""
    interrupt_id, _, thread_id = approval_id.partition(_APPROVAL_ID_SEPARATOR)
    return interrupt_id, thread_id


class RunEvents:
    """Turn the parts of a coordinator run into named events, in order.

    ``agent`` (who works on the message; a second one if the first could not answer), ``token`` (text as it
    is made), ``thought`` (with the actions it asks for), ``observation``, ``reflection`` and ``interrupt``
    (a question for a person). If two agents answer a part each, the tokens are those of the merged answer.
    """

    def __init__(self) -> None:
        self._answers: dict[str, FieldTokens] = {}
        self._agents = 0
        self._has_several_agents = False

    def convert(self, part: RunPart) -> Iterator[RunEvent]:
        """Yield the events of one part; most parts have none or one."""
        if part["type"] == "messages":
            yield from self._convert_chunk(*part["data"])
        elif part["type"] == "updates":
            for name, update in part["data"].items():
                if name == INTERRUPT_UPDATE and not part["ns"]:
                    yield from (("interrupt", interrupt_to_dict(pending)) for pending in update)
                elif name != INTERRUPT_UPDATE:
                    yield from self._list_agents(update or {})
                    yield from _list_steps(update or {})

    def _list_agents(self, update: dict[str, Any]) -> Iterator[RunEvent]:
        new = update.get("dispatched", [])[self._agents :]
        for agent in new:
            yield "agent", agent
        self._agents += len(new)
        self._has_several_agents = self._has_several_agents or len(new) > 1

    def _convert_chunk(self, chunk: Any, metadata: dict[str, Any]) -> Iterator[RunEvent]:
        # A whole message here was made by a node and not by a model: it is no token.
        if not isinstance(chunk, AIMessageChunk):
            return
        node = metadata.get("langgraph_node")
        is_part = metadata["langgraph_checkpoint_ns"].startswith(SPECIALIST_NODE)
        if node == SUMMARISE_NODE or (self._has_several_agents and is_part):
            return
        if text := self._select_text(chunk):
            yield "token", {"node": node, "message_id": chunk.id, "text": text}

    def _select_text(self, chunk: AIMessageChunk) -> str:
        """Return the text to stream: of a structured reply, its answer field."""
        key = chunk.id or ""
        if key not in self._answers:
            if not chunk.text.lstrip().startswith("{"):
                return chunk.text
            self._answers[key] = FieldTokens(ANSWER_FIELD)
        return self._answers[key].feed(chunk.text)


def _list_steps(update: dict[str, Any]) -> Iterator[RunEvent]:
    for message in update.get("messages", []):
        if isinstance(message, AIMessage) and message.tool_calls:
            actions = [{"tool": call["name"], "args": call["args"]} for call in message.tool_calls]
            yield "thought", {"thought": message.text, "actions": actions}
        elif isinstance(message, ToolMessage):
            yield "observation", {"tool": message.name, **(message.artifact or {})}
    trace = update.get("trace") or []
    if trace and trace[-1]["reflection"]:
        yield "reflection", {"iteration": trace[-1]["iteration"], **trace[-1]["reflection"]}


class FieldTokens:
    """Follow one string field of a JSON object while the object's text comes in pieces.

    Each character is read once, so that a piece of a long answer costs no more than one of a short answer.

    Args:
        field: Name of the top-level field.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._depth = 0
        self._in_string = False
        self._escaped = False
        # The last string at the top level, as it is written; the field's name is one.
        self._string = ""
        self._value_is_next = False
        # The characters of the value that do not form a whole one yet. None before and after the value.
        self._pending: str | None = None
        self._done = False

    def feed(self, piece: str) -> str:
        """Return what the piece adds to the field's value; empty while it adds nothing.

        All returned pieces together are the field's value in the whole text. Text that is not JSON adds
        nothing.
        """
        return "".join(map(self._read, piece))

    def _read(self, character: str) -> str:
        if self._done:
            return ""
        if self._in_string:
            return self._read_in_string(character)
        if character == '"':
            self._in_string, self._string = True, ""
            self._pending = "" if self._value_is_next else None
        elif character == ":":
            self._value_is_next = self._depth == 1 and self._is_field(self._string)
        elif not character.isspace():
            self._value_is_next = False
            self._depth += (character in "{[") - (character in "}]")
        return ""

    def _read_in_string(self, character: str) -> str:
        if character == '"' and not self._escaped:
            self._in_string, self._done = False, self._pending is not None
            return ""
        self._escaped = character == "\\" and not self._escaped
        if self._pending is not None:
            return self._decode(character)
        if self._depth == 1:
            self._string += character
        return ""

    def _decode(self, character: str) -> str:
        pending = f"{self._pending}{character}"
        if not _JSON_CHARACTER.fullmatch(pending):
            self._pending = pending
            return ""
        self._pending = ""
        return str(json.loads(f'"{pending}"', strict=False))

    def _is_field(self, written: str) -> bool:
        try:
            return bool(json.loads(f'"{written}"', strict=False) == self._field)
        except ValueError:
            return False
