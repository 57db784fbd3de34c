"""Show conversations as people read them: who said what, how each answer was made, and a line for lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from core.texts import cut
from nodes.shared.conversation import get_person
from service.conversations.sessions import SESSION_GRAPH
from service.runs.output import RunResult
from service.runs.request import RUN_KEY, CompiledGraph, RunRequest
from service.runs.rows import RunRow

# What the state says of how an answer was made.
DETAILS: Final = (
    "agent_used",
    "category",
    "confidence",
    "path",
    "dispatched",
    "attempts",
    "context",
    "citations",
    "unsupported",
    "handoff",
    "memory",
)
# In the metadata of a thread, so that lists of conversations read no checkpoints.
_EXCERPT_CHARACTERS: Final = 200
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A message of a conversation.

    Attributes:
        id: Its id.
        author: ``customer``, ``agent`` or ``person``.
        name: Who of the company wrote it; empty: the customer or an agent.
        text: The text.
        run_id: The run that answered it, or whose answer it is; empty: that run's row was deleted.
        details: How the answer was made (:data:`DETAILS`); empty for other messages.
    """

    id: str
    author: str
    name: str
    text: str
    run_id: str
    details: Mapping[str, Any]


async def load_conversation(
    graph: CompiledGraph, thread_id: str, runs: Sequence[RunRow], *, limit: int
) -> list[Spoken]:
    """Return the latest messages of a session's thread, oldest first.

    Args:
        graph: The coordinator.
        thread_id: The session.
        runs: Its runs whose details are read, each from its last checkpoint.
        limit: At most so many messages.
    """
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    state = await graph.aget_state(config)
    turns: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for run in runs:
        async for snapshot in graph.aget_state_history(config, filter={RUN_KEY: run.id}, limit=1):
            turns.setdefault(snapshot.values.get("turn", ""), (run.id, snapshot.values))
    spoken: list[Spoken] = []
    run_id, how = "", _NOTHING
    for message in state.values.get("messages", []):
        if isinstance(message, HumanMessage) or get_person(message):
            run_id, how = turns.get(message.id or "", ("", _NOTHING))
        if not isinstance(message, HumanMessage | AIMessage):
            continue
        is_answer = isinstance(message, AIMessage) and not get_person(message)
        values = how if is_answer else _NOTHING
        spoken.append(
            Spoken(
                id=message.id or "",
                author=name_author(message),
                name=get_person(message),
                text=message.text,
                run_id=run_id,
                details={name: values[name] for name in DETAILS if name in values},
            )
        )
    return spoken[-limit:]


def describe_thread(request: RunRequest, result: RunResult) -> dict[str, Any] | None:
    """Return what the metadata of a run's thread says after the run.

    Returns:
        For a session: ``contact_id``, ``channel_id`` where it is known, ``last_message`` (its beginning),
        ``author`` (who wrote it: ``customer``, ``agent`` or ``person``), ``agent``, ``category``,
        ``confidence``, ``path``, ``needs_person`` (whether a hand-off was recommended and nobody has taken
        over), ``team`` and ``reason``. ``None`` for other graphs, whose metadata stays as it is.
    """
    values = result.values
    if request.graph.name != SESSION_GRAPH.name or not values.get("messages"):
        return None
    channel_id = request.config.get("metadata", {}).get("channel_id")
    handoff = values["handoff"]
    described = {
        "contact_id": request.input["contact_id"] if isinstance(request.input, dict) else None,
        "channel_id": channel_id,
        "last_message": cut(values["messages"][-1].text, _EXCERPT_CHARACTERS),
        "author": name_author(values["messages"][-1]),
        "agent": values["agent_used"],
        "category": values["category"],
        "confidence": values["confidence"],
        "path": values["path"],
        "needs_person": handoff["recommended"],
        "team": handoff["team"],
        "reason": handoff["reason"],
    }
    return {name: value for name, value in described.items() if value is not None}


def name_author(message: AnyMessage) -> str:
    """Return who wrote a message: ``customer``, ``agent`` or ``person``."""
    if isinstance(message, HumanMessage):
        return "customer"
    return "person" if get_person(message) else "agent"
