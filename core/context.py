"""The parameters of a run, and the person or key on whose behalf the current task works."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Run parameters (LangGraph's ``context_schema``): JSON-serialisable values only.

    Attributes:
        tenant: The tenant whose data the run may touch. Set from authentication, never from a request body.
        user: The user within the tenant who sent the request.
        locale: BCP 47 tag of the language to answer in; ``None``: that of the message.
        model: ``provider:model`` to use instead of MODEL for this run.
        held_by: The person who has taken the conversation over, so that agents are silent; empty: nobody.
            Set by the service, never from a request body.
        is_from_person: Whether that person wrote the input's message, and not the customer; set likewise.
    """

    tenant: str = "default"
    user: str = "local"
    locale: str | None = None
    model: str | None = None
    held_by: str = ""
    is_from_person: bool = False


# Of the task in progress; the event loop reads it for each callback, without a call.
RUN_CONTEXT: Final[ContextVar[Context | None]] = ContextVar("run context", default=None)


def set_context(context: Context) -> None:
    """Set the run parameters of this task and of the tasks it starts from now on.

    For code that LangGraph gives no ``Runtime``, such as the keys of caches. Each run has a task of its own.
    """
    RUN_CONTEXT.set(context)


def current_context() -> Context | None:
    """Return the parameters of the run in progress, or ``None`` outside of runs."""
    return RUN_CONTEXT.get()


def current_tenant() -> str:
    """Return the tenant for whom this task works; empty: none in particular."""
    context = RUN_CONTEXT.get()
    return context.tenant if context else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something, and in which run; recorded with effects and in the audit trail.

    Attributes:
        tenant: The tenant whose data is touched.
        user: The authenticated user.
        key_id: How the user authenticated: ``key <id>``, ``token``, or empty.
        thread_id: The thread it is done on; empty: none.
        run_id: The run that does it; empty: none.
        attempt: Which attempt at the run this is, the fencing token of its claim; 0: it holds no claim, and
            nothing stops it from writing.
    """

    tenant: str = "default"
    user: str = "local"
    key_id: str = ""
    thread_id: str = ""
    run_id: str = ""
    attempt: int = 0


_actor: ContextVar[Actor] = ContextVar("actor", default=Actor())  # noqa: B039 - it is frozen


def current_actor() -> Actor:
    """Return the actor on whose behalf this task works."""
    return _actor.get()


def act_as(actor: Actor) -> None:
    """Set the actor of this task and of the tasks it starts from now on."""
    _actor.set(actor)
