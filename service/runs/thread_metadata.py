"""Describe a conversation in its thread's metadata, so that lists of conversations read no checkpoints."""

from typing import Any, Final

from core.texts import cut
from service.runs.conversation import name_author
from service.runs.output import RunResult
from service.runs.request import RunRequest
from service.runs.sessions import SESSION_GRAPH

_EXCERPT_CHARACTERS: Final = 200


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
