"""A run as JSON in its row, so that any replica can execute it."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, Literal

from langgraph.types import Command, Send

from core.deadline import dump_deadline
from service.auth.principal import Identity
from service.runs.request import NO_OPTIONS, RunOptions, RunRequest
from service.runs.rows import RunRow

# Keys of ``configurable`` that name the checkpoint a run continues from.
CHECKPOINT_KEYS: Final = ("checkpoint_id", "checkpoint_ns")


def dump_request(request: RunRequest) -> dict[str, Any] | None:
    """Return what another replica needs in order to execute a run; ``None``: no other can."""
    if not request.is_recoverable:
        return None
    is_command = isinstance(request.input, Command)
    configurable = request.config.get("configurable", {})
    return {
        "input": None if is_command else request.input,
        "command": dump_command(request.input) if is_command else None,
        "scopes": sorted(request.identity.scopes),
        "credential": request.identity.credential,
        "metadata": request.config.get("metadata", {}),
        "tags": request.config.get("tags", []),
        "locale": request.context.locale,
        "is_from_person": request.context.is_from_person,
        "model": request.context.model,
        "checkpoint": {name: configurable[name] for name in CHECKPOINT_KEYS if name in configurable},
        "durability": request.durability,
        "recursion_limit": request.config.get("recursion_limit"),
        "options": None if request.options is NO_OPTIONS else _dump_options(request.options),
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
    return load_command(kwargs["command"]) if kwargs["command"] else kwargs["input"]


def load_options(row: RunRow, kwargs: Mapping[str, Any]) -> RunOptions:
    """Return the options of a stored run."""
    stored = kwargs["options"]
    if stored is None:
        return NO_OPTIONS
    return RunOptions(
        **{
            **stored,
            **{name: _load_nodes(stored[name]) for name in ("interrupt_before", "interrupt_after")},
            "stream_mode": tuple(stored["stream_mode"]),
            "metadata": row.metadata,
        }
    )


def dump_command(command: Command[Any]) -> dict[str, Any]:
    """Return a command as JSON, in the form of the Agent Server API."""
    goto = [command.goto] if isinstance(command.goto, str | Send) else command.goto
    return {
        "resume": command.resume,
        "update": command.update,
        "goto": [{"node": to.node, "input": to.arg} if isinstance(to, Send) else to for to in goto],
    }


def load_command(command: Mapping[str, Any]) -> Command[Any]:
    """Return a command from its JSON form."""
    goto = [Send(to["node"], to.get("input")) if isinstance(to, Mapping) else to for to in command["goto"]]
    update = command["update"]
    if isinstance(update, list):
        update = [tuple(pair) for pair in update]
    return Command(resume=command["resume"], update=update, goto=goto)


def _dump_options(options: RunOptions) -> dict[str, Any]:
    """Return the options without the metadata, which has a column of its own."""
    return {each.name: getattr(options, each.name) for each in fields(options) if each.name != "metadata"}


def _load_nodes(nodes: Sequence[str]) -> tuple[str, ...] | Literal["*"]:
    return "*" if nodes == "*" else tuple(nodes)
