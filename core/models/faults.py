"""Providers' exceptions, divided into those that another attempt may fix and those that it cannot.

Provider packages raise subclasses of :class:`langchain_core.exceptions.ModelError`, but not always: errors of
the transport are passed on, and some statuses have no class. Those are recognised by their status and class
name, so that no provider's package has to be imported.
"""

import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import httpx
from langchain_core import exceptions as langchain

from core.errors import ModelMisconfigured, ServiceError

STREAM_CUT = "the stream ended before the reply was complete"
STREAM_UNREADABLE = "the stream of the reply could not be read"

_TRANSPORT_ERRORS = frozenset(
    {
        "aiohttp.client_exceptions.ClientError",  # the Gemini client prefers aiohttp if it is installed
        "google.auth.exceptions.TransportError",  # no token could be fetched
        "google.genai.errors.UnknownApiResponseError",  # the connection closed in the middle of an event
        "httpx2.TransportError",
    }
)
# Google refuses a token to a service account; ``retryable`` says whether another attempt may help.
_TOKEN_ERROR = "google.auth.exceptions.RefreshError"  # noqa: S105 - a class's name
# An error that the provider reports in the middle of a stream; its subclasses have a status.
_STREAM_ERROR = "openai.APIError"
# Exceptions of SDKs that parse structured replies themselves, and the finish reason that they hide.
_FINISH_REASONS = {
    "openai.LengthFinishReasonError": "LENGTH",
    "openai.ContentFilterFinishReasonError": "CONTENT_FILTER",
}
# What an adapter raises for a stream with wrong types, without the expected keys, or that is no JSON.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
_FAILURES = range(400, 600)
_SERVER_ERROR = 500
_TRANSIENT = frozenset({408, 409, 425, 429, *range(500, 600)})
_HINTS: tuple[tuple[type[Exception], str], ...] = (
    (langchain.ModelAuthenticationError, "check the provider's API key"),
    (langchain.ModelPermissionDeniedError, "check what the API key may do"),
    (langchain.ModelNotFoundError, "check the model's name"),
    (langchain.ContextOverflowError, "the conversation is longer than the model can read"),
)
_KEY = re.compile(r"\b(AIza|AQ\.|sk-|gsk_|xai-)[\w*.-]+")


class TransientError(Exception):
    """Raise when another attempt at the same call may succeed.

    Args:
        reason: What happened, in a few words without secrets.
        retry_after: Seconds the provider asks to wait.
        is_outage: Whether the provider was not reached, did not answer in time or failed. A refusal such as
            429 is an answer.

    Attributes:
        attempts: How many were made, once there will be no more.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, is_outage: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.is_outage = is_outage
        self.attempts = 0


class ProviderFaults:
    """Context manager that turns a provider's exceptions into our own.

    It raises :class:`TransientError` or :class:`~core.errors.ModelMisconfigured` instead. Exceptions that are
    not the provider's (a bug of ours, a cancellation) pass unchanged.

    Args:
        model: Name of the model that is called.
    """

    def __init__(self, model: str) -> None:
        self._model = model

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise our own error for the provider's."""
        if not isinstance(error, Exception) or isinstance(error, ServiceError | TransientError):
            return
        if _is_transient(error):
            raise TransientError(
                _reason(error), retry_after=_retry_after(error), is_outage=_is_outage(error)
            ) from error
        is_refused = isinstance(error, langchain.ModelError) or _status(error) is not None
        if is_refused or _TOKEN_ERROR in _class_names(error):
            raise _build_misconfigured(error, self._model) from error


def is_unreadable(error: Exception) -> bool:
    """Return whether an exception means that a provider's stream, or the value in it, could not be parsed."""
    if get_hidden_finish_reason(error) is not None:
        return True
    if isinstance(error, langchain.ModelError | ServiceError) or _status(error) is not None:
        return False
    # SDKs assert what they expect of a stream, without a message.
    is_bare_assertion = isinstance(error, AssertionError) and not error.args
    return is_bare_assertion or (isinstance(error, _UNREADABLE) and not _is_transient(error))


