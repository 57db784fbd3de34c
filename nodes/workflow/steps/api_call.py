"""``api_call``: the request, its attempts, and whether its answer is the one expected."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from pydantic import JsonValue
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from core.effects import Effects, Outcome
from core.errors import StepFailed
from workflows.ports import Executor, HttpCaller, IncomingAnswer, OutgoingCall, StepCall
from workflows.steps.api_call import LONGEST_PAUSE_SECONDS, ApiCall
from workflows.templates import Template

_SUCCESS: Final = range(200, 300)
_REDIRECTION: Final = range(300, 400)
# They change nothing on the other side (RFC 9110, 9.2.1).
_SAFE: Final = frozenset({"GET", "HEAD"})
_TRANSIENT: Final = frozenset({408, 425, 429})


def api_call(http: HttpCaller, effects: Effects) -> Executor[ApiCall]:
    """The executor.

    Args:
        http: Sends the request.
        effects: Where a request that may change something is recorded, before and after.
    """

    async def run(step: ApiCall, call: StepCall) -> JsonValue:
        request = _request(step, call)
        attempts = AsyncRetrying(
            stop=stop_after_attempt(step.attempts),
            wait=_Pause(step.backoff_seconds),
            retry=retry_if_exception(lambda error: isinstance(error, StepFailed) and error.retryable),
            reraise=True,
        )

        async def made() -> Outcome:
            answer: IncomingAnswer = await attempts(_attempt, http, request, step)
            return {"status": answer.status, "headers": dict(answer.headers), "body": answer.body}

        if step.method in _SAFE:
            return await made()
        asked = {"method": request.method, "url": request.url, "query": request.query, "body": request.body}
        return await effects.run_once(call.idempotency_key, "api_call", asked, made)

    return run


async def _attempt(http: HttpCaller, request: OutgoingCall, step: ApiCall) -> IncomingAnswer:
    answer = await http.call(request)
    if answer.status not in (step.expected_status or _SUCCESS):
        raise _unexpected(answer, request)
    return answer


def _unexpected(answer: IncomingAnswer, request: OutgoingCall) -> StepFailed:
    where = request.url.partition("?")[0]
    hint = "; redirects are not followed" if answer.status in _REDIRECTION else ""
    transient = answer.status in _TRANSIENT or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return StepFailed(
        f"{request.method} {where} was answered with {answer.status}{hint}",
        retryable=transient,
        details={"status": answer.status},
        retry_after=answer.retry_after,
    )


def _request(step: ApiCall, call: StepCall) -> OutgoingCall:
    context = call.context
    return OutgoingCall(
        method=step.method,
        url=Template(step.url).render_address(context),
        headers=_texts(step.headers, context, "headers"),
        secret_headers=step.secret_headers,
        query=_texts(step.query, context, "query"),
        body=Template(step.body).render(context),
        idempotency_key=call.idempotency_key,
        timeout=step.timeout_seconds,
        most_bytes=step.response_limit_bytes,
    )


def _texts(
    templates: Mapping[str, JsonValue], context: Mapping[str, JsonValue], field: str
) -> dict[str, str]:
    """Rendered to texts; what is null is left out."""
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
    """As long as the other side asks for, where it does, but not longer than the longest."""

    def __init__(self, first: float) -> None:
        super().__init__(first, max=LONGEST_PAUSE_SECONDS, jitter=first)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, StepFailed) and error.retry_after else 0
        return max(super().__call__(retry_state), min(asked, LONGEST_PAUSE_SECONDS))
