"""A run of a registered graph, as HTTP asks for one."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langgraph.types import StreamMode

from core.context import Context
from core.errors import InvalidRequest
from graphs.spec import GraphSpec
from service.auth.principal import Identity
from service.lifespan import Service
from service.runs.request import (
    GRAPH_KEY,
    MESSAGE_KEY,
    TENANT_KEY,
    USER_KEY,
    MultitaskStrategy,
    RunRequest,
    check_thread_id,
    new_thread_id,
)

# It goes into the prompt, so its form leaves no room for anything but a language tag (RFC 5646).
_LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")


def run_request(
    service: Service,
    spec: GraphSpec,
    given: Any,
    *,
    identity: Identity,
    thread_id: str | None,
    fresh: bool | None = None,
    locale: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    modes: tuple[StreamMode, ...] = ("updates", "values"),
    subgraphs: bool = False,
    multitask_strategy: MultitaskStrategy = "enqueue",
    begin: Callable[[], Awaitable[BaseCallbackManager]] | None = None,
    key: str = "",
    repeated: bool = False,
) -> RunRequest:
    """The request, checked.

    Args:
        service: Where the compiled graph is.
        spec: Which graph.
        given: An input, a ``Command(resume=...)``, or ``None`` to continue.
        identity: Who asks.
        thread_id: The thread to go on with; ``None``: a new one.
        fresh: Whether the thread is known to be new; ``None``: it is when no id was given.
        locale: Language to answer in.
        metadata: Kept with the run's checkpoints, beside the graph's name, the tenant and the user.
        tags: The caller's, for traces.
        modes: What to listen to.
        subgraphs: Whether to listen to the graphs inside it too.
        multitask_strategy: What to do when the thread is busy.
        begin: Gives the callbacks once the run is admitted.
        key: Names the message or the request, so that one that comes again is answered once.
        repeated: Whether it came before. It then waits for its first run, whatever the strategy says.

    Raises:
        InvalidRequest: The thread id or the locale is not one.
    """
    return RunRequest(
        graph=service.graphs[spec.name],
        input=given,
        identity=identity,
        config={
            **run_config(spec, identity, thread_id, _noted(metadata or {}, key)),
            "recursion_limit": spec.recursion_limit,
            "tags": list(tags),
            "run_name": spec.name,
        },
        fresh=thread_id is None if fresh is None else fresh,
        context=Context(tenant=identity.tenant, user=identity.user, locale=_checked_locale(locale)),
        durability=spec.durability,
        modes=modes,
        subgraphs=subgraphs,
        multitask_strategy="enqueue" if repeated else multitask_strategy,
        begin=begin,
        key=key,
        repeated=repeated,
    )


def run_config(
    spec: GraphSpec, identity: Identity, thread_id: str | None, metadata: Mapping[str, Any]
) -> RunnableConfig:
    """Thread and owner of a run.

    Raises:
        InvalidRequest: The thread id is not one.
    """
    return {
        "configurable": {"thread_id": check_thread_id(thread_id) if thread_id else new_thread_id()},
        "metadata": {
            **metadata,
            GRAPH_KEY: spec.name,
            TENANT_KEY: identity.tenant,
            USER_KEY: identity.user,
        },
    }


def _noted(metadata: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The caller's metadata, in which only the service says which request it is."""
    own = {name: value for name, value in metadata.items() if name != MESSAGE_KEY}
    return {**own, MESSAGE_KEY: key} if key else own


def _checked_locale(locale: str | None) -> str | None:
    if locale is not None and not _LOCALE.fullmatch(locale):
        raise InvalidRequest(
            "locale must be a language tag such as en or pt-BR", details={"locale": locale[:50]}
        )
    return locale
