"""Models of the working steps: what each does, its fields and its limits."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from workflows.conditions import ALWAYS, Condition
from workflows.templates import (
    OPEN,
    ExpressionText,
    ReadsContext,
    Template,
    TemplateJson,
    TemplateMap,
    TemplateText,
)

StepId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
# A token of RFC 9110.
HeaderName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
SecretName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
SignalName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
HttpStatus: TypeAlias = Annotated[int, Field(ge=200, le=599)]
Operation: TypeAlias = Literal["filter", "map", "group", "sum", "count", "mean", "min", "max", "join", "sort"]

CRM_SCHEME: Final = "crm:/"
# Between two attempts of an api_call, even if the server asks for more.
MAX_PAUSE_SECONDS: Final = 30.0
MAX_WAIT_SECONDS: Final = 90 * 86_400

# The host is a part of the definition and never comes from data.
_ADDRESS: Final = re.compile(r"(https?://[^/?#@\s\\{}]+/|crm:/)", re.IGNORECASE)
# fmt: off
_RESERVED_HEADERS: Final = frozenset({
    "host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer",
    "expect", "idempotency-key", "accept-encoding", "proxy-authorization", "cookie",
})
# fmt: on
_SECRET_HEADERS: Final = frozenset({"authorization", "x-api-key"})
# What psycopg reads in a statement: %(name)s, or %% for a percent sign.
_PLACEHOLDER: Final = re.compile(r"%(?:\((?P<name>[A-Za-z_]\w*)\)s|(?P<percent>%)|(?P<stray>.|$))", re.DOTALL)
_SQL_COMMENT: Final = re.compile(r"\s+|--[^\n]*(?:\n|$)|/\*.*?\*/", re.DOTALL)
_SQL_READ: Final = re.compile(r"(select|with|values|table)\b", re.IGNORECASE)
_REQUIRED_FIELDS: Final[Mapping[Operation, frozenset[str]]] = {
    "filter": frozenset({"where"}),
    "map": frozenset({"to"}),
    "group": frozenset({"by"}),
    "join": frozenset({"other", "by", "other_by"}),
    "sort": frozenset({"by"}),
}
_OPTIONAL_FIELDS: Final[Mapping[Operation, frozenset[str]]] = {
    "sum": frozenset({"value"}),
    "count": frozenset({"where"}),
    "mean": frozenset({"value"}),
    "min": frozenset({"value"}),
    "max": frozenset({"value"}),
    "join": frozenset({"how"}),
    "sort": frozenset({"descending"}),
}
_OPERATION_FIELDS: Final = frozenset().union(*_REQUIRED_FIELDS.values(), *_OPTIONAL_FIELDS.values())


class Retry(BaseModel):
    """Try a failed step again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    retry: int = Field(ge=1, le=10, description="Number of further attempts")
    backoff_seconds: float = Field(
        1, ge=0, le=3_600, description="Pause before the first of them; it doubles each time"
    )
    then: Literal["fail", "skip"] = Field("fail", description="What to do when all attempts failed")


class AnyStep(BaseModel):
    """Fields of working steps and patterns alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: StepId = Field(description="Unique in the definition; other steps refer to the step by it")
    name: str = Field("", max_length=200, description="A name for people")
    when: Condition = Field(ALWAYS, description="The step is skipped unless this is met")


class WorkingStep(AnyStep):
    """Fields of every working step."""

    on_error: Literal["fail", "skip"] | Retry = "fail"
    timeout_seconds: float = Field(30, gt=0, le=3_600, description="Time limit of one attempt")

    @property
    def max_seconds(self) -> float:
        """The longest that one call of the step's executor may take."""
        return self.timeout_seconds


def _check_address(text: str) -> str:
    start = Template(text).find_literal_start()
    if not _ADDRESS.match(start if start != text else f"{text}/"):
        raise ValueError("must begin with https://host/ or crm:/, without placeholders, user or password")
    return text


def _check_secret_headers(headers: dict[str, str]) -> dict[str, str]:
    for name in headers:
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"{name}: is set by the service")
    return headers


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name in _check_secret_headers(headers):
        if name.lower() in _SECRET_HEADERS:
            raise ValueError(f"{name}: put the key in WORKFLOW_SECRETS and name it in secret_headers")
    return headers


