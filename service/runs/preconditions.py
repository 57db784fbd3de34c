"""Check whether a run may begin on its thread, in the state that the thread is in, and whether answers fit.

The tenant is the boundary, because the people of one company share their customers; the user is recorded
beside it.
"""

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from langgraph.errors import is_invalid_resume
from langgraph.types import Command, Interrupt, StateSnapshot
from pydantic import ValidationError

from core.errors import (
    Forbidden,
    HeldByPerson,
    InterruptPending,
    InvalidRequest,
    NotHeld,
    NothingToResume,
    SessionRefused,
    WrongGraph,
)
from core.offline.schema import fill
from service.audit.trail import Entry
from service.auth.principal import Identity
from service.errors import invalid_request
from service.runs.request import GRAPH_KEY, RunPart, RunRequest

DECISIONS: Final = frozenset({"approve", "edit", "reject"})

# LangGraph's ids are XXH3 hashes of 128 bits; it reads a mapping with such keys as answers by id.
INTERRUPT_ID = re.compile(r"[0-9a-f]{32}")


def check_preconditions(request: RunRequest, graph_input: Any, state: StateSnapshot) -> None:
    """Check that a run may begin on its thread; called while the run holds the thread.

    A new turn replaces a pending interrupt with the strategy ``interrupt``, and where a person has taken the
    conversation over: what an agent wanted to do is void then.

    Args:
        request: The run.
        graph_input: What the graph is given: the request's input, or ``None`` to continue an earlier run.
        state: The thread's latest checkpoint.

    Raises:
        NotHeld: A person replies who has not taken the conversation over.
        HeldByPerson: A person has taken the conversation over, and no agent may go on with it.
        WrongGraph: The thread was begun by another graph.
        SessionRefused: The thread is about another contact.
        Forbidden: The answer is a decision, which the caller's scopes do not allow.
        InterruptPending: A new turn would discard a pending interrupt.
        NothingToResume: There is no interrupt to answer, or no step left to continue with.
        InvalidRequest: Several interrupts are pending and the answer does not say which it is for.
    """
    contact_id = graph_input.get("contact_id") if isinstance(graph_input, Mapping) else None
    check_same_conversation(request.graph.name, contact_id, state)
    held_by = request.context.held_by
    if request.context.is_from_person and held_by != request.identity.user:
        raise NotHeld(
            f"{held_by!r} has taken the conversation over" if held_by else "take the conversation over first",
            details={"held_by": held_by},
        )
    if held_by and not isinstance(graph_input, Mapping):
        raise HeldByPerson(
            f"{held_by!r} has taken the conversation over: reply there, or release the session first",
            details={"held_by": held_by},
        )
    if isinstance(graph_input, Command) and graph_input.resume is not None:
        _check_answer(graph_input.resume, state.interrupts, request.identity)
    elif graph_input is None:
        _check_unfinished(state)
    elif state.interrupts and not held_by and request.multitask_strategy not in {"interrupt", "rollback"}:
        raise InterruptPending(
            "the thread waits for a decision: answer it, or begin anew with multitask_strategy 'interrupt'",
            details={"interrupts": [pending.id for pending in state.interrupts]},
        )


def check_new_thread(graph_input: Any) -> None:
    """Check that a run may begin on a new thread.

    Raises:
        NothingToResume: It continues or answers, but names no thread.
    """
    if graph_input is None or (isinstance(graph_input, Command) and graph_input.resume is not None):
        raise NothingToResume(
            "resume continues a thread, and none is named: give its id as config.configurable.thread_id"
        )


def check_same_conversation(graph: str, contact_id: str | None, state: StateSnapshot) -> None:
    """Check that a thread is the graph's and about the contact, whose messages no other agent may read.

    Raises:
        WrongGraph: The thread was begun by another graph.
        SessionRefused: The thread is about another contact.
    """
    owner = (state.metadata or {}).get(GRAPH_KEY, graph)
    if owner != graph:
        raise WrongGraph(f"the thread belongs to graph {owner!r}; ask that one", details={"graph": owner})
    known = state.values.get("contact_id")
    if contact_id and known and contact_id != known:
        raise SessionRefused(
            "the thread (session) is another contact's: leave its id out, or name one of this contact's"
        )


