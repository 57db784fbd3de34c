"""The events of a run in the streaming protocol of LangGraph's clients (package ``langchain-protocol``)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from langgraph.types import Interrupt

from service.agent_server.message_events import MessageEvents, Namespace
from service.agent_server.subscriptions import Subscription, name_custom_channel
from service.agent_server.tool_events import ToolEvents, find_calls
from service.runs.log.run_log import PART_MICROSECONDS, LoggedPart, NumberedPart
from service.runs.output import INTERRUPT_UPDATE
from service.runs.rows import RunRow

Event: TypeAlias = dict[str, Any]
# Slot and key within its part, method, namespace and data of an event.
_Bare: TypeAlias = tuple[int, str, str, Sequence[str], Any]

_RAW: Final = frozenset({"values", "updates", "custom", "tools", "tasks", "checkpoints"})
_INPUT: Final = "input.requested"
# How a root run ended. Clients take ``interrupted`` for a question, so that a cancelled run has failed.
_ENDS: Final = {"success": "completed", "error": "failed", "timeout": "failed"}
# The events of one part have slots in its time, so that an event's number does not depend on what else its
# reader wants: the events of messages come first, then these.
_LIFECYCLE_SLOT: Final = 40
_RAW_SLOT: Final = 56
_QUESTION_SLOT: Final = 40
_END_SLOT: Final = PART_MICROSECONDS - 1


class ProtocolEvents:
    """Make the events of a run's parts that a client has subscribed to.

    An event's ``seq`` is its time in microseconds, so that it increases over all runs of a thread on
    whichever replica they are. Its ``event_id`` is the same for whoever reads it.

    Args:
        run_id: The run.
        graph: The name of its graph.
        subscription: What is wanted.
    """

    def __init__(self, run_id: str, graph: str, subscription: Subscription) -> None:
        self._run_id = run_id
        self._graph = graph
        self._subscription = subscription
        self._since = subscription.since or 0
        self._at = 0
        self._begin()

    def _begin(self) -> None:
        self._messages = MessageEvents()
        self._subgraphs = _Subgraphs()
        self._tools = ToolEvents()
        self._pending: dict[str, tuple[Namespace, Interrupt]] = {}

    def convert(self, numbered: NumberedPart) -> Iterator[Event]:
        """Yield the events of a part."""
        self._at = numbered.at
        for slot, key, method, namespace, data in self._list_events(numbered.part):
            seq = numbered.at + slot
            if seq > self._since and self._wants(method, namespace, data):
                yield self._build(f"{self._run_id}:{numbered.seq}:{key}", seq, method, namespace, data)

    def list_questions(self) -> Iterator[Event]:
        """Yield what the run waits with, once it has ended."""
        for position, (interrupt_id, (namespace, pending)) in enumerate(self._pending.items()):
            seq = self._at + min(_QUESTION_SLOT + position, _END_SLOT)
            if seq > self._since and self._subscription.wants("input", namespace):
                # `payload` is the protocol's name, `value` the one that the Python client reads.
                data = {"interrupt_id": interrupt_id, "payload": pending.value, "value": pending.value}
                yield self._build(f"{self._run_id}:input:{interrupt_id}", seq, _INPUT, namespace, data)

    def end(self, row: RunRow | None) -> Iterator[Event]:
        """Yield how the run ended, as its row says; ``None``: it was rolled back and has none."""
        if row and row.ended_at and not self._at:
            # It was never begun.
            self._at = int(row.ended_at.timestamp() * 1_000_000)
        seq = self._at + _END_SLOT
        if seq > self._since and self._subscription.wants("lifecycle", ()):
            data = {"graph_name": self._graph, **_describe_end(row)}
            yield self._build(f"{self._run_id}:end", seq, "lifecycle", (), data)

    def _list_events(self, part: LoggedPart) -> Iterator[_Bare]:
        data: Any = part["data"]
        kind, namespace = part["type"], part["ns"]
        if kind == "attempt":
            self._begin()
            yield 0, kind, "lifecycle", (), {"event": "running", "graph_name": self._graph}
        elif kind == "end":
            yield from _number(self._messages.finish(()), ())
        elif kind == "messages":
            if self._subscription.wants(kind, namespace):
                yield from _number(self._messages.add(namespace, *data), namespace)
        else:
            yield from self._list_raw(kind, namespace, data)

    def _list_raw(self, kind: str, namespace: Namespace, data: Any) -> Iterator[_Bare]:
        if kind == "tasks":
            if "result" not in data:
                self._tools.observe(namespace, data)
            for subgraph, event in self._subgraphs.observe(namespace, data):
                path = "|".join(subgraph)
                yield from _number(self._messages.finish(subgraph), subgraph, path)
                yield _LIFECYCLE_SLOT, f"lifecycle{path}", "lifecycle", subgraph, event
        elif kind == "updates":
            for pending in data.get(INTERRUPT_UPDATE, ()):
                # The innermost graph says it first.
                self._pending.setdefault(pending.id, (namespace, pending))
        elif kind == "checkpoints":
            data = _shorten_checkpoint(data)
        elif kind == "tools":
            data = self._tools.name(namespace, data)
        if kind in _RAW:
            yield _RAW_SLOT, kind, kind, namespace, data

    def _wants(self, method: str, namespace: Sequence[str], data: Any) -> bool:
        channel = name_custom_channel(data) if method == "custom" else method
        return self._subscription.wants(channel, namespace)

    def _build(self, event_id: str, seq: int, method: str, namespace: Sequence[str], data: Any) -> Event:
        if method == "lifecycle" and not namespace:
            # The form in which clients find the run that a root event is about.
            event_id = f"synth:{event_id}"
        params = {"namespace": list(namespace), "timestamp": seq // 1_000, "data": data}
        return {"type": "event", "event_id": event_id, "seq": seq, "method": method, "params": params}


def _number(events: Iterator[Any], namespace: Namespace, path: str = "") -> Iterator[_Bare]:
    for position, data in enumerate(events):
        yield min(position, _LIFECYCLE_SLOT - 1), f"messages{position}{path}", "messages", namespace, data


class _Subgraphs:
    """Which subgraphs have begun and ended, as their tasks and those of their parents tell."""

    def __init__(self) -> None:
        self._seen: set[Namespace] = set()
        self._open: dict[Namespace, str] = {}
        # The tool call that a task executes, by the task.
        self._calls: dict[str, str] = {}

    def observe(self, namespace: Namespace, task: Mapping[str, Any]) -> Iterator[tuple[Namespace, Any]]:
        """Yield the namespace and the lifecycle of subgraphs that a task begins or ends."""
        if "result" in task:
            ended = [
                subgraph
                for subgraph, task_id in self._open.items()
                if subgraph[:-1] == namespace and task_id == task["id"]
            ]
            for subgraph in ended:
                del self._open[subgraph]
                yield subgraph, _describe_task_end(task)
            return
        self._note_call(task)
        if namespace and namespace not in self._seen:
            self._seen.add(namespace)
            yield namespace, self._describe_begin(namespace, task)

    def _describe_begin(self, namespace: Namespace, task: Mapping[str, Any]) -> dict[str, Any]:
        node, _, task_id = namespace[-1].partition(":")
        self._open[namespace] = task_id
        agent = (task.get("metadata") or {}).get("lc_agent_name")
        data: dict[str, Any] = {"event": "started", "graph_name": agent or node, "trigger_call_id": task_id}
        if agent and (call := self._calls.get(task_id)):
            data["cause"] = {"type": "toolCall", "tool_call_id": call}
        return data

    def _note_call(self, task: Mapping[str, Any]) -> None:
        for call in find_calls(task):
            self._calls.setdefault(task["id"], call["id"])


def _describe_task_end(task: Mapping[str, Any]) -> dict[str, Any]:
    if task.get("interrupts"):
        return {"event": "interrupted"}
    if error := task.get("error"):
        return {"event": "failed", "error": str(error)}
    return {"event": "completed"}


def _describe_end(row: RunRow | None) -> dict[str, Any]:
    if row is None:
        return {"event": "failed", "error": "the run was rolled back"}
    error = (row.error or {}).get("message")
    if row.status == "interrupted":
        return {"event": "failed", "error": error} if error or row.cancel_action else {"event": "interrupted"}
    described = {"event": _ENDS[row.status]}
    return {**described, "error": error} if error else described


def _shorten_checkpoint(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a checkpoint is in its thread; its values are events of their own."""

    def find_id(config: Mapping[str, Any] | None) -> Any:
        return ((config or {}).get("configurable") or {}).get("checkpoint_id")

    parent, metadata = find_id(data.get("parent_config")), data.get("metadata") or {}
    found = {
        "id": find_id(data.get("config")),
        "step": metadata.get("step"),
        "source": metadata.get("source"),
    }
    return {**found, "parent_id": parent} if parent else found