def get_hidden_finish_reason(error: Exception) -> str | None:
    """Return the finish reason of a reply for which the provider's SDK raised an exception instead."""
    return next((_FINISH_REASONS[name] for name in _class_names(error) if name in _FINISH_REASONS), None)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, TimeoutError | ConnectionError | httpx.TransportError | httpx.DecodingError):
        return True
    if _is_called_retryable(error):
        return True
    names = _class_names(error)
    if not _TRANSPORT_ERRORS.isdisjoint(names):
        return True
    if _STREAM_ERROR in names and _status(error) is None:
        return True
    # LangChain's message for a stream without a single event.
    if isinstance(error, ValueError) and str(error) == "No generation chunks were returned":
        return True
    return _status(error) in _TRANSIENT


def _is_outage(error: Exception) -> bool:
    if isinstance(error, langchain.ModelRateLimitError):
        return False
    return (_status(error) or _SERVER_ERROR) >= _SERVER_ERROR


def _is_called_retryable(error: Exception) -> bool:
    """Return whether the adapter or Google's authentication says that another attempt may help."""
    if _TOKEN_ERROR in _class_names(error):
        return bool(getattr(error, "retryable", False))
    return isinstance(error, langchain.ModelError) and error.is_retryable


def _class_names(error: Exception) -> list[str]:
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]


def _build_misconfigured(error: Exception, model: str) -> ModelMisconfigured:
    hint = next((words for kind, words in _HINTS if isinstance(error, kind)), None)
    if _TOKEN_ERROR in _class_names(error):
        hint = "check GOOGLE_APPLICATION_CREDENTIALS: the service account's key may be disabled or deleted"
    elif "api key" in str(error).lower():
        hint = _HINTS[0][1]
    message = f"The provider rejected the call to {model!r}: {_provider_message(error)}"
    return ModelMisconfigured(
        f"{message} ({hint})" if hint else message, details={"model": model, "reason": _reason(error)}
    )


def _reason(error: Exception) -> str:
    status = _status(error)
    if status is not None:
        names = (getattr(source, "status", None) for source in _sources(error))
        name = next((name for name in names if isinstance(name, str)), "")
        return f"{status} {name}".strip()
    if _is_cut(error):
        return STREAM_CUT
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    if _TOKEN_ERROR in _class_names(error):
        return "no token for the service account"
    if _class_names(error)[0] == _STREAM_ERROR:
        return "the provider reported an error in the stream"
    return f"the connection failed ({type(error).__name__})"


def _is_cut(error: Exception) -> bool:
    # The connection closed without a byte, in the middle of an event, or before the end of the body.
    return isinstance(error, ValueError | httpx.RemoteProtocolError)


def _provider_message(error: Exception) -> str:
    """Return the provider's own message, shortened and without anything that looks like a key."""
    messages = (getattr(source, "message", None) for source in reversed(list(_sources(error))))
    # Google's token errors have the message and the whole response as arguments.
    whole = str(error.args[0]) if _TOKEN_ERROR in _class_names(error) else str(error)
    message = next((text for text in messages if isinstance(text, str) and text), whole)
    return _KEY.sub("[key]", " ".join(message.split()))[:300]


def _sources(error: Exception) -> Iterator[BaseException]:
    """Yield the error and the one that the adapter wrapped in it."""
    yield error
    if error.__cause__ is not None:
        yield error.__cause__


def _status(error: Exception) -> int | None:
    for source in _sources(error):
        response = getattr(source, "response", None)
        for holder, name in ((source, "status_code"), (source, "code"), (response, "status_code")):
            status = getattr(holder, name, None)
            if isinstance(status, int) and status in _FAILURES:
                return status
    return None


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of Google's ``RetryInfo`` or of a ``Retry-After`` header."""
    for source in _sources(error):
        for detail in _google_details(getattr(source, "details", None)):
            delay = _seconds(str(detail.get("retryDelay", "")).removesuffix("s"))
            if delay is not None:
                return delay
        headers = getattr(getattr(source, "response", None), "headers", None) or {}
        delay = _seconds(str(headers.get("retry-after", "")))
        if delay is not None:
            return delay
    return None


def _google_details(body: Any) -> Iterator[Mapping[str, Any]]:
    error = body.get("error", body) if isinstance(body, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    yield from (detail for detail in details or () if isinstance(detail, Mapping))


def _seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None
