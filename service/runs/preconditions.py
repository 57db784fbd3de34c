"""Whether a run may begin on a thread in the state it is in."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from langgraph.types import Command, Interrupt, StateSnapshot

from core.errors import (
    Forbidden,
    InterruptPending,
    InvalidRequest,
    NothingToResume,
    SessionRefused,
    WrongGraph,
)
from service.auth.principal import Identity
from service.runs.preconditions import is_answered_elsewhere

# The names are LangGraph Platform's: refuse the second run, let it wait, or stop the first.
MultitaskStrategy: TypeAlias = Literal["reject", "enqueue", "interrupt"]

# LangGraph's ids are XXH3 hashes of 128 bits; it reads a mapping with such keys as answers by id.
_INTERRUPT_ID = re.compile(r"[0-9a-f]{32}")

# Where a checkpoint's metadata names the graph that wrote it.
GRAPH_KEY = "graph"


def admit(
    graph: str,
    given: Any,
    strategy: MultitaskStrategy,
    state: StateSnapshot,
    identity: Identity,
) -> None:
    """Let a run begin, or say why it may not; called while it holds its thread.

    Args:
        graph: The name of what is to run.
        given: An input begins a turn, a ``Command(resume=...)`` answers interrupts, one without changes the
            state of a thread that waits for nothing, ``None`` continues.
        strategy: ``interrupt`` lets a new turn take the place of a pending question.
        state: The thread's latest checkpoint.
        identity: Who asks.

    Raises:
        WrongGraph: The thread was begun by another graph.
        SessionRefused: The thread is about another contact.
        Forbidden: The answer is a decision, and the caller's scopes do not allow any.
        InterruptPending: A new turn would throw a pending question away.
        NothingToResume: There is no question to answer, or no step left to continue with.
        InvalidRequest: Several questions are pending and the answer does not say which it is for.
    """
    _require_same_graph(graph, state)
    _require_same_contact(given, state)
    if isinstance(given, Command) and given.resume is not None:
        _require_answerable(given.resume, state.interrupts, identity)
    elif given is None:
        _require_unfinished(state)
    elif state.interrupts and strategy != "interrupt":
        raise InterruptPending(
            "the thread waits for a decision: answer it, or begin anew with multitask_strategy 'interrupt'",
            details={"interrupts": [pending.id for pending in state.interrupts]},
        )


def require_same(graph: str, contact_id: str, state: StateSnapshot) -> None:
    """Refuse a thread that is of another graph or about another contact, before anything is written of it.

    Raises:
        WrongGraph: The thread was begun by another graph.
        SessionRefused: The thread is about another contact.
    """
    _require_same_graph(graph, state)
    _require_same_contact({"contact_id": contact_id}, state)


def _require_same_graph(name: str, state: StateSnapshot) -> None:
    owner = (state.metadata or {}).get(GRAPH_KEY, name)
    if owner != name:
        raise WrongGraph(f"the thread belongs to graph {owner!r}; ask that one", details={"graph": owner})


def _require_same_contact(given: Any, state: StateSnapshot) -> None:
    """A thread holds what one contact said: another one's agent must not read it."""
    contact = given.get("contact_id") if isinstance(given, Mapping) else getattr(given, "contact_id", None)
    known = state.values.get("contact_id")
    if contact and known and contact != known:
        raise SessionRefused(
            "the thread (session) is another contact's: leave its id out, or name one of this contact's"
        )


def _require_answerable(answer: Any, pending: Sequence[Interrupt], identity: Identity) -> None:
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
    answered = [one for one in pending if not by_id or one.id in answer]
    if not identity.may("approvals") and not all(is_answered_elsewhere(one.value) for one in answered):
        raise Forbidden(
            "the answer is a company's decision, which asks for the scope 'approvals'",
            details={"scope": "approvals", "scopes": sorted(identity.scopes)},
        )


def _require_unfinished(state: StateSnapshot) -> None:
    if state.interrupts:
        raise InterruptPending(
            "the thread waits for a decision; it cannot go on without",
            details={"interrupts": [pending.id for pending in state.interrupts]},
        )
    # Not ``next``: it leaves out steps that have written, and died before their checkpoint was made.
    if not state.tasks:
        raise NothingToResume("the thread's last run came to its end; there is nothing to continue")
