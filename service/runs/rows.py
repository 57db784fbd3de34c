"""What the tables of runs are given and return."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import JsonValue

RunStatus: TypeAlias = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
EndStatus: TypeAlias = Literal["success", "error", "timeout", "interrupted"]
CancelAction: TypeAlias = Literal["interrupt", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to insert.

    Attributes:
        id: Its id.
        thread_id: The thread it runs on.
        tenant: Whose it is.
        user: Who asked for it.
        graph: The graph to run.
        queue: Whose concurrency slots it takes.
        kwargs: What to run, as JSON, so that any replica can; ``None``: only this process can.
        strategy: What its caller chose to do where the thread is busy.
        priority: The higher one is started first, among a tenant's.
        assistant_id: The assistant whose run it is; ``None``: nobody named one.
        metadata: The caller's, to find it by.
        webhook: The endpoint that is told of its end; ``None``: none is.
        after_seconds: How long it waits before its turn on its thread can come.
        may_create_thread: Whether its thread is created where there is none.
    """

    id: str
    thread_id: str
    tenant: str
    user: str
    graph: str
    queue: str
    kwargs: Mapping[str, Any] | None
    strategy: str
    priority: int = 0
    assistant_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    webhook: str | None = None
    after_seconds: float = 0
    may_create_thread: bool = True


class Cancellation(NamedTuple):
    """How a run is to be cancelled, and why: a drain reason."""

    action: CancelAction
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of a run that was to be inserted.

    Attributes:
        owner: The thread's tenant; ``None``: another transaction is just inserting the thread, or there is
            none and the run may not create it.
        ahead: Runs that were on the thread before.
        status: ``running``, ``pending``, or ``None``: it was not inserted.
        attempt: 1 where it is running.
        is_new_thread: Whether the thread's row was inserted with it.
        is_conflict: Whether another run was added to the thread at the same moment.
        held_by: The person who has taken the thread over; empty: nobody.
    """

    owner: str | None
    ahead: int
    status: Literal["running", "pending"] | None
    attempt: int
    is_new_thread: bool
    is_conflict: bool
    held_by: str


class Start(NamedTuple):
    """A run that was pending and is running now.

    Attributes:
        attempt: The fencing token of the claim.
        held_by: The person who has taken the thread over; empty: nobody.
    """

    attempt: int
    held_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """The run that is next on a thread.

    Attributes:
        id: The run.
        owner: The replica whose caller waits for it; ``None``: any may execute it.
    """

    id: str
    owner: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A row of the table of runs; ``kwargs`` is ``None`` in lists."""

    id: str
    thread_id: str
    tenant: str
    user_id: str
    graph: str
    assistant_id: str | None
    metadata: dict[str, JsonValue]
    queue: str
    status: RunStatus
    kwargs: dict[str, Any] | None
    multitask_strategy: str
    priority: int
    attempt: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    claimed_by: str | None
    cancel_action: CancelAction | None
    cancel_reason: str | None
    error: dict[str, JsonValue] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunRun:
    """A run that is in progress or has ended."""

    id: str
    graph: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRuns:
    """Runs that have not ended, of one queue, tenant, status and replica.

    Attributes:
        queue: Whose concurrency slots they take.
        tenant: Whose they are.
        status: ``pending`` or ``running``.
        replica: Who holds them; empty: nobody.
        runs: How many.
        oldest_seconds: The age of the oldest one.
    """

    queue: str
    tenant: str
    status: str
    replica: str
    runs: int
    oldest_seconds: float
