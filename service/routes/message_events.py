"""A run as named events for streaming clients.

``start`` (session), ``agent`` (who works on it; another one, when that one could not answer), ``token`` (text
as it is made), ``thought`` (with the actions it asks for), ``observation``, ``reflection``, ``interrupt`` (a
question for a person), and at the end ``done`` (the whole response) or ``error``. Of two agents that answer a
part each, the tokens are those of the answer made of both.
"""

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from sse_starlette import ServerSentEvent

from service.routes.sse import event
from service.runs.output import FieldTokens, interrupt_to_dict
from service.runs.request import RunPart

# LangGraph's name for the update that holds interrupts.
INTERRUPT = "__interrupt__"
# The field of structured replies that people are shown while it is written.
ANSWER_FIELD = "final_answer"
# The step agents work in.
SPECIALIST = "specialist"
# The step that sums up for later agents, not for the customer.
SUMMARISE = "summarise"


class MessageEvents:
    """Turns a run's parts into events, in order."""

    def __init__(self) -> None:
        self._answers: dict[str, FieldTokens] = {}
        self._agents = 0
        self._several = False

    def of(self, part: RunPart) -> Iterator[ServerSentEvent]:
        """The events of one part; most parts have none or one."""
        if part["type"] == "messages":
            yield from self._token(*part["data"])
        elif part["type"] == "updates":
            for name, update in part["data"].items():
                if name == INTERRUPT and not part["ns"]:
                    yield from (event("interrupt", interrupt_to_dict(pending)) for pending in update)
                elif name != INTERRUPT:
                    yield from self._agents_of(update or {})
                    yield from _steps(update or {})

    def _agents_of(self, update: dict[str, Any]) -> Iterator[ServerSentEvent]:
        new = update.get("dispatched", [])[self._agents :]
        for each in new:
            yield event("agent", each)
        self._agents += len(new)
        self._several = self._several or len(new) > 1

    def _token(self, chunk: Any, metadata: dict[str, Any]) -> Iterator[ServerSentEvent]:
        # A whole message here was made by a node, not by a model: it is no token.
        if not isinstance(chunk, AIMessageChunk):
            return
        if metadata.get("langgraph_node") == SUMMARISE:
            return
        if self._several and metadata["langgraph_checkpoint_ns"].startswith(SPECIALIST):
            return
        text = self._shown(chunk)
        if text:
            node = metadata.get("langgraph_node")
            yield event("token", {"node": node, "message_id": chunk.id, "text": text})

    def _shown(self, chunk: AIMessageChunk) -> str:
        """The text to show: of a structured reply, its answer field."""
        key = chunk.id or ""
        if key not in self._answers:
            if not chunk.text.lstrip().startswith("{"):
                return chunk.text
            self._answers[key] = FieldTokens(ANSWER_FIELD)
        return self._answers[key].feed(chunk.text)


def _steps(update: dict[str, Any]) -> Iterator[ServerSentEvent]:
    for message in update.get("messages", []):
        if isinstance(message, AIMessage) and message.tool_calls:
            actions = [{"tool": call["name"], "args": call["args"]} for call in message.tool_calls]
            yield event("thought", {"thought": message.text, "actions": actions})
        elif isinstance(message, ToolMessage):
            yield event("observation", {"tool": message.name, **(message.artifact or {})})
    trace = update.get("trace") or []
    if trace and trace[-1]["reflection"]:
        yield event("reflection", {"iteration": trace[-1]["iteration"], **trace[-1]["reflection"]})
