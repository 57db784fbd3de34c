"""The exception tree of the service.

::

    ServiceError                500
    ├── StartupError                 the service cannot start (a setting, a port, the database)
    ├── InvalidRequest          422  the request is well-formed, but its content is not valid
    ├── BadRequest              400  the parts of the request contradict each other
    ├── AlreadyExists           409  what the request would create exists
    ├── NotFound                404  what the request names does not exist, or is not the caller's
    ├── Unauthenticated         401  no credential, or an invalid one
    ├── IssuerUnavailable       503  a token cannot be verified, because its issuer's keys cannot be fetched
    ├── Forbidden               403  the caller's scopes or address do not allow the request
    ├── RateLimited             429  the tenant has used up its requests of the window
    ├── BodyTooLarge            413
    ├── BodyTooSlow             408  the body did not arrive in time
    ├── KeyReused               422  the idempotency key was used for another request
    ├── SessionRefused          403  the session or thread is another contact's
    ├── ThreadBusy              409  another run holds the thread
    ├── InterruptPending        409  the thread waits for a person's decision
    ├── NothingToResume         409  the thread waits for nothing
    ├── HeldByPerson            409  a person has taken the conversation over
    ├── NotHeld                 409  the caller has not taken the conversation over
    ├── WrongGraph              409  the thread belongs to another graph
    ├── TooManyRuns             429  no concurrency slot came free in time
    ├── StreamCut               408  the client reads its stream too slowly; the run goes on without it
    ├── RunStopped              503  the service is stopping; the run is saved at its last step
    ├── RunReplaced             409  a newer run took over the thread
    ├── ClaimLost               503  another replica executes the run now
    ├── RunLost                 500  the replicas that executed the run died, and none tries again
    ├── RunTimedOut             504
    ├── RunLimitReached         422  the graph took more super-steps than allowed
    ├── DatabaseUnavailable     503
    ├── EffectConflict          500  the key of an effect was used for another effect
    ├── ModelError              502  a model call failed
    │   ├── ModelUnavailable    503  after all attempts, of the fallback too
    │   ├── ModelMisconfigured  502  the provider rejects the key, the name or the request
    │   └── ModelRefused        502  the provider blocked the prompt or the reply
    ├── EmbeddingError          503  the embedding model failed after all attempts
    ├── MemoryUnavailable       503  the memory service or its database cannot be reached
    ├── MemoryRefused           422  the memory service rejects the request's content
    ├── TextRefused             500  the text may not be sent to a customer
    ├── OutgoingRefused         422  the address may not be called
    ├── OutgoingUnavailable     503  an allowed host cannot be reached
    ├── StepFailed              422  a step of a workflow cannot be done
    ├── InvalidDefinition       422  the workflow's definition or its input is not valid
    ├── WorkflowFailed          500  the workflow stopped at a step; it can be recovered
    └── CrmError                502  the CRM's answer breaks its contract
        ├── CrmRefused          502  the CRM answered 4xx: the model can act on it
        ├── CrmUnauthorized     502  the CRM does not accept our key
        └── CrmUnavailable      503  after all attempts

Each class carries its stable ``code`` (the ``error`` field of a response body) and its HTTP ``status``.
``service.errors`` maps them to ``{error, message, details}``; no other package needs to know HTTP.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ServiceError(RuntimeError):
    """Root of everything the service raises on purpose; raise one of its subclasses.

    It is a ``RuntimeError`` because LangGraph's dev server shows the messages of Python's own errors and
    hides all others behind "An internal error occurred".

    Args:
        message: What went wrong and what to do next, for the caller to read. Never a secret.
        details: JSON-serialisable facts for programs.
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
    """Raise when the service cannot start; the message is the line that the operator reads."""

    code = "startup_failed"


class InvalidRequest(ServiceError):
    """Raise when a request is well-formed but its content is not valid."""

    code = "invalid_request"
    status = 422


class BadRequest(ServiceError):
    """Raise when the parts of a request contradict each other, where LangGraph's clients expect 400."""

    code = "bad_request"
    status = 400


class AlreadyExists(ServiceError):
    """Raise when what a request would create exists, or its id is taken."""

    code = "already_exists"
    status = 409


class NotFound(ServiceError):
    """Raise when what a request names does not exist, or belongs to another tenant."""

    code = "not_found"
    status = 404


class ThreadBusy(ServiceError):
    """Raise when a thread has a run in progress and the caller chose not to wait."""

    code = "thread_busy"
    status = 409


class InterruptPending(ServiceError):
    """Raise when a new run would discard a question that waits for a person."""

    code = "interrupt_pending"
    status = 409


class NothingToResume(ServiceError):
    """Raise when a thread has no interrupt to answer and no step to continue with."""

    code = "nothing_to_resume"
    status = 409


class HeldByPerson(ServiceError):
    """Raise when a person has taken a conversation over and the request would have an agent go on with it."""

    code = "held_by_person"
    status = 409


class NotHeld(ServiceError):
    """Raise when somebody replies in a conversation that they have not taken over."""

    code = "not_held"
    status = 409


class WrongGraph(ServiceError):
    """Raise when a thread was started by another graph than the requested one."""

    code = "wrong_graph"
    status = 409


class TooManyRuns(ServiceError):
    """Raise when no concurrency slot came free in time."""

    code = "too_many_runs"
    status = 429


