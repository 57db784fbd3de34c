"""How a run that is over goes on, and the checkpoints it can go back to."""

from datetime import datetime
from typing import Any

from core.errors import Forbidden
from nodes.workflow.records import records_of
from nodes.workflow.recovery import Recovery, retry, rollback_to_checkpoint, skip_failed_step
from service.auth.principal import Identity
from service.lifespan import Service
from service.routes.workflow_models import CheckpointReport, Checkpoints, Recover
from service.runs.compiled import CompiledGraph
from workflows.definition.workflow import Definition
from workflows.outline import outline
from workflows.progress import progress
from workflows.results import step_of
from workflows.steps.approval import Approval
from workflows.store import Run


async def recover(service: Service, identity: Identity, run_id: str, how: Recover) -> Recovery:
    """Have a run go on.

    Raises:
        ThreadBusy: It is in progress.
        NothingToResume: It has not failed, or the checkpoint is one at which it was over.
        NotFound: There is no such checkpoint.
        Forbidden: A rejected approval would be passed over, and the caller's scopes allow no decisions.
    """

    async def prepared(run: Run, graph: CompiledGraph) -> Recovery:
        config: Any = {"configurable": {"thread_id": run.id}}
        definition = service.workflows.graphs.definition(run.definition)
        if how.strategy == "rollback_to_checkpoint":
            return await rollback_to_checkpoint(graph, config, how.checkpoint_id)
        if how.strategy == "retry":
            return await retry(graph, config, definition)
        recovery = await skip_failed_step(graph, config, definition)
        _require_may_skip(identity, definition, recovery)
        return recovery

    return await service.workflows.keeper.recover(identity, run_id, prepared)


def _require_may_skip(identity: Identity, definition: Definition, recovery: Recovery) -> None:
    """To go on past a rejection is to overrule whoever rejected."""
    places = outline(definition)
    rejected = [key for key in recovery.steps if isinstance(places[step_of(key)].step, Approval)]
    if rejected and not identity.may("approvals"):
        raise Forbidden(
            f"{rejected[0]} was rejected; to skip it is a decision, which asks for the scope 'approvals'",
            details={"scope": "approvals", "scopes": sorted(identity.scopes)},
        )


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
