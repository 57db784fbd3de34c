"""The one exception tree.

::

    ServiceError
    ├── StartupError                 the service cannot start (setting, port, database)
    ├── InvalidRequest          422  the caller's input does not fit
    ├── NotFound                404
    ├── ThreadBusy              409  another run holds the thread
    ├── TooManyRuns             429  the service is at its limit of concurrent runs
    ├── RateLimited             429  the tenant has made its requests of the window
    ├── BodyTooLarge            413
    ├── InterruptPending        409  the thread waits for a person's decision
    ├── NothingToResume         409  the thread waits for nothing
    ├── WrongGraph              409  the thread belongs to another graph
    ├── RunStopped              503  the service is stopping; the run is saved at its last step
    ├── RunReplaced             409  a newer run took the thread over
    ├── RunTimedOut             504
    ├── RunLimitReached         500  a graph took more super-steps than it may
    ├── DatabaseUnavailable     503
    ├── EffectConflict          500  an effect's key stands for another effect
    ├── KeyReused               422  an idempotency key came with another request
    ├── ModelError              502  a model call failed for good
    │   ├── ModelUnavailable    503  after bounded retries and the fallback
    │   ├── ModelMisconfigured  502  key, name or permission refused by the provider
    │   └── ModelRefused        502  the provider blocked the prompt or the reply
    ├── EmbeddingError          503  the embedding model, after bounded retries
    ├── MemoryUnavailable       503  the memory, or its database, cannot be reached
    ├── MemoryRefused           422  what the memory is asked does not fit
    ├── SessionRefused          403  the session or thread is another contact's
    ├── Unauthenticated         401  no credential, or one that is not good
    ├── IssuerUnavailable       503  a token cannot be checked, as its issuer's keys cannot be had
    ├── Forbidden               403  the caller's scopes, or where they ask from, do not allow it
    ├── OutgoingRefused         422  an address that may not be called
    ├── OutgoingUnavailable     503  an allowed host cannot be reached
    ├── StepFailed              422  a step of a workflow cannot be done
    ├── InvalidDefinition       422  a workflow's definition or its input has faults
    ├── WorkflowFailed          500  a workflow came to a step it cannot go on from; it can be recovered
    └── CrmError                502
        ├── CrmRefused          502  4xx from the CRM: the model can act on it
        ├── CrmUnauthorized     502  the CRM does not accept our key
        └── CrmUnavailable      503  after bounded retries

Each class carries its stable ``code`` (the ``error`` field of a body) and its HTTP ``status``.
``api`` maps them to ``{error, message, details}``; nothing below ``api`` knows HTTP.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ServiceError(Exception):
    """Root of everything the service raises on purpose.

    Args:
        message: What went wrong and what to do next, for the caller to read. Never a secret.
        details: JSON-able facts a program can act on.
        retry_after: Seconds after which a retry makes sense; becomes ``Retry-After``.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after = retry_after


class StartupError(ServiceError):
    """Raise when the service cannot start; the message is the one line the operator sees."""

    code = "startup_failed"


class InvalidRequest(ServiceError):
    """Raise when a request is well-formed but its content does not fit."""

    code = "invalid_request"
    status = 422


class NotFound(ServiceError):
    """Raise when what a request names does not exist, or is not the caller's."""

    code = "not_found"
    status = 404


class ThreadBusy(ServiceError):
    """Raise when a thread has a run in progress and the caller chose not to wait."""

    code = "thread_busy"
    status = 409


class InterruptPending(ServiceError):
    """Raise when a new run would throw away a question that waits for a person."""

    code = "interrupt_pending"
    status = 409


class NothingToResume(ServiceError):
    """Raise when a thread has no interrupt to answer, or no step left to continue with."""

    code = "nothing_to_resume"
    status = 409


class WrongGraph(ServiceError):
    """Raise when a thread was begun by another graph than the one asked."""

    code = "wrong_graph"
    status = 409


class TooManyRuns(ServiceError):
    """Raise when no run slot came free in time."""

    code = "too_many_runs"
    status = 429


class RateLimited(ServiceError):
    """Raise when a tenant has made as many requests as its rate allows in the window."""

    code = "rate_limited"
    status = 429


class BodyTooLarge(ServiceError):
    """Raise when a request's body is larger than it may be."""

    code = "too_large"
    status = 413


class RunStopped(ServiceError):
    """Raise when a run was stopped at a step boundary; its checkpoint is kept."""

    code = "run_stopped"
    status = 503