def list_decisions(graph: str, graph_input: Any, state: StateSnapshot) -> list[Entry]:
    """Return an audit entry for each interrupt to the company that a run's input answers.

    Args:
        graph: The name of the graph that asks.
        graph_input: The run's input.
        state: The thread's latest checkpoint.
    """
    if not isinstance(graph_input, Command) or graph_input.resume is None:
        return []
    resume = graph_input.resume
    pending_ids = {pending.id for pending in state.interrupts}
    by_id = isinstance(resume, Mapping) and bool(resume.keys() & pending_ids)
    answers = resume if by_id else dict.fromkeys(pending_ids, resume)
    return [
        _build_decision(graph, pending, answers[pending.id])
        for pending in state.interrupts
        if pending.id in answers and not is_answered_elsewhere(pending.value)
    ]


def is_answered_elsewhere(value: Any) -> bool:
    """Return whether a customer, a signal or a timer answers an interrupt, and nobody of the company."""
    return isinstance(value, dict) and value.get("kind") in {"question", "signal", "timer"}


def _build_decision(graph: str, pending: Interrupt, answer: Any) -> Entry:
    tool = pending.value.get("tool") if isinstance(pending.value, dict) else None
    decision = answer.get("decision") if isinstance(answer, Mapping) else None
    return Entry(
        action="approval",
        tool=tool if tool and isinstance(tool, str) else graph,
        arguments={"answer": answer},
        outcome=decision if decision in DECISIONS else "answered",
        details={"graph": graph, "interrupt_id": pending.id},
    )


def _check_answer(answer: Any, pending: Sequence[Interrupt], identity: Identity) -> None:
    if not pending:
        raise NothingToResume("the thread waits for no decision: it was given, or never asked for")
    ids = {interrupt.id for interrupt in pending}
    by_id = isinstance(answer, Mapping) and answer and all(map(INTERRUPT_ID.fullmatch, answer))
    if by_id and not answer.keys() <= ids:
        raise NothingToResume("the decision was given already, or the thread went on without it")
    if len(ids) > 1 and not by_id:
        raise InvalidRequest(
            "several decisions are pending: give {interrupt id: answer}", details={"interrupts": sorted(ids)}
        )
    answered = [one for one in pending if not by_id or one.id in answer]
    if not identity.has_scope("approvals") and not all(is_answered_elsewhere(one.value) for one in answered):
        raise Forbidden(
            "the answer is a company's decision, which needs the scope 'approvals'",
            details={"scope": "approvals", "scopes": sorted(identity.scopes)},
        )


def _check_unfinished(state: StateSnapshot) -> None:
    if state.interrupts:
        raise InterruptPending(
            "the thread waits for a decision and cannot continue without it",
            details={"interrupts": [pending.id for pending in state.interrupts]},
        )
    # ``next`` leaves out steps that have written but died before their checkpoint was made.
    if not state.tasks:
        raise NothingToResume("the thread's last run reached its end; there is nothing to continue")


async def refuse_wrong_answers(
    parts: AsyncGenerator[RunPart, None], graph_input: Any, pending: Sequence[Interrupt]
) -> AsyncGenerator[RunPart, None]:
    """Pass on a run's parts; name the question where LangGraph rejects an answer to it.

    LangGraph checks an answer before anything runs; the interrupt stays pending.

    Args:
        parts: Of the run, which is closed with this generator.
        graph_input: The run's input.
        pending: The interrupts with which the thread waited.

    Raises:
        InvalidRequest: The answer does not fit.
    """
    try:
        async with aclosing(parts):
            async for part in parts:
                yield part
    except ValidationError as error:
        if not is_invalid_resume(error):
            raise
        raise _describe_wrong_answer(error, graph_input, pending) from error


def _describe_wrong_answer(
    error: ValidationError, graph_input: Any, pending: Sequence[Interrupt]
) -> InvalidRequest:
    refused = invalid_request(error.errors(include_url=False, include_context=False), whole="answer")
    resume = graph_input.resume if isinstance(graph_input, Command) else None
    answered = [each for each in pending if isinstance(resume, Mapping) and each.id in resume]
    expected = [
        {"id": each.id, "response_schema": schema, "example": fill(schema, {})}
        for each in answered or pending
        if isinstance(schema := each.response_schema, dict)
    ]
    shown = "; ".join(
        f"interrupt {each['id']!r} takes an answer such as {json.dumps(each['example'], ensure_ascii=False)}"
        for each in expected
    )
    message = f"{refused.message} ({shown}; details.expected holds its schema)" if shown else refused.message
    return InvalidRequest(message, details={**refused.details, "expected": expected})
