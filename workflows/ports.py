"""The workflow engine and its interfaces to the executors of steps and the services they call."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import JsonValue

from core.concurrency import FairSemaphore
from core.effects import Effects, UnrecordedEffects

StepT_contra = TypeVar("StepT_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """One attempt at one step.

    Attributes:
        context: What its expressions see: ``input`` and ``steps``, and where they are set ``item``, ``index``
            and ``iteration``.
        idempotency_key: The same for every attempt at this step, even after a restart, and unique to the step
            and its iteration.
        step_id: The step's id in the definition.
        started_at: When the step was scheduled, in seconds since the epoch: the same for every attempt and
            after a restart, because a wait counts from it.
    """

    context: Mapping[str, JsonValue]
    idempotency_key: str
    step_id: str
    started_at: float


class Executor(Protocol[StepT_contra]):
    """Executes steps of one type.

    The engine calls it in a task of a compiled graph, so that it may ``interrupt`` and call subgraphs; an
    interrupted executor runs again from its beginning. An executor that makes requests enforces the step's
    time limit itself; the engine enforces it once more.
    """

    async def __call__(self, step: StepT_contra, call: StepCall) -> JsonValue:
        """Execute the step.

        Returns:
            The step's output, which the checkpoint holds.

        Raises:
            StepFailed: The step failed; ``retryable`` tells whether another attempt may help.
        """
        ...


class SqlReader(Protocol):
    """Reads named databases."""

    async def fetch_rows(
        self,
        connection: str,
        sql: str,
        parameters: Mapping[str, JsonValue],
        *,
        limit: int,
        timeout: float,
    ) -> list[dict[str, JsonValue]]:
        """Return the rows of one statement, executed in a transaction that cannot write.

        Raises:
            StepFailed: There is no such connection, the database rejects the statement, it takes longer than
                ``timeout`` seconds or has more than ``limit`` rows, or the database is unavailable
                (retryable).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """An HTTP request of a workflow.

    Attributes:
        method: The HTTP method.
        url: An absolute URL, or ``crm:/path`` for the configured CRM.
        headers: Headers as they are sent.
        secret_headers: Header name -> name of the secret that is its value; the value appears only in the
            request itself.
        query: Added to the URL's query.
        body: Sent as JSON; None: no body.
        idempotency_key: Sent as ``Idempotency-Key``; empty: not sent.
        timeout: Seconds from the connection to the last byte.
        max_bytes: Maximum size of the response.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: JsonValue = None
    idempotency_key: str = ""
    timeout: float
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """The response to a request of a workflow.

    Attributes:
        status: The HTTP status.
        headers: Those that a workflow may need, with names in lower case.
        body: Parsed if it is JSON, else its text.
        retry_after: Seconds the server asks to wait; None: it does not say.
    """

    status: int
    headers: Mapping[str, str]
    body: JsonValue
    retry_after: float | None = None


class HttpCaller(Protocol):
    """Sends requests to the hosts that the settings allow."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request once.

        Raises:
            StepFailed: The host is not allowed, or no usable response came (retryable if the server was
                unavailable or slow).
        """
        ...


class GraphCaller(Protocol):
    """Runs graphs of the registry as subgraphs of the task it is called in, at most one per task.

    The subgraph has the workflow's thread and a checkpoint namespace of its own, so that it resumes where it
    stopped after a restart, and its questions appear at ``/v1/approvals``.
    """

    @property
    def names(self) -> Sequence[str]:
        """The graphs that may be a step, which exclude the workflow graph itself."""
        ...

    async def run(self, graph: str, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Run a graph to its end and return its output as JSON.

        Raises:
            StepFailed: There is no such graph, or the input does not fit it.
            ServiceError: The error that the graph ends with.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPorts:
    """What the executors are built with.

    Attributes:
        http: Sends the requests of ``api_call``.
        sql: Reads the databases of ``database_query``.
        graphs: Runs the graphs of ``agent``.
        effects: Records what ``api_call`` steps change outside.
    """

    http: HttpCaller
    sql: SqlReader
    graphs: GraphCaller
    effects: Effects = field(default_factory=UnrecordedEffects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The live objects that execute working steps, for all workflows of the process.

    Attributes:
        executors: The executor of each ``type`` of step.
        slots: Limits how many steps run at once, and decides which is next.
        clock: Returns seconds since the epoch.
        pause: Waits for some seconds.
        jitter: Returns the share of a backoff to wait for.
        wave: Maximum number of tasks per super-step: the cost of a task in LangGraph grows with their number.
    """

    executors: Mapping[str, Executor[Any]]
    slots: FairSemaphore
    clock: Callable[[], float] = time.time
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = field(default=lambda: random.uniform(0.5, 1))  # noqa: S311 - no secret
    wave: int = 500
