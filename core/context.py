"""What travels with a run: JSON-able parameters only, never a live thing."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Run parameters (LangGraph's ``context_schema``).

    Attributes:
        tenant: Whose data the run may touch. Set from authentication, never from a body.
        user: Who asked, within the tenant.
        locale: BCP 47 tag of the language to answer in; ``None``: the language of the message.
        model: ``provider:model`` that stands instead of MODEL for this run.
    """

    tenant: str = "default"
    user: str = "local"
    locale: str | None = None
    model: str | None = None


_context: ContextVar[Context | None] = ContextVar("context", default=None)


def set_context(context: Context) -> None:
    """Say whose run this task is, to what LangGraph gives no runtime: keys of caches.

    Holds for the task and for those it starts; a run has a task of its own.
    """
    _context.set(context)


def current_context() -> Context | None:
    """The parameters of the run in progress; ``None`` where nobody said whose it is."""
    return _context.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something, and in which run.

    Attributes:
        tenant: Whose data is touched.
        user: Who asked, as their authentication says.
        key_id: What vouched for them: ``key <id>``, ``token``, or nothing.
        thread_id: The thread it is done on; empty: on none.
        run_id: The run that does it; empty: none does.
    """

    tenant: str = "default"
    user: str = "local"
    key_id: str = ""
    thread_id: str = ""
    run_id: str = ""


_actor: ContextVar[Actor] = ContextVar("actor", default=Actor())  # noqa: B039 - it is frozen


def current_actor() -> Actor:
    """On whose behalf this task works."""
    return _actor.get()


def act_as(actor: Actor) -> None:
    """Say on whose behalf this task, and every task it starts from here on, works."""
    _actor.set(actor)