class RateLimited(ServiceError):
    """Raise when a tenant has used up the requests that its rate allows in the window."""

    code = "rate_limited"
    status = 429


class BodyTooLarge(ServiceError):
    """Raise when the body of a request exceeds the limit."""

    code = "too_large"
    status = 413


class BodyTooSlow(ServiceError):
    """Raise when the body of a request does not arrive in time."""

    code = "body_too_slow"
    status = 408


class StreamCut(ServiceError):
    """Raise when a client reads its stream too slowly; the run goes on to its end without it."""

    code = "stream_cut"
    status = 408


class RunStopped(ServiceError):
    """Raise when a run was stopped at a step boundary; its checkpoint is kept."""

    code = "run_stopped"
    status = 503


class RunReplaced(ServiceError):
    """Raise when a newer run on the thread replaced this one."""

    code = "run_replaced"
    status = 409


class ClaimLost(ServiceError):
    """Raise when a run belongs to another replica now, so that this one may write nothing more for it."""

    code = "claim_lost"
    status = 503


class RunLost(ServiceError):
    """Record for a run whose replicas died while they executed it, so often that none tries again."""

    code = "run_lost"


class RunTimedOut(ServiceError):
    """Raise when a run exceeded its time limit; its last checkpoint is kept."""

    code = "run_timed_out"
    status = 504


class RunLimitReached(ServiceError):
    """Raise when a graph took more super-steps than allowed."""

    code = "run_limit_reached"
    status = 422


class DatabaseUnavailable(ServiceError):
    """Raise when Postgres cannot be reached or does not accept work."""

    code = "database_unavailable"
    status = 503


class EffectConflict(ServiceError):
    """Raise when an effect's key was used with another action or other arguments, which is a bug of ours."""

    code = "effect_conflict"


class KeyReused(ServiceError):
    """Raise when an idempotency key, or a message's id, was used before for another request."""

    code = "idempotency_key_reused"
    status = 422


class ModelError(ServiceError):
    """Raise when a model call fails in a way that none of the subclasses describes."""

    code = "model_error"
    status = 502


class ModelUnavailable(ModelError):
    """Raise when the model and its fallback stayed unavailable through all attempts."""

    code = "model_unavailable"
    status = 503


class ModelMisconfigured(ModelError):
    """Raise when the provider rejects the key, the model's name or the request itself."""

    code = "model_misconfigured"


class ModelRefused(ModelError):
    """Raise when the provider blocks the prompt or the reply (safety, recitation, policy)."""

    code = "model_refused"


class EmbeddingError(ServiceError):
    """Raise when the embedding model is unavailable, rejects the call, or returns unusable vectors."""

    code = "embedding_failed"
    status = 503


class MemoryUnavailable(ServiceError):
    """Raise when the memory service, or its database, cannot be reached."""

    code = "memory_unavailable"
    status = 503


class MemoryRefused(ServiceError):
    """Raise when the memory service rejects the content of a request."""

    code = "memory_refused"
    status = 422


class SessionRefused(ServiceError):
    """Raise when a contact names a session or thread that belongs to another contact."""

    code = "session_refused"
    status = 403


class Unauthenticated(ServiceError):
    """Raise when a request has no credential, or an invalid one."""

    code = "unauthenticated"
    status = 401


class IssuerUnavailable(ServiceError):
    """Raise when a token cannot be verified because its issuer's keys cannot be fetched."""

    code = "issuer_unavailable"
    status = 503


class Forbidden(ServiceError):
    """Raise when the caller's scopes, or the address they call from, do not allow the request."""

    code = "forbidden"
    status = 403


class TextRefused(ServiceError):
    """Raise when a text may not be sent to a customer; the message says what is wrong with it."""

    code = "text_refused"


class OutgoingRefused(ServiceError):
    """Raise when an address may not be called: its host is not allowed, or is not on the internet."""

    code = "outgoing_refused"
    status = 422


class OutgoingUnavailable(ServiceError):
    """Raise when an allowed host cannot be reached."""

    code = "outgoing_unavailable"
    status = 503


class StepFailed(ServiceError):
    """Raise when a step of a workflow cannot be done.

    Args:
        message: For the author of the workflow. Never a secret.
        retryable: Whether the same step may succeed later.
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
    """Raise when a workflow's definition, or a run's input, is not valid; ``details`` lists the faults."""

    code = "invalid_definition"
    status = 422


class WorkflowFailed(ServiceError):
    """Raise when a workflow cannot continue by itself; its results are kept, and it can be recovered."""

    code = "workflow_failed"
    status = 500


class CrmError(ServiceError):
    """Raise when the CRM's answer breaks its contract."""

    code = "crm_error"
    status = 502


class CrmRefused(CrmError):
    """Raise when the CRM answers 4xx to a request: not found, invalid, conflicting.

    Args:
        message: The CRM's own message.
        crm_status: The CRM's HTTP status.
        details: More facts for programs.
    """

    code = "crm_refused"

    def __init__(self, message: str, *, crm_status: int, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details={"crm_status": crm_status, **(details or {})})
        self.crm_status = crm_status


class CrmUnauthorized(CrmError):
    """Raise when the CRM answers 401 or 403: the key is wrong, and no retry helps."""

    code = "crm_unauthorized"


class CrmUnavailable(CrmError):
    """Raise when the CRM cannot be reached, times out, or keeps answering 429 or 5xx."""

    code = "crm_unavailable"
    status = 503
