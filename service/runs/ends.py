"""How runs end: why they are asked to stop, what is recorded of their end, and what becomes true with it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from langgraph.errors import GraphDrained
from langgraph.types import StateSnapshot

from core.errors import RunTimedOut, TooManyRuns
from service.errors import error_body, to_service_error
from service.outbox.events import NewEvent
from service.runs.output import RunResult
from service.runs.request import MESSAGE_KEY, RunRequest
from service.runs.rows import EndStatus

# Why a run is asked to stop: its caller left, it was cancelled, the service stops, another replica has it.
CLIENT_GONE: Final = "client_gone"
CANCELLED: Final = "cancelled"
SHUTDOWN: Final = "shutdown"
CLAIM_LOST: Final = "claim_lost"

# A key made for a request whose message has no id of its own (service/routes/messages.py).
_MADE_KEY: Final = "request:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom and which message a run is about."""

    contact_id: str
    message_id: str


class RunEnd(NamedTuple):
    """What becomes true with the end of a run, in the transaction that records it.

    Attributes:
        events: What receivers of events are told.
        thread_metadata: What the thread's metadata says from now on; ``None``: as before.
    """

    events: Sequence[NewEvent] = ()
    thread_metadata: Mapping[str, Any] | None = None


NO_CHANGES: Final = RunEnd()


class DescribeEnd(Protocol):
    """Says what becomes true with the end of a run.

    Args:
        request: The run, which came to its end or waits.
        result: Its result.
        subject: What it is about; ``None``: its input says so.
        is_paused: Whether it stopped before a step, as its caller wanted.
    """

    def __call__(
        self, request: RunRequest, result: RunResult, subject: Subject | None, *, is_paused: bool
    ) -> RunEnd:
        """Return what becomes true."""
        ...


def read_subject(request: RunRequest, state: StateSnapshot) -> Subject:
    """Return what a run is about: its input says so, or the state of the thread that it continues."""
    given: Mapping[str, Any] = request.input if isinstance(request.input, Mapping) else state.values
    key = request.key or str((state.metadata or {}).get(MESSAGE_KEY, ""))
    return Subject(
        contact_id=str(given.get("contact_id") or ""),
        message_id="" if key.startswith(_MADE_KEY) else key,
    )


def is_refusal(error: BaseException | None) -> bool:
    """Return whether a run that was never begun leaves nothing behind: it was refused, or nobody wants it."""
    if isinstance(error, GraphDrained):
        return error.reason == CLIENT_GONE
    return isinstance(error, Exception)


def is_postponed(error: BaseException | None, *, is_stored: bool) -> bool:
    """Return whether a replica executes the run later."""
    return was_suspended(error) or (is_stored and isinstance(error, TooManyRuns))


def was_suspended(error: BaseException | None) -> bool:
    """Return whether the service stopped before the run's end, so that another replica goes on with it."""
    if isinstance(error, GraphDrained):
        return error.reason == SHUTDOWN
    return isinstance(error, asyncio.CancelledError)


def describe_status(
    error: BaseException | None, *, is_interrupted: bool
) -> tuple[EndStatus, dict[str, Any] | None]:
    """Return the status of a run that has ended, and the error of one that failed, as JSON."""
    if error is None:
        return ("interrupted" if is_interrupted else "success"), None
    if isinstance(error, asyncio.CancelledError):
        error = GraphDrained(SHUTDOWN)
    described = error_body(to_service_error(error))
    if isinstance(error, GraphDrained):
        return "interrupted", described
    return ("timeout" if isinstance(error, TimeoutError | RunTimedOut) else "error"), described
