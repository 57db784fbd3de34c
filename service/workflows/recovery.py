"""Recover workflows: continue with the failed steps again, without them, or from a checkpoint."""

from typing import Any, Literal, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from core.errors import Forbidden
from nodes.workflow.recovery import Recovery, retry, rollback_to_checkpoint, skip_failed_step
from service.auth.principal import Identity
from service.runs.request import CompiledGraph
from workflows.outline import build_outline
from workflows.results import parse_step_id
from workflows.schema import Definition
from workflows.steps import Approval
from workflows.store import Run

RecoveryStrategy: TypeAlias = Literal["retry", "skip_failed_step", "rollback_to_checkpoint"]


async def prepare_recovery(
    identity: Identity,
    graph: CompiledGraph,
    definition: Definition,
    config: RunnableConfig,
    *,
    strategy: RecoveryStrategy,
    checkpoint_id: str,
) -> Recovery:
    """Return how a workflow continues, while nobody can execute it.

    Raises:
        NothingToResume: It has not failed, or it had ended at the checkpoint.
        NotFound: There is no such checkpoint.
        Forbidden: It would skip a rejected approval, and the caller's scopes allow no decisions.
    """
    if strategy == "rollback_to_checkpoint":
        return await rollback_to_checkpoint(graph, config, checkpoint_id)
    if strategy == "retry":
        return await retry(graph, config, definition)
    recovery = await skip_failed_step(graph, config, definition)
    _check_may_skip(identity, definition, recovery)
    return recovery


async def describe_recovery(graph: CompiledGraph, run_id: str, recovery: Recovery) -> dict[str, Any] | None:
    """Return what a recovery changes and at which checkpoint, as JSON; None: the thread only resumes."""
    if recovery.input is None:
        return None
    state = await graph.aget_state({"configurable": {"thread_id": run_id}})
    return {
        "checkpoint_id": state.config["configurable"]["checkpoint_id"],
        "update": recovery.input.update,
        "goto": recovery.input.goto,
    }


def find_recovery(run: Run, state: StateSnapshot) -> Command[Any] | None:
    """Return what a recovery changes, unless the thread has gone on with it already."""
    recovery = run.recovery
    if not recovery or state.config["configurable"].get("checkpoint_id") != recovery["checkpoint_id"]:
        return None
    return Command(update=recovery["update"], goto=recovery["goto"])


def _check_may_skip(identity: Identity, definition: Definition, recovery: Recovery) -> None:
    """Raise if the recovery overrules a person's rejection and the caller may not decide."""
    outline = build_outline(definition)
    rejected = [key for key in recovery.steps if isinstance(outline[parse_step_id(key)].step, Approval)]
    if rejected and not identity.has_scope("approvals"):
        raise Forbidden(
            f"{rejected[0]} was rejected; skipping it is a decision, which needs the scope 'approvals'",
            details={"scope": "approvals", "scopes": sorted(identity.scopes)},
        )
