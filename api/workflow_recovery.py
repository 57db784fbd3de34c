"""How a run that is over goes on, and the checkpoints it can go back to."""

from datetime import datetime
from typing import Any

from api.compiled import CompiledGraph
from api.identity import Identity
from api.service import Service
from api.workflow_models import CheckpointReport, Checkpoints, Recover
from nodes.workflow.records import records_of
from nodes.workflow.recovery import Recovery, retry, rollback_to_checkpoint, skip_failed_step
from workflows.outline import outline
from workflows.progress import progress
from workflows.store import Run


async def recover(service: Service, identity: Identity, run_id: str, how: Recover) -> Recovery:
    """Have a run go on.

    Raises:
        ThreadBusy: It is in progress.
        NothingToResume: It has not failed, or the checkpoint is one at which it was over.
        NotFound: There is no such checkpoint.
    """

    async def prepared(run: Run, graph: CompiledGraph) -> Recovery:
        config: Any = {"configurable": {"thread_id": run.id}}
        definition = service.workflows.graphs.definition(run.definition)
        if how.strategy == "rollback_to_checkpoint":
            return await rollback_to_checkpoint(graph, config, how.checkpoint_id)
        again = retry if how.strategy == "retry" else skip_failed_step
        return await again(graph, config, definition)

    return await service.workflows.keeper.recover(identity, run_id, prepared)


async def checkpoints(service: Service, run: Run, *, limit: int) -> Checkpoints:
    """The run's checkpoints, the latest first."""
    definition = service.workflows.graphs.definition(run.definition)
    places = outline(definition)
    history = service.workflows.graphs.of(run.definition).aget_state_history(
        {"configurable": {"thread_id": run.id}}, limit=limit
    )
    return Checkpoints(
        checkpoints=[
            CheckpointReport(
                checkpoint_id=snapshot.config["configurable"]["checkpoint_id"],
                created_at=datetime.fromisoformat(snapshot.created_at or ""),
                next=list(dict.fromkeys(snapshot.next)),
                done=progress(definition, places, records_of(snapshot)).done,
            )
            async for snapshot in history
        ]
    )
