"""How a run begins once it holds its thread: as a new turn, as one that goes on, or as one already done."""

from collections.abc import AsyncGenerator
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig, patch_config
from langgraph.runtime import RunControl
from langgraph.types import Command, StateSnapshot

from service.audit.trail import AuditTrail
from service.runs.preconditions import ThreadOwners, check_preconditions, list_decisions
from service.runs.replay import earlier_run, is_broken_off, replayed
from service.runs.request import MESSAGE_KEY, RunPart, RunRequest


class RunStart:
    """Begins runs.

    Args:
        ownership: Whose threads are.
        audit: Is told of people's decisions before they have a run go on.
    """

    def __init__(self, ownership: ThreadOwners, audit: AuditTrail) -> None:
        self._ownership = ownership
        self._audit = audit

    async def parts(
        self, request: RunRequest, control: RunControl, handler: BaseCallbackHandler | None
    ) -> AsyncGenerator[RunPart, None]:
        """Admit the run, and give its stream, or that of the earlier run it repeats.

        Args:
            request: The run.
            control: Stops it at a step.
            handler: Is told what happens in it, where it is traced.

        Raises:
            ServiceError: It may not begin; see :func:`service.runs.preconditions.check_preconditions`.
        """
        graph, config, given = request.graph, request.config, request.input
        if request.key or not request.fresh:
            state = await graph.aget_state(config)
            await self._ownership.require(request.identity, request.thread_id, state.metadata)
            if earlier := await _earlier(request, state):
                if not is_broken_off(earlier):
                    await _begun(request)
                    return replayed(graph, earlier)
                given = None
            check_preconditions(graph.name, given, request.multitask_strategy, state, request.identity)
            for decision in list_decisions(graph.name, given, state):
                await self._audit.record(decision)
            config = _of_the_same_request(config, given, state)
        callbacks = await _begun(request)
        if handler:
            callbacks.add_handler(handler)
        stream = graph.astream(
            given,
            patch_config(config, callbacks=callbacks),
            context=request.context,
            stream_mode=list(request.modes),
            subgraphs=request.subgraphs,
            output_keys=graph.output_channels,
            durability=request.durability,
            control=control,
            version="v2",
        )
        # It is one, and has to be closed where it is left; LangGraph's annotation says less.
        return cast("AsyncGenerator[Part, None]", stream)


async def _earlier(request: RunRequest, latest: StateSnapshot) -> StateSnapshot | None:
    """Where the request's first run stands, if it had one."""
    if not request.key:
        return None
    return await earlier_run(request.graph, request.config, request.key, latest, thorough=request.repeated)


async def _begun(request: RunRequest) -> BaseCallbackManager:
    return await request.begin() if request.begin else AsyncCallbackManager([])


def _of_the_same_request(config: RunnableConfig, given: Any, state: StateSnapshot) -> RunnableConfig:
    """A run that goes on, or is given a decision, is still about what its thread was asked."""
    asked = (state.metadata or {}).get(MESSAGE_KEY)
    metadata = config.get("metadata", {})
    if not (given is None or isinstance(given, Command)) or not asked or MESSAGE_KEY in metadata:
        return config
    return {**config, "metadata": {**metadata, MESSAGE_KEY: asked}}