class RunReplaced(ServiceError):
    """Raise when a newer run on the thread asked to replace this one."""

    code = "run_replaced"
    status = 409


class RunTimedOut(ServiceError):
    """Raise when a run took longer than it may; its last checkpoint is kept."""

    code = "run_timed_out"
    status = 504


class RunLimitReached(ServiceError):
    """Raise when a graph took more super-steps than it may."""

    code = "run_limit_reached"
    status = 500


class DatabaseUnavailable(ServiceError):
    """Raise when Postgres cannot be reached or refuses."""

    code = "database_unavailable"
    status = 503


class EffectConflict(ServiceError):
    """Raise when the key of an effect is known with another action or other arguments: a bug of ours."""

    code = "effect_conflict"


class KeyReused(ServiceError):
    """Raise when a request's idempotency key, or its message's id, came before with another request."""

    code = "idempotency_key_reused"
    status = 422


class ModelError(ServiceError):
    """Raise when a model call fails for good in another way."""

    code = "model_error"
    status = 502


class ModelUnavailable(ModelError):
    """Raise when the model, and its fallback, stayed unavailable through all attempts."""

    code = "model_unavailable"
    status = 503


class ModelMisconfigured(ModelError):
    """Raise when the provider refuses the key, the model's name or the request itself."""

    code = "model_misconfigured"


class ModelRefused(ModelError):
    """Raise when the provider blocks the prompt or the reply (safety, recitation, policy)."""

    code = "model_refused"


class EmbeddingError(ServiceError):
    """Raise when the embedding model does not answer, refuses, or gives vectors of another kind."""

    code = "embedding_failed"
    status = 503


class MemoryUnavailable(ServiceError):
    """Raise when the memory, or its database, cannot be reached."""

    code = "memory_unavailable"
    status = 503


class MemoryRefused(ServiceError):
    """Raise when what the memory is asked, or told to remember, does not fit."""

    code = "memory_refused"
    status = 422


class SessionRefused(ServiceError):
    """Raise when a session or thread is named by a contact whose it is not."""

    code = "session_refused"
    status = 403


class Unauthenticated(ServiceError):
    """Raise when a request has no credential, or one that is not good."""

    code = "unauthenticated"
    status = 401


class IssuerUnavailable(ServiceError):
    """Raise when a token cannot be checked, as its issuer's keys cannot be had."""

    code = "issuer_unavailable"
    status = 503


class Forbidden(ServiceError):
    """Raise when the caller's scopes, or the place they ask from, do not allow what they ask."""

    code = "forbidden"
    status = 403


class OutgoingRefused(ServiceError):
    """Raise when an address may not be called: its host is not allowed, or is not on the internet."""

    code = "outgoing_refused"
    status = 422


class OutgoingUnavailable(ServiceError):
    """Raise when a host that may be called cannot be reached."""

    code = "outgoing_unavailable"
    status = 503


class StepFailed(ServiceError):
    """Raise when a step of a workflow cannot be done.

    Args:
        message: For the one who wrote the workflow. Never a secret.
        retryable: Whether the same step may succeed a little later.
    """

    code = "step_failed"
    status = 422

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, details=details, retry_after=retry_after)
        self.retryable = retryable


class InvalidDefinition(ServiceError):
    """Raise when a workflow's definition, or the input of a run of it, has faults; ``details`` lists them."""

    code = "invalid_definition"
    status = 422


class WorkflowFailed(ServiceError):
    """Raise when a workflow cannot go on by itself; what it has done is kept, and it can be recovered."""

    code = "workflow_failed"
    status = 500


class CrmError(ServiceError):
    """Raise when the CRM's answer is not what its contract says."""

    code = "crm_error"
    status = 502


class CrmRefused(CrmError):
    """Raise when the CRM answers 4xx to a request: not found, invalid, conflicting.

    Args:
        message: The CRM's own words.
        crm_status: The HTTP status the CRM gave.
    """

    code = "crm_refused"

    def __init__(self, message: str, *, crm_status: int, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details={"crm_status": crm_status, **(details or {})})
        self.crm_status = crm_status


class CrmUnauthorized(CrmError):
    """Raise when the CRM answers 401 or 403: the key is wrong, and no retry mends it."""

    code = "crm_unauthorized"


class CrmUnavailable(CrmError):
    """Raise when the CRM cannot be reached, times out, or keeps answering 429 or 5xx."""

    code = "crm_unavailable"
    status = 503
