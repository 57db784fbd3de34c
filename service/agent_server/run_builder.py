"""Build the :class:`service.runs.request.RunRequest` of a run that the Agent Server API is asked for."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Durability
from pydantic import ValidationError

from core.errors import BadRequest, Forbidden, InvalidRequest
from service.agent_server.assistants import Assistant, AssistantStore
from service.agent_server.run_body import CommandBody, Nodes, RunBody, SendBody
from service.auth.principal import Identity, Scope
from service.conversations.hooks import RunHooks
from service.errors import invalid_request
from service.runs.graphs import AgentGraph
from service.runs.recovery import listen_to_nobody
from service.runs.request import CompiledGraph, RunOptions, RunRequest, build_run_request
from service.runs.serialization import CHECKPOINT_KEYS, load_command

# Of a run, who it is for: authentication says so, and no request does.
IDENTITY_FIELDS: Final = ("tenant", "user")
# Fields of :class:`core.context.Context` that a caller may set.
CONTEXT_FIELDS: Final = ("locale", "model")
_RESERVED_PREFIXES: Final = ("__", "langgraph_")
_RESERVED_METADATA: Final = frozenset({"thread_id", "run_id", "assistant_id", "cron_id"})
# What :class:`ConfigBody` holds of the checkpoint is no part of the context.
_LOCATION_KEYS: Final = frozenset({*CHECKPOINT_KEYS, "thread_id", "checkpoint_map"})

# Returns the id of the endpoint of a tenant's webhook.
RegisterWebhook: TypeAlias = Callable[[str, str], Awaitable[str]]


class RunBuilder:
    """Builds runs.

    Args:
        assistants: The assistants.
        hooks: What happens around runs of our own graphs.
        register_webhook: Returns the endpoint of a tenant's webhook, whose address it checks.
    """

    def __init__(
        self, assistants: AssistantStore, hooks: RunHooks, register_webhook: RegisterWebhook
    ) -> None:
        self._assistants = assistants
        self._hooks = hooks
        self._register_webhook = register_webhook

    async def build(
        self,
        identity: Identity,
        body: RunBody,
        *,
        thread_id: str,
        fresh: bool = False,
        may_create_thread: bool | None = None,
        delete_thread: bool = False,
        metadata: Mapping[str, Any] | None = None,
        run_id: str = "",
    ) -> RunRequest:
        """Return the request for a run.

        Args:
            identity: The caller.
            body: What was asked for.
            thread_id: The thread.
            fresh: Whether the thread is new.
            may_create_thread: Whether it is created where there is none; ``None``: as the body says.
            delete_thread: Whether it is erased when the run has ended.
            metadata: Added to the run's, by the service.
            run_id: The run's id; empty: a new one.

        Raises:
            NotFound: There is no such assistant.
            BadRequest, InvalidRequest: The body contradicts itself, or asks for what there is not.
            Forbidden: It changes the state or names a webhook, which the caller's scopes do not allow.
            OutgoingRefused: The webhook is at a host that the operator does not allow.
        """
        assistant = await self._assistants.resolve(identity.tenant, body.assistant_id)
        graph = self._assistants.catalogue.find(assistant["graph_id"])
        context = _merge_context(assistant, body, identity, thread_id, is_ours=graph.spec is not None)
        graph_input = _build_input(graph, body, identity)
        config: RunnableConfig = {"configurable": {**body.config.configurable, "thread_id": thread_id}}
        compiled = await graph.open(
            "threads.create_run", config=config, context=None if graph.spec else context
        )
        _check_nodes(compiled, body)
        hooks = self._hooks.build(
            graph.spec, identity, graph_input, thread_id=thread_id, on_start=listen_to_nobody
        )
        webhook = await self._find_webhook(identity, body.webhook) if body.webhook else ""
        defaults = assistant["config"]
        return build_run_request(
            compiled,
            graph.spec,
            graph_input,
            identity=identity,
            thread_id=thread_id,
            fresh=fresh,
            locale=context.get("locale") if graph.spec else None,
            model=context.get("model") if graph.spec else None,
            metadata=_merge_metadata(assistant, body, thread_id),
            tags=[*defaults.get("tags", []), *body.config.tags],
            modes=body.modes,
            subgraphs=body.stream_subgraphs,
            multitask_strategy=body.multitask_strategy,
            on_start=hooks.on_start,
            on_finish=hooks.on_finish,
            checkpoint=_find_checkpoint(body, thread_id),
            run_id=run_id,
            durability=_choose_durability(graph, body),
            recursion_limit=body.config.recursion_limit or defaults.get("recursion_limit"),
            options=RunOptions(
                assistant_id=assistant["assistant_id"],
                metadata={**body.metadata, **(metadata or {})},
                webhook=webhook,
                interrupt_before=_to_nodes(body.interrupt_before),
                interrupt_after=_to_nodes(body.interrupt_after),
                foreign_context=None if graph.spec else context,
                full_state=True,
                stream_mode=tuple(body.stream_mode),
                may_create_thread=body.if_not_exists == "create"
                if may_create_thread is None
                else may_create_thread,
                detached=body.on_disconnect == "continue",
                delete_thread=delete_thread,
            ),
        )

    async def _find_webhook(self, identity: Identity, url: str) -> str:
        if not identity.has_scope("webhooks"):
            raise Forbidden(
                "a run with a webhook needs the scope 'webhooks'",
                details={"scope": "webhooks", "scopes": sorted(identity.scopes)},
            )
        return await self._register_webhook(identity.tenant, url)


def _merge_context(
    assistant: Assistant, body: RunBody, identity: Identity, thread_id: str, *, is_ours: bool
) -> dict[str, Any]:
    """Return the context of a run: the assistant's, and the caller's in ``context`` or ``configurable``.

    Raises:
        BadRequest: The caller gave both.
        InvalidRequest: A field has no effect.
    """
    named = {
        name: value
        for name, value in body.config.configurable.items()
        if name not in _LOCATION_KEYS and not name.startswith(_RESERVED_PREFIXES)
    }
    if named and body.context:
        raise BadRequest("give the run's parameters in context or in config.configurable, not in both")
    if str(body.config.configurable.get("thread_id") or thread_id) != thread_id:
        raise InvalidRequest("config.configurable.thread_id: it must be the thread of the path")
    defaults = {**assistant["config"].get("configurable", {}), **assistant["context"]}
    context = {**defaults, **named, **(body.context or {})}
    return check_context(context, identity) if is_ours else context


def check_context(context: Mapping[str, Any], identity: Identity) -> dict[str, Any]:
    """Return the fields of a context that a caller may set.

    Raises:
        InvalidRequest: A field has no effect, or is not the caller's to set.
    """
    known: dict[str, Any] = {}
    for name, value in context.items():
        if name in IDENTITY_FIELDS:
            if value not in {None, "", getattr(identity, name)}:
                raise InvalidRequest(f"context.{name}: it is the caller's own, and cannot be set")
        elif name not in CONTEXT_FIELDS:
            raise InvalidRequest(
                f"context.{name[:100]}: it has no effect here; there are {', '.join(CONTEXT_FIELDS)}",
                details={"unknown": [name[:100]], "known": list(CONTEXT_FIELDS)},
            )
        elif value is not None and not isinstance(value, str):
            raise InvalidRequest(f"context.{name}: it must be a text")
        else:
            known[name] = value or None
    return known


def _merge_metadata(assistant: Assistant, body: RunBody, thread_id: str) -> dict[str, Any]:
    given = {**assistant["config"].get("metadata", {}), **body.config.metadata, **body.metadata}
    own = {name: value for name, value in given.items() if name not in _RESERVED_METADATA}
    return {
        **own,
        "assistant_id": assistant["assistant_id"],
        "graph_id": assistant["graph_id"],
        "thread_id": thread_id,
    }


def _build_input(graph: AgentGraph, body: RunBody, identity: Identity) -> Any:
    if body.command is None:
        if body.input is None:
            return None
        try:
            return graph.build_input(body.input)
        except ValidationError as error:
            raise invalid_request(error.errors(include_url=False, include_context=False)) from None
    if body.input is not None:
        raise BadRequest("give input or command, not both")
    return build_command(body.command, identity)


def build_command(command: CommandBody, identity: Identity) -> Command[Any]:
    """Return the command that LangGraph is given.

    Raises:
        Forbidden: It changes the state or goes to a node, which is a decision of the company.
    """
    goto = command.goto if isinstance(command.goto, list) else [command.goto] if command.goto else []
    if command.update or goto:
        require_state_scope(identity)
    return load_command(
        {
            "resume": command.resume,
            "update": command.update,
            "goto": [to.model_dump() if isinstance(to, SendBody) else to for to in goto],
        }
    )


def require_scope(identity: Identity, scope: Scope) -> None:
    """Check that a caller has a scope that a part of a request needs beside the route's.

    Raises:
        Forbidden: The caller has not.
    """
    if not identity.has_scope(scope):
        raise Forbidden(
            f"this needs the scope {scope!r}, which your credential does not have",
            details={"scope": scope, "scopes": sorted(identity.scopes)},
        )


def require_state_scope(identity: Identity) -> None:
    """Check that a caller may write a thread's state, which can stand in for any decision.

    Raises:
        Forbidden: The caller may not.
    """
    require_scope(identity, "approvals")


def _find_checkpoint(body: RunBody, thread_id: str) -> dict[str, Any]:
    """Return the checkpoint that a run begins at; empty: the thread's latest.

    Raises:
        InvalidRequest: It is another thread's, or a subgraph's.
    """
    given = body.checkpoint.model_dump(exclude_none=True) if body.checkpoint else body.config.configurable
    if str(given.get("thread_id") or thread_id) != thread_id:
        raise InvalidRequest("checkpoint.thread_id: it must be the thread of the path")
    if given.get("checkpoint_ns"):
        raise InvalidRequest("checkpoint.checkpoint_ns: a run begins at a checkpoint of the graph itself")
    checkpoint_id = body.checkpoint_id or given.get("checkpoint_id")
    return {"checkpoint_id": str(checkpoint_id), "checkpoint_ns": ""} if checkpoint_id else {}


def _check_nodes(graph: CompiledGraph, body: RunBody) -> None:
    for field in ("interrupt_before", "interrupt_after"):
        nodes: Nodes = getattr(body, field) or []
        if nodes != "*" and (unknown := set(nodes) - set(graph.nodes)):
            raise InvalidRequest(f"{field}: there is no node {min(unknown)[:100]!r}")


def _to_nodes(nodes: Nodes | None) -> Any:
    return "*" if nodes == "*" else tuple(nodes or ())


def _choose_durability(graph: AgentGraph, body: RunBody) -> Durability | None:
    """Return when checkpoints are written; ``None``: as the graph says.

    Raises:
        InvalidRequest: The graph acts on the outside, and an effect must not come before its checkpoint.
    """
    asked = body.durability or {None: None, True: "async", False: "exit"}[body.checkpoint_during]
    if asked and asked != "sync" and graph.spec and graph.spec.durability == "sync":
        raise InvalidRequest(f"durability: {graph.name!r} has effects, so that it takes 'sync' alone")
    return asked
