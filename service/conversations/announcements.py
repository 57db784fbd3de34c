"""The events of runs: what becomes true with the end of a run, and with an effect that it makes."""

from collections.abc import Iterator, Mapping
from typing import Any

from core.context import current_actor
from core.customer_text import CustomerText
from nodes.coordinator.state import NO_HANDOFF
from service.conversations.journeys import JOURNEYS, read_handoff, read_response
from service.conversations.sessions import SESSION_GRAPH
from service.conversations.transcript import describe_thread
from service.outbox.catalogue import ApprovalNeeded, DealStageChanged, HandoffRequested, MessageAnswered
from service.outbox.events import NewEvent, dump_events
from service.runs.ends import RunEnd, Subject
from service.runs.output import RunResult, format_approval_id
from service.runs.preconditions import is_answered_elsewhere
from service.runs.request import RunRequest


def describe_end(
    request: RunRequest, result: RunResult, subject: Subject | None, *, is_paused: bool
) -> RunEnd:
    """Return what becomes true with the end of a run, see :class:`service.runs.ends.DescribeEnd`."""
    return RunEnd(
        _describe_result(request, result, subject, is_paused=is_paused), describe_thread(request, result)
    )


def _describe_result(
    request: RunRequest, result: RunResult, subject: Subject | None, *, is_paused: bool
) -> list[NewEvent]:
    """Return the events of a run that came to its end or waits; workflows describe their own."""
    if request.queue == "workflows":
        return []
    if subject is None:
        given = request.input if isinstance(request.input, Mapping) else {}
        subject = Subject(contact_id=str(given.get("contact_id") or ""), message_id="")
    questions = list(_describe_questions(request, result, subject))
    if questions or is_paused or request.graph.name not in {SESSION_GRAPH.name, *JOURNEYS}:
        return questions
    answer = _describe_answer(request, result.values, subject)
    return (
        [NewEvent(data=answer, thread_id=request.thread_id, contact_id=subject.contact_id)] if answer else []
    )


def _describe_questions(request: RunRequest, result: RunResult, subject: Subject) -> Iterator[NewEvent]:
    for pending in result.interrupts:
        if not is_answered_elsewhere(pending["value"]):
            data = describe_question(request.thread_id, request.run_id, request.graph.name, pending)
            yield NewEvent(data=data, thread_id=request.thread_id, contact_id=subject.contact_id)


def describe_question(thread_id: str, run_id: str, graph: str, pending: Mapping[str, Any]) -> ApprovalNeeded:
    """Return the event of a question to a person of the company.

    Args:
        thread_id: The thread that waits.
        run_id: The run.
        graph: Its graph.
        pending: The interrupt as JSON.
    """
    value = pending["value"]
    tool = value.get("tool") if isinstance(value, Mapping) else None
    return ApprovalNeeded(
        approval_id=format_approval_id(pending["id"], thread_id),
        run_id=run_id,
        graph=graph,
        tool=tool if isinstance(tool, str) else "",
    )


def _describe_answer(
    request: RunRequest, output: Mapping[str, Any], subject: Subject
) -> MessageAnswered | None:
    """Return the event of an answer; ``None``: there is none.

    A journey had nothing to say, so that the coordinator answers; or a person has taken over.
    """
    graph = request.graph.name
    is_journey = graph != SESSION_GRAPH.name
    if output.get("path") == "person" or not ("response" in output or output.get("messages")):
        return None
    response = read_response(output)
    if is_journey:
        response = CustomerText(response).text if response else ""
        if not response:
            return None
    handoff = read_handoff(output) if is_journey else output.get("handoff", NO_HANDOFF)
    return MessageAnswered(
        run_id=request.run_id,
        graph=graph,
        contact_id=subject.contact_id,
        message_id=subject.message_id,
        session_id="" if is_journey else request.thread_id,
        success=bool(output.get("success", True)),
        response=response,
        agent_used=graph if is_journey else output.get("agent_used", ""),
        path="journey" if is_journey else output.get("path", ""),
        needs_person=bool(handoff["recommended"]),
        reason=output.get("reason"),
    )


def announce_effect(
    action: str, arguments: Mapping[str, Any], outcome: Mapping[str, Any], key: str
) -> str | None:
    """Return the events of a finished effect; see :data:`service.audit.idempotency.Announce`."""
    actor = current_actor()
    data: HandoffRequested | DealStageChanged
    match action:
        case "hand_over":
            data = HandoffRequested(
                handoff_id=outcome["id"],
                contact_id=outcome["contact_id"],
                team=outcome["team"],
                reason=outcome["reason"],
                run_id=actor.run_id,
            )
        case "update_opportunity" if "stage" in arguments:
            data = DealStageChanged(
                deal_id=outcome["id"],
                contact_id=outcome["contact_id"],
                stage=outcome["stage"],
                run_id=actor.run_id,
            )
        case _:
            return None
    # Two attempts may both find the effect finished.
    event = NewEvent(
        data=data, thread_id=actor.thread_id, contact_id=data.contact_id, once=f"effect:{action}:{key}"
    )
    return dump_events([event])
