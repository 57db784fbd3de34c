"""Answer a repeated message or request once: recognise its key, and replay or continue its first run.

While the first run is in progress, the repeated one waits for the thread like any other. Then it gets that
run's answer, or continues the run if it broke off, by a crash included.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from core.errors import InvalidRequest
from service.audit.idempotency import KeyClaim, RequestKeys
from service.auth.principal import Identity
from service.runs.output import RunResult
from service.runs.request import MESSAGE_KEY, RUN_KEY, CompiledGraph, RunPart, RunRequest

IDEMPOTENCY_HEADER = "Idempotency-Key"
_MAX_KEY_CHARACTERS = 255


async def claim_request_key(
    requests: RequestKeys, identity: Identity, key: str, request: Mapping[str, Any], *, thread_id: str = ""
) -> KeyClaim:
    """Claim the key in a request's ``Idempotency-Key`` header.

    Raises:
        InvalidRequest: The key is malformed.
        KeyReused: The key was used for another request.
    """
    if not (1 <= len(key) <= _MAX_KEY_CHARACTERS and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"{IDEMPOTENCY_HEADER} has 1 to {_MAX_KEY_CHARACTERS} printable ASCII characters"
        )
    return await requests.claim(identity.tenant, f"header\n{key}", request, thread_id=thread_id)


async def claim_message_id(
    requests: RequestKeys, identity: Identity, *, contact_id: str, message_id: str, text: str
) -> None:
    """Claim the id that a message's sender gave it, for its text.

    Raises:
        KeyReused: The id was used for another text.
    """
    key = f"message\n{contact_id}\n{message_id}"
    await requests.claim(identity.tenant, key, {"message": text})


async def find_earlier_run(request: RunRequest, latest: StateSnapshot) -> StateSnapshot | None:
    """Find the run that a request repeats, or has begun elsewhere; called while it holds its thread.

    Args:
        request: The request. Unless its key is known to be repeated, only the latest checkpoint is looked
            at: nothing but its own repetition can have come in between, just now.
        latest: The thread's latest checkpoint.

    Returns:
        The earlier run's last checkpoint: finished, waiting at an interrupt, or broken off and then also the
        thread's latest. ``None`` if no run was begun with the key, or another run replaced it.
    """
    if request.is_stored and (latest.metadata or {}).get(RUN_KEY) == request.run_id:
        return latest
    if not request.key:
        return None
    if request.key in {(latest.metadata or {}).get(MESSAGE_KEY), latest.values.get("turn")}:
        return latest
    if request.repeated:
        history = request.graph.aget_state_history(request.config, filter={MESSAGE_KEY: request.key}, limit=1)
        async for snapshot in history:
            return None if is_broken_off(snapshot) else snapshot
    return None


def is_broken_off(snapshot: StateSnapshot) -> bool:
    """Return whether a run has steps left that wait for nobody.

    ``next`` leaves out steps that have written but whose checkpoint was not made any more.
    """
    return bool(snapshot.tasks) and not snapshot.interrupts


async def replay_output(graph: CompiledGraph, snapshot: StateSnapshot) -> AsyncGenerator[RunPart, None]:
    """Stream the output of an earlier run: the last part of its stream."""
    values = {name: snapshot.values[name] for name in graph.output_channels if name in snapshot.values}
    yield {"type": "values", "ns": (), "data": values, "interrupts": snapshot.interrupts}


async def load_result(graph: CompiledGraph, thread_id: str, run_id: str) -> RunResult | None:
    """Return what a run that has ended answered; ``None``: nothing, or its checkpoints were deleted."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    async for snapshot in graph.aget_state_history(config, filter={RUN_KEY: run_id}, limit=1):
        if is_broken_off(snapshot):
            return None
        result = RunResult()
        async for part in replay_output(graph, snapshot):
            result.take(part)
        return result
    return None


def keep_message_key(config: RunnableConfig, graph_input: Any, state: StateSnapshot) -> RunnableConfig:
    """Return the config of a run with the message that its thread is about.

    A run that continues, or that is given an answer, is still about the message of the thread's last turn.
    """
    key = (state.metadata or {}).get(MESSAGE_KEY)
    metadata = config.get("metadata", {})
    begins_turn = graph_input is not None and not isinstance(graph_input, Command)
    if begins_turn or not key or MESSAGE_KEY in metadata:
        return config
    return {**config, "metadata": {**metadata, MESSAGE_KEY: key}}
