"""The executors of working steps: API calls, database queries, agents, waits and approvals."""

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, TypedDict, cast

from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from core.customer_text import CustomerText
from core.effects import Effects, Outcome
from core.errors import StepFailed, TextRefused
from nodes.workflow.data_processing import process_data
from workflows.customer_texts import sends_message
from workflows.ports import (
    Executor,
    GraphCaller,
    HttpCaller,
    HttpRequest,
    HttpResponse,
    SqlReader,
    StepCall,
    StepPorts,
)
from workflows.steps import MAX_PAUSE_SECONDS, AgentCall, ApiCall, Approval, DatabaseQuery, Wait
from workflows.templates import Template

_SUCCESS: Final = range(200, 300)
_REDIRECTION: Final = range(300, 400)
# Methods that change nothing on the server (RFC 9110, 9.2.1).
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_TRANSIENT: Final = frozenset({408, 425, 429})


class WaitInterrupt(TypedDict):
    """The interrupt of a waiting step, which ``/v1/approvals`` does not list."""

    kind: Annotated[Literal["timer", "signal"], Field(description="What the step waits for")]
    step: Annotated[str, Field(description="The step's id")]
    signal: Annotated[str, Field(description="The signal's name; empty: a timer")]
    due: Annotated[float, Field(description="When the wait ends, in seconds since the epoch; 0: never")]


class WaitAnswer(BaseModel):
    """The answer with which the service ends a wait."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["due", "signal"]
    payload: JsonValue = Field(None, description="The payload of the signal")


class WorkflowApproval(BaseModel):
    """The question to a person."""

    type: Literal["workflow_approval"] = "workflow_approval"
    step: str = Field(description="The step that asks")
    question: str
    details: JsonValue = Field(description="What is needed to decide")


class WorkflowDecision(BaseModel):
    """The decision of a person."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["approve", "reject"]
    reason: str = Field("", max_length=2_000)
    data: JsonValue = Field(None, description="Anything that later steps may use")


def build_executors(ports: StepPorts) -> Mapping[str, Executor[Any]]:
    """Return the executor of each ``type`` of step."""
    return {
        "api_call": build_api_call(ports.http, ports.effects),
        "database_query": build_database_query(ports.sql),
        "data_processing": process_data,
        "agent": build_agent_call(ports.graphs),
        "wait": wait,
        "approval": request_approval,
    }


def build_api_call(http: HttpCaller, effects: Effects) -> Executor[ApiCall]:
    """Return the executor of ``api_call``, which sends the request until the response is as expected.

    Args:
        http: Sends the request.
        effects: Records a request that may change something, before and after it is sent.
    """

    async def api_call(step: ApiCall, call: StepCall) -> JsonValue:
        request = _build_request(step, call)
        _check_customer_text(request)
        attempts = AsyncRetrying(
            stop=stop_after_attempt(step.attempts),
            wait=_Pause(step.backoff_seconds),
            retry=retry_if_exception(lambda error: isinstance(error, StepFailed) and error.retryable),
            reraise=True,
        )

        async def send() -> Outcome:
            response: HttpResponse = await attempts(_send_once, http, request, step)
            return {"status": response.status, "headers": dict(response.headers), "body": response.body}

        if step.method in _SAFE_METHODS:
            return await send()
        arguments = {
            "method": request.method,
            "url": request.url,
            "query": request.query,
            "body": request.body,
        }
        return await effects.run_once(call.idempotency_key, "api_call", arguments, send)

    return api_call


def build_database_query(sql: SqlReader) -> Executor[DatabaseQuery]:
    """Return the executor of ``database_query``, which reads rows of a named database."""

    async def database_query(step: DatabaseQuery, call: StepCall) -> JsonValue:
        parameters = {name: Template(value).render(call.context) for name, value in step.parameters.items()}
        rows = await sql.fetch_rows(
            step.connection, step.sql, parameters, limit=step.row_limit, timeout=step.timeout_seconds
        )
        return cast("JsonValue", rows)

    return database_query


def build_agent_call(graphs: GraphCaller) -> Executor[AgentCall]:
    """Return the executor of ``agent``, which runs a graph of the registry."""

    async def agent_call(step: AgentCall, call: StepCall) -> JsonValue:
        if step.graph not in graphs.names:
            raise StepFailed(f"there is no graph {step.graph!r}; there are {', '.join(graphs.names)}")
        values = {name: Template(value).render(call.context) for name, value in step.input.items()}
        return cast("JsonValue", await graphs.run(step.graph, values))

    return agent_call


