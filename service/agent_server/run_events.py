"""The events of a run as LangGraph's clients read them (``/threads/{id}/runs/stream``)."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from langchain_core.messages import AIMessageChunk, BaseMessage

from service.runs.log.run_log import LoggedPart, NumberedPart, build_event_id
from service.runs.output import INTERRUPT_UPDATE

# The mode that LangGraph's ``messages`` serves beside the API's own ``messages``.
_TUPLES: Final = "messages-tuple"
# What followers of a run see that was not begun with this API.
_DEFAULT_MODES: Final = ("values", "updates", _TUPLES, "custom")


class ApiEvent(NamedTuple):
    """An event.

    Attributes:
        id: See :func:`service.runs.log.run_log.build_event_id`.
        name: The stream mode; with the namespace of the subgraph it is from (``updates|agent:1``).
        data: Anything that JSON can be made of.
    """

    id: int
    name: str
    data: Any


class ApiEvents:
    """Make the events of a run's parts, in the stream modes that a caller asked for.

    The parts are read from :func:`service.runs.log.run_log.find_attempt_start`, as messages grow from
    their first chunk.

    Args:
        run_id: The run.
        modes: The API's names of the stream modes; empty: those that the run was begun with.
        after: The id of the last event that the caller has; 0: none.

    Attributes:
        error: The typed error with which the run's latest attempt ended.
    """

    def __init__(self, run_id: str, modes: Collection[str] = (), *, after: int = 0) -> None:
        self._run_id = run_id
        self._given = modes
        self._after = after
        self._begin((), subgraphs=False)

    def _begin(self, modes: Collection[str], *, subgraphs: bool) -> None:
        self._modes = self._given or modes or _DEFAULT_MODES
        self._subgraphs = subgraphs
        self._messages = _WholeMessages()
        self.error: Mapping[str, Any] | None = None

    def convert(self, numbered: NumberedPart) -> Iterator[ApiEvent]:
        """Yield the events of a part that the caller does not have."""
        for position, (name, data) in enumerate(self._list_events(numbered.part)):
            event_id = build_event_id(numbered.seq, position)
            if event_id > self._after:
                yield ApiEvent(event_id, name, data)

    def _list_events(self, part: LoggedPart) -> Iterator[tuple[str, Any]]:
        data: Any = part["data"]
        kind, namespace = part["type"], part["ns"]
        if kind == "attempt":
            self._begin(data["stream_mode"], subgraphs=data["subgraphs"])
            yield "metadata", {"run_id": self._run_id, "attempt": data["attempt"]}
        elif kind == "end":
            self.error = data["error"]
        elif namespace and not self._subgraphs:
            return
        elif kind == "messages":
            if _TUPLES in self._modes:
                yield _name("messages", namespace), data
            if "messages" in self._modes:
                yield from self._messages.add(*data)
        elif kind == "updates":
            yield from self._list_updates(namespace, data)
        elif kind in self._modes:
            if pending := part.get("interrupts"):
                data = {**data, INTERRUPT_UPDATE: pending}
            yield _name(kind, namespace), data

    def _list_updates(self, namespace: Collection[str], data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        if "messages" in self._modes:
            yield from self._messages.complete(data)
        # Questions are events whatever was asked for.
        if "updates" in self._modes or (not namespace and INTERRUPT_UPDATE in data):
            yield _name("updates", namespace), data


class _WholeMessages:
    """Messages as far as they have come: what the mode ``messages`` sends again with each chunk."""

    def __init__(self) -> None:
        self._growing: dict[str, BaseMessage] = {}

    def add(self, message: BaseMessage, metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the events of a chunk, or of a message that came whole."""
        message_id = message.id or ""
        before = self._growing.get(message_id)
        if before is None:
            yield "messages/metadata", {message_id: {"metadata": metadata}}
        if not isinstance(message, AIMessageChunk):
            self._growing.pop(message_id, None)
            yield "messages/complete", [message]
            return
        grown = before + message if isinstance(before, AIMessageChunk) else message
        self._growing[message_id] = grown
        yield "messages/partial", [grown]

    def complete(self, update: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the messages of an update that came in chunks before."""
        for values in update.values():
            for message in _find_messages(values):
                if message.id and self._growing.pop(message.id, None) is not None:
                    yield "messages/complete", [message]


def _find_messages(values: Any) -> Iterator[BaseMessage]:
    for value in values.values() if isinstance(values, Mapping) else ():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseMessage):
                yield item


def _name(mode: str, namespace: Collection[str]) -> str:
    return "|".join((mode, *namespace))