class ApiCall(WorkingStep):
    """Call an HTTP API; output: ``{status, headers, body}``.

    Every request carries an ``Idempotency-Key`` that stays the same for all attempts, even after a restart.
    """

    type: Literal["api_call"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[
        TemplateText, StringConstraints(min_length=6, max_length=2_000), AfterValidator(_check_address)
    ] = Field(
        description="https://host/path with a host of WORKFLOW_ALLOWED_HOSTS, or crm:/path for the CRM; "
        "each placeholder is one path segment or one value of the query"
    )
    headers: Annotated[
        dict[HeaderName, TemplateText],
        Field(max_length=30),
        AfterValidator(_check_headers),
        ReadsContext("template"),
    ] = Field({})
    secret_headers: Annotated[
        dict[HeaderName, SecretName], Field(max_length=10), AfterValidator(_check_secret_headers)
    ] = Field({}, description="Header -> name of the secret in WORKFLOW_SECRETS that is its whole value")
    query: TemplateMap = Field({})
    body: TemplateJson = Field(None, description="Sent as JSON; null: no body")
    expected_status: list[HttpStatus] = Field([], max_length=20, description="Empty: any from 200 to 299")
    attempts: int = Field(3, ge=1, le=10, description="Attempts on 429, 5xx and connection failures")
    backoff_seconds: float = Field(
        0.5, ge=0, le=60, description="Pause before the second attempt; it doubles each time"
    )
    response_limit_bytes: int = Field(1_000_000, ge=1, le=10_000_000)

    @property
    def max_seconds(self) -> float:
        """Enough for all attempts, each with its own time limit, and the pauses between them."""
        return self.attempts * self.timeout_seconds + (self.attempts - 1) * MAX_PAUSE_SECONDS


def _check_statement(sql: str) -> str:
    if OPEN in sql:
        raise ValueError("holds {{: a statement is not a template; write %(name)s and set it in parameters")
    if "\0" in sql:
        raise ValueError("holds a NUL character")
    at = 0
    while comment := _SQL_COMMENT.match(sql, at):
        at = comment.end()
    if not _SQL_READ.match(sql, at):
        raise ValueError("must be one SELECT, WITH, VALUES or TABLE statement")
    return sql


class DatabaseQuery(WorkingStep):
    """Read rows in a transaction that cannot write; output: a list of objects."""

    type: Literal["database_query"]
    connection: StepId = Field(description="A name of WORKFLOW_CONNECTIONS")
    sql: Annotated[
        str, StringConstraints(min_length=6, max_length=20_000), AfterValidator(_check_statement)
    ] = Field(description="One statement; write values as %(name)s and a percent sign as %%")
    parameters: TemplateMap = Field({})
    row_limit: int = Field(1_000, ge=1, le=10_000, description="The step fails when there are more rows")

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        placeholders = list(_PLACEHOLDER.finditer(self.sql))
        if any(one["stray"] is not None for one in placeholders):
            raise ValueError("sql: a % that is not %(name)s; write a percent sign as %%")
        names = {one["name"] for one in placeholders if one["name"]}
        if missing := sorted(names - self.parameters.keys()):
            raise ValueError(f"parameters: missing {', '.join(missing)}, which sql names")
        if unused := sorted(self.parameters.keys() - names):
            raise ValueError(f"parameters: {', '.join(unused)} not named in sql")
        return self


class DataProcessing(WorkingStep):
    """Compute a list or a number from a list.

    ``filter``: the items for which ``where`` is true. ``map``: ``to`` for each item. ``group``: ``{key,
    items}`` for each value of ``by``, in the order they first appear. ``sum``, ``mean``, ``min``, ``max``: of
    ``value``; null is ignored. ``count``: the number of items for which ``where`` is true. ``join``: ``{left,
    right}`` for each pair whose ``by`` and ``other_by`` are equal; with ``how: left`` also the left items
    without a match. ``sort``: by ``by``, stable, null last. Expressions see the context with ``item`` and
    ``index``.
    """

    type: Literal["data_processing"]
    operation: Operation
    source: ExpressionText = Field(description="The list, e.g. steps.orders.output")
    where: ExpressionText | None = None
    to: TemplateJson = None
    by: ExpressionText | None = None
    value: ExpressionText = "item"
    other: ExpressionText | None = Field(None, description="The second list of a join")
    other_by: ExpressionText | None = Field(None, description="The key of the second list's items")
    how: Literal["inner", "left"] = "inner"
    descending: bool = False

    @model_validator(mode="after")
    def _check_operation_fields(self) -> Self:
        written = self.model_fields_set & _OPERATION_FIELDS
        required = _REQUIRED_FIELDS.get(self.operation, frozenset())
        optional = _OPTIONAL_FIELDS.get(self.operation, frozenset())
        if missing := sorted(required - written):
            raise ValueError(f"{self.operation} needs {', '.join(missing)}")
        if foreign := sorted(written - required - optional):
            raise ValueError(f"{self.operation} does not take {', '.join(foreign)}")
        return self


class AgentCall(WorkingStep):
    """Run a graph on the workflow's thread; output: the graph's. Workflows cannot be nested."""

    type: Literal["agent"]
    graph: StepId = Field(description="The graph's name, e.g. react")
    input: TemplateMap = Field({}, description="Must fit the graph's input schema")
    timeout_seconds: float = Field(300, gt=0, le=3_600, description="Time limit of one attempt")


class Wait(WorkingStep):
    """Wait for a duration or a signal; output: ``{waited_seconds}`` or the signal's payload.

    A waiting run holds no resources and survives a restart.
    """

    type: Literal["wait"]
    duration_seconds: float = Field(0, ge=0, le=MAX_WAIT_SECONDS)
    signal: SignalName | None = Field(None, description="The name in POST /v1/workflows/{id}/signals/{name}")
    within_seconds: float = Field(
        0, ge=0, le=MAX_WAIT_SECONDS, description="Time limit of the wait for the signal; 0: none"
    )

    @model_validator(mode="after")
    def _check_one_of_both(self) -> Self:
        if bool(self.duration_seconds) == bool(self.signal):
            raise ValueError("needs either duration_seconds or signal")
        if self.within_seconds and not self.signal:
            raise ValueError("within_seconds goes with signal")
        return self


class Approval(WorkingStep):
    """Ask a person at ``/v1/approvals``; output: ``{decision, reason, data}``."""

    type: Literal["approval"]
    question: Annotated[TemplateText, StringConstraints(min_length=1)]
    details: TemplateJson = Field(None, description="Shown with the question")
    on_reject: Literal["fail", "continue"] = Field(
        "fail", description="Whether a rejection fails the step or is an output to branch on"
    )
