"""Whether a run may begin on a thread in the state it is in."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Interrupt, StateSnapshot

from core.errors import InterruptPending, InvalidRequest, NothingToResume, SessionRefused, WrongGraph

# The names are LangGraph Platform's: refuse the second run, let it wait, or stop the first.
MultitaskStrategy: TypeAlias = Literal["reject", "enqueue", "interrupt"]

# LangGraph's ids are XXH3 hashes of 128 bits; it reads a mapping with such keys as answers by id.
_INTERRUPT_ID = re.compile(r"[0-9a-f]{32}")

# Where a checkpoint's metadata names the graph that wrote it.
GRAPH_KEY = "graph"
# And whose thread it is.
TENANT_KEY = "tenant"


async def admit(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    config: RunnableConfig,
    given: Any,
    strategy: MultitaskStrategy,
) -> None:
    """Look at the thread's latest checkpoint; called while the run holds the thread.

    Args:
        graph: What is to run.
        config: Names the thread.
        given: An input begins a turn, a ``Command(resume=...)`` answers interrupts, one without changes the
            state of a thread that waits for nothing, ``None`` continues.
        strategy: ``interrupt`` lets a new turn take the place of a pending question.

    Raises:
        WrongGraph: The thread was begun by another graph.
        SessionRefused: The thread is another tenant's, or about another contact.
        InterruptPending: A new turn would throw a pending question away.
        NothingToResume: There is no question to answer, or no step left to continue with.
        InvalidRequest: Several questions are pending and the answer does not say which it is for.
    """
    state = await graph.aget_state(config)
    _require_same_graph(graph.name, state)
    _require_same_owner(config, given, state)
    if isinstance(given, Command) and given.resume is not None:
        _require_answerable(given.resume, state.interrupts)
    elif given is None:
        _require_unfinished(state)
    elif state.interrupts and strategy != "interrupt":
        raise InterruptPending(
            "the thread waits for a decision: answer it, or begin anew with multitask_strategy 'interrupt'",
            details={"interrupts": [pending.id for pending in state.interrupts]},
        )


def _require_same_graph(name: str, state: StateSnapshot) -> None:
    owner = (state.metadata or {}).get(GRAPH_KEY, name)
    if owner != name:
        raise WrongGraph(f"the thread belongs to graph {owner!r}; ask that one", details={"graph": owner})


def _require_same_owner(config: RunnableConfig, given: Any, state: StateSnapshot) -> None:
    """A thread holds what one contact said: another one's agent must not read it."""
    owner = (state.metadata or {}).get(TENANT_KEY)
    tenant = config.get("metadata", {}).get(TENANT_KEY, owner)
    contact = given.get("contact_id") if isinstance(given, Mapping) else getattr(given, "contact_id", None)
    known = state.values.get("contact_id")
    if owner not in {None, tenant} or (contact and known and contact != known):
        raise SessionRefused(
            "the thread (session) is another contact's: leave its id out, or name one of this contact's"
        )


def _require_answerable(answer: Any, pending: Sequence[Interrupt]) -> None:
    if not pending:
        raise NothingToResume("the thread waits for no decision: it was given, or never asked for")
    ids = {interrupt.id for interrupt in pending}
    by_id = isinstance(answer, Mapping) and answer and all(map(_INTERRUPT_ID.fullmatch, answer))
    if by_id and not answer.keys() <= ids:
        raise NothingToResume("the decision was given already, or the thread went on without it")
    if len(ids) > 1 and not by_id:
        raise InvalidRequest(
            "several decisions are pending: give {interrupt id: answer}", details={"interrupts": sorted(ids)}
        )


def _require_unfinished(state: StateSnapshot) -> None:
    if state.interrupts:
        raise InterruptPending(
            "the thread waits for a decision; it cannot go on without",
            details={"interrupts": [pending.id for pending in state.interrupts]},
        )
    if not state.next:
        raise NothingToResume("the thread's last run came to its end; there is nothing to continue")
