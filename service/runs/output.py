"""Turn the stream of a run into what HTTP answers: a result, or named events for streaming clients."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypeAlias, get_type_hints

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langgraph.types import Interrupt
from pydantic import BaseModel, Field, JsonValue, create_model

from core.models import ModelInfo
from core.models.reasoning import get_reasoning
from core.models.streams import RESET_EVENT, build_thought_id
from graphs.spec import GraphSpec
from service.runs.request import RunPart

# The name of an event and its data, as JSON.
RunEvent: TypeAlias = tuple[str, Any]

# LangGraph's name for the update that holds interrupts.
INTERRUPT_UPDATE = "__interrupt__"

# Between the interrupt's id, which is hexadecimal, and the thread's.
_APPROVAL_ID_SEPARATOR = "."


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

    ``agent`` (who works on the message; a second one if the first could not answer), ``token`` (text of the
    answer as it is made), ``thought`` (reasoning as it comes, then the actions it leads to, with an id of its
    own), ``observation``, ``reflection``, ``reset`` (the tokens of a message are void) and ``interrupt`` (a
    question for a person).
    """

    def __init__(self) -> None:
        self._agents = 0
        # The tokens that count, by message; at most one message's.
        self._shown: dict[str, str] = {}
        self._thoughts: set[str] = set()

    def convert(self, part: RunPart) -> Iterator[RunEvent]:
        """Yield the events of one part; most parts have none or one."""
        if part["type"] == "messages":
            yield from self._convert_chunk(*part["data"])
        elif part["type"] == "custom" and part["data"].get("event") == RESET_EVENT:
            yield from self._reset(part["data"]["message_id"])
        elif part["type"] == "updates":
            for name, update in part["data"].items():
                if name == INTERRUPT_UPDATE and not part["ns"]:
                    yield from (("interrupt", interrupt_to_dict(pending)) for pending in update)
                elif name != INTERRUPT_UPDATE:
                    yield from self._list_agents(update or {})
                    yield from self._list_steps(update or {})

    def finish(self, response: str) -> Iterator[RunEvent]:
        """Yield what precedes the whole response: a reset, if the tokens are those of another text."""
        for message_id, text in list(self._shown.items()):
            if text.strip() != response.strip():
                yield from self._reset(message_id)

    def _list_agents(self, update: dict[str, Any]) -> Iterator[RunEvent]:
        new = update.get("dispatched", [])[self._agents :]
        for agent in new:
            yield "agent", agent
        self._agents += len(new)

    def _convert_chunk(self, chunk: Any, metadata: dict[str, Any]) -> Iterator[RunEvent]:
        # A whole message here was made by a node and not by a model: it is no token.
        if not isinstance(chunk, AIMessageChunk):
            return
        node, tags = metadata.get("langgraph_node"), metadata.get("tags") or ()
        if "answer" in tags and chunk.text:
            message_id = chunk.id or ""
            # There is one answer: a client that adds up tokens must not mix two.
            for other in self._shown.keys() - {message_id}:
                yield from self._reset(other)
            self._shown[message_id] = self._shown.get(message_id, "") + chunk.text
            yield "token", {"node": node, "message_id": message_id, "text": chunk.text}
        elif "thought" in tags and (text := get_reasoning(chunk)):
            self._thoughts.add(chunk.id or "")
            yield "thought", {"id": chunk.id, "text": text, "actions": []}

    def _list_steps(self, update: dict[str, Any]) -> Iterator[RunEvent]:
        for message in update.get("messages", []):
            if isinstance(message, AIMessage) and message.tool_calls:
                thought_id = build_thought_id(message.id or "")
                text = "" if thought_id in self._thoughts else message.text
                actions = [{"tool": call["name"], "args": call["args"]} for call in message.tool_calls]
                yield "thought", {"id": thought_id, "text": text, "actions": actions}
            elif isinstance(message, ToolMessage):
                yield "observation", {"tool": message.name, **(message.artifact or {})}
        trace = update.get("trace") or []
        if trace and trace[-1]["reflection"]:
            yield "reflection", {"iteration": trace[-1]["iteration"], **trace[-1]["reflection"]}

    def _reset(self, message_id: str) -> Iterator[RunEvent]:
        if self._shown.pop(message_id, None) is not None:
            yield "reset", {"message_id": message_id}
