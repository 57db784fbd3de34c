"""A run as JSON in its row, so that any replica can execute it."""

from collections.abc import Mapping
from typing import Any

from langgraph.types import Command

from core.deadline import dump_deadline
from service.auth.principal import Identity
from service.runs.request import RunRequest
from service.runs.store import RunRow


def dump_request(request: RunRequest) -> dict[str, Any] | None:
    """Return what another replica needs in order to execute a run; ``None``: no other can."""
    if not request.is_recoverable:
        return None
    is_answer = isinstance(request.input, Command)
    return {
        "input": None if is_answer else request.input,
        "resume": request.input.resume if is_answer else None,
        "is_answer": is_answer,
        "scopes": sorted(request.identity.scopes),
        "credential": request.identity.credential,
        "metadata": request.config.get("metadata", {}),
        "tags": request.config.get("tags", []),
        "locale": request.context.locale,
        "is_from_person": request.context.is_from_person,
        "modes": request.modes,
        "subgraphs": request.subgraphs,
        "key": request.key,
        "deadline": dump_deadline(),
    }


def load_identity(row: RunRow, kwargs: Mapping[str, Any]) -> Identity:
    """Return who asked for a stored run."""
    return Identity(
        tenant=row.tenant,
        user=row.user_id,
        scopes=frozenset(kwargs["scopes"]),
        credential=kwargs["credential"],
    )


def load_input(kwargs: Mapping[str, Any]) -> Any:
    """Return the input of a stored run as LangGraph is given it."""
    return Command(resume=kwargs["resume"]) if kwargs["is_answer"] else kwargs["input"]