async def wait(step: Wait, call: StepCall) -> JsonValue:
    """Execute ``wait``: interrupt until the time is over or the signal has come.

    Raises:
        StepFailed: The signal did not come in time.
    """
    seconds = step.duration_seconds or step.within_seconds
    answer: WaitAnswer = interrupt(
        WaitInterrupt(
            kind="signal" if step.signal else "timer",
            step=call.step_id,
            signal=step.signal or "",
            due=call.started_at + seconds if seconds else 0.0,
        ),
        response_schema=WaitAnswer,
    )
    if step.signal and answer.kind == "due":
        raise StepFailed(f"the signal {step.signal!r} did not come within {step.within_seconds:g} s")
    return answer.payload if step.signal else {"waited_seconds": round(time.time() - call.started_at, 3)}


async def request_approval(step: Approval, call: StepCall) -> JsonValue:
    """Execute ``approval``: interrupt until a person answers at ``/v1/approvals``.

    Raises:
        StepFailed: The person rejected, and the step says that this is a failure.
    """
    question = WorkflowApproval(
        step=call.step_id,
        question=str(Template(step.question).render(call.context)),
        details=Template(step.details).render(call.context),
    )
    decision: WorkflowDecision = interrupt(question.model_dump(), response_schema=WorkflowDecision)
    if decision.decision == "reject" and step.on_reject == "fail":
        raise StepFailed(f"rejected: {decision.reason}" if decision.reason else "rejected")
    return decision.model_dump()


async def _send_once(http: HttpCaller, request: HttpRequest, step: ApiCall) -> HttpResponse:
    response = await http.send(request)
    if response.status in (step.expected_status or _SUCCESS):
        return response
    address = request.url.partition("?")[0]
    hint = "; redirects are not followed" if response.status in _REDIRECTION else ""
    is_transient = response.status in _TRANSIENT or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    raise StepFailed(
        f"{request.method} {address} was answered with {response.status}{hint}",
        retryable=is_transient,
        details={"status": response.status},
        retry_after=response.retry_after,
    )


def _build_request(step: ApiCall, call: StepCall) -> HttpRequest:
    context = call.context
    return HttpRequest(
        method=step.method,
        url=Template(step.url).render_address(context),
        headers=_render_texts(step.headers, context, "headers"),
        secret_headers=step.secret_headers,
        query=_render_texts(step.query, context, "query"),
        body=Template(step.body).render(context),
        idempotency_key=call.idempotency_key,
        timeout=step.timeout_seconds,
        max_bytes=step.response_limit_bytes,
    )


def _check_customer_text(request: HttpRequest) -> None:
    """Raise if the request would send a customer a text that none may read."""
    body = request.body
    if (
        not sends_message(request.method, request.url, body)
        or not isinstance(body, dict)
        or "text" not in body
    ):
        return
    if not isinstance(body["text"], str):
        raise StepFailed("body.text is not a text")
    try:
        CustomerText(body["text"])
    except TextRefused as refused:
        raise StepFailed(f"body.text cannot be sent to a customer: {refused.message}") from refused


def _render_texts(
    templates: Mapping[str, JsonValue], context: Mapping[str, JsonValue], field: str
) -> dict[str, str]:
    """Render templates to texts, without those that are null."""
    texts = {}
    for name, template in templates.items():
        value = Template(template).render(context)
        if isinstance(value, list | dict):
            raise StepFailed(f"{field}.{name} gives a list or an object, not a text")
        if value is not None:
            texts[name] = str(value).lower() if isinstance(value, bool) else str(value)
        if field == "headers" and not texts.get(name, "").isprintable():
            raise StepFailed(f"{field}.{name} gives characters that a header cannot have")
    return texts


class _Pause(wait_exponential_jitter):
    """A pause between attempts that respects ``Retry-After``, up to the longest pause allowed."""

    def __init__(self, first: float) -> None:
        super().__init__(first, max=MAX_PAUSE_SECONDS, jitter=first)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        retry_after = error.retry_after if isinstance(error, StepFailed) and error.retry_after else 0
        return max(super().__call__(retry_state), min(retry_after, MAX_PAUSE_SECONDS))
