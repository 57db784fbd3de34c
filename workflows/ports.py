"""What the engine and the steps know of each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import JsonValue

from core.effects import Effects, UnrecordedEffects

StepT_contra = TypeVar("StepT_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """One attempt at one step.

    Attributes:
        context: What its expressions see: ``input``, ``steps``, ``context``, and where they are set ``item``,
            ``index`` and ``iteration``.
        idempotency_key: The same for every attempt at this step, also after a restart, and for no other step;
            in loops and ``for_each`` it says which turn.
        tenant: Whose workflow it is.
        user: Who began it.
        workflow_id: The run, which is its thread.
        step_id: The step's id in the definition.
        since: When the step was put on, in seconds since the epoch: the same for every attempt and after a
            restart, as a wait counts from it.
        attempt: From 1.
    """

    context: Mapping[str, JsonValue]
    idempotency_key: str
    tenant: str
    user: str
    workflow_id: str
    step_id: str
    since: float
    attempt: int = 1


class Executor(Protocol[StepT_contra]):
    """Does what steps of one type say.

    It is called in a task of a compiled graph, so that it may ``interrupt`` and call subgraphs; an
    interrupted one runs again from its beginning. It keeps its step's time limit itself where it asks the
    outside; the engine bounds it again.
    """

    async def __call__(self, step: StepT_contra, call: StepCall) -> JsonValue:
        """Do it.

        Returns:
            The step's output, kept in the checkpoint.

        Raises:
            StepFailed: It cannot be done; ``retryable`` says whether trying again may help.
        """
        ...


class SqlReader(Protocol):
    """Reads named databases."""

    async def rows(
        self,
        connection: str,
        sql: str,
        parameters: Mapping[str, JsonValue],
        *,
        limit: int,
        timeout: float,
    ) -> list[dict[str, JsonValue]]:
        """The rows of one statement, in a transaction that cannot write.

        Raises:
            StepFailed: No such connection, the statement is refused or takes longer than ``timeout`` seconds,
                there are more than ``limit`` rows, or the database is away (retryable).
        """
        ...


class HttpCaller(Protocol):
    """Calls addresses outside that the settings allow."""

    async def call(self, request: "OutgoingCall") -> "IncomingAnswer":
        """Ask once.

        Raises:
            StepFailed: The address is not allowed, or nothing usable came back (retryable where the other
                side was away or slow).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingCall:
    """An HTTP request.

    Attributes:
        method: HTTP's.
        url: Absolute, or ``crm:/path`` for the configured CRM.
        headers: As they are sent.
        secret_headers: Name of a header -> name of a secret, whose value it has where the request is sent and
            nowhere else.
        query: Added to the address.
        body: Sent as JSON; None: no body.
        idempotency_key: Sent as ``Idempotency-Key``.
        timeout: Seconds, from the connection to the last byte.
        most_bytes: Of the answer.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: JsonValue = None
    idempotency_key: str = ""
    timeout: float
    most_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingAnswer:
    """What came back.

    Attributes:
        status: HTTP's.
        headers: Of which a workflow may want to know; names in lower case.
        body: Parsed where it is JSON, else its text.
        retry_after: Seconds the other side asks to wait; None: it does not say.
    """

    status: int
    headers: Mapping[str, str]
    body: JsonValue
    retry_after: float | None = None


class GraphCaller(Protocol):
    """Runs a graph of the registry as a subgraph of the task it is called in.

    The subgraph has the workflow's thread and a checkpoint namespace of its own, so it goes on where it was
    after a restart, and its questions are found at ``/v1/approvals``. At most once in a task.
    """

    @property
    def names(self) -> Sequence[str]:
        """The graphs that may be a step; the workflow graph itself is none of them."""
        ...

    async def call(self, graph: str, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Run to the end and give the output as JSON.

        Raises:
            StepFailed: There is no such graph, or the input does not fit it.
            ServiceError: As the graph ends with.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPorts:
    """What the executors are made with.

    Attributes:
        http: For ``api_call``.
        sql: For ``database_query``.
        graphs: For ``agent``.
        effects: Where what ``api_call`` steps change outside is recorded.
    """

    http: HttpCaller
    sql: SqlReader
    graphs: GraphCaller
    effects: Effects = field(default_factory=UnrecordedEffects)
