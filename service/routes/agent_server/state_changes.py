"""Write the state of a thread that is at rest."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from core.context import act_as
from core.errors import BadRequest
from service.agent_server.run_builder import require_state_scope
from service.agent_server.state import StateChange, update_state
from service.agent_server.threads import Thread
from service.audit.trail import Entry
from service.auth.principal import Identity, build_actor
from service.encoding import to_plain
from service.lifespan import Service
from service.runs.graphs import AgentGraph


async def write_supersteps(
    service: Service, identity: Identity, thread_id: str, changes: Sequence[Sequence[StateChange]]
) -> None:
    """Write changes to the state of a new thread, as one super-step after the other."""
    require_state_scope(identity)
    await write_state_of(service, identity, thread_id, changes, {})


async def write_state_of(
    service: Service,
    identity: Identity,
    thread_id: str,
    changes: Sequence[Sequence[StateChange]],
    checkpoint: Mapping[str, Any],
) -> dict[str, Any]:
    """Write changes to the state of a thread at rest, and record who did.

    Returns:
        Where the new checkpoint is.

    Raises:
        NotFound: The tenant has no such thread.
        ThreadBusy: A run is in progress on it, or waits.
        BadRequest, InvalidRequest: It has no graph yet, or the graph does not take the changes.
    """
    async with service.runs.hold_idle_thread(identity, thread_id):
        graph = await find_graph(service, identity, UUID(thread_id))
        if graph is None:
            raise BadRequest("the thread has no graph yet: run one on it, or name one as metadata.graph_id")
        act_as(build_actor(identity, thread_id=thread_id))
        written, is_open = await update_state(graph, identity, thread_id, changes, checkpoint=checkpoint)
        await service.threads.name_graph(identity.tenant, UUID(thread_id), graph.name)
        await service.threads.set_status(identity.tenant, thread_id, "interrupted" if is_open else "idle")
        nodes = [change.as_node for step in changes for change in step]
        values = [to_plain(change.values) for step in changes for change in step]
        await service.audit.record(
            Entry(
                action="state",
                tool=graph.name,
                arguments={"values": values},
                outcome="written",
                details={"as_node": nodes, "checkpoint_id": written.get("checkpoint_id")},
            )
        )
    return written


async def find_graph(service: Service, identity: Identity, thread_id: UUID) -> AgentGraph | None:
    """Return the graph of a thread; ``None``: it has none yet, or one that this service does not know."""
    thread: Thread = await service.threads.get(identity.tenant, thread_id)
    return service.catalogue.get(thread["graph"] or thread["metadata"].get("graph_id") or "")
