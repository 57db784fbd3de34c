"""Events of tools under the ids by which models call them.

LangChain tells a tool's callbacks the id of the call only where the tool was given the whole call. Our agents
give a tool its arguments and what the run adds to them; there the call is found in the task that executes it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from service.agent_server.message_events import Namespace


class ToolEvents:
    """Names the calls that the events of a run's tools are about."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Namespace, Mapping[str, Any]]] = []
        self._ids: dict[str, str] = {}

    def observe(self, namespace: Namespace, task: Mapping[str, Any]) -> None:
        """Take note of the calls that a task is about to execute."""
        self._waiting += ((namespace, call) for call in find_calls(task))

    def name(self, namespace: Namespace, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an event of a tool with the id of the model's call."""
        given = event["tool_call_id"]
        if event["event"] == "tool-started":
            self._ids[given] = self._find(namespace, event) or given
        known = self._ids.get(given, given)
        return event if known == given else {**event, "tool_call_id": known}

    def _find(self, namespace: Namespace, event: Mapping[str, Any]) -> str | None:
        for position, (where, call) in enumerate(self._waiting):
            is_it = call["id"] == event["tool_call_id"]
            if is_it or (where == namespace and call.get("name") == event["tool_name"]):
                del self._waiting[position]
                return str(call["id"])
        return None


def find_calls(task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the tool calls in the input of a task: one (ours, or LangGraph's), or a list."""
    given = task.get("input")
    if isinstance(given, Mapping):
        given = [given.get("call"), given.get("tool_call")]
    for call in given if isinstance(given, list) else ():
        if isinstance(call, Mapping) and call.get("id") and call.get("name"):
            yield call
